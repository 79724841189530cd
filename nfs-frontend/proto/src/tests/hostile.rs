//! Properties over all types: round trip, truncation, mutation, noise, memory.

use atoll_xdr::{Decoder, Entropy, Sample};
use bytes::Bytes;
use proptest::prelude::*;

use super::allocations::measure;
use super::encode;
use super::registry::{Codec, all};
use crate::rpc::{CallError, CallHeader};

/// Most bytes of memory that decoding may claim at any moment, for `len` bytes of input, besides [`Codec::fixed`]. The factor comes from lists
/// of small elements: the largest, `EntryPlus3`, takes 32 bytes on the wire and some 250 in memory, and a growing
/// `Vec` holds its old and its doubled allocation at once.
fn memory_bound(len: usize) -> usize {
    32 * len
}

fn decode_is_bounded(codec: &Codec, input: &[u8]) {
    let (name, decode) = (codec.name, codec.only_decode);
    let bytes = Bytes::copy_from_slice(input);
    let (_, used) = measure(|| decode(bytes));
    let bound = memory_bound(input.len()) + codec.fixed;
    assert!(used.peak <= bound, "{name}: {} bytes for {}", used.peak, input.len());
}

#[test]
fn the_smallest_value_has_at_least_the_declared_length() {
    for codec in all() {
        let bytes = (codec.sample)(&mut Entropy::new(&[]));
        assert!(bytes.len() >= codec.min_len, "{}", codec.name);
    }
}

/// Counts that announce far more than follows, at every place where a count may be.
#[test]
fn announced_lengths_claim_no_memory() {
    for codec in all() {
        for word in [0x7fff_ffff_u32, 0xffff_ffff, 0x0010_0000, 0x0000_0400, 1] {
            let input = word.to_be_bytes().repeat(64);
            decode_is_bounded(&codec, &input);
            for zeros in 1..8 {
                let input = [vec![0; 4 * zeros], input.clone()].concat();
                decode_is_bounded(&codec, &input);
            }
        }
    }
}

/// Long lists of the smallest elements: where memory per byte of input is highest.
#[test]
fn long_lists_stay_within_the_bound() {
    // TRUE, then zeros for an element of any size, over and over.
    for codec in all() {
        for zeros in 0..12 {
            let element: Vec<u8> = [1_u32.to_be_bytes().to_vec(), vec![0; 4 * zeros]].concat();
            for head in 0..4 {
                let input = [vec![0; 4 * head], element.repeat(2000)].concat();
                decode_is_bounded(&codec, &input);
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]

    #[test]
    fn every_type_round_trips(entropy in prop::collection::vec(any::<u8>(), 0..400)) {
        for codec in all() {
            let bytes = (codec.sample)(&mut Entropy::new(&entropy));
            prop_assert_eq!(bytes.len() % 4, 0);
            // Every proper prefix is refused: no type ends early.
            for cut in 1..=bytes.len().min(64) {
                let prefix = bytes.slice(..bytes.len() - cut);
                prop_assert!(!(codec.only_decode)(prefix), "{} without {cut} bytes", codec.name);
            }
        }
    }

    #[test]
    fn mutated_values_cost_nothing(
        entropy in prop::collection::vec(any::<u8>(), 0..400),
        // Lengths and discriminants are words, so whole words are replaced as well as bits.
        words in prop::collection::vec((any::<prop::sample::Index>(), any::<u32>(), 0_u32..33), 1..4),
        cut in prop::option::of(any::<prop::sample::Index>()),
    ) {
        for codec in all() {
            let mut bytes = (codec.sample)(&mut Entropy::new(&entropy)).to_vec();
            for (at, value, shift) in &words {
                if bytes.is_empty() {
                    break;
                }
                let at = at.index(bytes.len() / 4) * 4;
                let value = value.checked_shr(*shift).unwrap_or(0);
                bytes[at..at + 4].copy_from_slice(&value.to_be_bytes());
            }
            if let Some(cut) = cut {
                bytes.truncate(cut.index(bytes.len() + 1));
            }
            decode_is_bounded(&codec, &bytes);
            (codec.decode)(bytes.into());
        }
    }

    #[test]
    fn noise_costs_nothing(
        noise in prop::collection::vec(any::<u8>(), 0..600),
        // Words that are mostly 0 and 1 get deep into unions and lists.
        words in prop::collection::vec(prop_oneof![4 => Just(0_u32), 4 => Just(1), 1 => 2..9_u32, 1 => any::<u32>()], 0..200),
    ) {
        let words: Vec<u8> = words.into_iter().flat_map(u32::to_be_bytes).collect();
        for codec in all() {
            decode_is_bounded(&codec, &noise);
            decode_is_bounded(&codec, &words);
            (codec.decode)(Bytes::copy_from_slice(&words));
        }
    }

    #[test]
    fn call_headers_round_trip(
        entropy in prop::collection::vec(any::<u8>(), 0..400),
        args in prop::collection::vec(any::<u8>(), 0..16),
    ) {
        let call = CallHeader::sample(&mut Entropy::new(&entropy));
        let header = encode(&call);
        let mut message = header.to_vec();
        message.extend_from_slice(&args);
        let mut d = Decoder::new(message.into());
        prop_assert_eq!(CallHeader::parse(&mut d), Ok(call.clone()));
        prop_assert_eq!(&d.rest()[..], &args[..]);
        for end in 0..header.len() {
            let cut = CallHeader::parse(&mut Decoder::new(header.slice(..end)));
            let expected = if end < 8 { CallError::NotACall } else { CallError::Truncated { xid: call.xid } };
            prop_assert_eq!(cut, Err(expected));
        }
    }

    #[test]
    fn any_message_is_parsed_or_refused(
        words in prop::collection::vec(prop_oneof![4 => Just(0_u32), 2 => Just(2), 1 => 3..500_u32, 1 => any::<u32>()], 0..40),
    ) {
        let message: Vec<u8> = words.into_iter().flat_map(u32::to_be_bytes).collect();
        if let Err(e) = CallHeader::parse(&mut Decoder::new(Bytes::from(message.clone()))) {
            // Whatever has an answer repeats the caller's xid.
            if let Some(reply) = e.reply() {
                prop_assert_eq!(&reply.xid.to_be_bytes()[..], &message[..4]);
            }
        }
    }
}
