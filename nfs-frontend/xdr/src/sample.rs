//! Random values of wire types, for tests.
//!
//! A value is a function of a string of entropy bytes; where it ends, zeros follow. A property-test framework that
//! shrinks the string therefore shrinks the value.

use bytes::Bytes;

use crate::{Array, List, Opaque, SPLICE_THRESHOLD};

/// A source of choices.
#[derive(Debug)]
pub struct Entropy<'a>(&'a [u8]);

impl<'a> Entropy<'a> {
    /// Choices made from `bytes`.
    pub fn new(bytes: &'a [u8]) -> Self {
        Self(bytes)
    }

    /// The next byte.
    pub fn byte(&mut self) -> u8 {
        match self.0.split_first() {
            Some((first, rest)) => {
                self.0 = rest;
                *first
            }
            None => 0,
        }
    }

    /// The next bytes.
    pub fn bytes<const N: usize>(&mut self) -> [u8; N] {
        std::array::from_fn(|_| self.byte())
    }

    /// A number below `n`, which is not 0.
    pub fn below(&mut self, n: usize) -> usize {
        u32::from_le_bytes(self.bytes()) as usize % n
    }

    /// A length up to `max`: mostly short, sometimes the bound, sometimes around the encoder's threshold.
    pub fn len(&mut self, max: usize) -> usize {
        /// Longest sample unless the bound itself is tried: large enough to cross the threshold.
        const LONGEST: usize = SPLICE_THRESHOLD + 8;
        match self.byte() {
            0..=199 => self.below(max.min(20) + 1),
            200..=229 => self.below(max.min(300) + 1),
            230..=244 => max.min(LONGEST),
            _ => max.min(SPLICE_THRESHOLD - 2 + self.below(5)),
        }
    }
}

/// A type with random values.
pub trait Sample: Sized {
    /// A value chosen by `s`.
    fn sample(s: &mut Entropy<'_>) -> Self;
}

impl Sample for () {
    fn sample(_: &mut Entropy<'_>) -> Self {}
}

impl Sample for u32 {
    fn sample(s: &mut Entropy<'_>) -> Self {
        Self::from_le_bytes(s.bytes())
    }
}

impl Sample for i32 {
    fn sample(s: &mut Entropy<'_>) -> Self {
        Self::from_le_bytes(s.bytes())
    }
}

impl Sample for u64 {
    fn sample(s: &mut Entropy<'_>) -> Self {
        Self::from_le_bytes(s.bytes())
    }
}

impl Sample for i64 {
    fn sample(s: &mut Entropy<'_>) -> Self {
        Self::from_le_bytes(s.bytes())
    }
}

impl Sample for bool {
    fn sample(s: &mut Entropy<'_>) -> Self {
        s.byte() & 1 == 1
    }
}

impl<const N: usize> Sample for [u8; N] {
    fn sample(s: &mut Entropy<'_>) -> Self {
        s.bytes()
    }
}

impl<T: Sample> Sample for Box<T> {
    fn sample(s: &mut Entropy<'_>) -> Self {
        Box::new(T::sample(s))
    }
}

impl<T: Sample> Sample for Option<T> {
    fn sample(s: &mut Entropy<'_>) -> Self {
        bool::sample(s).then(|| T::sample(s))
    }
}

impl<T: Sample, E: Sample> Sample for Result<T, E> {
    fn sample(s: &mut Entropy<'_>) -> Self {
        if s.byte() % 4 == 3 { Err(E::sample(s)) } else { Ok(T::sample(s)) }
    }
}

impl<const MAX: usize> Sample for Opaque<MAX> {
    fn sample(s: &mut Entropy<'_>) -> Self {
        let data: Bytes = (0..s.len(MAX)).map(|_| s.byte()).collect();
        Self::new(data).expect("the length is below the bound")
    }
}

/// Longest sampled sequence; elements may be large themselves.
const ELEMENTS: usize = 6;

impl<T: Sample, const MAX: usize> Sample for Array<T, MAX> {
    fn sample(s: &mut Entropy<'_>) -> Self {
        let count = s.below(MAX.min(ELEMENTS) + 1);
        Self::new((0..count).map(|_| T::sample(s)).collect()).expect("the count is below the bound")
    }
}

impl<T: Sample, const MAX: usize> Sample for List<T, MAX> {
    fn sample(s: &mut Entropy<'_>) -> Self {
        let count = s.below(MAX.min(ELEMENTS) + 1);
        Self::new((0..count).map(|_| T::sample(s)).collect()).expect("the count is below the bound")
    }
}
