//! Extents of files in memory, window by window, so that reads of hot files need not search the state's tree.
//!
//! A window is [`WINDOW`] bytes of a file. What is kept of it was read at some version of the state and is true as long as the
//! inode has not changed since; whoever asks says which version that is ([`super::published`] knows). A window is read as a whole
//! at the second look, so that a file that is written between all its reads costs no more than without this.
//!
//! Bounds: the number of windows is given; each holds at most [`EXTENTS_MAX`] extents (about 80 bytes each) with
//! [`INLINE_MAX`] bytes of data in them: 21 KiB.

use atoll_base::clock_cache::{CacheStatus, ClockCache};
use atoll_base::id::Ino;
use atoll_meta::data::{Extent, FileMap};
use atoll_meta::service::Read;
use atoll_meta::{FsError, Source};
use atoll_model::{KvError, KvRead, read};
use std::hash::{BuildHasher, RandomState};

/// Bytes of a file that are looked up together.
const WINDOW: u64 = 1 << 20;
/// Extents of a window that is kept.
const EXTENTS_MAX: usize = 64;
/// Bytes of data in extents of a window that is kept.
const INLINE_MAX: usize = 16 << 10;

/// What is known of a window.
pub(super) enum Look {
    /// These are the extents of the range.
    Extents(Vec<Extent>),
    /// It was asked for before: worth a [`FileMaps::load`].
    Again,
    /// Nothing: [`FileMaps::seen`] takes note.
    First,
    /// It holds more than is kept, or something that cannot be read.
    TooMuch,
}

enum Contents {
    Seen,
    TooMuch,
    Extents(Box<[Extent]>),
}

struct Window {
    ino: Ino,
    number: u64,
    version: u64,
    contents: Contents,
}

/// The windows.
pub(super) struct FileMaps {
    windows: ClockCache<Window>,
    hasher: RandomState,
}

/// The part of `extents`, which are in order, within `start..end`.
fn cut(extents: &[Extent], start: u64, end: u64) -> Vec<Extent> {
    let first = extents.partition_point(|extent| extent.piece.end() <= start);
    extents[first..].iter().map_while(|extent| read::clip(extent, start, end)).collect()
}

impl FileMaps {
    /// Keeps at most about so many windows.
    pub(super) fn new(windows: usize) -> Self {
        Self { windows: ClockCache::new(windows), hasher: RandomState::new() }
    }

    /// The number of the window that holds a range; `None` if no single one does.
    pub(super) fn window(offset: u64, len: u64) -> Option<u64> {
        let last = offset.checked_add(len.checked_sub(1)?)?;
        (offset / WINDOW == last / WINDOW).then_some(offset / WINDOW)
    }

    fn key(&self, ino: Ino, window: u64) -> u64 {
        self.hasher.hash_one((ino, window))
    }

    /// What is known of `offset..offset + len`, which is in `window`, of a file that has not changed since `version`.
    pub(super) fn look(&self, ino: Ino, window: u64, version: u64, offset: u64, len: u64) -> Look {
        let found = self.windows.get(self.key(ino, window), |w| {
            (w.ino == ino && w.number == window && w.version == version).then(|| match &w.contents {
                Contents::Extents(extents) => Look::Extents(cut(extents, offset, offset + len)),
                Contents::Seen => Look::Again,
                Contents::TooMuch => Look::TooMuch,
            })
        });
        found.unwrap_or(Look::First)
    }

    /// Takes note that somebody asked for a window of a file that has not changed since `version`.
    pub(super) fn seen(&self, ino: Ino, window: u64, version: u64) {
        self.put(ino, window, version, Contents::Seen);
    }

    /// Reads a whole window from a state in which the file is as it was at `version`, and keeps it. `None` if it is too much. After an error of
    /// the store the window counts as too much: a part of it may be readable.
    pub(super) fn load(
        &self,
        kv: &impl KvRead,
        ino: Ino,
        window: u64,
        version: u64,
    ) -> Result<Option<Read<FileMap>>, KvError> {
        let map = match read::map_up_to(kv, ino, window * WINDOW, WINDOW, EXTENTS_MAX) {
            Ok(Ok(map)) => map,
            Ok(Err(error)) => return Ok(Some(Err(error))),
            Err(error) => {
                // Not to be tried again with each look, until the file changes.
                self.put(ino, window, version, Contents::TooMuch);
                return Err(error);
            }
        };
        let inline = map.extents.iter().map(|extent| match &extent.piece.source {
            Source::Inline(data) => data.len(),
            Source::Block { .. } => 0,
        });
        if map.complete_to < (window * WINDOW).saturating_add(WINDOW) || inline.sum::<usize>() > INLINE_MAX {
            self.put(ino, window, version, Contents::TooMuch);
            return Ok(None);
        }
        self.put(ino, window, version, Contents::Extents(map.extents.clone().into()));
        Ok(Some(Ok(map)))
    }

    fn put(&self, ino: Ino, number: u64, version: u64, contents: Contents) {
        self.windows.put(self.key(ino, number), Window { ino, number, version, contents });
    }

    /// Figures.
    pub(super) fn status(&self) -> CacheStatus {
        self.windows.status()
    }
}

/// The part of a window's map within `offset..offset + len`.
pub(super) fn part(map: Result<FileMap, FsError>, offset: u64, len: u64) -> Result<FileMap, FsError> {
    map.map(|map| FileMap {
        extents: cut(&map.extents, offset, offset + len),
        complete_to: offset + len,
        ..map
    })
}
