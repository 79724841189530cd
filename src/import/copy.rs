//! Copying one entry: create, data, attributes, and the modification time last.

use super::Summary;
use super::acl;
use super::source::{self, DataReader, Entry};
use crate::maintenance::BlockIds;
use anyhow::{Context, Result, bail};
use atoll_base::access::Cred;
use atoll_base::attr::{Attr, FileKind, SetAttr, SetTime};
use atoll_base::block::BlockService;
use atoll_base::id::{Ino, ROOT_VOLUME};
use atoll_base::limits::{BLOCK_MAX, INLINE_WRITE_MAX, LABEL_MAX};
use atoll_meta::service::MetadataService;
use atoll_meta::{
    Call, CreateHow, FsError, NewNode, Op, Outcome, Piece, RemoveKind, Response, Source, XattrHow,
};
use bytes::Bytes;
use indicatif::ProgressBar;
use std::collections::HashMap;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use tokio::sync::{OnceCell, Semaphore};

type LinkCell = Arc<OnceCell<Attr>>;

pub(super) struct Copier<M, B> {
    meta: Arc<M>,
    blocks: Arc<B>,
    ids: Arc<BlockIds>,
    /// Inodes with several names that were met, by device and inode of the source.
    links: Mutex<HashMap<(u64, u64), LinkCell>>,
    /// Whether security labels are kept.
    labels: bool,
    progress: ProgressBar,
    copied: AtomicU64,
    skipped: AtomicU64,
    failed: AtomicU64,
    stripped: AtomicU64,
    bytes: AtomicU64,
    /// Room for data in memory, in units of [`ROOM_UNIT`].
    room: Semaphore,
}

/// Bytes of data in memory at a time, and what one permit stands for.
const ROOM: usize = 128 << 20;
const ROOM_UNIT: usize = 64 << 10;

impl<M, B> Copier<M, B> {
    /// Tells of an entry that could not be copied.
    pub(super) fn failed(&self, path: &Path, error: &anyhow::Error) {
        self.failed.fetch_add(1, Ordering::Relaxed);
        self.progress.inc(1);
        self.tell(&format!("{}: not copied: {error:#}", path.display()));
    }

    pub(super) fn tell(&self, words: &str) {
        self.progress.suspend(|| eprintln!("{words}"));
    }
}

impl<M: MetadataService, B: BlockService> Copier<M, B> {
    pub(super) fn new(
        meta: Arc<M>,
        blocks: Arc<B>,
        ids: Arc<BlockIds>,
        labels: bool,
        progress: ProgressBar,
    ) -> Self {
        Self {
            meta,
            blocks,
            ids,
            links: Mutex::default(),
            labels,
            progress,
            copied: AtomicU64::new(0),
            skipped: AtomicU64::new(0),
            failed: AtomicU64::new(0),
            stripped: AtomicU64::new(0),
            bytes: AtomicU64::new(0),
            room: Semaphore::new(ROOM / ROOM_UNIT),
        }
    }

    pub(super) fn summary(&self) -> Summary {
        Summary {
            copied: self.copied.load(Ordering::Relaxed),
            skipped: self.skipped.load(Ordering::Relaxed),
            failed: self.failed.load(Ordering::Relaxed),
            stripped: self.stripped.load(Ordering::Relaxed),
            bytes: self.bytes.load(Ordering::Relaxed),
        }
    }

    /// The directory with this path in the root volume; missing components are made.
    pub(super) async fn make_path(&self, path: &str) -> Result<Ino> {
        let mut at = self.meta.volume(ROOT_VOLUME).await?.root;
        for name in path.split('/').filter(|c| !c.is_empty()) {
            let name = Bytes::copy_from_slice(name.as_bytes());
            at = match self.meta.lookup(at, &name).await?.child {
                Ok(attr) if attr.kind == FileKind::Directory => attr.ino,
                Ok(_) => bail!("{path} names something that is not a directory"),
                Err(FsError::NotFound) => {
                    let mode = SetAttr { mode: Some(0o755), ..SetAttr::default() };
                    self.create(at, &name, NewNode::Directory, mode).await?.ino
                }
                Err(e) => return Err(e.into()),
            };
        }
        Ok(at)
    }

    /// Copies one entry, of a directory only itself; returns its inode.
    pub(super) async fn copy(&self, path: &Path, entry: &Entry, dir: Ino, name: &Bytes) -> Result<Ino> {
        let ino = if entry.is_linked {
            let cell = {
                let mut links = self.links.lock().unwrap_or_else(PoisonError::into_inner);
                links.entry(entry.inode).or_default().clone()
            };
            let attr = cell.get_or_try_init(|| self.copy_inode(path, entry, dir, name)).await?;
            self.link(attr, dir, name).await?;
            attr.ino
        } else {
            self.copy_inode(path, entry, dir, name).await?.ino
        };
        self.progress.inc(1);
        Ok(ino)
    }

    /// Gives an inode one more name, if it does not have it.
    async fn link(&self, attr: &Attr, dir: Ino, name: &Bytes) -> Result<()> {
        match self.meta.lookup(dir, name).await?.child {
            Ok(found) if found.ino == attr.ino => return Ok(()),
            Ok(_) => self.remove(dir, name).await?,
            Err(FsError::NotFound) => {}
            Err(e) => return Err(e.into()),
        }
        let op = Op::Link { ino: attr.ino, generation: attr.generation, dir, name: name.clone() };
        self.run(op).await.map(drop)
    }

    async fn copy_inode(&self, path: &Path, entry: &Entry, dir: Ino, name: &Bytes) -> Result<Attr> {
        match self.meta.lookup(dir, name).await?.child {
            Ok(found) if found.kind == entry.kind && entry.is_dir() => return Ok(found),
            Ok(found) if is_complete(&found, entry) => {
                self.skipped.fetch_add(1, Ordering::Relaxed);
                return Ok(found);
            }
            Ok(found) if found.kind == FileKind::Directory => {
                bail!("a directory of this name is there already");
            }
            Ok(_) => self.remove(dir, name).await?,
            Err(FsError::NotFound) => {}
            Err(e) => return Err(e.into()),
        }
        let node = match entry.kind {
            FileKind::Regular => NewNode::Regular,
            FileKind::Directory => NewNode::Directory,
            FileKind::Symlink => NewNode::Symlink(source::target(path)?),
            special => NewNode::Special(special, entry.device),
        };
        let attrs = SetAttr {
            mode: Some(entry.mode),
            uid: Some(entry.uid),
            gid: Some(entry.gid),
            ..SetAttr::default()
        };
        let attr = self.create(dir, name, node, attrs).await?;
        if entry.kind == FileKind::Regular {
            self.copy_data(path, entry, &attr).await?;
        }
        if !entry.is_dir() {
            self.finish(path, entry, attr.ino).await?;
        }
        self.copied.fetch_add(1, Ordering::Relaxed);
        Ok(attr)
    }

    async fn copy_data(&self, path: &Path, entry: &Entry, attr: &Attr) -> Result<()> {
        let mut reader = DataReader::open(path)?;
        let mut end = 0;
        let units = (entry.size.min(u64::from(BLOCK_MAX)) as usize).div_ceil(ROOM_UNIT).max(1) as u32;
        loop {
            let _room = self.room.acquire_many(units).await?;
            let next;
            (reader, next) = tokio::task::spawn_blocking(move || {
                let next = reader.next(BLOCK_MAX as usize);
                (reader, next)
            })
            .await?;
            let Some((offset, data)) = next.context("cannot read it")? else { break };
            self.bytes.fetch_add(data.len() as u64, Ordering::Relaxed);
            let len = data.len() as u32;
            end = offset + u64::from(len);
            let source = if data.len() <= INLINE_WRITE_MAX {
                Source::Inline(data)
            } else {
                let id = self.ids.next();
                self.blocks.put(vec![(id, data)]).await?;
                Source::Block { id, offset: 0 }
            };
            let pieces = vec![Piece { offset, len, source }];
            self.run(Op::Write { ino: attr.ino, generation: attr.generation, pieces, flush: None }).await?;
            self.progress.set_message(format!("{} MiB", self.bytes.load(Ordering::Relaxed) >> 20));
        }
        if end < entry.size {
            // A hole at the end.
            self.set(attr, SetAttr { size: Some(entry.size), ..SetAttr::default() }).await?;
        }
        Ok(())
    }

    /// Extended attributes, owner, mode, access control list and times: what marks an entry as complete.
    pub(super) async fn finish(&self, path: &Path, entry: &Entry, ino: Ino) -> Result<()> {
        let attr = self.meta.getattr(ino).await?;
        let xattrs = source::xattrs(path).context("cannot read its extended attributes")?;
        if xattrs.others {
            self.stripped.fetch_add(1, Ordering::Relaxed);
        }
        for (name, value) in xattrs.kept {
            let words = || format!("its extended attribute user.{} is refused", name.escape_ascii());
            let op = Op::SetXattr {
                ino,
                generation: attr.generation,
                name: name.clone(),
                value: Some(value),
                how: XattrHow::Either,
            };
            self.run(op).await.with_context(words)?;
        }
        let is_link = entry.kind == FileKind::Symlink;
        let acl = if is_link { None } else { Some(acl::of(path).context("its access control list")?) };
        let label = match self.labels {
            true => source::label(path).context("cannot read its security label")?,
            false => None,
        };
        if label.as_ref().is_some_and(|label| label.data.len() > LABEL_MAX) {
            bail!("its security label has more than {LABEL_MAX} bytes");
        }
        // One step: the mode is set after the owner, whose change clears set-uid, the list after the mode.
        let set = SetAttr {
            uid: Some(entry.uid),
            gid: Some(entry.gid),
            mode: (!is_link).then_some(entry.mode),
            acl: acl.map(Box::new),
            label: label.map(Box::new),
            atime: SetTime::Client(entry.atime),
            mtime: SetTime::Client(entry.mtime),
            ..SetAttr::default()
        };
        self.set(&attr, set).await
    }

    async fn set(&self, attr: &Attr, set: SetAttr) -> Result<()> {
        let op = Op::SetAttr { ino: attr.ino, generation: attr.generation, set, guard: None };
        self.run(op).await.map(drop)
    }

    async fn remove(&self, dir: Ino, name: &Bytes) -> Result<()> {
        let op = Op::Remove { dir, name: name.clone(), kind: RemoveKind::NonDirectory };
        self.run(op).await.map(drop)
    }

    async fn create(&self, dir: Ino, name: &Bytes, node: NewNode, attrs: SetAttr) -> Result<Attr> {
        let op = Op::Create { dir, name: name.clone(), node, how: CreateHow::Guarded, attrs };
        match self.run(op).await?.result {
            Ok(Outcome::Created { attr, .. }) => Ok(attr),
            other => bail!("unexpected outcome of a creation: {other:?}"),
        }
    }

    async fn run(&self, op: Op) -> Result<Response> {
        let call = Call { origin: Some(self.ids.origin()), once: None, cred: Cred::root(), client: None, op };
        let response = self.meta.execute(call).await?;
        match response.result {
            Err(e) => Err(e.into()),
            Ok(_) => Ok(response),
        }
    }
}

/// Whether an earlier import finished this entry. The change time of the source is not ours to set, so a source whose
/// data changed without size or modification time is not noticed: as with any copy tool.
fn is_complete(found: &Attr, entry: &Entry) -> bool {
    found.kind == entry.kind
        && found.mtime == entry.mtime
        && found.uid == entry.uid
        && found.gid == entry.gid
        && (entry.kind != FileKind::Regular || found.size == entry.size)
        && (entry.kind == FileKind::Symlink || found.mode == entry.mode)
}
