//! One simulated disk with a server on it, life after life.

use crate::choice::Mix;
use crate::machine::{End, Life, live};
use crate::slow::Delays;
use crate::worker::Worker;
use atoll_base::disk::sim::{Malice, SimDisk};
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};
use std::time::Duration;

/// Clients at a time.
const CLIENTS: u8 = 4;

/// When a life ends.
#[derive(Clone, Copy, Debug)]
pub(crate) enum When {
    /// Often in the midst of the load, sometimes during the start.
    Anywhere,
    /// During the start or soon after.
    Start,
    /// In the midst of the load.
    Load,
    /// At one of these syncs of this site, counted from 0.
    Site(&'static str, u64, u64),
    /// In the midst of one of these large writes of the log, counted from 1.
    Group(u64, u64),
    /// In peace.
    Peace,
    /// In peace, when maintenance has nothing more to do.
    Rest,
}

/// How it ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum How {
    /// The power goes.
    Power,
    /// The process dies; the page cache stays.
    Killed,
    /// Any of the two.
    Any,
}

/// What happens to a disk. The ends of lives repeat in order.
#[derive(Clone, Debug)]
pub(crate) struct Plan {
    pub(crate) lives: u64,
    pub(crate) ends: Vec<(When, How)>,
    pub(crate) malice: Option<Malice>,
    /// What takes longer than it must, in the lives that end so; `None` leaves it to chance.
    pub(crate) delays: Option<(How, Delays)>,
    pub(crate) mix: Mix,
    pub(crate) clients: u8,
}

impl Default for Plan {
    fn default() -> Self {
        Self {
            lives: 5,
            ends: vec![(When::Anywhere, How::Any)],
            malice: None,
            delays: None,
            mix: Mix::default(),
            clients: CLIENTS,
        }
    }
}

pub(crate) struct History {
    seed: u64,
    plan: Plan,
    rng: SmallRng,
    pub(crate) disk: SimDisk,
    pub(crate) workers: Vec<Worker>,
    /// Lives that ended.
    pub(crate) rounds: u64,
}

impl History {
    pub(crate) fn new(seed: u64, plan: Plan) -> Self {
        let mut rng = SmallRng::seed_from_u64(seed);
        let disk = SimDisk::new();
        let malice = Malice { loose_entries: rng.random(), cut_writes: rng.random() };
        disk.set_malice(plan.malice.unwrap_or(malice));
        let workers = (0..plan.clients).map(|n| Worker::new(n + 1, seed, plan.mix)).collect();
        Self { seed, plan, rng, disk, workers, rounds: 0 }
    }

    /// Acknowledged operations.
    pub(crate) fn acknowledged(&self) -> u64 {
        self.workers.iter().map(|w| w.acknowledged).sum()
    }

    fn end(&mut self, when: When) -> End {
        match when {
            When::Anywhere => match self.rng.random_range(0..10) {
                0..2 => self.end(When::Start),
                2..9 => self.end(When::Load),
                _ => self.end(When::Peace),
            },
            When::Start => End::Cut(self.rng.random_range(0..80)),
            When::Load => End::Cut(self.rng.random_range(80..2500)),
            When::Site(site, from, to) => End::At(site, self.rng.random_range(from..to)),
            When::Group(from, to) => End::InGroup(self.rng.random_range(from..to)),
            When::Peace => End::Graceful(self.rng.random_range(1..40)),
            When::Rest => End::Rested(self.rng.random_range(1..40)),
        }
    }

    fn some_delays(&mut self) -> Delays {
        match self.rng.random_range(0..10) {
            0..2 => Delays { segment: Duration::from_millis(200), ..Delays::default() },
            2..4 => Delays { append: Duration::from_millis(1), ..Delays::default() },
            _ => Delays::default(),
        }
    }

    /// Runs all lives, and a last one that ends in peace.
    pub(crate) fn run(&mut self) -> Result<(), String> {
        let mut after_peace = None;
        for number in 0..=self.plan.lives {
            let last = number == self.plan.lives;
            let (when, how) = match last {
                true => (When::Peace, How::Power),
                false => self.plan.ends[(number % self.plan.ends.len() as u64) as usize],
            };
            let end = self.end(when);
            let delays = match self.plan.delays {
                Some((when, delays)) if when == how && !last => delays,
                Some(_) => Delays::default(),
                None => self.some_delays(),
            };
            let life = Life { end, after_peace, last, delays };
            after_peace = live(&self.disk, &mut self.workers, &life).map_err(|what| {
                let acknowledged = self.acknowledged();
                format!("seed {} life {number} ({end:?}, {acknowledged} operations): {what}", self.seed)
            })?;
            self.rounds += 1;
            let killed = match how {
                How::Power => false,
                How::Killed => true,
                How::Any => self.rng.random_ratio(1, 3),
            };
            self.disk = if killed { self.disk.restart() } else { self.disk.crash(self.rng.random()) };
        }
        Ok(())
    }
}
