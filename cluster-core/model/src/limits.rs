//! What bounds the work of one command and the size of each table. In the crate's own tests they are small, so that
//! random short histories reach them.

use std::time::Duration;

macro_rules! limits {
    ($($(#[$doc:meta])* $name:ident: $type:ty = $product:expr, $test:expr;)*) => {
        $($(#[$doc])* pub const $name: $type = if cfg!(test) { $test } else { $product };)*
    };
}

limits! {
    /// Most pieces of one Write or Repack; each costs a few look-ups and stores. A flush of more is sent in parts.
    PIECES_MAX: usize = 4096, 64;

    /// Most outcomes that one flush brings along.
    COVERED_MAX: usize = 4096, 64;

    /// Stored extents that one Write replaces at once. Where more give way, a cut hides them and Sweep removes them.
    WRITE_ROWS_MAX: usize = 8192, 6;

    /// Stored extents, dead ones included, that one Clone looks at. In files of 1 MiB blocks these are 8 GiB, repacked 32 GiB.
    CLONE_ROWS_MAX: usize = 8192, 5;

    /// Inline bytes that one Clone copies: with files that have more for long, repacking is behind.
    CLONE_INLINE_MAX: u64 = 8 << 20, 64;

    /// Stored extents that a truncation or the removal of a file releases at once; more are left to Sweep.
    RELEASE_ROWS_MAX: usize = 1024, 4;

    /// Stored extents, or files with locks to free, that one Sweep looks at.
    SWEEP_ROWS: usize = 2048, 3;

    /// Cuts of one file that wait for Sweep; a write or truncation that would need one more is told to come again.
    /// They are part of the inode's record, and every read of extents compares with each.
    CUTS_MAX: usize = 16, 2;

    /// Longest inline extent: the most that one command can bring anyway; splits of larger merges keep rows below this.
    INLINE_EXTENT_MAX: u32 = 64 << 10, 8 << 10;

    /// Bytes of an inline extent that are in its own row. Without these, 4 KiB and what the store adds fit into one of its pages of
    /// 4 KiB; with them they would take two.
    INLINE_HEAD: usize = 64, 4;

    /// Touching inline extents are merged within one page of this alignment: what page caches write.
    PAGE: u64 = 4096, 16;

    /// Most blocks in one Collected.
    COLLECTED_MAX: usize = 16384, 64;

    /// Most inodes in one Touch.
    TOUCH_MAX: usize = 4096, 64;

    /// Write leases of one frontend. When it registers anew, all end within one command.
    LEASES_MAX: u32 = 16384, 6;

    /// How many change values a write lease reserves.
    LEASE_CHANGES: u64 = 1 << 20, 8;

    /// For how long ahead a write lease reserves change times, in nanoseconds.
    LEASE_NANOS: i64 = 60_000_000_000, 1000;

    /// Least time for which an outcome is kept for replay (unless there are [`OUTCOMES_MAX`]).
    OUTCOME_KEEP: Duration = Duration::from_secs(600), Duration::from_nanos(2000);

    /// Most outcomes kept; the oldest go earlier then. About 1 GB in the store, and up to 80 MB in memory.
    OUTCOMES_MAX: u64 = 4 << 20, 40;

    /// Outcomes in one row.
    OUTCOME_ROW: usize = 64, 3;

    /// Bytes from which a row of outcomes is full: with one more it still fits into one page of the store.
    OUTCOME_ROW_BYTES: usize = 3500, 3500;

    /// Hashes of outcomes' keys in one row: what fits into one page of the store. Part of the format.
    OUTCOME_TAGS: usize = 960, 4;

    /// Rows of expired outcomes removed by each command that begins one: more than one, so the table shrinks again.
    EXPIRE_ROWS: usize = 2, 2;

    /// Rows of expired outcomes removed by one Sweep.
    SWEEP_OUTCOME_ROWS: usize = 64, 3;

    /// Longest extended attribute that is compared with what takes its place. One that is longer may be damaged on this member and not on others, so
    /// nobody looks at it. Below what the store keeps with a checksum apart from the row.
    XATTR_COMPARED_MAX: usize = 1024, 3;

    /// Most extended attributes of one inode: removing it removes all at once.
    XATTRS_MAX: u32 = 1024, 4;

    /// Most volumes; all are kept in memory.
    VOLUMES_MAX: usize = 1024, 3;

    /// Most frontends ever registered; all are kept in memory.
    FRONTENDS_MAX: usize = 4096, 4;

    /// Files in which a release of a lock client frees at once; the rest is left to Sweep.
    RELEASE_FILES_MAX: usize = 1024, 2;

    /// Most clients that one release by name or address concerns; more take another call.
    RELEASE_CLIENTS_MAX: usize = 1024, 3;

    /// Most lock clients whose NSM state is remembered. Beyond, those that hold nothing are forgotten.
    NSM_CLIENTS_MAX: u64 = 65536, 3;

    /// Directories that a rename climbs to see whether it would make a circle. A path that long has no name that a client
    /// could send (PATH_MAX is 4096 bytes, at least 2 per level); into a directory made deeper than this, step by step,
    /// no directory can be moved.
    DEPTH_MAX: usize = 65536, 24;

    /// Inline bytes from which a file is worth repacking into blocks: small files stay inline.
    REPACK_INLINE: u64 = 64 << 10, 64;

    /// Extents that a file may have whatever its size before it is worth repacking.
    REPACK_EXTENTS: u64 = 16, 4;

    /// Bytes that one extent should cover on average in larger files.
    REPACK_BYTES_PER_EXTENT: u64 = 256 << 10, 32;

    /// Extents in one answer to a read of a file's map.
    MAP_EXTENTS_MAX: usize = 4096, 5;

    /// Confirmed NFSv4 clients. Each has a record of some hundred bytes, and sessions.
    CLIENTS_MAX: u64 = 65536, 6;

    /// Unconfirmed NFSv4 clients. They have nothing, so the oldest gives way (RFC 7530 §16.34.5).
    UNCONFIRMED_MAX: u64 = 4096, 3;

    /// Clients remembered to have lost their lease, so that they are told so.
    EXPIRED_MAX: u64 = 4096, 2;

    /// Sessions of one client: one is usual, clients that trunk or lose replies may have some.
    SESSIONS_MAX: u32 = 64, 3;

    /// Slots of one session: as many as requests that a client has under way. Each may keep [`atoll_meta::once::SLOT_BEFORE_MAX`] bytes.
    SLOTS_MAX: u32 = 1024, 4;

    /// Opens, lock states and delegations of one client: about 500 bytes each with their indexes.
    STATES_MAX: u32 = 1 << 20, 12;

    /// Delegations of one client, of [`STATES_MAX`]. Each costs a callback when it is recalled.
    CLIENT_DELEGATIONS_MAX: u32 = 1 << 17, 5;

    /// Delegations in force of one file: all are recalled at once.
    FILE_DELEGATIONS_MAX: usize = 64, 3;

    /// Changes of a directory that the holder of a delegation is still to be told of, of some hundred bytes each. One more is in the way of its delegation.
    NOTICES_MAX: u64 = 256, 3;

    /// Copies of one client that go on behind their COPY, or ended and it was not told yet. One more is answered with what it could do at once.
    CLIENT_OFFLOADS_MAX: usize = 16, 3;

    /// The same of all clients.
    OFFLOADS_MAX: usize = 256, 5;

    /// States of a file that are looked at to see whether only the asking client's are against a delegation.
    DELEGATION_LOOK_MAX: usize = 256, 4;

    /// Lock states under one open (one for each lock owner): CLOSE frees them all at once.
    OPEN_LOCKS_MAX: usize = 1024, 3;

    /// Lock states of one NFSv4.0 lock owner (one for each file): RELEASE_LOCKOWNER frees them all at once.
    OWNER_LOCKS_MAX: u32 = 1024, 3;

    /// Open owners of one NFSv4.0 client that have nothing open. The oldest gives way: its next OPEN must be confirmed again
    /// (RFC 7530 §9.1.10, §9.1.11).
    IDLE_OWNERS_MAX: u32 = 1024, 2;

    /// Rows of a client that is gone which are freed at once; the rest is left to Sweep.
    RELEASE_STATES_MAX: usize = 1024, 3;
}

/// Longest name of a client, an open owner or a lock owner (NFS4_OPAQUE_LIMIT, RFC 7530 §2.1), and of other texts of a client.
pub const OPAQUE_MAX: usize = 1024;

/// Longest path of an export (MNTPATHLEN, RFC 1813 §5.1.1).
pub const EXPORT_PATH_MAX: usize = 1024;

/// Most client patterns of one export.
pub const EXPORT_CLIENTS_MAX: usize = 256;

/// Shown as the size of every directory: there is nothing in it that grows with a block.
pub const DIRECTORY_SIZE: u64 = 4096;
