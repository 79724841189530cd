//! Snapshots on their way to another member: a view as a stream of checked frames, and a new state built from one.
//!
//! A frame is `length: u32, crc32c: u32, kind: u8, body`, little-endian; length counts kind and body, the checksum
//! covers them. Frames in order: one [`Kind::Head`] (version, place in the log, membership), any number of
//! [`Kind::Pairs`] (`key length: u32, value length: u32, key, value`, in order of keys), one [`Kind::End`] (number of
//! pairs). Neither side holds more than one frame in memory.

use super::base::{Place, RAFT_PREFIX, Rows};
use super::error::StateError;
use super::front::View;
use super::store::{Incoming, StateStore};
use crate::raft::types::SnapshotMeta;
use atoll_base::checksum;
use atoll_model::kv::{KvRead, Table};
use bytes::Bytes;
use redb::Durability;
use std::ops::{Bound, ControlFlow};
use std::sync::Arc;

/// Version of the format.
const VERSION: u32 = 1;
/// A frame is closed when its body has reached this many bytes; a value is at most some 256 KiB, so frames stay below [`FRAME_MAX`].
const FRAME_TARGET: usize = 1 << 20;
/// Longest frame that is accepted.
const FRAME_MAX: usize = 16 << 20;
/// Bytes before the kind: length and checksum.
const PREFIX: usize = 8;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
enum Kind {
    Head = 1,
    Pairs = 2,
    End = 3,
}

/// What openraft passes around as a snapshot.
pub enum SnapshotData {
    /// A state of this member, to be sent.
    View(Arc<View>),
    /// A whole state received from another member, durable, not yet in place.
    Received(Received),
}

/// A view as frames. Each call of `next` reads one frame's worth; the view stays alive until the stream is dropped.
pub struct Frames {
    view: Arc<View>,
    at: Position,
    pairs: u64,
}

enum Position {
    Head,
    /// In these tables, in the first of them behind this key.
    Pairs(&'static [Table], Option<Vec<u8>>),
    Done,
}

impl Frames {
    /// Starts at the beginning.
    pub fn new(view: Arc<View>) -> Self {
        Self { view, at: Position::Head, pairs: 0 }
    }

    fn frame(&mut self) -> Result<Option<Bytes>, StateError> {
        match std::mem::replace(&mut self.at, Position::Done) {
            Position::Head => {
                self.at = Position::Pairs(&Table::ALL, None);
                let mut body = VERSION.to_le_bytes().to_vec();
                let meta = postcard::to_stdvec(&self.view.meta())
                    .map_err(|e| StateError::Damaged(format!("membership: {e}")))?;
                body.extend_from_slice(&meta);
                Ok(Some(seal(Kind::Head, body)))
            }
            Position::Pairs(tables, last) => {
                let mut body = Vec::with_capacity(FRAME_TARGET + (64 << 10));
                self.at = self.fill(tables, last, &mut body)?;
                if body.is_empty() {
                    self.at = Position::Done;
                    return Ok(Some(seal(Kind::End, self.pairs.to_le_bytes().to_vec())));
                }
                Ok(Some(seal(Kind::Pairs, body)))
            }
            Position::Done => Ok(None),
        }
    }

    /// Appends pairs of the tables, those of the first behind `last`. Returns where to go on.
    fn fill(
        &mut self,
        mut tables: &'static [Table],
        mut last: Option<Vec<u8>>,
        body: &mut Vec<u8>,
    ) -> Result<Position, StateError> {
        while let Some((&table, others)) = tables.split_first() {
            let from = last.as_deref().map_or(Bound::Unbounded, Bound::Excluded);
            let mut end = None;
            self.view.reader().scan(table, from, Bound::Unbounded, |key, value| {
                body.extend_from_slice(&(key.len() as u32 + 1).to_le_bytes());
                body.extend_from_slice(&(value.len() as u32).to_le_bytes());
                body.push(table as u8);
                body.extend_from_slice(key);
                body.extend_from_slice(value);
                self.pairs += 1;
                if body.len() < FRAME_TARGET {
                    return ControlFlow::Continue(());
                }
                end = Some(key.to_vec());
                ControlFlow::Break(())
            })?;
            if end.is_some() {
                return Ok(Position::Pairs(tables, end));
            }
            (tables, last) = (others, None);
        }
        Ok(Position::Pairs(&[], None))
    }
}

impl Iterator for Frames {
    type Item = Result<Bytes, StateError>;

    fn next(&mut self) -> Option<Self::Item> {
        self.frame().transpose()
    }
}

fn seal(kind: Kind, body: Vec<u8>) -> Bytes {
    let mut frame = Vec::with_capacity(PREFIX + 1 + body.len());
    frame.extend_from_slice(&(body.len() as u32 + 1).to_le_bytes());
    frame.extend_from_slice(&[0; 4]);
    frame.push(kind as u8);
    frame.extend_from_slice(&body);
    let sum = checksum::crc32c(&frame[PREFIX..]);
    frame[4..PREFIX].copy_from_slice(&sum.to_le_bytes());
    frame.into()
}

/// Kind and body of a frame.
fn unseal(frame: &[u8]) -> Result<(Kind, &[u8]), StateError> {
    let bad = |what: &str| StateError::Damaged(format!("snapshot frame: {what}"));
    if frame.len() <= PREFIX || frame.len() > FRAME_MAX {
        return Err(bad("impossible length"));
    }
    let (prefix, rest) = frame.split_at(PREFIX);
    if u32_at(prefix, 0) as usize != rest.len() {
        return Err(bad("length does not fit"));
    }
    if u32_at(prefix, 4) != checksum::crc32c(rest) {
        return Err(bad("checksum does not match"));
    }
    let kind = match rest[0] {
        1 => Kind::Head,
        2 => Kind::Pairs,
        3 => Kind::End,
        _ => return Err(bad("unknown kind")),
    };
    Ok((kind, &rest[1..]))
}

/// Little-endian number at `at`; the caller has checked the length.
fn u32_at(bytes: &[u8], at: usize) -> u32 {
    let mut number = [0; 4];
    number.copy_from_slice(&bytes[at..at + 4]);
    u32::from_le_bytes(number)
}

/// Builds a new state beside the present one from frames.
pub struct Receiver {
    incoming: Incoming,
    meta: Option<SnapshotMeta>,
    pairs: u64,
}

/// A whole received state.
pub struct Received {
    incoming: Incoming,
    meta: SnapshotMeta,
}

impl Received {
    /// Which state it is.
    pub fn meta(&self) -> &SnapshotMeta {
        &self.meta
    }
}

impl Receiver {
    /// Starts.
    pub fn new(store: &StateStore) -> Result<Self, StateError> {
        Ok(Self { incoming: store.create_incoming()?, meta: None, pairs: 0 })
    }

    /// Takes the next frame. Returns whether it was the last one.
    pub fn frame(&mut self, frame: &[u8]) -> Result<bool, StateError> {
        let bad = |what: &str| StateError::Damaged(format!("snapshot: {what}"));
        let (kind, body) = unseal(frame)?;
        match (kind, &self.meta) {
            (Kind::Head, None) => {
                if body.len() < 4 || u32_at(body, 0) != VERSION {
                    return Err(bad("unknown version"));
                }
                let meta = postcard::from_bytes(&body[4..]).map_err(|_| bad("unreadable head"))?;
                self.meta = Some(meta);
                Ok(false)
            }
            (Kind::Pairs, Some(_)) => {
                self.pairs += self.incoming.write(Durability::None, |rows| insert_pairs(rows, body))?;
                Ok(false)
            }
            (Kind::End, Some(_)) => {
                if body != self.pairs.to_le_bytes() {
                    return Err(bad("wrong number of pairs"));
                }
                Ok(true)
            }
            _ => Err(bad("frame out of order")),
        }
    }

    /// Makes the state durable, after the last frame.
    pub fn finish(self) -> Result<Received, StateError> {
        let meta = self.meta.ok_or_else(|| StateError::Damaged("snapshot without head".into()))?;
        let place = Place { applied: meta.last_log_id, membership: Arc::new(meta.last_membership.clone()) };
        self.incoming.write(Durability::Immediate, |rows| rows.set_place(&place))?;
        Ok(Received { incoming: self.incoming, meta })
    }
}

impl StateStore {
    /// Puts a snapshot in the place of the present state, atomically and durably.
    pub fn install(&self, snapshot: SnapshotData) -> Result<SnapshotMeta, StateError> {
        let received = match snapshot {
            SnapshotData::Received(received) => received,
            SnapshotData::View(view) => {
                let mut receiver = Receiver::new(self)?;
                for frame in Frames::new(view) {
                    receiver.frame(&frame?)?;
                }
                receiver.finish()?
            }
        };
        self.replace(received.incoming)?;
        Ok(received.meta)
    }
}

fn insert_pairs(rows: &mut Rows<'_>, mut body: &[u8]) -> Result<u64, StateError> {
    let bad = || StateError::Damaged("snapshot: a pair does not end within its frame".into());
    let mut pairs = 0;
    while !body.is_empty() {
        if body.len() < 8 {
            return Err(bad());
        }
        let (key_len, value_len) = (u32_at(body, 0) as usize, u32_at(body, 4) as usize);
        let rest = &body[8..];
        let end = key_len.checked_add(value_len).filter(|&end| end <= rest.len()).ok_or_else(bad)?;
        let key = &rest[..key_len];
        if key.first().is_none_or(|&table| table == RAFT_PREFIX) {
            return Err(StateError::Damaged("snapshot: foreign key".into()));
        }
        rows.put(key, &rest[key_len..end])?;
        body = &rest[end..];
        pairs += 1;
    }
    Ok(pairs)
}
