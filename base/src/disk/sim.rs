//! A disk in memory that loses power.
//!
//! [`SimDisk`] takes POSIX at its word and no more. A file has a durable image and a list of unsynced changes;
//! a directory has durable entries and an ordered list of unsynced operations. [`SimDisk::crash`] gives what
//! the platter holds after a power cut:
//!
//! - each unsynced write is kept, dropped, or torn at 512-byte sectors, independently of the others, and the
//!   length that it implies is old, new or in between, independently of its data;
//! - of each directory's unsynced operations a prefix survives; a rename across two directories is one
//!   operation in both. (Of a malicious disk, see [`Malice`]: any of them survive, those on one name in order);
//! - a synced file whose entry was never synced is lost; an unsynced file whose entry survived has any subset
//!   of its data.
//!
//! Faults: the power goes after a number of operations, the sync of a *site* does nothing, or fails once, a
//! write fails once, the disk is full, bits rot. The sites that were seen are recorded with their counts, so
//! that a campaign can go through "delete any one sync".

mod file;
mod image;
mod node;
mod state;
#[cfg(test)]
mod tests;
mod tree;

use super::{Disk, Entry, File, Open, Space};
use file::SimFile;
use image::CHUNK;
use node::{Luck, Node};
use rand::SeedableRng;
use rand::rngs::SmallRng;
use state::{Power, State, finish};
use std::collections::BTreeMap;
use std::io;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tree::{FileId, Target};

/// The simulated disk. Clones are the same disk.
#[derive(Clone)]
pub struct SimDisk(Arc<Mutex<State>>);

/// What a disk may do beyond what usual file systems do, though nobody promised that it does not. It carries over
/// from life to life.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Malice {
    /// Of a directory's unsynced operations any may survive a power cut, not only a prefix; those on one name in order.
    pub loose_entries: bool,
    /// A process that dies during a write ([`SimDisk::restart`]) has written only a part of it: from the front, in whole
    /// pages of the file, as Linux looks for fatal signals between pages.
    pub cut_writes: bool,
}

impl Default for SimDisk {
    fn default() -> Self {
        Self::new()
    }
}

impl SimDisk {
    /// An empty disk of unlimited capacity.
    pub fn new() -> Self {
        Self(Arc::new(Mutex::new(State::new())))
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Cuts the power, if it has not gone yet, and gives the disk as it is found afterwards, all durable. This
    /// disk and its handles answer with errors from now on. Capacity, skipped sites and counts carry over;
    /// faults that did not come to pass do not.
    pub fn crash(&self, seed: u64) -> SimDisk {
        let mut old = self.lock();
        old.power = Power::Off;
        let mut rng = SmallRng::seed_from_u64(seed);
        let luck = Luck::draw(&mut rng);
        let tree = old.tree.after_crash(old.malice.loose_entries, &mut rng);
        let files: BTreeMap<FileId, Node> = tree
            .files()
            .into_iter()
            .filter_map(|id| Some((id, old.files.get(&id)?.after_crash(luck, &mut rng))))
            .collect();
        let used = files.values().map(|n| n.live().allocated()).sum();
        SimDisk(Arc::new(Mutex::new(State {
            tree,
            files,
            capacity: old.capacity,
            used,
            skipped: old.skipped.clone(),
            sites: old.sites.clone(),
            malice: old.malice,
            ..State::new()
        })))
    }

    /// What a new process finds after the old one died (or its power was "cut"): all that was written is there,
    /// durable or not. This disk and its handles answer with errors from now on. All but the faults that did not
    /// come to pass carries over.
    pub fn restart(&self) -> SimDisk {
        let mut old = self.lock();
        old.power = Power::Off;
        let mut new = State {
            tree: old.tree.clone(),
            files: old.files.clone(),
            capacity: old.capacity,
            used: old.used,
            unlinked: old.unlinked.clone(),
            skipped: old.skipped.clone(),
            sites: old.sites.clone(),
            malice: old.malice,
            ..State::new()
        };
        new.collect();
        SimDisk(Arc::new(Mutex::new(new)))
    }

    /// Cuts the power now.
    pub fn cut_power(&self) {
        self.lock().power = Power::Off;
    }

    /// Lets `operations` more changes and syncs through (reads don't count) and cuts the power during the
    /// next: that one fails, but a change may have reached the platter.
    pub fn cut_power_after(&self, operations: u64) {
        self.lock().power = Power::Counting(operations);
    }

    /// Cuts the power during the `n`-th sync of `site` from now, counted from 0, before it takes effect.
    pub fn cut_power_at(&self, site: &str, n: u64) {
        self.lock().cut_at = Some((site.to_owned(), n));
    }

    /// Makes the disk worse than usual.
    pub fn set_malice(&self, malice: Malice) {
        self.lock().malice = malice;
    }

    /// Whether the power has gone.
    pub fn is_off(&self) -> bool {
        self.lock().power == Power::Off
    }

    /// Changes and syncs so far.
    pub fn operations(&self) -> u64 {
        self.lock().operations
    }

    /// Makes the syncs of `site` do nothing and succeed.
    pub fn skip_site(&self, site: &str) {
        self.lock().skipped.insert(site.to_owned());
    }

    /// Makes the next sync of `site` fail with EIO. The unsynced changes it was to cover are lost for good, as
    /// on Linux: processes still see them, no later sync brings them to the platter. (Of a directory: the sync
    /// only fails.)
    pub fn fail_next_sync(&self, site: &str) {
        self.lock().failing_syncs.insert(site.to_owned());
    }

    /// Makes the next `n` writes fail with EIO. What they would have written may or may not be there.
    pub fn fail_next_writes(&self, n: u64) {
        self.lock().failing_writes = n;
    }

    /// Sets the capacity in bytes; a write or allocation beyond it fails with ENOSPC and changes nothing.
    /// Space is counted in 4 KiB units; a removed file takes none, open or not.
    pub fn set_capacity(&self, bytes: u64) {
        self.lock().capacity = bytes;
    }

    /// Bytes taken by files.
    pub fn used(&self) -> u64 {
        self.lock().used * CHUNK
    }

    /// Inverts the bits of `mask` in one byte of a file, on the platter. Beyond its end: nothing.
    pub fn rot(&self, path: &Path, offset: u64, mask: u8) -> io::Result<()> {
        let mut state = self.lock();
        match state.tree.get(&state.tree.place(path)?) {
            Some(Target::File(id)) => {
                state.node(id).rot(offset, mask);
                Ok(())
            }
            _ => Err(io::ErrorKind::NotFound.into()),
        }
    }

    /// The sites of all syncs so far, with how often each was called (skipped and failed calls included).
    pub fn sites(&self) -> BTreeMap<&'static str, u64> {
        self.lock().sites.clone()
    }
}

impl Disk for SimDisk {
    fn open(&self, path: &Path, how: Open) -> io::Result<Arc<dyn File>> {
        let mut state = self.lock();
        state.powered()?;
        let place = state.tree.place(path)?;
        let id = match (state.tree.get(&place), how) {
            (Some(Target::Dir(_)), _) => return Err(io::ErrorKind::IsADirectory.into()),
            (Some(_), Open::CreateNew) => return Err(io::ErrorKind::AlreadyExists.into()),
            (Some(Target::File(id)), _) => id,
            (None, Open::Read | Open::ReadWrite) => return Err(io::ErrorKind::NotFound.into()),
            (None, Open::Create | Open::CreateNew) => {
                let step = state.step()?;
                let id = state.tree.fresh_id();
                state.files.insert(id, Node::default());
                state.tree.link(&place, Target::File(id));
                finish(step)?;
                id
            }
        };
        *state.handles.entry(id).or_default() += 1;
        drop(state);
        Ok(Arc::new(SimFile { disk: self.clone(), id, writable: how != Open::Read }))
    }

    fn create_dir(&self, path: &Path) -> io::Result<()> {
        let mut state = self.lock();
        state.powered()?;
        let place = state.tree.place(path)?;
        if state.tree.get(&place).is_some() {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        let step = state.step()?;
        let id = state.tree.fresh_id();
        state.tree.link(&place, Target::Dir(id));
        finish(step)
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        let mut state = self.lock();
        state.powered()?;
        let (from, to) = (state.tree.place(from)?, state.tree.place(to)?);
        let target = match state.tree.get(&from) {
            Some(file @ Target::File(_)) => file,
            Some(Target::Dir(_)) => return Err(io::ErrorKind::IsADirectory.into()),
            None => return Err(io::ErrorKind::NotFound.into()),
        };
        let replaced = state.tree.get(&to);
        if matches!(replaced, Some(Target::Dir(_))) {
            return Err(io::ErrorKind::IsADirectory.into());
        }
        let step = state.step()?;
        if replaced != Some(target) {
            state.free(replaced);
            state.tree.rename(&from, &to, target);
        }
        finish(step)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        let mut state = self.lock();
        state.powered()?;
        let place = state.tree.place(path)?;
        match state.tree.get(&place) {
            Some(Target::File(_)) => {}
            Some(Target::Dir(_)) => return Err(io::ErrorKind::IsADirectory.into()),
            None => return Err(io::ErrorKind::NotFound.into()),
        }
        let step = state.step()?;
        let target = state.tree.get(&place);
        state.free(target);
        state.tree.unlink(&place);
        finish(step)
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<Entry>> {
        let state = self.lock();
        state.powered()?;
        let dir = state.tree.dir(dir)?;
        let entry = |(name, target): (&String, &Target)| Entry {
            name: name.clone(),
            is_dir: matches!(target, Target::Dir(_)),
        };
        Ok(state.tree.list(dir).map(entry).collect())
    }

    fn sync_dir(&self, dir: &Path, site: &'static str) -> io::Result<()> {
        let mut state = self.lock();
        let takes_effect = state.sync_takes_effect(site)?;
        let dir = state.tree.dir(dir)?;
        if state.failing_syncs.remove(site) {
            return Err(rustix::io::Errno::IO.into());
        }
        if takes_effect {
            state.tree.sync(dir);
            state.collect();
        }
        Ok(())
    }

    fn space(&self) -> io::Result<Space> {
        let state = self.lock();
        state.powered()?;
        let available = state.capacity.saturating_sub(state.used * CHUNK);
        Ok(Space { total: state.capacity, available })
    }
}
