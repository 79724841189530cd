//! The loop: wait, receive, check, send again.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use rustix::event::epoll::{self, EventData, EventFlags};
use rustix::fd::OwnedFd;
use rustix::time::Timespec;

use super::connection::{Connection, Received};
use super::{Limits, LoadError, Measured, Progress, Shape, Workload};
use crate::histogram::Histogram;
use crate::xid;

/// Places in the table that finds a call by its xid: a power of two, far above the calls in flight, so that the place of
/// the next xid is nearly always free.
const XID_TABLE: usize = 1 << 13;

/// Puts load on `server` until `limits.duration` is over or the workload has no more calls, and waits for all replies.
///
/// The first thing that is not as it should be ends the run with an error: a benchmark of failures measures nothing.
pub fn run(
    server: SocketAddr,
    shape: Shape,
    limits: Limits,
    workload: &mut dyn Workload,
) -> Result<Measured, LoadError> {
    let mut generator = Generator::open(server, shape, workload)?;
    generator.start(limits.duration)?;
    generator.until_idle(limits.silence)?;
    generator.close(limits.silence)
}

struct Generator<'w> {
    workload: &'w mut dyn Workload,
    epoll: OwnedFd,
    connections: Vec<Connection>,
    per_connection: usize,
    /// When each slot's operation began.
    since: Vec<Instant>,
    /// (xid, slot) of the calls in flight, at `xid % XID_TABLE`.
    calls_in_flight: Vec<Option<(u32, usize)>>,
    in_flight: usize,
    begun: Instant,
    deadline: Instant,
    ops: u64,
    calls: u64,
    sent: u64,
    received: u64,
    latency: Histogram,
}

impl<'w> Generator<'w> {
    fn open(server: SocketAddr, shape: Shape, workload: &'w mut dyn Workload) -> Result<Self, LoadError> {
        let epoll = epoll::create(epoll::CreateFlags::CLOEXEC).map_err(std::io::Error::from)?;
        let mut connections = Vec::with_capacity(shape.connections);
        for index in 0..shape.connections {
            let connection = Connection::open(server)?;
            let data = EventData::new_u64(index as u64);
            epoll::add(&epoll, &connection.socket, data, EventFlags::IN).map_err(std::io::Error::from)?;
            connections.push(connection);
        }
        let now = Instant::now();
        Ok(Self {
            workload,
            epoll,
            connections,
            per_connection: shape.per_connection,
            since: vec![now; shape.in_flight()],
            calls_in_flight: vec![None; XID_TABLE],
            in_flight: 0,
            begun: now,
            deadline: now,
            ops: 0,
            calls: 0,
            sent: 0,
            received: 0,
            latency: Histogram::default(),
        })
    }

    fn start(&mut self, duration: Duration) -> Result<(), LoadError> {
        self.begun = Instant::now();
        self.deadline = self.begun + duration;
        for slot in 0..self.since.len() {
            self.since[slot] = self.begun;
            self.send_next(slot);
        }
        (0..self.connections.len()).try_for_each(|index| self.flush(index))
    }

    /// Puts the next call of a slot into its connection's buffer, if the workload has one.
    fn send_next(&mut self, slot: usize) {
        let connection = &mut self.connections[slot / self.per_connection];
        let mut writer = connection.out.writer();
        self.workload.call(slot, &mut writer);
        if writer.is_empty() {
            return;
        }
        self.sent += writer.seal(register(&mut self.calls_in_flight, slot)) as u64;
        self.in_flight += 1;
    }

    fn flush(&mut self, index: usize) -> Result<(), LoadError> {
        let connection = &mut self.connections[index];
        connection.out.flush(&connection.socket)?;
        let wants_room = !connection.out.is_empty();
        if wants_room != connection.wants_room {
            connection.wants_room = wants_room;
            let flags = if wants_room { EventFlags::IN | EventFlags::OUT } else { EventFlags::IN };
            let data = EventData::new_u64(index as u64);
            epoll::modify(&self.epoll, &connection.socket, data, flags).map_err(std::io::Error::from)?;
        }
        Ok(())
    }

    fn until_idle(&mut self, silence: Duration) -> Result<(), LoadError> {
        let mut events = Vec::with_capacity(self.connections.len());
        let timeout = Timespec::try_from(silence).expect("a timeout is some seconds");
        while self.in_flight > 0 {
            events.clear();
            match epoll::wait(&self.epoll, rustix::buffer::spare_capacity(&mut events), Some(&timeout)) {
                Ok(0) => return Err(LoadError::Silence(silence, self.in_flight)),
                Ok(_) => {}
                Err(rustix::io::Errno::INTR) => continue,
                Err(e) => return Err(std::io::Error::from(e).into()),
            }
            for event in &events {
                #[allow(clippy::cast_possible_truncation)] // an index put there by `open`
                let index = event.data.u64() as usize;
                let flags = event.flags;
                if flags.intersects(EventFlags::IN | EventFlags::HUP | EventFlags::ERR) {
                    self.receive(index)?;
                }
                if !self.connections[index].out.is_empty() {
                    self.flush(index)?;
                }
            }
        }
        Ok(())
    }

    /// One `recv`, and the next call of every slot whose reply it completed.
    fn receive(&mut self, index: usize) -> Result<(), LoadError> {
        let connection = &mut self.connections[index];
        match connection.input.receive(&connection.socket)? {
            Received::Nothing => return Ok(()),
            Received::End => return Err(LoadError::Closed(self.in_flight)),
            Received::Bytes(n) => self.received += n as u64,
        }
        let now = Instant::now();
        loop {
            let connection = &mut self.connections[index];
            let record = connection.input.next_record().map_err(|e| LoadError::Protocol(e.to_string()))?;
            let Some(record) = record else { return Ok(()) };
            let slot = slot_of(record, &mut self.calls_in_flight)?;
            let results = results_of(record)?;
            self.in_flight -= 1;
            self.calls += 1;
            let progress = self.workload.reply(slot, results)?;
            if let Progress::Done(count) = progress {
                self.ops += count;
                let nanos = now.duration_since(self.since[slot]).as_nanos();
                self.latency.record(u64::try_from(nanos).unwrap_or(u64::MAX));
            }
            // An operation that was begun is brought to its end, so that none is half counted.
            if progress == Progress::Continues || now < self.deadline {
                if progress != Progress::Continues {
                    self.since[slot] = now;
                }
                self.send_next(slot);
            }
        }
    }

    fn close(mut self, silence: Duration) -> Result<Measured, LoadError> {
        let mut writer = self.connections[0].out.writer();
        self.workload.closing_call(&mut writer);
        if !writer.is_empty() {
            self.sent += writer.seal(register(&mut self.calls_in_flight, 0)) as u64;
            self.in_flight += 1;
            self.deadline = self.begun;
            self.flush(0)?;
            self.until_idle(silence)?;
        }
        Ok(Measured {
            ops: self.ops,
            calls: self.calls,
            elapsed: self.begun.elapsed(),
            latency: self.latency,
            sent: self.sent,
            received: self.received,
        })
    }
}

/// Gives a call its xid and remembers whose it is.
fn register(calls: &mut [Option<(u32, usize)>], slot: usize) -> u32 {
    loop {
        let xid = xid::take(1);
        let place = &mut calls[xid as usize % XID_TABLE];
        // Taken by a call that waits since 8192 others: that xid is skipped.
        if place.is_none() {
            *place = Some((xid, slot));
            return xid;
        }
    }
}

/// Whose reply this is; the call is no longer in flight.
fn slot_of(record: &[u8], calls: &mut [Option<(u32, usize)>]) -> Result<usize, LoadError> {
    let too_short = || LoadError::Protocol(format!("a reply of {} bytes", record.len()));
    let xid = u32::from_be_bytes(*record.first_chunk::<4>().ok_or_else(too_short)?);
    match calls[xid as usize % XID_TABLE].take() {
        Some((call, slot)) if call == xid => Ok(slot),
        _ => Err(LoadError::Protocol(format!("a reply to no call in flight, xid {xid:#x}"))),
    }
}

/// The results behind a reply's header.
fn results_of(record: &[u8]) -> Result<&[u8], LoadError> {
    let word = |at: usize| -> Option<u32> {
        record.get(at..at + 4).map(|word| u32::from_be_bytes([word[0], word[1], word[2], word[3]]))
    };
    let short = || LoadError::Protocol(format!("a reply of {} bytes", record.len()));
    let kind = word(4).ok_or_else(short)?;
    let stat = word(8).ok_or_else(short)?;
    if (kind, stat) != (1, 0) {
        return Err(LoadError::NotExecuted(format!("message type {kind}, reply_stat {stat}")));
    }
    let verifier = word(16).ok_or_else(short)? as usize;
    let accepted_at = 20 + verifier.next_multiple_of(4);
    match word(accepted_at).ok_or_else(short)? {
        0 => Ok(&record[accepted_at + 4..]),
        1 => Err(LoadError::NotExecuted("PROG_UNAVAIL".into())),
        2 => Err(LoadError::NotExecuted("PROG_MISMATCH".into())),
        3 => Err(LoadError::NotExecuted("PROC_UNAVAIL".into())),
        4 => Err(LoadError::NotExecuted("GARBAGE_ARGS".into())),
        other => Err(LoadError::NotExecuted(format!("accept_stat {other}"))),
    }
}
