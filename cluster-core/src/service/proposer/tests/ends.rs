//! Whatever callers do and however slow the group is: each call that is taken comes to an end, with its own answer, and so does closing.

use super::*;
use crate::raft::types::{BatchOutcome, LogId, TypeConfig};
use atoll_meta::Outcome;
use openraft::errors::{ClientWriteError, ForwardToLeader};
use openraft::impls::leader_id_adv::LeaderId;
use openraft::raft::ClientWriteResponse;
use openraft::raft::responder::Responder as _;
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};
use std::sync::mpsc::{Receiver, Sender, channel};

/// When what ends by itself counts as hanging.
const HANGS_AFTER: Duration = Duration::from_secs(60);

const CALLERS: u64 = 24;

type Batch = (Vec<Bytes>, Completion<Proposed>);

/// Hands batches to a thread, as the Raft group does.
struct Queued(Mutex<Sender<Batch>>);

impl Propose for Queued {
    fn propose(&self, commands: Vec<Bytes>, done: Completion<Proposed>) {
        // Without the thread, `done` is dropped, and that is the answer.
        let _gone = self.0.lock().unwrap().send((commands, done));
    }

    /// Done before this returns, as it can be.
    fn propose_here(&self, commands: Vec<Bytes>, done: Completion<Proposed>) {
        done.on_complete(Ok(response(0, commands)));
    }
}

/// Each command's response is its number.
fn response(index: u64, commands: Vec<Bytes>) -> ClientWriteResponse<TypeConfig> {
    let number = |command: Bytes| u64::from_be_bytes(command[..8].try_into().unwrap());
    let response = |verifier| Response { result: Ok(Outcome::Written { verifier }), changes: Vec::new() };
    let log_id = LogId { leader_id: LeaderId { term: 1, node_id: 1 }, index };
    let data = BatchOutcome(commands.into_iter().map(number).map(response).collect());
    ClientWriteResponse { log_id, data, membership: None }
}

/// What the group is like.
#[derive(Clone, Copy)]
struct Manners {
    seed: u64,
    /// It stops by itself after so many batches.
    batches: usize,
}

fn pause(rng: &mut SmallRng) -> Option<Duration> {
    match rng.random_range(0..10) {
        0..5 => None,
        5..8 => Some(Duration::from_micros(rng.random_range(0..300))),
        8 => Some(Duration::from_millis(rng.random_range(0..4))),
        _ => Some(Duration::ZERO),
    }
}

/// Applies batches one after the other, some after a while, some in vain.
fn apply(batches: &Receiver<Batch>, manners: Manners) {
    let mut rng = SmallRng::seed_from_u64(manners.seed);
    for (index, (commands, done)) in batches.iter().take(manners.batches).enumerate() {
        if let Some(pause) = pause(&mut rng) {
            std::thread::sleep(pause);
        }
        let result = match rng.random_range(0..20) {
            0 => Err(ClientWriteError::ForwardToLeader(ForwardToLeader::empty())),
            _ => Ok(response(index as u64, commands)),
        };
        done.on_complete(result);
    }
}

/// How often what was answered.
#[derive(Default)]
struct Answered {
    asides: AtomicU64,
    done: AtomicU64,
}

fn check(number: u64, answer: Result<Response, FsError>, may_stop: bool, answered: &Answered) {
    match answer {
        Ok(response) => {
            assert_eq!(response.result, Ok(Outcome::Written { verifier: number }));
            answered.done.fetch_add(1, Ordering::Relaxed);
        }
        Err(FsError::Delay) => {}
        Err(FsError::Io) if may_stop => {}
        Err(error) => panic!("call {number}: {error}"),
    }
}

/// Makes calls, waits for most answers, for some only for a moment, and for some not at all. Says how many calls aside were taken.
async fn call_and_call(
    proposer: Arc<Proposer<Queued>>,
    caller: u64,
    seed: u64,
    may_stop: bool,
    told: Arc<Answered>,
) -> u64 {
    let mut rng = SmallRng::seed_from_u64(seed << 8 | caller);
    let mut asides = 0;
    for call in 0..40 {
        match pause(&mut rng) {
            None => {}
            Some(Duration::ZERO) => tokio::task::yield_now().await,
            // Others' work on this thread has to wait, too.
            Some(pause) if rng.random_bool(0.1) => std::thread::sleep(pause),
            Some(pause) => tokio::time::sleep(pause).await,
        }
        let number = caller << 32 | call;
        let mut command = number.to_be_bytes().to_vec();
        command.resize(8 + rng.random_range(0..200), 0);
        if rng.random_ratio(1, 5) {
            let its = told.clone();
            let done = move |answer| {
                check(number, answer, may_stop, &its);
                its.asides.fetch_add(1, Ordering::Relaxed);
            };
            match proposer.submit_aside(command.into(), Box::new(done)) {
                Ok(()) => asides += 1,
                Err(error) => check(number, Err(error), may_stop, &told),
            }
            continue;
        }
        let answer = match proposer.submit(command.into(), rng.random()) {
            Ok(answer) => answered(answer),
            Err(error) => {
                check(number, Err(error), may_stop, &told);
                continue;
            }
        };
        match rng.random_range(0..10) {
            0 => drop(answer),
            1 => {
                let moment = Duration::from_micros(rng.random_range(0..500));
                if let Ok(answer) = tokio::time::timeout(moment, answer).await {
                    check(number, answer, may_stop, &told);
                }
            }
            _ => {
                let answer = tokio::time::timeout(HANGS_AFTER, answer).await;
                let hangs = |_| panic!("seed {seed}: call {number:x} hangs: {:?}", proposer.status());
                check(number, answer.unwrap_or_else(hangs), may_stop, &told);
            }
        }
    }
    asides
}

/// Gives what the group's thread says when it ends, which it does with the last that has the proposer.
async fn campaign(seed: u64) -> Receiver<()> {
    let mut rng = SmallRng::seed_from_u64(seed);
    let limits = Limits {
        batch_calls: rng.random_range(1..40),
        batch_bytes: rng.random_range(100..8000),
        in_flight: rng.random_range(1..4),
        queue_calls: rng.random_range(4..200),
        ..Limits::default()
    };
    let may_stop = rng.random_ratio(1, 4);
    let batches = if may_stop { rng.random_range(0..60) } else { usize::MAX };
    let (tx, rx) = channel();
    let (end, group) = channel();
    std::thread::spawn(move || {
        apply(&rx, Manners { seed, batches });
        let _waits = end.send(());
    });
    let proposer = Proposer::new(Queued(Mutex::new(tx)), limits);
    let told = Arc::<Answered>::default();
    let callers = (0..CALLERS)
        .map(|caller| tokio::spawn(call_and_call(proposer.clone(), caller, seed, may_stop, told.clone())));
    let mut asides = 0;
    for caller in callers.collect::<Vec<_>>() {
        asides += caller.await.unwrap();
    }
    let closed = tokio::time::timeout(HANGS_AFTER, proposer.close()).await;
    closed.unwrap_or_else(|_| panic!("seed {seed}: closing hangs: {:?}", proposer.status()));
    // Whoever closes may hear of it before the last answers went out.
    let all_told = async {
        while told.asides.load(Ordering::Relaxed) < asides {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    let all_told = tokio::time::timeout(HANGS_AFTER, all_told).await;
    all_told.unwrap_or_else(|_| panic!("seed {seed}: of {asides} calls aside some came to no end"));
    let status = proposer.status();
    assert_eq!((status.waiting, status.waiting_bytes, status.in_flight), (0, 0, 0), "seed {seed}");
    assert!(may_stop || told.done.load(Ordering::Relaxed) > 0, "seed {seed}: nothing was done");
    group
}

#[test]
fn every_call_ends() {
    // More of them on demand.
    let seeds = std::env::var("ATOLL_PROPOSER_SEEDS").ok().and_then(|n| n.parse().ok()).unwrap_or(24);
    for seed in 0..seeds {
        let runtime = match seed % 3 {
            0 => tokio::runtime::Builder::new_current_thread().enable_time().build(),
            _ => tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_time().build(),
        };
        let runtime = runtime.unwrap();
        let group = runtime.block_on(campaign(seed));
        runtime.shutdown_timeout(HANGS_AFTER);
        group.recv_timeout(HANGS_AFTER).unwrap_or_else(|e| panic!("seed {seed}: the group's thread: {e}"));
    }
}
