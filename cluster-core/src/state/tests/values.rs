//! Large values, which lie beside redb's file.

use super::*;
use crate::state::values::FILE;
use proptest::prelude::*;

const ROWS: u64 = 60;

fn content(seed: u64, len: usize) -> Vec<u8> {
    (0..len as u64).map(|at| (seed.wrapping_mul(at / 3 + 7) >> 3) as u8).collect()
}

/// Sets rows to what their numbers and `round` make, of several sizes, and removes some.
fn write(store: &StateStore, round: u64) {
    let write = |state: &mut StateWriter<'_>| {
        for row in (0..ROWS).filter(|row| (row + round) % 3 != 1) {
            let key = row.to_be_bytes();
            match (row + round) % 7 {
                6 => state.delete(Table::Inline, &key)?,
                size => state.put(Table::Inline, &key, &content(row + round, 1 << (9 + size)))?,
            }
        }
        state.set_applied(log_id(round));
        Ok(())
    };
    store.write(write).unwrap();
}

fn rows(view: &View) -> Vec<(Vec<u8>, Vec<u8>)> {
    let mut rows = Vec::new();
    let collect = |key: &[u8], value: &[u8]| {
        rows.push((key.to_vec(), value.to_vec()));
        ControlFlow::Continue(())
    };
    view.reader().scan(Table::Inline, Bound::Unbounded, Bound::Unbounded, collect).unwrap();
    rows
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 16, ..ProptestConfig::default() })]

    /// Old states stay what they were while slots go from one value to another, also over a restart and a snapshot from elsewhere.
    #[test]
    fn every_state_keeps_its_values(steps in prop::collection::vec(0..10_u8, 1..40)) {
        let other = open(&SimDisk::new()).unwrap();
        write(&other, 1000);
        let frames = frames(&other);
        let disk = SimDisk::new();
        let mut store = open(&disk).unwrap();
        let mut views: Vec<(View, Vec<_>)> = Vec::new();
        let mut round = 0;
        for step in steps {
            match step {
                0..=5 => {
                    round += 1;
                    write(&store, round);
                    store.commit_durable().unwrap();
                    let view = store.view();
                    let rows = rows(&view);
                    views.push((view, rows));
                }
                6 if !views.is_empty() => drop(views.remove(0)),
                7 if !views.is_empty() => drop(views.pop()),
                8 => {
                    let before = rows(&store.view());
                    store.commit_durable().unwrap();
                    views.clear();
                    drop(store);
                    store = open(&disk).unwrap();
                    prop_assert_eq!(rows(&store.view()), before);
                }
                9 => {
                    let received = receive(&store, &frames).unwrap();
                    store.install(SnapshotData::Received(received)).unwrap();
                    prop_assert_eq!(rows(&store.view()), rows(&other.view()));
                }
                _ => {}
            }
            for (view, before) in &views {
                prop_assert_eq!(&rows(view), before);
            }
        }
    }
}

#[test]
fn slots_are_used_again_and_the_end_of_the_file_is_given_back() {
    let disk = SimDisk::new();
    let store = open(&disk).unwrap();
    let len = || disk.open(Path::new(FILE), Open::Read).unwrap().len().unwrap();
    for round in 0..60 {
        write(&store, round);
        store.commit_durable().unwrap();
    }
    assert!(len() < 60 << 20, "{} bytes of values", len());
    let fill = |value: Option<&[u8]>| {
        let write = |state: &mut StateWriter<'_>| {
            (0..40_u64).try_for_each(|row| match value {
                Some(value) => state.put(Table::Extent, &row.to_be_bytes(), value),
                None => state.delete(Table::Extent, &row.to_be_bytes()),
            })?;
            Ok(())
        };
        store.write(write).unwrap();
        store.commit_durable().unwrap();
    };
    fill(Some(&vec![5; 4 << 20]));
    assert!(len() > 160 << 20);
    fill(None);
    // What is let go is held for readers until the next flush but one.
    for round in 60..63 {
        write(&store, round);
        store.commit_durable().unwrap();
    }
    assert!(len() < 70 << 20, "{} bytes of values", len());
    let before = rows(&store.view());
    assert_eq!(rows(&open(&disk.restart()).unwrap().view()), before);
}

#[test]
fn damage_is_told_of_and_not_read() {
    let disk = SimDisk::new();
    let store = open(&disk).unwrap();
    store.write(|state| Ok(state.put(Table::Inline, b"key", &content(1, 9000))?)).unwrap();
    store.commit_durable().unwrap();
    let get = |key: &[u8]| store.view().reader().get(Table::Inline, key, |v| v.map(<[u8]>::to_vec));
    assert_eq!(get(b"key").unwrap(), Some(content(1, 9000)));
    disk.rot(Path::new(FILE), 8000, 4).unwrap();
    let error = get(b"key").unwrap_err().to_string();
    assert!(error.contains("checksum") && error.contains(FILE), "{error}");
    disk.open(Path::new(FILE), Open::ReadWrite).unwrap().set_len(4096).unwrap();
    assert!(get(b"key").is_err());
    let error = open(&disk.restart()).map(drop).unwrap_err().to_string();
    assert!(error.contains(FILE), "{error}");
}

#[test]
fn a_damaged_place_costs_its_slots_and_nothing_else() {
    let disk = SimDisk::new();
    let store = open(&disk).unwrap();
    let value = content(1, 9000);
    store.write(|state| Ok(state.put(Table::Inline, b"key", &value)?)).unwrap();
    store.commit_durable().unwrap();
    drop(store);
    let disk = disk.restart();
    // Length and checksum, as in the reference.
    let part = [9000_u32.to_le_bytes(), atoll_base::checksum::crc32c(&value).to_le_bytes()].concat();
    let file = disk.open(Path::new("state.redb"), Open::Read).unwrap();
    let mut all = vec![0; file.len().unwrap() as usize];
    atoll_base::disk::read_exact_at(&*file, &mut all, 0).unwrap();
    let places: Vec<_> = (0..all.len() - 8).filter(|at| all[*at..].starts_with(&part)).collect();
    assert!(!places.is_empty());
    for at in places {
        disk.rot(Path::new("state.redb"), at as u64, 4).unwrap();
    }
    let store = open(&disk).unwrap();
    let get =
        |store: &StateStore| store.view().reader().get(Table::Inline, b"key", |v| v.map(<[u8]>::to_vec));
    assert!(matches!(get(&store), Err(atoll_model::KvError::Damaged(_))));
    store.write(|state| Ok(state.put(Table::Inline, b"key", &content(2, 9000))?)).unwrap();
    store.commit_durable().unwrap();
    drop(store);
    let store = open(&disk.restart()).unwrap();
    assert_eq!(get(&store).unwrap(), Some(content(2, 9000)));
}
