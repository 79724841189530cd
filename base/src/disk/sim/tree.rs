//! The directories of a simulated disk: entries that processes see, entries on the platter, and the ordered
//! operations between the two.
//!
//! After a power cut a prefix of each directory's operations survives. A rename across two directories is one
//! operation in both: it survives whole or not at all, and is certain once both were synced.

use rand::Rng;
use rand::rngs::SmallRng;
use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::{Component, Path};

/// Number of a directory.
pub(super) type DirId = u64;
/// Number of a file.
pub(super) type FileId = u64;

/// What an entry names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Target {
    File(FileId),
    Dir(DirId),
}

type Entries = BTreeMap<String, Target>;

/// A set of entry changes that is atomic: at most one per directory, or several in one.
#[derive(Clone, Debug)]
struct Operation {
    edits: Vec<(DirId, String, Option<Target>)>,
    /// The directories that it changes and that were not synced since.
    unsynced: BTreeSet<DirId>,
}

impl Operation {
    fn new(edits: Vec<(DirId, String, Option<Target>)>) -> Self {
        let unsynced = edits.iter().map(|e| e.0).collect();
        Self { edits, unsynced }
    }

    /// Each directory that it changes, once.
    fn dirs(&self) -> BTreeSet<DirId> {
        self.edits.iter().map(|e| e.0).collect()
    }
}

/// A place in the tree: a directory and a name in it.
#[derive(Clone, Debug)]
pub(super) struct Place {
    pub(super) dir: DirId,
    pub(super) name: String,
}

/// All directories.
#[derive(Clone, Debug)]
pub(super) struct Tree {
    live: BTreeMap<DirId, Entries>,
    durable: BTreeMap<DirId, Entries>,
    pending: Vec<Operation>,
    next: u64,
}

const ROOT: DirId = 0;

fn invalid(path: &Path) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidInput, format!("not a plain relative path: {}", path.display()))
}

impl Tree {
    pub(super) fn new() -> Self {
        let root = BTreeMap::from([(ROOT, Entries::new())]);
        Self { live: root.clone(), durable: root, pending: Vec::new(), next: ROOT + 1 }
    }

    pub(super) fn fresh_id(&mut self) -> u64 {
        self.next += 1;
        self.next - 1
    }

    /// The number of the directory at `path`; `""` is the root.
    pub(super) fn dir(&self, path: &Path) -> io::Result<DirId> {
        let mut at = ROOT;
        for component in path.components() {
            let Component::Normal(name) = component else { return Err(invalid(path)) };
            let name = name.to_str().ok_or_else(|| invalid(path))?;
            at = match self.live.get(&at).and_then(|d| d.get(name)) {
                Some(Target::Dir(id)) => *id,
                Some(Target::File(_)) => return Err(io::ErrorKind::NotADirectory.into()),
                None => return Err(io::ErrorKind::NotFound.into()),
            };
        }
        Ok(at)
    }

    /// The directory and name that `path` denotes; the name need not exist.
    pub(super) fn place(&self, path: &Path) -> io::Result<Place> {
        let name = path.file_name().and_then(|n| n.to_str()).ok_or_else(|| invalid(path))?;
        Ok(Place { dir: self.dir(path.parent().unwrap_or(Path::new("")))?, name: name.to_owned() })
    }

    pub(super) fn get(&self, place: &Place) -> Option<Target> {
        self.live.get(&place.dir)?.get(&place.name).copied()
    }

    pub(super) fn list(&self, dir: DirId) -> impl Iterator<Item = (&String, &Target)> {
        self.live.get(&dir).into_iter().flatten()
    }

    pub(super) fn link(&mut self, place: &Place, target: Target) {
        if let Target::Dir(id) = target {
            self.live.insert(id, Entries::new());
            self.durable.insert(id, Entries::new());
        }
        self.perform(Operation::new(vec![(place.dir, place.name.clone(), Some(target))]));
    }

    pub(super) fn unlink(&mut self, place: &Place) {
        self.perform(Operation::new(vec![(place.dir, place.name.clone(), None)]));
    }

    pub(super) fn rename(&mut self, from: &Place, to: &Place, target: Target) {
        self.perform(Operation::new(vec![
            (from.dir, from.name.clone(), None),
            (to.dir, to.name.clone(), Some(target)),
        ]));
    }

    fn perform(&mut self, operation: Operation) {
        edit(&mut self.live, &operation);
        self.pending.push(operation);
    }

    /// Makes certain what was done in `dir` so far.
    pub(super) fn sync(&mut self, dir: DirId) {
        for operation in &mut self.pending {
            operation.unsynced.remove(&dir);
        }
        // What comes before a certain operation in one of its directories is certain, too.
        let mut certain = BTreeSet::new();
        let mut keep = vec![false; self.pending.len()];
        for (i, operation) in self.pending.iter().enumerate().rev() {
            if operation.unsynced.is_empty() || !operation.dirs().is_disjoint(&certain) {
                certain.extend(operation.dirs());
                keep[i] = true;
            }
        }
        let mut keep = keep.into_iter();
        let durable = &mut self.durable;
        self.pending.retain(|operation| {
            let is_certain = keep.next().unwrap_or(false);
            if is_certain {
                edit(durable, operation);
            }
            !is_certain
        });
    }

    /// What the platter holds after a power cut. `loose`: the order of operations on different names does not count.
    pub(super) fn after_crash(&self, loose: bool, rng: &mut SmallRng) -> Tree {
        if loose {
            return self.after_loose_crash(rng);
        }
        let mut left: BTreeMap<DirId, usize> = BTreeMap::new();
        for dir in self.pending.iter().flat_map(Operation::dirs) {
            *left.entry(dir).or_default() += 1;
        }
        for count in left.values_mut() {
            *count = rng.random_range(0..=*count);
        }
        let mut durable = self.durable.clone();
        for operation in &self.pending {
            let dirs = operation.dirs();
            if dirs.iter().all(|d| left[d] > 0) {
                edit(&mut durable, operation);
                dirs.iter().for_each(|d| *left.entry(*d).or_default() -= 1);
            } else {
                // Nothing after it in these directories.
                dirs.iter().for_each(|d| *left.entry(*d).or_default() = 0);
            }
        }
        Tree { live: durable.clone(), durable, pending: Vec::new(), next: self.next }
    }

    fn after_loose_crash(&self, rng: &mut SmallRng) -> Tree {
        let keep = [0.1, 0.5, 0.9][rng.random_range(0..3)];
        let mut durable = self.durable.clone();
        // Names of which an operation was lost: nothing later happens to them.
        let mut lost = BTreeSet::new();
        for operation in &self.pending {
            let names = || operation.edits.iter().map(|(dir, name, _)| (*dir, name.as_str()));
            if names().all(|name| !lost.contains(&name)) && rng.random_bool(keep) {
                edit(&mut durable, operation);
            } else {
                lost.extend(names());
            }
        }
        Tree { live: durable.clone(), durable, pending: Vec::new(), next: self.next }
    }

    /// The files that an entry on the platter, or one on its way there, names.
    pub(super) fn mentioned(&self) -> BTreeSet<FileId> {
        let durable = self.durable.values().flat_map(|d| d.values());
        let pending = self.pending.iter().flat_map(|o| o.edits.iter().filter_map(|e| e.2.as_ref()));
        let file = |target: &Target| match target {
            Target::File(id) => Some(*id),
            Target::Dir(_) => None,
        };
        durable.chain(pending).filter_map(file).collect()
    }

    /// The files that entries name.
    pub(super) fn files(&self) -> BTreeSet<FileId> {
        let mut files = BTreeSet::new();
        let mut dirs = vec![ROOT];
        while let Some(dir) = dirs.pop() {
            for (_, target) in self.list(dir) {
                match target {
                    Target::File(id) => {
                        files.insert(*id);
                    }
                    Target::Dir(id) => dirs.push(*id),
                }
            }
        }
        files
    }
}

fn edit(dirs: &mut BTreeMap<DirId, Entries>, operation: &Operation) {
    for (dir, name, target) in &operation.edits {
        let entries = dirs.entry(*dir).or_default();
        match target {
            Some(target) => entries.insert(name.clone(), *target),
            None => entries.remove(name),
        };
    }
}
