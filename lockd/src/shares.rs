//! Share reservations of one file: which access each owner has and which access it denies to others. NLM SHARE
//! (RFC 1813 §6.1.4 nlm4_share, DOS file sharing) and NFSv4 OPEN (RFC 7530 §9.9) use the same table; byte-range locks
//! are independent of it.
//!
//! Opens of NFSv4 have rows of their own in the state machine, since a file can be opened by thousands and each OPEN rewrites this table;
//! here they are [`OpenCounts`]: how many have and deny what. That decides every conflict, because an OPEN conflicts with the
//! same owner's former one, too ("with no exception for an existing OPEN for the same open-owner", RFC 7530 §9.9).
//!
//! Invariant: of two reservations, neither denies what the other has.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::owner::LockOwner;
use crate::request::Bound;

/// Read and write, each or none. The numbers of fsh4_access, fsh4_mode (`nlm_prot.x`) and OPEN4_SHARE_* (RFC 7530 §9.9).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum ShareBits {
    /// Neither.
    None = 0,
    /// Read.
    Read = 1,
    /// Write.
    Write = 2,
    /// Both.
    Both = 3,
}

impl ShareBits {
    /// From the number on the wire; `None` if it is none of 0..=3 (the WANT flags of v4.1 are the engine's to take off).
    pub const fn from_wire(bits: u32) -> Option<Self> {
        match bits {
            0 => Some(Self::None),
            1 => Some(Self::Read),
            2 => Some(Self::Write),
            3 => Some(Self::Both),
            _ => None,
        }
    }

    /// The number on the wire.
    pub const fn to_wire(self) -> u32 {
        self as u32
    }

    /// Whether both have a bit in common.
    pub const fn intersects(self, other: Self) -> bool {
        self.to_wire() & other.to_wire() != 0
    }

    /// Whether every bit of `other` is in `self`.
    pub const fn contains(self, other: Self) -> bool {
        self.to_wire() & other.to_wire() == other.to_wire()
    }

    /// The bits of either.
    pub const fn union(self, other: Self) -> Self {
        match Self::from_wire(self.to_wire() | other.to_wire()) {
            Some(bits) => bits,
            None => Self::Both,
        }
    }
}

/// What an owner has and what it denies.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Share {
    /// What the owner may do (fsh4_access, share_access).
    pub access: ShareBits,
    /// What others may not do (fsh4_mode, share_deny).
    pub deny: ShareBits,
}

impl Share {
    /// Whether two opens can't both be.
    pub const fn conflicts_with(&self, other: &Self) -> bool {
        self.access.intersects(other.deny) || self.deny.intersects(other.access)
    }
}

/// A reservation that stands in the way.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ShareConflict {
    /// Whose; `None`: opens of NFSv4.
    pub owner: Option<LockOwner>,
    /// What it has and denies; of opens, all of them together.
    pub share: Share,
}

/// Opens of NFSv4 in one file, counted.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct OpenCounts {
    /// All.
    pub opens: u32,
    /// Those that read.
    pub read: u32,
    /// Those that write.
    pub write: u32,
    /// Those that deny reading.
    pub deny_read: u32,
    /// Those that deny writing.
    pub deny_write: u32,
}

impl OpenCounts {
    /// What all of them have and deny together.
    pub const fn together(&self) -> Share {
        const fn bits(read: u32, write: u32) -> ShareBits {
            match (read > 0, write > 0) {
                (false, false) => ShareBits::None,
                (true, false) => ShareBits::Read,
                (false, true) => ShareBits::Write,
                (true, true) => ShareBits::Both,
            }
        }
        Share { access: bits(self.read, self.write), deny: bits(self.deny_read, self.deny_write) }
    }

    /// Counts one more.
    #[must_use]
    pub fn with(self, share: Share) -> Self {
        let n = |bits: ShareBits, bit| u32::from(bits.intersects(bit));
        Self {
            opens: self.opens + 1,
            read: self.read + n(share.access, ShareBits::Read),
            write: self.write + n(share.access, ShareBits::Write),
            deny_read: self.deny_read + n(share.deny, ShareBits::Read),
            deny_write: self.deny_write + n(share.deny, ShareBits::Write),
        }
    }

    /// Counts one less; `None` if there is none such.
    #[must_use]
    pub fn without(self, share: Share) -> Option<Self> {
        let n = |bits: ShareBits, bit| u32::from(bits.intersects(bit));
        Some(Self {
            opens: self.opens.checked_sub(1)?,
            read: self.read.checked_sub(n(share.access, ShareBits::Read))?,
            write: self.write.checked_sub(n(share.access, ShareBits::Write))?,
            deny_read: self.deny_read.checked_sub(n(share.deny, ShareBits::Read))?,
            deny_write: self.deny_write.checked_sub(n(share.deny, ShareBits::Write))?,
        })
    }

    /// Whether opens as counted can be without a conflict: who denies what somebody has is that one alone.
    fn is_sound(&self) -> bool {
        let fits = |has: u32, denies: u32| denies == 0 || has == 0 || (has == 1 && denies == 1);
        fits(self.read, self.deny_read) && fits(self.write, self.deny_write)
    }
}

/// Why a reservation is refused; nothing has changed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ShareError {
    /// Another reservation conflicts (NLM4_DENIED, NFS4ERR_SHARE_DENIED). The first one in order of owners.
    #[error("conflicts with a share of {:?}", .0.owner)]
    Conflict(ShareConflict),
    /// A bound is reached (NLM4_DENIED_NOLOCKS, NFS4ERR_RESOURCE).
    #[error("too many {0} (limit {limit})", limit = .0.limit())]
    TooMany(Bound),
    /// An OPEN without any access (NFS4ERR_INVAL, RFC 7530 §9.9).
    #[error("an open without access")]
    NoAccess,
    /// A downgrade or close of what is not held: there is no such open, or the bits are beyond it (NFS4ERR_INVAL, RFC 7530 §16.19).
    #[error("not held")]
    NotHeld,
}

/// The share reservations of one file.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ShareTable {
    shares: BTreeMap<LockOwner, Reservation>,
    opens: OpenCounts,
}

/// A share reservation of NLM.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
struct Reservation {
    share: Share,
    /// Since when its owner has one: seconds since 1970.
    since: i64,
}

impl ShareTable {
    /// Whether nobody has one.
    pub fn is_empty(&self) -> bool {
        self.shares.is_empty() && self.opens == OpenCounts::default()
    }

    /// How many there are of NLM.
    pub fn len(&self) -> usize {
        self.shares.len()
    }

    /// Those of NLM, in order of owners.
    pub fn iter(&self) -> impl Iterator<Item = (&LockOwner, Share)> {
        self.shares.iter().map(|(owner, held)| (owner, held.share))
    }

    /// The one of `owner`, of NLM.
    pub fn get(&self, owner: &LockOwner) -> Option<Share> {
        self.shares.get(owner).map(|held| held.share)
    }

    /// Since when `owner` has one, of NLM: seconds since 1970.
    pub fn since(&self, owner: &LockOwner) -> Option<i64> {
        self.shares.get(owner).map(|held| held.since)
    }

    /// Opens of NFSv4.
    pub fn opens(&self) -> OpenCounts {
        self.opens
    }

    /// The first reservation, of another owner than `except`, that one with `share` would conflict with. With `deny` none this
    /// is also the check of a READ or WRITE without an open (RFC 7530 §9.1.4.3).
    pub fn conflict(&self, except: Option<&LockOwner>, share: Share) -> Option<ShareConflict> {
        let opens = self.opens.together();
        self.iter()
            .find(|(owner, held)| Some(*owner) != except && held.conflicts_with(&share))
            .map(|(owner, held)| ShareConflict { owner: Some(owner.clone()), share: held })
            .or_else(|| opens.conflicts_with(&share).then_some(ShareConflict { owner: None, share: opens }))
    }

    /// NLM SHARE: takes the reservation of `owner`, in the place of its former one, with which it does not conflict.
    pub(crate) fn share(&mut self, owner: LockOwner, share: Share, now: i64) -> Result<(), ShareError> {
        if let Some(conflict) = self.conflict(Some(&owner), share) {
            return Err(ShareError::Conflict(conflict));
        }
        let since = self.since(&owner).unwrap_or(now);
        self.shares.insert(owner, Reservation { share, since });
        Ok(())
    }

    /// Gives up the reservation of `owner`; returns what it was.
    pub(crate) fn unshare(&mut self, owner: &LockOwner) -> Option<Share> {
        self.shares.remove(owner).map(|held| held.share)
    }

    /// OPEN: what it has afterwards, both together (RFC 7530 §9.11).
    pub(crate) fn open(&mut self, former: Option<Share>, wanted: Share) -> Result<Share, ShareError> {
        if wanted.access == ShareBits::None {
            return Err(ShareError::NoAccess);
        }
        if let Some(conflict) = self.conflict(None, wanted) {
            return Err(ShareError::Conflict(conflict));
        }
        let Some(former) = former else {
            self.opens = self.opens.with(wanted);
            return Ok(wanted);
        };
        let both = Share { access: former.access.union(wanted.access), deny: former.deny.union(wanted.deny) };
        self.opens = self.opens.without(former).ok_or(ShareError::NotHeld)?.with(both);
        Ok(both)
    }

    /// OPEN_DOWNGRADE of an open that has `held`.
    pub(crate) fn downgrade(&mut self, held: Share, to: Share) -> Result<(), ShareError> {
        if to.access == ShareBits::None {
            return Err(ShareError::NoAccess);
        }
        if !held.access.contains(to.access) || !held.deny.contains(to.deny) {
            return Err(ShareError::NotHeld);
        }
        self.opens = self.opens.without(held).ok_or(ShareError::NotHeld)?.with(to);
        Ok(())
    }

    /// CLOSE of an open that has `held`.
    pub(crate) fn close(&mut self, held: Share) -> Result<(), ShareError> {
        self.opens = self.opens.without(held).ok_or(ShareError::NotHeld)?;
        Ok(())
    }

    /// Gives up all whose owner `pred` says, and says how many.
    pub(crate) fn remove_where(&mut self, pred: impl Fn(&LockOwner) -> bool) -> usize {
        let before = self.shares.len();
        self.shares.retain(|owner, _| !pred(owner));
        before - self.shares.len()
    }

    pub(crate) fn identity_bytes(&self) -> usize {
        self.shares.keys().map(LockOwner::identity_bytes).sum()
    }

    /// Whether the invariant of this file holds.
    pub(crate) fn is_sound(&self) -> bool {
        self.opens.is_sound() && self.iter().all(|(owner, share)| self.conflict(Some(owner), share).is_none())
    }
}
