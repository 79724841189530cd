//! Damaged bytes of small files: who needs them is refused, and nobody else.

use super::*;
use atoll_base::disk::{Disk, Open, read_exact_at};
use atoll_base::id::ExportId;
use atoll_meta::nfs4::ClientId;
use atoll_meta::offload::{CopyPlace, OffloadOp};
use atoll_meta::{FsError, Outcome, Piece, RemoveKind, SlotKey, Source, XattrHow};
use std::path::Path;

const VALUES: &str = "state/state.values";
const LEN: u32 = 9000;

/// What nothing else in the state is like.
fn content(seed: u8) -> Vec<u8> {
    (0..LEN).map(|at| (at.wrapping_mul(u32::from(seed) * 2 + 1) >> 3) as u8 ^ seed).collect()
}

#[derive(Clone, Copy)]
struct File {
    ino: Ino,
    generation: u32,
}

impl File {
    async fn make(meta: &LocalMetadata, name: &str, seed: u8) -> Self {
        let made = done(meta.execute(call(create(root(meta).await, name), None)).await);
        let Ok(Outcome::Created { attr, .. }) = made.result else { panic!("{made:?}") };
        let file = Self { ino: attr.ino, generation: attr.generation };
        done(meta.execute(call(file.write(0, content(seed)), None)).await);
        file
    }

    fn write(self, offset: u64, bytes: Vec<u8>) -> Op {
        let piece = Piece { offset, len: bytes.len() as u32, source: Source::Inline(bytes.into()) };
        Op::Write { ino: self.ino, generation: self.generation, pieces: vec![piece], flush: None }
    }

    fn set(self, set: SetAttr) -> Op {
        Op::SetAttr { ino: self.ino, generation: self.generation, set, guard: None }
    }

    fn cut(self, size: u64) -> Op {
        self.set(SetAttr { size: Some(size), ..SetAttr::default() })
    }

    fn xattr(self, value: Vec<u8>) -> Op {
        let (ino, generation) = (self.ino, self.generation);
        let value = Some(value.into());
        Op::SetXattr { ino, generation, name: "user.x".into(), value, how: XattrHow::Either }
    }

    fn clone_to(self, to: File, to_offset: u64) -> Op {
        Op::Clone {
            from: self.ino,
            from_generation: self.generation,
            from_offset: 0,
            to: to.ino,
            to_generation: to.generation,
            to_offset,
            len: 5000,
            partial: false,
        }
    }

    /// A copy that may go on in the background.
    fn copy_to(self, to: File) -> Op {
        let place = |file: File| CopyPlace { ino: file.ino, generation: file.generation, offset: 0 };
        let (client, export) = (ClientId(1), ExportId(1));
        Op::Offload(OffloadOp::Copy {
            client,
            export,
            from: place(self),
            to: place(to),
            len: 5000,
            most: 100,
        })
    }

    async fn read(self, meta: &LocalMetadata) -> Result<Vec<u8>, FsError> {
        let map = meta.map(self.ino, 0, LEN.into()).await?;
        let bytes = map.extents.iter().map(|e| match &e.piece.source {
            Source::Inline(bytes) => bytes.clone(),
            Source::Block { .. } => panic!("{e:?}"),
        });
        Ok(bytes.collect::<Vec<_>>().concat())
    }
}

/// Damages the value whose bytes, or some in its middle, are these.
fn rot(disk: &SimDisk, bytes: &[u8]) {
    let file = disk.open(Path::new(VALUES), Open::Read).unwrap();
    let mut all = vec![0; file.len().unwrap() as usize];
    read_exact_at(&*file, &mut all, 0).unwrap();
    let part = &bytes[3000..4000];
    let found: Vec<_> = (0..all.len() - part.len()).filter(|at| all[*at..].starts_with(part)).collect();
    assert!(!found.is_empty(), "it is not among the large values");
    for at in found {
        disk.rot(Path::new(VALUES), at as u64 + 500, 0x10).unwrap();
    }
}

async fn restarted(meta: LocalMetadata, disk: &SimDisk) -> (LocalMetadata, SimDisk) {
    meta.stop().await.unwrap();
    drop(meta);
    let disk = disk.restart();
    (start(&disk).await.unwrap(), disk)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_change_that_needs_damaged_bytes_fails_alone() {
    let disk = SimDisk::new();
    let meta = start(&disk).await.unwrap();
    let damaged = File::make(&meta, "damaged", 1).await;
    let whole = File::make(&meta, "whole", 2).await;
    let cut = File::make(&meta, "cut", 3).await;
    let gone = File::make(&meta, "gone", 8).await;
    let labelled = File::make(&meta, "labelled", 4).await;
    done(meta.execute(call(labelled.xattr(content(5)), None)).await);
    // What follows is read from the file.
    let (mut meta, mut disk) = restarted(meta, &disk).await;
    for seed in [1, 3, 5, 8] {
        rot(&disk, &content(seed));
    }
    for again in [false, true] {
        let punch = Op::Punch { ino: damaged.ino, generation: damaged.generation, offset: 4096, len: 4096 };
        let in_need = [
            damaged.write(10, vec![7; 100]),
            damaged.write(8999, vec![7; 100]),
            // It is merged with what is before it in its page.
            damaged.write(9000, vec![7; 100]),
            damaged.cut(4000),
            punch,
            damaged.clone_to(whole, 0),
            whole.clone_to(damaged, 100),
            damaged.copy_to(whole),
        ];
        let before = meta.getattr(damaged.ino).await.unwrap();
        for op in in_need {
            let asked = format!("{op:?}");
            assert_eq!(meta.execute(call(op, None)).await, Err(FsError::Io), "{asked:.200}");
        }
        let Op::Write { pieces, .. } = damaged.write(5000, vec![7; 10_000]) else { panic!() };
        // To the end of the page where the row ends: what is inline is merged with it.
        let refused = meta.refused_bytes(damaged.ino, &pieces).await.unwrap();
        assert_eq!((refused[0].start, refused.last().map(|last| last.end)), (5000, Some(12288)));
        assert_eq!(meta.getattr(damaged.ino).await.unwrap(), before);
        assert_eq!(damaged.read(&meta).await, Err(FsError::Io));
        assert_eq!(meta.get_xattr(labelled.ino, b"user.x").await, Err(FsError::Io));
        // Nobody else notices.
        assert!(!meta.status().failed);
        done(meta.execute(call(whole.write(10, vec![7; 100]), None)).await);
        done(meta.execute(call(labelled.write(10, vec![7; 100]), None)).await);
        let chmod = SetAttr { mode: Some(0o600 + u32::from(again)), ..SetAttr::default() };
        done(meta.execute(call(damaged.set(chmod), None)).await);
        assert_eq!(meta.list_xattrs(labelled.ino).await.unwrap().len(), 1);
        if !again {
            (meta, disk) = restarted(meta, &disk).await;
        }
    }
    // What is written over as a whole, or cut off, is not needed.
    done(meta.execute(call(damaged.write(0, content(6)), None)).await);
    assert_eq!(damaged.read(&meta).await.unwrap(), content(6));
    done(meta.execute(call(damaged.write(10, vec![7; 100]), None)).await);
    done(meta.execute(call(cut.cut(0), None)).await);
    done(meta.execute(call(cut.write(5, vec![7; 100]), None)).await);
    assert_eq!(gone.read(&meta).await, Err(FsError::Io));
    let root = root(&meta).await;
    for name in ["gone", "labelled"] {
        let op = Op::Remove { dir: root, name: name.into(), kind: RemoveKind::Any };
        done(meta.execute(call(op, None)).await);
    }
    let (meta, _) = restarted(meta, &disk).await;
    assert_eq!(meta.readdir(root, atoll_base::id::Cookie(0), 9, 9000, false).await.unwrap().entries.len(), 3);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn damaged_bytes_do_not_hide_sound_ones_nor_answers() {
    let disk = SimDisk::new();
    let meta = start(&disk).await.unwrap();
    let file = File::make(&meta, "file", 1).await;
    let sound = 100_000;
    done(meta.execute(call(file.write(sound, content(2)), None)).await);
    let once = |xid| Some(OnceKey { client: [1; 16], xid, fingerprint: 9 });
    let answered = done(meta.execute(call(file.set(SetAttr::default()), once(1))).await);
    let (_, session) = super::nfs4::new_client(&meta, "client").await;
    let in_slot = |op, seqid| {
        let slot = SlotKey { session, slot: 2, seqid, fingerprint: 5, index: 1, before: "b".into() };
        Call { once: Some(slot.into()), ..call(op, None) }
    };
    let kept = done(meta.execute(in_slot(file.set(SetAttr::default()), 1)).await);
    let (meta, disk) = restarted(meta, &disk).await;
    rot(&disk, &content(1));
    // The first time it is looked up, then with what lies around it.
    for _ in 0..4 {
        let map = meta.map(file.ino, sound, 4096).await.unwrap();
        assert_eq!(map.extents.iter().map(|e| e.piece.len).sum::<u32>(), 4096);
        assert_eq!(meta.map(file.ino, 0, 4096).await, Err(FsError::Io));
    }
    // A repetition is not executed, and needs nothing.
    let needy = || file.write(10, vec![7; 100]);
    assert_eq!(meta.execute(call(needy(), once(2))).await, Ok(Response::refused(FsError::Io)));
    assert_eq!(done(meta.execute(call(needy(), once(1))).await), answered);
    assert_eq!(done(meta.execute(in_slot(needy(), 1)).await), kept);
    assert_eq!(meta.execute(in_slot(needy(), 2)).await, Ok(Response::refused(FsError::Io)));
    assert!(!meta.status().failed);
    // Nor is a late duplicate of what was refused, when it could be.
    done(meta.execute(call(file.write(0, content(3)), None)).await);
    for _ in 0..2 {
        assert_eq!(meta.execute(call(needy(), once(2))).await, Ok(Response::refused(FsError::Io)));
        assert_eq!(meta.execute(in_slot(needy(), 2)).await, Ok(Response::refused(FsError::Io)));
    }
    assert_eq!(meta.map(file.ino, 0, 4096).await.unwrap().extents.len(), 1);
    let (meta, _) = restarted(meta, &disk).await;
    assert_eq!(meta.execute(call(needy(), once(2))).await, Ok(Response::refused(FsError::Io)));
    done(meta.execute(call(needy(), once(3))).await);
}

/// Replacing and removing an attribute need its length, which its row tells; nobody looks at the value.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_damaged_attribute_is_replaced_or_removed() {
    let disk = SimDisk::new();
    let meta = start(&disk).await.unwrap();
    let (replaced, removed) = (File::make(&meta, "a", 1).await, File::make(&meta, "b", 2).await);
    for (file, seed) in [(replaced, 5), (removed, 6)] {
        done(meta.execute(call(file.xattr(content(seed)), None)).await);
    }
    let (meta, disk) = restarted(meta, &disk).await;
    for seed in [5, 6] {
        rot(&disk, &content(seed));
    }
    let before = meta.getattr(replaced.ino).await.unwrap();
    assert_eq!(meta.get_xattr(replaced.ino, b"user.x").await, Err(FsError::Io));
    // The same value is one, too.
    for value in [content(5), content(7)] {
        done(meta.execute(call(replaced.xattr(value.clone()), None)).await);
        assert_eq!(meta.get_xattr(replaced.ino, b"user.x").await.unwrap(), value);
    }
    assert!(meta.getattr(replaced.ino).await.unwrap().change > before.change);
    let gone = Op::SetXattr {
        ino: removed.ino,
        generation: removed.generation,
        name: "user.x".into(),
        value: None,
        how: XattrHow::Either,
    };
    done(meta.execute(call(gone, None)).await);
    assert_eq!(meta.get_xattr(removed.ino, b"user.x").await, Err(FsError::NoXattr));
    let (meta, _) = restarted(meta, &disk).await;
    assert_eq!(meta.get_xattr(replaced.ino, b"user.x").await.unwrap(), content(7));
    let findings = meta.with_state(|kv| atoll_model::check::check(kv, &mut |_, _| {})).await;
    assert!(findings.unwrap().is_empty(), "what is counted is there");
}

/// What the log has may need bytes that were damaged after it was answered.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_applied_again_loses_the_bytes_of_one_file() {
    let disk = SimDisk::new();
    let meta = start(&disk).await.unwrap();
    let damaged = File::make(&meta, "damaged", 1).await;
    let whole = File::make(&meta, "whole", 2).await;
    meta.stop().await.unwrap();
    let disk = disk.restart();
    let mut options = options();
    options.maintenance.durable_every = Duration::from_secs(3600);
    options.maintenance.log_bytes = u64::MAX;
    options.state.flush_bytes = usize::MAX;
    let meta = open(Arc::new(disk.clone()), options, Arc::new(SystemClock), Arc::new(|_| {})).await.unwrap();
    for file in [damaged, whole] {
        done(meta.execute(call(file.write(10, vec![7; 100]), None)).await);
    }
    let before = meta.getattr(damaged.ino).await.unwrap();
    drop(meta);
    let disk = disk.crash(7);
    rot(&disk, &content(1));
    let meta = start(&disk).await.unwrap();
    assert!(meta.status().commands > 0, "it is applied again");
    assert_eq!(meta.getattr(damaged.ino).await.unwrap(), before);
    assert_eq!(damaged.read(&meta).await, Err(FsError::Io));
    assert_eq!(whole.read(&meta).await.unwrap()[10..110], [7; 100]);
    assert_eq!(meta.execute(call(damaged.write(10, vec![7; 100]), None)).await, Err(FsError::Io));
    let (meta, _) = restarted(meta, &disk).await;
    assert_eq!(damaged.read(&meta).await, Err(FsError::Io));
    done(meta.execute(call(damaged.write(0, content(6)), None)).await);
    assert_eq!(damaged.read(&meta).await.unwrap(), content(6));
}
