//! What one slot of a log entry's batch holds: a call and the time that the leader gave it.

use atoll_base::time::Timestamp;
use atoll_meta::Call;
use serde::{Deserialize, Serialize};

/// A call with the leader's stamp.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Command {
    /// Time of the proposal by the leader's clock. The state machine uses the later of this and its own last time, so time never goes back.
    pub stamp: Timestamp,
    /// The call.
    pub call: Call,
}
