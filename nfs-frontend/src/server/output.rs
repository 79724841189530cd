//! Replies of one connection on their way out.
//!
//! Small replies are gathered in one buffer that is used again and again; large ones are queued as they are, payloads
//! shared with whoever has them. What is queued leaves in order, as much by one vectored write as the socket takes.

use super::limits::{GATHERED_REPLY, WRITE_PIECES};
use super::pool;
use atoll_proto::rpc::ReplyHeader;
use atoll_xdr::Encoder;
use bytes::{Buf, BufMut, Bytes, BytesMut};
use std::collections::VecDeque;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use tokio::io::AsyncWrite;

const LAST_FRAGMENT: u32 = 1 << 31;

/// Replies not yet written.
#[derive(Default)]
pub(super) struct Output {
    /// Older than `tail`.
    queue: VecDeque<Bytes>,
    tail: BytesMut,
    len: usize,
}

impl Output {
    /// Bytes that wait.
    pub(super) fn len(&self) -> usize {
        self.len
    }

    pub(super) fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Adds a reply as one record. Returns the encoder's buffer if it can be used again.
    pub(super) fn push(&mut self, reply: Encoder) -> Option<BytesMut> {
        let len = reply.len();
        let mark = u32::try_from(len).ok().filter(|len| len & LAST_FRAGMENT == 0);
        let mark = mark.expect("replies are far below 2 GiB") | LAST_FRAGMENT;
        if self.tail.capacity() == 0 {
            self.tail = pool::take();
        }
        self.tail.put_u32(mark);
        self.len += 4 + len;
        if let Some(bytes) = reply.as_contiguous()
            && len <= GATHERED_REPLY
        {
            self.tail.extend_from_slice(bytes);
            return Some(reply.into_buffer());
        }
        self.queue.push_back(self.tail.split().freeze());
        reply.finish().append_to(&mut self.queue);
        None
    }

    /// Adds a short message as one record.
    pub(super) fn push_message(&mut self, message: Bytes) {
        let mut record = Encoder::with_buffer(BytesMut::with_capacity(message.len()));
        record.raw(&message);
        self.push(record);
    }

    /// Adds a reply that is nothing but a header.
    pub(super) fn push_header(&mut self, header: &ReplyHeader, buffer: BytesMut) -> Option<BytesMut> {
        let mut reply = Encoder::with_buffer(buffer);
        reply.put(header);
        self.push(reply)
    }

    /// Writes until nothing is left (ready with the number of bytes written) or the socket takes no more (pending;
    /// `written` has been increased all the same).
    pub(super) fn poll_write<S: AsyncWrite + Unpin>(
        &mut self,
        cx: &mut Context<'_>,
        socket: &mut S,
        written: &mut usize,
    ) -> Poll<io::Result<()>> {
        while self.len > 0 {
            let n = if self.queue.is_empty() {
                ready!(Pin::new(&mut *socket).poll_write(cx, &self.tail))?
            } else {
                let mut pieces = [IoSlice::new(&[]); WRITE_PIECES];
                let all = self.queue.iter().map(|b| &b[..]).chain([&self.tail[..]]);
                let mut count = 0;
                for (slot, piece) in pieces.iter_mut().zip(all) {
                    *slot = IoSlice::new(piece);
                    count += 1;
                }
                ready!(Pin::new(&mut *socket).poll_write_vectored(cx, &pieces[..count]))?
            };
            if n == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            *written += n;
            self.advance(n);
        }
        Poll::Ready(Ok(()))
    }

    fn advance(&mut self, mut n: usize) {
        self.len -= n;
        while let Some(front) = self.queue.front_mut() {
            if n < front.len() {
                front.advance(n);
                return;
            }
            n -= front.len();
            self.queue.pop_front();
        }
        if n == self.tail.len() {
            self.tail.clear();
        } else {
            self.tail.advance(n);
        }
    }

    /// Gives memory back while nothing waits.
    pub(super) fn rest(&mut self) {
        if self.len == 0 {
            pool::give_back(std::mem::take(&mut self.tail));
            self.queue = VecDeque::new();
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use std::task::Waker;

    /// Takes a few bytes at a time, and now and then none.
    struct Slow {
        got: Vec<u8>,
        most: usize,
        turn: usize,
    }

    impl AsyncWrite for Slow {
        fn poll_write(mut self: Pin<&mut Self>, _: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
            self.turn += 1;
            if self.turn.is_multiple_of(3) {
                return Poll::Pending;
            }
            let n = buf.len().min(self.most);
            self.got.extend_from_slice(&buf[..n]);
            Poll::Ready(Ok(n))
        }

        fn poll_write_vectored(
            mut self: Pin<&mut Self>,
            _: &mut Context<'_>,
            bufs: &[IoSlice<'_>],
        ) -> Poll<io::Result<usize>> {
            self.turn += 1;
            if self.turn.is_multiple_of(3) {
                return Poll::Pending;
            }
            let all: Vec<u8> = bufs.iter().flat_map(|b| b.iter().copied()).collect();
            let n = all.len().min(self.most);
            self.got.extend_from_slice(&all[..n]);
            Poll::Ready(Ok(n))
        }

        fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }

        fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }
    }

    #[test]
    fn bytes_leave_in_order_whatever_the_socket_takes() {
        let sizes = [4, 100, 4096, 4100, 20_000, 8, 0, 12, 70_000, 4];
        for most in [100, 4096, 1 << 20] {
            let mut output = Output::default();
            let mut expected = Vec::new();
            let mut slow = Slow { got: Vec::new(), most, turn: 0 };
            let mut written = 0;
            let mut cx = Context::from_waker(Waker::noop());
            for (i, size) in sizes.into_iter().enumerate() {
                let mut reply = Encoder::new();
                let payload = vec![i as u8; size];
                if i % 2 == 0 {
                    reply.raw(&payload)
                } else {
                    reply.raw_bytes(payload.clone().into())
                }
                expected.extend_from_slice(&(size as u32 | LAST_FRAGMENT).to_be_bytes());
                expected.extend_from_slice(&payload);
                output.push(reply);
                let _ = output.poll_write(&mut cx, &mut slow, &mut written);
                assert_eq!(output.len(), expected.len() - written);
            }
            while output.poll_write(&mut cx, &mut slow, &mut written).is_pending() {}
            assert!(output.is_empty());
            assert_eq!(written, expected.len());
            assert!(slow.got == expected, "with at most {most} bytes a time");
            output.rest();
        }
    }
}
