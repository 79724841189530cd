//! `atoll import SRC --into DIR`: copies a tree of this machine into a data directory.
//!
//! Keeps owners, modes, times, hard links, holes, sockets, fifos, devices, and extended attributes of the `user` namespace (the one
//! that NFS carries; stored without the prefix, RFC 8276 §8.4), and POSIX access control lists. Attributes of other namespaces are
//! not kept; how many entries had some is told at the end. Security labels (`security.selinux`) are kept if that is asked: each costs a row, and
//! they mean nothing but to clients under the same policy.
//!
//! Resumable: an entry that is complete has its source's modification time, which is set last; such entries are passed
//! over, others are copied anew. Every change goes through the same transactions as a client's, so a crash leaves a tree that
//! `atoll fsck` finds clean. What cannot be copied is told by its name, and the rest goes on; what would stop everything (no
//! room, a failing disk) does.

mod acl;
mod copy;
mod source;

use crate::import::copy::Copier;
use crate::maintenance::BlockIds;
use anyhow::{Context, Result, bail};
use atoll_base::block::{BlockError, BlockService};
use atoll_base::id::Ino;
use atoll_meta::FsError;
use atoll_meta::service::MetadataService;
use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use indicatif::{ProgressBar, ProgressStyle};
use source::Entry;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Entries of one directory that are copied at a time: enough to fill group commits.
const CONCURRENCY: usize = 64;

/// Directories worked on at a time: most have few entries.
const DIRECTORIES: usize = 16;

/// What to copy.
#[derive(Clone, Debug)]
pub struct What {
    /// The directory whose content is copied.
    pub source: PathBuf,
    /// A directory that is passed over if it is met: the data directory itself.
    pub except: Option<PathBuf>,
    /// Whether to stay on the source's file system.
    pub one_file_system: bool,
    /// Whether SELinux's labels are kept, for exports with `security_label`.
    pub labels: bool,
}

/// What was done.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Summary {
    /// Entries copied.
    pub copied: u64,
    /// Entries that were complete already.
    pub skipped: u64,
    /// Entries that could not be copied.
    pub failed: u64,
    /// Entries of which attributes in other namespaces than `user` were left out; POSIX access control lists are kept.
    pub stripped: u64,
    /// Bytes of data copied, holes not counted.
    pub bytes: u64,
}

/// Which directories are not descended into.
struct Bounds {
    except: Option<(u64, u64)>,
    device: Option<u64>,
}

impl Bounds {
    fn of(what: &What, root: &Entry) -> Result<Self> {
        let mut except = None;
        if let Some(dir) = &what.except {
            let entry = source::entry(dir).with_context(|| format!("cannot read {}", dir.display()))?;
            let inside = std::fs::canonicalize(&what.source)?;
            if inside.starts_with(std::fs::canonicalize(dir)?) {
                bail!("{} is within the data directory itself", what.source.display());
            }
            except = Some(entry.inode);
        }
        Ok(Self { except, device: what.one_file_system.then_some(root.inode.0) })
    }

    fn allow(&self, entry: &Entry) -> bool {
        self.except != Some(entry.inode) && self.device.is_none_or(|device| device == entry.inode.0)
    }
}

/// Copies a tree into the directory `at` (made if it does not exist) of the root volume.
pub async fn import<M: MetadataService, B: BlockService>(
    meta: Arc<M>,
    blocks: Arc<B>,
    ids: Arc<BlockIds>,
    what: &What,
    at: &str,
    progress: ProgressBar,
) -> Result<Summary> {
    let source = &what.source;
    // The directory itself, also if it is named by a symbolic link.
    let source =
        std::fs::canonicalize(source).with_context(|| format!("cannot read {}", source.display()))?;
    let root = source::entry(&source).with_context(|| format!("cannot read {}", source.display()))?;
    if !root.is_dir() {
        bail!("{} is not a directory", source.display());
    }
    let bounds = Bounds::of(what, &root)?;
    progress.set_style(ProgressStyle::with_template(
        "{elapsed_precise} {bar:30} {pos}/{len} entries, {msg}, {eta} left",
    )?);
    progress.set_message("counting");
    progress.set_length(source::count(&source));
    let copier = Copier::new(meta, blocks, ids, what.labels, progress.clone());
    let target = copier.make_path(at).await?;
    let mut finished_last = vec![(root, source, target)];
    let mut todo = finished_last.clone();
    let mut running = FuturesUnordered::new();
    loop {
        while running.len() < DIRECTORIES
            && let Some((_, path, target)) = todo.pop()
        {
            running.push(copy_directory(&copier, &bounds, path, target));
        }
        let Some(found) = running.next().await else { break };
        let found = found?;
        finished_last.extend(found.iter().cloned());
        todo.extend(found);
    }
    drop(running);
    // Each entry made in a directory moves the directory's times; now nothing is made any more.
    let mut finishing = futures_util::stream::iter(finished_last)
        .map(|(entry, path, target)| {
            let copier = &copier;
            async move { bear(copier, &path, copier.finish(&path, &entry, target).await) }
        })
        .buffer_unordered(CONCURRENCY);
    while let Some(result) = finishing.next().await {
        result?;
    }
    drop(finishing);
    progress.finish_and_clear();
    Ok(copier.summary())
}

/// Copies all entries of one directory but descends into none: the subdirectories are returned.
async fn copy_directory<M: MetadataService, B: BlockService>(
    copier: &Copier<M, B>,
    bounds: &Bounds,
    path: PathBuf,
    target: Ino,
) -> Result<Vec<(Entry, PathBuf, Ino)>> {
    let Some(names) = bear(copier, &path, source::list(&path).context("cannot list it"))? else {
        return Ok(Vec::new());
    };
    let path = &path;
    let mut results = futures_util::stream::iter(names)
        .map(|name| async move {
            let child = path.join(source::os_name(&name));
            let entry = match source::entry(&child) {
                // Removed since the directory was listed.
                Err(e) if e.kind() == ErrorKind::NotFound => return Ok(None),
                Err(e) => return bear(copier, &child, Err::<(), _>(e.into())).map(|_| None),
                Ok(entry) => entry,
            };
            if entry.is_dir() && !bounds.allow(&entry) {
                copier.tell(&format!("{} is left out", child.display()));
                return Ok(None);
            }
            let copied = copier.copy(&child, &entry, target, &name).await;
            Ok::<_, anyhow::Error>(bear(copier, &child, copied)?.map(|ino| (entry, child, ino)))
        })
        .buffer_unordered(CONCURRENCY);
    let mut directories = Vec::new();
    while let Some(result) = results.next().await {
        if let Some(copied) = result?
            && copied.0.is_dir()
        {
            directories.push(copied);
        }
    }
    Ok(directories)
}

/// Tells of an entry that could not be copied and lets the rest go on, unless the rest would fail as well.
fn bear<M, B, T>(copier: &Copier<M, B>, path: &Path, result: Result<T>) -> Result<Option<T>> {
    match result {
        Ok(value) => Ok(Some(value)),
        Err(error) if stops_everything(&error) => {
            Err(error.context(format!("cannot import {}", path.display())))
        }
        Err(error) => {
            copier.failed(path, &error);
            Ok(None)
        }
    }
}

/// Whether an error is of the store, not of the entry.
fn stops_everything(error: &anyhow::Error) -> bool {
    error.chain().any(|cause| {
        let of_metadata = cause.downcast_ref::<FsError>();
        cause.is::<BlockError>()
            || of_metadata.is_some_and(|e| matches!(e, FsError::NoSpace | FsError::Io | FsError::Delay))
    })
}
