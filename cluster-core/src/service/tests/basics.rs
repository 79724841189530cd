//! What a caller sees.

use super::*;
use atoll_meta::{FsError, Outcome, Piece, RemoveKind, Source};
use futures_util::FutureExt;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_answered_is_read_at_once_and_after_a_restart() {
    let disk = SimDisk::new();
    let meta = start(&disk).await.unwrap();
    let root = root(&meta).await;
    assert_eq!(meta.lookup(root, b"a").await.unwrap().child, Err(FsError::NotFound));
    let response = done(meta.execute(call(create(root, "a"), once(1))).await);
    let Ok(Outcome::Created { attr, new: true }) = &response.result else { panic!("{response:?}") };
    // Ready at the first poll.
    let found = meta.lookup(root, b"a").now_or_never().unwrap().unwrap();
    assert_eq!(found.child.as_ref(), Ok(attr));
    assert_eq!(Some(&found.dir), response.changes.iter().map(|c| &c.after).find(|a| a.ino == root));
    assert_eq!(meta.getattr(attr.ino).now_or_never().unwrap().as_ref(), Ok(attr));
    // And small: each request's future has some of these within it.
    let size = size_of_val(&meta.getattr(attr.ino));
    assert!(size < 512, "{size} bytes");
    assert!(meta.now() >= attr.ctime);
    let verifier = meta.verifier();
    assert_ne!(verifier, 0);
    meta.stop().await.unwrap();
    // Reads go on; changes are refused.
    assert_eq!(meta.getattr(attr.ino).await.as_ref(), Ok(attr));
    assert_eq!(meta.execute(call(create(root, "b"), None)).await, Err(FsError::Delay));
    drop(meta);

    let meta = start(&disk.crash(1)).await.unwrap();
    assert_eq!(meta.status().commands, 0, "nothing to repeat after a graceful stop");
    assert_eq!(meta.getattr(attr.ino).await.as_ref(), Ok(attr));
    assert_eq!(meta.verifier(), verifier);
    assert_eq!(meta.cluster(), [3; 16]);
    assert_eq!(meta.outcome(&once(1).unwrap()).await.unwrap(), Some(response.clone()));
    assert_eq!(meta.execute(call(create(root, "a"), once(1))).await, Ok(response));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_idle_service_holds_nothing_that_was_flushed() {
    let mut options = options();
    // So that nobody else flushes, or looks after it.
    options.maintenance.look_every = Duration::from_secs(3600);
    options.state.flush_bytes = usize::MAX;
    let clock = Arc::new(SystemClock);
    let meta = open(Arc::new(SimDisk::new()), options, clock, Arc::new(|_| {})).await.unwrap();
    let root = root(&meta).await;
    let response = done(meta.execute(call(create(root, "a"), None)).await);
    let before = meta.shared.published.current().view.clone();
    meta.shared.store.commit_durable().unwrap();
    assert!(before.refreshed().is_some());
    assert!(meta.shared.published.current().view.refreshed().is_none());
    let Ok(Outcome::Created { attr, .. }) = response.result else { panic!("{response:?}") };
    assert_eq!(meta.lookup(root, b"a").await.unwrap().child, Ok(attr));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_callers_share_entries() {
    let disk = SimDisk::new();
    let meta = Arc::new(start(&disk).await.unwrap());
    let root = root(&meta).await;
    let callers: Vec<_> = (0..500)
        .map(|i| {
            let meta = meta.clone();
            tokio::spawn(async move { done(meta.execute(call(create(root, &format!("f{i}")), None)).await) })
        })
        .collect();
    for caller in callers {
        caller.await.unwrap();
    }
    let status = meta.status();
    assert_eq!(status.proposer.calls, 500);
    assert!(status.proposer.batches < 500, "{status:?}");
    assert_eq!(status.proposer.waiting, 0);
    assert_eq!(status.state.unwrap().inodes, 501);
    for i in 0..500 {
        assert!(meta.lookup(root, format!("f{i}").as_bytes()).await.unwrap().child.is_ok());
    }
    meta.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_log_stays_small() {
    let disk = SimDisk::new();
    let meta = start(&disk).await.unwrap();
    let root = root(&meta).await;
    for i in 0..3000 {
        done(meta.execute(call(create(root, &format!("f{i}")), once(i))).await);
        let log = meta.status().log.disk_bytes;
        assert!(log < 1 << 20, "{log} bytes of log after {i} calls");
    }
    let group = meta.status().group;
    assert!(group.purged > 0 && group.purged <= group.durable, "{group:?}");
    meta.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_failed_log_refuses_changes_and_reads_go_on() {
    let disk = SimDisk::new();
    let meta = start(&disk).await.unwrap();
    let root = root(&meta).await;
    done(meta.execute(call(create(root, "a"), None)).await);
    disk.fail_next_sync("wal.append");
    // Its effect is unknown.
    assert_eq!(meta.execute(call(create(root, "b"), None)).await, Err(FsError::Delay));
    assert_eq!(meta.execute(call(create(root, "c"), None)).await, Err(FsError::Io));
    assert!(meta.lookup(root, b"a").await.unwrap().child.is_ok());
    assert!(meta.status().failed);
}

/// Waits for what maintenance brings about.
async fn until(so: impl Fn() -> bool) {
    let wait = async {
        while !so() {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), wait).await.expect("in vain");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_room_what_takes_space_is_refused() {
    let disk = SimDisk::new();
    let mut options = options();
    options.maintenance.reserve_bytes = 1 << 20;
    let meta = open(Arc::new(disk.clone()), options, Arc::new(SystemClock), Arc::new(|_| {})).await.unwrap();
    let root = root(&meta).await;
    done(meta.execute(call(create(root, "a"), None)).await);
    disk.set_capacity(disk.used() + (512 << 10));
    until(|| meta.status().low_space).await;
    assert_eq!(meta.execute(call(create(root, "b"), None)).await, Err(FsError::NoSpace));
    done(meta.execute(call(Op::Sweep, None)).await);
    disk.set_capacity(1 << 40);
    until(|| !meta.status().low_space).await;
    done(meta.execute(call(create(root, "b"), None)).await);
    meta.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_queue_delays() {
    let disk = SimDisk::new();
    let mut options = options();
    options.limits.queue_calls = 2;
    options.limits.in_flight = 1;
    let meta = open(Arc::new(disk), options, Arc::new(SystemClock), Arc::new(|_| {})).await.unwrap();
    let root = root(&meta).await;
    let calls = (0..50).map(|i| {
        let meta = &meta;
        async move { meta.execute(call(create(root, &format!("f{i}")), None)).await }
    });
    let results = futures_util::future::join_all(calls).await;
    let refused = results.iter().filter(|r| **r == Err(FsError::Delay)).count() as u64;
    assert!(refused > 0);
    assert_eq!(meta.status().proposer.refused, refused);
    assert_eq!(meta.status().state.unwrap().inodes, 1 + 50 - refused);
    meta.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_disk_loses_nothing_and_deleting_makes_room() {
    let disk = SimDisk::new();
    let mut options = options();
    options.maintenance.reserve_bytes = 2 << 20;
    let meta = open(Arc::new(disk.clone()), options, Arc::new(SystemClock), Arc::new(|_| {})).await.unwrap();
    let root = root(&meta).await;
    disk.set_capacity(disk.used() + (6 << 20));
    let mut made = 0;
    let full = loop {
        let name = format!("f{made}");
        let response = match meta.execute(call(create(root, &name), None)).await {
            Ok(response) => done(Ok(response)),
            Err(error) => break error,
        };
        made += 1;
        let Ok(Outcome::Created { attr, .. }) = response.result else { panic!("{response:?}") };
        let data = vec![made as u8; 8 << 10];
        let piece = Piece { offset: 0, len: data.len() as u32, source: Source::Inline(data.into()) };
        let op = Op::Write { ino: attr.ino, generation: attr.generation, pieces: vec![piece], flush: None };
        match meta.execute(call(op, None)).await {
            Ok(response) => drop(done(Ok(response))),
            Err(error) => break error,
        }
    };
    assert_eq!(full, FsError::NoSpace);
    assert!(made > 50 && !meta.status().failed, "{made}");
    for i in 0..made {
        let op = Op::Remove { dir: root, name: format!("f{i}").into(), kind: RemoveKind::Any };
        done(meta.execute(call(op, None)).await);
    }
    // A flush under way takes room for a moment, gives it back, and the next one takes it again: what counts is that it ends.
    let again = async {
        while let Err(error) = meta.execute(call(create(root, "again"), None)).await {
            assert_eq!(error, FsError::NoSpace);
            until(|| !meta.status().low_space).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), again).await.expect("there is room again");
    meta.stop().await.unwrap();
}
