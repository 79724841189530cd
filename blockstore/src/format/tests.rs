//! Round trips, hostile bytes, and that every bit counts.

#![allow(clippy::unwrap_used)]

use super::record::{CHUNK_SHIFT, MAGIC_RECORD};
use super::*;
use atoll_base::block::BlockId;
use proptest::prelude::*;

fn header(len: u32) -> Header {
    Header { kind: Kind::Block, salt: 7, id: BlockId(99), len, batch: 3, units: 5 }
}

proptest! {
    #[test]
    fn a_record_area_round_trips_and_any_flipped_bit_is_found(
        payload in proptest::collection::vec(any::<u8>(), 1..20_000), bit in any::<usize>(),
    ) {
        let id = BlockId(99);
        let h = header(payload.len() as u32);
        let table = crc_table(id, &[&payload]);
        let area = h.encode(&table);
        prop_assert_eq!(area.len(), area_len(h.len));
        prop_assert_eq!(Header::decode(&area, Some(7), 5), Ok(h));
        prop_assert_eq!(table_of(&area, h.len), &table[..]);
        prop_assert_eq!(verify_chunks(id, &table, 0, &payload), Ok(()));
        let mut bad = area.clone();
        let at = bit % (bad.len() * 8);
        bad[at / 8] ^= 1 << (at % 8);
        prop_assert!(Header::decode(&bad, Some(7), 5).is_err());
        let mut bad = payload.clone();
        let at = bit % (bad.len() * 8);
        bad[at / 8] ^= 1 << (at % 8);
        prop_assert_eq!(verify_chunks(id, &table, 0, &bad), Err(at / 8 / CHUNK));
    }

    #[test]
    fn hostile_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..2048)) {
        let mut bytes = bytes;
        let _ = Header::decode(&bytes, None, 0);
        let _ = decode_footer(&bytes);
        let _ = decode_tombstones(&bytes);
        let _ = SegmentHeader::decode(&bytes);
        let _ = Trailer::decode(&bytes);
        if bytes.len() >= 8 {
            bytes[..4].copy_from_slice(&MAGIC_RECORD);
            bytes[4] = VERSION;
            bytes[5] = 1;
            bytes[6] = CHUNK_SHIFT;
            let _ = Header::peek_area_len(&bytes);
            let _ = Header::decode(&bytes, None, 0);
        }
    }
}

#[test]
fn a_record_is_valid_at_its_own_place_only() {
    let area = header(10).encode(&crc_table(BlockId(99), &[[1; 10]]));
    assert_eq!(Header::decode(&area, Some(8), 5), Err(FormatError::Place));
    assert_eq!(Header::decode(&area, Some(7), 6), Err(FormatError::Place));
    assert_eq!(Header::decode(&area, None, 5).unwrap().salt, 7);
}

#[test]
fn an_unknown_version_is_named() {
    let mut area = header(10).encode(&crc_table(BlockId(99), &[[1; 10]]));
    area[4] = 2;
    assert_eq!(Header::decode(&area, None, 5), Err(FormatError::Version(2)));
}

#[test]
fn a_chunk_is_valid_in_its_own_block_and_place_only() {
    let payload = vec![5; 2 * CHUNK];
    let table = crc_table(BlockId(1), &[&payload]);
    assert_ne!(table[..4], table[4..]);
    assert_eq!(verify_chunks(BlockId(2), &table, 0, &payload), Err(0));
    assert_eq!(verify_chunks(BlockId(1), &table, 2, &payload), Err(2));
}

#[test]
fn footers_and_units_round_trip() {
    let blocks = [BlockEntry { id: BlockId(1), units: 1, len: 9 }];
    let tombs = [Tombstone { id: BlockId(2), segment: 3, units: 4 }; 2];
    assert_eq!(decode_footer(&encode_footer(&blocks, &tombs)).unwrap(), (blocks.to_vec(), tombs.to_vec()));
    assert_eq!(decode_tombstones(&encode_tombstones(&tombs)).unwrap(), tombs.to_vec());
    let header = SegmentHeader { store_id: 1, segment: 2, salt: 3 };
    assert_eq!(SegmentHeader::decode(&header.encode()), Ok(header));
    let trailer = Trailer { header, footer_units: 4, footer_len: 5, batch: 6 };
    assert_eq!(Trailer::decode(&trailer.encode()), Ok(trailer));
    for bit in 0..UNIT as usize * 8 {
        let mut b = trailer.encode();
        b[bit / 8] ^= 1 << (bit % 8);
        assert!(Trailer::decode(&b).is_err());
        let mut b = header.encode();
        b[bit / 8] ^= 1 << (bit % 8);
        assert!(SegmentHeader::decode(&b).is_err());
    }
}
