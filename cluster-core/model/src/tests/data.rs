//! Extents: merging, cutting, blocks and what becomes of them, repacking.

use super::rig::{ROOT, Rig};
use crate::limits::{CUTS_MAX, INLINE_EXTENT_MAX, PAGE, RELEASE_ROWS_MAX, WRITE_ROWS_MAX};
use crate::record::File;
use crate::{read, store};
use atoll_base::access::Cred;
use atoll_base::attr::{Attr, SetAttr};
use atoll_base::block::BlockId;
use atoll_base::id::{Epoch, Ino};
use atoll_base::limits::INLINE_WRITE_MAX;
use atoll_meta::{FsError, Op, Outcome, Piece, RemoveKind, Source};
use bytes::Bytes;

const E: Epoch = Epoch(1);

fn file(rig: &Rig, ino: Ino) -> File {
    store::inode(&rig.kv, ino).unwrap().unwrap().file.unwrap()
}

fn ranges(rig: &Rig, attr: &Attr) -> Vec<(u64, u64)> {
    let map = read::map(&rig.kv, attr.ino, 0, u64::MAX).unwrap().unwrap();
    map.extents.iter().map(|e| (e.piece.offset, e.piece.end())).collect()
}

fn truncate(rig: &mut Rig, attr: &Attr, size: u64) -> Result<Outcome, FsError> {
    rig.set(&Cred::root(), attr, SetAttr { size: Some(size), ..SetAttr::default() })
}

fn remove(rig: &mut Rig, name: &str) {
    let op = Op::Remove { dir: ROOT, name: name.to_owned().into(), kind: RemoveKind::Any };
    rig.root(op).unwrap();
}

fn garbage(rig: &Rig) -> Vec<BlockId> {
    read::garbage(&rig.kv, None, 100).unwrap().into_iter().map(|(id, _)| id).collect()
}

fn id(piece: &Piece) -> BlockId {
    match piece.source {
        Source::Block { id, .. } => id,
        Source::Inline(_) => panic!("inline"),
    }
}

#[test]
fn small_stable_appends_make_one_row_per_page() {
    let mut rig = Rig::new();
    let f = rig.file("log");
    for i in 0..PAGE {
        let pieces = vec![rig.inline(i * 3, b"abc")];
        rig.write(&Cred::root(), &f, pieces).unwrap();
    }
    let expected: Vec<(u64, u64)> = (0..3).map(|p| (p * PAGE, (p + 1) * PAGE)).collect();
    assert_eq!(ranges(&rig, &f), expected);
    assert_eq!(rig.content(f.ino), b"abc".repeat(PAGE as usize));
    // In front of a row in the same page, and into the middle of one: still one.
    let g = rig.file("g");
    for (at, bytes) in [(8, &b"ccc"[..]), (4, b"bbbb"), (5, b"x")] {
        let pieces = vec![rig.inline(at, bytes)];
        rig.write(&Cred::root(), &g, pieces).unwrap();
    }
    assert_eq!(ranges(&rig, &g), [(4, 11)]);
    assert_eq!(rig.content(g.ino), b"\0\0\0\0bxbbccc");
    rig.check();
}

#[test]
fn stored_inline_extents_are_bounded() {
    let mut rig = Rig::new();
    let f = rig.file("f");
    let bytes: Vec<u8> = (0..INLINE_WRITE_MAX).map(|i| (i % 251) as u8).collect();
    let pieces = vec![rig.inline(3, &bytes)];
    rig.write(&Cred::root(), &f, pieces).unwrap();
    assert!(ranges(&rig, &f).iter().all(|(from, to)| to - from <= INLINE_EXTENT_MAX.into()));
    assert_eq!(rig.content(f.ino)[3..], bytes);
    let pieces = vec![rig.inline(0, &bytes), rig.inline(1 << 20, b"x")];
    assert_eq!(rig.write(&Cred::root(), &f, pieces), Err(FsError::Invalid));
    rig.check();
}

#[test]
fn pieces_are_checked() {
    let mut rig = Rig::new();
    let f = rig.file("f");
    let inline = |offset, len| {
        let source = Source::Inline(Bytes::from_static(b"abc"));
        Piece { offset, len, source }
    };
    for bad in [
        vec![inline(0, 0)],
        vec![inline(0, 4)],
        vec![inline(0, 3), inline(2, 3)],
        vec![inline(5, 3), inline(0, 3)],
        vec![Piece { offset: 0, len: 8, source: Source::Block { id: BlockId(1), offset: u32::MAX - 3 } }],
        vec![Piece { offset: 0, len: 8, source: Source::Block { id: BlockId(1), offset: 4 << 20 } }],
    ] {
        assert_eq!(rig.write(&Cred::root(), &f, bad), Err(FsError::Invalid));
    }
    assert_eq!(rig.attr(f.ino), f);
    assert_eq!(
        rig.write(&Cred::root(), &f, Vec::new()),
        Ok(Outcome::Written { verifier: rig.model.verifier() })
    );
    assert_eq!(rig.attr(f.ino), f, "a write of nothing changes nothing");
    let root = rig.attr(ROOT);
    assert_eq!(rig.write(&Cred::root(), &root, vec![inline(0, 3)]), Err(FsError::IsDirectory));
}

#[test]
fn a_block_is_garbage_when_its_last_extent_goes() {
    let mut rig = Rig::new();
    let f = rig.file("f");
    let block = rig.block(E, 0, &[7; 100]);
    rig.write(&Cred::root(), &f, vec![block.clone()]).unwrap();
    // Two halves refer to it.
    let pieces = vec![rig.inline(40, b"middle")];
    rig.write(&Cred::root(), &f, pieces).unwrap();
    assert_eq!(store::block_refs(&rig.kv, id(&block)).unwrap(), 2);
    assert_eq!(rig.attr(f.ino).used, 100);
    truncate(&mut rig, &f, 30).unwrap();
    assert_eq!((store::block_refs(&rig.kv, id(&block)).unwrap(), garbage(&rig)), (1, vec![]));
    assert_eq!(rig.attr(f.ino).used, 30);
    // Replaced by itself, it is never garbage.
    let itself = Piece { len: 100, ..block.clone() };
    rig.write(&Cred::root(), &f, vec![itself]).unwrap();
    assert_eq!((store::block_refs(&rig.kv, id(&block)).unwrap(), garbage(&rig)), (1, vec![]));
    remove(&mut rig, "f");
    assert_eq!(garbage(&rig), [id(&block)]);
    assert!(!read::block_is_referenced(&rig.kv, id(&block)).unwrap());
    // From there it does not come back.
    let g = rig.file("g");
    assert_eq!(rig.write(&Cred::root(), &g, vec![block.clone()]), Err(FsError::Conflict));
    rig.root(Op::Collected(vec![id(&block), BlockId(99)])).unwrap();
    assert_eq!(garbage(&rig), []);
    rig.check();
}

#[test]
fn a_writer_brings_new_blocks_of_its_present_life_only() {
    let mut rig = Rig::new();
    let f = rig.file("f");
    let old = rig.register(1);
    let stale = rig.block(old.epoch, 0, b"stale");
    let origin = rig.register(1);
    let write = |pieces| Op::Write { ino: f.ino, generation: f.generation, pieces, flush: None };
    assert_eq!(rig.by(old, write(vec![stale.clone()])), Err(FsError::Fenced));
    assert_eq!(rig.by(origin, write(vec![stale])), Err(FsError::Conflict));
    let fresh = rig.block(origin.epoch, 0, b"fresh");
    rig.by(origin, write(vec![fresh.clone()])).unwrap();
    // One that is referenced already may be shared by anybody.
    let other = rig.register(2);
    let shared = Piece { offset: 10, ..fresh };
    rig.by(other, write(vec![shared])).unwrap();
    assert_eq!(rig.content(f.ino), b"fresh\0\0\0\0\0fresh");
    rig.check();
}

/// Makes a file of so many rows, with a hole between each two.
fn scattered(rig: &mut Rig, name: &str, rows: u64) -> Attr {
    let f = rig.file(name);
    for i in 0..rows {
        let piece = rig.block(E, i * 20, &[i as u8 + 1; 10]);
        rig.write(&Cred::root(), &f, vec![piece]).unwrap();
    }
    f
}

#[test]
fn large_files_are_released_in_steps() {
    let mut rig = Rig::new();
    let rows = RELEASE_ROWS_MAX as u64 + 3;
    let f = scattered(&mut rig, "f", rows);
    remove(&mut rig, "f");
    assert_eq!(read::getattr(&rig.kv, f.ino).unwrap(), Err(FsError::Stale));
    assert!(garbage(&rig).is_empty());
    let bytes = |rig: &Rig| read::counters(&rig.kv).unwrap().bytes;
    assert_eq!(bytes(&rig), rows * 10);
    rig.check();
    assert!(rig.sweep() > 1);
    assert_eq!((garbage(&rig).len() as u64, bytes(&rig)), (rows, 0));
    rig.check();
    // A few are released at once.
    scattered(&mut rig, "g", RELEASE_ROWS_MAX as u64);
    remove(&mut rig, "g");
    assert!(!read::has_work(&rig.kv).unwrap());
    assert_eq!(garbage(&rig).len() as u64, rows + RELEASE_ROWS_MAX as u64);
}

#[test]
fn a_cut_hides_what_sweep_has_yet_to_remove() {
    let mut rig = Rig::new();
    let rows = RELEASE_ROWS_MAX as u64 + 3;
    let f = scattered(&mut rig, "f", rows);
    truncate(&mut rig, &f, 5).unwrap();
    assert_eq!(file(&rig, f.ino).cuts.len(), 1);
    assert_eq!(ranges(&rig, &f), [(0, 5)]);
    rig.check();
    // Longer again: zeros. New data over dead rows, also on their keys.
    truncate(&mut rig, &f, 100).unwrap();
    assert_eq!(rig.content(f.ino), [&[1; 5][..], &[0; 95]].concat());
    let pieces = vec![rig.block(E, 40, b"new"), rig.inline(50, b"data")];
    rig.write(&Cred::root(), &f, pieces).unwrap();
    let expected = |mut c: Vec<u8>| {
        c[..5].fill(1);
        c[40..43].copy_from_slice(b"new");
        c[50..54].copy_from_slice(b"data");
        c
    };
    assert_eq!(rig.content(f.ino), expected(vec![0; 100]));
    rig.check();
    rig.sweep();
    assert_eq!(rig.content(f.ino), expected(vec![0; 100]));
    assert_eq!((rig.attr(f.ino).used, file(&rig, f.ino).cuts.len()), (12, 0));
    rig.check();
}

#[test]
fn a_cut_takes_in_those_it_makes_superfluous() {
    let mut rig = Rig::new();
    let f = scattered(&mut rig, "f", RELEASE_ROWS_MAX as u64 + 6);
    for size in [45, 25, 5] {
        truncate(&mut rig, &f, size).unwrap();
        assert_eq!(file(&rig, f.ino).cuts.len(), 1);
    }
    rig.check();
    // Not one that reaches further to the front; and with that, there is no room for a third.
    truncate(&mut rig, &f, 100).unwrap();
    truncate(&mut rig, &f, 50).unwrap();
    assert_eq!(file(&rig, f.ino).cuts.len(), 2);
    truncate(&mut rig, &f, 100).unwrap();
    let before = rig.attr(f.ino);
    assert_eq!(truncate(&mut rig, &f, 60), Err(FsError::Delay));
    assert_eq!(rig.attr(f.ino), before);
    truncate(&mut rig, &f, 0).unwrap();
    assert_eq!(file(&rig, f.ino).cuts.len(), 1);
    rig.sweep();
    assert_eq!(rig.attr(f.ino).used, 0);
    rig.check();
}

#[test]
fn removing_a_file_with_a_cut_leaves_one_orphan() {
    let mut rig = Rig::new();
    let f = scattered(&mut rig, "f", RELEASE_ROWS_MAX as u64 + 3);
    truncate(&mut rig, &f, 5).unwrap();
    remove(&mut rig, "f");
    rig.check();
    rig.sweep();
    rig.check();
    // And a cut that a second truncation makes superfluous is gone with its row.
    let g = scattered(&mut rig, "g", RELEASE_ROWS_MAX as u64 + 1);
    truncate(&mut rig, &g, 0).unwrap();
    rig.root(Op::Sweep).unwrap();
    truncate(&mut rig, &g, 50).unwrap();
    truncate(&mut rig, &g, 0).unwrap();
    assert!(!read::has_work(&rig.kv).unwrap());
    rig.check();
}

#[test]
fn a_write_over_too_many_rows_cuts() {
    let mut rig = Rig::new();
    let rows = WRITE_ROWS_MAX as u64 + 4;
    let f = scattered(&mut rig, "f", rows);
    let before = rig.content(f.ino);
    let end = rows * 20 - 15;
    let over: Vec<u8> = (5..end).map(|i| i as u8).collect();
    let pieces = vec![rig.block(E, 5, &over)];
    rig.write(&Cred::root(), &f, pieces).unwrap();
    assert_eq!(file(&rig, f.ino).cuts.len(), 1);
    let expected = [&before[..5], &over, &before[end as usize..]].concat();
    assert_eq!(rig.content(f.ino), expected);
    rig.check();
    rig.sweep();
    assert_eq!(rig.content(f.ino), expected);
    assert_eq!(ranges(&rig, &f), [(0, 5), (5, end), (end, end + 5)]);
}

#[test]
fn too_many_cuts_ask_for_patience() {
    let mut rig = Rig::new();
    let step = WRITE_ROWS_MAX as u64 + 2;
    let f = scattered(&mut rig, "f", step * (CUTS_MAX as u64 + 1));
    let whole = vec![9; step as usize * 20 - 10];
    for i in 0..=CUTS_MAX as u64 {
        let before = (rig.content(f.ino), rig.attr(f.ino));
        let pieces = vec![rig.block(E, i * step * 20, &whole)];
        let result = rig.write(&Cred::root(), &f, pieces.clone());
        if i < CUTS_MAX as u64 {
            result.unwrap();
            continue;
        }
        assert_eq!(result, Err(FsError::Delay));
        assert_eq!(before, (rig.content(f.ino), rig.attr(f.ino)));
        // A truncation that makes the other cuts superfluous needs no room.
        rig.check();
        rig.sweep();
        rig.write(&Cred::root(), &f, pieces).unwrap();
    }
    rig.check();
}

#[test]
fn files_worth_repacking_are_listed() {
    let mut rig = Rig::new();
    let f = scattered(&mut rig, "f", 40);
    rig.sweep();
    let found = read::repack_candidates(&rig.kv, None, 10).unwrap();
    assert_eq!(found.iter().map(|c| (c.ino, c.extents)).collect::<Vec<_>>(), [(f.ino, 40)]);
    assert_eq!(read::repack_candidates(&rig.kv, Some(f.ino), 10).unwrap(), []);
    let whole = vec![rig.block(E, 0, &[1; 800])];
    rig.write(&Cred::root(), &f, whole).unwrap();
    rig.sweep();
    assert_eq!(read::repack_candidates(&rig.kv, None, 10).unwrap(), []);
    let inline = vec![rig.inline(0, &[1; 800])];
    rig.write(&Cred::root(), &f, inline).unwrap();
    assert_eq!(read::repack_candidates(&rig.kv, None, 10).unwrap()[0].inline_bytes, 800);
    truncate(&mut rig, &f, 0).unwrap();
    assert_eq!(read::repack_candidates(&rig.kv, None, 10).unwrap(), []);
    rig.check();
}

#[test]
fn repacking_keeps_the_bytes_or_does_nothing() {
    let mut rig = Rig::new();
    let f = rig.file("f");
    let pieces = vec![rig.block(E, 0, b"0123456789")];
    rig.write(&Cred::root(), &f, pieces).unwrap();
    let birth = rig.txn;
    let repack = |pieces| Op::Repack { ino: f.ino, offset: 0, len: 10, expect: vec![(birth, 0)], pieces };
    // Cut short and longer again meanwhile: births and offsets are the same, the bytes are not.
    truncate(&mut rig, &f, 5).unwrap();
    truncate(&mut rig, &f, 10).unwrap();
    let stale = vec![rig.block(E, 0, b"0123456789")];
    assert_eq!(rig.root(repack(stale)), Err(FsError::Conflict));
    assert_eq!(rig.content(f.ino), b"01234\0\0\0\0\0");
    let before = rig.attr(f.ino);
    let fitting = vec![rig.block(E, 0, b"01234")];
    rig.root(repack(fitting)).unwrap();
    assert_eq!(rig.attr(f.ino), before, "no time moves");
    assert_eq!(rig.content(f.ino), b"01234\0\0\0\0\0");
    assert_eq!(garbage(&rig).len(), 1);
    rig.check();
}

#[test]
fn maps_are_answered_in_parts() {
    let mut rig = Rig::new();
    let f = scattered(&mut rig, "f", 12);
    let map = read::map(&rig.kv, f.ino, 5, 1000).unwrap().unwrap();
    assert_eq!(map.extents.len(), crate::limits::MAP_EXTENTS_MAX);
    assert_eq!(map.complete_to, map.extents.len() as u64 * 20);
    // Cut to what was asked for, with the place in the block moved.
    let Source::Block { offset, .. } = map.extents[0].piece.source else { panic!() };
    assert_eq!((map.extents[0].piece.offset, map.extents[0].piece.len, offset), (5, 5, 8));
    let hole = read::map(&rig.kv, f.ino, 10, 10).unwrap().unwrap();
    assert_eq!((hole.extents.len(), hole.complete_to), (0, 20));
    assert_eq!(read::map(&rig.kv, ROOT, 0, 1).unwrap(), Err(FsError::IsDirectory));
}

fn clone_op(from: &Attr, from_offset: u64, to: &Attr, to_offset: u64, len: u64, partial: bool) -> Op {
    Op::Clone {
        from: from.ino,
        from_generation: from.generation,
        from_offset,
        to: to.ino,
        to_generation: to.generation,
        to_offset,
        len,
        partial,
    }
}

fn cloned(rig: &mut Rig, op: Op) -> u64 {
    match rig.root(op) {
        Ok(Outcome::Cloned { count, .. }) => count,
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_clone_shares_blocks_until_both_files_are_gone() {
    let mut rig = Rig::new();
    let (a, b) = (rig.file("a"), rig.file("b"));
    let block = rig.block(Epoch(1), 10, &[7; 40]);
    let inline = rig.inline(60, &[8; 5]);
    rig.write(&Cred::root(), &a, vec![block, inline]).unwrap();
    let old = rig.inline(0, &[9; 100]);
    rig.write(&Cred::root(), &b, vec![old]).unwrap();
    assert_eq!(cloned(&mut rig, clone_op(&a, 5, &b, 3, 0, false)), 60);
    let mut expected = vec![9; 3];
    expected.extend_from_slice(&rig.content(a.ino)[5..]);
    expected.extend_from_slice(&[9; 37]);
    assert_eq!(rig.content(b.ino), expected, "holes of the source are holes of the target");
    rig.check();
    for (name, garbage) in [("a", 0), ("b", 1)] {
        rig.root(Op::Remove { dir: ROOT, name: name.into(), kind: RemoveKind::Any }).unwrap();
        rig.sweep();
        rig.check();
        assert_eq!(crate::read::garbage(&rig.kv, None, 9).unwrap().len(), garbage);
    }
}

#[test]
fn a_clone_of_more_than_one_command_may_copy_is_refused_or_in_parts() {
    let mut rig = Rig::new();
    let (a, b) = (rig.file("a"), rig.file("b"));
    for n in 0..20_u64 {
        let piece = rig.block(Epoch(1), n * 10, &[n as u8 + 1; 9]);
        rig.write(&Cred::root(), &a, vec![piece]).unwrap();
    }
    let before = rig.attr(b.ino);
    assert_eq!(rig.root(clone_op(&a, 0, &b, 0, 0, false)), Err(FsError::NotSupported));
    assert_eq!(rig.attr(b.ino), before);
    let (size, mut at, mut steps) = (rig.attr(a.ino).size, 0, 0);
    while at < size {
        at += cloned(&mut rig, clone_op(&a, at, &b, at, size - at, true));
        steps += 1;
    }
    assert!(steps > 1);
    assert_eq!(rig.content(b.ino), rig.content(a.ino));
    rig.check();
}

#[test]
fn a_range_cannot_be_cloned_over_itself_or_from_behind_the_end() {
    let mut rig = Rig::new();
    let a = rig.file("a");
    let piece = rig.inline(0, &[1; 100]);
    rig.write(&Cred::root(), &a, vec![piece]).unwrap();
    for (from, to, len) in [(0, 99, 100), (50, 0, 51), (0, 0, 1), (101, 300, 0), (90, 300, 11)] {
        assert_eq!(rig.root(clone_op(&a, from, &a, to, len, true)), Err(FsError::Invalid));
    }
    assert_eq!(cloned(&mut rig, clone_op(&a, 100, &a, 300, 0, true)), 0);
    assert_eq!(rig.attr(a.ino).size, 100);
    assert_eq!(cloned(&mut rig, clone_op(&a, 0, &a, 100, 100, false)), 100);
    assert_eq!(rig.content(a.ino), vec![1; 200]);
    rig.check();
}

#[test]
fn a_hole_of_many_rows_is_cut() {
    let mut rig = Rig::new();
    let a = rig.file("a");
    for n in 0..20_u64 {
        let piece = rig.block(Epoch(1), n * 10, &[n as u8 + 1; 10]);
        rig.write(&Cred::root(), &a, vec![piece]).unwrap();
    }
    let mut expected = rig.content(a.ino);
    let punch = |offset, len| Op::Punch { ino: a.ino, generation: a.generation, offset, len };
    rig.root(punch(5, 190)).unwrap();
    assert_eq!(file(&rig, a.ino).cuts.len(), 1, "the work of one command is bounded");
    expected[5..195].fill(0);
    assert_eq!(rig.content(a.ino), expected);
    rig.check();
    rig.sweep();
    assert_eq!(rig.content(a.ino), expected);
    assert_eq!(rig.attr(a.ino).used, 10);
    let before = rig.attr(a.ino);
    rig.root(punch(200, u64::MAX)).unwrap();
    assert_eq!(rig.attr(a.ino), before, "behind the end is nothing");
    rig.check();
}
