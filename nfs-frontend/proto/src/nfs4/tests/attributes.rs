//! Bitmaps, `fattr4`, attributes to set.

use atoll_xdr::{Encoder, Entropy, Opaque, Sample};
use proptest::prelude::*;

use super::both_ways;
use crate::nfs4::limits::MAX_BITMAP_WORDS;
use crate::nfs4::*;
use crate::tests::{decode, encode, hex};

fn owner(name: &'static [u8]) -> Principal4 {
    Opaque::from_static(name)
}

#[test]
fn a_bitmap_has_no_zero_words_at_its_end() {
    both_ways(&Bitmap::EMPTY, "00000000");
    both_ways(&Bitmap::of(&[1, 3]), "00000001 0000000a");
    both_ways(&Bitmap::of(&[33]), "00000002 00000000 00000002");
    assert_eq!(decode::<Bitmap>(&hex("00000003 0000000a 00000000 00000000")).unwrap(), Bitmap::of(&[1, 3]));
    assert_eq!(decode::<Bitmap>(&hex("00000001 00000000")).unwrap(), Bitmap::EMPTY);
}

#[test]
fn a_bitmap_keeps_numbers_that_nobody_knows() {
    let mut bytes = vec![0; 4 * 33];
    bytes[3] = 32;
    bytes[4 * 32 + 2] = 1; // bit 8 of word 31
    let bitmap = decode::<Bitmap>(&bytes).unwrap();
    assert_eq!(bitmap.iter().collect::<Vec<_>>(), [1000]);
    assert!(bitmap.contains(1000) && !bitmap.contains(1001) && !bitmap.contains(u32::MAX));
    assert_eq!(&encode(&bitmap)[..], &bytes[..]);
    assert_eq!(Attr4::from_u32(1000), None);
}

#[test]
fn a_bitmap_is_bounded() {
    let words = u32::try_from(MAX_BITMAP_WORDS).unwrap();
    let bytes = |count: u32| [count.to_be_bytes().to_vec(), vec![0; 4 * count as usize]].concat();
    assert_eq!(decode::<Bitmap>(&bytes(words)).unwrap(), Bitmap::EMPTY);
    assert!(decode::<Bitmap>(&bytes(words + 1)).is_err());
    assert!(Bitmap::default().insert(Bitmap::LIMIT).is_err());
    assert!(Bitmap::default().insert(Bitmap::LIMIT - 1).is_ok());
}

#[test]
fn fattr() {
    // Size and mode, which are in two words, and the owner, whose length is not a multiple of four.
    let values = [AttrValue4::Size(5), AttrValue4::Mode(0o640), AttrValue4::Owner(owner(b"a@b.c"))];
    let fattr = Fattr4::build(&values).unwrap();
    both_ways(
        &fattr,
        "00000002 00000010 00000012  00000018 0000000000000005 000001a0 00000005 6140622e63000000",
    );
    assert_eq!(fattr.read().unwrap(), values);
}

#[test]
fn attributes_of_extensions() {
    let both = |value: AttrValue4, text: &str| both_ways(&Fattr4::build([&value]).unwrap(), text);
    both(
        AttrValue4::ModeUmask(ModeUmask4 { mode: 0o666, umask: 0o22 }),
        "00000003 00000000 00000000 00020000  00000008 000001b6 00000012",
    );
    both(AttrValue4::XattrSupport(true), "00000003 00000000 00000000 00040000  00000004 00000001");
    both(
        AttrValue4::TimeDelegModify(NfsTime4 { seconds: -1, nseconds: 7 }),
        "00000003 00000000 00000000 00200000  0000000c ffffffffffffffff 00000007",
    );
    let arguments = OpenArguments4 {
        share_access: Bitmap::of(&[1, 2, 3]),
        share_deny: Bitmap::of(&[0, 1, 2, 3]),
        share_access_want: Bitmap::of(&[3, 4, 5, 17, 18, 20, 21]),
        open_claim: Bitmap::of(&[0, 1, 2, 4, 5]),
        create_mode: Bitmap::of(&[0, 1, 3]),
    };
    both(
        AttrValue4::OpenArguments(arguments),
        "00000003 00000000 00000000 00400000  00000028
         00000001 0000000e  00000001 0000000f  00000001 00360038  00000001 00000037  00000001 0000000b",
    );
}

#[test]
fn values_are_built_in_order_only() {
    assert_eq!(Fattr4::build(&[AttrValue4::Mode(0), AttrValue4::Size(0)]), None);
    assert_eq!(Fattr4::build(&[AttrValue4::Size(0), AttrValue4::Size(0)]), None);
}

#[test]
fn values_must_fit_their_bitmap() {
    let fattr = |values: &str| Fattr4 { mask: Bitmap::of(&[4]), values: Opaque::new(hex(values)).unwrap() };
    assert_eq!(fattr("0000000000000005").read(), Ok(vec![AttrValue4::Size(5)]));
    for wrong in ["", "00000005", "0000000000000005 00000000"] {
        assert_eq!(fattr(wrong).read().unwrap_err().status(), NfsStat4::BadXdr);
    }
    let unknown = Fattr4 { mask: Bitmap::of(&[4, 100]), values: fattr("0000000000000005").values };
    assert_eq!(unknown.read(), Err(AttrError::Unsupported(100)));
}

#[test]
fn what_is_set() {
    let set = SetAttrs4 {
        size: Some(0),
        mode: Some(0o600),
        group: Some(owner(b"100")),
        atime: Some(SetTime4::ServerTime),
        mtime: Some(SetTime4::ClientTime(NfsTime4 { seconds: 1, nseconds: 2 })),
        ..SetAttrs4::default()
    };
    let fattr = set.to_fattr().unwrap();
    both_ways(
        &fattr,
        "00000002 00000010 00410022  00000028
         0000000000000000 00000180 00000003 31303000 00000000 00000001 0000000000000001 00000002",
    );
    assert_eq!(set.mask(), fattr.mask);
    assert_eq!(SetAttrs4::read(&fattr, &SetAttrs4::ALL), Ok(set));
    let nothing = SetAttrs4::default().to_fattr().unwrap();
    both_ways(&nothing, "00000000 00000000");
}

#[test]
fn what_cannot_be_set() {
    let read = |value: AttrValue4, supported: &[u32]| {
        SetAttrs4::read(&Fattr4::build([&value]).unwrap(), &Bitmap::of(supported)).unwrap_err()
    };
    assert_eq!(read(AttrValue4::FileId(1), &[4, 20]).status(), NfsStat4::Inval);
    assert_eq!(read(AttrValue4::FileId(1), &[4]).status(), NfsStat4::AttrNotSupp);
    assert_eq!(read(AttrValue4::Hidden(true), &[4]), AttrError::Unsupported(25));
    // Refused for its bitmap, not for the values, where nobody can tell what follows the unknown one.
    let unknown = Fattr4 { mask: [4, 1000].into_iter().collect(), values: Opaque::default() };
    assert_eq!(SetAttrs4::read(&unknown, &SetAttrs4::ALL), Err(AttrError::Unsupported(1000)));
}

#[test]
fn directions_agree_with_what_can_be_set() {
    for attr in Attr4::ALL {
        let settable = SetAttrs4::ALL.contains(attr.to_u32());
        assert_eq!(settable, attr.direction() != Direction::Read, "{attr:?}");
    }
    let of = |minor| Attr4::ALL.iter().filter(move |attr| attr.since() == minor).count();
    assert_eq!((of(0), of(1), of(2)), (56, 21, 10));
}

#[test]
fn the_writer_writes_what_the_value_holds() {
    let values = [AttrValue4::Type(FileType4::Regular), AttrValue4::Size(5), AttrValue4::NumLinks(1)];
    let mut e = Encoder::new();
    let mut writer = FattrWriter::begin(&mut e, Bitmap::of(&[1, 4, 35]));
    for value in &values {
        assert_eq!(writer.next(), Some(value.attr()));
        writer.put(value);
    }
    assert_eq!(writer.next(), None);
    writer.finish();
    assert_eq!(e.into_bytes(), encode(&Fattr4::build(&values).unwrap()));
}

#[test]
#[should_panic(expected = "in the order of the bitmap")]
fn the_writer_refuses_another_attribute() {
    let mut e = Encoder::new();
    FattrWriter::begin(&mut e, Bitmap::of(&[4])).put(&AttrValue4::NumLinks(1));
}

fn naive(words: &[u32]) -> std::collections::BTreeSet<u32> {
    (0_u32..)
        .zip(words)
        .flat_map(|(at, word)| (0..32).filter(move |bit| word >> bit & 1 == 1).map(move |bit| 32 * at + bit))
        .collect()
}

proptest! {
    #[test]
    fn a_bitmap_is_a_set(
        a in prop::collection::vec(prop_oneof![Just(0), any::<u32>()], 0..=MAX_BITMAP_WORDS),
        b in prop::collection::vec(prop_oneof![Just(0), any::<u32>()], 0..8),
        number in 0..Bitmap::LIMIT,
    ) {
        let (set_a, set_b) = (naive(&a), naive(&b));
        let (a, b) = (Bitmap::from_words(&a).unwrap(), Bitmap::from_words(&b).unwrap());
        let is = |bitmap: &Bitmap, set: &std::collections::BTreeSet<u32>| {
            assert!(bitmap.iter().eq(set.iter().copied()));
            assert_eq!(bitmap, &set.iter().copied().collect::<Bitmap>());
            assert_eq!(encode(bitmap).len(), bitmap.wire_len());
            assert_eq!(bitmap.is_empty(), set.is_empty());
        };
        is(&a, &set_a);
        is(&a.and(&b), &(&set_a & &set_b));
        is(&a.or(&b), &(&set_a | &set_b));
        is(&a.without(&b), &(&set_a - &set_b));
        let (mut with, mut set) = (a.clone(), set_a.clone());
        with.insert(number).unwrap();
        set.insert(number);
        is(&with, &set);
        with.remove(number);
        set.remove(&number);
        is(&with, &set);
        prop_assert!(!with.contains(number));
    }

    #[test]
    fn all_attributes_round_trip(
        entropy in prop::collection::vec(any::<u8>(), 0..600),
        chosen in prop::collection::btree_set(0_u32..87, 0..12),
    ) {
        let mut s = Entropy::new(&entropy);
        let values: Vec<AttrValue4> =
            chosen.iter().map(|number| Attr4::from_u32(*number).unwrap().sample_value(&mut s)).collect();
        let fattr = Fattr4::build(&values).unwrap();
        prop_assert!(fattr.mask.iter().eq(chosen.iter().copied()));
        let again: Fattr4 = decode(&encode(&fattr)).unwrap();
        prop_assert_eq!(again.read().unwrap(), values.clone());
        if let Ok(set) = SetAttrs4::read(&fattr, &SetAttrs4::ALL) {
            prop_assert_eq!(set.values(), values);
        }
    }

    #[test]
    fn any_values_are_read_or_refused(
        entropy in prop::collection::vec(any::<u8>(), 0..400),
        values in prop::collection::vec(any::<u8>(), 0..400),
    ) {
        let mask = Bitmap::sample(&mut Entropy::new(&entropy));
        let fattr = Fattr4 { mask, values: Opaque::new(values).unwrap() };
        if let Ok(values) = fattr.read() {
            prop_assert_eq!(Fattr4::build(&values).unwrap().read().unwrap(), values);
        }
    }
}
