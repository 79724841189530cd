//! Attributes: `fattr3`, `sattr3`, `wcc_data` and their parts (RFC 1813 §2.5, §2.6).

use atoll_xdr::{Decode, Decoder, Encode, Encoder, Result, xdr_enum, xdr_struct, xdr_union};

/// The bits of `mode` that have a meaning (RFC 1813 §2.5 `mode3`): permissions, set-user-id, set-group-id, sticky.
pub const MODE_BITS: u32 = 0o7777;

xdr_enum! {
    /// Type of an object (`ftype3`).
    pub enum FileType3 {
        /// Regular file.
        Regular = 1,
        /// Directory.
        Directory = 2,
        /// Block device.
        Block = 3,
        /// Character device.
        Character = 4,
        /// Symbolic link.
        SymLink = 5,
        /// Socket.
        Socket = 6,
        /// Named pipe.
        Fifo = 7,
    }
}

xdr_struct! {
    /// Device numbers (`specdata3`); 0, 0 for objects that are no device.
    #[derive(Copy, Default, Hash)]
    pub struct SpecData3 {
        /// Major number.
        pub major: u32,
        /// Minor number.
        pub minor: u32,
    }

    /// Time since 1970-01-01 00:00 UTC (`nfstime3`). Times after February 2106 cannot be told.
    #[derive(Copy, Default, Hash, PartialOrd, Ord)]
    pub struct NfsTime3 {
        /// Seconds.
        pub seconds: u32,
        /// Nanoseconds; a peer may send any number, only those below 10^9 are a time.
        pub nseconds: u32,
    }

    /// What is compared to tell whether the cache of a client is still valid (`wcc_attr`).
    #[derive(Copy)]
    pub struct WccAttr {
        /// Size in bytes.
        pub size: u64,
        /// Time of the last change of data.
        pub mtime: NfsTime3,
        /// Time of the last change of attributes.
        pub ctime: NfsTime3,
    }

    /// Weak cache consistency (`wcc_data`): attributes right before and right after, atomically with the operation
    /// or absent.
    #[derive(Copy, Default)]
    pub struct WccData {
        /// Before.
        pub before: PreOpAttr,
        /// After.
        pub after: PostOpAttr,
    }

    /// Attributes to set (`sattr3`); `None` leaves as it is. The default sets nothing.
    #[derive(Copy, Default)]
    pub struct Sattr3 {
        /// Permission bits; others are not looked at.
        pub mode: Option<u32>,
        /// Owner.
        pub uid: Option<u32>,
        /// Group.
        pub gid: Option<u32>,
        /// Size in bytes: truncates or extends with zeros.
        pub size: Option<u64>,
        /// Time of the last access.
        pub atime: SetTime,
        /// Time of the last change of data.
        pub mtime: SetTime,
    }
}

/// `pre_op_attr`.
pub type PreOpAttr = Option<WccAttr>;

/// `post_op_attr`.
pub type PostOpAttr = Option<Fattr3>;

xdr_union! {
    /// How a time is set (`set_atime`, `set_mtime`; `time_how`).
    #[derive(Copy, Default)]
    pub enum SetTime {
        /// Left as it is.
        #[default]
        0 => DontChange,
        /// The server's present time.
        1 => ServerTime,
        /// The time given.
        2 => ClientTime(time: NfsTime3),
    }
}

/// Attributes of an object (`fattr3`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Fattr3 {
    /// Type.
    pub file_type: FileType3,
    /// Permission bits, `0o7777`.
    pub mode: u32,
    /// Number of names.
    pub nlink: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Size in bytes.
    pub size: u64,
    /// Bytes of storage used.
    pub used: u64,
    /// Device numbers.
    pub rdev: SpecData3,
    /// Identifies the file system on this server.
    pub fsid: u64,
    /// Identifies the object within the file system.
    pub fileid: u64,
    /// Time of the last access.
    pub atime: NfsTime3,
    /// Time of the last change of data.
    pub mtime: NfsTime3,
    /// Time of the last change of attributes.
    pub ctime: NfsTime3,
}

impl Fattr3 {
    /// Length on the wire in bytes.
    pub const WIRE_LEN: usize = 84;

    /// The part that `wcc_data` compares.
    pub fn wcc(&self) -> WccAttr {
        WccAttr { size: self.size, mtime: self.mtime, ctime: self.ctime }
    }
}

impl Encode for Fattr3 {
    /// Almost every reply carries attributes, so they are laid out in an array of fixed size and appended at once.
    #[inline]
    fn encode(&self, e: &mut Encoder) {
        let mut wire = [0; Self::WIRE_LEN];
        let words: [u32; Self::WIRE_LEN / 4] = [
            self.file_type as u32,
            self.mode,
            self.nlink,
            self.uid,
            self.gid,
            high(self.size),
            low(self.size),
            high(self.used),
            low(self.used),
            self.rdev.major,
            self.rdev.minor,
            high(self.fsid),
            low(self.fsid),
            high(self.fileid),
            low(self.fileid),
            self.atime.seconds,
            self.atime.nseconds,
            self.mtime.seconds,
            self.mtime.nseconds,
            self.ctime.seconds,
            self.ctime.nseconds,
        ];
        for (place, word) in wire.chunks_exact_mut(4).zip(words) {
            place.copy_from_slice(&word.to_be_bytes());
        }
        e.raw(&wire);
    }
}

#[allow(clippy::cast_possible_truncation)] // the upper and the lower half
const fn high(v: u64) -> u32 {
    (v >> 32) as u32
}

#[allow(clippy::cast_possible_truncation)]
const fn low(v: u64) -> u32 {
    v as u32
}

impl Decode for Fattr3 {
    const MIN_LEN: usize = Self::WIRE_LEN;

    fn decode(d: &mut Decoder) -> Result<Self> {
        Ok(Self {
            file_type: d.decode()?,
            mode: d.u32()?,
            nlink: d.u32()?,
            uid: d.u32()?,
            gid: d.u32()?,
            size: d.u64()?,
            used: d.u64()?,
            rdev: d.decode()?,
            fsid: d.u64()?,
            fileid: d.u64()?,
            atime: d.decode()?,
            mtime: d.decode()?,
            ctime: d.decode()?,
        })
    }
}

#[cfg(test)]
impl atoll_xdr::Sample for Fattr3 {
    fn sample(s: &mut atoll_xdr::Entropy<'_>) -> Self {
        Self {
            file_type: FileType3::sample(s),
            mode: u32::sample(s),
            nlink: u32::sample(s),
            uid: u32::sample(s),
            gid: u32::sample(s),
            size: u64::sample(s),
            used: u64::sample(s),
            rdev: SpecData3::sample(s),
            fsid: u64::sample(s),
            fileid: u64::sample(s),
            atime: NfsTime3::sample(s),
            mtime: NfsTime3::sample(s),
            ctime: NfsTime3::sample(s),
        }
    }
}
