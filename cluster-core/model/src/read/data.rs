//! Reads of file maps, blocks, write leases, and of what the repacker should look at.

use super::Read;
use super::namespace::inode;
use crate::extent;
pub use crate::extent::clip;
use crate::keys::{self, Parts};
use crate::kv::{KvError, KvRead, Table};
use crate::limits::MAP_EXTENTS_MAX;
use crate::record::{Garbage, Lease};
use crate::store;
use atoll_base::attr::FileKind;
use atoll_base::block::BlockId;
use atoll_base::id::{FrontendId, Ino};
use atoll_meta::FsError;
use atoll_meta::data::{Extent, FileMap, Stretch};
use std::ops::{Bound, ControlFlow};

/// Extents of a byte range of a regular file, cut to the range: at most [`MAP_EXTENTS_MAX`].
pub fn map(kv: &impl KvRead, ino: Ino, offset: u64, len: u64) -> Result<Read<FileMap>, KvError> {
    map_up_to(kv, ino, offset, len, MAP_EXTENTS_MAX)
}

/// As [`map`], with at most `max_extents`, at least one.
pub fn map_up_to(
    kv: &impl KvRead,
    ino: Ino,
    offset: u64,
    len: u64,
    max_extents: usize,
) -> Result<Read<FileMap>, KvError> {
    let inode = match inode(kv, ino)? {
        Ok(inode) => inode,
        Err(e) => return Ok(Err(e)),
    };
    let Some(file) = &inode.file else {
        let is_dir = inode.attr.kind == FileKind::Directory;
        return Ok(Err(if is_dir { FsError::IsDirectory } else { FsError::WrongType }));
    };
    let end = offset.saturating_add(len);
    let mut complete_to = end;
    let mut extents: Vec<Extent> = Vec::new();
    if let Some(first) = extent::across(kv, ino, file, offset)? {
        extents.extend(extent::clip(&extent::load(kv, ino, first)?, offset, end));
    }
    extent::each(kv, ino, offset, end, |head| {
        if !file.is_live(head.offset, head.birth) {
            return Ok(ControlFlow::Continue(()));
        }
        if extents.len() >= max_extents {
            complete_to = head.offset;
            return Ok(ControlFlow::Break(()));
        }
        extents.extend(extent::clip(&extent::load(kv, ino, head)?, offset, end));
        Ok(ControlFlow::Continue(()))
    })?;
    Ok(Ok(FileMap { attr: inode.attr, extents, complete_to }))
}

/// What is at an offset of a regular file, and how far: see [`Stretch`]. Looks at [`MAP_EXTENTS_MAX`] extents at most, those that Sweep
/// has yet to remove included.
pub fn stretch(kv: &impl KvRead, ino: Ino, offset: u64) -> Result<Read<Stretch>, KvError> {
    let inode = match inode(kv, ino)? {
        Ok(inode) => inode,
        Err(e) => return Ok(Err(e)),
    };
    let Some(file) = &inode.file else {
        let is_dir = inode.attr.kind == FileKind::Directory;
        return Ok(Err(if is_dir { FsError::IsDirectory } else { FsError::WrongType }));
    };
    let size = inode.attr.size.max(offset);
    let across = extent::across(kv, ino, file, offset)?;
    let mut data = across.is_some();
    let mut end = across.map_or(offset, |row| row.end());
    let (mut seen, mut hole_end) = (0, size);
    extent::each(kv, ino, end, size, |head| {
        seen += 1;
        let enough = seen > MAP_EXTENTS_MAX;
        if !enough && !file.is_live(head.offset, head.birth) {
            return Ok(ControlFlow::Continue(()));
        }
        if !enough && head.offset == end {
            data = true;
            end = head.end();
            return Ok(ControlFlow::Continue(()));
        }
        hole_end = head.offset;
        Ok(ControlFlow::Break(()))
    })?;
    let end = if data { end } else { hole_end };
    Ok(Ok(Stretch { attr: inode.attr, data, end }))
}

/// Whether any extent references a block. (One that never was referenced, or whose deletion is reported by
/// `Collected`, is not; neither is one that [`garbage`] lists.)
pub fn block_is_referenced(kv: &impl KvRead, id: BlockId) -> Result<bool, KvError> {
    store::has(kv, Table::Block, &keys::block(id))
}

/// Blocks to be collected, in order of their ids, after `after`: at most `limit`. A collector should pass over those whose `since`
/// is recent, for readers that fetched their map before.
pub fn garbage(
    kv: &impl KvRead,
    after: Option<BlockId>,
    limit: usize,
) -> Result<Vec<(BlockId, Garbage)>, KvError> {
    let from = after.map(keys::block);
    let from = from.as_ref().map_or(Bound::Unbounded, |key| Bound::Excluded(&key[..]));
    let mut found = Vec::new();
    if limit == 0 {
        return Ok(found);
    }
    store::each_from(kv, Table::Garbage, from, Bound::Unbounded, |key, value| {
        let mut parts = Parts::new(Table::Garbage, key);
        let id = BlockId(u128::from_be_bytes(parts.take()?));
        parts.end()?;
        found.push((id, store::parse(Table::Garbage, key, value)?));
        Ok(if found.len() < limit { ControlFlow::Continue(()) } else { ControlFlow::Break(()) })
    })?;
    Ok(found)
}

/// A write lease and whose it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DirtyLease {
    /// Holder.
    pub frontend: FrontendId,
    /// Inode.
    pub ino: Ino,
    /// The lease.
    pub lease: Lease,
}

/// Write leases in order of frontend and inode, after `after`: at most `limit`.
pub fn dirty_leases(
    kv: &impl KvRead,
    after: Option<(FrontendId, Ino)>,
    limit: usize,
) -> Result<Vec<DirtyLease>, KvError> {
    let from = after.map(|(frontend, ino)| keys::lease(frontend, ino));
    let from = from.as_ref().map_or(Bound::Unbounded, |key| Bound::Excluded(&key[..]));
    let mut found = Vec::new();
    if limit == 0 {
        return Ok(found);
    }
    store::each_from(kv, Table::Dirty, from, Bound::Unbounded, |key, value| {
        let mut parts = Parts::new(Table::Dirty, key);
        let (frontend, ino) = (FrontendId(parts.u32()?), parts.ino()?);
        parts.end()?;
        found.push(DirtyLease { frontend, ino, lease: store::parse(Table::Dirty, key, value)? });
        Ok(if found.len() < limit { ControlFlow::Continue(()) } else { ControlFlow::Break(()) })
    })?;
    Ok(found)
}

/// A row of the extent table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ExtentRow {
    /// The file.
    pub ino: Ino,
    /// Where in the file it begins.
    pub offset: u64,
    /// Bytes.
    pub len: u32,
    /// The block that holds them; `None` if they are inline.
    pub block: Option<BlockId>,
}

/// Rows of all files in order of inode and offset, from `from` on, those that Sweep has yet to remove included: at most
/// `limit`.
pub fn extent_rows(kv: &impl KvRead, from: (Ino, u64), limit: usize) -> Result<Vec<ExtentRow>, KvError> {
    let from = keys::with_u64(from.0, from.1);
    let mut found = Vec::new();
    if limit == 0 {
        return Ok(found);
    }
    store::each_from(kv, Table::Extent, Bound::Included(&from), Bound::Unbounded, |key, value| {
        let (ino, offset) = extent::parse_key(key)?;
        let head = extent::parse_head(offset, value)?;
        found.push(ExtentRow { ino, offset, len: head.len, block: head.block });
        Ok(if found.len() < limit { ControlFlow::Continue(()) } else { ControlFlow::Break(()) })
    })?;
    Ok(found)
}

/// A file that may be worth repacking.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RepackCandidate {
    /// The file.
    pub ino: Ino,
    /// Its change counter: a repacker that could not improve the file need not try again while this stays.
    pub change: u64,
    /// Size in bytes.
    pub size: u64,
    /// Bytes in extents.
    pub used: u64,
    /// Number of extents.
    pub extents: u64,
    /// Bytes of inline ones.
    pub inline_bytes: u64,
}

/// Files with many extents for their size or many inline bytes, in order of inode, after `after`: at most `limit`.
pub fn repack_candidates(
    kv: &impl KvRead,
    after: Option<Ino>,
    limit: usize,
) -> Result<Vec<RepackCandidate>, KvError> {
    let from = after.map(keys::ino);
    let from = from.as_ref().map_or(Bound::Unbounded, |key| Bound::Excluded(&key[..]));
    let mut inos = Vec::new();
    if limit == 0 {
        return Ok(Vec::new());
    }
    store::each_from(kv, Table::Repack, from, Bound::Unbounded, |key, _| {
        inos.push(Parts::new(Table::Repack, key).ino()?);
        Ok(if inos.len() < limit { ControlFlow::Continue(()) } else { ControlFlow::Break(()) })
    })?;
    let mut found = Vec::with_capacity(inos.len());
    for ino in inos {
        let inode = store::inode(kv, ino)?;
        let Some((attr, file)) = inode.and_then(|inode| Some((inode.attr, inode.file?))) else {
            return Err(KvError::Failed(format!("inode {ino}, listed for repacking, is no regular file")));
        };
        found.push(RepackCandidate {
            ino,
            change: attr.change,
            size: attr.size,
            used: attr.used,
            extents: file.extents,
            inline_bytes: file.inline_bytes,
        });
    }
    Ok(found)
}
