//! Which clients have an OPEN under way at this frontend: a CLOSE of theirs may then be out of date before it is applied, so it
//! is not answered early.

use atoll_meta::nfs4::ClientId;
use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Number of OPENs under way, by client. No entry is zero.
#[derive(Clone, Debug, Default)]
pub(crate) struct Opening(Arc<Mutex<HashMap<ClientId, u32>>>);

impl Opening {
    fn lock(&self) -> MutexGuard<'_, HashMap<ClientId, u32>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Marks an OPEN as under way as long as what is returned lives.
    pub(crate) fn enter(&self, client: ClientId) -> Entered {
        *self.lock().entry(client).or_default() += 1;
        Entered { opening: self.clone(), client }
    }

    /// Whether the client has one under way.
    pub(crate) fn any(&self, client: ClientId) -> bool {
        self.lock().contains_key(&client)
    }
}

/// See [`Opening::enter`].
#[derive(Debug)]
pub(crate) struct Entered {
    opening: Opening,
    client: ClientId,
}

impl Drop for Entered {
    fn drop(&mut self) {
        let mut all = self.opening.lock();
        if let Some(count) = all.get_mut(&self.client) {
            *count -= 1;
            if *count == 0 {
                all.remove(&self.client);
            }
        }
    }
}
