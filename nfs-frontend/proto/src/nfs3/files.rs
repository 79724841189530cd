//! GETATTR, SETATTR, ACCESS, READLINK, READ, WRITE, COMMIT (RFC 1813 §3.3.1, §3.3.2, §3.3.4–7, §3.3.21).

use atoll_xdr::{Encoder, Opaque, xdr_enum, xdr_struct};
use bytes::Bytes;

use super::{Failure, Fattr3, FileHandle, NfsTime3, Path3, PostOpAttr, Sattr3, WccData};

/// Largest READ or WRITE payload the types admit. The bound in force is the one of the record, which is
/// configurable up to this.
pub const MAX_WIRE_PAYLOAD: usize = 16 * 1024 * 1024;

/// Data of READ and WRITE.
pub type Payload = Opaque<MAX_WIRE_PAYLOAD>;

/// `writeverf3`: changes when unstable data was lost.
pub type WriteVerf3 = [u8; 8];

/// Bits of ACCESS (RFC 1813 §3.3.4).
pub mod access {
    /// Read data of a file or entries of a directory.
    pub const READ: u32 = 0x01;
    /// Look up a name in a directory.
    pub const LOOKUP: u32 = 0x02;
    /// Rewrite existing data or entries.
    pub const MODIFY: u32 = 0x04;
    /// Write new data or add entries.
    pub const EXTEND: u32 = 0x08;
    /// Delete an entry of a directory.
    pub const DELETE: u32 = 0x10;
    /// Execute a file.
    pub const EXECUTE: u32 = 0x20;
    /// All of them.
    pub const ALL: u32 = 0x3f;
}

xdr_enum! {
    /// How durable a WRITE is before it is answered (`stable_how`). Ordered: a server may do more than asked.
    pub enum StableHow {
        /// Not at all; COMMIT follows.
        Unstable = 0,
        /// The data, and what is needed to find them.
        DataSync = 1,
        /// Data and all metadata.
        FileSync = 2,
    }
}

xdr_struct! {
    /// Arguments of GETATTR.
    #[derive(Copy)]
    pub struct GetAttr3Args {
        /// The object.
        pub object: FileHandle,
    }

    /// Results of GETATTR.
    #[derive(Copy)]
    pub struct GetAttr3Ok {
        /// Its attributes.
        pub obj_attributes: Fattr3,
    }

    /// Arguments of SETATTR.
    #[derive(Copy)]
    pub struct SetAttr3Args {
        /// The object.
        pub object: FileHandle,
        /// What to set.
        pub new_attributes: Sattr3,
        /// If given, the ctime the object must have (`sattrguard3`).
        pub guard: Option<NfsTime3>,
    }

    /// Results of SETATTR.
    #[derive(Copy)]
    pub struct SetAttr3Ok {
        /// The object before and after.
        pub obj_wcc: WccData,
    }

    /// Arguments of ACCESS.
    #[derive(Copy)]
    pub struct Access3Args {
        /// The object.
        pub object: FileHandle,
        /// Bits of [`access`] asked for.
        pub access: u32,
    }

    /// Results of ACCESS.
    #[derive(Copy)]
    pub struct Access3Ok {
        /// The object after.
        pub obj_attributes: PostOpAttr,
        /// The bits asked for that are granted.
        pub access: u32,
    }

    /// Arguments of READLINK.
    #[derive(Copy)]
    pub struct ReadLink3Args {
        /// The symbolic link.
        pub symlink: FileHandle,
    }

    /// Results of READLINK.
    pub struct ReadLink3Ok {
        /// The link after.
        pub symlink_attributes: PostOpAttr,
        /// Its text.
        pub data: Path3,
    }

    /// Arguments of READ.
    #[derive(Copy)]
    pub struct Read3Args {
        /// The file.
        pub file: FileHandle,
        /// First byte.
        pub offset: u64,
        /// Bytes wanted.
        pub count: u32,
    }

    /// Results of READ.
    pub struct Read3Ok {
        /// The file after.
        pub file_attributes: PostOpAttr,
        /// Bytes read; equals the length of `data`.
        pub count: u32,
        /// Whether the read ended at the end of the file.
        pub eof: bool,
        /// The bytes.
        pub data: Payload,
    }

    /// Arguments of WRITE.
    pub struct Write3Args {
        /// The file.
        pub file: FileHandle,
        /// Where the first byte goes.
        pub offset: u64,
        /// Bytes to write. RFC 1813 has it besides the length of `data` and expects both to be equal; it is for the
        /// server to refuse a call in which they are not.
        pub count: u32,
        /// Durability asked for.
        pub stable: StableHow,
        /// The bytes.
        pub data: Payload,
    }

    /// Results of WRITE.
    #[derive(Copy)]
    pub struct Write3Ok {
        /// The file before and after.
        pub file_wcc: WccData,
        /// Bytes written.
        pub count: u32,
        /// Durability reached.
        pub committed: StableHow,
        /// Write verifier.
        pub verf: WriteVerf3,
    }

    /// Arguments of COMMIT.
    #[derive(Copy)]
    pub struct Commit3Args {
        /// The file.
        pub file: FileHandle,
        /// First byte.
        pub offset: u64,
        /// Bytes; 0 is everything from `offset` on.
        pub count: u32,
    }

    /// Results of COMMIT.
    #[derive(Copy)]
    pub struct Commit3Ok {
        /// The file before and after.
        pub file_wcc: WccData,
        /// Write verifier.
        pub verf: WriteVerf3,
    }
}

/// Results of GETATTR.
pub type GetAttr3Res = Result<GetAttr3Ok, Failure<()>>;
/// Results of SETATTR.
pub type SetAttr3Res = Result<SetAttr3Ok, Failure<WccData>>;
/// Results of ACCESS.
pub type Access3Res = Result<Access3Ok, Failure<PostOpAttr>>;
/// Results of READLINK.
pub type ReadLink3Res = Result<ReadLink3Ok, Failure<PostOpAttr>>;
/// Results of READ.
pub type Read3Res = Result<Read3Ok, Failure<PostOpAttr>>;
/// Results of WRITE.
pub type Write3Res = Result<Write3Ok, Failure<WccData>>;
/// Results of COMMIT.
pub type Commit3Res = Result<Commit3Ok, Failure<WccData>>;

/// Writes a successful READ result whose data lie in several pieces, which are not joined. Returns the bytes of data.
pub fn encode_read_ok(
    e: &mut Encoder,
    file_attributes: &PostOpAttr,
    eof: bool,
    pieces: impl IntoIterator<Item = Bytes>,
) -> u32 {
    e.u32(0);
    e.put(file_attributes);
    let count = e.reserve_u32();
    e.bool(eof);
    let len = e.opaque_pieces(pieces);
    e.patch_u32(count, len);
    len
}
