//! Bytes that a command needs and this member cannot read.
//!
//! Whoever leads looks before and refuses ([`crate::read::needed`]); but a command that is in the log already, on another member or applied again after a
//! crash, is applied as everywhere: rows come and go as they do elsewhere, and those that would take over the bytes are marked as lost ([`Lost`]). So a
//! member is never stopped by damaged bytes of a file, and its answers are those of the others.
//! That is for bytes that were read and are proven to be wrong; if reading fails, the member stops: a restart, or another member, may still have them.

use crate::extent::{self, Head};
use crate::kv::{KvError, KvWrite};
use crate::transaction::{At, Step, Transaction};
use atoll_base::id::Ino;
use atoll_meta::{Extent, Piece, Source};
use bytes::BytesMut;
use std::ops::Range;

/// Bytes that a command took over from rows and this member could not read, by file and place.
#[derive(Debug, Default)]
pub(crate) struct Lost {
    /// Where they were.
    taken: Vec<(Ino, Range<u64>)>,
    /// Where a clone brings them.
    brought: Vec<(Ino, Range<u64>)>,
}

impl Lost {
    pub(super) fn overlaps(&self, ino: Ino, range: &Range<u64>) -> bool {
        let mut all = self.taken.iter().chain(&self.brought);
        all.any(|(of, lost)| *of == ino && lost.start < range.end && range.start < lost.end)
    }

    /// A range is cleared: nobody misses them any more.
    pub(super) fn clear(&mut self, ino: Ino, start: u64, end: u64) {
        for (of, lost) in std::mem::take(&mut self.taken) {
            if of != ino {
                self.taken.push((of, lost));
                continue;
            }
            let rest = [lost.start..lost.end.min(start), lost.start.max(end)..lost.end];
            self.taken.extend(rest.into_iter().filter(|rest| !rest.is_empty()).map(|rest| (ino, rest)));
        }
    }

    /// What was taken from a range of one file will be put into another, from `to_offset` on.
    pub(crate) fn bring(&mut self, from: Ino, range: Range<u64>, to: Ino, to_offset: u64) {
        for (_, lost) in self.taken.extract_if(.., |(of, _)| *of == from) {
            let (start, end) = (lost.start.max(range.start), lost.end.min(range.end));
            if start < end {
                let moved = |at: u64| at - range.start + to_offset;
                self.brought.push((to, moved(start)..moved(end)));
            }
        }
    }
}

/// A row with its bytes. Those that are damaged, also at a second look, are zeros, and noted as lost. An error of reading proves nothing and loses nothing.
pub(crate) fn load<K: KvWrite>(t: &mut Transaction<'_, K>, at: At, row: Head) -> Step<Extent> {
    let ino = t[at].attr.ino;
    let first = extent::load(t.kv, ino, row);
    let is_damaged = matches!(first, Err(KvError::Damaged(_)));
    let error = match if is_damaged { extent::load(t.kv, ino, row) } else { first } {
        Err(error @ KvError::Damaged(_)) => error,
        done => return Ok(done?),
    };
    let mut bytes = BytesMut::zeroed(row.len as usize);
    let readable = extent::readable(t.kv, ino, row)?.unwrap_or_default();
    bytes[..readable.len()].copy_from_slice(&readable);
    t.lost.taken.push((ino, row.offset + readable.len() as u64..row.end()));
    t.touched.lost.push((ino, error.what().to_owned()));
    let piece = Piece { offset: row.offset, len: row.len, source: Source::Inline(bytes.freeze()) };
    Ok(Extent { piece, birth: row.birth })
}
