//! Bitmaps (`bitmap4`, RFC 8881 §3.2).

use std::fmt;

use atoll_xdr::{Decode, Decoder, Encode, Encoder, Error, Result};

use crate::nfs4::limits::MAX_BITMAP_WORDS;

/// Words kept inline: all numbers that any RFC defines are below 128.
const INLINE: usize = 4;

/// A set of small numbers: attributes, operations, notifications.
///
/// Any number of words up to [`MAX_BITMAP_WORDS`] decodes; trailing zero words carry no meaning and are neither kept
/// nor written. Bits that are not known are kept. Numbers from 128 on, which only tests send, are kept beside.
#[derive(Clone, Default, PartialEq, Eq, Hash)]
pub struct Bitmap {
    low: [u32; INLINE],
    /// Words from [`INLINE`] on; never empty, and the last is not 0.
    high: Option<Box<[u32]>>,
}

impl Bitmap {
    /// Nothing.
    pub const EMPTY: Self = Self { low: [0; INLINE], high: None };
    /// Numbers below this one can be in a bitmap.
    pub const LIMIT: u32 = 32 * MAX_BITMAP_WORDS as u32;

    /// A set of numbers below 128; one above panics, at compile time in a `const`.
    pub const fn of(numbers: &[u32]) -> Self {
        let mut low = [0; INLINE];
        let mut at = 0;
        while at < numbers.len() {
            low[(numbers[at] / 32) as usize] |= 1 << (numbers[at] % 32);
            at += 1;
        }
        Self { low, high: None }
    }

    /// A set from its words.
    pub fn from_words(words: &[u32]) -> Result<Self> {
        if words.len() > MAX_BITMAP_WORDS {
            return Err(Error::TooLong { len: words.len(), max: MAX_BITMAP_WORDS });
        }
        let used = words.iter().rposition(|word| *word != 0).map_or(0, |last| last + 1);
        let (low, high) = words[..used].split_at(used.min(INLINE));
        let mut bitmap = Self::EMPTY;
        bitmap.low[..low.len()].copy_from_slice(low);
        bitmap.high = (!high.is_empty()).then(|| high.into());
        Ok(bitmap)
    }

    /// The words in their order, without trailing zeros.
    pub fn words(&self) -> impl Iterator<Item = u32> + '_ {
        let used = match &self.high {
            Some(_) => INLINE,
            None => self.low.iter().rposition(|word| *word != 0).map_or(0, |last| last + 1),
        };
        self.low[..used].iter().copied().chain(self.high.iter().flat_map(|high| high.iter().copied()))
    }

    /// Bytes on the wire.
    pub fn wire_len(&self) -> usize {
        4 + 4 * self.words().count()
    }

    /// Whether nothing is in it.
    pub fn is_empty(&self) -> bool {
        self.high.is_none() && self.low == [0; INLINE]
    }

    /// Whether a number is in it.
    pub fn contains(&self, number: u32) -> bool {
        let (word, bit) = ((number / 32) as usize, number % 32);
        let word = match word.checked_sub(INLINE) {
            None => self.low.get(word),
            Some(above) => self.high.as_deref().and_then(|high| high.get(above)),
        };
        word.is_some_and(|word| word >> bit & 1 == 1)
    }

    /// Adds a number; one at or above [`Self::LIMIT`] is refused.
    pub fn insert(&mut self, number: u32) -> Result<()> {
        let (word, bit) = ((number / 32) as usize, number % 32);
        if let Some(word) = self.low.get_mut(word) {
            *word |= 1 << bit;
            return Ok(());
        }
        if word >= MAX_BITMAP_WORDS {
            return Err(Error::TooLong { len: word + 1, max: MAX_BITMAP_WORDS });
        }
        let mut words: Vec<u32> = self.words().collect();
        words.resize(words.len().max(word + 1), 0);
        words[word] |= 1 << bit;
        *self = Self::from_words(&words)?;
        Ok(())
    }

    /// Takes a number out.
    pub fn remove(&mut self, number: u32) {
        let (word, bit) = ((number / 32) as usize, number % 32);
        if let Some(word) = self.low.get_mut(word) {
            *word &= !(1 << bit);
        } else if self.contains(number) {
            let mut words: Vec<u32> = self.words().collect();
            words[word] &= !(1 << bit);
            *self = Self::from_words(&words).expect("no longer than it was");
        }
    }

    fn zip(&self, other: &Self, f: impl Fn(u32, u32) -> u32) -> Self {
        if self.high.is_none() && other.high.is_none() {
            return Self { low: std::array::from_fn(|at| f(self.low[at], other.low[at])), high: None };
        }
        let (mut a, mut b) = (self.words(), other.words());
        let mut words = Vec::with_capacity(MAX_BITMAP_WORDS);
        loop {
            match (a.next(), b.next()) {
                (None, None) => break,
                (a, b) => words.push(f(a.unwrap_or(0), b.unwrap_or(0))),
            }
        }
        Self::from_words(&words).expect("no longer than the longer one")
    }

    /// What is in both.
    #[must_use]
    pub fn and(&self, other: &Self) -> Self {
        self.zip(other, |a, b| a & b)
    }

    /// What is in either.
    #[must_use]
    pub fn or(&self, other: &Self) -> Self {
        self.zip(other, |a, b| a | b)
    }

    /// What is in this one and not in the other.
    #[must_use]
    pub fn without(&self, other: &Self) -> Self {
        self.zip(other, |a, b| a & !b)
    }

    /// The numbers, ascending.
    pub fn iter(&self) -> impl Iterator<Item = u32> + '_ {
        (0_u32..).zip(self.words()).flat_map(|(at, mut word)| {
            std::iter::from_fn(move || {
                let bit = (word != 0).then(|| word.trailing_zeros())?;
                word &= word - 1;
                Some(32 * at + bit)
            })
        })
    }
}

impl FromIterator<u32> for Bitmap {
    /// Numbers at or above [`Bitmap::LIMIT`] are left out.
    fn from_iter<I: IntoIterator<Item = u32>>(numbers: I) -> Self {
        let mut bitmap = Self::EMPTY;
        for number in numbers {
            let _ = bitmap.insert(number);
        }
        bitmap
    }
}

impl fmt::Debug for Bitmap {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.iter()).finish()
    }
}

impl Encode for Bitmap {
    fn encode(&self, e: &mut Encoder) {
        let count = e.reserve_u32();
        let mut words = 0;
        for word in self.words() {
            e.u32(word);
            words += 1;
        }
        e.patch_u32(count, words);
    }
}

impl Decode for Bitmap {
    const MIN_LEN: usize = 4;

    fn decode(d: &mut Decoder) -> Result<Self> {
        let count = d.count(MAX_BITMAP_WORDS, 4)?;
        let mut words = [0; MAX_BITMAP_WORDS];
        for word in &mut words[..count] {
            *word = d.u32()?;
        }
        Self::from_words(&words[..count])
    }
}

#[cfg(test)]
impl atoll_xdr::Sample for Bitmap {
    fn sample(s: &mut atoll_xdr::Entropy<'_>) -> Self {
        let count = if s.byte() < 230 { s.below(INLINE) } else { s.below(MAX_BITMAP_WORDS + 1) };
        let words: Vec<u32> = (0..count).map(|_| u32::sample(s)).collect();
        Self::from_words(&words).expect("at most the bound")
    }
}
