//! The current handle and attributes of objects: ACCESS, GETATTR, GETFH, PUTFH, SETATTR, VERIFY and their kin
//! (RFC 8881 §18.1, §18.7, §18.8, §18.15, §18.19–§18.21, §18.27, §18.28, §18.30, §18.31).

use atoll_xdr::{Encoder, xdr_struct};

use super::{Bitmap, Fattr4, FattrWriter, FileHandle, NfsStat4, OpNum4, Outcome, StateId4, Status4};

/// Bits of ACCESS (RFC 8881 §18.1, RFC 8276 §8.5).
pub mod access {
    /// Read data of a file or list a directory.
    pub const READ: u32 = 0x01;
    /// Look a name up.
    pub const LOOKUP: u32 = 0x02;
    /// Rewrite data, change entries.
    pub const MODIFY: u32 = 0x04;
    /// Append data, add entries.
    pub const EXTEND: u32 = 0x08;
    /// Remove entries.
    pub const DELETE: u32 = 0x10;
    /// Execute a file.
    pub const EXECUTE: u32 = 0x20;
    /// Read extended attributes.
    pub const XAREAD: u32 = 0x40;
    /// Write extended attributes.
    pub const XAWRITE: u32 = 0x80;
    /// List extended attributes.
    pub const XALIST: u32 = 0x100;
}

xdr_struct! {
    /// Arguments of ACCESS.
    #[derive(Copy)]
    pub struct Access4Args {
        /// Bits of [`access`] asked for.
        pub access: u32,
    }

    /// Results of ACCESS.
    #[derive(Copy)]
    pub struct Access4Ok {
        /// The bits asked for that can be told.
        pub supported: u32,
        /// Of these the ones granted.
        pub access: u32,
    }

    /// Arguments of GETATTR.
    pub struct GetAttr4Args {
        /// Attributes asked for.
        pub attr_request: Bitmap,
    }

    /// Results of GETATTR.
    pub struct GetAttr4Ok {
        /// Those of them that are supported.
        pub obj_attributes: Fattr4,
    }

    /// Results of GETFH.
    #[derive(Copy)]
    pub struct GetFh4Ok {
        /// The current handle.
        pub object: FileHandle,
    }

    /// Arguments of PUTFH.
    #[derive(Copy)]
    pub struct PutFh4Args {
        /// The new current handle.
        pub object: FileHandle,
    }

    /// Arguments of SETATTR.
    pub struct SetAttr4Args {
        /// The open, lock or delegation under which the size is changed.
        pub stateid: StateId4,
        /// What to set.
        pub obj_attributes: Fattr4,
    }

    /// Results of SETATTR, which tell what was set whether all was or not.
    pub struct SetAttr4Res {
        /// Status.
        pub status: Status4,
        /// The attributes that were set.
        pub attrsset: Bitmap,
    }

    /// Arguments of VERIFY and NVERIFY.
    pub struct Verify4Args {
        /// Attributes to compare.
        pub obj_attributes: Fattr4,
    }

    /// Arguments of OPENATTR.
    #[derive(Copy)]
    pub struct OpenAttr4Args {
        /// Whether to create the directory of named attributes.
        pub create_dir: bool,
    }
}

impl Outcome for SetAttr4Res {
    fn status(&self) -> Status4 {
        self.status
    }

    fn failed(status: NfsStat4) -> Self {
        Self { status: Err(status), attrsset: Bitmap::EMPTY }
    }
}

/// Results of ACCESS.
pub type Access4Res = Result<Access4Ok, NfsStat4>;
/// Results of GETATTR.
pub type GetAttr4Res = Result<GetAttr4Ok, NfsStat4>;
/// Results of GETFH.
pub type GetFh4Res = Result<GetFh4Ok, NfsStat4>;

/// Begins a successful GETATTR result, operation number and status included, whose values go straight into the reply.
pub fn begin_getattr_ok(e: &mut Encoder, mask: Bitmap) -> FattrWriter<'_> {
    e.put(&OpNum4::GetAttr);
    e.u32(0);
    FattrWriter::begin(e, mask)
}
