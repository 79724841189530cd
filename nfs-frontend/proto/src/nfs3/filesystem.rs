//! FSSTAT, FSINFO, PATHCONF (RFC 1813 §3.3.18–20).

use atoll_xdr::xdr_struct;

use super::{Failure, FileHandle, NfsTime3, PostOpAttr};

/// Bits of [`FsInfo3Ok::properties`] (RFC 1813 §3.3.19).
pub mod properties {
    /// Hard links are supported (`FSF3_LINK`).
    pub const LINK: u32 = 0x01;
    /// Symbolic links are supported (`FSF3_SYMLINK`).
    pub const SYMLINK: u32 = 0x02;
    /// PATHCONF is the same for every object (`FSF3_HOMOGENEOUS`).
    pub const HOMOGENEOUS: u32 = 0x08;
    /// SETATTR can set times (`FSF3_CANSETTIME`).
    pub const CAN_SET_TIME: u32 = 0x10;
}

xdr_struct! {
    /// Arguments of FSSTAT.
    #[derive(Copy)]
    pub struct FsStat3Args {
        /// Any object of the file system.
        pub fsroot: FileHandle,
    }

    /// Results of FSSTAT.
    #[derive(Copy)]
    pub struct FsStat3Ok {
        /// The object after.
        pub obj_attributes: PostOpAttr,
        /// Size in bytes.
        pub total_bytes: u64,
        /// Free bytes.
        pub free_bytes: u64,
        /// Free bytes for the caller.
        pub available_bytes: u64,
        /// Number of file slots.
        pub total_files: u64,
        /// Free slots.
        pub free_files: u64,
        /// Free slots for the caller.
        pub available_files: u64,
        /// Seconds for which these figures are not expected to change.
        pub invarsec: u32,
    }

    /// Arguments of FSINFO.
    #[derive(Copy)]
    pub struct FsInfo3Args {
        /// Any object of the file system.
        pub fsroot: FileHandle,
    }

    /// Results of FSINFO.
    #[derive(Copy)]
    pub struct FsInfo3Ok {
        /// The object after.
        pub obj_attributes: PostOpAttr,
        /// Largest READ in bytes.
        pub rtmax: u32,
        /// Preferred READ in bytes.
        pub rtpref: u32,
        /// READ sizes should be a multiple of this many bytes.
        pub rtmult: u32,
        /// Largest WRITE in bytes.
        pub wtmax: u32,
        /// Preferred WRITE in bytes.
        pub wtpref: u32,
        /// WRITE sizes should be a multiple of this many bytes.
        pub wtmult: u32,
        /// Preferred `count` of READDIR in bytes.
        pub dtpref: u32,
        /// Largest file in bytes.
        pub max_file_size: u64,
        /// Resolution of times.
        pub time_delta: NfsTime3,
        /// Bits of [`properties`].
        pub properties: u32,
    }

    /// Arguments of PATHCONF.
    #[derive(Copy)]
    pub struct PathConf3Args {
        /// The object.
        pub object: FileHandle,
    }

    /// Results of PATHCONF.
    #[derive(Copy)]
    pub struct PathConf3Ok {
        /// The object after.
        pub obj_attributes: PostOpAttr,
        /// Most hard links.
        pub link_max: u32,
        /// Longest name in bytes.
        pub name_max: u32,
        /// Whether a longer name is an error; if not, it is cut.
        pub no_trunc: bool,
        /// Whether only root may change the owner.
        pub chown_restricted: bool,
        /// Whether names are compared without regard to case.
        pub case_insensitive: bool,
        /// Whether the case of names is kept.
        pub case_preserving: bool,
    }
}

/// Results of FSSTAT.
pub type FsStat3Res = Result<FsStat3Ok, Failure<PostOpAttr>>;
/// Results of FSINFO.
pub type FsInfo3Res = Result<FsInfo3Ok, Failure<PostOpAttr>>;
/// Results of PATHCONF.
pub type PathConf3Res = Result<PathConf3Ok, Failure<PostOpAttr>>;
