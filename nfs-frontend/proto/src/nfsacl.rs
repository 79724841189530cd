//! NFSACL version 3: POSIX access control lists beside NFSv3.
//!
//! There is no RFC; the protocol is the one of Solaris (`nfs_acl.x`) as Linux speaks it
//! (`/usr/include/linux/nfsacl.h` has its numbers).

use atoll_xdr::{Array, xdr_struct};

use crate::nfs3::{Failure, FileHandle, PostOpAttr};
use crate::rpc::rpc_program;

/// Program number of NFSACL.
pub const PROGRAM: u32 = 100_227;
/// This version, which goes with NFSv3.
pub const VERSION: u32 = 3;

/// Most entries of a list (`NFS_ACL_MAX_ENTRIES`).
pub const MAX_ENTRIES: usize = 1024;

/// Bits of [`SecAttr::mask`] and [`GetAcl3Args::mask`].
pub mod mask {
    /// The access list.
    pub const ACL: u32 = 0x1;
    /// The number of its entries.
    pub const ACL_COUNT: u32 = 0x2;
    /// The default list of a directory.
    pub const DEFAULT_ACL: u32 = 0x4;
    /// The number of its entries.
    pub const DEFAULT_ACL_COUNT: u32 = 0x8;
    /// All of them; a request with other bits is invalid.
    pub const ALL: u32 = 0xf;
}

/// Values of [`AclEntry::tag`].
pub mod tag {
    /// The owner.
    pub const USER_OBJ: u32 = 0x01;
    /// A user.
    pub const USER: u32 = 0x02;
    /// The owning group.
    pub const GROUP_OBJ: u32 = 0x04;
    /// A group.
    pub const GROUP: u32 = 0x08;
    /// The mask (`CLASS_OBJ`).
    pub const MASK: u32 = 0x10;
    /// All others.
    pub const OTHER: u32 = 0x20;
    /// Set in addition in every entry of a default list (`NFS_ACL_DEFAULT`).
    pub const DEFAULT: u32 = 0x1000;
}

xdr_struct! {
    /// An entry (`aclent`).
    #[derive(Copy, Hash)]
    pub struct AclEntry {
        /// To whom it applies, of [`tag`].
        pub tag: u32,
        /// The user or group for `USER` and `GROUP`.
        pub id: u32,
        /// Permissions, `0o7`.
        pub perm: u32,
    }

    /// Access lists (`secattr`).
    ///
    /// A list has its count twice: in a word of its own, which is valid with the `_COUNT` bit of the mask, and as the
    /// length of the array, which is empty unless the list's bit is set. A minimal list of three entries is sent as
    /// four, with a mask entry, because Solaris expects one.
    #[derive(Default)]
    pub struct SecAttr {
        /// Which parts are valid, of [`mask`].
        pub mask: u32,
        /// Number of entries of the access list.
        pub acl_count: u32,
        /// The access list.
        pub acl: Array<AclEntry, MAX_ENTRIES>,
        /// Number of entries of the default list.
        pub default_acl_count: u32,
        /// The default list.
        pub default_acl: Array<AclEntry, MAX_ENTRIES>,
    }

    /// Arguments of GETACL.
    #[derive(Copy)]
    pub struct GetAcl3Args {
        /// The object.
        pub object: FileHandle,
        /// The parts wanted, of [`mask`].
        pub mask: u32,
    }

    /// Results of GETACL.
    pub struct GetAcl3Ok {
        /// The object after.
        pub obj_attributes: PostOpAttr,
        /// The lists.
        pub acl: SecAttr,
    }

    /// Arguments of SETACL.
    pub struct SetAcl3Args {
        /// The object.
        pub object: FileHandle,
        /// The lists.
        pub acl: SecAttr,
    }

    /// Results of SETACL.
    #[derive(Copy)]
    pub struct SetAcl3Ok {
        /// The object after.
        pub obj_attributes: PostOpAttr,
    }
}

/// Results of GETACL.
pub type GetAcl3Res = Result<GetAcl3Ok, Failure<PostOpAttr>>;
/// Results of SETACL.
pub type SetAcl3Res = Result<SetAcl3Ok, Failure<PostOpAttr>>;

rpc_program! {
    /// Procedures of NFSACL version 3.
    program PROGRAM, version VERSION;
    /// Does nothing.
    Null(()) -> () = 0;
    /// The lists of an object.
    GetAcl(GetAcl3Args) -> GetAcl3Res = 1;
    /// Sets the lists of an object.
    SetAcl(SetAcl3Args) -> SetAcl3Res = 2;
}
