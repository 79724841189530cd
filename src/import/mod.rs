//! `atoll import SRC --into DIR`: copies a tree of this machine into a data directory.
//!
//! Keeps owners, modes, times, hard links, holes and extended attributes. Resumable: an entry that is complete
//! has its source's modification time, which is set last; such entries are passed over, others are copied anew. Every
//! change goes through the same transactions as a client's, so a crash leaves a tree that `atoll fsck` finds clean.

mod copy;
mod source;

use crate::import::copy::Copier;
use crate::maintenance::BlockIds;
use anyhow::{Context, Result, bail};
use atoll_base::block::BlockService;
use atoll_base::id::Ino;
use atoll_meta::service::MetadataService;
use futures_util::StreamExt;
use indicatif::{ProgressBar, ProgressStyle};
use source::Entry;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Entries of one directory that are copied at a time: enough to fill group commits.
const CONCURRENCY: usize = 64;

/// What was done.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Summary {
    /// Entries copied.
    pub copied: u64,
    /// Entries that were complete already.
    pub skipped: u64,
    /// Bytes of data copied, holes not counted.
    pub bytes: u64,
}

/// Copies the tree below `source` into the directory `at` (made if it does not exist) of the root volume.
pub async fn import<M: MetadataService, B: BlockService>(
    meta: Arc<M>,
    blocks: Arc<B>,
    ids: Arc<BlockIds>,
    source: &Path,
    at: &str,
    progress: ProgressBar,
) -> Result<Summary> {
    let root = source::entry(source).with_context(|| format!("cannot read {}", source.display()))?;
    if !root.is_dir() {
        bail!("{} is not a directory", source.display());
    }
    progress.set_style(ProgressStyle::with_template(
        "{elapsed_precise} {bar:30} {pos}/{len} entries, {msg}, {eta} left",
    )?);
    progress.set_message("counting");
    progress.set_length(source::count(source)?);
    let copier = Copier::new(meta, blocks, ids, progress.clone());
    let target = copier.make_path(at).await?;
    let mut finished_last = vec![(root, source.to_owned(), target)];
    let mut todo = finished_last.clone();
    while let Some((_, path, target)) = todo.pop() {
        let found = copy_directory(&copier, &path, target).await?;
        finished_last.extend(found.iter().cloned());
        todo.extend(found);
    }
    // Deepest first, since each entry made in a directory moves the directory's times.
    while let Some((entry, path, target)) = finished_last.pop() {
        copier.finish(&path, &entry, target).await?;
    }
    progress.finish_and_clear();
    Ok(copier.summary())
}

/// Copies all entries of one directory but descends into none: the subdirectories are returned.
async fn copy_directory<M: MetadataService, B: BlockService>(
    copier: &Copier<M, B>,
    path: &Path,
    target: Ino,
) -> Result<Vec<(Entry, PathBuf, Ino)>> {
    let names = source::list(path).with_context(|| format!("cannot list {}", path.display()))?;
    let mut results = futures_util::stream::iter(names)
        .map(|name| async move {
            let child = path.join(source::os_name(&name));
            let entry = source::entry(&child).with_context(|| format!("cannot read {}", child.display()))?;
            let ino = copier
                .copy(&child, &entry, target, &name)
                .await
                .with_context(|| format!("cannot import {}", child.display()))?;
            Ok::<_, anyhow::Error>((entry, child, ino))
        })
        .buffer_unordered(CONCURRENCY);
    let mut directories = Vec::new();
    while let Some(result) = results.next().await {
        let (entry, child, ino) = result?;
        if entry.is_dir() {
            directories.push((entry, child, ino));
        }
    }
    Ok(directories)
}
