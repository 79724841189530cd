//! Maps that come from memory equal those of the newest state.

use super::*;
use atoll_base::block::BlockId;
use atoll_base::id::Epoch;
use atoll_meta::data::Piece;
use atoll_meta::{Outcome, Source};
use atoll_model::read;
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};

const FILES: usize = 4;
/// Some windows' worth of bytes.
const SIZE: u64 = 3 << 20;

async fn file(meta: &LocalMetadata, root: Ino, name: &str) -> (Ino, u32) {
    match done(meta.execute(call(create(root, name), None)).await).result.unwrap() {
        Outcome::Created { attr, .. } => (attr.ino, attr.generation),
        other => panic!("{other:?}"),
    }
}

fn change(rng: &mut SmallRng, ino: Ino, generation: u32, block: u64) -> Op {
    if rng.random_ratio(1, 10) {
        let set = SetAttr { size: Some(rng.random_range(0..SIZE)), ..SetAttr::default() };
        return Op::SetAttr { ino, generation, set, guard: None };
    }
    // Sometimes so many that a window is not kept.
    let count = if rng.random_ratio(1, 8) { 100 } else { rng.random_range(1..4) };
    let mut offset = rng.random_range(0..SIZE);
    let pieces = (0..count).map(|n| {
        let len = rng.random_range(1..3000);
        // What goes into one entry of the small log.
        let source = if count < 4 && rng.random() {
            Source::Inline(vec![7; len as usize].into())
        } else {
            Source::Block { id: BlockId::new(Epoch(1), block * 1000 + n), offset: 0 }
        };
        let piece = Piece { offset, len, source };
        offset += u64::from(len) + rng.random_range(0..3) * 500;
        piece
    });
    Op::Write { ino, generation, pieces: pieces.collect(), flush: None }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn equal_those_of_the_state() {
    let meta = start(&SimDisk::new()).await.unwrap();
    let root = root(&meta).await;
    let mut files = Vec::new();
    for n in 0..FILES {
        files.push(file(&meta, root, &format!("file{n}")).await);
    }
    let mut rng = SmallRng::seed_from_u64(11);
    for step in 0..400 {
        let (ino, generation) = files[rng.random_range(0..FILES)];
        done(meta.execute(call(change(&mut rng, ino, generation, step), None)).await);
        for _ in 0..12 {
            let (ino, _) = files[rng.random_range(0..FILES)];
            let (offset, len) = (rng.random_range(0..SIZE + 5000), rng.random_range(0..100_000));
            // The first look takes note, the second reads the window, the third finds it.
            for _ in 0..3 {
                let map = meta.map(ino, offset, len).await;
                let expected = meta.with_state(|kv| read::map(kv, ino, offset, len)).await.unwrap();
                assert_eq!(map, expected, "step {step}: {ino} {offset}+{len}");
            }
        }
    }
    let caches = meta.status().caches;
    assert!(caches.maps.hits > 1000 && caches.maps.misses > 1000, "{caches:?}");
    assert_eq!(meta.map(root, 0, 10).await, Err(atoll_meta::FsError::IsDirectory));
    meta.stop().await.unwrap();
}
