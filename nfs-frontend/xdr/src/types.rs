//! Bounded variable-length types: opaque data, arrays, linked lists.
//!
//! Invariant: a value never holds more than `MAX` bytes or elements; encoding relies on it.

use std::fmt;
use std::ops::Deref;

use bytes::Bytes;

use crate::{Decode, Decoder, Encode, Encoder, Error, Result};

/// Bytes that bring `len` to a multiple of four (RFC 4506 §3).
#[inline]
pub const fn padding(len: usize) -> usize {
    len.wrapping_neg() & 3
}

/// Variable-length opaque data or string of at most `MAX` bytes: `opaque x<MAX>`, `string x<MAX>`
/// (RFC 4506 §4.10, §4.11). Strings are bytes: names on NFS have no character set.
///
/// Decoded values are slices of the received buffer and keep it alive; what is kept for long is copied.
#[derive(Clone, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Opaque<const MAX: usize>(Bytes);

impl<const MAX: usize> Opaque<MAX> {
    /// The bound in bytes.
    pub const MAX: usize = MAX;

    /// Wraps bytes that fit the bound.
    pub fn new(data: impl Into<Bytes>) -> Result<Self> {
        let data = data.into();
        if data.len() > MAX { Err(Error::TooLong { len: data.len(), max: MAX }) } else { Ok(Self(data)) }
    }

    /// Wraps a constant; one that is above the bound panics, at compile time in a `const`.
    pub const fn from_static(data: &'static [u8]) -> Self {
        assert!(data.len() <= MAX, "the constant is above the bound of its type");
        Self(Bytes::from_static(data))
    }

    /// Copies bytes that fit the bound.
    pub fn copy_from(data: &[u8]) -> Result<Self> {
        if data.len() > MAX {
            return Err(Error::TooLong { len: data.len(), max: MAX });
        }
        Ok(Self(Bytes::copy_from_slice(data)))
    }

    /// The bytes, sharing the buffer.
    pub fn into_bytes(self) -> Bytes {
        self.0
    }

    /// The bytes.
    pub fn as_bytes(&self) -> &Bytes {
        &self.0
    }
}

impl<const MAX: usize> Deref for Opaque<MAX> {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.0
    }
}

impl<const MAX: usize> AsRef<[u8]> for Opaque<MAX> {
    fn as_ref(&self) -> &[u8] {
        &self.0
    }
}

impl<const MAX: usize> fmt::Debug for Opaque<MAX> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        /// A payload in a log line is of no use and may be a megabyte.
        const SHOWN: usize = 64;
        match self.0.get(..SHOWN) {
            Some(head) if self.0.len() > SHOWN => {
                write!(f, "b\"{}\"… ({} bytes)", head.escape_ascii(), self.0.len())
            }
            _ => write!(f, "b\"{}\"", self.0.escape_ascii()),
        }
    }
}

impl<const MAX: usize> Decode for Opaque<MAX> {
    const MIN_LEN: usize = 4;
    #[inline]
    fn decode(d: &mut Decoder) -> Result<Self> {
        Ok(Self(d.opaque(MAX)?))
    }
}

impl<const MAX: usize> Encode for Opaque<MAX> {
    #[inline]
    fn encode(&self, e: &mut Encoder) {
        if self.0.len() < crate::SPLICE_THRESHOLD {
            e.opaque(&self.0);
        } else {
            e.opaque_bytes(self.0.clone());
        }
    }
}

macro_rules! sequence {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, Eq)]
        pub struct $name<T, const MAX: usize>(Vec<T>);

        impl<T, const MAX: usize> $name<T, MAX> {
            /// The bound in elements.
            pub const MAX: usize = MAX;

            /// Wraps elements that fit the bound.
            pub fn new(elements: Vec<T>) -> Result<Self> {
                if elements.len() > MAX {
                    return Err(Error::TooLong { len: elements.len(), max: MAX });
                }
                Ok(Self(elements))
            }

            /// The elements.
            pub fn into_vec(self) -> Vec<T> {
                self.0
            }
        }

        impl<T, const MAX: usize> Default for $name<T, MAX> {
            fn default() -> Self {
                Self(Vec::new())
            }
        }

        impl<T, const MAX: usize> Deref for $name<T, MAX> {
            type Target = [T];

            fn deref(&self) -> &[T] {
                &self.0
            }
        }

        impl<T, const MAX: usize> IntoIterator for $name<T, MAX> {
            type Item = T;
            type IntoIter = std::vec::IntoIter<T>;

            fn into_iter(self) -> Self::IntoIter {
                self.0.into_iter()
            }
        }

        impl<'a, T, const MAX: usize> IntoIterator for &'a $name<T, MAX> {
            type Item = &'a T;
            type IntoIter = std::slice::Iter<'a, T>;

            fn into_iter(self) -> Self::IntoIter {
                self.0.iter()
            }
        }
    };
}

sequence! {
    /// Variable-length array of at most `MAX` elements: `T x<MAX>` (RFC 4506 §4.13).
    Array
}

sequence! {
    /// Linked list of at most `MAX` elements: `struct { T value; struct *next; }`, each element behind a TRUE, the
    /// end a FALSE (RFC 4506 §4.19).
    List
}

/// Elements for which room is made before the first was read. Memory beyond follows elements that are really there.
const FIRST_ELEMENTS: usize = 32;

impl<T: Decode, const MAX: usize> Decode for Array<T, MAX> {
    const MIN_LEN: usize = 4;
    fn decode(d: &mut Decoder) -> Result<Self> {
        let count = d.count(MAX, T::MIN_LEN)?;
        let mut elements = Vec::with_capacity(count.min(FIRST_ELEMENTS));
        for _ in 0..count {
            elements.push(T::decode(d)?);
        }
        Ok(Self(elements))
    }
}

impl<T: Encode, const MAX: usize> Encode for Array<T, MAX> {
    fn encode(&self, e: &mut Encoder) {
        e.u32(u32::try_from(self.0.len()).expect("bounds of arrays are far below 2^32"));
        for element in &self.0 {
            element.encode(e);
        }
    }
}

impl<T: Decode, const MAX: usize> Decode for List<T, MAX> {
    const MIN_LEN: usize = 4;
    fn decode(d: &mut Decoder) -> Result<Self> {
        let mut elements = Vec::new();
        while d.bool()? {
            if elements.len() == MAX {
                return Err(Error::TooLong { len: MAX + 1, max: MAX });
            }
            elements.push(T::decode(d)?);
        }
        Ok(Self(elements))
    }
}

impl<T: Encode, const MAX: usize> Encode for List<T, MAX> {
    fn encode(&self, e: &mut Encoder) {
        for element in &self.0 {
            e.bool(true);
            element.encode(e);
        }
        e.bool(false);
    }
}
