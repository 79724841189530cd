//! What one slot of a log entry's batch holds: a call and the time that the leader gave it; and what goes back.

use crate::codec::{self, DecodeError};
use atoll_base::time::Timestamp;
use atoll_meta::{Call, Once, Op, Piece, Response, Source, shared};
use bytes::Bytes;
use serde::{Deserialize, Serialize};

/// A call with the leader's stamp.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Command {
    /// Time of the proposal by the leader's clock. The state machine uses the later of this and its own last
    /// time, so time never goes back.
    pub stamp: Timestamp,
    /// The call.
    pub call: Call,
}

impl Command {
    /// The bytes that the log keeps.
    pub fn encode(&self) -> Bytes {
        Self::encode_call(self.stamp, &self.call)
    }

    /// The same of a call that stays where it is.
    pub fn encode_call(stamp: Timestamp, call: &Call) -> Bytes {
        /// A [`Command`] that is stored.
        #[derive(Serialize)]
        struct Stored<'a> {
            stamp: Timestamp,
            call: &'a Call,
        }
        // Stamp, credential, key and names are rarely more than that.
        const AROUND: usize = 256;
        let data: usize = match &call.op {
            Op::Write { pieces, .. } => pieces.iter().map(piece_bytes).sum(),
            _ => 0,
        };
        let before = match &call.once {
            Some(Once::Slot(slot)) => slot.before.len(),
            _ => 0,
        };
        codec::encode_sized(&Stored { stamp, call }, AROUND + data + before).into()
    }

    /// From the bytes that the log kept; larger data stay slices of them.
    pub fn decode(bytes: &Bytes) -> Result<Self, DecodeError> {
        shared::within(bytes, || codec::decode(bytes))
    }
}

/// About what a piece takes.
fn piece_bytes(piece: &Piece) -> usize {
    match &piece.source {
        Source::Inline(data) => 32 + data.len(),
        Source::Block { .. } => 48,
    }
}

/// The bytes of a response, as stored outcomes and messages between members hold it.
pub fn encode_response(response: &Response) -> Bytes {
    codec::encode(response).into()
}

/// From the bytes of [`encode_response`].
pub fn decode_response(bytes: &[u8]) -> Result<Response, DecodeError> {
    codec::decode(bytes)
}
