//! Bounded XDR decoding from Bytes and encoding into segments.
