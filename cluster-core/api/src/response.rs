//! What came of a call. Stored for exactly-once replay, so a reply must be derivable from it, byte for byte.

use crate::error::FsError;
use crate::lock::LockOutcome;
use crate::nfs4::{ClientOutcome, StateOutcome, Stateid};
use atoll_base::attr::{Attr, Before};
use atoll_base::id::{Epoch, ExportId, Ino, VolumeId};
use serde::{Deserialize, Serialize};

/// One inode that the call changed, or would have changed had it not been refused.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Change {
    /// Attributes just before, in the same atomic step.
    pub before: Before,
    /// Attributes just after. Of a removed inode: the last ones, with `nlink` 0.
    pub after: Attr,
}

/// What a successful call yields beside the changed attributes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Outcome {
    /// Nothing more to say.
    Done,
    /// The inode that now has the name: new, or (UNCHECKED, or a repeated EXCLUSIVE) an existing one.
    Created {
        /// Its attributes.
        attr: Attr,
        /// Whether this call made it.
        new: bool,
    },
    /// Data are in place.
    Written {
        /// The write verifier (loss epoch) in force.
        verifier: u64,
    },
    /// A write lease.
    Dirty {
        /// Change values up to and including this one may be shown before the flush.
        change_ceiling: u64,
        /// Change times up to and including this one may be shown before the flush.
        ctime_ceiling: atoll_base::time::Timestamp,
    },
    /// Of a lock operation.
    Lock(LockOutcome),
    /// The frontend's new epoch and the write verifier in force.
    Registered {
        /// Epoch to put into every further call.
        epoch: Epoch,
        /// The write verifier.
        verifier: u64,
    },
    /// The export made or changed.
    Export(ExportId),
    /// The volume made.
    Volume(VolumeId),
    /// Bounded background work: whether some is left.
    More(bool),
    /// Of an operation on NFSv4 clients and sessions.
    Client(ClientOutcome),
    /// Of an operation on NFSv4 opens and locks.
    State(StateOutcome),
    /// A range is in its new place.
    Cloned {
        /// Bytes of it.
        count: u64,
        /// The write verifier (loss epoch) in force.
        verifier: u64,
    },
    /// Of a removal or a rename: done, and the file that lost its last name stays, without links, while it is open.
    Unnamed,
    /// A copy goes on.
    Offloaded {
        /// Its stateid.
        stateid: Stateid,
        /// The write verifier (loss epoch) in force.
        verifier: u64,
    },
}

/// The answer to a call.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Response {
    /// Success or refusal.
    pub result: Result<Outcome, FsError>,
    /// The inodes concerned, in the order documented at each operation; also after a refusal, where known.
    pub changes: Vec<Change>,
}

impl Response {
    /// A refusal that concerns no known inode.
    pub fn refused(error: FsError) -> Self {
        Self { result: Err(error), changes: Vec::new() }
    }

    /// The change of one inode, if the call concerned it.
    pub fn change_of(&self, ino: Ino) -> Option<&Change> {
        self.changes.iter().find(|c| c.after.ino == ino)
    }
}
