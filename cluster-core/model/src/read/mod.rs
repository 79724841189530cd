//! Every read of the state: pure functions over one consistent view of the store.
//!
//! The outer result is the store's, the inner one ([`Read`]) the file system's answer. Nothing here checks permissions: the
//! frontend does, with the attributes that it gets.

mod data;
mod files;
mod locks;
mod namespace;
mod needed;
mod nfs4;
mod service;
mod walk;

pub use data::{
    DirtyLease, ExtentRow, RepackCandidate, block_is_referenced, clip, dirty_leases, extent_rows, garbage,
    map, map_up_to, repack_candidates, stretch,
};
pub use files::{BlockFile, files_of_blocks};
pub use locks::{pending_grants, test_lock};
pub use namespace::{get_xattr, getattr, list_xattrs, lookup, parent, readdir, readlink};
pub use needed::{Unreadable, may_need_bytes, needed, refused};
pub use nfs4::{
    client, client_of, clients, has_locks, is_denied, notices, offload, offloads, recalled, session,
    sessions, slot, standing, state, states_by, states_of,
};
pub use service::{Counters, counters, exports, has_work, now, outcome, verifier, volume, volumes};
pub use walk::{Entry, NlmFile, Walked, all_states, lock_tables, names, nlm_files};

pub use atoll_meta::service::Read;
