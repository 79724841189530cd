//! Calls: everything that can change the replicated state.

use crate::data::{Flush, Piece};
use crate::error::FsError;
use crate::export::ExportSpec;
use crate::lock::LockOp;
use crate::nfs4::{ClientId, ClientOp, StateOp};
use crate::offload::OffloadOp;
use crate::once::Once;
use atoll_base::access::Cred;
use atoll_base::attr::{Device, FileKind, SetAttr};
use atoll_base::block::BlockId;
use atoll_base::id::{Epoch, ExportId, FrontendId, Ino};
use atoll_base::time::Timestamp;
use bytes::Bytes;
use serde::{Deserialize, Serialize};

/// Which life of which frontend sends a call. The state machine refuses an old epoch with
/// [`crate::FsError::Fenced`], so a frontend that wakes from a stall can do no harm.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Origin {
    /// The frontend.
    pub frontend: FrontendId,
    /// Its epoch.
    pub epoch: Epoch,
}

/// One transaction, as a frontend sends it. The leader adds the time.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Call {
    /// The sender; `None` for the node itself (administration, maintenance).
    pub origin: Option<Origin>,
    /// If given, the response is stored under it, and a call with a known key gets the stored response instead
    /// of being applied again.
    pub once: Option<Once>,
    /// On whose behalf. Checks of permission use it unless the operation says otherwise.
    pub cred: Cred,
    /// The NFSv4 client that asks, if known: its own delegations are not in its way.
    pub client: Option<ClientId>,
    /// What to do.
    pub op: Op,
}

/// What CREATE, MKDIR, SYMLINK and MKNOD make.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum NewNode {
    /// Regular file.
    Regular,
    /// Directory.
    Directory,
    /// Symbolic link with this target.
    Symlink(Bytes),
    /// Fifo, socket or device.
    Special(FileKind, Device),
}

/// What happens if the name exists (RFC 1813 §3.3.8 `createmode3`). All but `Guarded` are for regular files only.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum CreateHow {
    /// An existing regular file is taken as it is; of the attributes only a size is applied, for which the caller
    /// needs permission to write.
    Unchecked,
    /// An existing name is refused.
    Guarded,
    /// An existing regular file with this verifier is the same request come twice; else refused. The verifier is
    /// stored with the inode and dropped by the first SETATTR of it.
    Exclusive([u8; 8]),
}

/// Whether an extended attribute that is set has to exist (RFC 8276 §8.4.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum XattrHow {
    /// Or not.
    Either,
    /// It must not (`Exists`).
    Create,
    /// It must (`NoXattr`).
    Replace,
}

/// Which types REMOVE accepts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum RemoveKind {
    /// All but directories (RFC 1813 §3.3.12); a directory is refused with `IsDirectory`.
    NonDirectory,
    /// Empty directories only (§3.3.13); anything else is refused with `NotDirectory`.
    Directory,
    /// Either (RFC 8881 §18.25).
    Any,
}

/// An operation. Part of the log: append variants, never reorder.
///
/// `changes` of the response lists, in this order and as far as known: the directory or directories in the order
/// of the fields, then the object.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Op {
    /// SETATTR (RFC 1813 §3.3.2). Changes: the inode.
    SetAttr {
        /// Inode.
        ino: Ino,
        /// Its generation; `Stale` if it differs.
        generation: u32,
        /// New values.
        set: SetAttr,
        /// If given, the ctime that the inode must have.
        guard: Option<Timestamp>,
    },
    /// CREATE, MKDIR, SYMLINK, MKNOD. Changes: the directory.
    Create {
        /// Directory.
        dir: Ino,
        /// Name of the new entry.
        name: Bytes,
        /// What to make.
        node: NewNode,
        /// What if it exists.
        how: CreateHow,
        /// Initial attributes; owner defaults to the caller, group to the caller's or, in a set-gid
        /// directory, the directory's.
        attrs: SetAttr,
    },
    /// LINK. Changes: the directory, the inode.
    Link {
        /// Existing inode, not a directory.
        ino: Ino,
        /// Its generation.
        generation: u32,
        /// Directory of the new name.
        dir: Ino,
        /// New name.
        name: Bytes,
    },
    /// REMOVE, RMDIR. Changes: the directory, the object.
    Remove {
        /// Directory.
        dir: Ino,
        /// Name to remove.
        name: Bytes,
        /// Accepted types.
        kind: RemoveKind,
    },
    /// RENAME (RFC 1813 §3.3.14), atomic, replacing a fitting target. Two names of one inode: nothing happens.
    /// Changes: source directory, target directory (once if the same), the moved object, the replaced one.
    Rename {
        /// Source directory.
        from_dir: Ino,
        /// Source name.
        from_name: Bytes,
        /// Target directory.
        to_dir: Ino,
        /// Target name.
        to_name: Bytes,
    },
    /// Takes or renews the write lease that UNSTABLE writes need: reserves change values and times, durably, so
    /// that none shown is ever reused, whatever is lost. Checks permission to write (the owner may always), and
    /// clears set-uid and set-gid as a write by this caller does. Changes: the inode.
    BeginDirty {
        /// Regular file.
        ino: Ino,
        /// Its generation.
        generation: u32,
    },
    /// Puts data into a file. Without `flush` a stable write on the caller's behalf: permission is checked, mtime,
    /// ctime and change move, set-uid and set-gid are cleared. With `flush`, by the frontend that holds the write
    /// lease: times and permission were settled when the data were accepted. Changes: the inode.
    Write {
        /// Regular file.
        ino: Ino,
        /// Its generation.
        generation: u32,
        /// In order of offset, not overlapping; may be empty in a flush.
        pieces: Vec<Piece>,
        /// See above.
        flush: Option<Flush>,
    },
    /// Replaces how bytes are stored, not what they are: `Conflict` unless the extents of the range are exactly
    /// `expect` (births included). No times change. Changes: the inode.
    Repack {
        /// Regular file.
        ino: Ino,
        /// First byte.
        offset: u64,
        /// Length.
        len: u64,
        /// Birth and offset of each extent that the range has now.
        expect: Vec<(u64, u64)>,
        /// What replaces them: the same bytes.
        pieces: Vec<Piece>,
    },
    /// Moves access times forward; no other time changes, nothing is checked, unknown inodes are passed over.
    Touch(Vec<(Ino, Timestamp)>),
    /// A lock operation.
    Lock(LockOp),
    /// Sets (`Some`) or removes an extended attribute (RFC 8276 §8.4.2, §8.4.4). A value that it has already changes nothing.
    /// Changes: the inode.
    SetXattr {
        /// Inode.
        ino: Ino,
        /// Its generation.
        generation: u32,
        /// Name, 1 to 255 bytes, without the prefix `user.` that it has on Linux.
        name: Bytes,
        /// Value.
        value: Option<Bytes>,
        /// Whether it has to exist; of a removal it has to.
        how: XattrHow,
    },
    /// A frontend starts a life: it gets a new epoch, older ones are refused from now on. Write leases that its
    /// former life held are ended: the data are lost, so those inodes take their ceilings as change and ctime,
    /// and the write verifier changes. Outcome: `Registered`.
    RegisterFrontend {
        /// The frontend.
        frontend: FrontendId,
    },
    /// A frontend lost acknowledged UNSTABLE data of these inodes (a flush failed for good): as above, for these.
    DataLost {
        /// Inodes.
        inos: Vec<Ino>,
    },
    /// Makes an export, or changes the one with the same path (which keeps its id). Outcome: `Export`.
    PutExport(ExportSpec),
    /// Takes an export back: its file handles become stale.
    RemoveExport(ExportId),
    /// Makes a volume. Outcome: `Volume`.
    CreateVolume {
        /// Name, see [`crate::export::Volume`].
        name: String,
    },
    /// The collector deleted these unreferenced blocks from the block store: forget them.
    Collected(Vec<BlockId>),
    /// A bounded step of background work: extents of removed inodes and cut-off tails, expired outcomes.
    /// Outcome: `More`.
    Sweep,
    /// NFSv4 clients and sessions.
    Client(ClientOp),
    /// NFSv4 opens and locks.
    State(StateOp),
    /// Makes a hole (RFC 7862 §15.4): the range reads as zeros and takes no room; the size stays. On the caller's behalf, as a
    /// stable write. `Delay` if too much waits for Sweep. Changes: the inode.
    Punch {
        /// Regular file.
        ino: Ino,
        /// Its generation.
        generation: u32,
        /// First byte.
        offset: u64,
        /// Bytes; what lies behind the end of the file does not matter.
        len: u64,
    },
    /// Makes a file at least so long (RFC 7862 §15.1), as a stable write does. One that is longer stays as it is. Changes: the
    /// inode.
    Extend {
        /// Regular file.
        ino: Ino,
        /// Its generation.
        generation: u32,
        /// Bytes.
        size: u64,
    },
    /// Puts a range of a file into another, or elsewhere into the same (RFC 7862 §15.2, §15.13): blocks are shared, holes become
    /// holes. A change of the target's on the caller's behalf, as a stable write; whether the source may be read is the
    /// sender's business, as with reads. `Invalid` if the range ends behind the source or overlaps its target, `CrossVolume` if the files
    /// are in two volumes, `Delay` if too much waits for Sweep. Outcome: `Cloned`. Changes: the target.
    Clone {
        /// The source, a regular file.
        from: Ino,
        /// Its generation.
        from_generation: u32,
        /// First byte there.
        from_offset: u64,
        /// The target, a regular file.
        to: Ino,
        /// Its generation.
        to_generation: u32,
        /// First byte there.
        to_offset: u64,
        /// Bytes; 0 is to the end of the source.
        len: u64,
        /// What if the range holds more extents than one command may copy: its beginning is enough, or `NotSupported`.
        partial: bool,
    },
    /// Copies that go on behind their COPY.
    Offload(OffloadOp),
    /// In the place of an operation that was refused before it was proposed: changes nothing, and has this error stored as the outcome.
    Refused(FsError),
    /// A frontend refuses acknowledged UNSTABLE data because what they overwrite in part is damaged. While it lives it says so to whoever commits
    /// them; its next registration moves the write verifier.
    DataRefused,
}
