//! Failure of a procedure (RFC 1813 §2.6).

use atoll_xdr::{xdr_enum, xdr_struct};

xdr_enum! {
    /// `nfsstat3` without `NFS3_OK`, which is the `Ok` of a result.
    pub enum NfsStat3 {
        /// Not owner.
        Perm = 1,
        /// No such file or directory.
        NoEnt = 2,
        /// A hard error of the storage.
        Io = 5,
        /// No such device.
        Nxio = 6,
        /// Permission denied.
        Acces = 13,
        /// The name exists.
        Exist = 17,
        /// A hard link or rename across file systems.
        XDev = 18,
        /// No such device.
        NoDev = 19,
        /// Not a directory.
        NotDir = 20,
        /// Is a directory.
        IsDir = 21,
        /// Invalid or unsupported argument.
        Inval = 22,
        /// The file would be too large.
        FBig = 27,
        /// No space left.
        NoSpc = 28,
        /// Read-only file system.
        RoFs = 30,
        /// Too many hard links.
        MLink = 31,
        /// The name is too long.
        NameTooLong = 63,
        /// The directory is not empty.
        NotEmpty = 66,
        /// Quota exceeded.
        DQuot = 69,
        /// The object of the handle does not exist any more.
        Stale = 70,
        /// Too many levels of remote in the path.
        Remote = 71,
        /// The handle fails its checks.
        BadHandle = 10001,
        /// The guard of SETATTR does not match.
        NotSync = 10002,
        /// The cookie of READDIR is stale.
        BadCookie = 10003,
        /// The operation is not supported.
        NotSupp = 10004,
        /// The buffer or request is too small.
        TooSmall = 10005,
        /// An error that has no other number.
        ServerFault = 10006,
        /// The type of object is not supported.
        BadType = 10007,
        /// The request takes long; try again later with a new transaction id.
        Jukebox = 10008,
    }
}

xdr_struct! {
    /// The failure arm of a result: why, and the attributes that come with every failure of the procedure.
    #[derive(Copy)]
    pub struct Failure<F> {
        /// Why.
        pub status: NfsStat3,
        /// What RFC 1813 adds, such as `wcc_data` or `post_op_attr`; `()` for GETATTR.
        pub detail: F,
    }
}

impl<F: Default> From<NfsStat3> for Failure<F> {
    /// A failure before any object was found: no attributes.
    fn from(status: NfsStat3) -> Self {
        Self { status, detail: F::default() }
    }
}
