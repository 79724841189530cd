#![allow(clippy::unwrap_used)]

mod crash;
mod early;
mod model;
mod panics;
mod unit;

use super::{Config, Done, Entry, EntryId, Wal, WalError};
use atoll_base::disk::Disk;
use atoll_base::disk::sim::SimDisk;
use bytes::Bytes;
use std::path::Path;
use std::sync::{Arc, mpsc};

/// Small, so that a few entries fill a segment and most reads go to the disk.
fn config() -> Config {
    Config { segment_bytes: 16 << 10, cache_bytes: 4 << 10, queue_bytes: 64 << 10, group_bytes: 8 << 10 }
}

fn dir() -> &'static Path {
    Path::new("log")
}

fn disk(disk: &SimDisk) -> Arc<dyn Disk> {
    Arc::new(disk.clone())
}

fn id(term: u64, index: u64) -> EntryId {
    EntryId { term, leader: 1, index }
}

/// An entry whose bytes tell which one it is.
fn entry(term: u64, index: u64, parts: &[usize]) -> Entry {
    let byte = (term * 31 + index) as u8;
    Entry {
        id: id(term, index),
        head: Bytes::from(vec![byte; 3]),
        parts: parts.iter().map(|len| Bytes::from(vec![byte; *len])).collect(),
    }
}

/// What the log answers when it is through with one request.
fn wait(request: impl FnOnce(Done) -> Result<(), WalError>) -> Result<(), WalError> {
    let (tx, rx) = mpsc::channel();
    request(Box::new(move |result| tx.send(result).unwrap()))?;
    rx.recv().unwrap()
}

/// All of a log that a reader can see.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct View {
    vote: Option<Bytes>,
    purged: Option<EntryId>,
    last: Option<EntryId>,
    entries: Vec<Entry>,
}

fn view(wal: &Wal) -> Result<View, WalError> {
    let (purged, last) = wal.bounds();
    Ok(View { vote: wal.vote(), purged, last, entries: wal.entries(0..u64::MAX, usize::MAX)? })
}

/// A request, as a naive log understands it.
#[derive(Clone, Debug)]
enum Step {
    Entry(Entry),
    Vote(Bytes),
    Truncate(Option<EntryId>),
    Purge(EntryId),
}

impl View {
    fn of(steps: &[Step]) -> Self {
        let mut view = Self::default();
        steps.iter().for_each(|step| view.apply(step));
        view
    }

    fn apply(&mut self, step: &Step) {
        match step {
            Step::Entry(entry) => self.entries.push(entry.clone()),
            Step::Vote(vote) => self.vote = Some(vote.clone()),
            Step::Truncate(last) => {
                self.entries.retain(|e| last.is_some_and(|last| e.id.index <= last.index));
            }
            Step::Purge(upto) => {
                self.entries.retain(|e| e.id.index > upto.index);
                if self.purged.is_none_or(|p| p.index < upto.index) {
                    self.purged = Some(*upto);
                }
            }
        }
        self.last = self.entries.last().map(|e| e.id).or(self.purged);
    }
}
