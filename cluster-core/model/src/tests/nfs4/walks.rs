//! Walks in steps: however small the steps, all is found, once.

use super::super::rig::{ROOT, Rig};
use super::{BOTH, range};
use crate::read::{self, Walked};
use atoll_base::id::Ino;
use atoll_lockd::LockMode::Exclusive;
use atoll_meta::nfs4::{ClientOp, StateId};
use std::collections::BTreeSet;

/// All that a walk finds, in steps of one to some rows.
fn in_steps<T: PartialEq + std::fmt::Debug, C>(
    mut step: impl FnMut(Option<C>, usize) -> Walked<T, C>,
) -> Vec<T> {
    let mut whole = |most| {
        let (mut found, mut after) = (Vec::new(), None);
        loop {
            let walked = step(after, most);
            found.extend(walked.found);
            after = walked.next;
            if after.is_none() {
                return found;
            }
        }
    };
    let all = whole(1000);
    for most in 1..=all.len() + 1 {
        assert_eq!(whole(most), all, "in steps of {most}");
    }
    all
}

#[test]
fn states_tables_and_names() {
    let mut rig = Rig::new();
    let files: Vec<_> = ["a", "b", "c", "d"].map(|name| rig.file(name)).into();
    let (client, _) = rig.v41("kept");
    let (other, _) = rig.v41("gone");
    for file in &files {
        let open = rig.open(client, "o", file, BOTH).unwrap();
        rig.lock4(client, open.id, "l", range(0, 10), Exclusive).unwrap();
        rig.open(other, "o", file, BOTH).unwrap();
    }
    rig.on_client(ClientOp::Expire(other)).unwrap();
    let states =
        in_steps(|after, most| read::all_states(&rig.kv, after.unwrap_or(StateId(0)), most).unwrap());
    assert_eq!(states.len(), 8);
    assert!(states.iter().all(|state| state.client == client));
    let tables = in_steps(|after, most| read::lock_tables(&rig.kv, after.unwrap_or(Ino(0)), most).unwrap());
    assert_eq!(
        tables.iter().map(|(ino, _)| *ino).collect::<Vec<_>>(),
        files.iter().map(|f| f.ino).collect::<Vec<_>>()
    );
    let wanted: BTreeSet<Ino> = files[1..3].iter().map(|f| f.ino).collect();
    for within in [None, Some(ROOT)] {
        let found =
            in_steps(|after, most| read::names(&rig.kv, within, after.as_ref(), &wanted, most).unwrap());
        let names: Vec<_> = found.iter().map(|(_, entry)| &entry.name[..]).collect();
        assert_eq!(names, [b"b", b"c"]);
    }
    let none = in_steps(|after, most| {
        read::names(&rig.kv, Some(files[0].ino), after.as_ref(), &wanted, most).unwrap()
    });
    assert_eq!(none, []);
}
