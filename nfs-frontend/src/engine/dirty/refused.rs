//! UNSTABLE data that were acknowledged and then refused, because what they overwrite in part is damaged: what COMMIT has to say of them.
//!
//! Who wrote them is not known here, so a COMMIT of any of these bytes fails, whoever sends it and however often, until somebody has written them over
//! or cut them off: then nobody misses them. Once the write verifier has moved, it tells of all that was refused before (RFC 1813 §3.3.21,
//! RFC 8881 §18.3.3).
//!
//! Bounds: [`FILES_MAX`] files; of one with more than [`RANGES_MAX`] ranges those between them count as refused, too. If there is no room for a file,
//! the verifier is moved; if that fails as well, everything counts as refused until it has moved.

use atoll_base::id::Ino;
use std::collections::HashMap;
use std::ops::Range;
use std::slice;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// Files of which data were refused.
const FILES_MAX: usize = 4096;

/// Ranges of one file.
const RANGES_MAX: usize = 64;

#[derive(Debug)]
struct OfFile {
    /// The write verifier when the last of them were refused; those refused under an earlier one are forgotten.
    verifier: u64,
    /// In order, apart.
    ranges: Vec<Range<u64>>,
}

impl OfFile {
    fn add(&mut self, added: &[Range<u64>]) {
        self.ranges.extend_from_slice(added);
        self.ranges.sort_unstable_by_key(|range| range.start);
        self.ranges.dedup_by(|next, range| {
            let joins = next.start <= range.end;
            if joins {
                range.end = range.end.max(next.end);
            }
            joins
        });
        if let [first, .., last] = &self.ranges[..]
            && self.ranges.len() > RANGES_MAX
        {
            let hull = first.start..last.end;
            self.ranges = vec![hull];
        }
    }

    fn clear(&mut self, gone: &Range<u64>) {
        let rest = |range: Range<u64>| {
            let (before, behind) =
                (range.start..range.end.min(gone.start), range.start.max(gone.end)..range.end);
            [before, behind].into_iter().filter(|part| !part.is_empty())
        };
        self.ranges = std::mem::take(&mut self.ranges).into_iter().flat_map(rest).collect();
    }
}

/// See the module.
#[derive(Debug, Default)]
pub(crate) struct Refused {
    all: Mutex<All>,
    any: AtomicBool,
}

#[derive(Debug, Default)]
struct All {
    files: HashMap<Ino, OfFile>,
    /// Under this verifier everything counts as refused.
    everything: Option<u64>,
}

impl Refused {
    fn lock(&self) -> MutexGuard<'_, All> {
        self.all.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether anything is refused.
    pub(crate) fn any(&self) -> bool {
        self.any.load(Ordering::Acquire)
    }

    /// Notes refused bytes, while this verifier is in force. False if there is no room: then the verifier must tell.
    pub(crate) fn add(&self, ino: Ino, verifier: u64, ranges: &[Range<u64>]) -> bool {
        let All { files, .. } = &mut *self.lock();
        if files.len() >= FILES_MAX && !files.contains_key(&ino) {
            // One that was read some time ago forgets nothing newer.
            files.retain(|_, of| of.verifier >= verifier);
            if files.len() >= FILES_MAX {
                return false;
            }
        }
        let of = files.entry(ino).or_insert(OfFile { verifier, ranges: Vec::new() });
        if of.verifier != verifier {
            *of = OfFile { verifier, ranges: Vec::new() };
        }
        of.add(ranges);
        self.any.store(true, Ordering::Release);
        true
    }

    /// The same where the verifier cannot tell: a loss for which there is no room makes everything count as refused.
    pub(crate) fn add_untold(&self, ino: Ino, verifier: u64) {
        if !self.add(ino, verifier, slice::from_ref(&(0..u64::MAX))) {
            let mut all = self.lock();
            // Verifiers grow, and this one may have been read some time ago.
            all.everything = all.everything.max(Some(verifier));
            self.any.store(true, Ordering::Release);
        }
    }

    /// Bytes of a file are there that came later than those refused, or none any more.
    pub(crate) fn overwritten(&self, ino: Ino, gone: &Range<u64>) {
        if !self.any() {
            return;
        }
        let All { files, everything } = &mut *self.lock();
        if let Some(of) = files.get_mut(&ino) {
            of.clear(gone);
            if of.ranges.is_empty() {
                files.remove(&ino);
            }
        }
        self.any.store(!files.is_empty() || everything.is_some(), Ordering::Release);
    }

    /// The `verifier` to answer a COMMIT of `range` with; `None` if it has to fail.
    pub(crate) fn committed(&self, ino: Ino, range: &Range<u64>, verifier: impl Fn() -> u64) -> Option<u64> {
        let mut now = verifier();
        while !self.has(ino, range, now) {
            // Once the verifier has moved, what was refused under `now` may have been forgotten before it was looked for.
            let before = std::mem::replace(&mut now, verifier());
            if now == before {
                return Some(now);
            }
        }
        None
    }

    /// Whether a COMMIT of `range` that would be answered with `verifier` has to fail.
    fn has(&self, ino: Ino, range: &Range<u64>, verifier: u64) -> bool {
        if !self.any() {
            return false;
        }
        let All { files, everything } = &*self.lock();
        *everything == Some(verifier)
            || files.get(&ino).is_some_and(|of| {
                let overlaps = |other: &Range<u64>| other.start < range.end && range.start < other.end;
                of.verifier == verifier && of.ranges.iter().any(overlaps)
            })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::sync::atomic::AtomicU64;

    const INO: Ino = Ino(5);

    fn add(refused: &Refused, ino: Ino, verifier: u64, range: Range<u64>) -> bool {
        refused.add(ino, verifier, slice::from_ref(&range))
    }

    proptest! {
        #[test]
        fn equals_a_plain_array(steps in prop::collection::vec((any::<bool>(), 0u64..100, 1u64..30), 1..30)) {
            let refused = Refused::default();
            let mut model = [false; 130];
            for (is_new, start, len) in steps {
                let range = start..start + len;
                model[start as usize..(start + len) as usize].fill(is_new);
                if is_new {
                    prop_assert!(add(&refused, INO, 1, range));
                } else {
                    refused.overwritten(INO, &range);
                }
                for at in 0..130 {
                    prop_assert_eq!(refused.has(INO, &(at..at + 1), 1), model[at as usize]);
                }
                prop_assert_eq!(refused.any(), model.contains(&true));
            }
        }
    }

    #[test]
    fn what_a_moved_verifier_tells_is_forgotten() {
        let refused = Refused::default();
        assert!(add(&refused, INO, 1, 0..10));
        assert!(
            refused.has(INO, &(9..20), 1)
                && !refused.has(INO, &(10..20), 1)
                && !refused.has(Ino(6), &(0..9), 1)
        );
        assert!(!refused.has(INO, &(0..10), 2));
        assert!(add(&refused, INO, 2, 20..30));
        assert!(!refused.has(INO, &(0..10), 2) && refused.has(INO, &(0..u64::MAX), 2));
    }

    #[test]
    fn too_much_is_refused_or_told_by_the_verifier() {
        let refused = Refused::default();
        (0..=RANGES_MAX as u64).for_each(|n| assert!(add(&refused, INO, 1, n * 10..n * 10 + 1)));
        assert!(refused.has(INO, &(5..6), 1) && !refused.has(INO, &(5000..6000), 1));
        (1..FILES_MAX as u64).for_each(|n| assert!(add(&refused, Ino(100 + n), 1, 0..1)));
        assert!(!add(&refused, Ino(9), 1, 0..1) && add(&refused, INO, 1, 0..1));
        assert!(add(&refused, Ino(9), 2, 0..1));
    }

    #[test]
    fn a_verifier_that_moves_meanwhile_is_not_answered_with() {
        let refused = Refused::default();
        assert!(add(&refused, INO, 1, 0..10));
        assert_eq!(refused.committed(INO, &(0..10), || 1), None);
        // It moves as soon as it was read, and what is refused then takes the place of what was before.
        let now = AtomicU64::new(1);
        let verifier = || {
            let read = now.swap(2, Ordering::Relaxed);
            assert!(add(&refused, INO, 2, 20..30));
            read
        };
        assert_eq!(refused.committed(INO, &(0..10), verifier), Some(2));
        now.store(1, Ordering::Relaxed);
        assert_eq!(refused.committed(INO, &(20..30), verifier), None);
    }

    #[test]
    fn everything_is_refused_if_neither_room_nor_verifier_tells() {
        let refused = Refused::default();
        (1..=FILES_MAX as u64).for_each(|n| refused.add_untold(Ino(100 + n), 1));
        assert!(refused.has(Ino(101), &(7..8), 1) && !refused.has(INO, &(7..8), 1));
        refused.add_untold(INO, 1);
        (1..=FILES_MAX as u64).for_each(|n| refused.overwritten(Ino(100 + n), &(0..u64::MAX)));
        assert!(refused.has(INO, &(7..8), 1) && refused.has(Ino(6), &(7..8), 1));
        assert!(!refused.has(INO, &(7..8), 2), "the verifier tells");
    }
}
