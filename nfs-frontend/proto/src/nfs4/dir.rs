//! Names: CREATE, LINK, LOOKUP, READDIR, READLINK, REMOVE, RENAME (RFC 8881 §18.4, §18.9, §18.13, §18.14,
//! §18.23–§18.26), and a writer of READDIR that stops exactly at the client's limits.
//!
//! **Accounting** (RFC 8881 §18.23.3). `maxcount` bounds the whole `READDIR4resok` with all XDR overhead: the cookie
//! verifier, every entry with the TRUE before it, the FALSE behind the last one, and `eof`. `dircount` is a hint about
//! names and cookies; 0 is no hint.

use atoll_xdr::{Decode, Decoder, Encode, Encoder, List, Mark, Result as XdrResult, padding, xdr_struct};

use super::limits::MAX_ENTRIES;
use super::{
    AttrValue4, Bitmap, ChangeInfo4, Fattr4, FattrWriter, FileType4, LinkText4, Name4, NfsStat4, OpNum4,
    SpecData4, Verifier4,
};

/// What CREATE makes (`createtype4`). Types that need no data, known or not, are kept by number: those that cannot be
/// made are answered with `NFS4ERR_BADTYPE`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CreateType4 {
    /// A symbolic link with its text.
    SymLink(LinkText4),
    /// A block device.
    Block(SpecData4),
    /// A character device.
    Character(SpecData4),
    /// A directory.
    Directory,
    /// A socket.
    Socket,
    /// A named pipe.
    Fifo,
    /// None of the others, by its number.
    Other(u32),
}

impl Encode for CreateType4 {
    fn encode(&self, e: &mut Encoder) {
        match self {
            Self::SymLink(text) => {
                e.put(&FileType4::SymLink);
                e.put(text);
            }
            Self::Block(device) => {
                e.put(&FileType4::Block);
                e.put(device);
            }
            Self::Character(device) => {
                e.put(&FileType4::Character);
                e.put(device);
            }
            Self::Directory => e.put(&FileType4::Directory),
            Self::Socket => e.put(&FileType4::Socket),
            Self::Fifo => e.put(&FileType4::Fifo),
            Self::Other(number) => e.u32(*number),
        }
    }
}

impl Decode for CreateType4 {
    const MIN_LEN: usize = 4;

    fn decode(d: &mut Decoder) -> XdrResult<Self> {
        let number = d.u32()?;
        Ok(match FileType4::from_u32(number) {
            Some(FileType4::SymLink) => Self::SymLink(d.decode()?),
            Some(FileType4::Block) => Self::Block(d.decode()?),
            Some(FileType4::Character) => Self::Character(d.decode()?),
            Some(FileType4::Directory) => Self::Directory,
            Some(FileType4::Socket) => Self::Socket,
            Some(FileType4::Fifo) => Self::Fifo,
            _ => Self::Other(number),
        })
    }
}

#[cfg(test)]
impl atoll_xdr::Sample for CreateType4 {
    fn sample(s: &mut atoll_xdr::Entropy<'_>) -> Self {
        match s.below(7) {
            0 => Self::SymLink(LinkText4::sample(s)),
            1 => Self::Block(SpecData4::sample(s)),
            2 => Self::Character(SpecData4::sample(s)),
            3 => Self::Directory,
            4 => Self::Socket,
            5 => Self::Fifo,
            _ => Self::Other([0, FileType4::Regular.to_u32(), FileType4::NamedAttr.to_u32(), 77][s.below(4)]),
        }
    }
}

xdr_struct! {
    /// Arguments of CREATE.
    pub struct Create4Args {
        /// What to make.
        pub objtype: CreateType4,
        /// Its name.
        pub objname: Name4,
        /// First attributes.
        pub createattrs: Fattr4,
    }

    /// Results of CREATE.
    pub struct Create4Ok {
        /// The directory.
        pub cinfo: ChangeInfo4,
        /// The attributes that were set.
        pub attrset: Bitmap,
    }

    /// Arguments of LINK: the saved handle gets a name in the current directory.
    pub struct Link4Args {
        /// The name.
        pub newname: Name4,
    }

    /// Arguments of LOOKUP.
    pub struct Lookup4Args {
        /// The name.
        pub objname: Name4,
    }

    /// Arguments of REMOVE.
    pub struct Remove4Args {
        /// The name.
        pub target: Name4,
    }

    /// Results of LINK and REMOVE.
    #[derive(Copy)]
    pub struct Changed4Ok {
        /// The directory.
        pub cinfo: ChangeInfo4,
    }

    /// Arguments of RENAME.
    pub struct Rename4Args {
        /// Name in the saved directory.
        pub oldname: Name4,
        /// Name in the current directory.
        pub newname: Name4,
    }

    /// Results of RENAME.
    #[derive(Copy)]
    pub struct Rename4Ok {
        /// The saved directory.
        pub source_cinfo: ChangeInfo4,
        /// The current directory.
        pub target_cinfo: ChangeInfo4,
    }

    /// Results of READLINK.
    pub struct ReadLink4Ok {
        /// The text.
        pub link: LinkText4,
    }

    /// Arguments of READDIR.
    pub struct ReadDir4Args {
        /// Cookie of the last entry seen; 0 at first. 1 and 2 are reserved.
        pub cookie: u64,
        /// Verifier of the reply the cookie came from; zeros at first.
        pub cookieverf: Verifier4,
        /// A hint: most bytes of names and cookies.
        pub dircount: u32,
        /// Most bytes of `READDIR4resok`.
        pub maxcount: u32,
        /// Attributes asked for.
        pub attr_request: Bitmap,
    }

    /// An entry (`entry4`).
    pub struct Entry4 {
        /// Where the entry behind this one is found.
        pub cookie: u64,
        /// Name.
        pub name: Name4,
        /// Attributes.
        pub attrs: Fattr4,
    }

    /// Results of READDIR.
    pub struct ReadDir4Ok {
        /// Verifier for the cookies.
        pub cookieverf: Verifier4,
        /// Entries.
        pub entries: List<Entry4, MAX_ENTRIES>,
        /// Whether the directory ends here.
        pub eof: bool,
    }
}

/// Results of CREATE.
pub type Create4Res = Result<Create4Ok, NfsStat4>;
/// Results of LINK and REMOVE.
pub type Changed4Res = Result<Changed4Ok, NfsStat4>;
/// Results of RENAME.
pub type Rename4Res = Result<Rename4Ok, NfsStat4>;
/// Results of READLINK.
pub type ReadLink4Res = Result<ReadLink4Ok, NfsStat4>;
/// Results of READDIR.
pub type ReadDir4Res = Result<ReadDir4Ok, NfsStat4>;

/// The limit leaves no room for a single entry: answer `NFS4ERR_TOOSMALL`. The writer took its bytes back.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the limit leaves no room for an entry")]
pub struct TooSmall;

/// Bytes behind the last entry: the FALSE that ends the list, and `eof`.
const TRAILER: usize = 8;

/// Writes a successful READDIR result, operation number and status included, entry by entry.
///
/// Invariant: what it leaves in the encoder is either a complete success result within the limits, or nothing.
#[derive(Debug)]
#[must_use = "a listing is complete after finish"]
pub struct ReadDirWriter<'e> {
    e: &'e mut Encoder,
    /// Before the operation number.
    begin: Mark,
    /// What [`Encoder::len`] may reach before the trailer.
    end: usize,
    /// Bytes of names and cookies left; `None` without a hint.
    dir_room: Option<usize>,
    entries: usize,
    full: bool,
}

impl<'e> ReadDirWriter<'e> {
    /// Writes number, status and verifier; `dircount` and `maxcount` are the client's limits.
    pub fn begin(e: &'e mut Encoder, cookieverf: Verifier4, dircount: u32, maxcount: u32) -> Self {
        let begin = e.mark();
        e.put(&OpNum4::ReadDir);
        e.u32(0);
        let end = (e.len() + maxcount as usize).saturating_sub(TRAILER);
        e.put(&cookieverf);
        let dir_room = (dircount != 0).then_some(dircount as usize);
        Self { e, begin, end, dir_room, entries: 0, full: false }
    }

    /// Writes an entry if it fits. After the first `false` nothing is written any more. `attrs` puts a value for each
    /// attribute of `mask`, in order.
    ///
    /// The first entry has only `maxcount` to fit: a listing that cannot advance by one entry would never end.
    #[must_use = "an entry that does not fit was not written"]
    pub fn push(
        &mut self,
        cookie: u64,
        name: &[u8],
        mask: Bitmap,
        attrs: impl FnOnce(&mut FattrWriter<'_>),
    ) -> bool {
        // Directory information: cookie, name with its length.
        let directory = 8 + 4 + name.len() + padding(name.len());
        let dir_room = self.dir_room.map(|room| room.checked_sub(directory));
        if self.full || (self.entries > 0 && dir_room == Some(None)) {
            self.full = true;
            return false;
        }
        let mark = self.e.mark();
        self.e.bool(true);
        self.e.u64(cookie);
        self.e.opaque(name);
        let mut writer = FattrWriter::begin(self.e, mask);
        attrs(&mut writer);
        writer.finish();
        if self.e.len() > self.end {
            self.e.rollback(mark);
            self.full = true;
            return false;
        }
        self.dir_room = dir_room.map(Option::unwrap_or_default);
        self.entries += 1;
        true
    }

    /// As [`Self::push`] with `rdattr_error` for an entry whose attributes cannot be read, if the client asked for it.
    #[must_use = "an entry that does not fit was not written"]
    pub fn push_error(&mut self, cookie: u64, name: &[u8], status: NfsStat4) -> bool {
        let value = AttrValue4::RdAttrError(Err(status));
        self.push(cookie, name, Bitmap::of(&[value.attr().to_u32()]), |attrs| attrs.put(&value))
    }

    /// Ends the result and returns the number of entries. `eof` says that the last entry offered was the last of the
    /// directory; it is not passed on if an entry was refused.
    pub fn finish(self, eof: bool) -> Result<usize, TooSmall> {
        if self.e.len() > self.end || (self.full && self.entries == 0) {
            self.e.rollback(self.begin);
            return Err(TooSmall);
        }
        self.e.bool(false);
        self.e.bool(eof && !self.full);
        Ok(self.entries)
    }
}
