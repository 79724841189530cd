//! What the store's threads and callers share.

use crate::ahead::Ahead;
use crate::buffers::Buffers;
use crate::config::Config;
use crate::files::FileCache;
use crate::hot::Hot;
use crate::lock::read;
use crate::metrics::Counters;
use crate::repeated::Repeated;
use crate::space::Space;
use crate::state::State;
use atoll_base::block::BlockError;
use atoll_base::disk::Disk;
use std::sync::{Arc, OnceLock, RwLock};

pub(crate) struct Shared {
    pub(crate) disk: Arc<dyn Disk>,
    pub(crate) config: Config,
    pub(crate) state: RwLock<State>,
    pub(crate) space: Space,
    pub(crate) files: FileCache,
    pub(crate) hot: Hot,
    pub(crate) repeated: Repeated,
    pub(crate) ahead: Ahead,
    pub(crate) buffers: Buffers,
    pub(crate) counters: Counters,
    /// Set once, for ever: why nothing is written any more.
    failed: OnceLock<Arc<str>>,
}

impl Shared {
    pub(crate) fn new(disk: Arc<dyn Disk>, config: Config, state: State, space: Space) -> Self {
        let files = FileCache::new(config.open_files);
        let hot = Hot::new(config.hot_bytes);
        let repeated = Repeated::new(config.repeated_bytes);
        let ahead = Ahead::new(config.ahead_bytes);
        Self {
            disk,
            config,
            state: RwLock::new(state),
            space,
            files,
            hot,
            repeated,
            ahead,
            buffers: Buffers::default(),
            counters: Counters::default(),
            failed: OnceLock::new(),
        }
    }

    /// The first failure of a write or sync ends all writing until the store is opened again: the system may have
    /// dropped pages that it could not write, so a later sync that succeeds proves nothing.
    pub(crate) fn fail(&self, what: &str, e: &dyn std::fmt::Display) -> BlockError {
        let detail: Arc<str> = format!("{what}: {e}").into();
        if self.failed.set(detail.clone()).is_ok() {
            tracing::error!(%detail, "the block store takes no more writes");
        }
        BlockError::Failed(self.failed.get().cloned().unwrap_or(detail))
    }

    pub(crate) fn failure(&self) -> Option<Arc<str>> {
        self.failed.get().cloned()
    }

    pub(crate) fn check_writable(&self) -> Result<(), BlockError> {
        match self.failure() {
            Some(detail) => Err(BlockError::Failed(detail)),
            None => Ok(()),
        }
    }

    pub(crate) fn live_bytes(&self) -> u64 {
        read(&self.state).index.bytes()
    }
}
