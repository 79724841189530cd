//! The decoder: a cursor over `Bytes`.
//!
//! Invariants: `pos <= bytes.len()`; nothing is allocated before the length that asks for it was compared with its
//! bound and with the bytes that are left.

use bytes::Bytes;

use crate::types::padding;
use crate::{Error, Result};

/// A type that can be read from XDR.
pub trait Decode: Sized {
    /// The least number of bytes a value takes. A count is refused when the bytes left cannot hold that many
    /// elements, so memory for an array is never claimed on the word of the peer.
    const MIN_LEN: usize;

    /// Reads one value and moves the decoder behind it.
    fn decode(d: &mut Decoder) -> Result<Self>;
}

/// A cursor over one received message. Cloning is cheap: the bytes are shared.
#[derive(Debug, Clone)]
pub struct Decoder {
    bytes: Bytes,
    pos: usize,
}

impl Decoder {
    /// A decoder at the start of `bytes`.
    pub fn new(bytes: Bytes) -> Self {
        Self { bytes, pos: 0 }
    }

    /// Bytes not yet read.
    #[inline]
    pub fn remaining(&self) -> usize {
        self.bytes.len() - self.pos
    }

    /// Bytes read so far.
    #[inline]
    pub fn position(&self) -> usize {
        self.pos
    }

    /// Reads a value of any wire type.
    #[inline]
    pub fn decode<T: Decode>(&mut self) -> Result<T> {
        T::decode(self)
    }

    /// Fails with [`Error::TrailingBytes`] unless everything was read.
    ///
    /// Decoding itself does not insist on it: knfsd and Ganesha ignore bytes behind the arguments of a call.
    pub fn finish(&self) -> Result<()> {
        match self.remaining() {
            0 => Ok(()),
            n => Err(Error::TrailingBytes(n)),
        }
    }

    /// All bytes that are left, as a slice of the same buffer.
    pub fn rest(mut self) -> Bytes {
        self.bytes.split_off(self.pos)
    }

    /// The bytes that are left, borrowed.
    #[inline]
    pub fn unread(&self) -> &[u8] {
        &self.bytes[self.pos..]
    }

    #[inline]
    fn take<const N: usize>(&mut self) -> Result<[u8; N]> {
        match self.unread().first_chunk::<N>() {
            Some(chunk) => {
                let chunk = *chunk;
                self.pos += N;
                Ok(chunk)
            }
            None => Err(self.truncated(N)),
        }
    }

    #[cold]
    fn truncated(&self, wanted: usize) -> Error {
        Error::Truncated { wanted, left: self.remaining() }
    }

    /// Unsigned integer (RFC 4506 §4.2).
    #[inline]
    pub fn u32(&mut self) -> Result<u32> {
        Ok(u32::from_be_bytes(self.take()?))
    }

    /// The next unsigned integer, not consumed.
    #[inline]
    pub fn peek_u32(&self) -> Result<u32> {
        match self.unread().first_chunk() {
            Some(chunk) => Ok(u32::from_be_bytes(*chunk)),
            None => Err(self.truncated(4)),
        }
    }

    /// Integer (RFC 4506 §4.1).
    #[inline]
    pub fn i32(&mut self) -> Result<i32> {
        Ok(i32::from_be_bytes(self.take()?))
    }

    /// Unsigned hyper integer (RFC 4506 §4.5).
    #[inline]
    pub fn u64(&mut self) -> Result<u64> {
        Ok(u64::from_be_bytes(self.take()?))
    }

    /// Hyper integer (RFC 4506 §4.5).
    #[inline]
    pub fn i64(&mut self) -> Result<i64> {
        Ok(i64::from_be_bytes(self.take()?))
    }

    /// Boolean (RFC 4506 §4.4). Only 0 and 1 are booleans: every encoder in use normalises, so anything else means
    /// that peer and decoder disagree about the layout, and reading on would turn noise into an operation.
    #[inline]
    pub fn bool(&mut self) -> Result<bool> {
        match self.u32()? {
            0 => Ok(false),
            1 => Ok(true),
            value => Err(Error::BadDiscriminant { kind: "bool", value }),
        }
    }

    /// Opaque data of fixed length (RFC 4506 §4.9), with its padding.
    #[inline]
    pub fn fixed<const N: usize>(&mut self) -> Result<[u8; N]> {
        let need = N + padding(N);
        if self.remaining() < need {
            return Err(self.truncated(need));
        }
        let data = self.take::<N>()?;
        self.pos += padding(N);
        Ok(data)
    }

    /// Reads the length of variable opaque data and returns where the data starts and its length; moves behind it.
    ///
    /// The padding bytes may have any value. RFC 4506 §3 asks the *sender* for zeros; libtirpc, the Linux kernel and
    /// Ganesha do not look at them when they receive, and some senders leave old buffer contents there, so a strict
    /// reader would refuse clients that work everywhere else. Nothing depends on the bytes.
    #[inline]
    fn var_opaque(&mut self, max: usize) -> Result<(usize, usize)> {
        let len = self.u32()? as usize;
        if len > max {
            return Err(Error::TooLong { len, max });
        }
        // `len` is below 2^32 and usize has 64 bits on every machine this serves: the sum cannot overflow there. The
        // saturating form keeps it a clean error elsewhere.
        let need = len.saturating_add(padding(len));
        if self.remaining() < need {
            return Err(self.truncated(need));
        }
        let start = self.pos;
        self.pos += need;
        Ok((start, len))
    }

    /// Variable-length opaque data of at most `max` bytes (RFC 4506 §4.10), a slice of the received buffer.
    #[inline]
    pub fn opaque(&mut self, max: usize) -> Result<Bytes> {
        let (start, len) = self.var_opaque(max)?;
        Ok(self.bytes.slice(start..start + len))
    }

    /// As [`Self::opaque`], borrowed: for small values that are copied anyway, without touching a reference count.
    #[inline]
    pub fn opaque_ref(&mut self, max: usize) -> Result<&[u8]> {
        let (start, len) = self.var_opaque(max)?;
        Ok(&self.bytes[start..start + len])
    }

    /// The count of a variable-length array (RFC 4506 §4.13): at most `max`, and no more than elements of
    /// `min_len` bytes each could still follow.
    #[inline]
    pub fn count(&mut self, max: usize, min_len: usize) -> Result<usize> {
        let len = self.u32()? as usize;
        if len > max {
            return Err(Error::TooLong { len, max });
        }
        let need = len.saturating_mul(min_len.max(1));
        if self.remaining() < need {
            return Err(self.truncated(need));
        }
        Ok(len)
    }
}

macro_rules! primitive {
    ($($t:ident $len:literal),*) => { $(
        impl Decode for $t {
            const MIN_LEN: usize = $len;
            #[inline]
            fn decode(d: &mut Decoder) -> Result<Self> {
                d.$t()
            }
        }
    )* };
}
primitive!(u32 4, i32 4, u64 8, i64 8, bool 4);

impl Decode for () {
    const MIN_LEN: usize = 0;
    #[inline]
    fn decode(_: &mut Decoder) -> Result<Self> {
        Ok(())
    }
}

impl<const N: usize> Decode for [u8; N] {
    const MIN_LEN: usize = N + padding(N);
    #[inline]
    fn decode(d: &mut Decoder) -> Result<Self> {
        d.fixed()
    }
}

/// On the wire a box is what it holds: it keeps unions of many arms small in memory.
impl<T: Decode> Decode for Box<T> {
    const MIN_LEN: usize = T::MIN_LEN;
    #[inline]
    fn decode(d: &mut Decoder) -> Result<Self> {
        Ok(Box::new(T::decode(d)?))
    }
}

/// Optional data, `*T` (RFC 4506 §4.19).
impl<T: Decode> Decode for Option<T> {
    const MIN_LEN: usize = 4;
    #[inline]
    fn decode(d: &mut Decoder) -> Result<Self> {
        if d.bool()? { Ok(Some(T::decode(d)?)) } else { Ok(None) }
    }
}

/// A union whose discriminant 0 is success and carries `T`; any other value belongs to `E`, which reads it itself.
/// All results of NFS, MOUNT and NFSACL have this form.
impl<T: Decode, E: Decode> Decode for std::result::Result<T, E> {
    const MIN_LEN: usize = 4;
    #[inline]
    fn decode(d: &mut Decoder) -> Result<Self> {
        if d.peek_u32()? == 0 {
            d.u32()?;
            Ok(Ok(T::decode(d)?))
        } else {
            Ok(Err(E::decode(d)?))
        }
    }
}
