//! File handles of all versions: opaque bytes, stored inline (RFC 1813 §2.3.3, RFC 8881 §4).

use std::fmt;

use atoll_xdr::{Decode, Decoder, Encode, Encoder, Error, Result};

/// A handle of at most `MAX` (below 256) bytes, opaque to all but the server that made it. Stored inline: it is copied
/// freely, and keeping one does not keep the record alive it came in.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Handle<const MAX: usize> {
    // Bytes from `len` on are 0, so that equality and hash are those of the slice.
    bytes: [u8; MAX],
    len: u8,
}

impl<const MAX: usize> Handle<MAX> {
    /// A handle of at most `MAX` bytes.
    pub fn new(handle: &[u8]) -> Result<Self> {
        const { assert!(MAX < 256, "the length is kept in a byte") };
        let mut bytes = [0; MAX];
        match bytes.get_mut(..handle.len()) {
            Some(head) => head.copy_from_slice(handle),
            None => return Err(Error::TooLong { len: handle.len(), max: MAX }),
        }
        #[allow(clippy::cast_possible_truncation)] // below 256
        Ok(Self { bytes, len: handle.len() as u8 })
    }

    /// The bytes.
    #[inline]
    pub fn as_slice(&self) -> &[u8] {
        &self.bytes[..usize::from(self.len)]
    }
}

impl<const MAX: usize> AsRef<[u8]> for Handle<MAX> {
    fn as_ref(&self) -> &[u8] {
        self.as_slice()
    }
}

impl<const MAX: usize> fmt::Debug for Handle<MAX> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("fh:")?;
        self.as_slice().iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl<const MAX: usize> Decode for Handle<MAX> {
    const MIN_LEN: usize = 4;
    #[inline]
    fn decode(d: &mut Decoder) -> Result<Self> {
        Self::new(d.opaque_ref(MAX)?)
    }
}

impl<const MAX: usize> Encode for Handle<MAX> {
    #[inline]
    fn encode(&self, e: &mut Encoder) {
        e.opaque(self.as_slice());
    }
}

#[cfg(test)]
impl<const MAX: usize> atoll_xdr::Sample for Handle<MAX> {
    fn sample(s: &mut atoll_xdr::Entropy<'_>) -> Self {
        let bytes: Vec<u8> = (0..s.below(MAX + 1)).map(|_| s.byte()).collect();
        Self::new(&bytes).expect("at most the bound")
    }
}
