//! Rows in the place of others: with the same bounds, of a longer one's beginning, and as many as one command takes out.

use super::rig::{Rig, rows_of};
use crate::kv::Table;
use crate::limits::{INLINE_HEAD, PAGE, WRITE_ROWS_MAX};
use crate::record::File;
use crate::{read, store};
use atoll_base::access::Cred;
use atoll_base::id::{Epoch, Ino};
use atoll_meta::Piece;

const E: Epoch = Epoch(1);
const ROWS: u64 = WRITE_ROWS_MAX as u64;

fn file(rig: &Rig, ino: Ino) -> File {
    store::inode(&rig.kv, ino).unwrap().unwrap().file.unwrap()
}

/// A block row for each of the first bytes.
fn of_single_bytes(rig: &mut Rig, name: &str, rows: u64) -> atoll_base::attr::Attr {
    let f = rig.file(name);
    for i in 0..rows {
        let piece = rig.block(E, i, &[1]);
        rig.write(&Cred::root(), &f, vec![piece]).unwrap();
    }
    f
}

#[test]
fn as_many_rows_as_bytes_are_taken_out_without_a_cut() {
    let mut rig = Rig::new();
    for (len, cuts) in [(ROWS, 0), (ROWS + 1, 1)] {
        // In one run, in two, and over rows that are dead.
        let f = of_single_bytes(&mut rig, &format!("whole{len}"), ROWS + 4);
        let whole = rig.block(E, 0, &vec![2; len as usize]);
        rig.write(&Cred::root(), &f, vec![whole]).unwrap();
        assert_eq!(file(&rig, f.ino).cuts.len(), cuts);
        let g = of_single_bytes(&mut rig, &format!("parts{len}"), ROWS + 4);
        let parts = [rig.block(E, 0, &[2; 3]), rig.block(E, 4, &vec![2; len as usize - 3])];
        rig.write(&Cred::root(), &g, parts.into()).unwrap();
        assert_eq!(file(&rig, g.ino).cuts.len(), cuts);
        let again = rig.block(E, 0, &[3; ROWS as usize]);
        rig.write(&Cred::root(), &f, vec![again]).unwrap();
        assert_eq!(file(&rig, f.ino).cuts.len(), cuts);
        rig.check();
        let rest = |from: u64| vec![1; (ROWS + 4 - from) as usize];
        let expected = [vec![3; ROWS as usize], vec![2; (len - ROWS) as usize], rest(len)].concat();
        assert_eq!(rig.content(f.ino), expected);
        assert_eq!(
            rig.content(g.ino),
            [vec![2; 3], vec![1], vec![2; len as usize - 3], rest(len + 1)].concat()
        );
    }
}

#[test]
fn a_row_takes_the_place_of_one_with_its_bounds() {
    let mut rig = Rig::new();
    let f = rig.file("f");
    let long = PAGE as usize;
    assert!(long > INLINE_HEAD);
    let pieces: [fn(&mut Rig, &[u8]) -> Piece; 2] =
        [|rig, bytes| rig.inline(PAGE, bytes), |rig, bytes| rig.block(E, PAGE, bytes)];
    // Each kind after each.
    for (i, kind) in [0, 0, 1, 1, 0].into_iter().enumerate() {
        let bytes = vec![i as u8 + 1; long];
        let piece = pieces[kind](&mut rig, &bytes);
        rig.write(&Cred::root(), &f, vec![piece]).unwrap();
        assert_eq!(rig.content(f.ino)[long..], bytes);
        let counted = file(&rig, f.ino);
        let inline = [PAGE, 0][kind];
        assert_eq!((counted.extents, counted.inline_bytes, rig.attr(f.ino).used), (1, inline, PAGE));
        assert_eq!(rows_of(&rig.kv, Table::Inline).len(), [1, 0][kind]);
        rig.check();
    }
    assert_eq!(read::garbage(&rig.kv, None, 9).unwrap().len(), 2);
}

#[test]
fn of_a_longer_row_the_rest_stays() {
    let mut rig = Rig::new();
    let (long, page) = (3 * PAGE as usize, PAGE as usize);
    for inline in [false, true] {
        let f = rig.file(&format!("f{inline}"));
        let whole = if inline { rig.inline(0, &vec![1; long]) } else { rig.block(E, 0, &vec![1; long]) };
        rig.write(&Cred::root(), &f, vec![whole]).unwrap();
        let piece = rig.inline(0, &vec![2; page]);
        rig.write(&Cred::root(), &f, vec![piece]).unwrap();
        assert_eq!(rig.content(f.ino), [vec![2; page], vec![1; long - page]].concat());
        assert_eq!((file(&rig, f.ino).extents, rig.attr(f.ino).used), (2, 3 * PAGE));
        rig.check();
    }
    // Where no rows are left to be taken out, it is cut, though it is one.
    let f = of_single_bytes(&mut rig, "f", ROWS);
    let row = rig.block(E, 2 * PAGE, &[1; 8]);
    rig.write(&Cred::root(), &f, vec![row]).unwrap();
    let pieces = [rig.block(E, 0, &[2; ROWS as usize]), rig.block(E, 2 * PAGE, &[2; 3])];
    rig.write(&Cred::root(), &f, pieces.into()).unwrap();
    assert_eq!(file(&rig, f.ino).cuts.len(), 1);
    assert_eq!(rig.content(f.ino)[2 * page..], [2, 2, 2, 1, 1, 1, 1, 1]);
    rig.check();
}
