//! File handles (RFC 1813 §2.3.3).

use std::fmt;

use atoll_xdr::{Decode, Decoder, Encode, Encoder, Error, Result};

/// Longest handle in bytes (`NFS3_FHSIZE`).
pub const MAX_HANDLE: usize = 64;

/// `nfs_fh3`: opaque to all but the server that made it. Stored inline: it is copied freely, and keeping one does not
/// keep the record alive it came in.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct FileHandle {
    // Bytes from `len` on are 0, so that equality and hash are those of the slice.
    bytes: [u8; MAX_HANDLE],
    len: u8,
}

/// `post_op_fh3`.
pub type PostOpHandle = Option<FileHandle>;

impl FileHandle {
    /// A handle of at most [`MAX_HANDLE`] bytes.
    pub fn new(handle: &[u8]) -> Result<Self> {
        let mut bytes = [0; MAX_HANDLE];
        match bytes.get_mut(..handle.len()) {
            Some(head) => head.copy_from_slice(handle),
            None => return Err(Error::TooLong { len: handle.len(), max: MAX_HANDLE }),
        }
        #[allow(clippy::cast_possible_truncation)] // at most 64
        Ok(Self { bytes, len: handle.len() as u8 })
    }

    /// The bytes.
    #[inline]
    pub fn as_slice(&self) -> &[u8] {
        &self.bytes[..usize::from(self.len)]
    }
}

impl AsRef<[u8]> for FileHandle {
    fn as_ref(&self) -> &[u8] {
        self.as_slice()
    }
}

impl fmt::Debug for FileHandle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("fh:")?;
        self.as_slice().iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl Decode for FileHandle {
    const MIN_LEN: usize = 4;
    #[inline]
    fn decode(d: &mut Decoder) -> Result<Self> {
        Self::new(d.opaque_ref(MAX_HANDLE)?)
    }
}

impl Encode for FileHandle {
    #[inline]
    fn encode(&self, e: &mut Encoder) {
        e.opaque(self.as_slice());
    }
}

#[cfg(test)]
impl atoll_xdr::Sample for FileHandle {
    fn sample(s: &mut atoll_xdr::Entropy<'_>) -> Self {
        let bytes: Vec<u8> = (0..s.below(MAX_HANDLE + 1)).map(|_| s.byte()).collect();
        Self::new(&bytes).expect("at most 64")
    }
}
