//! NFS version 3 (RFC 1813 §2, §3): all 22 procedures.
//!
//! Results are `Result<…Ok, Failure<…>>`. `NFS3_OK` is the `Ok` arm and not a value of [`NfsStat3`].
//!
//! Names and payloads are slices of the received record. [`FileHandle`] and attributes are stored inline, so the
//! arguments and results of the frequent procedures cost no allocation.

mod attributes;
mod directory;
mod files;
mod filesystem;
mod handle;
mod namespace;
mod status;

use crate::rpc::rpc_program;

pub use attributes::{
    Fattr3, FileType3, MODE_BITS, NfsTime3, PostOpAttr, PreOpAttr, Sattr3, SetTime, SpecData3, WccAttr,
    WccData,
};
pub use directory::{
    CookieVerf3, DirPlusEntry, Entry3, EntryPlus3, MAX_ENTRIES, ReadDir3Args, ReadDir3Ok, ReadDir3Res,
    ReadDirPlus3Args, ReadDirPlus3Ok, ReadDirPlus3Res, ReadDirPlusWriter, ReadDirWriter, TooSmall,
};
pub use files::{
    Access3Args, Access3Ok, Access3Res, Commit3Args, Commit3Ok, Commit3Res, GetAttr3Args, GetAttr3Ok,
    GetAttr3Res, MAX_WIRE_PAYLOAD, Payload, Read3Args, Read3Ok, Read3Res, ReadLink3Args, ReadLink3Ok,
    ReadLink3Res, SetAttr3Args, SetAttr3Ok, SetAttr3Res, StableHow, Write3Args, Write3Ok, Write3Res,
    WriteVerf3, access, encode_read_ok,
};
pub use filesystem::{
    FsInfo3Args, FsInfo3Ok, FsInfo3Res, FsStat3Args, FsStat3Ok, FsStat3Res, PathConf3Args, PathConf3Ok,
    PathConf3Res, properties,
};
pub use handle::{FileHandle, MAX_HANDLE, PostOpHandle};
pub use namespace::{
    Create3Args, CreateHow3, CreateVerf3, CreatedOk, CreatedRes, DeviceData3, DirOpArgs3, Link3Args,
    Link3Fail, Link3Ok, Link3Res, Lookup3Args, Lookup3Ok, Lookup3Res, MAX_WIRE_NAME, MAX_WIRE_PATH,
    MkDir3Args, MkNod3Args, MkNodData3, Name3, Path3, Remove3Args, Removed3Ok, Removed3Res, Rename3Args,
    Rename3Res, RenameWcc, RmDir3Args, SymLink3Args, SymLinkData3,
};
pub use status::{Failure, NfsStat3};

/// Program number of NFS.
pub const PROGRAM: u32 = 100_003;
/// This version.
pub const VERSION: u32 = 3;

rpc_program! {
    /// Procedures of NFS version 3 (RFC 1813 §3.3).
    program PROGRAM, version VERSION;
    /// NULL: does nothing.
    Null(()) -> () = 0;
    /// GETATTR: attributes of an object.
    GetAttr(GetAttr3Args) -> GetAttr3Res = 1;
    /// SETATTR: changes attributes of an object.
    SetAttr(SetAttr3Args) -> SetAttr3Res = 2;
    /// LOOKUP: the object of a name.
    Lookup(Lookup3Args) -> Lookup3Res = 3;
    /// ACCESS: what the caller may do.
    Access(Access3Args) -> Access3Res = 4;
    /// READLINK: the text of a symbolic link.
    ReadLink(ReadLink3Args) -> ReadLink3Res = 5;
    /// READ: data of a file.
    Read(Read3Args) -> Read3Res = 6;
    /// WRITE: stores data in a file.
    Write(Write3Args) -> Write3Res = 7;
    /// CREATE: creates a regular file.
    Create(Create3Args) -> CreatedRes = 8;
    /// MKDIR: creates a directory.
    MkDir(MkDir3Args) -> CreatedRes = 9;
    /// SYMLINK: creates a symbolic link.
    SymLink(SymLink3Args) -> CreatedRes = 10;
    /// MKNOD: creates a device, socket or FIFO.
    MkNod(MkNod3Args) -> CreatedRes = 11;
    /// REMOVE: removes a name that is not a directory's.
    Remove(Remove3Args) -> Removed3Res = 12;
    /// RMDIR: removes a directory.
    RmDir(RmDir3Args) -> Removed3Res = 13;
    /// RENAME: moves a name.
    Rename(Rename3Args) -> Rename3Res = 14;
    /// LINK: adds a name to an object.
    Link(Link3Args) -> Link3Res = 15;
    /// READDIR: entries of a directory.
    ReadDir(ReadDir3Args) -> ReadDir3Res = 16;
    /// READDIRPLUS: entries with handles and attributes.
    ReadDirPlus(ReadDirPlus3Args) -> ReadDirPlus3Res = 17;
    /// FSSTAT: space and files, used and free.
    FsStat(FsStat3Args) -> FsStat3Res = 18;
    /// FSINFO: limits and preferences of the server.
    FsInfo(FsInfo3Args) -> FsInfo3Res = 19;
    /// PATHCONF: limits of names and links.
    PathConf(PathConf3Args) -> PathConf3Res = 20;
    /// COMMIT: makes unstable writes durable.
    Commit(Commit3Args) -> Commit3Res = 21;
}
