//! What a simulated disk is at a moment: names, files, power, accounts of space, and the faults to come.
//!
//! Every change and every sync begins with [`State::step`] or [`State::sync_takes_effect`], where the power may go.

use super::Malice;
use super::image::CHUNK;
use super::node::Node;
use super::tree::{FileId, Target, Tree};
use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::ops::Range;

/// Room on a disk whose capacity was not set: more than any test writes.
const UNLIMITED: u64 = 1 << 50;

pub(super) struct State {
    pub(super) tree: Tree,
    pub(super) files: BTreeMap<FileId, Node>,
    pub(super) power: Power,
    /// Changes and syncs so far.
    pub(super) operations: u64,
    /// Bytes.
    pub(super) capacity: u64,
    /// Chunks taken by files that have an entry.
    pub(super) used: u64,
    /// Files without an entry, which live on while a handle or the platter knows them.
    pub(super) unlinked: BTreeSet<FileId>,
    pub(super) handles: BTreeMap<FileId, usize>,
    pub(super) skipped: BTreeSet<String>,
    pub(super) failing_syncs: BTreeSet<String>,
    pub(super) failing_writes: u64,
    pub(super) sites: BTreeMap<&'static str, u64>,
    /// The power goes during so many-th sync of this site, counted from 0.
    pub(super) cut_at: Option<(String, u64)>,
    pub(super) malice: Malice,
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Power {
    On,
    /// Goes after so many more operations.
    Counting(u64),
    Off,
}

/// Whether an operation completes.
#[derive(PartialEq, Eq)]
pub(super) enum Step {
    Whole,
    /// The power goes while it is under way: it may have reached the platter, but nobody hears of it.
    Dying,
}

fn power_is_off() -> io::Error {
    io::Error::other("the power of the simulated disk is off")
}

impl State {
    /// A disk without files, whose power is on.
    pub(super) fn new() -> Self {
        Self {
            tree: Tree::new(),
            files: BTreeMap::new(),
            power: Power::On,
            operations: 0,
            capacity: UNLIMITED,
            used: 0,
            unlinked: BTreeSet::new(),
            handles: BTreeMap::new(),
            skipped: BTreeSet::new(),
            failing_syncs: BTreeSet::new(),
            failing_writes: 0,
            sites: BTreeMap::new(),
            cut_at: None,
            malice: Malice::default(),
        }
    }

    pub(super) fn powered(&self) -> io::Result<()> {
        if self.power == Power::Off { Err(power_is_off()) } else { Ok(()) }
    }

    /// Begins a change or a sync.
    pub(super) fn step(&mut self) -> io::Result<Step> {
        self.powered()?;
        self.operations += 1;
        match self.power {
            Power::Counting(0) => {
                self.power = Power::Off;
                return Ok(Step::Dying);
            }
            Power::Counting(n) => self.power = Power::Counting(n - 1),
            Power::On | Power::Off => {}
        }
        Ok(Step::Whole)
    }

    /// Records the site of a sync and says whether the sync is to take effect.
    pub(super) fn sync_takes_effect(&mut self, site: &'static str) -> io::Result<bool> {
        *self.sites.entry(site).or_default() += 1;
        if self.step()? == Step::Dying {
            return Err(power_is_off());
        }
        if let Some((at, left)) = &mut self.cut_at
            && at == site
        {
            if *left == 0 {
                self.power = Power::Off;
                return Err(power_is_off());
            }
            *left -= 1;
        }
        Ok(!self.skipped.contains(site))
    }

    /// A sync of a file, or of a part of it.
    pub(super) fn sync(
        &mut self,
        id: FileId,
        site: &'static str,
        sync: impl FnOnce(&mut Node),
    ) -> io::Result<()> {
        let takes_effect = self.sync_takes_effect(site)?;
        if self.failing_syncs.remove(site) {
            self.node(id).lose_pending();
            return Err(rustix::io::Errno::IO.into());
        }
        if takes_effect {
            sync(self.node(id));
        }
        Ok(())
    }

    pub(super) fn node(&mut self, id: FileId) -> &mut Node {
        self.files.get_mut(&id).expect("a file lives as long as its disk")
    }

    pub(super) fn reserve(&mut self, id: FileId, range: Range<u64>) -> io::Result<()> {
        let missing = self.node(id).live().missing(range);
        if (self.used + missing) * CHUNK > self.capacity {
            return Err(rustix::io::Errno::NOSPC.into());
        }
        Ok(())
    }

    /// Runs a change of one file, with the accounts of space kept.
    pub(super) fn change(&mut self, id: FileId, change: impl FnOnce(&mut Node)) -> io::Result<()> {
        let step = self.step()?;
        let before = self.node(id).live().allocated();
        change(self.node(id));
        let after = self.node(id).live().allocated();
        if !self.unlinked.contains(&id) {
            self.used = self.used + after - before;
        }
        finish(step)
    }

    pub(super) fn free(&mut self, target: Option<Target>) {
        if let Some(Target::File(id)) = target {
            self.used -= self.node(id).live().allocated();
            self.unlinked.insert(id);
        }
    }

    /// Forgets the bytes of files that nothing can bring back.
    pub(super) fn collect(&mut self) {
        if self.unlinked.is_empty() {
            return;
        }
        let mentioned = self.tree.mentioned();
        self.unlinked.retain(|id| {
            let keep = mentioned.contains(id) || self.handles.contains_key(id);
            if !keep {
                self.files.remove(id);
            }
            keep
        });
    }
}

pub(super) fn finish(step: Step) -> io::Result<()> {
    if step == Step::Dying { Err(power_is_off()) } else { Ok(()) }
}
