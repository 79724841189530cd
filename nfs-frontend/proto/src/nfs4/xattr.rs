//! Extended attributes: GETXATTR, SETXATTR, LISTXATTRS, REMOVEXATTR (RFC 8276 §8.4).

use atoll_xdr::{Array, Opaque, xdr_enum, xdr_struct};

use super::limits::{MAX_LISTED, MAX_WIRE_XATTR};
use super::{ChangeInfo4, Name4, NfsStat4};

/// Value of an extended attribute (`xattrvalue4`).
pub type XattrValue4 = Opaque<MAX_WIRE_XATTR>;

xdr_enum! {
    /// Whether the attribute has to exist (`setxattr_option4`).
    pub enum SetXattrOption4 {
        /// Or not.
        Either = 0,
        /// It does not.
        Create = 1,
        /// It does.
        Replace = 2,
    }
}

xdr_struct! {
    /// Arguments of GETXATTR and REMOVEXATTR.
    pub struct Xattr4Args {
        /// Name, without the prefix `user.`.
        pub name: Name4,
    }

    /// Arguments of SETXATTR.
    pub struct SetXattr4Args {
        /// Whether it has to exist.
        pub option: SetXattrOption4,
        /// Name.
        pub key: Name4,
        /// Value.
        pub value: XattrValue4,
    }

    /// Arguments of LISTXATTRS.
    #[derive(Copy)]
    pub struct ListXattrs4Args {
        /// Where to go on; 0 at first.
        pub cookie: u64,
        /// Most bytes of `LISTXATTRS4resok`.
        pub maxcount: u32,
    }

    /// Results of LISTXATTRS.
    pub struct ListXattrs4Ok {
        /// Where to go on.
        pub cookie: u64,
        /// Names.
        pub names: Array<Name4, MAX_LISTED>,
        /// Whether these are the last.
        pub eof: bool,
    }
}

/// Results of GETXATTR.
pub type GetXattr4Res = Result<XattrValue4, NfsStat4>;
/// Results of SETXATTR and REMOVEXATTR.
pub type ChangedXattr4Res = Result<ChangeInfo4, NfsStat4>;
/// Results of LISTXATTRS.
pub type ListXattrs4Res = Result<ListXattrs4Ok, NfsStat4>;
