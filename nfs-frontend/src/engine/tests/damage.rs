//! UNSTABLE data that overwrite a damaged row in part: they alone are refused, and COMMIT says so to whoever asks, until nobody misses them.

use super::world::World;
use atoll_base::id::Ino;
use atoll_proto::nfs3::{
    Commit3Args, Commit3Res, FileHandle, NfsStat3, Sattr3, SetAttr3Args, StableHow, WriteVerf3, call,
};
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};

fn ino(w: &World, file: FileHandle) -> Ino {
    w.engine.handle_key.open(file.as_slice()).unwrap().ino
}

/// A file whose first 8 KiB, one row, are damaged, and which has 8 KiB more that are sound.
async fn damaged(w: &World, name: &str) -> FileHandle {
    let file = w.create(w.root, name).await;
    w.write(file, 0, &[1; 8192], StableHow::FileSync).await.unwrap();
    w.meta.rot(ino(w, file));
    // The first of a stream is written through.
    w.write(file, 100_000, &[2; 8192], StableHow::Unstable).await.unwrap();
    file
}

async fn commit(w: &World, file: FileHandle, offset: u64, count: u32) -> Commit3Res {
    w.call::<call::Commit>(Commit3Args { file, offset, count }).await
}

async fn cut(w: &World, file: FileHandle, size: u64) {
    let new_attributes = Sattr3 { size: Some(size), ..Sattr3::default() };
    w.call::<call::SetAttr>(SetAttr3Args { object: file, new_attributes, guard: None }).await.unwrap();
}

#[tokio::test]
async fn only_what_needs_damaged_bytes_is_refused() {
    // In the command itself, and in blocks.
    for len in [10_000, 3_000_000] {
        let w = World::new().await;
        let (file, other) = (damaged(&w, "f").await, w.create(w.root, "other").await);
        let elsewhere = w.write_dirty(other, 0, &[9; 300_000]).await;
        let written = w.write(file, 4096, &vec![3; len], StableHow::Unstable).await.unwrap();
        w.write(file, 4_000_000, &[4; 5000], StableHow::Unstable).await.unwrap();
        let shown = w.getattr(file).await;
        for _ in 0..2 {
            assert_eq!(w.commit(file).await.unwrap_err().status, NfsStat3::Io);
            assert_eq!(commit(&w, file, 8000, 100).await.unwrap_err().status, NfsStat3::Io);
            assert_eq!(commit(&w, file, 0, 4096).await.unwrap().verf, written.verf);
            assert_eq!(commit(&w, file, 8192, 0).await.unwrap().verf, written.verf, "the rest is there");
        }
        assert!(w.getattr(file).await.ctime > shown.ctime, "what was shown is not shown again");
        assert_eq!(w.read(file, 4096, 4096).await.unwrap_err().status, NfsStat3::Io);
        let rest = w.read(file, 8192, 1000).await.unwrap();
        assert_eq!(rest.data[..], [3; 1000]);
        assert_eq!(w.read(file, 4_000_000, 5000).await.unwrap().data[..], [4; 5000]);
        // Nobody else is disturbed.
        assert_eq!(w.commit(other).await.unwrap().verf, elsewhere.verf);
        assert_eq!(elsewhere.verf, written.verf);
        w.is_clean();
        // Once the row was written over, nobody misses anything.
        w.write(file, 0, &[5; 8192], StableHow::FileSync).await.unwrap();
        assert_eq!(w.commit(file).await.unwrap().verf, written.verf);
        assert_eq!(w.read(file, 4096, 4096).await.unwrap().data[..], [5; 4096]);
    }
}

#[tokio::test]
async fn blocks_of_refused_data_alone_are_deleted() {
    let w = World::new().await;
    let file = w.create(w.root, "f").await;
    // Rows of 64 KiB up to 1 MiB, where a block begins.
    for n in 0..16 {
        w.write(file, n << 16, &[1; 65_536], StableHow::FileSync).await.unwrap();
    }
    w.meta.rot(ino(&w, file));
    let blocks = w.blocks.count();
    w.write_dirty(file, (1 << 20) - 100, &vec![3; 100 + (1 << 20)]).await;
    assert_eq!(commit(&w, file, 0, 1 << 20).await.unwrap_err().status, NfsStat3::Io);
    commit(&w, file, 1 << 20, 0).await.unwrap();
    assert_eq!(w.blocks.count(), blocks + 1);
    // Nothing is left of these.
    w.write_dirty(file, 100, &[3; 65_000]).await;
    w.write(file, 65_636, &[3; 65_000], StableHow::Unstable).await.unwrap();
    assert_eq!(w.commit(file).await.unwrap_err().status, NfsStat3::Io);
    assert_eq!(w.blocks.count(), blocks + 1);
    w.is_clean();
}

#[tokio::test]
async fn what_is_overwritten_or_cut_off_is_not_missed() {
    let w = World::new().await;
    let file = damaged(&w, "f").await;
    w.write_dirty(file, 100, &[3; 70_000]).await;
    assert_eq!(w.commit(file).await.unwrap_err().status, NfsStat3::Io);
    // By UNSTABLE data, too, once these are there; a part is not enough.
    w.write_dirty(file, 0, &[4; 70_000]).await;
    let kept = w.commit(file).await.unwrap();
    assert_eq!(w.read(file, 0, 70_000).await.unwrap().data[..], [4; 70_000]);
    let file = damaged(&w, "g").await;
    w.write_dirty(file, 100, &[3; 70_000]).await;
    assert_eq!(w.commit(file).await.unwrap_err().status, NfsStat3::Io);
    cut(&w, file, 0).await;
    assert_eq!(w.commit(file).await.unwrap().verf, kept.verf);
}

/// Who has not asked yet learns it by the verifier.
#[tokio::test]
async fn a_life_to_come_moves_the_verifier() {
    let mut w = World::new().await;
    let file = damaged(&w, "f").await;
    let written = w.write_dirty(file, 100, &[3; 70_000]).await;
    assert_eq!(w.engine.flush_all().await, 0);
    w.is_clean();
    w.crash().await;
    let moved = w.commit(file).await.unwrap();
    assert_ne!(moved.verf, written.verf);
    w.crash().await;
    assert_eq!(w.commit(file).await.unwrap().verf, moved.verf, "once");
}

/// Bytes behind the end that were refused do not make the file longer.
#[tokio::test]
async fn a_refused_end_is_not_shown() {
    let w = World::new().await;
    let file = w.create(w.root, "f").await;
    w.write(file, 0, &[1; 5000], StableHow::Unstable).await.unwrap();
    w.meta.rot(ino(&w, file));
    w.write(file, 5000, &[3; 1000], StableHow::Unstable).await.unwrap();
    assert_eq!(w.getattr(file).await.size, 6000);
    assert_eq!(w.commit(file).await.unwrap_err().status, NfsStat3::Io);
    assert_eq!(w.getattr(file).await.size, 5000);
}

/// What one client knows of a byte.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Byte {
    /// It was told that the byte is lost, or may be.
    Unknown,
    Stored(u8),
    /// Acknowledged, with this verifier, in this step, and not committed.
    Pending(u8, WriteVerf3, usize),
}

const FILE: usize = 300_000;

/// Writes and commits of any ranges on a disk that rots: what a COMMIT was answered for is there.
#[tokio::test]
async fn histories_on_a_rotting_disk() {
    let (mut refusals, mut moved) = (0, 0);
    for seed in 0..60 {
        let mut rng = SmallRng::seed_from_u64(seed);
        let mut w = World::new().await;
        let file = w.create(w.root, "f").await;
        let mut bytes = vec![Byte::Stored(0); FILE];
        w.write(file, FILE as u64 - 1, &[0], StableHow::FileSync).await.unwrap();
        let mut rotted = 0;
        for now in 0..60 {
            let len =
                if rng.random_bool(0.2) { rng.random_range(1..200_000) } else { rng.random_range(1..20_000) };
            let start = rng.random_range(0..FILE - len);
            let range = start..start + len;
            match rng.random_range(0..100) {
                step @ 0..65 => {
                    let mut data = vec![0; len];
                    rng.fill(&mut data[..]);
                    let stable = if step < 20 { StableHow::FileSync } else { StableHow::Unstable };
                    match w.write(file, start as u64, &data, stable).await {
                        Ok(ok) => bytes[range].iter_mut().zip(data).for_each(|(byte, new)| {
                            *byte = match stable {
                                StableHow::Unstable => Byte::Pending(new, ok.verf, now),
                                _ => Byte::Stored(new),
                            }
                        }),
                        Err(failure) => assert_eq!(failure.status, NfsStat3::Io),
                    }
                }
                65..77 => {
                    w.meta.rot(ino(&w, file));
                    rotted = now;
                }
                77..79 => {
                    if rng.random_bool(0.5) {
                        w.engine.flush_all().await;
                    }
                    w.blocks.forget_reservations();
                    w.crash().await;
                }
                _ => {
                    let verf = match commit(&w, file, start as u64, len as u32).await {
                        Ok(ok) => Some(ok.verf),
                        Err(failure) => {
                            assert_eq!(failure.status, NfsStat3::Io);
                            refusals += 1;
                            None
                        }
                    };
                    for (at, byte) in bytes[range.clone()].iter_mut().enumerate() {
                        match *byte {
                            Byte::Pending(value, written, since) if Some(written) == verf => {
                                *byte = Byte::Stored(value);
                                // Else it may have been there before, and rotten since.
                                if at % 997 == 0 && since > rotted {
                                    let read = w.read(file, (start + at) as u64, 1).await;
                                    assert_eq!(read.unwrap().data[..], [value], "seed {seed}");
                                }
                            }
                            Byte::Pending(..) => {
                                moved += usize::from(verf.is_some());
                                *byte = Byte::Unknown;
                            }
                            Byte::Stored(_) | Byte::Unknown => {}
                        }
                    }
                }
            }
            let at = rng.random_range(0..FILE - 5000);
            if let Ok(read) = w.read(file, at as u64, 5000).await {
                for (known, byte) in bytes[at..].iter().zip(&read.data[..]) {
                    let is_right = match known {
                        Byte::Unknown | Byte::Pending(..) => true,
                        Byte::Stored(value) => value == byte,
                    };
                    assert!(is_right, "seed {seed}: at {at}");
                }
            }
        }
        w.engine.flush_all().await;
        w.is_clean();
    }
    assert!(refusals > 30 && moved > 1000, "{refusals} {moved}");
}
