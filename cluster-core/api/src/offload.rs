//! Copies within the server that go on behind their COPY (RFC 7862 §4, §15.2, §15.8, §15.9, §16.1).
//!
//! What does not fit into the command of its COPY may become an *offload*: a row of the replicated state with a stateid of its own. It is brought on by steps, each of
//! which is one command that moves a bounded number of extents and says so in the row in the same transaction; so whatever dies in between, no part is copied twice and
//! none is left out. Who drives the steps has nothing of its own to lose: a frontend that starts finds the rows and goes on.
//!
//! When there is nothing left, or a step is refused for good, the row says how it ended, and stays until the client knows ([`OffloadOp::Forget`]), or takes it back
//! ([`OffloadOp::Cancel`]), or ends. Both files stay while there is a row, also without a name: an offload holds them as an open does.
//!
//! # What it is allowed
//!
//! A step is a change of the destination by who sent the COPY, on behalf of the client: permission to write, delegations of others and the bounds of files are looked at as with a
//! WRITE of that moment. The stateids of the COPY are looked at once, when it begins.

use crate::error::FsError;
use crate::nfs4::{ClientId, Stateid};
use atoll_base::access::Cred;
use atoll_base::id::{ExportId, Ino, VolumeId};
use serde::{Deserialize, Serialize};

/// An end of a copy: from here on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CopyPlace {
    /// A regular file.
    pub ino: Ino,
    /// Its generation.
    pub generation: u32,
    /// First byte.
    pub offset: u64,
}

/// A change of offloads.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum OffloadOp {
    /// COPY by a client that can be told of its end later. As [`crate::Op::Clone`] with `partial`: what fits into one command is done, and answered `Cloned`. If there is more, the
    /// rest becomes an offload, answered `Offloaded`; unless there are too many already, then it is `Cloned` with what was done. Changes: the target.
    Copy {
        /// Whose.
        client: ClientId,
        /// The export that the client sees the target through: callbacks name the file by the handle that it knows.
        export: ExportId,
        /// From here.
        from: CopyPlace,
        /// To here.
        to: CopyPlace,
        /// Bytes; 0 is to the end of the source.
        len: u64,
        /// Stored extents to look at in this command, if fewer than one may.
        most: u32,
    },
    /// Goes on with an offload, on behalf of who began it ([`Offload::cred`]). A source that has become shorter ends it early. Refused, as a write would be: then nothing has
    /// changed, and the sender tries again or says [`OffloadOp::Fail`]. Changes: the target. Outcome: `More`, whether there is more to copy.
    Step {
        /// Which. One that is gone, or has ended, is left alone.
        offload: Stateid,
        /// Stored extents to look at, if fewer than one command may.
        most: u32,
    },
    /// An offload cannot go on. One that is gone or has ended is left alone. Outcome: `Done`.
    Fail {
        /// Which.
        offload: Stateid,
        /// Why.
        error: FsError,
    },
    /// OFFLOAD_CANCEL (RFC 7862 §15.8): from here on it moves nothing, and is gone. `BadStateid` if it is not this client's, or not of this file. Outcome: `Done`.
    Cancel {
        /// The client that asks.
        client: ClientId,
        /// The target.
        ino: Ino,
        /// Which.
        offload: Stateid,
    },
    /// The client has heard how an offload ended, or cannot: it is forgotten. One in work is left alone. Outcome: `Done`.
    Forget(Stateid),
}

/// A copy that goes on behind its COPY.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Offload {
    /// Its stateid; the version never changes.
    pub stateid: Stateid,
    /// Whose.
    pub client: ClientId,
    /// On whose behalf.
    pub cred: Cred,
    /// The export that the client sees the target through.
    pub export: ExportId,
    /// The volume of both files.
    pub volume: VolumeId,
    /// What is copied next.
    pub from: CopyPlace,
    /// Where it goes.
    pub to: CopyPlace,
    /// Bytes still to copy.
    pub left: u64,
    /// Bytes copied.
    pub count: u64,
    /// The write verifier of its COPY.
    pub verifier: u64,
    /// When it was begun: seconds since 1970.
    pub since: i64,
    /// How it ended, if it has.
    pub ended: Option<Result<(), FsError>>,
}
