//! READDIRPLUS of a large directory, again and again. An operation is an *entry*, the latency is that of a call.

use atoll_proto::nfs3::{FileHandle, ReadDirPlus3Args, ReadDirPlus3Res, call};
use atoll_proto::rpc::OpaqueAuth;
use atoll_xdr::{Decode, Decoder};
use bytes::Bytes;

use super::template::{args_at, encode, handle_len};
use crate::load::{BadReply, CallWriter, Progress, Workload};

/// `dircount` and `maxcount` of each call: what a Linux client asks for at most times two.
const COUNT: u32 = 64 * 1024;

/// Where a slot is in the directory.
#[derive(Debug, Clone, Copy, Default)]
struct Place {
    cookie: u64,
    verifier: [u8; 8],
    entries: u64,
}

/// Lists one directory with every slot on its own.
#[derive(Debug)]
pub struct Listing {
    template: Bytes,
    cookie_at: usize,
    places: Vec<Place>,
    /// Entries that a whole listing must have, without `.` and `..`.
    entries: u64,
}

impl Listing {
    /// Lists `dir`, which has `entries` entries.
    pub fn new(dir: FileHandle, entries: u64, slots: usize, credential: &OpaqueAuth) -> Self {
        let args = ReadDirPlus3Args { dir, cookie: 0, cookieverf: [0; 8], dircount: COUNT, maxcount: COUNT };
        Self {
            template: encode::<call::ReadDirPlus>(credential, &args),
            cookie_at: args_at(credential) + handle_len(&dir),
            places: vec![Place::default(); slots],
            entries,
        }
    }
}

impl Workload for Listing {
    fn call(&mut self, slot: usize, out: &mut CallWriter<'_>) {
        let place = &self.places[slot];
        out.put(&self.template);
        out.patch(self.cookie_at, &place.cookie.to_be_bytes());
        out.patch(self.cookie_at + 8, &place.verifier);
    }

    fn reply(&mut self, slot: usize, results: &[u8]) -> Result<Progress, BadReply> {
        let bad = |what: String| BadReply(format!("READDIRPLUS: {what}"));
        let mut d = Decoder::new(Bytes::copy_from_slice(results));
        let page = ReadDirPlus3Res::decode(&mut d).map_err(|e| bad(e.to_string()))?;
        let page = page.map_err(|failure| bad(format!("{:?}", failure.status)))?;
        let place = &mut self.places[slot];
        let mut named = 0;
        for entry in &page.entries {
            place.cookie = entry.cookie;
            named += u64::from(!matches!(&entry.name[..], b"." | b".."));
        }
        place.verifier = page.cookieverf;
        place.entries += named;
        if page.eof {
            if place.entries != self.entries {
                return Err(bad(format!("{} entries of {}", place.entries, self.entries)));
            }
            *place = Place::default();
        } else if page.entries.is_empty() {
            return Err(bad("neither an entry nor the end".into()));
        }
        Ok(Progress::Done(named))
    }
}
