//! What is dirty about one file. See [`super`] for the invariants.

use super::budget::{Budget, Claim};
use super::ranges::RangeMap;
use super::room::Room;
use atoll_base::access::{Cred, Perm, permits};
use atoll_base::attr::{Attr, Before, Delegated};
use atoll_base::id::{Epoch, Ino};
use atoll_base::time::Timestamp;
use atoll_meta::nfs4::ClientId;
use atoll_meta::{Change, FsError, OnceKey, Outcome, Response};
use bytes::Bytes;
use std::ops::Range;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::time::Instant;

/// What the record of one covered WRITE costs in memory: key, response, map entry.
pub(crate) const COVERED_COST: u64 = 768;

/// Blocks are counted in these when `used` is guessed for data that has no place yet.
const USED_UNIT: u64 = 4096;

/// Bytes by offset, in order.
pub(crate) type Slices = Vec<(u64, Bytes)>;

/// A file's entry in the table.
#[derive(Debug)]
pub(crate) struct File {
    pub(crate) ino: Ino,
    pub(crate) room: Room,
    /// Held by whoever flushes the file, until the outcome is settled.
    pub(crate) flush: tokio::sync::Mutex<()>,
    /// Held by whoever takes or renews the lease: others wait for the result instead of asking too.
    pub(crate) leasing: tokio::sync::Mutex<()>,
    state: Mutex<State>,
}

/// The write lease.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Lease {
    /// In which life of this frontend it was taken.
    pub(crate) epoch: Epoch,
    pub(crate) change_ceiling: u64,
    pub(crate) ctime_ceiling: Timestamp,
}

/// A WRITE whose data are not in the store yet, and its outcome.
#[derive(Clone, Debug)]
pub(crate) struct Covered {
    pub(crate) key: OnceKey,
    /// Its data: first byte, and first byte behind.
    pub(crate) start: u64,
    pub(crate) end: u64,
    pub(crate) response: Arc<Response>,
}

/// Attributes that clients were shown ahead of the store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Shown {
    pub(crate) size: u64,
    pub(crate) mtime: Timestamp,
    pub(crate) ctime: Timestamp,
    pub(crate) change: u64,
    /// Distinct bytes without a place in the store.
    pub(crate) dirty: u64,
}

impl Shown {
    /// Lays these over what the store says. Each field takes the later of both: should the store be ahead (a name of
    /// the file was removed just now), that is not taken back.
    pub(crate) fn overlay(&self, attr: &mut Attr) {
        if attr.change <= self.change {
            attr.mtime = self.mtime;
        }
        attr.size = attr.size.max(self.size);
        attr.ctime = attr.ctime.max(self.ctime);
        attr.change = attr.change.max(self.change);
        let most = attr.size.div_ceil(USED_UNIT).saturating_mul(USED_UNIT);
        attr.used = attr.used.max(attr.used.saturating_add(self.dirty).min(most));
    }
}

/// One UNSTABLE WRITE to be taken in.
#[derive(Debug)]
pub(crate) struct Write<'a> {
    pub(crate) cred: &'a Cred,
    /// The NFSv4 client, if known.
    pub(crate) client: Option<ClientId>,
    pub(crate) offset: u64,
    pub(crate) data: &'a Bytes,
    /// Under what its outcome is kept; of a session's request the slot keeps it.
    pub(crate) key: Option<OnceKey>,
    /// The verifier read before: should data be lost from now on, the reply shows the old one.
    pub(crate) verifier: u64,
    pub(crate) now: Timestamp,
    pub(crate) epoch: Epoch,
    /// Whether the lease was taken or renewed for this write: set-id bits are as this caller's write leaves them.
    pub(crate) leased: bool,
}

/// Why a write was not taken in.
#[derive(Debug)]
pub(crate) enum Admission {
    /// A lease must be taken or renewed first.
    NeedsLease,
    /// Refused, with the file's attributes.
    Refused(FsError, Box<Attr>),
}

/// What one flush takes on.
#[derive(Debug)]
pub(crate) struct Work {
    pub(crate) generation: u32,
    pub(crate) epoch: Epoch,
    pub(crate) segments: Vec<(u64, Bytes)>,
    pub(crate) shown: Shown,
    pub(crate) covered: Vec<Covered>,
}

#[derive(Debug, Default)]
pub(crate) struct State {
    leased: Option<Leased>,
    /// Accepted and not in a flush.
    fresh: RangeMap,
    /// Being flushed; below `fresh` where both have bytes.
    flushing: RangeMap,
    /// Of `fresh`.
    covered: Vec<Covered>,
    /// Of `flushing`.
    covered_flushing: usize,
    /// Room reserved in the block store.
    reserved: u64,
    /// What the budget was told.
    charged: u64,
    /// When the oldest of `fresh` was accepted.
    since: Option<Instant>,
    /// Bytes in `fresh` when it was last looked at for what can be flushed early.
    looked: u64,
}

#[derive(Debug)]
struct Leased {
    lease: Lease,
    /// For whom it was taken or renewed last, if no delegation was given since.
    client: Option<ClientId>,
    /// The file in the store, as last seen.
    base: Attr,
    shown: Shown,
}

impl File {
    pub(crate) fn new(ino: Ino) -> Self {
        Self {
            ino,
            room: Room::default(),
            flush: tokio::sync::Mutex::default(),
            leasing: tokio::sync::Mutex::default(),
            state: Mutex::default(),
        }
    }

    pub(crate) fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// Whether a lease is held. Without one there are no data.
    pub(crate) fn is_leased(&self) -> bool {
        self.leased.is_some()
    }

    /// Whether data were accepted that no flush has taken on.
    pub(crate) fn has_fresh(&self) -> bool {
        !self.fresh.is_empty() || !self.covered.is_empty()
    }

    /// When the oldest data not in a flush were accepted, and how many bytes there are.
    pub(crate) fn age(&self) -> Option<(Instant, u64)> {
        self.since.map(|since| (since, self.fresh.bytes()))
    }

    /// The attributes as clients were shown them.
    pub(crate) fn shown(&self) -> Option<Shown> {
        let dirty = self.fresh.bytes() + self.flushing.bytes();
        self.leased.as_ref().map(|l| Shown { dirty, ..l.shown })
    }

    /// The whole file as clients were shown it.
    pub(crate) fn attr(&self) -> Option<Attr> {
        let shown = self.shown()?;
        let mut attr = self.leased.as_ref()?.base.clone();
        shown.overlay(&mut attr);
        Some(attr)
    }

    /// Dirty bytes within `start..end`: those being flushed, and the fresh ones that lie over them.
    pub(crate) fn layers(&self, start: u64, end: u64) -> (Slices, Slices) {
        (self.flushing.slices(start, end).collect(), self.fresh.slices(start, end).collect())
    }

    fn cost(&self) -> u64 {
        let covered = (self.covered.len() + self.covered_flushing) as u64 * COVERED_COST;
        self.fresh.cost() + self.flushing.cost() + covered
    }

    fn recharge(&mut self, budget: &Budget) {
        let cost = self.cost();
        budget.settle(self.charged, cost);
        self.charged = cost;
    }

    /// A lease was taken or renewed; `base` is the file as the store has it after that. Returns whether it is new.
    pub(crate) fn grant(&mut self, lease: Lease, base: Attr, client: Option<ClientId>) -> bool {
        match &mut self.leased {
            Some(l) => {
                l.lease = lease;
                l.client = client;
                l.shown.size = l.shown.size.max(base.size);
                l.shown.ctime = l.shown.ctime.max(base.ctime);
                l.shown.change = l.shown.change.max(base.change);
                l.base = base;
                false
            }
            None => {
                let Before { size, mtime, ctime, change } = base.before();
                self.leased = Some(Leased {
                    lease,
                    client,
                    base,
                    shown: Shown { size, mtime, ctime, change, dirty: 0 },
                });
                true
            }
        }
    }

    /// The store changed the file though the lease is held: a name was added or removed.
    pub(crate) fn note(&mut self, after: &Attr) {
        if let Some(l) = &mut self.leased
            && after.change >= l.base.change
        {
            if after.delegated > l.base.delegated {
                l.client = None;
            }
            l.base = after.clone();
            l.shown.ctime = l.shown.ctime.max(after.ctime);
            l.shown.change = l.shown.change.max(after.change);
        }
    }

    /// The lease, if one is held.
    pub(crate) fn lease(&self) -> Option<Lease> {
        self.leased.as_ref().map(|l| l.lease)
    }

    /// Takes in a write, and returns its outcome. The caller is in the room as
    /// [`super::room::Kind::Unstable`], has reserved room for the data in the block store, and has claimed memory.
    pub(crate) fn accept<'b>(
        &mut self,
        write: &Write<'_>,
        claim: Claim<'b>,
    ) -> Result<Arc<Response>, (Admission, Claim<'b>)> {
        let Some(l) = &mut self.leased else { return Err((Admission::NeedsLease, claim)) };
        if l.lease.epoch != write.epoch {
            return Err((Admission::NeedsLease, claim));
        }
        // Whether a delegation is in the way of this client the store must say: the holder's own writes are not a reason to take others' in.
        if l.base.delegated != Delegated::No && (l.client.is_none() || l.client != write.client) {
            return Err((Admission::NeedsLease, claim));
        }
        // The owner may always write: NFS has no open, and a file may be created without permission to write it.
        let may = write.cred.uid == l.base.uid
            || permits(write.cred, &l.base, Perm::WRITE)
            || write.offset >= l.shown.size && permits(write.cred, &l.base, Perm::APPEND);
        if !may {
            let attr = self.attr().expect("leased");
            return Err((Admission::Refused(FsError::AccessDenied, Box::new(attr)), claim));
        }
        let set_id = l.base.mode & 0o4000 != 0 || l.base.mode & 0o2010 == 0o2010;
        if set_id && !write.cred.is_superuser() && !write.leased {
            return Err((Admission::NeedsLease, claim));
        }
        let ctime = write.now.max(l.shown.ctime.next());
        let change = l.shown.change + 1;
        if ctime > l.lease.ctime_ceiling || change > l.lease.change_ceiling {
            return Err((Admission::NeedsLease, claim));
        }
        let before =
            Before { size: l.shown.size, mtime: l.shown.mtime, ctime: l.shown.ctime, change: l.shown.change };
        let end = write.offset + write.data.len() as u64;
        l.shown = Shown { size: l.shown.size.max(end), mtime: ctime, ctime, change, dirty: 0 };
        self.fresh.insert(write.offset, write.data.clone());
        self.reserved += write.data.len() as u64;
        self.since.get_or_insert_with(Instant::now);

        let after = self.attr().expect("leased");
        let response = Arc::new(Response {
            result: Ok(Outcome::Written { verifier: write.verifier }),
            changes: vec![Change { before, after }],
        });
        if let Some(key) = write.key {
            self.covered.push(Covered { key, start: write.offset, end, response: response.clone() });
        }
        let cost = self.cost();
        claim.exchange(self.charged, cost);
        self.charged = cost;
        Ok(response)
    }

    /// Moves what is fresh into a flush. `None` if no lease is held, which is to say that nothing is dirty.
    pub(crate) fn begin_flush(&mut self) -> Option<Work> {
        let shown = self.shown()?;
        let (generation, epoch) = {
            let l = self.leased.as_ref()?;
            (l.base.generation, l.lease.epoch)
        };
        self.since = None;
        self.looked = 0;
        let (fresh, covered) = (std::mem::take(&mut self.fresh), std::mem::take(&mut self.covered));
        Some(self.work(generation, epoch, shown, fresh, covered))
    }

    fn work(
        &mut self,
        generation: u32,
        epoch: Epoch,
        shown: Shown,
        bytes: RangeMap,
        covered: Vec<Covered>,
    ) -> Work {
        assert!(self.flushing.is_empty(), "one flush of a file at a time");
        let segments = bytes.iter().map(|(at, data)| (at, data.clone())).collect();
        self.flushing = bytes;
        self.covered_flushing = covered.len();
        Work { generation, epoch, segments, shown, covered }
    }

    /// Whether `step` bytes came since it was last asked whether something can be flushed early.
    pub(crate) fn is_time_to_look(&mut self, step: u64) -> bool {
        let now = self.fresh.bytes() >= self.looked + step;
        if now {
            self.looked = self.fresh.bytes();
        }
        now
    }

    /// Moves what makes whole pieces of `unit` bytes into a flush, and the outcomes of the WRITEs of which nothing is left
    /// behind; `None` if that is not `least` bytes.
    pub(crate) fn begin_early_flush(&mut self, unit: u64, least: u64) -> Option<Work> {
        let shown = self.shown()?;
        let (generation, epoch) = {
            let l = self.leased.as_ref()?;
            (l.base.generation, l.lease.epoch)
        };
        let whole = self.fresh.take_whole(unit, least)?;
        let fresh = &self.fresh;
        let gone = |c: &mut Covered| fresh.slices(c.start, c.end).next().is_none();
        let covered = self.covered.extract_if(.., gone).collect();
        self.looked = self.fresh.bytes();
        if !self.has_fresh() {
            self.since = None;
        }
        Some(self.work(generation, epoch, shown, whole, covered))
    }

    /// A part of a flush is in the store. Returns the room to give back to the block store, and whether the lease
    /// ended by it.
    pub(crate) fn flushed(&mut self, part: Flushed<'_>, budget: &Budget) -> (u64, bool) {
        let Some(l) = self.leased.as_mut().filter(|l| l.lease.epoch == part.epoch) else {
            // All was forgotten meanwhile: this life of the frontend is over.
            return (0, false);
        };
        if let Some(after) = part.after
            && after.change >= l.base.change
        {
            l.base = after;
        }
        for (start, end) in part.ranges {
            self.flushing.clear(*start, *end);
        }
        self.covered_flushing -= part.covered;
        if part.released {
            assert!(self.flushing.is_empty() && !self.has_fresh(), "a lease ends when nothing is dirty");
            self.leased = None;
        }
        self.recharge(budget);
        // Bytes written twice were reserved twice; what is there needs no more than its length.
        let needed = self.flushing.bytes() + self.fresh.bytes();
        let back = self.reserved.saturating_sub(needed);
        self.reserved -= back;
        (back, part.released)
    }

    /// Drops bytes of a flush that cannot go into the store: from now on the file is shown without them, as of a later change. `None`, and nothing is
    /// dropped, if the lease does not reach so far.
    pub(crate) fn refuse(&mut self, epoch: Epoch, ranges: &[Range<u64>], budget: &Budget) -> Option<Shown> {
        let l = self.leased.as_mut().filter(|l| l.lease.epoch == epoch)?;
        let (change, ctime) = (l.shown.change + 1, l.shown.ctime.next());
        if change > l.lease.change_ceiling || ctime > l.lease.ctime_ceiling {
            return None;
        }
        ranges.iter().for_each(|range| self.flushing.clear(range.start, range.end));
        let size = l.base.size.max(self.flushing.end()).max(self.fresh.end());
        // mtime too: there are clients that know their cached data by it alone.
        l.shown = Shown { size, mtime: ctime, ctime, change, dirty: 0 };
        self.recharge(budget);
        self.shown()
    }

    /// Forgets everything: the data were lost, or the file is gone. Returns the room to give back, and the
    /// WRITEs that are forgotten.
    pub(crate) fn forget(&mut self, budget: &Budget) -> (u64, Vec<Covered>) {
        self.fresh = RangeMap::default();
        self.flushing = RangeMap::default();
        self.covered_flushing = 0;
        self.leased = None;
        self.since = None;
        let covered = std::mem::take(&mut self.covered);
        self.recharge(budget);
        (std::mem::take(&mut self.reserved), covered)
    }
}

/// A part of a flush that is in the store.
#[derive(Debug)]
pub(crate) struct Flushed<'a> {
    /// In which life of the frontend.
    pub(crate) epoch: Epoch,
    /// Byte ranges.
    pub(crate) ranges: &'a [(u64, u64)],
    /// Number of outcomes that went along.
    pub(crate) covered: usize,
    /// The file after.
    pub(crate) after: Option<Attr>,
    /// Whether the lease ended.
    pub(crate) released: bool,
}
