//! Flushes of several parts: blocks are put ahead of the commands that point at them.

use super::meta::Fault;
use super::world::World;
use crate::engine::Config;
use atoll_base::access::Cred;
use atoll_base::id::ROOT_VOLUME;
use atoll_meta::{Call, FsError, MetadataService, Op, RemoveKind};
use atoll_proto::nfs3::{FileHandle, NfsStat3, StableHow, WriteVerf3};
use std::sync::Arc;
use std::time::Duration;

const MIB: u64 = 1 << 20;

/// Blocks of one part.
const PART: usize = 8;

fn config() -> Config {
    Config { early_bytes: u64::MAX, dirty_age: Duration::from_secs(3600), ..Config::default() }
}

/// A file with so many parts of UNSTABLE data, the n-th of bytes n + 1.
async fn dirty(w: &World, parts: u64) -> (FileHandle, WriteVerf3) {
    let file = w.create(w.root, "f").await;
    let verf = w.write_dirty(file, 0, &[0; 4096]).await.verf;
    for at in 0..parts * PART as u64 {
        let data = vec![(at / PART as u64) as u8 + 1; MIB as usize];
        assert_eq!(w.write(file, at * MIB, &data, StableHow::Unstable).await.unwrap().verf, verf);
    }
    (file, verf)
}

fn is_flush(op: &Op) -> bool {
    matches!(op, Op::Write { flush: Some(_), .. })
}

/// The n-th part alone is in the store.
async fn has_part(w: &World, file: FileHandle, n: u64) -> bool {
    match w.read(file, n * PART as u64 * MIB, 1000).await {
        Ok(read) => read.data[..] == [n as u8 + 1; 1000],
        Err(failure) => panic!("{failure:?}"),
    }
}

/// As by another frontend: this one does not notice.
async fn remove(w: &World) {
    let dir = w.meta.volume(ROOT_VOLUME).await.unwrap().root;
    let op = Op::Remove { dir, name: "f".into(), kind: RemoveKind::NonDirectory };
    let call = Call { origin: None, once: None, cred: Cred::root(), client: None, op };
    w.meta.execute(call).await.unwrap().result.unwrap();
}

#[tokio::test(start_paused = true)]
async fn two_parts_are_put_while_a_command_is_on_its_way() {
    let w = World::with(config(), None).await;
    let (file, verf) = dirty(&w, 5).await;
    w.meta.fail_next(is_flush, Fault::LostBefore);
    let w = Arc::new(w);
    let commit = tokio::spawn({
        let w = w.clone();
        async move { w.commit(file).await }
    });
    // The clock stands, so the command is not sent again.
    for _ in 0..1000 {
        tokio::task::yield_now().await;
    }
    assert_eq!(w.blocks.count(), 3 * PART);
    assert_eq!(commit.await.unwrap().unwrap().verf, verf);
    assert_eq!(w.blocks.count(), 5 * PART);
    for n in 0..5 {
        assert!(has_part(&w, file, n).await);
    }
    w.is_clean();
}

#[tokio::test(start_paused = true)]
async fn of_a_file_that_is_gone_nothing_stays() {
    let w = World::with(config(), None).await;
    let (file, _) = dirty(&w, 5).await;
    remove(&w).await;
    w.commit(file).await.unwrap_err();
    assert_eq!(w.blocks.count(), 0);
    w.is_clean();
}

#[tokio::test(start_paused = true)]
async fn behind_a_command_that_is_refused_nothing_stays() {
    let w = World::with(config(), None).await;
    let (file, verf) = dirty(&w, 5).await;
    // As often as it is tried.
    for _ in 0..5 {
        let second =
            |op: &Op| matches!(op, Op::Write { pieces, flush: Some(_), .. } if pieces[0].offset == 8 << 20);
        w.meta.fail_next(second, Fault::Refused(FsError::Io));
    }
    assert_eq!(w.commit(file).await.unwrap_err().status, NfsStat3::Io);
    assert_eq!(w.blocks.count(), PART, "what the first command points at");
    assert!(has_part(&w, file, 0).await && !has_part(&w, file, 1).await);
    assert_ne!(w.commit(file).await.unwrap().verf, verf);
    w.is_clean();
}

/// A copy that was executed and missed points at the blocks, whatever is said of another when its outcome is forgotten.
#[tokio::test(start_paused = true)]
async fn blocks_of_a_command_that_was_executed_and_missed_are_not_deleted() {
    let w = World::with(config(), None).await;
    let (file, _) = dirty(&w, 1).await;
    w.meta.fail_next(is_flush, Fault::LostAfter);
    w.meta.fail_next(is_flush, Fault::Refused(FsError::Conflict));
    w.commit(file).await.unwrap_err();
    assert_eq!((w.meta.faults(), w.blocks.count()), (0, PART));
    assert!(has_part(&w, file, 0).await);
}

/// The first copy of the command may still be executed, and then points at the blocks, whatever becomes of a later request.
#[tokio::test(start_paused = true)]
async fn blocks_that_a_missed_command_points_at_are_not_deleted() {
    let w = World::with(config(), None).await;
    let (file, _) = dirty(&w, 1).await;
    w.meta.fail_next(is_flush, Fault::LostBefore);
    w.meta.fail_next(is_flush, Fault::Refused(FsError::Delay));
    w.meta.fail_next(is_flush, Fault::Refused(FsError::Io));
    assert_eq!(w.commit(file).await.unwrap_err().status, NfsStat3::Io);
    assert_eq!((w.meta.faults(), w.blocks.count()), (0, PART));
}

#[tokio::test(start_paused = true)]
async fn behind_a_put_that_fails_nothing_stays() {
    for n in 0..5 {
        let w = World::with(config(), None).await;
        let (file, verf) = dirty(&w, 5).await;
        w.blocks.fail_put(n);
        assert_eq!(w.commit(file).await.unwrap_err().status, NfsStat3::Io);
        assert_eq!(w.blocks.count(), n * PART, "what was put before has its commands");
        for part in 0..5 {
            assert_eq!(has_part(&w, file, part).await, part < n as u64, "{part} of {n}");
        }
        assert_ne!(w.commit(file).await.unwrap().verf, verf);
        w.is_clean();
    }
}

/// What needs no blocks waits for nobody's blocks.
#[tokio::test(start_paused = true)]
async fn little_data_do_not_wait_for_a_place_in_the_stores_queue() {
    let w = World::with(config(), None).await;
    let (large, _) = dirty(&w, 1).await;
    let file = w.create(w.root, "little").await;
    let verf = w.write_dirty(file, 0, &[1; 4096]).await.verf;
    let places = w.engine.putting.acquire_many(w.config.flushes as u32).await.unwrap();
    assert_eq!(w.commit(file).await.unwrap().verf, verf);
    let mut commit = Box::pin(w.commit(large));
    tokio::select! {
        _ = &mut commit => panic!("it has no place"),
        () = tokio::time::sleep(Duration::from_secs(1)) => {}
    }
    drop(places);
    assert_eq!(commit.await.unwrap().verf, verf);
}

/// Of somebody who writes on and on, the early flush does not keep COMMIT waiting.
#[tokio::test(start_paused = true)]
async fn commit_does_not_wait_for_the_end_of_a_stream() {
    const STEP: u64 = 64 << 10;
    let config = Config { early_bytes: STEP, ..config() };
    for seed in 0..8 {
        let w = Arc::new(World::with(config.clone(), Some(seed)).await);
        let file = w.create(w.root, "f").await;
        let mut commit = None;
        let mut written = 0;
        while !commit.as_ref().is_some_and(tokio::task::JoinHandle::is_finished) {
            assert!(written < 1000, "COMMIT waits");
            w.write(file, written * STEP, &[1; STEP as usize], StableHow::Unstable).await.unwrap();
            written += 1;
            tokio::task::yield_now().await;
            if w.blocks.count() > 0 && commit.is_none() {
                let w = w.clone();
                commit = Some(tokio::spawn(async move { w.commit(file).await.unwrap() }));
            }
        }
    }
}
