//! Which open owners have an OPEN under way at this frontend: a CLOSE of theirs may then be out of date before it is applied, so it
//! is not answered early. An OPEN of another owner makes another open.

use atoll_meta::nfs4::ClientId;
use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use xxhash_rust::xxh3::xxh3_64;

/// An owner of a client, by its hash: of two with the same hash, one only waits for the other.
type Owner = (ClientId, u64);

/// Number of OPENs under way, by owner. No entry is zero.
#[derive(Clone, Debug, Default)]
pub(crate) struct Opening(Arc<Mutex<HashMap<Owner, u32>>>);

impl Opening {
    fn lock(&self) -> MutexGuard<'_, HashMap<Owner, u32>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Marks an OPEN as under way as long as what is returned lives.
    pub(crate) fn enter(&self, client: ClientId, owner: &[u8]) -> Entered {
        let owner = (client, xxh3_64(owner));
        *self.lock().entry(owner).or_default() += 1;
        Entered { opening: self.clone(), owner }
    }

    /// Whether the owner has one under way.
    pub(crate) fn any(&self, client: ClientId, owner: &[u8]) -> bool {
        self.lock().contains_key(&(client, xxh3_64(owner)))
    }
}

/// See [`Opening::enter`].
#[derive(Debug)]
pub(crate) struct Entered {
    opening: Opening,
    owner: Owner,
}

impl Drop for Entered {
    fn drop(&mut self) {
        let mut all = self.opening.lock();
        if let Some(count) = all.get_mut(&self.owner) {
            *count -= 1;
            if *count == 0 {
                all.remove(&self.owner);
            }
        }
    }
}
