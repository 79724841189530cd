//! Data within what is being decoded: a slice of it instead of a copy.
//!
//! serde hands out borrowed bytes and does not say of what. [`within`] does, for the thread that decodes.

use bytes::Bytes;
use serde::Deserializer;
use serde::de::{Error, Visitor};
use std::cell::RefCell;
use std::fmt;

/// Below it a copy is cheaper, and keeps less alive.
const SHARED_MIN: usize = 1024;

thread_local! {
    static WHOLE: RefCell<Option<Bytes>> = const { RefCell::new(None) };
}

/// Ends it also if decoding panics.
struct Within;

impl Drop for Within {
    fn drop(&mut self) {
        WHOLE.with_borrow_mut(Option::take);
    }
}

/// Runs `decode`, which reads `whole`: what it finds by [`deserialize`] shares its memory.
pub fn within<R>(whole: &Bytes, decode: impl FnOnce() -> R) -> R {
    WHOLE.with_borrow_mut(|now| *now = Some(whole.clone()));
    let _within = Within;
    decode()
}

/// For `serde(deserialize_with)`: bytes as `Bytes` itself reads them.
pub(crate) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Bytes, D::Error> {
    // A deserializer that is asked for a buffer of its own hands out no borrowed bytes.
    deserializer.deserialize_bytes(Data)
}

struct Data;

impl<'de> Visitor<'de> for Data {
    type Value = Bytes;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("bytes")
    }

    fn visit_borrowed_bytes<E: Error>(self, bytes: &'de [u8]) -> Result<Bytes, E> {
        if bytes.len() < SHARED_MIN {
            return self.visit_bytes(bytes);
        }
        let shared = WHOLE.with_borrow(|whole| {
            let whole = whole.as_ref()?;
            // What is kept alive is at most twice as much.
            if bytes.len() < whole.len() / 2 {
                return None;
            }
            let (all, part) = (whole.as_ptr_range(), bytes.as_ptr_range());
            (all.start <= part.start && part.end <= all.end).then(|| whole.slice_ref(bytes))
        });
        shared.map_or_else(|| self.visit_bytes(bytes), Ok)
    }

    fn visit_bytes<E: Error>(self, bytes: &[u8]) -> Result<Bytes, E> {
        Ok(Bytes::copy_from_slice(bytes))
    }

    fn visit_byte_buf<E: Error>(self, bytes: Vec<u8>) -> Result<Bytes, E> {
        Ok(bytes.into())
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;
    use crate::Source;

    #[test]
    fn large_data_are_slices_and_small_data_copies() {
        for (len, is_shared) in [(SHARED_MIN - 1, false), (SHARED_MIN, true), (5000, true)] {
            let source = Source::Inline(vec![7; len].into());
            let whole = Bytes::from(postcard::to_stdvec(&source).unwrap());
            let inside = |source: &Source| match source {
                Source::Inline(data) => whole.as_ptr_range().contains(&data.as_ptr()),
                Source::Block { .. } => false,
            };
            let read: Source = within(&whole, || postcard::from_bytes(&whole).unwrap());
            assert_eq!((&read, inside(&read)), (&source, is_shared));
            // Not of what is read, or nothing said.
            let other = Bytes::copy_from_slice(&whole);
            let read: Source = within(&other, || postcard::from_bytes(&whole).unwrap());
            assert_eq!((&read, inside(&read)), (&source, false));
            let read: Source = postcard::from_bytes(&whole).unwrap();
            assert_eq!((&read, inside(&read)), (&source, false));
        }
    }
}
