//! What of a write is refused where it meets damaged rows: enough, and no more.

use super::rig::Rig;
use crate::kv::KvRead;
use crate::limits::PAGE;
use crate::{extent, read};
use atoll_base::access::Cred;
use atoll_base::id::{Epoch, Ino};
use atoll_meta::{Op, Piece, Source};
use bytes::Bytes;
use proptest::prelude::*;
use std::ops::Range;

/// The pieces byte by byte, but those in `without`.
fn rest(pieces: &[Piece], without: &[Range<u64>]) -> Vec<Piece> {
    let bytes = pieces.iter().flat_map(|piece| (piece.offset..piece.end()).map(move |at| (at, piece)));
    let kept = bytes.filter(|(at, _)| !without.iter().any(|range| range.contains(at)));
    let part = |(offset, piece): (u64, &Piece)| {
        let source = match &piece.source {
            Source::Inline(_) => Source::Inline(Bytes::from_static(b"y")),
            block @ Source::Block { .. } => block.clone(),
        };
        Piece { offset, len: 1, source }
    };
    kept.map(part).collect()
}

/// Whether a range meets a damaged row; of inline bytes, one in the same page.
fn meets_damage(kv: &impl KvRead, ino: Ino, range: &Range<u64>, inline: bool) -> bool {
    (0..200).any(|offset| {
        let Some(row) = extent::at(kv, ino, offset).unwrap() else { return false };
        let mut around = row.offset..row.end();
        if inline {
            around = around.start - around.start % PAGE..around.end.next_multiple_of(PAGE);
        }
        let is_damaged = row.block.is_none() && extent::load(kv, ino, row).is_err();
        is_damaged && around.start < range.end && range.start < around.end
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]
    #[test]
    fn the_rest_needs_nothing_damaged(
        rows in prop::collection::vec((0u64..120, 1usize..40, any::<bool>()), 1..12),
        written in prop::collection::vec((0u64..12, 1usize..50, any::<bool>()), 1..6),
        salt in any::<u64>(),
    ) {
        let mut rig = Rig::new();
        let file = rig.file("file");
        for (offset, len, inline) in rows {
            let bytes = vec![b'x'; len];
            let piece =
                if inline { rig.inline(offset, &bytes) } else { rig.block(Epoch(1), offset, &bytes) };
            rig.write(&Cred::root(), &file, vec![piece]).unwrap();
        }
        let (mut pieces, mut at) = (Vec::new(), 0);
        for (gap, len, inline) in written {
            let bytes = vec![b'y'; len];
            at += gap;
            pieces.push(if inline { rig.inline(at, &bytes) } else { rig.block(Epoch(1), at, &bytes) });
            at += len as u64;
        }
        let write = |pieces| Op::Write { ino: file.ino, generation: file.generation, pieces, flush: None };
        rig.seen_rotten(2, salt, |kv| {
            let bad = read::refused(kv, file.ino, &pieces).unwrap();
            prop_assert_eq!(bad.is_empty(), read::needed(kv, &write(pieces.clone())).is_ok());
            prop_assert!(bad.windows(2).all(|two| two[0].end <= two[1].start));
            prop_assert!(read::needed(kv, &write(rest(&pieces, &bad))).is_ok());
            for range in &bad {
                let its = pieces.iter().filter(|p| p.offset < range.end && range.start < p.end());
                let inline = its.into_iter().any(|piece| matches!(piece.source, Source::Inline(_)));
                prop_assert!(meets_damage(kv, file.ino, range, inline), "{:?}", range);
                prop_assert!(range.clone().all(|at| pieces.iter().any(|p| (p.offset..p.end()).contains(&at))));
            }
            Ok(())
        })?;
    }
}
