//! When the store flushes, what batches and readers see of it, and what a failure leaves.

use super::*;
use std::sync::atomic::{AtomicBool, Ordering};

#[test]
fn an_idle_store_does_not_touch_the_disk() {
    let disk = SimDisk::new();
    let store = open(&disk).unwrap();
    batch(&store, 1).unwrap();
    assert_eq!(store.durable(), None);
    assert_eq!(store.commit_durable().unwrap(), Some(log_id(1)));
    let operations = disk.operations();
    assert_eq!(store.commit_durable().unwrap(), Some(log_id(1)));
    assert_eq!(disk.operations(), operations);
    batch(&store, 2).unwrap();
    assert_eq!(disk.operations(), operations, "a batch goes to memory");
    assert_eq!(store.durable(), Some(log_id(1)));
}

#[test]
fn what_gathers_is_flushed_without_being_told() {
    let store = open_with(&SimDisk::new(), Config { flush_bytes: 8 << 10, ..SIZES }).unwrap();
    let (flushed, flushes) = std::sync::mpsc::channel();
    store.on_flush(move || {
        let _nobody_waits = flushed.send(());
    });
    for i in 1..100 {
        batch(&store, i).unwrap();
    }
    flushes.recv().unwrap();
    assert!(store.durable().is_some());
    assert_eq!(store.commit_durable().unwrap(), Some(log_id(99)));
    assert_eq!(contents(&store.view()), expected(99));
}

#[test]
fn a_failed_flush_ends_changes_but_not_reading() {
    // With a bound that makes batches wait for the flush that fails, too: none may wait for ever.
    for flush_bytes in [1, 8 << 10, usize::MAX] {
        let disk = SimDisk::new();
        let store = open_with(&disk, Config { flush_bytes, ..SIZES }).unwrap();
        disk.fail_next_sync(SYNC_STATE);
        let mut written = 0;
        while written < 100 && batch(&store, written + 1).is_ok() {
            written += 1;
        }
        assert!(store.commit_durable().is_err());
        assert!(batch(&store, written + 1).is_err());
        assert!(store.commit_durable().is_err(), "the disk would work again, but nobody knows what it holds");
        assert!(store.freed_bytes().is_err());
        assert_eq!(store.durable(), None);
        let view = store.view();
        assert_eq!((applied(&view), contents(&view)), (written, expected(written)));
    }
}

/// Batch `i` sets rows in several tables to `i`; so of any view, all must say the same.
#[test]
fn readers_see_whole_batches_whatever_is_flushed() {
    const ROWS: u64 = 50;
    const TABLES: [Table; 3] = [Table::Inode, Table::Extent, Table::Block];
    let store = open_with(&SimDisk::new(), Config { flush_bytes: 16 << 10, ..SIZES }).unwrap();
    let write = |i: u64| {
        store.write(|state| {
            for row in 0..ROWS {
                for table in TABLES {
                    // Now and then rows go, and others come.
                    if (row + i).is_multiple_of(7) {
                        state.delete(table, &row.to_be_bytes())?;
                    } else {
                        state.put(table, &row.to_be_bytes(), &i.to_be_bytes())?;
                    }
                }
            }
            state.set_applied(log_id(i));
            Ok(())
        })
    };
    write(1).unwrap();
    let done = AtomicBool::new(false);
    let read = || {
        let (mut last, mut view) = (0, store.view());
        while !done.load(Ordering::Relaxed) || applied(&view) < 400 {
            let i = applied(&view);
            assert!(i >= last);
            last = i;
            let rows: Vec<_> = (0..ROWS).filter(|row| !(row + i).is_multiple_of(7)).collect();
            for table in TABLES {
                let (mut there, mut back) = (Vec::new(), Vec::new());
                let collect = |rows: &mut Vec<u64>, key: &[u8], value: &[u8]| {
                    assert_eq!(number(value), i);
                    rows.push(number(key));
                    ControlFlow::Continue(())
                };
                let kv = view.reader();
                kv.scan(table, Bound::Unbounded, Bound::Unbounded, |k, v| collect(&mut there, k, v)).unwrap();
                kv.scan_back(table, Bound::Unbounded, Bound::Unbounded, |k, v| collect(&mut back, k, v))
                    .unwrap();
                back.reverse();
                assert_eq!(there, rows);
                assert_eq!(back, rows);
                for row in 0..ROWS {
                    let value = kv.get(table, &row.to_be_bytes(), |v| v.map(number)).unwrap();
                    assert_eq!(value, rows.contains(&row).then_some(i));
                }
            }
            view = match view.refreshed() {
                Some(refreshed) if i.is_multiple_of(2) => refreshed,
                _ => store.view(),
            };
        }
    };
    std::thread::scope(|threads| {
        for _ in 0..2 {
            threads.spawn(read);
        }
        for i in 2..=400 {
            write(i).unwrap();
            if i.is_multiple_of(50) {
                store.commit_durable().unwrap();
            }
        }
        done.store(true, Ordering::Relaxed);
    });
}

#[test]
fn room_that_deleted_records_leave_is_seen() {
    let store = open(&SimDisk::new()).unwrap();
    let rows = |value: Option<&[u8]>| {
        let write = |state: &mut StateWriter<'_>| {
            for i in 0..500u64 {
                match value {
                    Some(value) => state.put(Table::Extent, &i.to_be_bytes(), value)?,
                    None => state.delete(Table::Extent, &i.to_be_bytes())?,
                }
            }
            Ok(())
        };
        store.write(write).unwrap();
    };
    rows(Some(&[3; 4000]));
    assert_eq!(store.freed_bytes().unwrap(), 0);
    rows(None);
    assert!(store.freed_bytes().unwrap() > 500 * 4000 / 2);
}
