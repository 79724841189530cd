//! UNSTABLE data: shown at once, stored by COMMIT, and never silently lost.

use super::meta::Fault;
use super::world::World;
use crate::engine::Config;
use atoll_base::access::Cred;
use atoll_base::id::Ino;
use atoll_meta::{Call, FsError, MetadataService, Op, RemoveKind, Source};
use atoll_proto::nfs3::{
    Create3Args, CreateHow3, GetAttr3Args, Link3Args, NfsStat3, Remove3Args, Rename3Args, Sattr3,
    SetAttr3Args, StableHow, call,
};
use std::time::Duration;

/// The last open of a file without a name can end where nobody looks for dirty data first.
#[tokio::test]
async fn data_of_a_file_that_is_gone_are_not_lost() {
    let w = World::new().await;
    let file = w.create(w.root, "f").await;
    w.write_dirty(file, 0, b"data").await;
    let dir = w.engine.handle_key.open(w.root.as_slice()).unwrap().ino;
    let op = Op::Remove { dir, name: "f".into(), kind: RemoveKind::Any };
    let call = Call { origin: None, once: None, cred: Cred::root(), client: None, op };
    w.meta.apply(call).result.unwrap();
    assert_eq!(w.engine.flush_all().await, 0);
    assert_eq!((w.engine.stats().dirty_files, w.blocks.reserved()), (0, 0));
}

#[tokio::test]
async fn data_and_attributes_are_seen_before_they_are_stored() {
    let w = World::new().await;
    let file = w.create(w.root, "f").await;
    w.write(file, 0, &[1; 1000], StableHow::FileSync).await.unwrap();
    w.write_dirty(file, 2000, &[2; 1000]).await;
    let before = w.getattr(file).await;
    let written = w.write(file, 500, &[3; 1000], StableHow::Unstable).await.unwrap();
    assert_eq!(written.committed, StableHow::Unstable);
    assert_eq!(written.file_wcc.before, Some(before.wcc()));
    let after = w.getattr(file).await;
    assert_eq!(written.file_wcc.after, Some(after));
    assert!(after.ctime > before.ctime && after.mtime > before.mtime);
    assert_eq!(after.size, 3000);
    let mut expected = vec![0; 3000];
    expected[..1000].fill(1);
    expected[2000..].fill(2);
    expected[500..1500].fill(3);
    assert_eq!(w.read_all(file).await, expected);
    assert_eq!(w.lookup(w.root, "f").await.unwrap().obj_attributes, Some(after));

    let committed = w.commit(file).await.unwrap();
    assert_eq!(committed.verf, written.verf);
    assert_eq!(
        committed.file_wcc.after.map(|a| a.wcc()),
        Some(after.wcc()),
        "COMMIT changes nothing that is shown"
    );
    assert_eq!(w.read_all(file).await, expected);
    let stats = w.engine.stats();
    assert_eq!((stats.dirty_bytes, stats.dirty_files, w.blocks.reserved()), (0, 0, 0));
}

#[tokio::test]
async fn a_lone_small_write_is_stored_with_one_command() {
    let w = World::new().await;
    let file = w.create(w.root, "f").await;
    w.meta.take_executed();
    let written = w.write(file, 0, &[1; 4096], StableHow::Unstable).await.unwrap();
    assert_eq!(w.commit(file).await.unwrap().verf, written.verf);
    assert_eq!(w.meta.take_executed().len(), 1);
}

#[tokio::test]
async fn small_data_ride_inline_and_large_data_in_aligned_blocks() {
    let w = World::new().await;
    let file = w.create(w.root, "f").await;
    w.write_dirty(file, 0, &[1; 4096]).await;
    w.write(file, 4096, &[2; 4096], StableHow::Unstable).await.unwrap();
    w.meta.take_executed();
    w.commit(file).await.unwrap();
    let executed = w.meta.take_executed();
    assert_eq!(executed.len(), 1, "one command");
    let Op::Write { pieces, flush: Some(flush), .. } = &executed[0].op else {
        panic!("{:?}", executed[0].op)
    };
    assert!(pieces.iter().all(|p| matches!(p.source, Source::Inline(_))));
    assert!(flush.release);
    assert_eq!(w.blocks.count(), 0);

    let megabyte = vec![5; 1 << 20];
    for i in 0..8 {
        w.write(file, i << 20, &megabyte, StableHow::Unstable).await.unwrap();
    }
    w.commit(file).await.unwrap();
    assert_eq!(w.blocks.count(), 8);
    assert_eq!(w.read_all(file).await, vec![5; 8 << 20]);
}

#[tokio::test]
async fn random_overwrites_share_blocks() {
    let w = World::new().await;
    let file = w.create(w.root, "f").await;
    w.write_dirty(file, 0, &[1; 4096]).await;
    for i in 1..512u64 {
        w.write(file, i * 8192, &[i as u8; 4096], StableHow::Unstable).await.unwrap();
    }
    w.commit(file).await.unwrap();
    assert!(w.blocks.count() <= 3, "{} blocks for 2 MiB", w.blocks.count());
    let all = w.read_all(file).await;
    assert!(all.chunks(8192).enumerate().skip(1).all(|(i, c)| c[..4096].iter().all(|b| *b == i as u8)));
}

#[tokio::test]
async fn what_changes_the_file_flushes_it_first() {
    let w = World::new().await;
    let file = w.create(w.root, "f").await;
    w.write_dirty(file, 0, &[1; 100]).await;
    w.write(file, 50, &[2; 10], StableHow::Unstable).await.unwrap();
    let stable = w.write(file, 55, &[3; 10], StableHow::FileSync).await.unwrap();
    assert_eq!(stable.file_wcc.after, Some(w.getattr(file).await));
    assert_eq!(&w.read_all(file).await[50..65], [[2; 5], [3; 5], [3; 5]].concat());

    w.write(file, 0, &[4; 200], StableHow::Unstable).await.unwrap();
    let before = w.getattr(file).await;
    let set = Sattr3 { size: Some(150), ..Sattr3::default() };
    let done = w.call::<call::SetAttr>(SetAttr3Args {
        object: file,
        new_attributes: set,
        guard: Some(before.ctime),
    });
    let wcc = done.await.unwrap().obj_wcc;
    assert_eq!(wcc.before, Some(before.wcc()), "the guard and the attributes are those shown");
    assert_eq!(w.read_all(file).await, [4; 150]);

    w.write(file, 0, &[5; 200], StableHow::Unstable).await.unwrap();
    let before = w.getattr(file).await;
    let linked = w.call::<call::Link>(Link3Args { file, link: w.at(w.root, "g") }).await.unwrap();
    let after = linked.file_attributes.unwrap();
    assert!(after.ctime > before.ctime && after.size == 200 && after.nlink == 2);

    w.write(file, 0, &[6; 300], StableHow::Unstable).await.unwrap();
    let before = w.getattr(file).await;
    w.call::<call::Rename>(Rename3Args { from: w.at(w.root, "f"), to: w.at(w.root, "h") }).await.unwrap();
    assert!(w.getattr(file).await.ctime > before.ctime);
    assert_eq!(w.read_all(file).await, [6; 300]);

    w.write(file, 0, &[7; 400], StableHow::Unstable).await.unwrap();
    w.call::<call::Remove>(Remove3Args { object: w.at(w.root, "g") }).await.unwrap();
    assert_eq!(w.read_all(file).await, [7; 400], "a name went, the file did not");

    w.write(file, 0, &[8; 500], StableHow::Unstable).await.unwrap();
    let how = CreateHow3::Unchecked(Sattr3 { size: Some(10), ..Sattr3::default() });
    let opened = w.call::<call::Create>(Create3Args { at: w.at(w.root, "h"), how }).await.unwrap();
    assert_eq!(opened.obj_attributes, Some(w.getattr(file).await));
    assert_eq!(w.read_all(file).await, [8; 10]);
}

#[tokio::test]
async fn removing_a_dirty_file_gives_everything_back_and_loses_nothing() {
    let mut w = World::new().await;
    let file = w.create(w.root, "f").await;
    let written = w.write_dirty(file, 0, &[1; 300_000]).await;
    assert!(w.blocks.reserved() > 0);
    w.call::<call::Remove>(Remove3Args { object: w.at(w.root, "f") }).await.unwrap();
    let stats = w.engine.stats();
    assert_eq!((stats.dirty_bytes, stats.dirty_files, w.blocks.reserved(), w.blocks.count()), (0, 0, 0, 0));
    assert_eq!(w.commit(file).await.unwrap_err().status, NfsStat3::Stale);
    w.crash().await;
    let other = w.create(w.root, "g").await;
    assert_eq!(w.write_dirty(other, 0, b"x").await.verf, written.verf, "nothing was lost");

    let file = w.create(w.root, "f").await;
    w.write(file, 0, &[1; 300_000], StableHow::Unstable).await.unwrap();
    w.call::<call::Rename>(Rename3Args { from: w.at(w.root, "g"), to: w.at(w.root, "f") }).await.unwrap();
    assert_eq!(w.blocks.reserved(), 0);
    let stale = w.call::<call::GetAttr>(GetAttr3Args { object: file }).await.unwrap_err();
    assert_eq!(stale.status, NfsStat3::Stale);
}

#[tokio::test]
async fn a_crash_moves_the_verifier_if_and_only_if_data_were_lost() {
    let mut w = World::new().await;
    let file = w.create(w.root, "f").await;
    let first = w.write_dirty(file, 0, &[1; 100]).await;
    w.commit(file).await.unwrap();
    w.crash().await;
    assert_eq!(w.commit(file).await.unwrap().verf, first.verf, "all was committed");
    assert_eq!(w.read_all(file).await, [1; 100]);

    let lost = w.write_dirty(file, 0, &[2; 100]).await;
    assert_eq!(lost.verf, first.verf);
    let shown = w.getattr(file).await;
    w.crash().await;
    let committed = w.commit(file).await.unwrap();
    assert_ne!(committed.verf, lost.verf);
    let now = w.getattr(file).await;
    assert!(
        now.ctime > shown.ctime && now.mtime > shown.mtime,
        "what was shown is not shown again for other bytes"
    );
}

#[tokio::test]
async fn a_flush_that_fails_for_good_is_told() {
    for (no_space, status) in [(false, NfsStat3::Io), (true, NfsStat3::NoSpc)] {
        let w = World::new().await;
        let file = w.create(w.root, "f").await;
        w.write(file, 0, &[1; 100], StableHow::FileSync).await.unwrap();
        let written = w.write_dirty(file, 0, &[2; 300_000]).await;
        let shown = w.getattr(file).await;
        if no_space {
            w.blocks.fill(true);
        } else {
            w.blocks.fail_puts(1);
        }
        assert_eq!(w.commit(file).await.unwrap_err().status, status);
        w.blocks.fill(false);
        let after = w.commit(file).await.unwrap();
        assert_ne!(after.verf, written.verf);
        assert!(w.getattr(file).await.ctime > shown.ctime);
        assert_eq!(w.read_all(file).await, [1; 100], "what was stable is there");
        let stats = w.engine.stats();
        assert_eq!((stats.dirty_bytes, stats.dirty_files, w.blocks.reserved()), (0, 0, 0));
        w.write_dirty(file, 0, &[3; 300_000]).await;
        w.commit(file).await.unwrap();
        assert_eq!(w.read_all(file).await, vec![3; 300_000]);
    }
}

#[tokio::test]
async fn a_loss_in_the_background_is_told_to_the_next_commit() {
    let w = World::new().await;
    let file = w.create(w.root, "f").await;
    let written = w.write_dirty(file, 0, &[2; 300_000]).await;
    w.blocks.fail_puts(1);
    assert_eq!(w.engine.flush_all().await, 1);
    assert_eq!(w.commit(file).await.unwrap_err().status, NfsStat3::Io);
    assert_ne!(w.commit(file).await.unwrap().verf, written.verf);
}

#[tokio::test(start_paused = true)]
async fn a_flush_whose_outcome_is_unknown_is_repeated() {
    let w = World::new().await;
    let file = w.create(w.root, "f").await;
    let is_flush = |op: &Op| matches!(op, Op::Write { flush: Some(_), .. });
    let written = w.write_dirty(file, 0, &[2; 300_000]).await;
    w.meta.fail_next(is_flush, Fault::LostAfter);
    w.meta.fail_next(is_flush, Fault::LostBefore);
    assert_eq!(w.commit(file).await.unwrap().verf, written.verf);
    assert_eq!(w.read_all(file).await, vec![2; 300_000]);
    assert_eq!((w.engine.stats().dirty_files, w.blocks.reserved()), (0, 0));
    let written = w.write_dirty(file, 0, &[3; 10]).await;
    w.meta.fail_next(is_flush, Fault::Refused(FsError::NoSpace));
    assert_eq!(w.commit(file).await.unwrap_err().status, NfsStat3::NoSpc);
    assert_ne!(w.commit(file).await.unwrap().verf, written.verf);
}

#[tokio::test]
async fn stable_writes_report_what_the_block_store_says() {
    let w = World::new().await;
    let file = w.create(w.root, "f").await;
    let before = w.getattr(file).await;
    w.blocks.fill(true);
    let refused = w.write(file, 0, &[1; 200_000], StableHow::FileSync).await.unwrap_err();
    assert_eq!((refused.status, refused.detail.after), (NfsStat3::NoSpc, Some(before)));
    w.write(file, 0, &[1; 100], StableHow::FileSync).await.expect("small data need no block");
    w.blocks.fill(false);
    w.blocks.fail_puts(1);
    let refused = w.write(file, 0, &[1; 200_000], StableHow::FileSync).await.unwrap_err();
    assert_eq!(refused.status, NfsStat3::Io);
    w.meta.fail_next(|op| matches!(op, Op::Write { .. }), Fault::Refused(FsError::NoSpace));
    let refused = w.write(file, 0, &[1; 200_000], StableHow::FileSync).await.unwrap_err();
    assert_eq!(refused.status, NfsStat3::NoSpc);
    assert_eq!((w.blocks.count(), w.blocks.reserved()), (0, 0), "blocks of refused writes are removed");
}

#[tokio::test]
async fn missing_blocks_are_looked_for_again_and_damage_is_never_data() {
    let w = World::new().await;
    let file = w.create(w.root, "f").await;
    w.write(file, 0, &[1; 200_000], StableHow::FileSync).await.unwrap();
    w.blocks.hide_once();
    assert_eq!(w.read_all(file).await, vec![1; 200_000]);
    w.blocks.rot();
    let refused = w.read(file, 0, 1000).await.unwrap_err();
    assert_eq!(refused.status, NfsStat3::Io);
    assert!(refused.detail.is_some());
}

#[tokio::test(start_paused = true)]
async fn old_data_are_flushed_unasked() {
    let mut w = World::new().await;
    let file = w.create(w.root, "f").await;
    let written = w.write_dirty(file, 0, &[1; 300_000]).await;
    tokio::time::sleep(Duration::from_secs(7)).await;
    assert_eq!(w.engine.stats().dirty_files, 0);
    w.crash().await;
    assert_eq!(w.commit(file).await.unwrap().verf, written.verf);
    assert_eq!(w.read_all(file).await, vec![1; 300_000]);
}

#[tokio::test(start_paused = true)]
async fn memory_is_bounded_by_making_writers_wait() {
    let config = Config { dirty_max: 4 << 20, ..Config::default() };
    let w = World::with(config, Some(11)).await;
    let w = std::sync::Arc::new(w);
    let mut writers = tokio::task::JoinSet::new();
    for n in 0..4u64 {
        let file = w.create(w.root, &n.to_string()).await;
        let w = w.clone();
        writers.spawn(async move {
            for i in 0..16 {
                w.write(file, i << 20, &vec![n as u8; 1 << 20], StableHow::Unstable).await.unwrap();
                assert!(w.engine.stats().dirty_bytes <= 5 << 20);
            }
            assert_eq!(w.read_all(file).await, vec![n as u8; 16 << 20]);
        });
    }
    while let Some(done) = writers.join_next().await {
        done.unwrap();
    }
    w.engine.flush_all().await;
    assert_eq!((w.engine.stats().dirty_bytes, w.blocks.reserved()), (0, 0));
}

#[tokio::test]
async fn a_full_store_refuses_unstable_data_at_once() {
    let w = World::new().await;
    let file = w.create(w.root, "f").await;
    let other = w.create(w.root, "g").await;
    w.write_dirty(file, 0, &[1; 1000]).await;
    use atoll_base::block::BlockService;
    let room = (1 << 30) - w.blocks.reserved();
    w.blocks.reserve(room).unwrap();
    let refused = w.write(file, 0, &[1; 1000], StableHow::Unstable).await.unwrap_err();
    assert_eq!((refused.status, refused.detail.after), (NfsStat3::NoSpc, Some(w.getattr(file).await)));
    let refused = w.write(other, 0, &[1; 100_000], StableHow::Unstable).await.unwrap_err();
    assert_eq!(refused.status, NfsStat3::NoSpc);
    w.commit(file).await.expect("room was reserved for what was accepted");
    w.blocks.release(room);
}

#[tokio::test]
async fn renames_of_dirty_files_do_not_wait_for_each_other() {
    let w = std::sync::Arc::new(World::with(Config::default(), Some(21)).await);
    let (a, b) = (w.create(w.root, "a").await, w.create(w.root, "b").await);
    for (file, name) in [(a, "a2"), (b, "b2")] {
        w.call::<call::Link>(Link3Args { file, link: w.at(w.root, name) }).await.unwrap();
    }
    let mut tasks = tokio::task::JoinSet::new();
    for file in [a, a, b, b] {
        let w = w.clone();
        tasks.spawn(async move {
            for i in 0..200 {
                let written = w.write(file, i, b"x", StableHow::Unstable).await;
                written.map_or_else(|f| assert_eq!(f.status, NfsStat3::Stale), |_| ());
            }
        });
    }
    for (from, to) in [("a", "a2"), ("b", "b2"), ("a", "b"), ("b", "a"), ("a2", "b2"), ("b2", "a2")] {
        let w = w.clone();
        tasks.spawn(async move {
            for _ in 0..60 {
                let args = Rename3Args { from: w.at(w.root, from), to: w.at(w.root, to) };
                let renamed = w.call::<call::Rename>(args).await;
                renamed.map_or_else(|f| assert_eq!(f.status, NfsStat3::NoEnt), |_| ());
                let link = Link3Args { file: if from == "a" { a } else { b }, link: w.at(w.root, from) };
                let _exists_or_stale = w.call::<call::Link>(link).await;
            }
        });
    }
    let all = async { while tasks.join_next().await.is_some_and(|done| done.is_ok()) {} };
    tokio::time::timeout(Duration::from_secs(60), all).await.expect("nobody waits for ever");
    w.engine.flush_all().await;
    assert_eq!((w.engine.stats().dirty_files, w.engine.stats().dirty_bytes, w.blocks.reserved()), (0, 0, 0));
}

/// The store is read before the flush and its answer used after it: still nothing older is shown than what the flush
/// brought in, for that was shown before.
#[tokio::test]
async fn a_flush_in_the_middle_of_a_read_hides_nothing() {
    let w = std::sync::Arc::new(World::new().await);
    let file = w.create(w.root, "f").await;
    for round in 1..=3u8 {
        w.write_dirty(file, 0, &[100; 1000]).await;
        w.write(file, 0, &[round; 1000], StableHow::Unstable).await.unwrap();
        let shown = w.getattr(file).await;
        let gate = w.meta.hold_next_read();
        let reading = {
            let w = w.clone();
            tokio::spawn(async move {
                match round {
                    1 => assert_eq!(w.read(file, 0, 1000).await.unwrap().data[..], [1; 1000]),
                    2 => assert_eq!(w.getattr(file).await.wcc(), shown.wcc()),
                    _ => {
                        let found = w.lookup(w.root, "f").await.unwrap();
                        assert_eq!(found.obj_attributes.map(|a| a.wcc()), Some(shown.wcc()));
                    }
                }
            })
        };
        gate.reached.notified().await;
        w.commit(file).await.unwrap();
        assert_eq!(w.engine.stats().dirty_files, 0);
        gate.go_on.notify_one();
        reading.await.unwrap();
        // So that the next round's data differ in length too.
        w.write(file, 1000, &[0; 10], StableHow::FileSync).await.unwrap();
    }
}

/// With more files than there is room for: the log has failed, so the verifier does not tell either.
#[tokio::test]
async fn a_loss_that_nothing_has_room_for_is_told_all_the_same() {
    let w = World::new().await;
    let file = w.create(w.root, "f").await;
    w.write_dirty(file, 0, b"data").await;
    for n in 0..4096 {
        let other = Ino(1 << 40 | n);
        w.engine.dirty.refused.add_untold(other, w.meta.verifier());
        w.engine.dirty.set_lost(other, FsError::Io);
    }
    // As often as a refused batch is sent, and the word of its loss.
    for _ in 0..6 {
        w.meta.fail_next(|_| true, Fault::Refused(FsError::Io));
    }
    assert_eq!(w.engine.flush_all().await, 1);
    assert_eq!((w.engine.stats().dirty_files, w.blocks.reserved()), (0, 0));
    for _ in 0..2 {
        assert_eq!(w.commit(file).await.unwrap_err().status, NfsStat3::Io);
    }
}

#[tokio::test]
async fn ceilings_are_kept() {
    let w = World::new().await;
    let file = w.create(w.root, "f").await;
    w.write_dirty(file, 0, b"a").await;
    w.meta.take_executed();
    // Beyond the time that the lease covers.
    w.meta.advance(3600 * 1_000_000_000);
    let written = w.write(file, 1, b"b", StableHow::Unstable).await.unwrap();
    let executed = w.meta.take_executed();
    assert!(matches!(executed[..], [atoll_meta::Call { op: Op::BeginDirty { .. }, .. }]), "{executed:?}");
    w.commit(file).await.unwrap();
    assert_eq!(written.file_wcc.after.map(|a| a.wcc()), Some(w.getattr(file).await.wcc()));
    assert_eq!(w.read_all(file).await, b"ab");
}
