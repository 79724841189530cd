//! One path of each of some files, found in bounded steps: an entry knows its inode, an inode does not know its entries, so all
//! entries are walked through until every file is found.

use crate::admin::states::File;
use crate::node::Node;
use atoll_base::id::Ino;
use atoll_meta::{FsError, MetadataService};
use atoll_model::read::{self, Entry};
use std::collections::{BTreeMap, BTreeSet};

/// Entries looked at in one step: about a millisecond.
const STEP: usize = 4096;

/// Entries looked at for one listing; beyond, files are shown by their inodes.
const ENTRIES_MAX: usize = 8 << 20;

/// Directories on one path; the file system has no such limit, damage may have a circle.
const DEPTH_MAX: usize = 4096;

/// Files by inode, with a path where there is one.
pub(super) async fn files(node: &Node, inos: BTreeSet<Ino>) -> Result<BTreeMap<Ino, File>, FsError> {
    let volumes: BTreeMap<_, _> = node.meta.volumes().await?.into_iter().map(|v| (v.id, v.name)).collect();
    let mut files = BTreeMap::new();
    let mut wanted = BTreeSet::new();
    for ino in inos {
        let mut file = File { inode: ino.0, ..File::default() };
        match node.meta.getattr(ino).await {
            Ok(attr) => {
                file.volume = volumes.get(&attr.volume).cloned();
                wanted.insert(ino);
            }
            Err(FsError::Stale) => {}
            Err(error) => return Err(error),
        }
        files.insert(ino, file);
    }
    let mut search = Search { node, left: ENTRIES_MAX, dirs: BTreeMap::new() };
    for (ino, entry) in search.entries(None, wanted).await? {
        let path = search.path(entry).await?;
        if let Some(file) = files.get_mut(&ino) {
            file.path = path;
        }
    }
    Ok(files)
}

struct Search<'n> {
    node: &'n Node,
    /// Entries that may still be looked at.
    left: usize,
    /// Paths of directories, that of a root being empty.
    dirs: BTreeMap<Ino, Vec<u8>>,
}

impl Search<'_> {
    /// An entry of each of `wanted`, as far as there are any and the search may go.
    async fn entries(
        &mut self,
        within: Option<Ino>,
        mut wanted: BTreeSet<Ino>,
    ) -> Result<BTreeMap<Ino, Entry>, FsError> {
        let mut all = BTreeMap::new();
        let mut after = None;
        while !wanted.is_empty() && self.left > 0 {
            let step = STEP.min(self.left);
            let walked = self
                .node
                .meta
                .with_state(|kv| read::names(kv, within, after.as_ref(), &wanted, step))
                .await?;
            self.left -= step;
            for (ino, entry) in walked.found {
                // Of hard links the first.
                if wanted.remove(&ino) {
                    all.insert(ino, entry);
                }
            }
            after = walked.next;
            if after.is_none() {
                break;
            }
            tokio::task::yield_now().await;
        }
        Ok(all)
    }

    /// The path of an entry within its volume; `None` if the search went too far.
    async fn path(&mut self, entry: Entry) -> Result<Option<String>, FsError> {
        let mut below = vec![entry];
        let mut at = loop {
            let Some(Entry { dir, .. }) = below.last() else { return Ok(None) };
            let dir = *dir;
            if let Some(path) = self.dirs.get(&dir) {
                break path.clone();
            }
            let parent = match self.node.meta.parent(dir).await {
                Ok(parent) => parent,
                // Removed since.
                Err(FsError::Stale) => return Ok(None),
                Err(error) => return Err(error),
            };
            if parent == dir {
                self.dirs.insert(dir, Vec::new());
                continue;
            }
            match self.entries(Some(parent), BTreeSet::from([dir])).await?.remove(&dir) {
                Some(entry) if below.len() < DEPTH_MAX => below.push(entry),
                _ => return Ok(None),
            }
        };
        // From the top down; each directory on the way is remembered for the other files.
        while let Some(entry) = below.pop() {
            at.push(b'/');
            at.extend_from_slice(&entry.name);
            if let Some(next) = below.last() {
                self.dirs.insert(next.dir, at.clone());
            }
        }
        Ok(Some(String::from_utf8_lossy(&at).into_owned()))
    }
}
