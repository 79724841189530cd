//! The writer of READDIR: whole, and within the client's limits.

use atoll_xdr::{Encoder, List, Opaque};

use super::both_ways;
use crate::nfs4::*;
use crate::tests::{decode, hex};

fn entry(cookie: u64, name: &'static [u8], size: u64) -> Entry4 {
    let attrs = Fattr4::build(&[AttrValue4::Size(size)]).unwrap();
    Entry4 { cookie, name: Opaque::from_static(name), attrs }
}

/// TRUE, cookie, name, bitmap, length, size.
const ENTRY_LEN: usize = 4 + 8 + 8 + 8 + 4 + 8;
/// Verifier, FALSE, `eof`.
const EMPTY_LEN: usize = 8 + 4 + 4;

fn list(dircount: u32, maxcount: usize) -> Result<ReadDir4Ok, TooSmall> {
    let mut e = Encoder::new();
    e.u32(0xdead_beef); // what stands before is not touched
    let mut writer = ReadDirWriter::begin(&mut e, [8; 8], dircount, u32::try_from(maxcount).unwrap());
    for (cookie, name) in [(3, b"a"), (4, b"b"), (5, b"c")] {
        let _ = writer.push(cookie, name, Bitmap::of(&[4]), |attrs| attrs.put(&AttrValue4::Size(cookie)));
    }
    let finished = writer.finish(true);
    let bytes = e.into_bytes();
    assert_eq!(bytes[..4], hex("deadbeef"));
    match finished {
        Err(too_small) => {
            assert_eq!(bytes.len(), 4);
            Err(too_small)
        }
        Ok(entries) => {
            let ResOp4::ReadDir(Ok(ok)) = decode(&bytes[4..]).unwrap() else { panic!("READDIR") };
            assert_eq!(ok.entries.len(), entries);
            // Behind operation number and status the whole counts.
            assert!(bytes.len() - 12 <= maxcount);
            Ok(ok)
        }
    }
}

#[test]
fn a_listing() {
    let entries = List::new(vec![entry(3, b"a", 3), entry(4, b"b", 4), entry(5, b"c", 5)]).unwrap();
    let whole = ReadDir4Ok { cookieverf: [8; 8], entries, eof: true };
    assert_eq!(list(0, EMPTY_LEN + 3 * ENTRY_LEN), Ok(whole.clone()));
    let one = ReadDir4Ok { entries: List::new(vec![entry(3, b"a", 3)]).unwrap(), ..whole };
    both_ways(
        &ResOp4::ReadDir(Ok(one)),
        "0000001a 00000000 0808080808080808
         00000001 0000000000000003 00000001 61000000 00000001 00000010 00000008 0000000000000003
         00000000 00000001",
    );
}

#[test]
fn a_listing_stops_at_its_limits() {
    let some = |dircount, maxcount| list(dircount, maxcount).map(|ok| (ok.entries.len(), ok.eof));
    assert_eq!(some(0, EMPTY_LEN + 3 * ENTRY_LEN - 1), Ok((2, false)));
    assert_eq!(some(0, EMPTY_LEN + ENTRY_LEN), Ok((1, false)));
    for too_small in [0, 7, 8, EMPTY_LEN - 1, EMPTY_LEN, EMPTY_LEN + ENTRY_LEN - 1] {
        assert_eq!(some(0, too_small), Err(TooSmall), "{too_small}");
    }
    // Cookie and name take 16 bytes of an entry; the first entry is not held to the hint.
    assert_eq!(some(1, 4096), Ok((1, false)));
    assert_eq!(some(31, 4096), Ok((1, false)));
    assert_eq!(some(32, 4096), Ok((2, false)));
    assert_eq!(some(48, 4096), Ok((3, true)));
}

#[test]
fn an_empty_listing() {
    let mut e = Encoder::new();
    let maxcount = u32::try_from(EMPTY_LEN).unwrap();
    assert_eq!(ReadDirWriter::begin(&mut e, [8; 8], 0, maxcount).finish(true), Ok(0));
    assert_eq!(e.into_bytes()[..], hex("0000001a 00000000 0808080808080808 00000000 00000001"));
}

#[test]
fn an_entry_without_attributes_tells_why() {
    let mut e = Encoder::new();
    let mut writer = ReadDirWriter::begin(&mut e, [8; 8], 0, 4096);
    assert!(writer.push_error(3, b"a", NfsStat4::Moved));
    writer.finish(true).unwrap();
    let ResOp4::ReadDir(Ok(ok)) = decode(&e.into_bytes()).unwrap() else { panic!("READDIR") };
    assert_eq!(ok.entries[0].attrs.read().unwrap(), [AttrValue4::RdAttrError(Err(NfsStat4::Moved))]);
}
