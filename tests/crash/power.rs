//! Rounds of load and power cuts on the simulated disk.

use crate::choice::Mix;
use crate::machine::{self, End, Life, live};
use crate::worker::Worker;
use atoll_base::disk::sim::SimDisk;
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};
use std::collections::BTreeMap;

/// Clients at a time.
const CLIENTS: u8 = 4;
/// Lives of the server on one disk.
const LIVES: u64 = 5;

/// A disk with a server on it, life after life.
struct History {
    seed: u64,
    rng: SmallRng,
    disk: SimDisk,
    workers: Vec<Worker>,
}

impl History {
    fn new(seed: u64) -> Self {
        let workers = (0..CLIENTS).map(|n| Worker::new(n + 1, seed, Mix::default())).collect();
        Self { seed, rng: SmallRng::seed_from_u64(seed), disk: SimDisk::new(), workers }
    }

    /// When the power goes: often in the midst of the load, sometimes during the start.
    fn instant(&mut self) -> u64 {
        match self.rng.random_range(0..10) {
            0..2 => self.rng.random_range(0..60),
            2..5 => self.rng.random_range(60..500),
            _ => self.rng.random_range(300..3000),
        }
    }

    /// Runs all lives. The power goes at the end of each but the last, which is peaceful.
    fn run(&mut self) -> Result<(), String> {
        let mut after_peace = false;
        for number in 0..=LIVES {
            let last = number == LIVES;
            let end = match last || self.rng.random_ratio(1, 8) {
                true => End::Graceful(self.rng.random_range(1..40)),
                false => End::Cut(self.instant()),
            };
            let began = std::time::Instant::now();
            let peace = live(&self.disk, &mut self.workers, &Life { end, after_peace, last })
                .map_err(|what| format!("seed {} life {number} ({end:?}): {what}", self.seed))?;
            if std::env::var("V").is_ok() {
                eprintln!(
                    "life {number} {end:?} peace {peace} ops {} acks {} {:?}",
                    self.disk.operations(),
                    self.workers.iter().map(|w| w.acknowledged).sum::<u64>(),
                    began.elapsed()
                );
            }
            after_peace = peace && matches!(end, End::Graceful(_));
            // A process that dies leaves the page cache behind.
            self.disk = match self.rng.random_ratio(1, 4) {
                true => self.disk.restart(),
                false => self.disk.crash(self.rng.random()),
            };
        }
        Ok(())
    }
}

fn env(name: &str, otherwise: u64) -> u64 {
    std::env::var(name).ok().and_then(|n| n.parse().ok()).unwrap_or(otherwise)
}

#[test]
fn power() {
    machine::record_panics();
    let (first, rounds) = (env("ATOLL_CRASH_SEED", 1), env("ATOLL_CRASH_ROUNDS", 20));
    let mut sites: BTreeMap<&str, u64> = BTreeMap::new();
    for seed in first.. {
        let mut history = History::new(seed);
        let result = history.run();
        let acknowledged: u64 = history.workers.iter().map(|w| w.acknowledged).sum();
        println!("seed {seed}: {acknowledged} operations acknowledged");
        for (site, n) in history.disk.sites() {
            *sites.entry(site).or_default() += n;
        }
        if let Err(what) = result {
            panic!("{what}");
        }
        if (seed + 1 - first) * LIVES >= rounds {
            break;
        }
    }
    println!("{sites:#?}");
}
