//! One connection: records in, calls, replies out, as one hand-written future.
//!
//! A turn reads what has come, starts every whole call, and writes all replies that are ready by one system call. Calls
//! are polled once in place; those that are not ready then go on beside the others and are answered in the
//! order of completion. Everything a client can pile up is bounded: calls in progress and replies it does not read
//! stop the reading, and time runs for an unfinished record and for replies not taken. An idle connection holds no buffer.
//!
//! Records that come may also be replies to calls of ours ([`super::reverse`]). They are read only while calls may be begun, so an
//! answer to a client's call must never wait for a reply of the same client.

use super::Shared;
use super::calls::{Flight, Landed, Slot};
use super::company::Streak;
use super::incoming::{Opened, Origin, begin_reply, open, reply_header};
use super::input::{Input, Record};
use super::limits::READS_PER_TURN;
use super::metrics::{add, shift};
use super::output::Output;
use super::peers::Admission;
use super::reverse::Reverse;
use crate::rpc::{Answer, RpcCall};
use atoll_base::leave;
use atoll_proto::record::RecordError;
use atoll_proto::rpc::{MessageType, peek};
use atoll_xdr::Encoder;
use bytes::BytesMut;
use futures_util::stream::{FuturesUnordered, StreamExt};
use rustix::net::{RecvFlags, recv};
use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::{Instant, Sleep};
use tokio_util::sync::WaitForCancellationFutureOwned;

/// First capacity of a reply's buffer: any reply without payload (the largest, RENAME with two full `wcc_data`, is
/// below 300 bytes).
const REPLY_BUFFER: usize = 512;

/// A reply's buffer that has grown beyond this is not kept: READDIRPLUS grows it to the size of its page.
const REPLY_BUFFER_KEPT: usize = 8 * 1024;

/// How long a server that stops waits for the client to notice. Closing a socket with unread bytes makes the kernel send a reset, on
/// which some clients throw away replies that they have not read yet.
const LINGER: Duration = Duration::from_millis(500);

/// Why a connection ends.
#[derive(Debug, thiserror::Error)]
pub(super) enum Closed {
    /// The client closed it and has its replies.
    #[error("end of stream")]
    End,
    /// The server stops.
    #[error("server stops")]
    Stopped,
    #[error(transparent)]
    Io(#[from] io::Error),
    #[error(transparent)]
    Record(#[from] RecordError),
    #[error("not an RPC call")]
    NotACall,
    #[error("a record was not complete in time")]
    RecordTimeout,
    #[error("replies were not taken in time")]
    WriteTimeout,
    #[error("idle")]
    Idle,
    #[error("the outcome of a call is not known")]
    Unanswerable,
}

pub(super) struct Connection<C, F> {
    shared: Arc<Shared>,
    _admission: Admission,
    socket: TcpStream,
    origin: Origin,
    programs: Option<Arc<[u32]>>,
    call: C,
    input: Input,
    output: Output,
    flights: FuturesUnordered<Flight<F>>,
    /// Of this connection, in the shared gauges.
    flights_counted: usize,
    unsent_counted: usize,
    slot: Option<Slot<F>>,
    streak: Streak,
    reply_buffer: BytesMut,
    /// Calls of ours to the client.
    reverse: Reverse,
    /// Whole records may be left in the input.
    more: bool,
    overdrawn: bool,
    end_of_stream: bool,
    /// A call ended without an answer, and the client must come back.
    unanswerable: bool,
    /// Wakes the task when the server stops.
    stop: Pin<Box<WaitForCancellationFutureOwned>>,
    stop_registered: bool,
    timer: Pin<Box<Sleep>>,
    last_active: Instant,
    record_since: Option<Instant>,
    stalled_since: Option<Instant>,
}

/// Counts of one turn.
#[derive(Default)]
struct Turn {
    calls: usize,
    refused: usize,
    read: usize,
    written: usize,
}

impl<C, F> Connection<C, F>
where
    C: Fn(RpcCall, Encoder) -> F,
    F: Future<Output = Answer>,
{
    pub(super) fn new(
        shared: Arc<Shared>,
        admission: Admission,
        socket: TcpStream,
        origin: Origin,
        programs: Option<Arc<[u32]>>,
        call: C,
    ) -> Self {
        let now = Instant::now();
        let timer = Box::pin(tokio::time::sleep_until(now + shared.limits.idle_timeout));
        Self {
            input: Input::new(shared.limits.record, admission.budget()),
            stop: Box::pin(shared.stop.clone().cancelled_owned()),
            stop_registered: false,
            streak: Streak::new(&shared.company, shared.limits.calls_alone),
            shared,
            _admission: admission,
            socket,
            origin,
            programs,
            call,
            output: Output::default(),
            flights: FuturesUnordered::new(),
            flights_counted: 0,
            unsent_counted: 0,
            slot: None,
            reply_buffer: BytesMut::new(),
            reverse: Reverse::new(),
            more: false,
            overdrawn: false,
            end_of_stream: false,
            unanswerable: false,
            timer,
            last_active: now,
            record_since: None,
            stalled_since: None,
        }
    }

    /// Serves the connection to its end.
    pub(super) async fn run(mut self) -> Closed {
        let closed = std::future::poll_fn(|cx| self.poll(cx)).await;
        if matches!(closed, Closed::Stopped) {
            let _ = self.socket.shutdown().await;
            // On the heap: an array would be part of each connection's task all its life.
            let mut rest = vec![0; 4096];
            let drained = async { while !matches!(self.socket.read(&mut rest).await, Ok(0) | Err(_)) {} };
            let _ = tokio::time::timeout(LINGER, drained).await;
        }
        closed
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Closed> {
        // The waker of a task stays the same, so to register once is enough.
        if !self.stop_registered {
            self.stop_registered = true;
            let _ = self.stop.as_mut().poll(cx);
            self.reverse.register(cx);
        }
        let mut turn = Turn::default();
        let polled = self.turn(cx, &mut turn);
        let metrics = &self.shared.metrics;
        add(&metrics.calls, turn.calls);
        add(&metrics.calls_refused, turn.refused);
        add(&metrics.bytes_in, turn.read);
        add(&metrics.bytes_out, turn.written);
        shift(&metrics.calls_now, &mut self.flights_counted, self.flights.len());
        shift(&metrics.unsent_now, &mut self.unsent_counted, self.output.len());
        match polled {
            Err(closed) => Poll::Ready(closed),
            Ok(()) => match self.poll_time(cx, &turn) {
                Some(closed) => Poll::Ready(closed),
                None => {
                    self.rest();
                    Poll::Pending
                }
            },
        }
    }

    /// Goes on until everything waits for something else.
    fn turn(&mut self, cx: &mut Context<'_>, turn: &mut Turn) -> Result<(), Closed> {
        let mut reads = 0;
        loop {
            while let Poll::Ready(Some(landed)) = self.flights.poll_next_unpin(cx) {
                self.land(landed);
            }
            let stopping = self.shared.stopping.load(Ordering::Relaxed);
            if stopping {
                self.reverse.stop();
            } else {
                self.start_calls(cx, turn)?;
                self.send_calls();
            }
            if let Poll::Ready(written) = self.output.poll_write(cx, &mut self.socket, &mut turn.written) {
                written?;
            }
            if self.unanswerable {
                return Err(Closed::Unanswerable);
            }
            if self.flights.is_empty() && self.output.is_empty() {
                if stopping {
                    return Err(Closed::Stopped);
                }
                if self.end_of_stream && !self.more {
                    return Err(Closed::End);
                }
            }
            if stopping || !self.may_start() {
                return Ok(());
            }
            if self.more {
                continue;
            }
            if self.end_of_stream {
                return Ok(());
            }
            if reads == READS_PER_TURN {
                cx.waker().wake_by_ref();
                return Ok(());
            }
            reads += 1;
            match self.input.poll_read(cx, &mut self.socket) {
                Poll::Ready(Ok(0)) => {
                    self.end_of_stream = true;
                    // Nothing more comes, replies neither.
                    self.reverse.stop();
                }
                Poll::Ready(Ok(n)) => {
                    turn.read += n;
                    self.streak.received(&self.shared.company);
                }
                Poll::Ready(Err(error)) => return Err(error.into()),
                Poll::Pending => return Ok(()),
            }
        }
    }

    /// Whether the client may have another call begun. If not, a call in progress or a write wakes the task.
    fn may_start(&self) -> bool {
        let limits = &self.shared.limits;
        let flights = self.flights.len();
        flights < limits.calls_per_connection
            && self.output.len() < limits.unsent_per_connection
            && (flights == 0
                || !self.overdrawn
                    && self.shared.metrics.calls_now.load(Ordering::Relaxed) < limits.calls as u64)
    }

    fn start_calls(&mut self, cx: &mut Context<'_>, turn: &mut Turn) -> Result<(), Closed> {
        loop {
            if !self.may_start() {
                self.more = !self.input.is_empty();
                return Ok(());
            }
            self.more = false;
            let Some(record) = self.input.next_record()? else { return Ok(()) };
            self.record_since = None;
            if let Some((xid, MessageType::Reply)) = peek(&record.bytes) {
                if !self.reverse.reply(xid, record.bytes) {
                    return Err(Closed::NotACall);
                }
                continue;
            }
            turn.calls += 1;
            self.start_call(cx, record, turn)?;
        }
    }

    /// Calls of ours wait, as replies do, for the client to read.
    fn send_calls(&mut self) {
        while self.output.len() < self.shared.limits.unsent_per_connection {
            let Some(call) = self.reverse.next_call() else { return };
            self.output.push_message(call);
        }
    }

    fn start_call(&mut self, cx: &mut Context<'_>, record: Record, turn: &mut Turn) -> Result<(), Closed> {
        if self.reply_buffer.capacity() == 0 {
            self.reply_buffer.reserve(REPLY_BUFFER);
        }
        let buffer = std::mem::take(&mut self.reply_buffer);
        match open(record.bytes, &self.origin, self.programs.as_deref()) {
            Opened::Call(mut call) => {
                call.connection = Some(self.reverse.handle());
                let xid = call.xid;
                let mut slot = self.slot.take().unwrap_or_else(Slot::new);
                let future = (self.call)(call, begin_reply(buffer, xid));
                let may_wait = self.streak.call(self.is_beside_others());
                let (polled, waited) = leave::with(may_wait, || slot.start(xid, cx, future));
                if waited && has_input(&self.socket) {
                    self.streak.end();
                }
                match polled {
                    Poll::Ready(done) => self.land(Landed { xid, done, slot }),
                    Poll::Pending => {
                        self.overdrawn = record.overdrawn;
                        self.flights.push(Flight { xid, slot: Some(slot), charge: record.charge });
                    }
                }
            }
            Opened::Refused(header) => {
                turn.refused += 1;
                self.keep(Some(buffer));
                let buffer = std::mem::take(&mut self.reply_buffer);
                let buffer = self.output.push_header(&header, buffer);
                self.keep(buffer);
            }
            Opened::NotACall => return Err(Closed::NotACall),
        }
        Ok(())
    }

    /// Whether a call that begins now is not the only one.
    fn is_beside_others(&self) -> bool {
        let is_alone = self.flights.is_empty() && self.input.is_empty() && self.output.is_empty();
        !is_alone || self.shared.metrics.calls_now.load(Ordering::Relaxed) > self.flights_counted as u64
    }

    fn land(&mut self, landed: Landed<F>) {
        add(&self.shared.metrics.panics, usize::from(landed.done.is_err()));
        self.slot = Some(landed.slot);
        self.unanswerable |= matches!(landed.done, Ok(Answer::Disconnect));
        let buffer = match reply_header(landed.xid, landed.done.unwrap_or(Answer::SystemError)) {
            None => None,
            Some(Err(reply)) => self.output.push(reply),
            Some(Ok(header)) => {
                let buffer = std::mem::take(&mut self.reply_buffer);
                self.output.push_header(&header, buffer)
            }
        };
        self.keep(buffer);
    }

    fn keep(&mut self, buffer: Option<BytesMut>) {
        if let Some(buffer) = buffer
            && buffer.capacity() <= REPLY_BUFFER_KEPT
        {
            self.reply_buffer = buffer;
        }
    }

    /// What has taken too long. Otherwise the timer is set to the first moment that something can have.
    fn poll_time(&mut self, cx: &mut Context<'_>, turn: &Turn) -> Option<Closed> {
        let limits = &self.shared.limits;
        let active = turn.read + turn.written + turn.calls > 0 || !self.flights.is_empty();
        let reading = !self.end_of_stream
            && !self.more
            && self.may_start()
            && !self.input.is_empty()
            && !self.input.waits_for_budget();
        let unsent = !self.output.is_empty();
        if active || reading || unsent {
            let now = Instant::now();
            if active {
                self.last_active = now;
            }
            if turn.written > 0 {
                self.stalled_since = None;
            }
            if unsent {
                self.stalled_since.get_or_insert(now);
            }
            if reading {
                self.record_since.get_or_insert(now);
            }
        }
        if !unsent {
            self.stalled_since = None;
        }
        if !reading {
            self.record_since = None;
        }
        let pressure = self.output.len() >= limits.unsent_per_connection
            && self.shared.metrics.unsent_now.load(Ordering::Relaxed) > limits.unsent as u64;
        let patience = if pressure { limits.write_timeout_under_pressure } else { limits.write_timeout };
        // Pressure may begin later than the stall: look again soon enough to see it.
        let look = limits.write_timeout_under_pressure.min(limits.write_timeout);
        loop {
            let fired = self.timer.as_mut().poll(cx).is_ready();
            let now = if fired || self.stalled_since.is_some() { Instant::now() } else { self.last_active };
            if fired {
                if self.record_since.is_some_and(|since| now >= since + limits.record_timeout) {
                    return Some(Closed::RecordTimeout);
                }
                if self.stalled_since.is_some_and(|since| now >= since + patience) {
                    return Some(Closed::WriteTimeout);
                }
                if !self.flights.is_empty() {
                    self.last_active = now;
                } else if now >= self.last_active + limits.idle_timeout {
                    return Some(Closed::Idle);
                }
            }
            let mut next = self.last_active + limits.idle_timeout;
            if let Some(since) = self.record_since {
                next = next.min(since + limits.record_timeout);
            }
            if self.stalled_since.is_some() {
                next = next.min(now + look);
            }
            // It fires early rather than being moved back at each turn.
            if !fired && self.timer.deadline() <= next {
                return None;
            }
            self.timer.as_mut().reset(next);
        }
    }

    fn rest(&mut self) {
        self.input.rest(!self.more && self.may_start());
        self.output.rest();
        if self.flights.is_empty() && self.output.is_empty() {
            self.slot = None;
            self.reply_buffer = BytesMut::new();
        }
    }
}

/// Whether more has come. Of the socket itself: its readiness as the runtime knows it is from before the call.
fn has_input(socket: &TcpStream) -> bool {
    let flags = RecvFlags::PEEK | RecvFlags::DONTWAIT;
    recv(socket, &mut [0; 1], flags).is_ok_and(|(n, _)| n > 0)
}

impl<C, F> Drop for Connection<C, F> {
    fn drop(&mut self) {
        shift(&self.shared.metrics.calls_now, &mut self.flights_counted, 0);
        shift(&self.shared.metrics.unsent_now, &mut self.unsent_counted, 0);
    }
}
