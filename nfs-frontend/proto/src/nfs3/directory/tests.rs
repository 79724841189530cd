//! The writers against a model that encodes ever longer prefixes of the listing and takes the longest that fits.
#![allow(clippy::unwrap_used)]

use atoll_xdr::{Encode, Entropy, Sample};
use proptest::prelude::*;

use super::*;

fn size<T: Encode>(v: &T) -> usize {
    let mut e = Encoder::new();
    e.put(v);
    e.len()
}

/// Entries with names long enough to be told apart, short enough to be many.
fn entries(entropy: &[u8], count: usize) -> Vec<EntryPlus3> {
    let mut s = Entropy::new(entropy);
    (0..count)
        .map(|i| EntryPlus3 {
            fileid: i as u64,
            name: Name3::new(vec![b'n'; s.below(17)]).unwrap(),
            cookie: i as u64 + 1,
            name_attributes: PostOpAttr::sample(&mut s),
            name_handle: PostOpHandle::sample(&mut s),
        })
        .collect()
}

fn plain(entry: &EntryPlus3) -> Entry3 {
    Entry3 { fileid: entry.fileid, name: entry.name.clone(), cookie: entry.cookie }
}

/// The bytes an encoder holds after a leading word that must survive.
fn written(e: Encoder) -> Vec<u8> {
    let bytes = e.into_bytes();
    assert_eq!(&bytes[..4], [0xee; 4]);
    bytes[4..].to_vec()
}

fn begun() -> Encoder {
    let mut e = Encoder::new();
    e.u32(0xeeee_eeee);
    e
}

fn encoded<T: Encode>(v: &T) -> Vec<u8> {
    let mut e = Encoder::new();
    e.put(v);
    e.into_bytes().to_vec()
}

proptest! {
    #[test]
    fn readdir_takes_the_longest_prefix_that_fits(
        entropy in prop::collection::vec(any::<u8>(), 0..300),
        count in 0_usize..12,
        limit in 0_u32..600,
    ) {
        let dir_attributes = PostOpAttr::sample(&mut Entropy::new(&entropy));
        let entries: Vec<Entry3> = entries(&entropy, count).iter().map(plain).collect();
        let model = |n: usize| ReadDir3Ok {
            dir_attributes,
            cookieverf: [1; 8],
            entries: List::new(entries[..n].to_vec()).unwrap(),
            eof: n == entries.len(),
        };
        let fitting = (0..=count).rev().find(|&n| size(&model(n)) <= limit as usize);

        let mut e = begun();
        let mut w = ReadDirWriter::begin(&mut e, &dir_attributes, [1; 8], limit);
        let mut pushed = 0;
        for entry in &entries {
            if w.push(entry.fileid, &entry.name, entry.cookie) {
                pushed += 1;
            }
        }
        let finished = w.finish(true);
        match fitting {
            Some(n) if n > 0 || count == 0 => {
                prop_assert_eq!((finished, pushed), (Ok(n), n));
                prop_assert_eq!(written(e), encoded::<ReadDir3Res>(&Ok(model(n))));
            }
            _ => {
                prop_assert_eq!(finished, Err(TooSmall));
                prop_assert_eq!(written(e), Vec::<u8>::new());
            }
        }
    }

    #[test]
    fn readdirplus_takes_the_longest_prefix_that_fits_both_limits(
        entropy in prop::collection::vec(any::<u8>(), 0..300),
        count in 0_usize..12,
        dircount in 0_u32..500,
        maxcount in 0_u32..2500,
    ) {
        let dir_attributes = PostOpAttr::sample(&mut Entropy::new(&entropy));
        let entries = entries(&entropy, count);
        let model = |n: usize| ReadDirPlus3Ok {
            dir_attributes,
            cookieverf: [1; 8],
            entries: List::new(entries[..n].to_vec()).unwrap(),
            eof: n == entries.len(),
        };
        // Directory information: what the entries take in READDIR, without the FALSE that ends the list.
        let directory = |n: usize| {
            let list: List<Entry3, MAX_ENTRIES> = List::new(entries[..n].iter().map(plain).collect()).unwrap();
            size(&list) - 4
        };
        let fitting = (0..=count)
            .rev()
            .find(|&n| size(&model(n)) <= maxcount as usize && (n <= 1 || directory(n) <= dircount as usize));

        let mut e = begun();
        let mut w = ReadDirPlusWriter::begin(&mut e, &dir_attributes, [1; 8], dircount, maxcount);
        let mut pushed = 0;
        for entry in &entries {
            let may_fit = w.may_fit(entry.name.len());
            let fits = w.push(&DirPlusEntry {
                fileid: entry.fileid,
                name: &entry.name,
                cookie: entry.cookie,
                attributes: entry.name_attributes.as_ref(),
                handle: entry.name_handle.as_ref(),
            });
            prop_assert!(may_fit || !fits, "may_fit never rules out what fits");
            pushed += usize::from(fits);
        }
        let finished = w.finish(true);
        match fitting {
            Some(n) if n > 0 || count == 0 => {
                prop_assert_eq!((finished, pushed), (Ok(n), n));
                prop_assert_eq!(written(e), encoded::<ReadDirPlus3Res>(&Ok(model(n))));
            }
            _ => {
                prop_assert_eq!(finished, Err(TooSmall));
                prop_assert_eq!(written(e), Vec::<u8>::new());
            }
        }
    }
}

#[test]
fn an_empty_directory_needs_room_for_attributes_verifier_and_end() {
    for (limit, ok) in [(19, false), (20, true)] {
        let mut e = Encoder::new();
        let w = ReadDirWriter::begin(&mut e, &None, [0; 8], limit);
        assert_eq!(w.finish(true).is_ok(), ok);
        assert_eq!(e.len(), if ok { 24 } else { 0 }, "the status word is not counted");
    }
}

#[test]
fn a_refused_entry_ends_the_listing() {
    let mut e = Encoder::new();
    let mut w = ReadDirWriter::begin(&mut e, &None, [0; 8], 80);
    assert!(w.push(1, b"a", 1));
    assert!(!w.push(2, &[b'x'; 40], 2));
    assert!(!w.push(3, b"c", 3), "a shorter entry behind it would skip one");
    assert_eq!(w.finish(true), Ok(1));
    let mut d = atoll_xdr::Decoder::new(e.into_bytes());
    let listing = d.decode::<ReadDir3Res>().unwrap().unwrap();
    assert!(!listing.eof, "there is more");
}
