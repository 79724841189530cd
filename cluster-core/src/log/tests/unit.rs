//! One rule of the log per test.

use super::*;
use crate::log::segment;
use atoll_base::disk::Open;
use futures_util::FutureExt;
use std::path::PathBuf;

fn open(sim: &SimDisk) -> Wal {
    Wal::open(disk(sim), dir(), config()).unwrap()
}

fn by_hand(sim: &SimDisk) -> Wal {
    Wal::open_unattended(disk(sim), dir(), config()).unwrap()
}

fn append(wal: &Wal, entries: Vec<Entry>) -> Result<(), WalError> {
    wait(|done| wal.append(entries, done))
}

fn path(number: u64) -> PathBuf {
    dir().join(segment::name(number))
}

/// Where `needle` begins in a file.
fn find(sim: &SimDisk, path: &Path, needle: &[u8]) -> u64 {
    let file = sim.open(path, Open::Read).unwrap();
    let mut bytes = vec![0; file.len().unwrap() as usize];
    file.read_at(&mut bytes, 0).unwrap();
    bytes.windows(needle.len()).position(|w| w == needle).unwrap() as u64
}

fn damaged(result: Result<impl Sized, WalError>) -> (String, u64) {
    match result.map(|_| ()) {
        Err(WalError::Damaged { file, offset, .. }) => (file, offset),
        other => panic!("{other:?}"),
    }
}

/// An entry with 8 bytes that occur nowhere else.
fn marked(index: u64) -> (Entry, Vec<u8>) {
    let mark = format!("mark{index:04}").into_bytes();
    let mut entry = entry(1, index, &[]);
    entry.parts.push(Bytes::from(mark.clone()));
    (entry, mark)
}

#[test]
fn damage_before_a_durable_group_is_an_error_with_file_and_offset() {
    let sim = SimDisk::new();
    let wal = open(&sim);
    for index in 1..=3 {
        append(&wal, vec![marked(index).0]).unwrap();
    }
    std::mem::forget(wal);
    let sim = sim.restart();
    let at = find(&sim, &path(0), &marked(2).1);
    sim.rot(&path(0), at, 1).unwrap();
    let (file, offset) = damaged(Wal::open(disk(&sim), dir(), config()));
    assert_eq!(file, path(0).display().to_string());
    assert!(offset < at && at - offset < 100);
}

#[test]
fn damage_in_an_earlier_segment_is_an_error() {
    let sim = SimDisk::new();
    let wal = open(&sim);
    for index in 1..=20 {
        append(&wal, vec![entry(1, index, &[3000])]).unwrap();
    }
    append(&wal, vec![entry(1, 21, &[10])]).unwrap();
    drop(wal);
    let end = find(&sim, &path(0), &[0; 2000]);
    sim.rot(&path(0), end - 10, 4).unwrap();
    assert_eq!(damaged(Wal::open(disk(&sim), dir(), config())).0, path(0).display().to_string());
    sim.rot(&path(0), end - 10, 4).unwrap();
    assert_eq!(open(&sim).bounds().1, Some(id(1, 21)));
}

#[test]
fn a_missing_segment_is_an_error() {
    let sim = SimDisk::new();
    let wal = open(&sim);
    for index in 1..=20 {
        append(&wal, vec![entry(1, index, &[3000])]).unwrap();
    }
    drop(wal);
    sim.remove(&path(1)).unwrap();
    assert_eq!(damaged(Wal::open(disk(&sim), dir(), config())).0, path(1).display().to_string());
}

#[test]
fn after_a_close_damage_to_the_last_entry_is_an_error_too() {
    let sim = SimDisk::new();
    let wal = open(&sim);
    append(&wal, vec![marked(1).0]).unwrap();
    drop(wal);
    let at = find(&sim, &path(0), &marked(1).1);
    sim.rot(&path(0), at, 1).unwrap();
    damaged(Wal::open(disk(&sim), dir(), config()));
}

#[test]
fn a_torn_group_is_dropped_from_its_tear_and_never_comes_back() {
    let sim = SimDisk::new();
    let wal = by_hand(&sim);
    append_by_hand(&wal, vec![marked(1).0]);
    append_by_hand(&wal, vec![marked(2).0, marked(3).0, marked(4).0]);
    drop(wal);
    // As if the sector of entry 3 had not made it.
    let at = find(&sim, &path(0), &marked(3).1);
    sim.rot(&path(0), at, 1).unwrap();
    let wal = by_hand(&sim);
    assert_eq!(wal.bounds().1, Some(id(1, 2)));
    append_by_hand(&wal, vec![entry(2, 3, &[8])]);
    drop(wal);
    for _ in 0..2 {
        let wal = by_hand(&sim);
        assert_eq!(wal.bounds().1, Some(id(2, 3)));
        assert_eq!(wal.entries(0..9, usize::MAX).unwrap().len(), 3);
    }
}

fn append_by_hand(wal: &Wal, entries: Vec<Entry>) {
    wal.append(entries, Box::new(|result| result.unwrap())).unwrap();
    wal.step();
}

#[test]
fn what_a_voided_segment_held_never_comes_back() {
    let sim = SimDisk::new();
    let wal = by_hand(&sim);
    append_by_hand(&wal, vec![entry(1, 1, &[9000])]);
    // Does not fit into the first segment.
    append_by_hand(&wal, vec![entry(1, 2, &[9000]), entry(1, 3, &[40])]);
    drop(wal);
    // As if the sector with the checkpoint had not made it.
    sim.rot(&path(1), u64::from(segment::HEADER) + 20, 1).unwrap();
    let wal = by_hand(&sim);
    assert_eq!(wal.bounds().1, Some(id(1, 1)));
    append_by_hand(&wal, vec![entry(2, 2, &[9000])]);
    drop(wal);
    assert_eq!(by_hand(&sim).bounds().1, Some(id(2, 2)));
}

#[test]
fn entries_are_readable_before_they_are_written_however_small_the_cache() {
    let sim = SimDisk::new();
    let wal = by_hand(&sim);
    let entries: Vec<Entry> = (1..10).map(|index| entry(1, index, &[3000])).collect();
    for entry in &entries {
        wal.append(vec![entry.clone()], Box::new(|_| ())).unwrap();
    }
    assert_eq!(wal.entries(0..99, usize::MAX).unwrap(), entries);
    while wal.status().queued_bytes > 0 {
        wal.step();
    }
    assert!(wal.status().cache_bytes <= config().cache_bytes as u64);
    assert_eq!(wal.entries(0..99, usize::MAX).unwrap(), entries);
}

#[test]
fn rot_is_found_by_the_reader() {
    let sim = SimDisk::new();
    let wal = open(&sim);
    let (first, mark) = marked(1);
    append(&wal, vec![first]).unwrap();
    for index in 2..9 {
        append(&wal, vec![entry(1, index, &[2000])]).unwrap();
    }
    assert!(wal.cached(1..2, 1).is_none());
    assert_eq!(wal.entries(1..2, 1).unwrap()[0], marked(1).0);
    sim.rot(&path(0), find(&sim, &path(0), &mark), 1).unwrap();
    damaged(wal.entries(1..2, 1));
    assert_eq!(wal.entries(2..4, usize::MAX).unwrap().len(), 2);
}

#[test]
fn after_a_failed_sync_the_log_takes_nothing_more() {
    let sim = SimDisk::new();
    let wal = open(&sim);
    append(&wal, vec![entry(1, 1, &[10])]).unwrap();
    sim.fail_next_sync("wal.append");
    assert!(matches!(append(&wal, vec![entry(1, 2, &[10])]), Err(WalError::Failed(_))));
    for _ in 0..2 {
        let at_once = wal.append(vec![entry(1, 3, &[10])], Box::new(|_| panic!("not taken")));
        assert!(matches!(at_once, Err(WalError::Failed(_))));
    }
    assert!(matches!(wait(|done| wal.save_vote(Bytes::new(), done)), Err(WalError::Failed(_))));
    assert!(wal.status().failed.unwrap().contains("sync log/0000000000000000.wal"));
    drop(wal);
    assert_eq!(sim.sites()["wal.append"], 1, "no sync is tried after the failed one");
    let crashed = sim.crash(0);
    assert_eq!(open(&crashed).bounds().1, Some(id(1, 1)));
}

#[test]
fn after_a_failed_write_the_log_takes_nothing_more() {
    let sim = SimDisk::new();
    let wal = by_hand(&sim);
    append_by_hand(&wal, vec![entry(1, 1, &[10])]);
    let (tx, rx) = mpsc::channel();
    for index in 2..4 {
        let tx = tx.clone();
        wal.append(vec![entry(1, index, &[10])], Box::new(move |r| tx.send(r).unwrap())).unwrap();
    }
    sim.fail_next_writes(1);
    wal.step();
    for _ in 0..2 {
        assert!(matches!(rx.try_recv().unwrap(), Err(WalError::Failed(_))));
    }
    assert!(wal.append(vec![entry(1, 2, &[10])], Box::new(|_| ())).is_err());
}

#[test]
fn a_panic_in_a_callback_fails_the_log_instead_of_hanging_it() {
    let sim = SimDisk::new();
    let wal = open(&sim);
    wal.append(vec![entry(1, 1, &[])], Box::new(|_| panic!("on purpose"))).unwrap();
    // This one may be in the same group, whose callbacks are lost, or be refused.
    let (tx, rx) = mpsc::channel::<()>();
    let _ = wal.append(vec![entry(1, 2, &[])], Box::new(move |_| drop(tx)));
    rx.recv().unwrap_err();
    while wal.failed().is_none() {
        std::thread::yield_now();
    }
}

#[test]
fn what_a_failed_sync_lost_counts_only_after_it_was_written_again() {
    let sim = SimDisk::new();
    let wal = by_hand(&sim);
    append_by_hand(&wal, vec![entry(1, 1, &[10])]);
    wal.append(vec![entry(1, 2, &[10])], Box::new(|r| assert!(r.is_err()))).unwrap();
    sim.fail_next_sync("wal.append");
    wal.step();
    // The page cache still has the second entry, and takes it for clean.
    let sim = sim.restart();
    let wal = by_hand(&sim);
    assert_eq!(wal.bounds().1, Some(id(1, 2)));
    let sim = sim.crash(0);
    assert_eq!(by_hand(&sim).bounds().1, Some(id(1, 2)));
}

#[test]
fn a_renewed_header_that_a_failed_sync_lost_is_written_again() {
    let sim = SimDisk::new();
    // Spares, whose headers the next opening renews.
    by_hand(&sim).step();
    let sim = sim.restart();
    let wal = by_hand(&sim);
    wal.append(vec![entry(1, 1, &[10])], Box::new(|r| assert!(r.is_err()))).unwrap();
    sim.fail_next_sync("wal.append.file");
    wal.step();
    let sim = sim.restart();
    append_by_hand(&by_hand(&sim), vec![entry(1, 2, &[10])]);
    let sim = sim.crash(0);
    assert_eq!(by_hand(&sim).bounds().1, Some(id(1, 2)));
}

#[test]
fn what_a_purge_frees_is_used_again() {
    let sim = SimDisk::new();
    let wal = by_hand(&sim);
    for round in 0..20 {
        append_by_hand(&wal, vec![entry(1, round * 2 + 1, &[6000]), entry(1, round * 2 + 2, &[6000])]);
        wal.purge(id(1, round * 2 + 1), Box::new(|r| r.unwrap())).unwrap();
        wal.step();
        wal.maintain();
        let entries = wal.entries(0..u64::MAX, usize::MAX).unwrap();
        assert_eq!(entries, [entry(1, round * 2 + 2, &[6000])]);
    }
    assert!(sim.sites()["wal.segment.file"] < 30, "{:?}", sim.sites());
    assert!(wal.status().disk_bytes <= 6 * (16 << 10), "{:?}", wal.status());
    let last = wal.bounds();
    drop(wal);
    let wal = by_hand(&sim.crash(0));
    assert_eq!(wal.bounds(), last);
    assert_eq!(wal.entries(0..u64::MAX, usize::MAX).unwrap(), [entry(1, 40, &[6000])]);
}

#[test]
fn what_waits_together_is_one_sync() {
    let sim = SimDisk::new();
    let wal = by_hand(&sim);
    append_by_hand(&wal, vec![entry(1, 1, &[10])]);
    let before = wal.status();
    let (tx, rx) = mpsc::channel();
    for index in 2..12 {
        let tx = tx.clone();
        wal.append(vec![entry(1, index, &[10])], Box::new(move |_| tx.send(index).unwrap())).unwrap();
    }
    assert!(rx.try_recv().is_err());
    assert_eq!(wal.entries(2..12, usize::MAX).unwrap().len(), 10, "readable before they are durable");
    wal.step();
    assert_eq!(rx.try_iter().collect::<Vec<_>>(), (2..12).collect::<Vec<_>>());
    let after = wal.status();
    assert_eq!((after.appends - before.appends, after.syncs - before.syncs), (10, 1));
}

#[test]
fn a_full_queue_makes_tasks_wait() {
    let sim = SimDisk::new();
    let wal = by_hand(&sim);
    append_by_hand(&wal, vec![entry(1, 1, &[10])]);
    wal.step();
    assert!(wal.room().now_or_never().is_some());
    let mut room = Box::pin(wal.room());
    let mut index = 2;
    while wal.status().queued_bytes < config().queue_bytes as u64 {
        wal.append(vec![entry(1, index, &[9000])], Box::new(|_| ())).unwrap();
        index += 1;
        if wal.status().spare_segments == 0 {
            wal.maintain();
        }
    }
    assert!(room.as_mut().now_or_never().is_none());
    while wal.status().queued_bytes > 0 {
        wal.step();
    }
    assert!(room.now_or_never().is_some());
}

#[test]
fn purged_segments_leave_the_disk() {
    let sim = SimDisk::new();
    let wal = open(&sim);
    for index in 1..=40 {
        append(&wal, vec![entry(1, index, &[3000])]).unwrap();
    }
    let before = wal.status();
    assert!(before.segments >= 10);
    wait(|done| wal.purge(id(1, 38), done)).unwrap();
    drop(wal);
    let wal = open(&sim);
    assert!(wal.status().segments <= 2);
    assert!(sim.used() < before.disk_bytes / 2);
    assert_eq!(wal.entries(0..99, usize::MAX).unwrap().len(), 2);
}

#[test]
fn a_full_disk_refuses_appends_lets_a_purge_through_and_recovers() {
    let sim = SimDisk::new();
    let wal = by_hand(&sim);
    append_by_hand(&wal, vec![entry(1, 1, &[10])]);
    wal.step();
    assert!(!wal.low_space());
    sim.set_capacity(sim.used() + 4096);
    let mut index = 1;
    let mut low_at = None;
    let refused = loop {
        let next = entry(1, index + 1, &[2000]);
        if let Err(error) = wal.append(vec![next], Box::new(|r| r.unwrap())) {
            break error;
        }
        wal.step();
        index += 1;
        if wal.low_space() {
            low_at.get_or_insert(index);
        }
    };
    assert!(matches!(refused, WalError::NoSpace), "{refused}");
    assert!(low_at.unwrap() < index - 3, "a whole segment is in reserve when space is low");
    assert_eq!(wal.bounds().1, Some(id(1, index)), "nothing of the refused entry is there");
    // The vote and a purge have room, also after a restart.
    drop(wal);
    let sim = sim.crash(1);
    let wal = by_hand(&sim);
    assert_eq!(wal.bounds().1, Some(id(1, index)));
    wal.save_vote(Bytes::from_static(b"v"), Box::new(|r| r.unwrap())).unwrap();
    wal.purge(id(1, index - 2), Box::new(|r| r.unwrap())).unwrap();
    for _ in 0..4 {
        wal.step();
    }
    assert!(!wal.low_space());
    append_by_hand(&wal, vec![entry(1, index + 1, &[2000])]);
    drop(wal);
    let wal = by_hand(&sim.crash(2));
    assert_eq!(wal.bounds(), (Some(id(1, index - 2)), Some(id(1, index + 1))));
    assert_eq!(wal.vote().unwrap(), Bytes::from_static(b"v"));
}

#[test]
fn a_request_larger_than_the_spare_segments_goes_through() {
    let sim = SimDisk::new();
    let wal = open(&sim);
    let entries: Vec<Entry> = (1..20).map(|index| entry(1, index, &[9000])).collect();
    append(&wal, entries.clone()).unwrap();
    drop(wal);
    assert_eq!(open(&sim.crash(0)).entries(0..99, usize::MAX).unwrap(), entries);
}

#[test]
fn sizes_and_order_are_checked() {
    let sim = SimDisk::new();
    let wal = open(&sim);
    let limit = config().max_entry_bytes();
    let mut largest = entry(1, 5, &[limit - 3 - 4]);
    append(&wal, vec![largest.clone()]).unwrap();
    assert_eq!(wal.entries(5..6, 0).unwrap(), [largest.clone()]);
    largest.id.index = 6;
    largest.head = Bytes::from_static(b"four");
    assert!(matches!(append(&wal, vec![largest]), Err(WalError::TooLarge { .. })));
    let hole = append(&wal, vec![entry(1, 7, &[])]);
    assert!(matches!(hole, Err(WalError::Hole { expected: 6, got: 7 })));
    let vote = Bytes::from(vec![0; 1025]);
    assert!(matches!(wait(|done| wal.save_vote(vote, done)), Err(WalError::TooLarge { .. })));
    append(&wal, vec![entry(1, 6, &[1])]).unwrap();
}

#[test]
fn the_commit_point_goes_with_the_next_entries_or_the_close() {
    let sim = SimDisk::new();
    let wal = open(&sim);
    append(&wal, vec![entry(1, 1, &[]), entry(1, 2, &[])]).unwrap();
    wal.set_committed(Some(id(1, 1)));
    append(&wal, vec![entry(1, 3, &[])]).unwrap();
    wal.set_committed(Some(id(1, 3)));
    let by_crash = sim.crash(0);
    assert_eq!(open(&by_crash).committed(), Some(id(1, 1)));
    drop(wal);

    let sim = SimDisk::new();
    let wal = open(&sim);
    append(&wal, vec![entry(1, 1, &[])]).unwrap();
    wal.set_committed(Some(id(1, 1)));
    drop(wal);
    assert_eq!(open(&sim.crash(0)).committed(), Some(id(1, 1)));
}

#[test]
fn a_foreign_file_and_a_broken_header_are_errors() {
    let sim = SimDisk::new();
    drop(open(&sim));
    sim.open(&dir().join("notes"), Open::Create).unwrap();
    assert!(damaged(Wal::open(disk(&sim), dir(), config())).0.ends_with("notes"));
    sim.remove(&dir().join("notes")).unwrap();
    let wal = open(&sim);
    append(&wal, vec![entry(1, 1, &[])]).unwrap();
    drop(wal);
    sim.rot(&path(0), 20, 1).unwrap();
    assert_eq!(damaged(Wal::open(disk(&sim), dir(), config())), (path(0).display().to_string(), 0));
}

#[test]
fn it_works_on_the_machine_s_own_file_system() {
    let root = std::env::temp_dir().join(format!("atoll-log-{}", std::process::id()));
    std::fs::create_dir(&root).unwrap();
    let real: Arc<dyn Disk> = Arc::new(atoll_base::disk::RealDisk::new(&root));
    let entries: Vec<Entry> = (1..30).map(|index| entry(1, index, &[5000, 10])).collect();
    for (i, entry) in entries.iter().enumerate() {
        let wal = Wal::open(real.clone(), dir(), config()).unwrap();
        assert_eq!(wal.entries(0..99, usize::MAX).unwrap(), entries[..i]);
        append(&wal, vec![entry.clone()]).unwrap();
    }
    let wal = Wal::open(real.clone(), dir(), config()).unwrap();
    wait(|done| wal.purge(id(1, 20), done)).unwrap();
    drop(wal);
    let wal = Wal::open(real, dir(), config()).unwrap();
    assert_eq!(wal.entries(0..99, usize::MAX).unwrap(), entries[20..]);
    drop(wal);
    std::fs::remove_dir_all(&root).unwrap();
}

#[test]
fn an_opening_reads_each_segment_once_and_the_last_twice() {
    use atoll_base::disk::wrap::{CountReads, WrapDisk};
    let sim = SimDisk::new();
    let wal = open(&sim);
    // Purged again and again, so that the segments that are left were used before.
    let last = 100;
    for index in 1..=last {
        append(&wal, vec![entry(1, index, &[3000])]).unwrap();
        if index % 8 == 0 {
            wait(|done| wal.purge(id(1, index - 4), done)).unwrap();
        }
    }
    std::mem::forget(wal);
    let sim = sim.restart();
    let files = sim.list(dir()).unwrap().len() as u64;
    let counted = CountReads::new(disk(&sim));
    let wal = Wal::open_unattended(Arc::new(WrapDisk(counted.clone())), dir(), config()).unwrap();
    assert_eq!(wal.bounds().1, Some(id(1, last)));
    let segment = u64::from(config().segment_bytes);
    // And the headers, and the last group, which is written again.
    assert!(counted.bytes() < (files + 2) * segment, "{} of {files} files", counted.bytes());
}
