//! What is flushed of a stream before COMMIT asks.

use super::meta::Fault;
use super::world::{World, write_args};
use crate::engine::Config;
use atoll_base::access::Cred;
use atoll_base::id::ROOT_VOLUME;
use atoll_meta::{Call, MetadataService, Op, RemoveKind, Source};
use atoll_proto::nfs3::{StableHow, call};
use std::time::Duration;

const MIB: u64 = 1 << 20;

fn config() -> Config {
    Config { early_bytes: 8 * MIB, dirty_age: Duration::from_secs(3600), ..Config::default() }
}

/// Lets all that can go on without time go on: the clock stands until everybody waits.
async fn settle() {
    tokio::time::sleep(Duration::from_millis(1)).await;
}

#[tokio::test(start_paused = true)]
async fn whole_blocks_of_a_stream_are_put_before_commit() {
    let mut w = World::with(config(), None).await;
    let file = w.create(w.root, "f").await;
    // Not aligned to blocks.
    w.write_dirty(file, 0, &[1; 5000]).await;
    w.meta.take_executed();
    let mut first = None;
    for i in 0..20 {
        let xid = w.next_xid();
        let args = write_args(file, 5000 + i * MIB, &vec![i as u8; MIB as usize], StableHow::Unstable);
        let reply = w.bytes::<call::Write>(xid, &args).await;
        first.get_or_insert((xid, args, reply));
        settle().await;
    }
    assert!(w.blocks.count() >= 16, "{} blocks", w.blocks.count());
    let executed = w.meta.take_executed();
    let flushes: Vec<_> = executed
        .iter()
        .filter_map(|call| match &call.op {
            Op::Write { pieces, flush: Some(flush), .. } => Some((pieces, flush)),
            _ => None,
        })
        .collect();
    assert!((1..=5).contains(&flushes.len()), "{} commands", flushes.len());
    for (pieces, flush) in flushes {
        assert!(!flush.release, "more is coming");
        assert!(pieces.iter().all(|p| p.offset % MIB == 0 && u64::from(p.len) == MIB));
        assert!(pieces.iter().all(|p| matches!(p.source, Source::Block { offset: 0, .. })));
    }
    let mut expected = vec![1; 5000];
    (0..20).for_each(|i| expected.extend(vec![i as u8; MIB as usize]));
    assert!(w.read_all(file).await == expected, "both what is in the store and what is not");
    let (xid, args, reply) = first.unwrap();
    assert_eq!(w.bytes::<call::Write>(xid, &args).await, reply, "known again");
    let before = w.getattr(file).await;

    let committed = w.commit(file).await.unwrap();
    assert_eq!(w.getattr(file).await.wcc(), before.wcc());
    assert_eq!((w.engine.stats().dirty_bytes, w.blocks.reserved()), (0, 0));
    w.crash().await;
    assert_eq!(w.meta.verifier().to_be_bytes(), committed.verf, "nothing was lost");
    assert!(w.read_all(file).await == expected);
}

#[tokio::test(start_paused = true)]
async fn scattered_data_wait_for_commit() {
    let w = World::with(config(), None).await;
    let file = w.create(w.root, "f").await;
    w.write_dirty(file, 0, &[1; 4096]).await;
    for i in 0..20 {
        w.write(file, i * 2 * MIB, &vec![2; 900_000], StableHow::Unstable).await.unwrap();
        settle().await;
    }
    assert_eq!(w.blocks.count(), 0);
    w.commit(file).await.unwrap();
    assert_eq!(w.engine.stats().dirty_bytes, 0);
}

#[tokio::test(start_paused = true)]
async fn an_early_flush_that_fails_is_told_by_commit() {
    let w = World::with(config(), None).await;
    let file = w.create(w.root, "f").await;
    let verf = w.write_dirty(file, 0, &[1; 4096]).await.verf;
    w.blocks.fail_puts(1);
    for i in 0..9 {
        w.write(file, i * MIB, &vec![2; MIB as usize], StableHow::Unstable).await.unwrap();
    }
    settle().await;
    assert_eq!(w.engine.stats().dirty_bytes, 0, "given up");
    w.commit(file).await.unwrap_err();
    assert_ne!(w.commit(file).await.unwrap().verf, verf);
}

/// A flush that goes on while another life begins loses its own data, and none of that life.
#[tokio::test(start_paused = true)]
async fn a_flush_of_a_former_life_takes_nothing_from_the_next() {
    let w = World::with(config(), None).await;
    let file = w.create(w.root, "f").await;
    w.write_dirty(file, 0, &[1; 4096]).await;
    let is_flush = |op: &Op| matches!(op, Op::Write { flush: Some(_), .. });
    w.meta.fail_next(is_flush, Fault::LostBefore);
    let (xid, args) = (w.next_xid(), write_args(file, 0, &vec![2; MIB as usize], StableHow::Unstable));
    w.bytes::<call::Write>(xid, &args).await;
    let mut former = None;
    for i in 1..9 {
        former = Some(w.write(file, i * MIB, &vec![2; MIB as usize], StableHow::Unstable).await.unwrap());
    }
    // The early flush has sent its command once and is about to send it again.
    while w.blocks.count() == 0 {
        tokio::task::yield_now().await;
    }
    let op = Op::RegisterFrontend { frontend: w.engine.origin().await.frontend };
    let epoch = w.engine.origin().await.epoch;
    w.meta.apply(Call { origin: None, once: None, cred: Cred::root(), client: None, op }).result.unwrap();
    w.create(w.root, "fenced").await;
    assert!(w.engine.origin().await.epoch > epoch && w.engine.stats().dirty_files == 0);

    // Among what is written in the next life is a request of the former, sent again.
    let reply = w.bytes::<call::Write>(xid, &args).await;
    let written = w.write(file, MIB, &[3; 5000], StableHow::Unstable).await.unwrap();
    assert_ne!(written.verf, former.unwrap().verf);
    tokio::time::sleep(Duration::from_secs(2)).await;
    assert_eq!(w.engine.stats().dirty_files, 1, "still to be flushed");
    assert_eq!(w.bytes::<call::Write>(xid, &args).await, reply, "still known");
    assert_eq!(w.commit(file).await.unwrap().verf, written.verf);
    assert!(w.read(file, 0, MIB as u32).await.unwrap().data[..] == vec![2; MIB as usize]);
    assert!(w.read(file, MIB, 5000).await.unwrap().data[..] == [3; 5000]);
    assert_eq!((w.engine.stats().dirty_bytes, w.blocks.reserved()), (0, 0));
}

#[tokio::test(start_paused = true)]
async fn blocks_of_a_file_that_went_during_its_flush_go_as_well() {
    let w = World::with(config(), None).await;
    let file = w.create(w.root, "f").await;
    w.write_dirty(file, 0, &vec![1; MIB as usize]).await;
    // As by another frontend: this one does not notice.
    let dir = w.meta.volume(ROOT_VOLUME).await.unwrap().root;
    let op = Op::Remove { dir, name: "f".into(), kind: RemoveKind::NonDirectory };
    let call = Call { origin: None, once: None, cred: Cred::root(), client: None, op };
    w.meta.execute(call).await.unwrap().result.unwrap();
    w.commit(file).await.unwrap_err();
    assert_eq!((w.blocks.count(), w.blocks.reserved(), w.engine.stats().dirty_bytes), (0, 0, 0));
}
