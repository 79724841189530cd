//! Share reservations of one file: which access each owner has and which access it denies to others. NLM SHARE
//! (RFC 1813 §6.1.4 nlm4_share, DOS file sharing) and NFSv4 OPEN (RFC 7530 §9.9) use the same table; byte-range locks
//! are independent of it.
//!
//! Invariant: of two different owners, neither denies what the other has.

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

/// What a further reservation of the same owner means.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum ShareRule {
    /// NLM SHARE: it replaces the former one, stronger or weaker, and does not conflict with it.
    Replace,
    /// NFSv4 OPEN: it must not conflict with the former one either ("with no exception for an existing OPEN for the same
    /// open-owner", RFC 7530 §9.9), and both together are held (§9.11). Access `None` is refused.
    Unite,
}

/// A reservation that stands in the way.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ShareConflict {
    /// Whose.
    pub owner: LockOwner,
    /// What it has and denies.
    pub share: Share,
}

/// Why a reservation is refused; nothing has changed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ShareError {
    /// Another reservation conflicts (NLM4_DENIED, NFS4ERR_SHARE_DENIED). The first one in order of owners.
    #[error("conflicts with the share of {:?}", .0.owner)]
    Conflict(ShareConflict),
    /// A bound is reached (NLM4_DENIED_NOLOCKS, NFS4ERR_RESOURCE).
    #[error("too many {0} (limit {limit})", limit = .0.limit())]
    TooMany(Bound),
    /// An OPEN without any access (NFS4ERR_INVAL, RFC 7530 §9.9).
    #[error("an open without access")]
    NoAccess,
    /// A downgrade of what the owner does not have: no reservation, or bits beyond it (NFS4ERR_INVAL, RFC 7530 §16.19).
    #[error("a downgrade to what is not held")]
    NotHeld,
}

/// The share reservations of one file.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ShareTable {
    shares: BTreeMap<LockOwner, Share>,
}

impl ShareTable {
    /// Whether nobody has one.
    pub fn is_empty(&self) -> bool {
        self.shares.is_empty()
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.shares.len()
    }

    /// All, in order of owners.
    pub fn iter(&self) -> impl Iterator<Item = (&LockOwner, Share)> {
        self.shares.iter().map(|(owner, share)| (owner, *share))
    }

    /// The one of `owner`.
    pub fn get(&self, owner: &LockOwner) -> Option<Share> {
        self.shares.get(owner).copied()
    }

    /// The first reservation, of another owner than `except`, that an open with `share` would conflict with. With `deny` none this
    /// is also the check of a READ or WRITE without an open (RFC 7530 §9.1.4.3).
    pub fn conflict(&self, except: Option<&LockOwner>, share: Share) -> Option<ShareConflict> {
        self.iter()
            .find(|(owner, held)| Some(*owner) != except && held.conflicts_with(&share))
            .map(|(owner, held)| ShareConflict { owner: owner.clone(), share: held })
    }

    /// Takes or changes the reservation of `owner`; returns what it has afterwards.
    pub(crate) fn share(
        &mut self,
        owner: LockOwner,
        share: Share,
        rule: ShareRule,
    ) -> Result<Share, ShareError> {
        let except = match rule {
            ShareRule::Replace => Some(&owner),
            ShareRule::Unite if share.access == ShareBits::None => return Err(ShareError::NoAccess),
            ShareRule::Unite => None,
        };
        if let Some(conflict) = self.conflict(except, share) {
            return Err(ShareError::Conflict(conflict));
        }
        let held = match (rule, self.get(&owner)) {
            (ShareRule::Unite, Some(former)) => {
                Share { access: former.access.union(share.access), deny: former.deny.union(share.deny) }
            }
            _ => share,
        };
        self.shares.insert(owner, held);
        Ok(held)
    }

    /// Takes away bits of the reservation of `owner`: what it keeps must be within what it has (OPEN_DOWNGRADE).
    pub(crate) fn downgrade(&mut self, owner: &LockOwner, to: Share) -> Result<(), ShareError> {
        if to.access == ShareBits::None {
            return Err(ShareError::NoAccess);
        }
        match self.shares.get_mut(owner) {
            Some(held) if held.access.contains(to.access) && held.deny.contains(to.deny) => {
                *held = to;
                Ok(())
            }
            _ => Err(ShareError::NotHeld),
        }
    }

    /// Gives up the reservation of `owner`; returns what it was.
    pub(crate) fn unshare(&mut self, owner: &LockOwner) -> Option<Share> {
        self.shares.remove(owner)
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
        self.iter().all(|(owner, share)| self.conflict(Some(owner), share).is_none())
    }
}
