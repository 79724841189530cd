#![allow(clippy::unwrap_used)]

use super::super::{DIRECT_ALIGN, read_exact_at};
use super::*;
use std::collections::BTreeSet;
use std::io::IoSlice;

fn write(file: &dyn File, offset: u64, data: &[u8]) {
    file.write_at(&[IoSlice::new(data)], offset).unwrap();
}

fn contents(disk: &SimDisk, path: &str) -> Option<Vec<u8>> {
    let file = disk.open(Path::new(path), Open::Read).ok()?;
    let mut buf = vec![0; file.len().unwrap() as usize];
    read_exact_at(&*file, &mut buf, 0).unwrap();
    Some(buf)
}

fn create(disk: &SimDisk, path: &str) -> Arc<dyn File> {
    disk.open(Path::new(path), Open::CreateNew).unwrap()
}

/// A file with its entry and these bytes durable.
fn durable(disk: &SimDisk, path: &str, data: &[u8]) -> Arc<dyn File> {
    let file = create(disk, path);
    write(&*file, 0, data);
    file.sync("data").unwrap();
    disk.sync_dir(Path::new(path).parent().unwrap(), "dir").unwrap();
    file
}

/// What `look` sees after each of many crashes of a disk that `prepare` made.
fn outcomes<T: Ord>(prepare: impl Fn(&SimDisk), look: impl Fn(&SimDisk) -> T) -> BTreeSet<T> {
    let of = |seed| {
        let disk = SimDisk::new();
        prepare(&disk);
        look(&disk.crash(seed))
    };
    (0..1500).map(of).collect()
}

#[test]
fn synced_bytes_survive_and_handles_die() {
    let disk = SimDisk::new();
    let file = durable(&disk, "a", &[7; 10_000]);
    let after = disk.crash(1);
    assert_eq!(contents(&after, "a").unwrap(), [7; 10_000]);
    assert!(file.len().is_err());
    assert!(file.read_at(&mut [0], 0).is_err());
    assert!(file.write_at(&[IoSlice::new(b"x")], 0).is_err());
    assert!(file.sync("data").is_err());
    assert!(disk.list(Path::new("")).is_err());
    assert!(disk.open(Path::new("a"), Open::Read).is_err());
    assert_eq!(contents(&after.crash(2), "a").unwrap(), [7; 10_000], "a second crash finds all durable");
}

#[test]
fn a_write_is_kept_dropped_or_torn_at_sectors() {
    let seen = outcomes(
        |disk| write(&*durable(disk, "a", &[1; 2048]), 256, &[2; 1024]),
        |disk| contents(disk, "a").unwrap(),
    );
    // Sectors 0 (its second half), 1 and 2 (its first half): eight subsets, and nothing else.
    assert_eq!(seen.len(), 8);
    for data in seen {
        for (range, sector) in [(256..512, 0), (512..1024, 1), (1024..1280, 2)] {
            assert!(data[range.clone()].iter().all(|b| *b == data[range.start]), "sector {sector} is whole");
        }
        assert!(data[..256].iter().chain(&data[1280..]).all(|b| *b == 1));
        assert_eq!(data.len(), 2048);
    }
}

#[test]
fn the_length_survives_apart_from_the_data() {
    let seen = outcomes(
        |disk| write(&*durable(disk, "a", &[1; 512]), 512, &[2; 1024]),
        |disk| contents(disk, "a").unwrap(),
    );
    let lengths: BTreeSet<usize> = seen.iter().map(Vec::len).collect();
    assert!(lengths.contains(&512) && lengths.contains(&1536) && lengths.len() > 2);
    assert!(seen.iter().any(|d| d.len() == 1536 && d[512..1024] == [0; 512] && d[1024..] == [2; 512]));
    assert!(seen.iter().all(|d| d[..512] == [1; 512]));
}

#[test]
fn writes_survive_independently_of_their_order() {
    let seen = outcomes(
        |disk| {
            let file = durable(disk, "a", &[0; 1024]);
            write(&*file, 0, &[1; 512]);
            write(&*file, 512, &[2; 512]);
        },
        |disk| {
            let data = contents(disk, "a").unwrap();
            (data[0], data[512])
        },
    );
    assert_eq!(seen, BTreeSet::from([(0, 0), (1, 0), (0, 2), (1, 2)]));
}

#[test]
fn a_synced_file_without_its_entry_is_lost() {
    let seen = outcomes(
        |disk| {
            let file = create(disk, "a");
            write(&*file, 0, b"data");
            file.sync("data").unwrap();
        },
        |disk| contents(disk, "a"),
    );
    assert_eq!(seen, BTreeSet::from([None, Some(b"data".to_vec())]));
}

#[test]
fn an_entry_without_a_file_sync_has_any_data() {
    let seen = outcomes(
        |disk| {
            let file = create(disk, "a");
            write(&*file, 0, &[1; 1024]);
            disk.sync_dir(Path::new(""), "dir").unwrap();
        },
        |disk| contents(disk, "a").unwrap(),
    );
    assert!(seen.contains(&vec![]) && seen.contains(&vec![1; 1024]) && seen.len() > 4);
}

fn names(disk: &SimDisk, dir: &str) -> String {
    disk.list(Path::new(dir)).unwrap().into_iter().map(|e| e.name).collect::<Vec<_>>().join(" ")
}

#[test]
fn a_directory_keeps_a_prefix() {
    let seen = outcomes(
        |disk| {
            drop(create(disk, "a"));
            drop(create(disk, "b"));
            disk.sync_dir(Path::new(""), "dir").unwrap();
            drop(create(disk, "c"));
            disk.rename(Path::new("a"), Path::new("d")).unwrap();
            disk.remove(Path::new("b")).unwrap();
        },
        |disk| names(disk, ""),
    );
    let all = ["a b", "a b c", "b c d", "c d"].map(str::to_owned);
    assert_eq!(seen, BTreeSet::from(all));
}

/// `x/f` renamed to `y/f`, then the directories in `synced` synced, after `also` was made in `y`.
#[test]
fn a_malicious_disk_keeps_any_entries_but_those_of_one_name_in_order() {
    let seen = outcomes(
        |disk| {
            disk.set_malice(Malice { loose_entries: true, ..Malice::default() });
            create(disk, "a");
            create(disk, "b");
            disk.rename(Path::new("b"), Path::new("c")).unwrap();
        },
        |disk| names(disk, ""),
    );
    assert_eq!(seen, ["", "a", "b", "c", "a b", "a c"].map(String::from).into());
}

#[test]
fn a_process_killed_in_a_write_has_written_its_front() {
    let lengths: BTreeSet<u64> = (1..200)
        .map(|n| {
            let disk = SimDisk::new();
            disk.set_malice(Malice { cut_writes: true, ..Malice::default() });
            let file = create(&disk, "a");
            (1..n).for_each(|_| write(&*file, 0, &[]));
            disk.cut_power_after(0);
            assert!(file.write_at(&[IoSlice::new(&[3; 10_000])], 100).is_err());
            let found = contents(&disk.restart(), "a").unwrap();
            assert!(found.iter().skip(100).all(|b| *b == 3));
            found.len() as u64
        })
        .collect();
    assert_eq!(lengths, [0, 4096, 8192, 10_100].into());
}

#[test]
fn the_power_goes_at_the_chosen_sync() {
    let disk = SimDisk::new();
    let file = durable(&disk, "a", b"1");
    disk.cut_power_at("chosen", 1);
    file.sync("chosen").unwrap();
    write(&*file, 0, b"2");
    file.sync("other").unwrap();
    write(&*file, 0, b"3");
    assert!(file.sync("chosen").is_err() && disk.is_off());
    assert_eq!(contents(&disk.restart(), "a").unwrap(), b"3");
}

fn across(synced: &[&str], also: bool) -> BTreeSet<(String, String)> {
    outcomes(
        |disk| {
            disk.create_dir(Path::new("x")).unwrap();
            disk.create_dir(Path::new("y")).unwrap();
            disk.sync_dir(Path::new(""), "dir").unwrap();
            durable(disk, "x/f", b"f");
            disk.rename(Path::new("x/f"), Path::new("y/f")).unwrap();
            if also {
                drop(create(disk, "y/also"));
            }
            for dir in synced {
                disk.sync_dir(Path::new(dir), "dir").unwrap();
            }
        },
        |disk| (names(disk, "x"), names(disk, "y")),
    )
}

#[test]
fn a_rename_across_directories_is_one_operation() {
    let (before, after) = (("f".to_owned(), String::new()), (String::new(), "f".to_owned()));
    assert_eq!(across(&[], false), BTreeSet::from([before.clone(), after.clone()]));
    assert_eq!(across(&["y"], false), BTreeSet::from([before, after.clone()]), "one sync is not enough");
    assert_eq!(across(&["y", "x"], false), BTreeSet::from([after]));
    assert_eq!(across(&["y"], true), BTreeSet::from([(String::new(), "also f".to_owned())]));
}

#[test]
fn a_lost_directory_takes_what_it_holds() {
    let seen = outcomes(
        |disk| {
            disk.create_dir(Path::new("d")).unwrap();
            durable(disk, "d/f", b"f");
        },
        |disk| contents(disk, "d/f"),
    );
    assert_eq!(seen, BTreeSet::from([None, Some(b"f".to_vec())]));
}

#[test]
fn a_removed_file_may_come_back_with_its_bytes() {
    let seen = outcomes(
        |disk| {
            drop(durable(disk, "a", b"old"));
            disk.remove(Path::new("a")).unwrap();
        },
        |disk| contents(disk, "a"),
    );
    assert_eq!(seen, BTreeSet::from([None, Some(b"old".to_vec())]));
}

#[test]
fn a_file_without_entry_is_forgotten_with_its_last_handle() {
    let disk = SimDisk::new();
    let file = durable(&disk, "a", &[1; 8192]);
    disk.remove(Path::new("a")).unwrap();
    disk.sync_dir(Path::new(""), "dir").unwrap();
    let mut buf = [0; 2];
    assert_eq!(file.read_at(&mut buf, 0).unwrap(), 2);
    assert_eq!((buf, disk.lock().files.len()), ([1, 1], 1));
    drop(file);
    assert_eq!(disk.lock().files.len(), 0);
}

#[test]
fn the_power_goes_after_the_operations_counted() {
    let seen = outcomes(
        |disk| {
            let file = durable(disk, "a", &[0; 512]);
            disk.cut_power_after(1);
            write(&*file, 0, &[1; 512]);
            assert!(!disk.is_off());
            assert!(file.sync("data").is_err(), "the operation during which the power goes");
            assert!(disk.is_off());
            assert!(file.read_at(&mut [0], 0).is_err());
        },
        |disk| contents(disk, "a").unwrap()[0],
    );
    assert_eq!(seen, BTreeSet::from([0, 1]));
}

#[test]
fn the_write_during_which_the_power_goes_may_be_torn() {
    let seen = outcomes(
        |disk| {
            let file = durable(disk, "a", &[0; 1024]);
            disk.cut_power_after(0);
            assert!(file.write_at(&[IoSlice::new(&[1; 1024])], 0).is_err());
        },
        |disk| {
            let data = contents(disk, "a").unwrap();
            (data[0], data[512])
        },
    );
    assert_eq!(seen, BTreeSet::from([(0, 0), (1, 0), (0, 1), (1, 1)]));
}

#[test]
fn a_new_process_sees_what_the_old_one_wrote_but_it_is_not_durable() {
    let seen = outcomes(
        |disk| write(&*durable(disk, "a", &[0; 512]), 0, &[1; 512]),
        |disk| contents(disk, "a").unwrap()[0],
    );
    assert_eq!(seen, BTreeSet::from([0, 1]));
    for seed in 0..20 {
        let disk = SimDisk::new();
        let file = durable(&disk, "a", &[0; 512]);
        write(&*file, 0, &[1; 512]);
        let restarted = disk.restart();
        assert!(file.sync("data").is_err());
        assert_eq!(contents(&restarted, "a").unwrap()[0], 1);
        if seed % 2 == 0 {
            restarted.open(Path::new("a"), Open::Read).unwrap().sync("data").unwrap();
            assert_eq!(contents(&restarted.crash(seed), "a").unwrap()[0], 1);
        }
    }
}

#[test]
fn a_skipped_site_does_nothing_and_all_sites_are_counted() {
    let seen = outcomes(
        |disk| {
            disk.skip_site("data");
            durable(disk, "a", &[1; 512]);
        },
        |disk| {
            assert_eq!(disk.sites(), BTreeMap::from([("data", 1), ("dir", 1)]));
            contents(disk, "a").unwrap()
        },
    );
    assert!(seen.contains(&vec![]));
    let disk = SimDisk::new();
    disk.skip_site("dir");
    drop(durable(&disk, "a", b"x"));
    let lost = (0..50).any(|seed| contents(&disk.crash(seed), "a").is_none());
    assert!(lost);
}

#[test]
fn a_failed_sync_loses_the_pages_for_good() {
    let disk = SimDisk::new();
    let file = durable(&disk, "a", &[1; 1024]);
    write(&*file, 0, &[2; 512]);
    disk.fail_next_sync("data");
    assert_eq!(file.sync("data").unwrap_err().raw_os_error(), Some(5));
    assert_eq!(contents(&disk, "a").unwrap()[0], 2, "the cache still has them");
    write(&*file, 512, &[3; 512]);
    file.sync("data").unwrap();
    let data = contents(&disk.crash(0), "a").unwrap();
    assert_eq!((data[0], data[512]), (1, 3));
}

#[test]
fn a_full_disk_refuses_and_a_reservation_holds() {
    let disk = SimDisk::new();
    disk.set_capacity(4 * 4096);
    let file = create(&disk, "a");
    file.allocate(0, 3 * 4096).unwrap();
    assert_eq!((file.len().unwrap(), disk.used()), (3 * 4096, 3 * 4096));
    let other = create(&disk, "b");
    let error = other.write_at(&[IoSlice::new(&[1; 4097])], 0).unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::StorageFull);
    assert_eq!(other.len().unwrap(), 0);
    write(&*other, 0, &[1; 4096]);
    assert_eq!(disk.space().unwrap().available, 0);
    write(&*file, 0, &[1; 3 * 4096]);
    file.punch_hole(4096, 4096).unwrap();
    assert_eq!(disk.space().unwrap().available, 4096);
    disk.remove(Path::new("a")).unwrap();
    assert_eq!(disk.space().unwrap().available, 3 * 4096);
}

#[test]
fn punched_and_cut_ranges_read_as_zeros() {
    let disk = SimDisk::new();
    let file = durable(&disk, "a", &[1; 20_000]);
    file.punch_hole(100, 9000).unwrap();
    file.set_len(15_000).unwrap();
    file.set_len(20_000).unwrap();
    let mut expected = vec![1; 20_000];
    expected[100..9100].fill(0);
    expected[15_000..].fill(0);
    assert_eq!(contents(&disk, "a").unwrap(), expected);
    file.sync("data").unwrap();
    assert_eq!(contents(&disk.crash(3), "a").unwrap(), expected);
}

#[test]
fn rot_reaches_the_platter() {
    let disk = SimDisk::new();
    drop(durable(&disk, "a", &[1; 600]));
    disk.rot(Path::new("a"), 599, 0x80).unwrap();
    assert_eq!(contents(&disk, "a").unwrap()[599], 0x81);
    assert_eq!(contents(&disk.crash(0), "a").unwrap()[599], 0x81);
}

#[test]
fn a_read_handle_does_not_write() {
    let disk = SimDisk::new();
    drop(durable(&disk, "a", b"a"));
    let file = disk.open(Path::new("a"), Open::Read).unwrap();
    assert!(file.write_at(&[IoSlice::new(b"b")], 0).is_err());
    assert!(file.set_len(0).is_err());
    let failed = disk.open(Path::new("nowhere/a"), Open::Create);
    assert_eq!(failed.err().unwrap().kind(), io::ErrorKind::NotFound);
    let failed = disk.open(Path::new("a"), Open::CreateNew);
    assert_eq!(failed.err().unwrap().kind(), io::ErrorKind::AlreadyExists);
}

#[test]
fn the_same_seed_gives_the_same_platter() {
    let disk = SimDisk::new();
    let file = create(&disk, "a");
    write(&*file, 0, &[1; 9000]);
    for seed in 0..20 {
        assert_eq!(contents(&disk.crash(seed), "a"), contents(&disk.crash(seed), "a"));
    }
}

mod against_a_vector {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use proptest::prelude::*;

    #[derive(Clone, Debug)]
    enum Step {
        Write(usize, usize, u8),
        SetLen(usize),
        Allocate(usize, usize),
        Punch(usize, usize),
        /// A write that is durable by itself, in pages.
        Through(usize, usize, u8),
        Sync,
        Fail,
    }

    fn step() -> impl Strategy<Value = Step> {
        let at = 0..20_000usize;
        let len = 0..9_000usize;
        prop_oneof![
            4 => (at.clone(), len.clone(), 1u8..).prop_map(|(a, l, b)| Step::Write(a, l, b)),
            1 => at.clone().prop_map(Step::SetLen),
            1 => (at.clone(), len.clone()).prop_map(|(a, l)| Step::Allocate(a, l)),
            1 => (at, len).prop_map(|(a, l)| Step::Punch(a, l)),
            3 => (0..5usize, 1..3usize, 1u8..).prop_map(|(a, l, b)| Step::Through(a, l, b)),
            2 => Just(Step::Sync),
            1 => Just(Step::Fail),
        ]
    }

    fn apply(model: &mut Vec<u8>, step: &Step) {
        let grow = |model: &mut Vec<u8>, len| model.resize(model.len().max(len), 0);
        match *step {
            Step::Write(_, 0, _) | Step::Sync | Step::Fail => {}
            Step::Write(at, len, byte) => {
                grow(model, at + len);
                model[at..at + len].fill(byte);
            }
            Step::Through(at, len, byte) => {
                apply(model, &Step::Write(at * DIRECT_ALIGN, len * DIRECT_ALIGN, byte))
            }
            Step::SetLen(len) => model.resize(len, 0),
            Step::Allocate(at, len) => grow(model, at + len),
            Step::Punch(at, len) => {
                let end = (at + len).min(model.len());
                model[at.min(end)..end].fill(0);
            }
        }
    }

    proptest! {
        #[test]
        fn live_and_durable_images_are_what_the_steps_say(steps in prop::collection::vec(step(), 1..40)) {
            let disk = SimDisk::new();
            let file = durable(&disk, "a", b"");
            let (mut live, mut platter, mut pending) = (Vec::new(), Vec::new(), Vec::new());
            for step in steps.iter().chain([&Step::Sync]) {
                match *step {
                    Step::Write(at, len, byte) => write(&*file, at as u64, &vec![byte; len]),
                    Step::SetLen(len) => file.set_len(len as u64).unwrap(),
                    Step::Allocate(at, len) => file.allocate(at as u64, len as u64).unwrap(),
                    Step::Punch(at, len) => file.punch_hole(at as u64, len as u64).unwrap(),
                    Step::Through(at, len, byte) => {
                        let data = vec![byte; (len + 1) * DIRECT_ALIGN];
                        let start = data.as_ptr().align_offset(DIRECT_ALIGN);
                        let (part, at) = (start..start + len * DIRECT_ALIGN, (at * DIRECT_ALIGN) as u64);
                        let write = file.begin_synced_write(data, part.clone(), at, "data");
                        let (_, done) = write.unwrap_or_else(|_| panic!("it is aligned")).wait();
                        prop_assert_eq!(done.unwrap(), part.len());
                        // A hole of no length is none.
                        let is_other = |s: &Step| {
                            matches!(s, Step::SetLen(_) | Step::Allocate(..) | Step::Punch(_, 1..))
                        };
                        if pending.iter().any(is_other) {
                            pending.drain(..).for_each(|s| apply(&mut platter, &s));
                        }
                        apply(&mut platter, step);
                    }
                    Step::Sync => {
                        file.sync("data").unwrap();
                        pending.drain(..).for_each(|s| apply(&mut platter, &s));
                    }
                    Step::Fail => {
                        disk.fail_next_sync("data");
                        file.sync("data").unwrap_err();
                        pending.clear();
                    }
                }
                // A hole is punched as far as the file reaches now.
                // (One that went through is put on top of what is older once more.)
                pending.push(match *step {
                    Step::Punch(at, len) => Step::Punch(at, len.min(live.len().saturating_sub(at))),
                    ref other => other.clone(),
                });
                apply(&mut live, step);
                prop_assert!(contents(&disk, "a").unwrap() == live);
                prop_assert_eq!(disk.used(), disk.lock().files.values().next().unwrap().live().allocated() * CHUNK);
            }
            prop_assert!(contents(&disk.crash(0), "a").unwrap() == platter);
        }
    }
}
