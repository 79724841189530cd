//! What can go wrong with the state.

use atoll_model::kv::KvError;
use std::io;
use std::sync::Arc;

/// A failure of the state's file. The member that meets it applies nothing more.
#[derive(Clone, Debug, thiserror::Error)]
pub enum StateError {
    /// The store or the disk below failed.
    #[error("metadata store: {0}")]
    Store(Arc<str>),
    /// What was read makes no sense.
    #[error("metadata store is damaged: {0}")]
    Damaged(String),
}

impl StateError {
    pub(crate) fn store(error: impl std::fmt::Display) -> Self {
        StateError::Store(error.to_string().into())
    }
}

impl From<KvError> for StateError {
    fn from(error: KvError) -> Self {
        StateError::Store(error.what().into())
    }
}

impl From<io::Error> for StateError {
    fn from(error: io::Error) -> Self {
        StateError::store(error)
    }
}

impl From<StateError> for io::Error {
    fn from(error: StateError) -> Self {
        io::Error::other(error)
    }
}
