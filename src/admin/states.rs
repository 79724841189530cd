//! Clients, opens, locks, delegations and copies, as they travel to `atoll client list`, `atoll open list`, `atoll lock list`, `atoll delegation list` and `atoll copy list`.
//!
//! Ages are whole seconds by the clock of the commands: since the OPEN that made the state, the first LOCK of the oldest byte of a range, the beginning of
//! the wait, the giving of the delegation, the COPY.

use serde::{Deserialize, Serialize};

/// Most rows of one answer.
pub(crate) const ROWS_MAX: usize = 10_000;

/// Rows of one answer if the caller does not say.
pub(crate) const ROWS: usize = 1000;

/// How much of a listing, and from where.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Range {
    /// Most rows; at most [`ROWS_MAX`].
    pub(crate) limit: Option<usize>,
    /// [`Listing::next`] of the answer before.
    pub(crate) after: Option<String>,
}

/// Part of a listing.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Listing<T> {
    pub(crate) rows: Vec<T>,
    /// How many come after these.
    pub(crate) more: u64,
    /// Whether there are even more than that, which nobody has counted.
    pub(crate) more_uncounted: bool,
    /// Where to go on; `None` if these were the last.
    pub(crate) next: Option<String>,
}

/// What is known of the time of an NFSv4 client. Whole seconds.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Lease {
    /// How long ago it was heard; `None`: not since the server started.
    pub(crate) heard_seconds_ago: Option<u64>,
    /// How long its lease goes on without a word from it; below zero: for how long it has lapsed.
    pub(crate) left_seconds: i64,
}

/// An NFSv4 client, or one of NLM that has locks or share reservations.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Client {
    /// For `atoll client evict`: the client id, hexadecimal; of NLM `nlm:NAME`, or `nlm:NAME@ADDRESS`.
    pub(crate) id: String,
    /// `4.0`, `4.1` for all later ones, `nlm`.
    pub(crate) protocol: String,
    /// Its name for itself, bytes that are not text escaped.
    pub(crate) name: String,
    /// Where it called from when it set itself up.
    pub(crate) address: Option<String>,
    /// Its implementation's name, if it said one.
    pub(crate) implementation: String,
    /// Who set it up; nobody of NLM.
    pub(crate) principal: String,
    pub(crate) confirmed: bool,
    pub(crate) sessions: u64,
    /// Opens, lock states and delegations; of NLM the files that it has something in.
    pub(crate) states: u64,
    /// Of NFSv4.
    pub(crate) lease: Option<Lease>,
}

/// Whose an open or a lock is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Holder {
    /// `4.0`, `4.1` for all later ones, `nlm`.
    pub(crate) protocol: String,
    /// Of NFSv4.
    pub(crate) client: Option<String>,
    /// The client's name for itself.
    pub(crate) name: String,
    pub(crate) address: Option<String>,
    /// Of NFSv4.
    pub(crate) lease: Option<Lease>,
    /// Which process of the client, as the client says it: opaque bytes, escaped. Of NLM `svid/oh`.
    pub(crate) owner: String,
}

/// A file.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct File {
    pub(crate) inode: u64,
    /// Name of its volume; `None` if the file is gone.
    pub(crate) volume: Option<String>,
    /// One of its paths within the volume; `None` if it has none, or the search for it was given up.
    pub(crate) path: Option<String>,
}

/// An open of NFSv4, or a share reservation of NLM.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Open {
    /// Of NFSv4: the state's number.
    pub(crate) state: Option<u64>,
    #[serde(flatten)]
    pub(crate) holder: Holder,
    pub(crate) file: File,
    /// `none`, `read`, `write` or `both`.
    pub(crate) access: String,
    pub(crate) deny: String,
    /// Whether a v4.0 owner has confirmed it; always elsewhere.
    pub(crate) confirmed: bool,
    /// How long ago it was made.
    pub(crate) age_seconds: u64,
}

/// A byte range that is locked, or that somebody waits for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Lock {
    #[serde(flatten)]
    pub(crate) holder: Holder,
    pub(crate) file: File,
    /// First byte.
    pub(crate) first: u64,
    /// Last byte; `None`: to the end of the file, wherever that is.
    pub(crate) last: Option<u64>,
    pub(crate) exclusive: bool,
    /// Whether it waits for the range and does not have it.
    pub(crate) waits: bool,
    /// For how long.
    pub(crate) age_seconds: u64,
}

/// A delegation of NFSv4.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Delegation {
    /// The state's number.
    pub(crate) state: u64,
    #[serde(flatten)]
    pub(crate) holder: Holder,
    pub(crate) file: File,
    /// `read`, `write` or `directory`.
    pub(crate) kind: String,
    /// `held`, `recalled` (the holder is to return it) or `revoked` (it did not; nobody is kept from anything by it).
    pub(crate) phase: String,
    /// Whether the holder keeps the file's times.
    pub(crate) timestamps: bool,
    /// How long ago it was given.
    pub(crate) age_seconds: u64,
}

/// A COPY of NFSv4.2 that goes on in the background, or whose end its client has not heard.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Copy {
    /// Its number.
    pub(crate) state: u64,
    #[serde(flatten)]
    pub(crate) holder: Holder,
    pub(crate) from: File,
    pub(crate) to: File,
    /// Bytes that are copied.
    pub(crate) copied: u64,
    /// Bytes that were to be copied.
    pub(crate) of: u64,
    /// `in work`, `done`, or why it ended early.
    pub(crate) phase: String,
    /// How long ago it was begun.
    pub(crate) age_seconds: u64,
}

/// What an evicted client had.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Evicted {
    pub(crate) sessions: u64,
    pub(crate) opens: u64,
    pub(crate) lock_states: u64,
    pub(crate) delegations: u64,
    /// Of NLM: files in which it had locks or share reservations.
    pub(crate) files: u64,
}
