//! Where data and holes begin: extents, and what is dirty over them (RFC 7862 §15.11).

use crate::engine::Engine;
use atoll_base::attr::Attr;
use atoll_base::block::BlockService;
use atoll_base::id::Ino;
use atoll_meta::{FsError, MetadataService};

/// How often the search begins anew because the store moved past what was dirty.
const ATTEMPTS: usize = 6;

/// Answers of the store that one search takes. What it does not get to counts as data, which is always allowed.
const STEPS: usize = 256;

/// What is looked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Looked {
    Data,
    Hole,
}

/// What was found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Sought {
    /// Where; the file's end if there is none before.
    pub(crate) at: u64,
    /// The file's size.
    pub(crate) size: u64,
}

/// Ranges in order that neither overlap nor touch.
fn joined(mut ranges: Vec<(u64, u64)>) -> Vec<(u64, u64)> {
    ranges.sort_unstable();
    let mut all: Vec<(u64, u64)> = Vec::with_capacity(ranges.len());
    for (start, end) in ranges {
        match all.last_mut() {
            Some(last) if last.1 >= start => last.1 = last.1.max(end),
            _ => all.push((start, end)),
        }
    }
    all
}

impl<M: MetadataService, B: BlockService> Engine<M, B> {
    /// Looks for data or a hole from `offset` on. `check` decides by the file's attributes whether the caller may.
    pub(crate) async fn seek_file(
        &self,
        ino: Ino,
        offset: u64,
        what: Looked,
        check: impl Fn(&Attr) -> Result<(), FsError>,
    ) -> Result<Sought, FsError> {
        for attempt in 1.. {
            // Before the store is asked: what is flushed in between is in both.
            let dirty = self.dirty.with_leased(ino, |s| (s.shown(), s.layers(offset, u64::MAX)));
            let (shown, ranges) = match dirty {
                Some((Some(shown), (flushing, fresh))) => {
                    let range = |(at, data): (u64, bytes::Bytes)| (at, at + data.len() as u64);
                    (Some(shown), joined(flushing.into_iter().chain(fresh).map(range).collect()))
                }
                _ => (None, Vec::new()),
            };
            let mut at = offset;
            let mut steps = 0;
            loop {
                let stretch = self.meta.stretch(ino, at).await?;
                let stored = stretch.attr.size;
                let mut attr = stretch.attr;
                if let Some(shown) = &shown {
                    if attr.change > shown.change && attempt < ATTEMPTS {
                        break;
                    }
                    shown.overlay(&mut attr);
                }
                check(&attr)?;
                let size = attr.size;
                if at >= size {
                    return Ok(Sought { at: size, size });
                }
                let next = ranges.iter().find(|(_, end)| *end > at);
                let (data, end) = match next {
                    Some((start, end)) if *start <= at => (true, *end),
                    _ if stretch.data => (true, stretch.end),
                    _ => {
                        // Behind the end of what is stored is nothing, as far as something dirty made the file longer.
                        let hole = if stretch.end >= stored { size } else { stretch.end };
                        (false, next.map_or(hole, |(start, _)| hole.min(*start)))
                    }
                };
                steps += 1;
                if steps > STEPS {
                    let at = if what == Looked::Data { at } else { size };
                    return Ok(Sought { at, size });
                }
                if data == (what == Looked::Data) {
                    return Ok(Sought { at, size });
                }
                at = end;
            }
        }
        unreachable!("the last attempt goes on whatever it sees")
    }
}
