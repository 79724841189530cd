//! Rules of the codec one by one, and properties over random values and bytes.
#![allow(clippy::unwrap_used, dead_code)]

use bytes::Bytes;
use proptest::prelude::*;

use crate::*;

xdr_enum! {
    /// An enumeration.
    enum Colour { Red = 2, Green = 5 }
}

xdr_union! {
    /// A union with void arms and arms with data.
    enum Shape {
        0 => Point,
        1 => Circle(radius: u64),
        7 => Named(name: Opaque<9>),
    }
}

xdr_struct! {
    /// Everything at once.
    struct Everything {
        a: u32,
        b: i64,
        c: bool,
        fixed: [u8; 5],
        name: Opaque<20>,
        payload: Opaque<10_000>,
        next: Option<Colour>,
        shape: Shape,
        numbers: Array<u32, 8>,
        list: List<Pair<u32>, 8>,
        outcome: Result<u32, Colour>,
    }

    /// A generic structure.
    #[derive(Copy)]
    struct Pair<T> { one: T, two: T }
}

fn encode<T: Encode>(v: &T) -> Bytes {
    let mut e = Encoder::new();
    e.put(v);
    let len = e.len();
    let bytes = e.into_bytes();
    assert_eq!(bytes.len(), len, "len() is the exact wire size");
    bytes
}

fn decode<T: Decode>(bytes: &[u8]) -> Result<T> {
    Decoder::new(Bytes::copy_from_slice(bytes)).decode()
}

#[test]
fn integers_are_big_endian() {
    assert_eq!(&encode(&0x0102_0304_u32)[..], [1, 2, 3, 4]);
    assert_eq!(&encode(&-2_i32)[..], [0xff, 0xff, 0xff, 0xfe]);
    assert_eq!(&encode(&0x0102_0304_0506_0708_u64)[..], [1, 2, 3, 4, 5, 6, 7, 8]);
    assert_eq!(&encode(&-1_i64)[..], [0xff; 8]);
    assert_eq!(&encode(&true)[..], [0, 0, 0, 1]);
}

#[test]
fn opaque_is_padded_with_zeros() {
    let v = Opaque::<10>::from_static(b"abcde");
    assert_eq!(&encode(&v)[..], b"\0\0\0\x05abcde\0\0\0");
    assert_eq!(&encode(&[9_u8; 3])[..], [9, 9, 9, 0]);
}

#[test]
fn padding_of_any_value_is_accepted() {
    assert_eq!(&decode::<Opaque<10>>(b"\0\0\0\x05abcdexyz").unwrap()[..], b"abcde");
    assert_eq!(decode::<[u8; 3]>(b"abcz").unwrap(), *b"abc");
}

#[test]
fn missing_padding_is_truncation() {
    assert_eq!(decode::<Opaque<10>>(b"\0\0\0\x05abcde\0\0"), Err(Error::Truncated { wanted: 8, left: 7 }));
    assert_eq!(decode::<[u8; 3]>(b"abc"), Err(Error::Truncated { wanted: 4, left: 3 }));
}

#[test]
fn bounds_are_checked_before_the_bytes() {
    assert_eq!(decode::<Opaque<4>>(b"\xff\xff\xff\xff"), Err(Error::TooLong { len: 0xffff_ffff, max: 4 }));
    assert_eq!(decode::<Array<u32, 4>>(b"\0\0\0\x05"), Err(Error::TooLong { len: 5, max: 4 }));
    // Within the bound, but the bytes left cannot hold the elements.
    assert_eq!(
        decode::<Array<u64, 1000>>(b"\0\0\x01\0aaaa"),
        Err(Error::Truncated { wanted: 2048, left: 4 })
    );
    assert_eq!(Opaque::<2>::new(&b"abc"[..]), Err(Error::TooLong { len: 3, max: 2 }));
    assert!(Array::<u32, 1>::new(vec![1, 2]).is_err());
}

#[test]
fn a_list_longer_than_its_bound_is_refused() {
    let long = List::<u32, 10>::new((0..10).collect()).unwrap();
    let bytes = encode(&long);
    assert_eq!(decode::<List<u32, 10>>(&bytes).unwrap(), long);
    assert_eq!(decode::<List<u32, 9>>(&bytes), Err(Error::TooLong { len: 10, max: 9 }));
}

#[test]
fn unknown_discriminants_are_refused() {
    assert_eq!(decode::<bool>(&[0, 0, 0, 2]), Err(Error::BadDiscriminant { kind: "bool", value: 2 }));
    assert_eq!(decode::<Colour>(&[0, 0, 0, 1]), Err(Error::BadDiscriminant { kind: "Colour", value: 1 }));
    assert_eq!(decode::<Shape>(&[0, 0, 0, 3]), Err(Error::BadDiscriminant { kind: "Shape", value: 3 }));
}

#[test]
fn trailing_bytes_are_seen() {
    let mut d = Decoder::new(Bytes::from_static(&[0; 12]));
    d.u32().unwrap();
    assert_eq!(d.finish(), Err(Error::TrailingBytes(8)));
    d.u64().unwrap();
    assert_eq!(d.finish(), Ok(()));
}

#[test]
fn decoded_payload_shares_the_buffer() {
    let bytes = encode(&Opaque::<64>::from_static(b"0123456789"));
    let v = Decoder::new(bytes.clone()).decode::<Opaque<64>>().unwrap();
    assert_eq!(v.as_ptr(), bytes[4..].as_ptr());
}

#[test]
fn large_payload_is_a_segment_of_its_own() {
    let payload = Bytes::from(vec![7; SPLICE_THRESHOLD + 1]);
    let mut e = Encoder::new();
    let length = e.reserve_u32();
    e.opaque_bytes(payload.clone());
    e.u32(9);
    let len = e.len();
    e.patch_u32(length, u32::try_from(len).unwrap());
    let segments = e.finish();
    assert_eq!((segments.count(), segments.len()), (3, len));
    let parts: Vec<_> = segments.iter().cloned().collect();
    assert_eq!(parts[1].as_ptr(), payload.as_ptr(), "not copied");
    assert_eq!(&parts[0][..4], u32::try_from(len).unwrap().to_be_bytes());
    assert_eq!(&parts[2][..], [0, 0, 0, 0, 0, 0, 9], "three bytes of padding, then the next field");
}

#[test]
fn a_payload_in_pieces_equals_the_payload() {
    let pieces = [vec![1; 5], vec![2; SPLICE_THRESHOLD], vec![3; 2]].map(Bytes::from);
    let mut whole = Encoder::new();
    whole.opaque(&pieces.concat());
    let mut pieced = Encoder::new();
    pieced.opaque_pieces(pieces);
    assert_eq!(pieced.into_bytes(), whole.into_bytes());
}

#[test]
fn an_encoder_is_reusable_after_take() {
    let mut e = Encoder::new();
    e.opaque_bytes(Bytes::from(vec![1; SPLICE_THRESHOLD]));
    assert_eq!(e.take().len(), SPLICE_THRESHOLD + 4);
    assert!(e.is_empty());
    e.u32(5);
    assert_eq!(&e.take().into_bytes()[..], [0, 0, 0, 5]);
    assert!(e.take().is_empty());
}

#[test]
fn min_len_never_exceeds_the_smallest_value() {
    assert_eq!(Pair::<u64>::MIN_LEN, 16);
    assert_eq!(<[u8; 5]>::MIN_LEN, 8);
    // The smallest value; for `outcome` MIN_LEN counts the discriminant only, as the arm is not known.
    assert_eq!(encode(&Everything::sample(&mut Entropy::new(&[]))).len(), Everything::MIN_LEN + 4);
}

proptest! {
    #[test]
    fn round_trip(entropy in prop::collection::vec(any::<u8>(), 0..600)) {
        let v = Everything::sample(&mut Entropy::new(&entropy));
        let bytes = encode(&v);
        prop_assert_eq!(bytes.len() % 4, 0);
        let mut d = Decoder::new(bytes.clone());
        prop_assert_eq!(d.decode::<Everything>().unwrap(), v);
        prop_assert_eq!(d.finish(), Ok(()));
        // Every proper prefix is truncated, never something else.
        for end in 0..bytes.len() {
            let cut = decode::<Everything>(&bytes[..end]);
            prop_assert!(matches!(cut, Err(Error::Truncated { .. })), "{end}: {cut:?}");
        }
    }

    #[test]
    fn arbitrary_bytes_end_in_a_value_or_an_error(bytes in prop::collection::vec(0_u8..8, 0..400)) {
        if let Ok(v) = decode::<Everything>(&bytes) {
            prop_assert_eq!(decode::<Everything>(&encode(&v)).unwrap(), v);
        }
    }

    #[test]
    fn rollback_leaves_what_was_before(
        before in prop::collection::vec(0_usize..3, 0..5),
        behind in prop::collection::vec(0_usize..3, 0..5),
        after in prop::collection::vec(0_usize..3, 0..5),
    ) {
        let sizes = [3, SPLICE_THRESHOLD, 5000];
        let write = |e: &mut Encoder, what: &[usize]| {
            for &i in what {
                e.opaque_bytes(Bytes::from(vec![u8::try_from(i).unwrap(); sizes[i]]));
            }
        };
        let mut e = Encoder::new();
        write(&mut e, &before);
        let (mark, len) = (e.mark(), e.len());
        write(&mut e, &behind);
        e.rollback(mark);
        prop_assert_eq!(e.len(), len);
        write(&mut e, &after);
        let mut model = Encoder::new();
        write(&mut model, &before);
        write(&mut model, &after);
        prop_assert_eq!(e.finish(), model.finish());
    }
}
