//! Records of one connection on their way in.
//!
//! Invariant: memory for what has come of a record beyond [`FREE_RECORD`] bytes is charged to the budget before more of it
//! is read, for the whole record at once, so that two half-read records never wait for each other. What one read had
//! brought before (at most [`READ_BUFFER`] bytes) may be over it. The charge stays with the record until its call is done.

use super::limits::{COPIED_RECORD, FREE_RECORD, PARKED_RECORD, READ_BUFFER};
use super::peers::{Budget, Charge};
use super::pool;
use atoll_proto::record::{RecordError, RecordLimits, RecordReader};
use bytes::{Bytes, BytesMut};
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use tokio::net::TcpStream;
use tokio_util::io::poll_read_buf;

/// Room for reading that is worth a system call.
const LEAST_ROOM: usize = 4 * 1024;

/// A whole record.
pub(super) struct Record {
    pub(super) bytes: Bytes,
    pub(super) charge: Option<Charge>,
    /// It should have a charge and the budget has none: nothing more may be begun before it is done.
    pub(super) overdrawn: bool,
}

/// Reassembles records.
pub(super) struct Input {
    reader: RecordReader,
    /// Without capacity while nothing of a record is here.
    buffer: BytesMut,
    budget: Budget,
    charge: Option<Charge>,
    charged: usize,
    waits_for_budget: bool,
}

impl Input {
    pub(super) fn new(limits: RecordLimits, budget: Budget) -> Self {
        Self {
            reader: RecordReader::new(limits),
            buffer: BytesMut::new(),
            budget,
            charge: None,
            charged: 0,
            waits_for_budget: false,
        }
    }

    /// Whether bytes are here that `next_record` has not returned.
    pub(super) fn is_empty(&self) -> bool {
        self.buffer.is_empty() && self.reader.is_between_records()
    }

    /// Whether the budget, not the peer, keeps the record from being complete.
    pub(super) fn waits_for_budget(&self) -> bool {
        self.waits_for_budget
    }

    /// The next record if it is whole.
    pub(super) fn next_record(&mut self) -> Result<Option<Record>, RecordError> {
        if self.buffer.is_empty() {
            return Ok(None);
        }
        let Some(mut bytes) = self.reader.next_record(&mut self.buffer)? else { return Ok(None) };
        let len = bytes.len();
        if len <= COPIED_RECORD {
            bytes = Bytes::copy_from_slice(&bytes);
        }
        self.charged = 0;
        let charge = self.charge.take().filter(|_| len > FREE_RECORD);
        let charge = match charge {
            None if len > FREE_RECORD => self.budget.try_charge(len),
            charge => charge,
        };
        let overdrawn = len > FREE_RECORD && charge.is_none();
        Ok(Some(Record { bytes, charge, overdrawn }))
    }

    /// Reads once, after `next_record` returned `None`. Ready with 0 at the end of the stream.
    pub(super) fn poll_read(
        &mut self,
        cx: &mut Context<'_>,
        socket: &mut TcpStream,
    ) -> Poll<io::Result<usize>> {
        let wanted = self.reader.wanted();
        let whole = self.buffer.len() + wanted;
        let need = if self.is_empty() { 0 } else { self.reader.gathered() + whole };
        if need > FREE_RECORD && self.charged < need {
            // What was charged for the fragments before goes back first: holding it while waiting could block others
            // who do the same.
            self.charge = None;
            self.charged = 0;
            self.waits_for_budget = true;
            self.charge = Some(ready!(self.budget.poll_charge(cx, need)));
            self.charged = need;
        }
        self.waits_for_budget = false;
        let room = self.buffer.capacity() - self.buffer.len();
        if whole > PARKED_RECORD {
            if room < wanted {
                self.move_to(BytesMut::with_capacity(whole));
            }
        } else if room < wanted.max(LEAST_ROOM) && !self.buffer.try_reclaim(READ_BUFFER - self.buffer.len()) {
            self.move_to(pool::take());
        }
        poll_read_buf(Pin::new(socket), cx, &mut self.buffer)
    }

    fn move_to(&mut self, mut buffer: BytesMut) {
        buffer.extend_from_slice(&self.buffer);
        pool::give_back(std::mem::replace(&mut self.buffer, buffer));
    }

    /// Gives memory back that is not needed until the next turn.
    pub(super) fn rest(&mut self, may_read: bool) {
        if self.buffer.is_empty() {
            pool::give_back(std::mem::take(&mut self.buffer));
        } else if may_read {
            // A record that is not whole: most of the buffer is empty.
            let whole = self.buffer.len() + self.reader.wanted();
            if whole <= PARKED_RECORD && self.buffer.capacity() >= READ_BUFFER / 2 {
                self.move_to(BytesMut::with_capacity(self.buffer.len()));
            }
        }
    }
}
