//! Waiting that is told of.

use std::pin::pin;
use std::time::Duration;
use tokio::time::timeout;

/// Awaits `work`, and calls `tell` if that takes longer than `first`, and then each `every`.
pub(crate) async fn while_waiting<R>(
    first: Duration,
    every: Duration,
    work: impl Future<Output = R>,
    mut tell: impl FnMut(),
) -> R {
    let (mut work, mut wait) = (pin!(work), first);
    loop {
        match timeout(wait, &mut work).await {
            Ok(result) => return result,
            Err(_) => tell(),
        }
        wait = every;
    }
}
