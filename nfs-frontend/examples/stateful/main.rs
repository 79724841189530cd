//! A stateful fuzzer: plays random sequences of calls from several clients, NFSv4.0 to 4.2, NFSv3 and NLM, against an engine over
//! the real state machine in memory, and looks at the server after each.
//!
//! ```text
//! cargo run --profile fuzz -p atoll-nfs --example stateful -- --sequences 10000000 --jobs 2
//! cargo run --profile fuzz -p atoll-nfs --example stateful -- --seconds 60
//! cargo run --profile fuzz -p atoll-nfs --example stateful -- --replay SEED      # one sequence, told step by step
//! ```
//!
//! A sequence is made of its seed alone, and played in one thread with time that stands still unless a step moves it: the same seed
//! does the same again. What is looked at:
//!
//! - each reply decodes, has as many results as operations were executed, and each status is one that the RFCs list for its operation
//!   ([`judge`], `valid_errors.txt`);
//! - a retransmission gets the same bytes, at once, after others changed things, and after a restart of the engine;
//! - no panic, and nothing logged as an error;
//! - at the end the state is consistent (`model::check`), a member that loads it is equal, and when all clients have ended, nothing of them
//!   is left, no room is reserved, and no block is referred to that is not there.
//!
//! The first sequence that fails is made shorter as long as it fails the same way, and told.

#![allow(clippy::unwrap_used, missing_docs)]

#[path = "../../src/engine/tests/blocks.rs"]
#[allow(dead_code)]
mod blocks;
mod client40;
mod client41;
mod dice;
mod judge;
mod known;
#[path = "../../src/engine/tests/meta.rs"]
#[allow(dead_code)]
mod meta;
mod old;
mod ops;
mod play;
mod shrink;
mod trouble;
#[path = "../../src/engine/tests/turns.rs"]
#[allow(dead_code)]
mod turns;
mod world;

use dice::{Sequence, sequence_of};
use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

/// What to do.
struct Options {
    seed: u64,
    sequences: u64,
    seconds: u64,
    jobs: u64,
    replay: Option<u64>,
    survey: bool,
}

impl Options {
    fn read() -> Result<Self, String> {
        let mut options =
            Self { seed: 0, sequences: u64::MAX, seconds: u64::MAX, jobs: 1, replay: None, survey: false };
        let mut words = std::env::args().skip(1);
        while let Some(word) = words.next() {
            let mut number = || -> Result<u64, String> {
                let text = words.next().ok_or(format!("{word} needs a number"))?;
                text.parse().map_err(|_| format!("{text:?} is no number"))
            };
            match word.as_str() {
                "--seed" => options.seed = number()?,
                "--sequences" => options.sequences = number()?,
                "--seconds" => options.seconds = number()?,
                "--jobs" => options.jobs = number()?.max(1),
                "--replay" => options.replay = Some(number()?),
                // Goes on after failures and counts them.
                "--survey" => options.survey = true,
                other => return Err(format!("{other}: see the head of this program's main.rs")),
            }
        }
        if options.sequences == u64::MAX && options.seconds == u64::MAX {
            options.seconds = 60;
        }
        Ok(options)
    }
}

/// What is found by several threads.
#[derive(Default)]
struct Found {
    failures: Mutex<Vec<(u64, String)>>,
    stop: AtomicBool,
    played: AtomicU64,
    calls: AtomicU64,
}

fn main() -> ExitCode {
    let options = match Options::read() {
        Ok(options) => options,
        Err(words) => {
            eprintln!("{words}");
            return ExitCode::from(2);
        }
    };
    trouble::watch();
    if let Some(seed) = options.replay {
        return told(seed, &sequence_of(seed));
    }
    let began = Instant::now();
    let found = Arc::new(Found::default());
    let threads: Vec<_> = (0..options.jobs)
        .map(|job| {
            let found = found.clone();
            let (first, sequences, jobs) = (options.seed, options.sequences, options.jobs);
            let (survey, until) =
                (options.survey, began.checked_add(Duration::from_secs(options.seconds.min(1 << 30))));
            std::thread::spawn(move || {
                for n in (job..sequences).step_by(jobs as usize) {
                    if found.stop.load(Ordering::Relaxed) || until.is_some_and(|until| Instant::now() > until)
                    {
                        return;
                    }
                    let seed = first + n;
                    let (calls, result) = play::play(&sequence_of(seed), false);
                    found.calls.fetch_add(calls, Ordering::Relaxed);
                    found.played.fetch_add(1, Ordering::Relaxed);
                    if let Err(failure) = result {
                        found.failures.lock().unwrap().push((seed, failure));
                        found.stop.store(!survey, Ordering::Relaxed);
                    }
                }
            })
        })
        .collect();
    let mut last = Instant::now();
    while threads.iter().any(|thread| !thread.is_finished()) {
        std::thread::sleep(Duration::from_millis(50));
        if last.elapsed() > Duration::from_secs(30) {
            last = Instant::now();
            eprintln!("{} sequences", found.played.load(Ordering::Relaxed));
        }
    }
    for thread in threads {
        thread.join().unwrap();
    }
    let (played, seconds) = (found.played.load(Ordering::Relaxed), began.elapsed().as_secs_f64());
    let calls = found.calls.load(Ordering::Relaxed);
    println!(
        "{played} sequences, {calls} calls in {seconds:.1} s: {:.0} sequences/s with {} threads; seeds from {}",
        played as f64 / seconds,
        options.jobs,
        options.seed
    );
    let mut failures = std::mem::take(&mut *found.failures.lock().unwrap());
    if options.survey {
        survey(&failures);
    }
    failures.sort();
    match failures.first() {
        None => ExitCode::SUCCESS,
        Some((seed, failure)) => {
            println!("sequence {seed} fails: {failure}");
            let short = shrink::shrink(&sequence_of(*seed), failure);
            println!("\nthe shortest found that fails so has {} steps:", short.len());
            told(*seed, &short)
        }
    }
}

/// Plays a sequence and tells what happens.
fn told(seed: u64, sequence: &Sequence) -> ExitCode {
    let (_, result) = play::play(sequence, true);
    match result {
        Ok(()) => {
            println!("sequence {seed}: nothing is wrong");
            ExitCode::SUCCESS
        }
        Err(failure) => {
            println!("sequence {seed}: {failure}");
            ExitCode::FAILURE
        }
    }
}

/// How often each kind of failure came.
fn survey(failures: &[(u64, String)]) {
    let mut kinds = std::collections::BTreeMap::<&str, (u64, u64)>::new();
    for (seed, failure) in failures {
        let kind = kinds.entry(shrink::kind(failure)).or_insert((0, *seed));
        kind.0 += 1;
    }
    for (kind, (count, seed)) in kinds {
        println!("{count:6} × {kind} (first seed {seed})");
    }
}
