//! Pure lock tables: byte ranges, share reservations, blocked requests.
//!
//! The state of one file's locks is one value, [`FileLocks`]. The replicated state machine loads it, changes it
//! by one call per command, and stores it again (or deletes it when [`FileLocks::is_empty`]). There is no clock,
//! no randomness, no hashing and no I/O: the same calls on the same value give the same value, the same outcome
//! and the same [`Effect`]s on every member. Effects are things for the world outside (a callback to send); every
//! member computes them, only the leader acts on them.
//!
//! NLM (RFC 1813 appendix II) and NFSv4 (RFC 7530 §9, RFC 8881 §9) locks share the table, so a lock taken through
//! one protocol is seen by the other.
//!
//! # Where things are
//!
//! - [`ByteRange`]: offsets and lengths of both protocols as one inclusive range;
//! - [`LockOwner`], [`LockClient`]: who holds;
//! - [`FileLocks`]: the table; its documentation states the rules of granting, fairness and callbacks;
//! - [`ShareTable`]: share reservations (DOS share modes), and how many opens of NFSv4 have and deny what;
//! - [`limits`]: every bound.
//!
//! # Delegations: how they will fit
//!
//! A delegation (RFC 8881 §10.2) is state of one file and one client, and conflicts with opens, locks and data
//! access of others, so it belongs into this same value: a further field `delegations: BTreeMap<LockClient,
//! Delegation { kind: Read | Write, phase: Held | Recalling { recall: GrantId } }>` beside the shares. A conflicting
//! `lock`/`share` then has a further outcome `Recall` (answered NFS4ERR_DELAY, or queued for NLM by the existing
//! wait queue), emits one `Effect::Recall` per delegation exactly as a grant emits [`Effect::Granted`], stays in the
//! state until returned or revoked exactly as a pending grant stays until it is acknowledged, and a return runs
//! the same queue scan as an unlock. Timing (how long a recall may take) stays with the leader, as it does for
//! grants. A byte-range lock needs no recall under advisory locking except of another client's write delegation,
//! whose holder may have locks it never told the server about (RFC 7530 §16.10.5). Records carry no version here;
//! the state machine's record format does, and a new field is a new version of it.

mod byte_ranges;
mod file;
pub mod limits;
mod owner;
mod owner_locks;
mod range;
mod release;
mod request;
mod shares;
mod waiters;

pub use byte_ranges::{LockMode, Segment};
pub use file::FileLocks;
pub use owner::{Callback, ClientMatch, LockClient, LockOwner, NlmClient, OwnerError};
pub use owner_locks::GrantId;
pub use range::{ByteRange, RangeError};
pub use release::Released;
pub use request::{
    Bound, CancelOutcome, Conflict, Effect, GrantOutcome, HeldLock, LockError, LockOutcome, LockRequest, Wait,
};
pub use shares::{OpenCounts, Share, ShareBits, ShareConflict, ShareError, ShareTable};
pub use waiters::Waiter;
