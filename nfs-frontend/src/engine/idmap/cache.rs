//! A bounded cache in front of a slow look-up.
//!
//! Invariants: at most `max` entries; at most [`CONCURRENT`] look-ups at a time; who asks waits for the configured time
//! at most. A value that has become old is still answered with while it is looked up again.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::Semaphore;
use tokio::time::Instant;

/// Look-ups at a time: each takes a thread while it waits for the network.
const CONCURRENT: usize = 16;

/// For how long a failure is believed.
const FAILURE_TTL: Duration = Duration::from_secs(10);

#[derive(Debug)]
struct Slot<V> {
    value: Option<V>,
    at: Instant,
    refreshing: bool,
}

/// See the module.
#[derive(Debug)]
pub(crate) struct Cache<K, V> {
    slots: Mutex<HashMap<K, Slot<V>>>,
    max: usize,
    ttl: Duration,
    timeout: Duration,
    permits: Arc<Semaphore>,
}

impl<K: Hash + Eq + Clone + Send + 'static, V: Clone + Send + 'static> Cache<K, V> {
    pub(crate) fn new(max: usize, ttl: Duration, timeout: Duration) -> Self {
        Self { slots: Mutex::default(), max, ttl, timeout, permits: Arc::new(Semaphore::new(CONCURRENT)) }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<K, Slot<V>>> {
        self.slots.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The value of `key`, by `look_up` unless it is known. `None` if there is none or it could not be had in time.
    pub(crate) async fn get(
        self: &Arc<Self>,
        key: K,
        look_up: impl FnOnce() -> Option<V> + Send + 'static,
    ) -> Option<V> {
        let known = {
            let mut slots = self.lock();
            match slots.get_mut(&key) {
                Some(slot) => {
                    let ttl = if slot.value.is_some() { self.ttl } else { FAILURE_TTL.min(self.ttl) };
                    if slot.refreshing || slot.at.elapsed() < ttl {
                        return slot.value.clone();
                    }
                    slot.refreshing = true;
                    slot.value.clone()
                }
                None => None,
            }
        };
        let this = self.clone();
        let running = tokio::spawn(async move { this.run(key, look_up).await });
        match known {
            Some(old) => Some(old),
            None => tokio::time::timeout(self.timeout, running).await.ok()?.ok()?,
        }
    }

    async fn run(&self, key: K, look_up: impl FnOnce() -> Option<V> + Send + 'static) -> Option<V> {
        let value = match self.permits.clone().acquire_owned().await {
            Ok(permit) => {
                let found = tokio::task::spawn_blocking(move || {
                    let value = look_up();
                    drop(permit);
                    value
                });
                found.await.ok().flatten()
            }
            Err(_) => None,
        };
        let mut slots = self.lock();
        if slots.len() >= self.max && !slots.contains_key(&key) {
            let oldest = slots.iter().min_by_key(|(_, slot)| slot.at).map(|(key, _)| key.clone());
            oldest.map(|key| slots.remove(&key));
        }
        // A look-up that fails does not take away what was known.
        let kept = value.clone().or_else(|| slots.remove(&key).and_then(|slot| slot.value));
        slots.insert(key, Slot { value: kept, at: Instant::now(), refreshing: false });
        value
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use std::sync::atomic::{AtomicU32, Ordering};

    #[tokio::test(start_paused = true)]
    async fn asks_once_until_the_value_is_old_and_answers_with_it_meanwhile() {
        let cache = Arc::new(Cache::new(2, Duration::from_secs(60), Duration::from_secs(5)));
        let asked = Arc::new(AtomicU32::new(0));
        let ask = |answer: Option<u32>| {
            let asked = asked.clone();
            move || {
                asked.fetch_add(1, Ordering::SeqCst);
                answer
            }
        };
        assert_eq!(cache.get(1, ask(Some(10))).await, Some(10));
        assert_eq!(cache.get(1, ask(Some(11))).await, Some(10));
        assert_eq!(asked.load(Ordering::SeqCst), 1);
        tokio::time::advance(Duration::from_secs(61)).await;
        assert_eq!(cache.get(1, ask(Some(12))).await, Some(10), "the old one while it is asked again");
        while cache.lock().get(&1).unwrap().refreshing {
            tokio::task::yield_now().await;
        }
        assert_eq!(cache.get(1, ask(Some(13))).await, Some(12));
        assert_eq!(cache.get(2, ask(None)).await, None);
        assert_eq!(cache.get(3, ask(Some(30))).await, Some(30));
        assert_eq!(cache.lock().len(), 2, "bounded");
    }
}
