//! The reader against a model that has the whole stream before it.
#![allow(clippy::unwrap_used)]

use bytes::BufMut;
use proptest::prelude::*;

use super::*;

const LIMITS: RecordLimits = RecordLimits { max_record: 40, max_fragments: 5 };

/// All records of a stream, and the error that ends it.
fn model(mut stream: &[u8]) -> (Vec<Vec<u8>>, Option<RecordError>) {
    let mut records = Vec::new();
    'record: loop {
        let (mut record, mut fragments, mut announced) = (Vec::new(), 0, 0);
        loop {
            let Some((header, rest)) = stream.split_first_chunk::<4>() else { return (records, None) };
            let header = u32::from_be_bytes(*header);
            let (len, last) = ((header & 0x7fff_ffff) as usize, header >> 31 == 1);
            fragments += 1;
            announced += len;
            let error = if announced > LIMITS.max_record {
                Some(RecordError::TooLarge { len: announced, max: LIMITS.max_record })
            } else if fragments > LIMITS.max_fragments {
                Some(RecordError::TooManyFragments { max: LIMITS.max_fragments })
            } else if last && announced == 0 {
                Some(RecordError::Empty)
            } else {
                None
            };
            if error.is_some() {
                return (records, error);
            }
            if rest.len() < len {
                return (records, None);
            }
            record.extend_from_slice(&rest[..len]);
            stream = &rest[len..];
            if last {
                records.push(record);
                continue 'record;
            }
        }
    }
}

/// Feeds a stream in chunks of the given sizes (the last one repeats).
fn read(stream: &[u8], chunks: &[usize]) -> (Vec<Vec<u8>>, Option<RecordError>) {
    let mut reader = RecordReader::new(LIMITS);
    let mut buf = BytesMut::new();
    let mut records = Vec::new();
    let mut sizes = chunks.iter().copied().chain(std::iter::repeat(*chunks.last().unwrap()));
    let mut left = stream;
    while !left.is_empty() {
        let size = sizes.next().unwrap().min(left.len());
        buf.extend_from_slice(&left[..size]);
        left = &left[size..];
        loop {
            match reader.next_record(&mut buf) {
                Ok(Some(record)) => records.push(record.to_vec()),
                Ok(None) => break,
                Err(error) => return (records, Some(error)),
            }
        }
        assert!(reader.wanted() > 0 && reader.wanted() <= LIMITS.max_record.max(4));
        // Held: at most one record in pieces, or one unfinished fragment with what was read too far.
        assert!(reader.gathered.len() <= LIMITS.max_record);
        assert!(buf.len() < 4 + LIMITS.max_record, "whole records are not left behind");
    }
    (records, None)
}

fn fragment() -> impl Strategy<Value = Vec<u8>> {
    let header = (prop_oneof![6 => 0_u32..12, 1 => 0_u32..50, 1 => any::<u32>()], any::<bool>());
    (header, any::<u8>()).prop_map(|((len, last), byte)| {
        let mut fragment = Vec::new();
        fragment.put_u32((len & 0x7fff_ffff) | u32::from(last) << 31);
        // Fragments longer than any limit are announced and not sent.
        fragment.extend(std::iter::repeat_n(byte, len.min(60) as usize));
        fragment
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1024))]

    #[test]
    fn any_chunking_finds_what_the_model_finds(
        fragments in prop::collection::vec(fragment(), 0..12),
        cut in 0_usize..8,
        chunks in prop::collection::vec(1_usize..30, 1..10),
    ) {
        let mut stream = fragments.concat();
        stream.truncate(stream.len().saturating_sub(cut));
        prop_assert_eq!(read(&stream, &chunks), model(&stream));
    }

    #[test]
    fn noise(stream in prop::collection::vec(0_u8..3, 0..200), chunks in prop::collection::vec(1_usize..30, 1..10)) {
        prop_assert_eq!(read(&stream, &chunks), model(&stream));
    }
}

fn reader() -> RecordReader {
    RecordReader::new(RecordLimits::default())
}

#[test]
fn a_record_of_one_fragment_is_not_copied() {
    let mut buf = BytesMut::from(&b"\x80\0\0\x05hello\x80\0\0\x02"[..]);
    let place = buf[4..].as_ptr();
    let mut reader = reader();
    let record = reader.next_record(&mut buf).unwrap().unwrap();
    assert_eq!((&record[..], record.as_ptr()), (&b"hello"[..], place));
    assert!(reader.is_between_records());
    assert_eq!(reader.next_record(&mut buf), Ok(None));
    assert!(!reader.is_between_records());
    assert_eq!(reader.wanted(), 2);
}

#[test]
fn a_record_behind_empty_fragments_is_not_copied_either() {
    let mut buf = BytesMut::from(&b"\0\0\0\0\0\0\0\0\x80\0\0\x05hello"[..]);
    let place = buf[12..].as_ptr();
    assert_eq!(reader().next_record(&mut buf).unwrap().unwrap().as_ptr(), place);
}

#[test]
fn empty_fragments_come_to_an_end() {
    let mut reader = reader();
    let mut buf = BytesMut::new();
    let max = DEFAULT_MAX_FRAGMENTS;
    for _ in 0..max {
        buf.put_u32(0);
        assert_eq!(reader.next_record(&mut buf), Ok(None));
    }
    buf.put_u32(0);
    assert_eq!(reader.next_record(&mut buf), Err(RecordError::TooManyFragments { max }));
}

#[test]
fn a_record_above_the_bound_is_refused_by_its_header() {
    let max = DEFAULT_MAX_RECORD;
    let mut buf = BytesMut::new();
    buf.put_u32(LAST_FRAGMENT | u32::try_from(max).unwrap());
    assert_eq!(reader().next_record(&mut buf), Ok(None));
    buf.clear();
    buf.put_u32(LAST_FRAGMENT | u32::try_from(max + 1).unwrap());
    assert_eq!(reader().next_record(&mut buf), Err(RecordError::TooLarge { len: max + 1, max }));
    // In two fragments, too, before the second arrives.
    buf.clear();
    buf.put_u32(1);
    buf.put_u8(0);
    buf.put_u32(u32::try_from(max).unwrap());
    assert_eq!(reader().next_record(&mut buf), Err(RecordError::TooLarge { len: max + 1, max }));
}

#[test]
fn what_is_written_is_read() {
    let mut e = Encoder::new();
    for payload in [&b"abcd"[..], &[7; 5000]] {
        let record = begin_record(&mut e);
        e.raw_bytes(Bytes::copy_from_slice(payload));
        assert_eq!(end_record(&mut e, record), payload.len());
    }
    let mut buf = BytesMut::from(&e.into_bytes()[..]);
    let mut reader = reader();
    assert_eq!(&reader.next_record(&mut buf).unwrap().unwrap()[..], b"abcd");
    assert_eq!(&reader.next_record(&mut buf).unwrap().unwrap()[..], [7; 5000]);
    assert_eq!(reader.next_record(&mut buf), Ok(None));
    assert!(buf.is_empty() && reader.is_between_records());
}
