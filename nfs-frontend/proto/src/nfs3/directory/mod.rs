//! READDIR and READDIRPLUS (RFC 1813 §3.3.16, §3.3.17), with writers that stop exactly at the client's limits.
//!
//! **Accounting.** `count` of READDIR and `maxcount` of READDIRPLUS bound the whole `READDIR3resok` /
//! `READDIRPLUS3resok` "including all XDR overhead": the directory's attributes with their discriminant, the cookie
//! verifier, every entry with the TRUE before it, the FALSE behind the last one, and `eof`. The status word and the
//! RPC header are not part of it. `dircount` bounds "bytes of directory information", without attributes and
//! handles: per entry what the same entry takes in READDIR, which is the TRUE, fileid, name (length word and padding
//! included) and cookie.
//!
//! Invariant: what a writer leaves in the encoder is either a complete success result within the limits, or nothing.

use atoll_xdr::{Encoder, List, Mark, padding, xdr_struct};

use super::{Failure, Fattr3, FileHandle, Name3, PostOpAttr, PostOpHandle};

/// `cookieverf3`: tells whether cookies are still valid.
pub type CookieVerf3 = [u8; 8];

/// Most entries of one reply that a client decodes: more than the smallest entries in a 16 MiB reply.
pub const MAX_ENTRIES: usize = 1 << 20;

xdr_struct! {
    /// Arguments of READDIR.
    #[derive(Copy)]
    pub struct ReadDir3Args {
        /// The directory.
        pub dir: FileHandle,
        /// Cookie of the last entry seen; 0 at first.
        pub cookie: u64,
        /// Verifier of the reply the cookie came from; zeros at first.
        pub cookieverf: CookieVerf3,
        /// Most bytes of `READDIR3resok`.
        pub count: u32,
    }

    /// An entry of READDIR (`entry3`).
    pub struct Entry3 {
        /// Id of the object.
        pub fileid: u64,
        /// Its name.
        pub name: Name3,
        /// Where the entry behind this one is found.
        pub cookie: u64,
    }

    /// Results of READDIR.
    pub struct ReadDir3Ok {
        /// The directory after.
        pub dir_attributes: PostOpAttr,
        /// Verifier for the cookies.
        pub cookieverf: CookieVerf3,
        /// Entries.
        pub entries: List<Entry3, MAX_ENTRIES>,
        /// Whether the directory ends here.
        pub eof: bool,
    }

    /// Arguments of READDIRPLUS.
    #[derive(Copy)]
    pub struct ReadDirPlus3Args {
        /// The directory.
        pub dir: FileHandle,
        /// Cookie of the last entry seen; 0 at first.
        pub cookie: u64,
        /// Verifier of the reply the cookie came from; zeros at first.
        pub cookieverf: CookieVerf3,
        /// Most bytes of directory information.
        pub dircount: u32,
        /// Most bytes of `READDIRPLUS3resok`.
        pub maxcount: u32,
    }

    /// An entry of READDIRPLUS (`entryplus3`).
    pub struct EntryPlus3 {
        /// Id of the object.
        pub fileid: u64,
        /// Its name.
        pub name: Name3,
        /// Where the entry behind this one is found.
        pub cookie: u64,
        /// The object's attributes.
        pub name_attributes: PostOpAttr,
        /// The object's handle.
        pub name_handle: PostOpHandle,
    }

    /// Results of READDIRPLUS.
    pub struct ReadDirPlus3Ok {
        /// The directory after.
        pub dir_attributes: PostOpAttr,
        /// Verifier for the cookies.
        pub cookieverf: CookieVerf3,
        /// Entries.
        pub entries: List<EntryPlus3, MAX_ENTRIES>,
        /// Whether the directory ends here.
        pub eof: bool,
    }
}

/// Results of READDIR.
pub type ReadDir3Res = Result<ReadDir3Ok, Failure<PostOpAttr>>;
/// Results of READDIRPLUS.
pub type ReadDirPlus3Res = Result<ReadDirPlus3Ok, Failure<PostOpAttr>>;

/// The limit leaves no room for a single entry: answer `NFS3ERR_TOOSMALL`. The writer took its bytes back.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the limit leaves no room for an entry")]
pub struct TooSmall;

/// Bytes behind the last entry: the FALSE that ends the list, and `eof`.
const TRAILER: usize = 8;

/// Bytes of an entry in READDIR: TRUE, fileid, name, cookie.
const fn entry_len(name_len: usize) -> usize {
    4 + 8 + 4 + name_len + padding(name_len) + 8
}

/// What both writers share: the result from its status word on, and the room that is left in it.
#[derive(Debug)]
struct Listing<'e> {
    e: &'e mut Encoder,
    /// Before the status word.
    begin: Mark,
    /// Bytes left for entries; `None` if not even an empty list fits.
    room: Option<usize>,
    entries: usize,
    full: bool,
}

impl<'e> Listing<'e> {
    fn begin(e: &'e mut Encoder, dir_attributes: &PostOpAttr, cookieverf: CookieVerf3, limit: u32) -> Self {
        let begin = e.mark();
        e.u32(0);
        let resok = e.len();
        e.put(dir_attributes);
        e.put(&cookieverf);
        let room = (limit as usize).checked_sub(e.len() - resok + TRAILER);
        Self { e, begin, room, entries: 0, full: false }
    }

    /// Claims `len` bytes for an entry. Once one was refused all are, so that no entry is left out between others.
    fn claim(&mut self, len: usize) -> bool {
        match self.room.and_then(|room| room.checked_sub(len)) {
            Some(left) if !self.full => {
                self.room = Some(left);
                self.entries += 1;
                true
            }
            _ => {
                self.full = true;
                false
            }
        }
    }

    fn put_entry(&mut self, fileid: u64, name: &[u8], cookie: u64) {
        self.e.bool(true);
        self.e.u64(fileid);
        self.e.opaque(name);
        self.e.u64(cookie);
    }

    fn finish(self, eof: bool) -> Result<usize, TooSmall> {
        if self.room.is_none() || (self.full && self.entries == 0) {
            self.e.rollback(self.begin);
            return Err(TooSmall);
        }
        self.e.bool(false);
        self.e.bool(eof && !self.full);
        Ok(self.entries)
    }
}

/// Writes a successful READDIR result entry by entry.
#[derive(Debug)]
#[must_use = "a listing is complete after finish"]
pub struct ReadDirWriter<'e>(Listing<'e>);

impl<'e> ReadDirWriter<'e> {
    /// Writes status, attributes and verifier; `count` is the client's limit (RFC 1813 §3.3.16).
    pub fn begin(
        e: &'e mut Encoder,
        dir_attributes: &PostOpAttr,
        cookieverf: CookieVerf3,
        count: u32,
    ) -> Self {
        Self(Listing::begin(e, dir_attributes, cookieverf, count))
    }

    /// Writes an entry if it fits. After the first `false` nothing is written any more.
    #[must_use = "an entry that does not fit was not written"]
    pub fn push(&mut self, fileid: u64, name: &[u8], cookie: u64) -> bool {
        let fits = self.0.claim(entry_len(name.len()));
        if fits {
            self.0.put_entry(fileid, name, cookie);
        }
        fits
    }

    /// Ends the result and returns the number of entries. `eof` says that the last entry offered was the last of the
    /// directory; it is not passed on if an entry was refused.
    pub fn finish(self, eof: bool) -> Result<usize, TooSmall> {
        self.0.finish(eof)
    }
}

/// An entry offered to [`ReadDirPlusWriter`].
#[derive(Debug, Clone, Copy)]
pub struct DirPlusEntry<'a> {
    /// Id of the object.
    pub fileid: u64,
    /// Its name.
    pub name: &'a [u8],
    /// Where the entry behind this one is found.
    pub cookie: u64,
    /// The object's attributes.
    pub attributes: Option<&'a Fattr3>,
    /// The object's handle.
    pub handle: Option<&'a FileHandle>,
}

impl DirPlusEntry<'_> {
    /// Bytes on the wire.
    fn len(&self) -> usize {
        let attributes = self.attributes.map_or(0, |_| Fattr3::WIRE_LEN);
        let handle = self.handle.map_or(0, |h| 4 + h.as_slice().len() + padding(h.as_slice().len()));
        entry_len(self.name.len()) + 4 + attributes + 4 + handle
    }
}

/// Writes a successful READDIRPLUS result entry by entry.
#[derive(Debug)]
#[must_use = "a listing is complete after finish"]
pub struct ReadDirPlusWriter<'e> {
    listing: Listing<'e>,
    /// Bytes of directory information left.
    dir_room: usize,
}

impl<'e> ReadDirPlusWriter<'e> {
    /// Writes status, attributes and verifier; `dircount` and `maxcount` are the client's limits (RFC 1813 §3.3.17).
    pub fn begin(
        e: &'e mut Encoder,
        dir_attributes: &PostOpAttr,
        cookieverf: CookieVerf3,
        dircount: u32,
        maxcount: u32,
    ) -> Self {
        let listing = Listing::begin(e, dir_attributes, cookieverf, maxcount);
        Self { listing, dir_room: dircount as usize }
    }

    /// Writes an entry if it fits both limits. After the first `false` nothing is written any more.
    ///
    /// The first entry has only `maxcount` to fit: `dircount` is how much the client wants looked up, some clients
    /// send very small ones, and a listing that cannot advance by one entry would never end.
    #[must_use = "an entry that does not fit was not written"]
    pub fn push(&mut self, entry: &DirPlusEntry<'_>) -> bool {
        let directory = entry_len(entry.name.len());
        if self.listing.entries > 0 && directory > self.dir_room {
            self.listing.full = true;
        }
        if !self.listing.claim(entry.len()) {
            return false;
        }
        self.dir_room = self.dir_room.saturating_sub(directory);
        self.listing.put_entry(entry.fileid, entry.name, entry.cookie);
        self.listing.e.put(&entry.attributes);
        self.listing.e.put(&entry.handle);
        true
    }

    /// Whether a name of `len` bytes could still fit, attributes and handle not counted: asked before they are looked
    /// up.
    pub fn may_fit(&self, len: usize) -> bool {
        let directory = entry_len(len);
        !self.listing.full
            && self.listing.room.is_some_and(|room| directory + 8 <= room)
            && (self.listing.entries == 0 || directory <= self.dir_room)
    }

    /// Ends the result and returns the number of entries. `eof` says that the last entry offered was the last of the
    /// directory; it is not passed on if an entry was refused.
    pub fn finish(self, eof: bool) -> Result<usize, TooSmall> {
        self.listing.finish(eof)
    }
}

#[cfg(test)]
mod tests;
