//! One connection of the generator: a send buffer with large payloads spliced in, a receive buffer cut into records.

use std::collections::VecDeque;
use std::io::{self, IoSlice, Read, Write};
use std::net::{SocketAddr, TcpStream};

use bytes::Bytes;

/// Largest reply: 1 MiB of data with its headers, and some.
const MAX_REPLY: usize = 2 * 1024 * 1024;
/// Set in the mark of a record's last fragment (RFC 5531 §11).
const LAST_FRAGMENT: u32 = 1 << 31;
/// Most pieces of one `writev`.
const MAX_PIECES: usize = 64;
/// Bytes at the front of a send buffer that are worth moving the rest for.
const RECLAIM: usize = 256 * 1024;

/// Takes the calls of a workload.
#[derive(Debug)]
pub struct CallWriter<'a> {
    out: &'a mut SendBuffer,
    pub(super) start: usize,
    spliced: usize,
}

impl CallWriter<'_> {
    /// Appends bytes to the call. They begin with the record mark and the xid, neither of which needs to be filled in.
    #[inline]
    pub fn put(&mut self, bytes: &[u8]) {
        self.out.buf.extend_from_slice(bytes);
    }

    /// Appends a payload without a copy.
    pub fn splice(&mut self, payload: Bytes) {
        self.spliced += payload.len();
        self.out.splices.push_back((self.out.buf.len(), payload));
    }

    /// Length of what was put, record mark included.
    pub fn len(&self) -> usize {
        self.out.buf.len() - self.start + self.spliced
    }

    /// Whether nothing was put.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Overwrites bytes at `at` from the start of the call, record mark included: the offset in a WRITE, a name.
    #[inline]
    pub fn patch(&mut self, at: usize, bytes: &[u8]) {
        let at = self.start + at;
        self.out.buf[at..at + bytes.len()].copy_from_slice(bytes);
    }

    /// Fills in record mark and xid.
    pub(super) fn seal(self, xid: u32) -> usize {
        let len = self.len();
        let mark = u32::try_from(len - 4).expect("a call is far below 2 GiB") | LAST_FRAGMENT;
        let start = self.start;
        self.out.buf[start..start + 4].copy_from_slice(&mark.to_be_bytes());
        self.out.buf[start + 4..start + 8].copy_from_slice(&xid.to_be_bytes());
        len
    }
}

/// Bytes to be sent: small parts copied into `buf`, payloads beside it.
///
/// Invariant: `sent <= buf.len()`; the places of `splices` do not decrease and none is below `sent`.
#[derive(Debug, Default)]
pub(super) struct SendBuffer {
    buf: Vec<u8>,
    sent: usize,
    /// (place in `buf` the payload comes before, what is left of the payload)
    splices: VecDeque<(usize, Bytes)>,
}

impl SendBuffer {
    pub(super) fn writer(&mut self) -> CallWriter<'_> {
        let start = self.buf.len();
        CallWriter { out: self, start, spliced: 0 }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.sent == self.buf.len() && self.splices.is_empty()
    }

    /// Sends as much as the socket takes now.
    pub(super) fn flush(&mut self, mut socket: &TcpStream) -> io::Result<()> {
        while !self.is_empty() {
            let written = {
                let mut pieces = Vec::with_capacity(MAX_PIECES.min(1 + 2 * self.splices.len()));
                let mut at = self.sent;
                let mut splices = self.splices.iter();
                for (place, payload) in splices.by_ref().take(MAX_PIECES / 2) {
                    if *place > at {
                        pieces.push(IoSlice::new(&self.buf[at..*place]));
                        at = *place;
                    }
                    pieces.push(IoSlice::new(payload));
                }
                if splices.next().is_none() && at < self.buf.len() {
                    pieces.push(IoSlice::new(&self.buf[at..]));
                }
                match socket.write_vectored(&pieces) {
                    Ok(n) => n,
                    Err(e) if e.kind() == io::ErrorKind::WouldBlock => {
                        self.reclaim();
                        return Ok(());
                    }
                    Err(e) if e.kind() == io::ErrorKind::Interrupted => continue,
                    Err(e) => return Err(e),
                }
            };
            self.advance(written);
        }
        self.buf.clear();
        self.sent = 0;
        Ok(())
    }

    /// Gives back what was sent when the socket takes less than the slots put.
    fn reclaim(&mut self) {
        if self.sent < RECLAIM {
            return;
        }
        self.buf.drain(..self.sent);
        for (place, _) in &mut self.splices {
            *place -= self.sent;
        }
        self.sent = 0;
    }

    fn advance(&mut self, mut written: usize) {
        while written > 0 {
            let until = self.splices.front().map_or(self.buf.len(), |(place, _)| *place);
            let here = (until - self.sent).min(written);
            self.sent += here;
            written -= here;
            if written == 0 {
                break;
            }
            let (_, payload) = self.splices.front_mut().expect("bytes beyond the buffer are of a payload");
            let here = payload.len().min(written);
            let _sent = payload.split_to(here);
            written -= here;
            if payload.is_empty() {
                self.splices.pop_front();
            }
        }
    }
}

/// A connected, non-blocking socket with its buffers.
#[derive(Debug)]
pub(super) struct Connection {
    pub(super) socket: TcpStream,
    pub(super) out: SendBuffer,
    pub(super) input: ReceiveBuffer,
    /// Whether the epoll set waits for room to send.
    pub(super) wants_room: bool,
}

impl Connection {
    pub(super) fn open(server: SocketAddr) -> io::Result<Self> {
        let socket = TcpStream::connect(server)?;
        socket.set_nodelay(true)?;
        socket.set_nonblocking(true)?;
        Ok(Self { socket, out: SendBuffer::default(), input: ReceiveBuffer::default(), wants_room: false })
    }
}

/// What a `recv` brought.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Received {
    /// This many bytes.
    Bytes(usize),
    /// Nothing for now.
    Nothing,
    /// The end of the stream.
    End,
}

/// Received bytes, cut into records that are lent and not copied, unless one comes in several fragments.
///
/// Beside the product's reader, which hands out shared slices and so needs fresh memory again and again, this one uses the
/// same few pages for ever.
#[derive(Debug)]
pub(crate) struct ReceiveBuffer {
    buf: Vec<u8>,
    start: usize,
    end: usize,
    /// What came of a record of several fragments.
    gathered: Vec<u8>,
    /// The record in `gathered` was lent and is to be forgotten.
    lent: bool,
}

impl Default for ReceiveBuffer {
    fn default() -> Self {
        // Pages that are never touched are never there.
        Self { buf: vec![0; 4 * MAX_REPLY], start: 0, end: 0, gathered: Vec::new(), lent: false }
    }
}

impl ReceiveBuffer {
    /// One `recv`.
    pub(crate) fn receive(&mut self, mut socket: impl Read) -> io::Result<Received> {
        if self.start == self.end {
            (self.start, self.end) = (0, 0);
        } else if self.buf.len() - self.end < MAX_REPLY {
            self.buf.copy_within(self.start..self.end, 0);
            (self.start, self.end) = (0, self.end - self.start);
        }
        match socket.read(&mut self.buf[self.end..]) {
            Ok(0) => Ok(Received::End),
            Ok(n) => {
                self.end += n;
                Ok(Received::Bytes(n))
            }
            Err(e) if matches!(e.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted) => {
                Ok(Received::Nothing)
            }
            Err(e) => Err(e),
        }
    }

    /// The next whole record without its mark, or `None` if more bytes are needed.
    pub(crate) fn next_record(&mut self) -> Result<Option<&[u8]>, TooLarge> {
        if std::mem::take(&mut self.lent) {
            self.gathered.clear();
        }
        loop {
            let Some(mark) = self.buf[self.start..self.end].first_chunk::<4>() else { return Ok(None) };
            let mark = u32::from_be_bytes(*mark);
            let len = (mark & !LAST_FRAGMENT) as usize;
            if self.gathered.len() + len > MAX_REPLY {
                return Err(TooLarge(self.gathered.len() + len));
            }
            if self.end - self.start < 4 + len {
                return Ok(None);
            }
            let data = self.start + 4..self.start + 4 + len;
            self.start = data.end;
            let last = mark & LAST_FRAGMENT != 0;
            if last && self.gathered.is_empty() {
                return Ok(Some(&self.buf[data]));
            }
            self.gathered.extend_from_slice(&self.buf[data]);
            if last {
                self.lent = true;
                return Ok(Some(&self.gathered));
            }
        }
    }
}

/// The stream announces a record that no reply can be.
#[derive(Debug, thiserror::Error)]
#[error("a record of {0} bytes or more")]
pub(crate) struct TooLarge(usize);
