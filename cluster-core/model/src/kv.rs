//! The ordered key-value store that the state lives in, as the state machine sees it.
//!
//! The state machine never does I/O of its own: in production a batch of log entries goes into a layer in memory
//! over a file, in tests a map in memory. An error of the store is not an answer to a client: the member stops, but for bytes of files
//! ([`crate::extents`]).

use bytes::Bytes;
use std::collections::BTreeMap;
use std::ops::{Bound, ControlFlow};

/// A failure of the store below.
#[derive(Clone, Debug, thiserror::Error)]
pub enum KvError {
    /// It may pass, or others may know better: the member that meets it while it applies a command cannot go on.
    #[error("metadata store: {0}")]
    Failed(String),
    /// A value was read, and it is not what was stored: its checksum says so.
    #[error("metadata store: {0}")]
    Damaged(String),
}

impl KvError {
    /// Without what says that it comes from the store.
    pub fn what(&self) -> &str {
        match self {
            KvError::Failed(what) | KvError::Damaged(what) => what,
        }
    }

    /// The same of something.
    pub(crate) fn of(self, whose: impl std::fmt::Display) -> Self {
        match self {
            KvError::Failed(what) => KvError::Failed(format!("{whose}: {what}")),
            KvError::Damaged(what) => KvError::Damaged(format!("{whose}: {what}")),
        }
    }
}

/// The tables; [`crate::keys`] describes keys and values. Part of the format: append, never reorder.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum Table {
    /// Singletons: counters, clock, loss epoch.
    Meta,
    /// Inodes.
    Inode,
    /// Directory entries by name.
    Dirent,
    /// Directory entries by cookie.
    DirCookie,
    /// Extents of files.
    Extent,
    /// Symbolic link targets.
    Symlink,
    /// Extended attributes.
    Xattr,
    /// Reference counts of blocks.
    Block,
    /// Blocks that nothing references, waiting for the collector.
    Garbage,
    /// Removed inodes and cut-off tails whose extents are still to be released.
    Orphan,
    /// Write leases.
    Dirty,
    /// Stored responses in order of age.
    Outcome,
    /// Lock tables of files.
    Lock,
    /// Files in which a client holds something.
    LockClient,
    /// Granted waiters whose clients have not been told.
    PendingGrant,
    /// NSM state numbers of lock clients.
    NsmState,
    /// Exports.
    Export,
    /// Volumes.
    Volume,
    /// Frontends and their epochs.
    Frontend,
    /// Lock clients whose release is not finished.
    LockRelease,
    /// Files worth repacking.
    Repack,
    /// NFSv4 clients.
    Client4,
    /// How much each of them has.
    ClientCounts,
    /// NFSv4 clients by their names for themselves.
    ClientName,
    /// Those that are not confirmed, in order of age.
    Unconfirmed,
    /// Clients that are gone, and what they had is not all freed yet.
    ClientRelease,
    /// Clients whose lease ran out lately.
    ExpiredClient,
    /// Sessions.
    Session,
    /// Sessions by client.
    ClientSession,
    /// Outcomes of the last requests on the slots of sessions.
    Slot,
    /// Opens, lock states and delegations.
    State,
    /// The same by file, but revoked delegations.
    FileState,
    /// The same by client.
    ClientState,
    /// The same by owner and file.
    OwnerState,
    /// Lock states by the open that they were made under.
    OpenLocks,
    /// NFSv4.0 open owners and lock owners, with their sequences.
    Owner,
    /// Open owners that have nothing open, in order of age.
    IdleOwner,
    /// Opens whose CLOSE was the last step of an owner.
    ClosedState,
    /// Bytes of inline extents, but for the first.
    Inline,
    /// Access control lists of inodes whose rights are not their mode.
    Acl,
    /// Delegations in force, by file.
    FileDelegation,
    /// Delegations in force whose holders are to return them.
    Recalled,
    /// Hashes of the keys of stored outcomes.
    OutcomeTag,
    /// Security labels.
    Label,
    /// Directory delegations whose holders are told of changes.
    Watch,
    /// Changes that they are to be told of.
    Notice,
    /// Copies that go on behind their COPY, or ended and their clients are to hear of it.
    Offload,
    /// The same by file: source and target.
    FileOffload,
    /// The same by client.
    ClientOffload,
}

impl Table {
    /// All of them, in order.
    pub const ALL: [Table; 49] = [
        Table::Meta,
        Table::Inode,
        Table::Dirent,
        Table::DirCookie,
        Table::Extent,
        Table::Symlink,
        Table::Xattr,
        Table::Block,
        Table::Garbage,
        Table::Orphan,
        Table::Dirty,
        Table::Outcome,
        Table::Lock,
        Table::LockClient,
        Table::PendingGrant,
        Table::NsmState,
        Table::Export,
        Table::Volume,
        Table::Frontend,
        Table::LockRelease,
        Table::Repack,
        Table::Client4,
        Table::ClientCounts,
        Table::ClientName,
        Table::Unconfirmed,
        Table::ClientRelease,
        Table::ExpiredClient,
        Table::Session,
        Table::ClientSession,
        Table::Slot,
        Table::State,
        Table::FileState,
        Table::ClientState,
        Table::OwnerState,
        Table::OpenLocks,
        Table::Owner,
        Table::IdleOwner,
        Table::ClosedState,
        Table::Inline,
        Table::Acl,
        Table::FileDelegation,
        Table::Recalled,
        Table::OutcomeTag,
        Table::Label,
        Table::Watch,
        Table::Notice,
        Table::Offload,
        Table::FileOffload,
        Table::ClientOffload,
    ];

    /// The table's name in the store.
    pub const fn name(self) -> &'static str {
        match self {
            Table::Meta => "meta",
            Table::Inode => "inode",
            Table::Dirent => "dirent",
            Table::DirCookie => "dircookie",
            Table::Extent => "extent",
            Table::Symlink => "symlink",
            Table::Xattr => "xattr",
            Table::Block => "block",
            Table::Garbage => "garbage",
            Table::Orphan => "orphan",
            Table::Dirty => "dirty",
            Table::Outcome => "outcome",
            Table::Lock => "lock",
            Table::LockClient => "lock_client",
            Table::PendingGrant => "pending_grant",
            Table::NsmState => "nsm_state",
            Table::Export => "export",
            Table::Volume => "volume",
            Table::Frontend => "frontend",
            Table::LockRelease => "lock_release",
            Table::Repack => "repack",
            Table::Client4 => "client4",
            Table::ClientCounts => "client_counts",
            Table::ClientName => "client_name",
            Table::Unconfirmed => "client_unconfirmed",
            Table::ClientRelease => "client_release",
            Table::ExpiredClient => "client_expired",
            Table::Session => "session",
            Table::ClientSession => "client_session",
            Table::Slot => "slot",
            Table::State => "state",
            Table::FileState => "file_state",
            Table::ClientState => "client_state",
            Table::OwnerState => "owner_state",
            Table::OpenLocks => "open_locks",
            Table::Owner => "owner",
            Table::IdleOwner => "owner_idle",
            Table::ClosedState => "state_closed",
            Table::Inline => "inline",
            Table::Acl => "acl",
            Table::FileDelegation => "file_delegation",
            Table::Recalled => "delegation_recalled",
            Table::OutcomeTag => "outcome_tag",
            Table::Label => "label",
            Table::Watch => "delegation_watch",
            Table::Notice => "delegation_notice",
            Table::Offload => "offload",
            Table::FileOffload => "offload_file",
            Table::ClientOffload => "offload_client",
        }
    }
}

/// Reading, of one consistent state.
pub trait KvRead {
    /// Calls `f` with the value of `key`.
    fn get<R>(&self, table: Table, key: &[u8], f: impl FnOnce(Option<&[u8]>) -> R) -> Result<R, KvError>;

    /// Length of the value of `key`, also of one that is damaged: the row tells it.
    fn value_len(&self, table: Table, key: &[u8]) -> Result<Option<usize>, KvError> {
        self.get(table, key, |value| value.map(<[u8]>::len))
    }

    /// Calls `f` with each pair between the bounds, in order of keys, or in reverse if `back`, until it breaks.
    fn walk(
        &self,
        table: Table,
        bounds: (Bound<&[u8]>, Bound<&[u8]>),
        back: bool,
        f: impl FnMut(&[u8], &[u8]) -> ControlFlow<()>,
    ) -> Result<(), KvError>;

    /// Calls `f` with each key between the bounds, in order, until it breaks. A value that cannot be read does not matter.
    fn keys(
        &self,
        table: Table,
        from: Bound<&[u8]>,
        to: Bound<&[u8]>,
        mut f: impl FnMut(&[u8]) -> ControlFlow<()>,
    ) -> Result<(), KvError> {
        self.walk(table, (from, to), false, |key, _| f(key))
    }

    /// [`KvRead::walk`] in order of keys.
    fn scan(
        &self,
        table: Table,
        from: Bound<&[u8]>,
        to: Bound<&[u8]>,
        f: impl FnMut(&[u8], &[u8]) -> ControlFlow<()>,
    ) -> Result<(), KvError> {
        self.walk(table, (from, to), false, f)
    }

    /// [`KvRead::walk`] in reverse order of keys.
    fn scan_back(
        &self,
        table: Table,
        from: Bound<&[u8]>,
        to: Bound<&[u8]>,
        f: impl FnMut(&[u8], &[u8]) -> ControlFlow<()>,
    ) -> Result<(), KvError> {
        self.walk(table, (from, to), true, f)
    }
}

/// Writing. A later read through the same value sees it.
pub trait KvWrite: KvRead {
    /// Sets a value.
    fn put(&mut self, table: Table, key: &[u8], value: &[u8]) -> Result<(), KvError>;

    /// Sets the value of a key that is not there: if it is deleted soon, nothing of it need remain.
    fn put_new(&mut self, table: Table, key: &[u8], value: &[u8]) -> Result<(), KvError> {
        self.put(table, key, value)
    }

    /// Sets a value that may be kept as it is, with the memory it is in.
    fn put_shared(&mut self, table: Table, key: &[u8], value: Bytes) -> Result<(), KvError> {
        self.put(table, key, &value)
    }

    /// Removes a key, if it is there.
    fn delete(&mut self, table: Table, key: &[u8]) -> Result<(), KvError>;
}

/// A store in memory, for tests and tools.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct MemKv {
    tables: BTreeMap<Table, BTreeMap<Vec<u8>, Vec<u8>>>,
}

impl MemKv {
    fn range<'a>(
        &'a self,
        table: Table,
        from: Bound<&'a [u8]>,
        to: Bound<&'a [u8]>,
    ) -> impl DoubleEndedIterator<Item = (&'a Vec<u8>, &'a Vec<u8>)> {
        self.tables.get(&table).into_iter().flat_map(move |t| t.range::<[u8], _>((from, to)))
    }
}

impl KvRead for MemKv {
    fn get<R>(&self, table: Table, key: &[u8], f: impl FnOnce(Option<&[u8]>) -> R) -> Result<R, KvError> {
        Ok(f(self.tables.get(&table).and_then(|t| t.get(key)).map(Vec::as_slice)))
    }

    fn walk(
        &self,
        table: Table,
        (from, to): (Bound<&[u8]>, Bound<&[u8]>),
        back: bool,
        mut f: impl FnMut(&[u8], &[u8]) -> ControlFlow<()>,
    ) -> Result<(), KvError> {
        let mut pairs = self.range(table, from, to);
        while let Some((key, value)) = if back { pairs.next_back() } else { pairs.next() } {
            if f(key, value).is_break() {
                break;
            }
        }
        Ok(())
    }
}

impl KvWrite for MemKv {
    fn put(&mut self, table: Table, key: &[u8], value: &[u8]) -> Result<(), KvError> {
        self.tables.entry(table).or_default().insert(key.to_vec(), value.to_vec());
        Ok(())
    }

    fn put_new(&mut self, table: Table, key: &[u8], value: &[u8]) -> Result<(), KvError> {
        let former = self.tables.entry(table).or_default().insert(key.to_vec(), value.to_vec());
        debug_assert!(
            former.is_none(),
            "a new key of table {} is there: {}",
            table.name(),
            key.escape_ascii()
        );
        Ok(())
    }

    fn delete(&mut self, table: Table, key: &[u8]) -> Result<(), KvError> {
        if let Some(t) = self.tables.get_mut(&table) {
            t.remove(key);
        }
        Ok(())
    }
}
