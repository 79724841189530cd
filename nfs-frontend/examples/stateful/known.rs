//! What clients have learnt: handles, and stateids of each client.

use crate::dice::Dice;
use atoll_proto::nfs4::{FileHandle, StateId4};

/// Names that sequences use: few, so that clients meet.
pub(crate) const NAMES: [&str; 5] = ["a", "b", "c", "dir", "link"];

/// Opaques of owners.
pub(crate) const OWNERS: [&str; 3] = ["o", "p", "q"];

/// Whose sequence a stateid of v4.0 belongs to, and what it stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// An open of this owner.
    Open(usize),
    /// Locks of this lock owner.
    Lock(usize),
    /// A delegation, of a v4.1 client.
    Delegation,
}

/// A stateid.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Held {
    pub(crate) stateid: StateId4,
    pub(crate) fh: FileHandle,
    pub(crate) kind: Kind,
}

/// The stateids of a client, also of those that are gone by now.
#[derive(Debug, Default)]
pub(crate) struct Stateids {
    all: Vec<Held>,
}

impl Stateids {
    /// Takes in what a reply says.
    pub(crate) fn learn(&mut self, stateid: StateId4, fh: FileHandle, kind: Kind) {
        self.all.retain(|held| held.stateid.other != stateid.other);
        self.all.push(Held { stateid, fh, kind });
    }

    /// One of a kind, mostly as it should be.
    pub(crate) fn pick(&self, d: &mut Dice<'_>, locks: bool) -> Option<Held> {
        let all: Vec<Held> =
            self.all.iter().filter(|held| matches!(held.kind, Kind::Lock(_)) == locks).copied().collect();
        let mut held = *d.latest(&all)?;
        match d.below(24) {
            23 => held.stateid.seqid = held.stateid.seqid.wrapping_sub(1),
            22 => held.stateid.seqid = held.stateid.seqid.wrapping_add(1),
            21 => held.stateid.seqid = 0,
            20 => held.stateid.other[3] ^= 1,
            19 => held.stateid.other[11] ^= 1,
            18 => held.stateid = StateId4::CURRENT,
            17 => held.stateid = StateId4::ANONYMOUS,
            16 => held.stateid = StateId4::READ_BYPASS,
            _ => {}
        }
        Some(held)
    }

    /// A delegation, if there is one.
    pub(crate) fn delegation(&self, d: &mut Dice<'_>) -> Option<Held> {
        let all: Vec<Held> = self.all.iter().filter(|held| held.kind == Kind::Delegation).copied().collect();
        d.latest(&all).copied()
    }

    /// For data: an open's, a lock's, or a special one.
    pub(crate) fn for_data(&self, d: &mut Dice<'_>) -> Option<Held> {
        let locks = d.once_in(3);
        self.pick(d, locks)
    }
}
