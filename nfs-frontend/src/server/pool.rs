//! Buffers that connections borrow while they have their turn: a few for each thread, none for an idle connection.

use super::limits::READ_BUFFER;
use bytes::BytesMut;
use std::cell::RefCell;

/// Buffers that a thread keeps. A connection holds two at most during its turn; the others serve the connections that
/// keep theirs over some turns.
const KEPT: usize = 8;

thread_local! {
    static BUFFERS: RefCell<Vec<BytesMut>> = const { RefCell::new(Vec::new()) };
}

/// An empty buffer of [`READ_BUFFER`] bytes.
pub(super) fn take() -> BytesMut {
    BUFFERS.with_borrow_mut(Vec::pop).unwrap_or_else(|| BytesMut::with_capacity(READ_BUFFER))
}

/// Takes a buffer back, if it is whole and nobody else has a part of it.
pub(super) fn give_back(mut buffer: BytesMut) {
    buffer.clear();
    if buffer.capacity() > 4 * READ_BUFFER || !buffer.try_reclaim(READ_BUFFER) {
        return;
    }
    BUFFERS.with_borrow_mut(|buffers| {
        if buffers.len() < KEPT {
            buffers.push(buffer);
        }
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_buffer_that_is_shared_is_not_lent_again() {
        let mut buffer = take();
        let at = buffer.as_ptr();
        buffer.extend_from_slice(b"call");
        let part = buffer.split().freeze();
        give_back(buffer);
        assert_eq!(&part[..], b"call");
        let mut next = take();
        assert_ne!(next.as_ptr(), at);
        next.extend_from_slice(b"other");
        let at = next.as_ptr();
        give_back(next);
        assert_eq!(take().as_ptr(), at);
        assert_eq!(&part[..], b"call");
    }
}
