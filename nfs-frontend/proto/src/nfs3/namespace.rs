//! LOOKUP, CREATE, MKDIR, SYMLINK, MKNOD, REMOVE, RMDIR, RENAME, LINK (RFC 1813 §3.3.3, §3.3.8–15).

use atoll_xdr::{Opaque, xdr_struct, xdr_union};

use super::{Failure, FileHandle, PostOpAttr, PostOpHandle, Sattr3, SpecData3, WccData};

/// Longest name that decodes. Above what any file system stores, so that a name that is too long is answered with
/// `NFS3ERR_NAMETOOLONG` and not as garbage; a decoded name is a slice and costs nothing.
pub const MAX_WIRE_NAME: usize = 16 * 1024;

/// Longest text of a symbolic link that decodes, for the same reason above PATH_MAX.
pub const MAX_WIRE_PATH: usize = 64 * 1024;

/// A name in a directory (`filename3`): any bytes; the server refuses `/` and NUL.
pub type Name3 = Opaque<MAX_WIRE_NAME>;

/// The text of a symbolic link (`nfspath3`).
pub type Path3 = Opaque<MAX_WIRE_PATH>;

/// `createverf3`: identifies an exclusive CREATE, so that its retransmission succeeds.
pub type CreateVerf3 = [u8; 8];

xdr_struct! {
    /// A directory and a name in it (`diropargs3`).
    pub struct DirOpArgs3 {
        /// The directory.
        pub dir: FileHandle,
        /// The name.
        pub name: Name3,
    }

    /// Arguments of LOOKUP.
    pub struct Lookup3Args {
        /// Directory and name.
        pub what: DirOpArgs3,
    }

    /// Results of LOOKUP.
    #[derive(Copy)]
    pub struct Lookup3Ok {
        /// Handle of the object.
        pub object: FileHandle,
        /// The object after.
        pub obj_attributes: PostOpAttr,
        /// The directory after.
        pub dir_attributes: PostOpAttr,
    }

    /// Arguments of CREATE.
    pub struct Create3Args {
        /// Directory and name.
        pub at: DirOpArgs3,
        /// How to treat an existing name, and first attributes.
        pub how: CreateHow3,
    }

    /// Arguments of MKDIR.
    pub struct MkDir3Args {
        /// Directory and name.
        pub at: DirOpArgs3,
        /// First attributes.
        pub attributes: Sattr3,
    }

    /// What a new symbolic link is (`symlinkdata3`).
    pub struct SymLinkData3 {
        /// First attributes.
        pub attributes: Sattr3,
        /// Its text.
        pub data: Path3,
    }

    /// Arguments of SYMLINK.
    pub struct SymLink3Args {
        /// Directory and name.
        pub at: DirOpArgs3,
        /// Attributes and text.
        pub symlink: SymLinkData3,
    }

    /// A new device (`devicedata3`).
    #[derive(Copy)]
    pub struct DeviceData3 {
        /// First attributes.
        pub attributes: Sattr3,
        /// Device numbers.
        pub spec: SpecData3,
    }

    /// Arguments of MKNOD.
    pub struct MkNod3Args {
        /// Directory and name.
        pub at: DirOpArgs3,
        /// Type and attributes.
        pub what: MkNodData3,
    }

    /// Results of CREATE, MKDIR, SYMLINK and MKNOD.
    #[derive(Copy)]
    pub struct CreatedOk {
        /// Handle of the new object.
        pub object: PostOpHandle,
        /// The object after.
        pub obj_attributes: PostOpAttr,
        /// The directory before and after.
        pub dir_wcc: WccData,
    }

    /// Arguments of REMOVE.
    pub struct Remove3Args {
        /// Directory and name.
        pub object: DirOpArgs3,
    }

    /// Arguments of RMDIR.
    pub struct RmDir3Args {
        /// Directory and name.
        pub object: DirOpArgs3,
    }

    /// Results of REMOVE and RMDIR.
    #[derive(Copy)]
    pub struct Removed3Ok {
        /// The directory before and after.
        pub dir_wcc: WccData,
    }

    /// Arguments of RENAME.
    pub struct Rename3Args {
        /// The name to move.
        pub from: DirOpArgs3,
        /// Where to.
        pub to: DirOpArgs3,
    }

    /// Results of RENAME, of success and of failure.
    #[derive(Copy, Default)]
    pub struct RenameWcc {
        /// The source directory before and after.
        pub from_dir_wcc: WccData,
        /// The target directory before and after.
        pub to_dir_wcc: WccData,
    }

    /// Arguments of LINK.
    pub struct Link3Args {
        /// The object that gets a name.
        pub file: FileHandle,
        /// The new name.
        pub link: DirOpArgs3,
    }

    /// Results of LINK, of success and of failure.
    #[derive(Copy, Default)]
    pub struct Link3Ok {
        /// The object after.
        pub file_attributes: PostOpAttr,
        /// The directory of the new name before and after.
        pub link_dir_wcc: WccData,
    }
}

/// Failure of LINK carries the same as success.
pub type Link3Fail = Link3Ok;

xdr_union! {
    /// How CREATE treats an existing name (`createhow3`).
    #[derive(Copy)]
    pub enum CreateHow3 {
        /// An existing file is used; its attributes are set.
        0 => Unchecked(attributes: Sattr3),
        /// An existing name is an error.
        1 => Guarded(attributes: Sattr3),
        /// An existing name is an error unless it was created with the same verifier.
        2 => Exclusive(verf: CreateVerf3),
    }

    /// What MKNOD makes (`mknoddata3`). The void arms decode, so that the server can answer `NFS3ERR_BADTYPE`.
    #[derive(Copy)]
    pub enum MkNodData3 {
        /// Not made by MKNOD.
        1 => Regular,
        /// Not made by MKNOD.
        2 => Directory,
        /// Block device.
        3 => Block(device: DeviceData3),
        /// Character device.
        4 => Character(device: DeviceData3),
        /// Not made by MKNOD.
        5 => SymLink,
        /// Socket.
        6 => Socket(attributes: Sattr3),
        /// Named pipe.
        7 => Fifo(attributes: Sattr3),
    }
}

/// Results of LOOKUP.
pub type Lookup3Res = Result<Lookup3Ok, Failure<PostOpAttr>>;
/// Results of CREATE, MKDIR, SYMLINK and MKNOD.
pub type CreatedRes = Result<CreatedOk, Failure<WccData>>;
/// Results of REMOVE and RMDIR.
pub type Removed3Res = Result<Removed3Ok, Failure<WccData>>;
/// Results of RENAME.
pub type Rename3Res = Result<RenameWcc, Failure<RenameWcc>>;
/// Results of LINK.
pub type Link3Res = Result<Link3Ok, Failure<Link3Fail>>;
