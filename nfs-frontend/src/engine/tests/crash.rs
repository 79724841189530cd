//! Random work of several clients on one file, with failing disks and crashes, against a naive model of each byte.
//!
//! Each client owns stripes of the file and works sequentially, as a client's page cache does: it keeps what was not
//! committed, sends it again when the verifier has moved, and knows which values each byte may have. A crash drops the
//! runtime with everything in flight; metadata and blocks live on.

use super::blocks::Blocks;
use super::meta::{Fault, Meta};
use super::world::World;
use crate::engine::Config;
use atoll_meta::{MetadataService, Op};
use atoll_proto::nfs3::{FileHandle, NfsTime3, StableHow, WriteVerf3};
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};
use std::collections::HashSet;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

const CLIENTS: usize = 3;
const STRIPES: usize = 2;
/// Larger than what rides inline, not aligned to anything.
const STRIPE: usize = 150_001;
const FILE: usize = CLIENTS * STRIPES * STRIPE;

/// What a client knows of its bytes, as of the file.
struct Known {
    /// The value that must be there when nothing is lost.
    latest: Vec<u8>,
    /// Bytes acknowledged and not committed.
    pending: Vec<bool>,
    /// Values (below 64) that each byte may have after a crash.
    maybe: Vec<u64>,
    verfs: HashSet<WriteVerf3>,
    in_flight: Option<(usize, usize)>,
    ctime: Option<NfsTime3>,
}

impl Known {
    fn new() -> Self {
        Self {
            latest: vec![0; FILE],
            pending: vec![false; FILE],
            maybe: vec![1; FILE],
            verfs: HashSet::new(),
            in_flight: None,
            ctime: None,
        }
    }

    /// All that was sent is stored.
    fn settle(&mut self) {
        self.pending.fill(false);
        self.verfs.clear();
        for (mask, value) in self.maybe.iter_mut().zip(&self.latest) {
            *mask = 1 << value;
        }
    }

    /// Runs of pending bytes.
    fn runs(&self) -> Vec<(usize, usize)> {
        let mut runs = Vec::new();
        let mut at = 0;
        while at < FILE {
            let start = at;
            while at < FILE
                && self.pending[at]
                && self.latest[at] == self.latest[start]
                && at - start < 1 << 20
            {
                at += 1;
            }
            if at > start {
                runs.push((start, at));
            } else {
                at += 1;
            }
        }
        runs
    }
}

struct Life {
    w: World,
    file: FileHandle,
    faults: bool,
    operations: AtomicUsize,
}

impl Life {
    async fn write_stable(&self, known: &Mutex<Known>, start: usize, end: usize, value: u8) {
        {
            let mut known = known.lock().unwrap();
            known.in_flight = Some((start, end));
            known.maybe[start..end].iter_mut().for_each(|mask| *mask |= 1 << value);
        }
        // The disk may fail: then again.
        loop {
            let data = vec![value; end - start];
            let written = self.w.write(self.file, start as u64, &data, StableHow::FileSync).await;
            match written {
                Ok(ok) => {
                    assert_eq!(ok.count as usize, end - start);
                    break;
                }
                Err(failure) => assert!(self.faults, "{failure:?}"),
            }
        }
        let mut known = known.lock().unwrap();
        known.in_flight = None;
        known.latest[start..end].fill(value);
        known.pending[start..end].fill(false);
        known.maybe[start..end].fill(1 << value);
    }

    /// COMMIT, and what a client does when it is told that data were lost.
    async fn commit(&self, known: &Mutex<Known>) {
        let committed = self.w.commit(self.file).await;
        let (again, runs) = {
            let known = known.lock().unwrap();
            let again = match &committed {
                Ok(ok) => known.verfs.iter().any(|verf| *verf != ok.verf),
                Err(failure) => {
                    assert!(self.faults, "{failure:?}");
                    true
                }
            };
            (again, known.runs())
        };
        if again {
            for (start, end) in runs {
                let value = known.lock().unwrap().latest[start];
                self.write_stable(known, start, end, value).await;
            }
        }
        known.lock().unwrap().settle();
    }

    async fn client(&self, n: usize, known: &Mutex<Known>, rng: &mut SmallRng) {
        loop {
            let stripe = (rng.random_range(0..STRIPES) * CLIENTS + n) * STRIPE;
            let len =
                if rng.random_bool(0.2) { rng.random_range(1..=STRIPE) } else { rng.random_range(1..9000) };
            let start = stripe + rng.random_range(0..=STRIPE - len);
            let end = start + len;
            let value = rng.random_range(1..64);
            match rng.random_range(0..100) {
                0..60 => {
                    {
                        let mut known = known.lock().unwrap();
                        known.in_flight = Some((start, end));
                        known.maybe[start..end].iter_mut().for_each(|mask| *mask |= 1 << value);
                    }
                    let written =
                        self.w.write(self.file, start as u64, &vec![value; len], StableHow::Unstable).await;
                    let ok = match written {
                        Ok(ok) => ok,
                        Err(failure) => {
                            assert!(self.faults, "{failure:?}");
                            // May have been written through and refused by the disk: nothing happened.
                            known.lock().unwrap().in_flight = None;
                            continue;
                        }
                    };
                    let mut known = known.lock().unwrap();
                    known.in_flight = None;
                    known.latest[start..end].fill(value);
                    known.pending[start..end].fill(true);
                    known.verfs.insert(ok.verf);
                    let ctime = ok.file_wcc.after.unwrap().ctime;
                    assert!(known.ctime.is_none_or(|last| last < ctime), "ctime moves with each write");
                    known.ctime = Some(ctime);
                }
                60..70 => self.write_stable(known, start, end, value).await,
                70..78 => self.commit(known).await,
                78..95 => {
                    let read = self.w.read(self.file, start as u64, len as u32).await.unwrap();
                    let verifier = self.w.meta.verifier().to_be_bytes();
                    let known = known.lock().unwrap();
                    // As long as the verifier has not moved, nothing is lost.
                    let nothing_lost = known.verfs.iter().all(|verf| *verf == verifier);
                    for (i, byte) in read.data.iter().enumerate() {
                        let at = start + i;
                        if nothing_lost {
                            assert_eq!(*byte, known.latest[at], "byte {at}");
                        } else {
                            assert!(known.maybe[at] >> byte & 1 == 1, "byte {at} is {byte}");
                        }
                    }
                    for at in start + read.data.len()..end {
                        assert!(known.latest[at] == 0 || !nothing_lost, "byte {at} is behind the end");
                    }
                }
                _ => {
                    let attr = self.w.getattr(self.file).await;
                    let mut known = known.lock().unwrap();
                    assert!(known.ctime.is_none_or(|last| last <= attr.ctime), "ctime never goes back");
                    known.ctime = Some(attr.ctime);
                }
            }
            self.operations.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Finds out what the crash left of the bytes that were uncertain, and sends again what is missing.
    async fn recover(&self, known: &Mutex<Known>) {
        let content = self.w.read_all(self.file).await;
        let verifier = self.w.meta.verifier().to_be_bytes();
        {
            let mut known = known.lock().unwrap();
            let same_verifier = known.verfs.iter().all(|verf| *verf == verifier);
            let in_flight = known.in_flight.take().unwrap_or((0, 0));
            for at in 0..FILE {
                // A write in flight may have landed over one that was acknowledged.
                if !known.pending[at] || (same_verifier && (in_flight.0..in_flight.1).contains(&at)) {
                    known.latest[at] = content.get(at).copied().unwrap_or(0);
                }
            }
        }
        self.commit(known).await;
    }

    /// What the file is like at the beginning of a life.
    async fn check_after_crash(&self, all: &[Arc<Mutex<Known>>]) {
        let content = self.w.read_all(self.file).await;
        let verifier = self.w.meta.verifier().to_be_bytes();
        for (n, known) in all.iter().enumerate() {
            let known = known.lock().unwrap();
            let same_verifier = known.verfs.iter().all(|verf| *verf == verifier);
            for stripe in 0..STRIPES {
                let start = (stripe * CLIENTS + n) * STRIPE;
                for at in start..start + STRIPE {
                    let byte = content.get(at).copied().unwrap_or(0);
                    assert!(known.maybe[at] >> byte & 1 == 1, "byte {at} is {byte}, which it cannot be");
                    let in_flight = known.in_flight.is_some_and(|(from, to)| (from..to).contains(&at));
                    if same_verifier && !in_flight {
                        assert_eq!(byte, known.latest[at], "byte {at} was lost and the verifier stayed");
                    }
                }
            }
        }
    }
}

fn scenario(seed: u64, faults: bool) {
    let mut rng = SmallRng::seed_from_u64(seed);
    let (meta, blocks) = (Meta::new(Some(seed)), Blocks::new(Some(seed + 1)));
    super::world::put_export(&meta, super::world::open_export());
    let config = Config {
        // Low enough that pressure is felt.
        dirty_max: if rng.random_bool(0.5) { 400_000 } else { 64 << 20 },
        // Low enough that parts are flushed before anybody asks.
        early_bytes: if rng.random_bool(0.5) { 32 << 10 } else { 8 << 20 },
        ..Config::default()
    };
    let known: Vec<_> = (0..CLIENTS).map(|_| Arc::new(Mutex::new(Known::new()))).collect();
    let mut file = None;
    // The verifier, if a life ended with nothing dirty.
    let mut unlost = None;
    for _ in 0..4 {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let until = rng.random_range(5..60);
        let clean = runtime.block_on(async {
            let w = World::over(config.clone(), meta.clone(), blocks.clone()).await;
            let file = match file {
                Some(file) => file,
                None => *file.insert(w.create(w.root, "f").await),
            };
            let life_of = Arc::new(Life { w, file, faults, operations: AtomicUsize::new(0) });
            if let Some(verifier) = unlost.take() {
                assert_eq!(meta.verifier(), verifier, "nothing was lost, and the verifier moved");
            }
            life_of.check_after_crash(&known).await;
            let mut clients = Vec::new();
            for (n, known) in known.iter().enumerate() {
                life_of.recover(known).await;
                let (this, known) = (life_of.clone(), known.clone());
                let mut rng = SmallRng::seed_from_u64(rng.random::<u64>() ^ n as u64);
                clients.push(tokio::spawn(async move { this.client(n, &known, &mut rng).await }));
            }
            let mut seen = usize::MAX;
            loop {
                tokio::task::yield_now().await;
                assert!(clients.iter().all(|client| !client.is_finished()), "a client failed");
                let done = life_of.operations.load(Ordering::Relaxed);
                if done >= until {
                    break;
                }
                // Something happens at most once for each operation, at a random time after it.
                if done == seen || rng.random_bool(0.5) {
                    continue;
                }
                seen = done;
                if faults && rng.random_bool(0.15) {
                    blocks.fail_puts(1);
                }
                if faults && rng.random_bool(0.15) {
                    let fault = if rng.random_bool(0.5) { Fault::LostBefore } else { Fault::LostAfter };
                    meta.fail_next(|op| matches!(op, Op::Write { .. } | Op::BeginDirty { .. }), fault);
                }
                if rng.random_bool(0.15) {
                    let this = life_of.clone();
                    tokio::spawn(async move { this.w.engine.flush_all().await });
                }
            }
            let idle = known.iter().all(|known| known.lock().unwrap().in_flight.is_none());
            life_of.w.engine.stats().dirty_files == 0 && idle
        });
        drop(runtime);
        let verifier = meta.verifier();
        blocks.forget_reservations();
        meta.forget_faults();
        blocks.fail_puts(0);
        if clean {
            unlost = Some(verifier);
        }
    }
    // At last all is committed and nothing is missing.
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let w = World::over(config, meta, blocks).await;
        let life = Life { w, file: file.unwrap(), faults: false, operations: AtomicUsize::new(0) };
        life.check_after_crash(&known).await;
        for known in &known {
            life.recover(known).await;
        }
        life.check_after_crash(&known).await;
        let stats = life.w.engine.stats();
        assert_eq!((stats.dirty_bytes, stats.dirty_files, life.w.blocks.reserved()), (0, 0, 0));
    });
}

#[test]
fn nothing_is_lost_unsaid_over_crashes() {
    (0..12).for_each(|seed| scenario(seed, false));
}

#[test]
fn nothing_is_lost_unsaid_over_crashes_and_failing_disks() {
    (100..112).for_each(|seed| scenario(seed, true));
}
