//! UNSTABLE data: accepted, shown, and not yet in the store (RFC 1813 §3.3.7, §3.3.21, §4.8).
//!
//! # The way of an UNSTABLE WRITE
//!
//! Memory is claimed from the [`budget`] (waiting here, and only here, when there is none) → the file's [`room`] is
//! entered → room is reserved in the block store → if the file has no write lease, or its ceilings are near, one is
//! taken (`Op::BeginDirty`) → [`file::State::accept`] puts the bytes into the range map, moves size, mtime, ctime and
//! change on, and records the outcome under the request's key → the reply says UNSTABLE and carries the verifier that
//! was read before. Nothing is awaited between reading that verifier and the reply but what is listed here.
//!
//! # The way of a flush
//!
//! The file's flush lock is taken → what is fresh becomes what is being flushed (still laid over every read) → it is
//! cut into blocks and commands ([`plan`]) → blocks are put, then `Op::Write{flush}` points at them and brings the
//! outcomes along → what is in the store is forgotten here ([`parts`]). With the last command the lease ends, if nothing fresh has
//! come meanwhile; to decide that, the flush enters the room as a stable operation, so that no write slips between the
//! decision and its execution.
//!
//! A stream is flushed early: when some megabytes have come, its whole blocks go the same way while more is coming
//! ([`file::State::begin_early_flush`]), with the outcomes of those WRITEs of which nothing is left behind. The lease stays.
//!
//! What overwrites a part of a damaged row cannot be flushed. It is taken out of the command ([`plan::Batch::without`]), with blocks of which nothing is
//! left, and the rest goes on its way; a COMMIT of what was taken out fails ([`refused`]).
//!
//! # Invariants
//!
//! 1. **A lease before the first byte.** Data, and change values and times ahead of the store, exist only under a
//!    lease that is durable and whose ceilings are not exceeded. Whatever is lost, no value shown is used again.
//! 2. **A loss is told.** Data leave the map only (a) into the store, (b) with their file, (c) after
//!    `Op::DataLost`, or the registration of a later life of this frontend, has moved the verifier, or (d) after they were noted as
//!    [`refused`], and `Op::DataRefused` has seen to it that the next registration moves the verifier. The flush lock is
//!    held from the beginning of a flush until one of these, and COMMIT takes it: a COMMIT answered with the
//!    verifier of the WRITE has its data in the store.
//! 3. **One order.** A file is either in the hands of UNSTABLE writes or of operations of the store, never both: the
//!    [`room`] keeps them apart, and who enters as stable flushes first and ends the lease. Hence the attributes that
//!    the store answers with are the ones that clients were shown, and overlapping writes land in the order of arrival.
//!    Operations on names find the file only while they run (REMOVE of a name that was just given to another file);
//!    what they change is taken into account afterwards ([`file::State::note`]), and nothing is lost by it.
//! 4. **Every attribute that leaves the engine is overlaid** ([`table::Table::overlay`]). A lease that ends while the
//!    store is read makes the reader read again, so nothing older than what was shown before is shown.
//! 5. **READ takes its slices before it asks the store** for extents. A byte acknowledged before the READ is in one of
//!    the two: it moves from here to there, never the other way.
//! 6. **Nobody waits for memory, or for a flush, inside the room as unstable.** A flush that wants the room goes ahead
//!    of the queue. So: room → lease → metadata service; flush lock → room → metadata service; no circle.
//! 7. **Memory is counted by what is kept alive**, not by what is visible: see [`ranges`].

pub(crate) mod budget;
pub(crate) mod file;
mod flush;
mod parts;
pub(crate) mod plan;
pub(crate) mod ranges;
pub(crate) mod recent;
mod refused;
pub(crate) mod room;
mod stable;
pub(crate) mod table;
mod unstable;

pub(crate) use budget::Budget;
pub(crate) use flush::InRoom;
pub(crate) use recent::Recent;
pub(crate) use table::{Pin, Seen, Table};
pub(crate) use unstable::{Taken, UnstableWrite};
