//! `fattr4` as a value, and the writer that puts attributes straight into a reply.

use atoll_xdr::{Decoder, Encoder, Error, Opaque, Patch, xdr_struct};

use super::{Attr4, AttrValue4, Bitmap};
use crate::nfs4::NfsStat4;
use crate::nfs4::limits::MAX_ATTR_VALUES;

xdr_struct! {
    /// Attributes and their values (`fattr4`), the values not looked at.
    #[derive(Default)]
    pub struct Fattr4 {
        /// Which attributes.
        pub mask: Bitmap,
        /// Their values, in the order of their numbers.
        pub values: Opaque<MAX_ATTR_VALUES>,
    }
}

/// Why attributes cannot be read or set.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum AttrError {
    /// No attribute of the minor version, or none that is handled here, has this number.
    #[error("attribute {0} is not supported")]
    Unsupported(u32),
    /// The attribute cannot be set.
    #[error("attribute {0:?} is only read")]
    ReadOnly(Attr4),
    /// The values do not fit the bitmap.
    #[error("attribute values: {0}")]
    BadXdr(Error),
}

impl AttrError {
    /// The status that says so.
    pub fn status(self) -> NfsStat4 {
        match self {
            Self::Unsupported(_) => NfsStat4::AttrNotSupp,
            Self::ReadOnly(_) => NfsStat4::Inval,
            Self::BadXdr(_) => NfsStat4::BadXdr,
        }
    }
}

impl Fattr4 {
    /// The attributes of `values`, which come in the order of their numbers, none twice; otherwise, or above the bound
    /// of the values, `None`.
    pub fn build<'a>(values: impl IntoIterator<Item = &'a AttrValue4>) -> Option<Self> {
        let mut mask = Bitmap::EMPTY;
        let mut e = Encoder::new();
        let mut next = 0;
        for value in values {
            let number = value.attr().to_u32();
            if number < next {
                return None;
            }
            next = number + 1;
            mask.insert(number).ok()?;
            e.put(value);
        }
        Some(Self { mask, values: Opaque::new(e.into_bytes()).ok()? })
    }

    /// Reads all values. An attribute that is unknown ends it: where its value ends is not known.
    ///
    /// Memory: a value takes at most as many bytes as the values of its attribute in the record, times a small factor.
    pub fn read(&self) -> Result<Vec<AttrValue4>, AttrError> {
        let mut all = Vec::new();
        self.for_each(|value| {
            all.push(value);
            Ok(())
        })?;
        Ok(all)
    }

    /// Hands the values to `f` in the order of their numbers, until it fails. Nothing may follow the last.
    pub fn for_each(&self, mut f: impl FnMut(AttrValue4) -> Result<(), AttrError>) -> Result<(), AttrError> {
        let mut d = Decoder::new(self.values.as_bytes().clone());
        for number in self.mask.iter() {
            let attr = Attr4::from_u32(number).ok_or(AttrError::Unsupported(number))?;
            f(attr.decode_value(&mut d).map_err(AttrError::BadXdr)?)?;
        }
        d.finish().map_err(AttrError::BadXdr)
    }
}

/// Writes a `fattr4` straight into a reply: no buffer of its own, so READDIR can write thousands.
///
/// The bitmap comes first on the wire, so it is given at the start; then each of its attributes is put in order.
///
/// Putting one that is not the next of the bitmap, or ending before all were put, is a fault of the caller and panics:
/// the reply would mean something else to the client.
#[derive(Debug)]
#[must_use = "attributes are complete after finish"]
pub struct FattrWriter<'e> {
    e: &'e mut Encoder,
    left: Bitmap,
    length: Patch,
    begin: usize,
}

impl<'e> FattrWriter<'e> {
    /// Writes the bitmap.
    pub fn begin(e: &'e mut Encoder, mask: Bitmap) -> Self {
        e.put(&mask);
        let length = e.reserve_u32();
        let begin = e.len();
        Self { e, left: mask, length, begin }
    }

    /// The attribute that comes next; `None` for one that is unknown or if there is none.
    pub fn next(&self) -> Option<Attr4> {
        self.left.iter().next().and_then(Attr4::from_u32)
    }

    /// Writes the value of the next attribute.
    pub fn put(&mut self, value: &AttrValue4) {
        assert_eq!(self.next(), Some(value.attr()), "attributes are written in the order of the bitmap");
        self.left.remove(value.attr().to_u32());
        self.e.put(value);
    }

    /// Ends the attributes.
    pub fn finish(self) {
        assert!(self.left.is_empty(), "a value was written for every attribute of the bitmap");
        let len = self.e.len() - self.begin;
        self.e.patch_u32(self.length, u32::try_from(len).expect("attributes are far below 4 GiB"));
    }
}
