//! openraft's log storage on [`crate::log`].
//!
//! An entry's commands are the parts of a log entry, so they go from the proposer's buffers to the disk, and from
//! the cache or the disk to the state machine, as slices. The rest of the entry, its kind or membership, is the
//! head, in postcard.
//!
//! openraft stops a group for good when its storage returns an error. So [`LogStore::low_space`] has to be asked
//! before a command that takes space is proposed: [`WalError::NoSpace`] in here is too late.

use super::executor;
use super::types::{Batch, Entry, LogId, Member, TypeConfig, Vote};
use crate::log::{self, Config, EntryId, Status, Wal, WalError};
use atoll_base::disk::Disk;
use atoll_base::leave;
use bytes::Bytes;
use futures_util::stream::{self, Stream};
use openraft::entry::RaftEntry;
use openraft::impls::leader_id_adv::LeaderId;
use openraft::storage::{IOFlushed, LogState, RaftLogReader, RaftLogStorage};
use openraft::{EntryPayload, Membership, OptionalSend};
use serde::{Deserialize, Serialize};
use std::fmt::Debug;
use std::io;
use std::ops::{Bound, Range, RangeBounds};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

/// Bytes of entries per message to a follower, and per step of a replay; a single larger entry goes alone.
const CHUNK_BYTES: usize = 1 << 20;

/// The log of one Raft group. Clones are the same log; it is closed with the last.
#[derive(Clone)]
pub struct LogStore {
    wal: Arc<Wal>,
}

/// What of a group's log is not openraft's business: entries of which openraft is told early that they are flushed.
///
/// As long as there is one member, nobody but its state machine acts on that. So the entries may be executed while the disk writes them, if nothing of it shows
/// before they are durable.
pub trait Early: Send + Sync + 'static {
    /// Waits until all is durable of which openraft was told that it is.
    ///
    /// # Errors
    /// It never will be: the log has failed.
    fn settle(&self) -> io::Result<()>;

    /// Says whether there is one member only. Returns, if there are to be more, when everything is durable that openraft was told of.
    ///
    /// # Errors
    /// As [`Early::settle`].
    fn set_alone(&self, alone: bool) -> io::Result<()>;
}

impl Early for LogStore {
    fn settle(&self) -> io::Result<()> {
        Ok(self.wal.settle()?)
    }

    fn set_alone(&self, alone: bool) -> io::Result<()> {
        Ok(self.wal.set_alone(alone)?)
    }
}

/// What beside its commands an entry is.
#[derive(Serialize, Deserialize)]
enum Head {
    Blank,
    Normal,
    Membership(Membership<u64, Member>),
}

fn invalid(error: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, error)
}

fn entry_id(id: LogId) -> EntryId {
    EntryId { term: id.leader_id.term, leader: id.leader_id.node_id, index: id.index }
}

fn log_id(id: EntryId) -> LogId {
    LogId { leader_id: LeaderId { term: id.term, node_id: id.leader }, index: id.index }
}

fn encode(entry: Entry) -> Result<log::Entry, io::Error> {
    let id = entry_id(entry.log_id());
    let (head, parts) = match entry.payload {
        EntryPayload::Blank => (Head::Blank, Vec::new()),
        EntryPayload::Normal(Batch(commands)) => (Head::Normal, commands),
        EntryPayload::Membership(membership) => (Head::Membership(membership), Vec::new()),
    };
    let head = postcard::to_stdvec(&head).map_err(invalid)?;
    Ok(log::Entry { id, head: head.into(), parts })
}

fn decode(entry: log::Entry) -> Result<Entry, io::Error> {
    let payload = match postcard::from_bytes(&entry.head).map_err(invalid)? {
        Head::Normal => EntryPayload::Normal(Batch(entry.parts)),
        Head::Blank => EntryPayload::Blank,
        Head::Membership(membership) => EntryPayload::Membership(membership),
    };
    Ok(Entry::new(log_id(entry.id), payload))
}

/// `start..end` of any range of indices.
fn span(range: &impl RangeBounds<u64>) -> Range<u64> {
    let start = match range.start_bound() {
        Bound::Included(start) => *start,
        Bound::Excluded(before) => before.saturating_add(1),
        Bound::Unbounded => 0,
    };
    let end = match range.end_bound() {
        Bound::Included(last) => last.saturating_add(1),
        Bound::Excluded(end) => *end,
        Bound::Unbounded => u64::MAX,
    };
    start..end
}

impl LogStore {
    /// Opens the log in `dir`; see [`Wal::open`].
    ///
    /// # Errors
    /// Those of [`Wal::open`].
    pub fn open(disk: Arc<dyn Disk>, dir: &Path, config: Config) -> Result<Self, WalError> {
        Ok(Self { wal: Arc::new(Wal::open(disk, dir, config)?) })
    }

    /// See [`Wal::last_sync`].
    pub fn last_sync(&self) -> Duration {
        self.wal.last_sync()
    }

    /// See [`Wal::low_space`].
    pub fn low_space(&self) -> bool {
        self.wal.low_space()
    }

    /// Why the log has failed, if it has; it takes no more writes then.
    pub fn failed(&self) -> Option<Arc<str>> {
        self.wal.failed()
    }

    /// Index of the last entry; 0 if there never was one.
    pub fn last_index(&self) -> u64 {
        self.wal.bounds().1.map_or(0, |id| id.index)
    }

    /// Figures for `atoll status`.
    pub fn status(&self) -> Status {
        self.wal.status()
    }

    /// The largest entry that [`RaftLogStorage::append`] takes: its commands and 4 bytes for each.
    pub fn max_batch_bytes(config: &Config) -> usize {
        // The head of a normal entry is one byte.
        config.max_entry_bytes() - 1
    }

    /// Waits until a request is durable.
    async fn durable(
        &self,
        request: impl FnOnce(&Wal, log::Done) -> Result<(), WalError>,
    ) -> Result<(), io::Error> {
        self.wal.room().await;
        let (tx, rx) = tokio::sync::oneshot::channel();
        request(&self.wal, Box::new(move |result| drop(tx.send(result))))?;
        rx.await.unwrap_or(Err(WalError::Closed))?;
        Ok(())
    }

    /// Entries in `range` up to about `max_bytes`; reads from the disk happen on a blocking thread.
    async fn read(&self, range: Range<u64>, max_bytes: usize) -> Result<Vec<Entry>, io::Error> {
        let entries = match self.wal.cached(range.clone(), max_bytes) {
            Some(entries) => entries,
            None => {
                let wal = self.wal.clone();
                let read = tokio::task::spawn_blocking(move || wal.entries(range, max_bytes));
                read.await.map_err(io::Error::other)??
            }
        };
        entries.into_iter().map(decode).collect()
    }
}

/// Tells openraft what became of entries, also if nobody tells this: openraft would wait for ever, and the callers with it. (Where `append` itself fails, its error is the
/// one that counts.)
struct Flushed(Option<IOFlushed<TypeConfig>>);

impl Flushed {
    fn tell(mut self, result: Result<(), io::Error>) {
        if let Some(callback) = self.0.take() {
            callback.io_completed(result);
        }
    }
}

impl Drop for Flushed {
    fn drop(&mut self) {
        if let Some(callback) = self.0.take() {
            callback.io_completed(Err(io::Error::other("the log let go of entries")));
        }
    }
}

impl RaftLogReader<TypeConfig> for LogStore {
    async fn entries_stream<RB>(
        &mut self,
        range: RB,
    ) -> impl Stream<Item = Result<Entry, io::Error>> + OptionalSend
    where
        RB: RangeBounds<u64> + Clone + Debug + OptionalSend,
    {
        // In chunks: a replay of the whole log must not hold it in memory.
        let store = self.clone();
        let chunks = stream::try_unfold((store, span(&range)), |(store, range)| async move {
            let entries = store.read(range.clone(), CHUNK_BYTES).await?;
            let next = entries.last().map(|entry| entry.index() + 1..range.end);
            Ok::<_, io::Error>(next.map(|next| (entries, (store, next))))
        });
        use futures_util::{StreamExt, TryStreamExt};
        chunks.map_ok(|entries| stream::iter(entries.into_iter().map(Ok))).try_flatten().boxed()
    }

    async fn try_get_log_entries<RB: RangeBounds<u64> + Clone + Debug + OptionalSend>(
        &mut self,
        range: RB,
    ) -> Result<Vec<Entry>, io::Error> {
        self.read(span(&range), usize::MAX).await
    }

    async fn limited_get_log_entries(&mut self, start: u64, end: u64) -> Result<Vec<Entry>, io::Error> {
        self.read(start..end, CHUNK_BYTES).await
    }

    async fn read_vote(&mut self) -> Result<Option<Vote>, io::Error> {
        self.wal.vote().map(|vote| postcard::from_bytes(&vote).map_err(invalid)).transpose()
    }
}

impl RaftLogStorage<TypeConfig> for LogStore {
    type LogReader = Self;

    async fn get_log_state(&mut self) -> Result<LogState<TypeConfig>, io::Error> {
        let (purged, last) = self.wal.bounds();
        Ok(LogState { last_purged_log_id: purged.map(log_id), last_log_id: last.map(log_id) })
    }

    async fn get_log_reader(&mut self) -> Self {
        self.clone()
    }

    async fn save_vote(&mut self, vote: &Vote) -> Result<(), io::Error> {
        let vote = Bytes::from(postcard::to_stdvec(vote).map_err(invalid)?);
        self.durable(|wal, done| wal.save_vote(vote, done)).await
    }

    async fn save_committed(&mut self, committed: Option<LogId>) -> Result<(), io::Error> {
        self.wal.set_committed(committed.map(entry_id));
        Ok(())
    }

    async fn read_committed(&mut self) -> Result<Option<LogId>, io::Error> {
        Ok(self.wal.committed().map(log_id))
    }

    async fn append<I>(&mut self, entries: I, callback: IOFlushed<TypeConfig>) -> Result<(), io::Error>
    where
        I: IntoIterator<Item = Entry> + OptionalSend,
        I::IntoIter: OptionalSend,
    {
        let entries = entries.into_iter().map(encode).collect::<Result<Vec<_>, _>>()?;
        self.wal.room().await;
        let flushed = Flushed(Some(callback));
        let done: log::Done = Box::new(move |result| flushed.tell(result.map_err(io::Error::from)));
        // A caller who runs the group's tasks waits for one write: of the entry it came for, or of one that slipped in before. It waits in the state machine
        // ([`Early::settle`]). Where several calls come together, the next may be begun beside the write.
        let is_early = if executor::is_caller() {
            self.wal.is_alone() && leave::take()
        } else {
            matches!(&entries[..], [entry] if entry.parts.len() <= 1)
        };
        if is_early {
            Ok(self.wal.append_early(entries, done)?)
        } else {
            Ok(self.wal.append(entries, done)?)
        }
    }

    async fn truncate_after(&mut self, last: Option<LogId>) -> Result<(), io::Error> {
        self.durable(|wal, done| wal.truncate_after(last.map(entry_id), done)).await
    }

    async fn purge(&mut self, upto: LogId) -> Result<(), io::Error> {
        self.durable(|wal, done| wal.purge(entry_id(upto), done)).await
    }
}

#[cfg(test)]
mod tests;
