//! Why bytes are not the XDR type they were said to be.

/// A decoding failure. It tells nothing but where the bytes depart from the type; what follows from it
/// (`GARBAGE_ARGS`, a closed connection) is the caller's decision.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// The input ends before the type does.
    #[error("truncated: {wanted} bytes wanted, {left} left")]
    Truncated {
        /// Bytes the next item needs at least.
        wanted: usize,
        /// Bytes left in the input.
        left: usize,
    },
    /// A length or a count is above the bound of its type.
    #[error("length {len} is above the bound {max}")]
    TooLong {
        /// The length or count found; for a linked list the bound plus one.
        len: usize,
        /// The bound of the type.
        max: usize,
    },
    /// A boolean, enumeration or union discriminant has a value that its type does not know.
    #[error("{value} is no value of {kind}")]
    BadDiscriminant {
        /// Name of the type.
        kind: &'static str,
        /// The value found.
        value: u32,
    },
    /// Bytes are left behind the last item.
    #[error("{0} bytes follow the last item")]
    TrailingBytes(usize),
}
