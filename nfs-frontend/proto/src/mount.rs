//! MOUNT versions 1 (RFC 1094 appendix A) and 3 (RFC 1813 appendix I).
//!
//! Version 1 belongs to NFSv2, which is not served; old `showmount` asks in it for the list of exports.

use std::num::NonZeroU32;

use atoll_xdr::{Array, Decode, Decoder, Encode, Encoder, Error, List, Opaque, Result, xdr_enum, xdr_struct};

use crate::nfs3::FileHandle;

/// Program number of MOUNT.
pub const PROGRAM: u32 = 100_005;

/// Longest path in bytes (`MNTPATHLEN`).
pub const MAX_PATH: usize = 1024;
/// Longest name of a host or group in bytes (`MNTNAMLEN`).
pub const MAX_NAME: usize = 255;

/// Most entries of any list that a client decodes.
pub const MAX_LIST: usize = 64 * 1024;
/// Most authentication flavors of an export that a client decodes; some ten are assigned.
pub const MAX_FLAVORS: usize = 256;

/// `dirpath`: the path of an export.
pub type DirPath = Opaque<MAX_PATH>;
/// `name`: a host or group.
pub type MountName = Opaque<MAX_NAME>;

xdr_enum! {
    /// `mountstat3` without `MNT3_OK`, which is the `Ok` of a result.
    pub enum MountStat3 {
        /// Not owner.
        Perm = 1,
        /// No such directory.
        NoEnt = 2,
        /// A hard error of the storage.
        Io = 5,
        /// The client may not mount it.
        Acces = 13,
        /// Not a directory.
        NotDir = 20,
        /// Invalid argument.
        Inval = 22,
        /// The path is too long.
        NameTooLong = 63,
        /// Not supported.
        NotSupp = 10004,
        /// The server failed.
        ServerFault = 10006,
    }
}

xdr_struct! {
    /// A successful mount of version 3 (`mountres3_ok`).
    pub struct MountOk3 {
        /// Handle of the root of the export.
        pub handle: FileHandle,
        /// Authentication flavors the export accepts, the preferred one first.
        pub auth_flavors: Array<u32, MAX_FLAVORS>,
    }

    /// Who mounted what (`mountbody`). Advisory: nobody tells when a client vanishes.
    pub struct MountBody {
        /// The client.
        pub hostname: MountName,
        /// The path it mounted.
        pub directory: DirPath,
    }

    /// An export (`exportnode`).
    pub struct ExportNode {
        /// Path.
        pub dir: DirPath,
        /// Who may mount it; empty is everybody.
        pub groups: List<MountName, MAX_LIST>,
    }
}

/// Why a mount of version 1 failed: an error number of Unix.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct UnixError(pub NonZeroU32);

impl From<MountStat3> for UnixError {
    /// The numbers of version 3 below 63 are those of Unix; what Unix has no number for becomes `EACCES`.
    fn from(stat: MountStat3) -> Self {
        let errno = match stat {
            MountStat3::NameTooLong | MountStat3::NotSupp | MountStat3::ServerFault => MountStat3::Acces,
            other => other,
        };
        Self(NonZeroU32::new(errno.to_u32()).expect("every MountStat3 is above 0"))
    }
}

impl Encode for UnixError {
    fn encode(&self, e: &mut Encoder) {
        e.u32(self.0.get());
    }
}

impl Decode for UnixError {
    const MIN_LEN: usize = 4;

    fn decode(d: &mut Decoder) -> Result<Self> {
        let errno = NonZeroU32::new(d.u32()?);
        errno.map(Self).ok_or(Error::BadDiscriminant { kind: "fhstatus", value: 0 })
    }
}

#[cfg(test)]
impl atoll_xdr::Sample for UnixError {
    fn sample(s: &mut atoll_xdr::Entropy<'_>) -> Self {
        Self(NonZeroU32::MIN.saturating_add(u32::sample(s)))
    }
}

/// Results of MNT in version 3.
pub type MountRes3 = std::result::Result<MountOk3, MountStat3>;
/// Results of MNT in version 1: a handle of NFSv2, 32 bytes.
pub type MountRes1 = std::result::Result<[u8; 32], UnixError>;
/// Results of DUMP.
pub type MountList = List<MountBody, MAX_LIST>;
/// Results of EXPORT and EXPORTALL.
pub type Exports = List<ExportNode, MAX_LIST>;

/// MOUNT version 1.
pub mod v1 {
    use super::{DirPath, Exports, MountList, MountRes1, PROGRAM};
    use crate::rpc::rpc_program;

    /// This version.
    pub const VERSION: u32 = 1;

    rpc_program! {
        /// Procedures of MOUNT version 1.
        program PROGRAM, version VERSION;
        /// Does nothing.
        Null(()) -> () = 0;
        /// The handle of an export.
        Mnt(DirPath) -> MountRes1 = 1;
        /// Who mounted what.
        Dump(()) -> MountList = 2;
        /// Forgets a mount.
        Umnt(DirPath) -> () = 3;
        /// Forgets all mounts of the caller.
        UmntAll(()) -> () = 4;
        /// The exports.
        Export(()) -> Exports = 5;
        /// The same as EXPORT.
        ExportAll(()) -> Exports = 6;
    }
}

/// MOUNT version 3.
pub mod v3 {
    use super::{DirPath, Exports, MountList, MountRes3, PROGRAM};
    use crate::rpc::rpc_program;

    /// This version.
    pub const VERSION: u32 = 3;

    rpc_program! {
        /// Procedures of MOUNT version 3 (RFC 1813 §5.2).
        program PROGRAM, version VERSION;
        /// Does nothing.
        Null(()) -> () = 0;
        /// The handle of an export.
        Mnt(DirPath) -> MountRes3 = 1;
        /// Who mounted what.
        Dump(()) -> MountList = 2;
        /// Forgets a mount.
        Umnt(DirPath) -> () = 3;
        /// Forgets all mounts of the caller.
        UmntAll(()) -> () = 4;
        /// The exports.
        Export(()) -> Exports = 5;
    }
}
