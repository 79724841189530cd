//! Lock operations.

use atoll_base::id::Ino;
use atoll_lockd::Effect;
use atoll_meta::lock::GrantedWaiter;

/// A grant as the service speaks of it.
pub(crate) fn granted(ino: Ino, effect: Effect) -> GrantedWaiter {
    let Effect::Granted { grant, owner, range, mode, callback } = effect;
    GrantedWaiter { ino, grant, owner, range, mode, callback }
}
