//! Pauses of random length from a seed, so that tasks interleave in many ways and a failure can be repeated.

use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};
use std::sync::Mutex;

/// See the module; without a seed there are no pauses.
pub(crate) struct Turns(Option<Mutex<SmallRng>>);

impl Turns {
    pub(crate) fn new(seed: Option<u64>) -> Self {
        Self(seed.map(|seed| Mutex::new(SmallRng::seed_from_u64(seed))))
    }

    /// Lets others run a few times.
    pub(crate) async fn pause(&self) {
        let Some(rng) = &self.0 else { return };
        let turns = rng.lock().unwrap().random_range(1..5);
        for _ in 0..turns {
            tokio::task::yield_now().await;
        }
    }
}
