//! Acknowledged calls against power cuts: one life after another on one disk, four callers in each.
//!
//! Each caller works in a directory of its own, one call at a time, every call with a key. So after a cut its directory
//! must be exactly as its answered calls left it, or as those and the one call under way left it; the stored outcomes say
//! which; and sending that call again gives the same state and, if it had an outcome, the same response.

use super::*;
use atoll_base::id::Cookie;
use atoll_meta::{FsError, Outcome, Piece, RemoveKind, Source};
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};
use std::collections::BTreeMap;
use std::panic::AssertUnwindSafe;
use std::time::Duration;

const CALLERS: u32 = 4;
const LIVES: usize = 4;
/// When something that ends by itself counts as hanging, and it is told what the service was doing.
const HANGS_AFTER: Duration = Duration::from_secs(120);
/// Campaigns that a missing sync has to show in.
const CHANCES: u64 = 100;

/// What a caller expects of a file: its bytes, and the bits of its mode.
type Files = BTreeMap<String, (Vec<u8>, u32)>;

/// A call that is under way: what was asked, and what would be there after it.
struct Asked {
    op: Op,
    key: OnceKey,
    after: Files,
    /// The call was refused as certainly without effect.
    void: bool,
}

struct Caller {
    dir: Ino,
    files: Files,
    /// The last answered ones.
    answered: Vec<(OnceKey, Response)>,
    asked: Option<Asked>,
    /// How many were answered.
    calls: u64,
    xid: u32,
    rng: SmallRng,
}

fn fault(what: impl Into<String>) -> String {
    what.into()
}

impl Caller {
    /// A random call and what it leads to.
    async fn next(&mut self, meta: &LocalMetadata) -> Result<Asked, String> {
        let rng = &mut self.rng;
        let name = format!("n{}", rng.random_range(0..8));
        let other = format!("n{}", rng.random_range(0..8));
        let mut after = self.files.clone();
        let exists = self.files.contains_key(&name);
        let op = match rng.random_range(0..10) {
            _ if !exists => {
                after.insert(name.clone(), (Vec::new(), 0o644));
                create(self.dir, &name)
            }
            0..2 => {
                after.remove(&name);
                let name = name.clone().into();
                Op::Remove { dir: self.dir, name, kind: RemoveKind::NonDirectory }
            }
            2..4 => {
                if let Some(file) = after.remove(&name) {
                    after.insert(other.clone(), file);
                }
                let (from_name, to_name) = (name.clone().into(), other.into());
                Op::Rename { from_dir: self.dir, from_name, to_dir: self.dir, to_name }
            }
            what => {
                let found = meta.lookup(self.dir, name.as_bytes()).await;
                let attr = found.and_then(|f| f.child).map_err(|e| fault(format!("{name}: {e}")))?;
                let file = after.get_mut(&name).unwrap();
                if what < 6 {
                    file.1 = rng.random_range(0..0o777);
                    let set = SetAttr { mode: Some(file.1), ..SetAttr::default() };
                    Op::SetAttr { ino: attr.ino, generation: attr.generation, set, guard: None }
                } else {
                    let at = rng.random_range(0..=file.0.len());
                    let bytes = vec![rng.random(); rng.random_range(1..1500)];
                    file.0.truncate(file.0.len().max(at + bytes.len()));
                    file.0.resize(file.0.len().max(at + bytes.len()), 0);
                    file.0[at..at + bytes.len()].copy_from_slice(&bytes);
                    let source = Source::Inline(bytes.clone().into());
                    let piece = Piece { offset: at as u64, len: bytes.len() as u32, source };
                    Op::Write { ino: attr.ino, generation: attr.generation, pieces: vec![piece], flush: None }
                }
            }
        };
        self.xid += 1;
        let key = OnceKey::new([10, 0, 0, 1].into(), self.xid, u64::from(self.xid));
        Ok(Asked { op, key, after, void: false })
    }

    fn settle(&mut self, asked: Asked, response: Response) {
        // Refused as a matter of the file system (a file too big for inline data, say): no effect.
        if response.result.is_ok() {
            self.files = asked.after;
        }
        self.calls += 1;
        self.answered.push((asked.key, response));
        if self.answered.len() > 50 {
            self.answered.remove(0);
        }
    }

    /// Calls until the power goes.
    async fn work(&mut self, meta: &LocalMetadata) -> Result<(), String> {
        loop {
            let asked = self.next(meta).await?;
            match meta.execute(call(asked.op.clone(), Some(asked.key))).await {
                Ok(response) => self.settle(asked, response),
                Err(error) => {
                    self.asked = Some(Asked { void: error != FsError::Delay, ..asked });
                    return Ok(());
                }
            }
        }
    }

    /// Compares the directory with what is expected, finishing the call that was under way.
    async fn check(&mut self, meta: &LocalMetadata) -> Result<(), String> {
        for (key, response) in &self.answered {
            let stored = meta.outcome(key).await.map_err(|e| fault(e.to_string()))?;
            if stored.as_ref() != Some(response) {
                return Err(fault(format!("answered {response:?}, stored {stored:?}")));
            }
        }
        if let Some(asked) = self.asked.take() {
            let stored = meta.outcome(&asked.key).await.map_err(|e| fault(e.to_string()))?;
            let found = contents(meta, self.dir).await?;
            if stored.is_some() && asked.void {
                return Err(fault("a call that was refused as without effect had one"));
            }
            let done = matches!(&stored, Some(Response { result: Ok(_), .. }));
            if found != *(if done { &asked.after } else { &self.files }) {
                return Err(fault(format!("half applied: {:?}, outcome {stored:?}", asked.op)));
            }
            let again = meta.execute(call(asked.op.clone(), Some(asked.key))).await;
            let again = again.map_err(|e| fault(format!("sent again: {e}")))?;
            if stored.as_ref().is_some_and(|stored| *stored != again) {
                return Err(fault(format!("sent again, {again:?} instead of {stored:?}")));
            }
            self.settle(asked, again);
        }
        if contents(meta, self.dir).await? != self.files {
            return Err(fault("the directory is not as the answered calls left it"));
        }
        Ok(())
    }
}

async fn ends<T>(what: &str, meta: &LocalMetadata, work: impl Future<Output = T>) -> Result<T, String> {
    let waited = tokio::time::timeout(HANGS_AFTER, work).await;
    waited.map_err(|_| fault(format!("{what} hangs: {:#?}", meta.status())))
}

async fn starts(disk: &SimDisk) -> Result<Result<LocalMetadata, String>, String> {
    let started = tokio::time::timeout(HANGS_AFTER, start(disk)).await;
    let started = started.map_err(|_| fault("the start hangs"))?;
    Ok(started.map_err(|e| fault(format!("does not open: {e}"))))
}

async fn stops(meta: &LocalMetadata) -> Result<(), String> {
    ends("the stop", meta, meta.stop()).await?.map_err(|e| fault(format!("does not stop: {e}")))
}

/// Everything in a directory of files.
async fn contents(meta: &LocalMetadata, dir: Ino) -> Result<Files, String> {
    let refused = |e: FsError| fault(format!("reading: {e}"));
    let page = meta.readdir(dir, Cookie(0), 100, 100_000, true).await.map_err(refused)?;
    let mut files = Files::new();
    for entry in page.entries {
        let attr = entry.attr.unwrap();
        let map = meta.map(entry.ino, 0, 1 << 20).await.map_err(refused)?;
        let mut bytes = vec![0; attr.size as usize];
        for extent in map.extents {
            let Source::Inline(data) = &extent.piece.source else { return Err(fault("a block")) };
            let at = extent.piece.offset as usize;
            bytes[at..at + data.len()].copy_from_slice(data);
        }
        files.insert(String::from_utf8(entry.name.to_vec()).unwrap(), (bytes, attr.mode));
    }
    Ok(files)
}

async fn found(disk: &SimDisk, rng: &mut SmallRng) -> Result<Vec<Caller>, String> {
    let meta = starts(disk).await??;
    let root = root(&meta).await;
    let mut callers = Vec::new();
    for i in 0..CALLERS {
        let op = Op::Create {
            dir: root,
            name: format!("caller{i}").into(),
            node: NewNode::Directory,
            how: CreateHow::Guarded,
            attrs: SetAttr::default(),
        };
        // The disk may lose power already; then there is nothing to expect yet.
        let Ok(Response { result: Ok(Outcome::Created { attr, .. }), .. }) =
            meta.execute(call(op, None)).await
        else {
            return Ok(Vec::new());
        };
        let rng = SmallRng::seed_from_u64(rng.random());
        callers.push(Caller {
            dir: attr.ino,
            files: Files::new(),
            answered: Vec::new(),
            asked: None,
            calls: 0,
            xid: i * 1_000_000,
            rng,
        });
    }
    stops(&meta).await?;
    Ok(callers)
}

/// Says how many calls were answered, or what was lost.
async fn campaign(seed: u64, skip: Option<&'static str>) -> Result<u64, String> {
    let mut rng = SmallRng::seed_from_u64(seed);
    let mut disk = SimDisk::new();
    skip.inspect(|site| disk.skip_site(site));
    // Power cuts while the directory is made: it opens afterwards.
    disk.cut_power_after(rng.random_range(0..60));
    // Whatever became of it: nothing was answered.
    drop(starts(&disk).await?);
    disk = disk.crash(rng.random());
    let mut callers = found(&disk, &mut rng).await?;
    for _life in 0..LIVES {
        disk = disk.crash(rng.random());
        disk.cut_power_after(match rng.random_bool(0.3) {
            true => rng.random_range(0..40),
            false => rng.random_range(40..600),
        });
        if let Ok(meta) = starts(&disk).await? {
            let work = callers.iter_mut().map(|caller| caller.work(&meta));
            for worked in ends("the work", &meta, futures_util::future::join_all(work)).await? {
                worked?;
            }
        }
        disk = disk.crash(rng.random());
        let meta = starts(&disk).await??;
        for caller in &mut callers {
            ends("the check", &meta, caller.check(&meta)).await??;
        }
        let findings = meta.with_state(|kv| atoll_model::check::check(kv, &mut |_, _| {})).await;
        match findings {
            Ok(findings) if findings.is_empty() => {}
            findings => return Err(fault(format!("{findings:?}"))),
        }
        if rng.random_bool(0.5) {
            stops(&meta).await?;
        }
    }
    Ok(callers.iter().map(|caller| caller.calls).sum())
}

/// Damage may also show as a panic.
async fn notices(seed: u64, skip: &'static str) -> bool {
    use futures_util::FutureExt;
    !matches!(AssertUnwindSafe(campaign(seed, Some(skip))).catch_unwind().await, Ok(Ok(_)))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn acknowledged_calls_survive_any_power_cut() {
    // More of them on demand.
    let seeds = std::env::var("ATOLL_CRASH_SEEDS").ok().and_then(|n| n.parse().ok()).unwrap_or(30);
    let mut answered = 0;
    for seed in 0..seeds {
        match campaign(seed, None).await {
            Ok(calls) => answered += calls,
            Err(fault) => panic!("seed {seed}: {fault}"),
        }
    }
    println!("{seeds} campaigns, {answered} answered calls");
    assert!(answered > seeds * 20, "only {answered} calls were answered");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_sync_is_needed() {
    for site in [
        super::super::SYNC_FORMAT,
        crate::state::SYNC_STATE,
        crate::state::SYNC_STATE_DIR,
        crate::state::SYNC_VALUES,
        "wal.append",
        "wal.append.file",
        "wal.segment.dir",
        "wal.segment.file",
        "wal.recover.parent",
    ] {
        let mut seeds = 0..CHANCES;
        let noticed = loop {
            match seeds.next() {
                Some(seed) if notices(seed, site).await => break Some(seed),
                Some(_) => {}
                None => break None,
            }
        };
        println!("{site} skipped: noticed with seed {noticed:?}");
        assert!(noticed.is_some(), "nothing was lost without the sync of {site}");
    }
}
