//! What a caller sees.

use super::*;
use atoll_meta::{FsError, Outcome};
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

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_room_what_takes_space_is_refused() {
    let disk = SimDisk::new();
    let mut options = options();
    options.maintenance.reserve_bytes = 1 << 20;
    let meta = open(Arc::new(disk.clone()), options, Arc::new(SystemClock), Arc::new(|_| {})).await.unwrap();
    let root = root(&meta).await;
    done(meta.execute(call(create(root, "a"), None)).await);
    disk.set_capacity(disk.used() + (512 << 10));
    while !meta.status().low_space {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    assert_eq!(meta.execute(call(create(root, "b"), None)).await, Err(FsError::NoSpace));
    done(meta.execute(call(Op::Sweep, None)).await);
    disk.set_capacity(1 << 40);
    while meta.status().low_space {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
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
