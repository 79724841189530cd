//! What large reads asked for again and again, verified, in memory: answering it then costs one copy, into the socket. Through the page
//! cache it costs another one, out of the cache, and the checksums.
//!
//! Only what a read found in the page cache comes in here, so it was read before, and a stream that goes through once washes nothing out. Small reads
//! have [a place of their own](crate::hot).
//!
//! Blocks never change and their ids are never used again, so nothing in here can be out of date. A clock tells what goes when room is
//! needed: what was asked for since it came, or since the hand passed, stays for another turn. What nobody asks for goes after a while in any case.

use crate::lock::lock;
use atoll_base::block::BlockId;
use bytes::Bytes;
use std::collections::{HashMap, VecDeque};
use std::sync::Mutex;
use std::time::{Duration, Instant};

/// Shorter pieces are left to others.
pub(crate) const PIECE_MIN: usize = 256 << 10;

/// A block and where in it a piece begins. Clients ask for the same pieces: their `rsize` bytes from multiples of it.
type Key = (BlockId, u32);

struct Piece {
    bytes: Bytes,
    /// Memory that it keeps.
    held: usize,
    asked: bool,
    last: Instant,
}

#[derive(Default)]
struct Pieces {
    by_key: HashMap<Key, Piece>,
    /// Every key once. The hand is at the front.
    clock: VecDeque<Key>,
    held: usize,
    hits: u64,
}

/// How it is doing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RepeatedStatus {
    /// Memory taken.
    pub bytes: u64,
    /// Memory that may be taken.
    pub limit: u64,
    /// Reads answered from it since the start.
    pub hits: u64,
}

pub(crate) struct Repeated {
    max: usize,
    pieces: Mutex<Pieces>,
}

impl Pieces {
    fn remove(&mut self, key: Key) {
        if let Some(piece) = self.by_key.remove(&key) {
            self.held -= piece.held;
        }
    }

    /// Lets pieces go until `room` more bytes fit below `max`.
    fn make_room(&mut self, room: usize, max: usize) {
        while self.held + room > max
            && let Some(key) = self.clock.pop_front()
        {
            match self.by_key.get_mut(&key) {
                Some(piece) if piece.asked => {
                    piece.asked = false;
                    self.clock.push_back(key);
                }
                _ => self.remove(key),
            }
        }
    }
}

impl Repeated {
    /// Holds at most `max` bytes.
    pub(crate) fn new(max: usize) -> Self {
        Self { max, pieces: Mutex::default() }
    }

    /// `len` bytes of a block from `offset` on.
    pub(crate) fn get(&self, id: BlockId, offset: u32, len: usize, now: Instant) -> Option<Bytes> {
        if len < PIECE_MIN || self.max == 0 {
            return None;
        }
        let mut pieces = lock(&self.pieces);
        let found = pieces.by_key.get_mut(&(id, offset)).filter(|piece| piece.bytes.len() >= len);
        let bytes = found.map(|piece| {
            piece.asked = true;
            piece.last = now;
            piece.bytes.slice(..len)
        })?;
        pieces.hits += 1;
        Some(bytes)
    }

    /// Keeps what a read found. `held` is the memory that `bytes` keep alive, at least their length.
    pub(crate) fn keep(&self, id: BlockId, offset: u32, bytes: &Bytes, held: usize, now: Instant) {
        if bytes.len() < PIECE_MIN || held > self.max {
            return;
        }
        let mut pieces = lock(&self.pieces);
        pieces.make_room(held, self.max);
        let piece = Piece { bytes: bytes.clone(), held, asked: false, last: now };
        pieces.held += held;
        match pieces.by_key.insert((id, offset), piece) {
            // Another reader was as quick, or this piece is longer.
            Some(before) => pieces.held -= before.held,
            None => pieces.clock.push_back((id, offset)),
        }
    }

    /// Lets go what nobody asked for within `unused`.
    pub(crate) fn forget(&self, unused: Duration, now: Instant) {
        let mut gone = Vec::new();
        {
            let mut pieces = lock(&self.pieces);
            let Pieces { by_key, clock, held, .. } = &mut *pieces;
            clock.retain(|key| {
                let stays = by_key.get(key).is_some_and(|piece| now.duration_since(piece.last) < unused);
                if !stays && let Some(piece) = by_key.remove(key) {
                    *held -= piece.held;
                    gone.push(piece);
                }
                stays
            });
            if by_key.is_empty() {
                (*by_key, *clock) = Default::default();
            }
        }
        // All that memory is given back where nobody waits for the lock.
        drop(gone);
    }

    pub(crate) fn status(&self) -> RepeatedStatus {
        let pieces = lock(&self.pieces);
        RepeatedStatus { bytes: pieces.held as u64, limit: self.max as u64, hits: pieces.hits }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use atoll_base::id::Epoch;
    use proptest::prelude::*;

    fn id(n: u64) -> BlockId {
        BlockId::new(Epoch(1), n)
    }

    fn piece(n: u64, len: usize) -> Bytes {
        vec![n as u8; len].into()
    }

    proptest! {
        /// It gives the right bytes or none, and holds no more than it may, whatever comes.
        #[test]
        fn right_and_bounded(steps in prop::collection::vec((0..12_u64, 0..3_u32, 1..5_usize, any::<bool>()), 1..200)) {
            const MAX: usize = 8 * PIECE_MIN;
            let repeated = Repeated::new(MAX);
            let now = Instant::now();
            for (n, at, units, ask) in steps {
                let (offset, len) = (at * PIECE_MIN as u32, units * PIECE_MIN);
                if ask {
                    if let Some(bytes) = repeated.get(id(n), offset, len, now) {
                        prop_assert_eq!(bytes.len(), len);
                        prop_assert!(bytes.iter().all(|b| u64::from(*b) == n));
                    }
                } else {
                    repeated.keep(id(n), offset, &piece(n, len), len + 100, now);
                }
                let pieces = lock(&repeated.pieces);
                prop_assert!(pieces.held <= MAX);
                prop_assert_eq!(pieces.held, pieces.by_key.values().map(|p| p.held).sum::<usize>());
                prop_assert_eq!(pieces.clock.len(), pieces.by_key.len());
            }
        }
    }

    #[test]
    fn what_is_asked_for_outlives_what_is_not() {
        let (repeated, now) = (Repeated::new(4 * PIECE_MIN), Instant::now());
        repeated.keep(id(0), 0, &piece(0, PIECE_MIN), PIECE_MIN, now);
        for n in 1..50 {
            repeated.keep(id(n), 0, &piece(n, PIECE_MIN), PIECE_MIN, now);
            assert!(repeated.get(id(0), 0, PIECE_MIN, now).is_some(), "{n}");
        }
        assert!(repeated.get(id(1), 0, PIECE_MIN, now).is_none());
    }

    #[test]
    fn what_is_not_used_goes() {
        let (repeated, start) = (Repeated::new(8 * PIECE_MIN), Instant::now());
        let after = |seconds| start + Duration::from_secs(seconds);
        repeated.keep(id(1), 0, &piece(1, PIECE_MIN), PIECE_MIN, start);
        repeated.keep(id(2), 0, &piece(2, PIECE_MIN), PIECE_MIN, start);
        assert!(repeated.get(id(2), 0, PIECE_MIN, after(50)).is_some());
        repeated.forget(Duration::from_secs(60), after(70));
        assert!(repeated.get(id(1), 0, PIECE_MIN, after(70)).is_none());
        assert!(repeated.get(id(2), 0, PIECE_MIN, after(70)).is_some());
        repeated.forget(Duration::from_secs(60), after(200));
        assert_eq!(repeated.status().bytes, 0);
    }

    #[test]
    fn without_room_it_keeps_nothing() {
        let (repeated, now) = (Repeated::new(0), Instant::now());
        repeated.keep(id(1), 0, &piece(1, PIECE_MIN), PIECE_MIN, now);
        assert!(repeated.get(id(1), 0, PIECE_MIN, now).is_none());
        assert_eq!(repeated.status(), RepeatedStatus::default());
    }
}
