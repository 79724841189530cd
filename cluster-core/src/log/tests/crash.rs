//! The crash campaign: several lives of a log on one simulated disk, each ended by a power cut or the death of
//! the process at a random operation.
//!
//! After each, the log has to be the result of a prefix of the requests that contains all acknowledged ones; what
//! it shows then counts as acknowledged, because Raft acts on it.

use super::*;
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};

const LIVES: usize = 6;
const REQUESTS: usize = 60;
/// Campaigns without a fault, about 8 ms each.
const SEEDS: u64 = 400;
/// Chances to notice a missing sync; it takes at most some hundred.
const CHANCES: u64 = 4000;

struct Campaign {
    rng: SmallRng,
    steps: Vec<Step>,
    committed: Vec<Option<EntryId>>,
    term: u64,
}

impl Campaign {
    /// Runs all lives; the sites of syncs that were called, or what was wrong.
    fn run(seed: u64, skip: Option<&str>) -> Result<BTreeMap<&'static str, u64>, String> {
        let mut campaign =
            Self { rng: SmallRng::seed_from_u64(seed), steps: Vec::new(), committed: vec![None], term: 1 };
        let mut sim = SimDisk::new();
        if let Some(site) = skip {
            sim.skip_site(site);
        }
        for life in 0..LIVES {
            // Half of the lives end during or soon after the opening.
            let operations = match campaign.rng.random_bool(0.5) {
                true => campaign.rng.random_range(0..16),
                false => campaign.rng.random_range(0..300),
            };
            sim.cut_power_after(operations);
            let acked = campaign.live(&sim).map_err(|e| format!("seed {seed} life {life}: {e}"))?;
            sim =
                if campaign.rng.random_bool(0.35) { sim.restart() } else { sim.crash(campaign.rng.random()) };
            campaign.verify(&sim, acked).map_err(|e| format!("seed {seed} after life {life}: {e}"))?;
        }
        Ok(sim.sites())
    }

    /// One life; gives how many steps were acknowledged.
    fn live(&mut self, sim: &SimDisk) -> Result<usize, String> {
        let acked = Arc::new(AtomicUsize::new(self.steps.len()));
        // What is durable once it was settled.
        let told_early = Arc::new(AtomicUsize::new(0));
        let wal = match Wal::open_unattended(disk(sim), dir(), config()) {
            Ok(wal) => wal,
            Err(_) if sim.is_off() => return Ok(self.steps.len()),
            Err(error) => return Err(error.to_string()),
        };
        if self.rng.random_bool(0.1) {
            sim.fail_next_sync(["wal.append", "wal.append.file"][self.rng.random_range(0..2)]);
        }
        wal.set_alone(true).map_err(|e| e.to_string())?;
        let mut now = View::of(&self.steps);
        for _ in 0..REQUESTS {
            let steps = self.request(&wal, &now);
            let before = self.steps.len();
            self.steps.extend(steps);
            self.steps[before..].iter().for_each(|step| now.apply(step));
            let early = self.rng.random_bool(0.3);
            let (all, told) = (self.steps.len(), if early { told_early.clone() } else { acked.clone() });
            let done: Done = Box::new(move |result| {
                if result.is_ok() {
                    told.fetch_max(all, Ordering::Relaxed);
                }
            });
            let entries = self.steps[before..].iter().filter_map(|step| match step {
                Step::Entry(entry) => Some(entry.clone()),
                _ => None,
            });
            let submitted = match &self.steps[before] {
                Step::Entry(_) if early => wal.append_early(entries.collect(), done),
                Step::Entry(_) => wal.append(entries.collect(), done),
                Step::Vote(vote) => wal.save_vote(vote.clone(), done),
                Step::Truncate(last) => wal.truncate_after(*last, done),
                Step::Purge(upto) => wal.purge(*upto, done),
            };
            if let Err(error) = submitted {
                self.steps.truncate(before);
                return match error {
                    WalError::Failed(_) => Ok(acked.load(Ordering::Relaxed)),
                    other => Err(other.to_string()),
                };
            }
            match self.rng.random_range(0..10) {
                0..4 => wal.step(),
                4..6 => match wal.settle() {
                    Ok(()) => _ = acked.fetch_max(told_early.load(Ordering::Relaxed), Ordering::Relaxed),
                    Err(_) => return Ok(acked.load(Ordering::Relaxed)),
                },
                _ => {}
            }
        }
        Ok(acked.load(Ordering::Relaxed))
    }

    fn request(&mut self, wal: &Wal, now: &View) -> Vec<Step> {
        let some_entry = |rng: &mut SmallRng| {
            let candidates: Vec<EntryId> =
                now.purged.into_iter().chain(now.entries.iter().map(|e| e.id)).collect();
            (!candidates.is_empty()).then(|| candidates[rng.random_range(0..candidates.len())])
        };
        match self.rng.random_range(0..100) {
            0..8 => {
                self.term += 1;
                vec![Step::Vote(Bytes::from(self.term.to_le_bytes().to_vec()))]
            }
            8..16 => {
                let last = some_entry(&mut self.rng);
                self.term += 1;
                vec![Step::Truncate(last)]
            }
            16..26 => match (some_entry(&mut self.rng), now.last) {
                (Some(_), Some(last)) if self.rng.random_bool(0.1) => {
                    vec![Step::Purge(id(self.term, last.index + 7))]
                }
                (Some(upto), _) => vec![Step::Purge(upto)],
                _ => vec![Step::Vote(Bytes::from_static(b"first"))],
            },
            _ => {
                if self.rng.random_bool(0.3) {
                    wal.set_committed(now.last);
                    self.committed.push(now.last);
                }
                let first = now.last.map_or(1, |last| last.index + 1);
                let n = [1, 1, 2, 5][self.rng.random_range(0..4)];
                let size = [0, 10, 600, 600, 5000][self.rng.random_range(0..5)];
                let parts = vec![size; [0, 1, 1, 2][self.rng.random_range(0..4)]];
                (first..first + n).map(|index| Step::Entry(entry(self.term, index, &parts))).collect()
            }
        }
    }

    /// Compares what a new opening finds, and goes on from there.
    fn verify(&mut self, sim: &SimDisk, acked: usize) -> Result<(), String> {
        let wal = Wal::open_unattended(disk(sim), dir(), config()).map_err(|e| e.to_string())?;
        let found = view(&wal).map_err(|e| e.to_string())?;
        let mut expected = View::of(&self.steps[..acked]);
        let mut kept = None;
        for n in acked..=self.steps.len() {
            if n > acked {
                expected.apply(&self.steps[n - 1]);
            }
            if expected == found {
                kept = Some(n);
            }
        }
        let Some(kept) = kept else {
            let (acked, all) = (View::of(&self.steps[..acked]), expected);
            let short = |v: &View| {
                format!("{:?}..{:?}, {} entries, vote {:?}", v.purged, v.last, v.entries.len(), v.vote)
            };
            return Err(format!(
                "found {}; acknowledged {}; requested {}",
                short(&found),
                short(&acked),
                short(&all)
            ));
        };
        if !self.committed.contains(&wal.committed()) {
            return Err(format!("a commit point that nobody set: {:?}", wal.committed()));
        }
        self.steps.truncate(kept);
        Ok(())
    }
}

#[test]
fn nothing_acknowledged_is_lost_and_nothing_is_half_there() {
    for seed in 0..SEEDS {
        if let Err(error) = Campaign::run(seed, None) {
            panic!("{error}");
        }
    }
}

#[test]
fn each_sync_is_needed() {
    let sites: Vec<&str> = Campaign::run(0, None).unwrap().into_keys().collect();
    let expected = [
        "wal.append",
        "wal.append.file",
        "wal.recover.dir",
        "wal.recover.file",
        "wal.recover.parent",
        "wal.segment.dir",
        "wal.segment.file",
    ];
    assert_eq!(sites, expected);
    for site in sites {
        let noticed = (0..CHANCES).find_map(|seed| Campaign::run(seed, Some(site)).err());
        println!("{site} skipped: {noticed:?}");
        assert!(noticed.is_some(), "the campaign does not notice that {site} is skipped");
    }
}
