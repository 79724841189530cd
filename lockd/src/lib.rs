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
//! # Delegations
//!
//! They are not in this value. Whether an NFSv4 client may be given one depends on what is here ([`ShareTable::opens`] and reservations,
//! [`FileLocks::holders`], [`FileLocks::waiters`]), but who has one is a row of the state machine, as opens are: a file read by many has many, and each would
//! rewrite this table. What a delegation forbids is asked before this table is: a lock or reservation of NLM that one is in the way of never comes here until it has been
//! returned. An OPEN brings its reservation with it, and locks need an open, so NFSv4's LOCK need not ask again.

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
