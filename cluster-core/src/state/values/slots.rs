//! Which slots of the values' file are taken.
//!
//! A slot that is let go may still be read by those who look at an older state of redb's file. It is given out again only
//! when the last of them is gone ([`Slots::release`]). What is *used* goes into redb, with the rows that say who uses it; what is merely *held*
//! for such readers is known in memory only: after a start there are none.

use std::collections::VecDeque;
use std::ops::Range;

/// Slots of which one row of redb tells.
pub(super) const PER_ROW: u64 = 16_384;

/// Free slots in a row that are worth being written by themselves: together they are 256 KiB.
const LONG: u64 = 64;

/// So many free slots the file may have beside twice what is used, before short gaps are filled: 64 MiB.
const SLACK: u64 = 16_384;

/// Gaps looked at for a value of several slots.
const GAPS_TRIED: usize = 64;

/// A set of slots.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Set {
    words: Vec<u64>,
    len: u64,
}

impl Set {
    fn contains(&self, slot: u64) -> bool {
        let word = usize::try_from(slot / 64).ok().and_then(|at| self.words.get(at));
        word.is_some_and(|word| word >> (slot % 64) & 1 == 1)
    }

    fn set(&mut self, slots: Range<u64>, to: bool) {
        let words = slots.end.div_ceil(64) as usize;
        if to && self.words.len() < words {
            self.words.resize(words, 0);
        }
        for slot in slots {
            let bit = 1 << (slot % 64);
            let Some(word) = self.words.get_mut((slot / 64) as usize) else { return };
            match (to, *word & bit != 0) {
                (true, false) => self.len += 1,
                (false, true) => self.len -= 1,
                _ => continue,
            }
            *word ^= bit;
        }
    }

    /// One more than the last member.
    fn end(&self) -> u64 {
        let last = self.words.iter().rposition(|word| *word != 0);
        last.map_or(0, |at| at as u64 * 64 + 64 - u64::from(self.words[at].leading_zeros()))
    }

    /// The gaps before `end` of at least `min` slots, in order.
    fn gaps(&self, end: u64, min: u64) -> Vec<Range<u64>> {
        let mut gaps: Vec<Range<u64>> = Vec::new();
        let is_short = |gap: &mut Range<u64>| gap.end - gap.start < min;
        let mut add = |gap: Range<u64>| match gaps.last_mut() {
            Some(last) if last.end == gap.start => last.end = gap.end,
            _ => {
                gaps.pop_if(is_short);
                gaps.push(gap);
            }
        };
        for (at, word) in self.words.iter().enumerate() {
            let first = at as u64 * 64;
            let (mut free, limit) = (!word, end.saturating_sub(first).min(64));
            while free != 0 {
                let start = u64::from(free.trailing_zeros());
                let len = u64::from((!(free >> start)).trailing_zeros()).min(64 - start);
                if start >= limit {
                    break;
                }
                add(first + start..first + (start + len).min(limit));
                free &= if start + len == 64 { 0 } else { u64::MAX << (start + len) };
            }
        }
        gaps.pop_if(is_short);
        gaps
    }
}

/// Slots let go.
struct Held {
    /// Who reads the state of this number or an older one may still want them.
    until: u64,
    slots: Vec<Range<u64>>,
}

/// All slots.
#[derive(Default)]
pub(super) struct Slots {
    /// Referred to by the rows of redb, once the flush under way is committed.
    used: Set,
    /// Used, or held for readers.
    taken: Set,
    held: VecDeque<Held>,
    /// Let go by the flush under way.
    dropped: Vec<Range<u64>>,
    /// Rows that the flush under way has to write.
    changed: Vec<u64>,
    /// Where the flush under way puts values: the next place is at the end of it.
    gaps: Vec<Range<u64>>,
    /// From here on everything is free.
    end: u64,
}

impl Slots {
    /// As a row of redb tells it: `bytes` for the slots from `row` times [`PER_ROW`] on.
    pub(super) fn load(&mut self, row: u64, bytes: &[u8]) {
        let first = row * PER_ROW;
        for (at, byte) in bytes.iter().enumerate().take(PER_ROW as usize / 8) {
            for bit in (0..8).filter(|bit| byte >> bit & 1 == 1) {
                let slot = first + at as u64 * 8 + bit;
                self.used.set(slot..slot + 1, true);
            }
        }
        self.taken = self.used.clone();
        self.end = self.taken.end();
    }

    /// What a row of redb is to tell.
    pub(super) fn row(&self, row: u64) -> Vec<u8> {
        let words = PER_ROW as usize / 64;
        let first = row as usize * words;
        let mut bytes: Vec<u8> =
            self.used.words.iter().skip(first).take(words).flat_map(|word| word.to_le_bytes()).collect();
        let len = bytes.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1);
        bytes.truncate(len);
        bytes
    }

    /// Rows changed since this was asked last.
    pub(super) fn take_changed(&mut self) -> Vec<u64> {
        self.changed.sort_unstable();
        self.changed.dedup();
        std::mem::take(&mut self.changed)
    }

    /// Slots in use, or held for readers.
    pub(super) fn taken(&self) -> u64 {
        self.taken.len
    }

    /// Slots up to the last that is taken.
    pub(super) fn end(&self) -> u64 {
        self.taken.end()
    }

    /// Gives out again what only readers of states before `oldest` could want, and prepares a flush: long gaps come first, in order of
    /// place; short ones only if the file would otherwise become too long for what is in it, or if the disk is `tight`.
    pub(super) fn release(&mut self, oldest: u64, tight: bool) {
        while self.held.front().is_some_and(|held| held.until < oldest)
            && let Some(held) = self.held.pop_front()
        {
            for slots in held.slots {
                self.taken.set(slots, false);
            }
        }
        self.end = self.taken.end();
        let fill = tight || self.end > 2 * self.used.len + SLACK;
        let gaps = self.taken.gaps(self.end, if fill { 1 } else { LONG });
        let (long, short): (Vec<_>, Vec<_>) = gaps.into_iter().partition(|gap| gap.end - gap.start >= LONG);
        self.gaps = short.into_iter().rev().chain(long.into_iter().rev()).collect();
    }

    /// Takes `count` slots in a row.
    pub(super) fn take(&mut self, count: u64) -> Range<u64> {
        let near = self.gaps.len().saturating_sub(GAPS_TRIED);
        let fit = self.gaps[near..].iter().rposition(|gap| gap.end - gap.start >= count);
        let slots = match fit.map(|at| near + at) {
            Some(at) => {
                let gap = &mut self.gaps[at];
                let slots = gap.start..gap.start + count;
                gap.start = slots.end;
                if gap.is_empty() {
                    self.gaps.remove(at);
                }
                slots
            }
            None => self.end..self.end + count,
        };
        self.end = self.end.max(slots.end);
        self.used.set(slots.clone(), true);
        self.taken.set(slots.clone(), true);
        self.note(&slots);
        slots
    }

    /// Lets slots go with the flush under way. Whether they were in use.
    pub(super) fn drop(&mut self, slots: Range<u64>) -> bool {
        let known = slots.end <= self.used.words.len() as u64 * 64
            && slots.clone().all(|slot| self.used.contains(slot));
        if known {
            self.used.set(slots.clone(), false);
            self.note(&slots);
            self.dropped.push(slots);
        }
        known
    }

    /// The flush is committed: who reads the state `until` or an older one may still want what it let go.
    pub(super) fn committed(&mut self, until: u64) {
        let slots = std::mem::take(&mut self.dropped);
        if !slots.is_empty() {
            self.held.push_back(Held { until, slots });
        }
    }

    /// Another file of redb, which uses none of them, takes the place of the one whose state is `until`.
    pub(super) fn drop_all(&mut self, until: u64) {
        let end = self.used.end();
        let mut from = 0;
        for gap in self.used.gaps(end, 1) {
            if from < gap.start {
                self.dropped.push(from..gap.start);
            }
            from = gap.end;
        }
        // What is last is used, not free.
        if from < end {
            self.dropped.push(from..end);
        }
        self.used = Set::default();
        self.changed.clear();
        self.committed(until);
    }

    fn note(&mut self, slots: &Range<u64>) {
        for row in slots.start / PER_ROW..=(slots.end - 1) / PER_ROW {
            if self.changed.last() != Some(&row) {
                self.changed.push(row);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeSet;

    #[derive(Clone, Debug)]
    enum Step {
        Take(u64),
        Drop(usize),
        Commit,
        /// The oldest reader goes.
        Leave,
        Restart,
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            8 => prop_oneof![4 => Just(1_u64), 1 => 1..200_u64].prop_map(Step::Take),
            8 => any::<usize>().prop_map(Step::Drop),
            3 => Just(Step::Commit),
            2 => Just(Step::Leave),
            1 => Just(Step::Restart),
        ]
    }

    proptest! {
        /// Nobody gets a slot that is used, or that somebody may still read; rows tell what is used.
        #[test]
        fn nothing_is_given_out_twice(steps in prop::collection::vec(step(), 1..300)) {
            let mut slots = Slots::default();
            let mut used: Vec<Range<u64>> = Vec::new();
            // States that are read: their numbers, and what they refer to.
            let mut read: Vec<(u64, Vec<Range<u64>>)> = vec![(0, Vec::new())];
            let mut rows: std::collections::BTreeMap<u64, Vec<u8>> = Default::default();
            let mut state = 0;
            slots.release(0, false);
            for step in steps {
                match step {
                    Step::Take(count) => {
                        let got = slots.take(count);
                        prop_assert_eq!(got.end - got.start, count);
                        for other in used.iter().chain(read.iter().flat_map(|(_, slots)| slots)) {
                            prop_assert!(got.end <= other.start || other.end <= got.start, "{:?} {:?}", got, other);
                        }
                        used.push(got);
                    }
                    Step::Drop(at) if !used.is_empty() => {
                        let at = at % used.len();
                        let gone = used.swap_remove(at);
                        prop_assert!(slots.drop(gone.clone()));
                        prop_assert!(!slots.drop(gone));
                    }
                    Step::Drop(_) => {}
                    Step::Commit => {
                        for row in slots.take_changed() {
                            rows.insert(row, slots.row(row));
                        }
                        slots.committed(state);
                        state += 1;
                        read.push((state, used.clone()));
                        slots.release(read[0].0, state % 3 == 0);
                    }
                    Step::Leave => {
                        if read.len() > 1 {
                            read.remove(0);
                        }
                    }
                    Step::Restart => {
                        // What was not committed is gone, and so are the readers.
                        used = read.pop().unwrap().1;
                        slots = Slots::default();
                        for (row, bytes) in &rows {
                            slots.load(*row, bytes);
                        }
                        state = 0;
                        read = vec![(0, used.clone())];
                        slots.release(0, false);
                    }
                }
                let members: BTreeSet<u64> = used.iter().cloned().flatten().collect();
                prop_assert_eq!(slots.used.len, members.len() as u64);
                prop_assert!(slots.taken() >= slots.used.len);
                prop_assert!(members.iter().all(|slot| slots.used.contains(*slot) && slots.taken.contains(*slot)));
            }
            slots.drop_all(state);
            prop_assert_eq!(slots.used.len, 0);
            slots.release(state + 1, false);
            prop_assert_eq!(slots.end(), 0, "all of them were let go");
        }

        #[test]
        fn gaps_are_what_is_not_there(members in prop::collection::btree_set(0..400_u64, 0..200), end in 0..500_u64) {
            let mut set = Set::default();
            members.iter().for_each(|slot| set.set(*slot..slot + 1, true));
            let last = (set.words.len() as u64 * 64).min(end);
            let gaps = set.gaps(end, 1);
            let free: Vec<u64> = (0..last).filter(|slot| !members.contains(slot)).collect();
            prop_assert_eq!(gaps.iter().cloned().flatten().collect::<Vec<_>>(), free);
            let long = set.gaps(end, 5);
            prop_assert!(long.iter().eq(gaps.iter().filter(|gap| gap.end - gap.start >= 5)));
            prop_assert_eq!(set.end(), members.last().map_or(0, |last| last + 1));
        }
    }
}
