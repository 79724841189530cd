//! What belongs to inodes: extents, extended attributes, symbolic link targets; and blocks.

use super::Checker;
use crate::extent::{self, Head};
use crate::keys::{self, Parts};
use crate::kv::{KvError, KvRead, Table};
use crate::limits::{INLINE_EXTENT_MAX, INLINE_HEAD};
use crate::record::{File, Garbage, Inode, Orphan};
use crate::store;
use atoll_base::attr::FileKind;
use atoll_base::block::BlockId;
use atoll_base::id::Ino;
use std::ops::{Bound, ControlFlow};

fn block_key(table: Table, key: &[u8]) -> Result<BlockId, KvError> {
    let mut parts = Parts::new(table, key);
    let id = BlockId(u128::from_be_bytes(parts.take()?));
    parts.end().map(|()| id)
}

impl<K: KvRead> Checker<'_, K> {
    pub(super) fn belongings(&mut self, ino: Ino, inode: &Inode) -> Result<(), KvError> {
        let (mut count, mut bytes) = (0, 0);
        let read = store::each_prefixed(self.kv, Table::Xattr, &keys::ino(ino), |key, value| {
            count += 1;
            bytes += key.len() - 8 + value.len();
            Ok(ControlFlow::Continue(()))
        });
        if let Err(error) = read {
            self.about(ino, format!("of its extended attributes, {}", error.what()));
        } else if (count, bytes) != (inode.xattrs, inode.xattr_bytes as usize) {
            let what = format!("counts {} extended attributes but has {count}", inode.xattrs);
            self.about(ino, what);
        }
        inode.file.as_ref().map_or(Ok(()), |file| self.file(ino, inode, file))
    }

    fn file(&mut self, ino: Ino, inode: &Inode, file: &File) -> Result<(), KvError> {
        let (mut rows, mut used, mut inline, mut live_end) = (0, 0, 0, 0);
        let mut wrong: Vec<String> = Vec::new();
        let kv = self.kv;
        extent::each(kv, ino, 0, u64::MAX, |head| {
            rows += 1;
            used += u64::from(head.len);
            inline += if head.block.is_none() { u64::from(head.len) } else { 0 };
            self.row(ino, head, &mut wrong)?;
            if !file.is_live(head.offset, head.birth) {
                return Ok(ControlFlow::Continue(()));
            }
            if head.offset < live_end {
                wrong.push(format!("extents overlap at {}", head.offset));
            }
            live_end = head.end();
            Ok(ControlFlow::Continue(()))
        })?;
        if live_end > inode.attr.size {
            wrong.push(format!("extents reach to {live_end}, behind its size {}", inode.attr.size));
        }
        if (rows, used, inline) != (file.extents, inode.attr.used, file.inline_bytes) {
            wrong.push(format!(
                "counts {} extents, {} bytes, {} of them inline, but has {rows}, {used}, {inline}",
                file.extents, inode.attr.used, file.inline_bytes
            ));
        }
        let is_tail = matches!(self.orphan(ino)?, Some(Orphan::Tail));
        if is_tail == file.cuts.is_empty() {
            wrong.push("its cuts and the list of orphans disagree".into());
        }
        if file.repack != store::has(kv, Table::Repack, &keys::ino(ino))? {
            wrong.push("it and the list for repacking disagree".into());
        }
        if let Some(frontend) = file.lease
            && !store::has(kv, Table::Dirty, &keys::lease(frontend, ino))?
        {
            wrong.push(format!("frontend {} should have a write lease on it, but has none", frontend.0));
        }
        for what in wrong {
            self.about(ino, what);
        }
        Ok(())
    }

    /// One extent, of whatever inode: its rules, and its block.
    fn row(&mut self, ino: Ino, head: Head, wrong: &mut Vec<String>) -> Result<(), KvError> {
        if head.birth > self.meta.last_txn {
            wrong.push(format!("the extent at {} is from the future", head.offset));
        }
        if head.block.is_none() && head.len > INLINE_EXTENT_MAX {
            wrong.push(format!("the inline extent at {} is too long", head.offset));
        }
        match head.block {
            Some(id) => {
                let block = self.blocks.entry(id).or_default();
                block.0 += 1;
                block.1 = block.1.max(head.within + head.len);
            }
            None => {
                if let Err(error) = extent::load(self.kv, ino, head) {
                    wrong.push(format!("at {}, {}", head.offset, error.what()));
                }
            }
        }
        Ok(())
    }

    /// Rows of inodes that do not exist.
    pub(super) fn strays(&mut self) -> Result<(), KvError> {
        for table in [Table::Extent, Table::Xattr] {
            let mut from = 0_u64;
            while let Some(ino) = self.next_ino(table, from)? {
                if !self.nodes.contains_key(&ino) {
                    let removed = match self.orphan(ino)? {
                        Some(Orphan::Removed { volume }) if table == Table::Extent => Some(volume),
                        _ => None,
                    };
                    match removed {
                        Some(volume) => self.removed(ino, volume)?,
                        None => {
                            let name = table.name();
                            self.general(format!(
                                "table {name} has rows of inode {ino}, which does not exist"
                            ));
                        }
                    }
                } else if table == Table::Extent && self.nodes[&ino].kind != FileKind::Regular {
                    self.about(ino, "has extents but is no regular file");
                }
                let Some(next) = ino.0.checked_add(1) else { break };
                from = next;
            }
        }
        let kv = self.kv;
        kv.keys(Table::Inline, Bound::Unbounded, Bound::Unbounded, |key| {
            if let Some((ino, offset)) = self.noted(extent::parse_key(key)) {
                let row = self.noted(extent::at(kv, ino, offset));
                if !matches!(row, Some(Some(Head { block: None, len, .. })) if len as usize > INLINE_HEAD) {
                    self.general(format!("there are bytes of inode {ino} at {offset}, but no inline extent"));
                }
            }
            ControlFlow::Continue(())
        })?;
        self.rows(Table::Symlink, |c, key, _| {
            let Some(ino) = c.ino_key(Table::Symlink, key) else { return };
            if c.nodes.get(&ino).is_none_or(|node| node.kind != FileKind::Symlink) {
                c.general(format!("inode {ino} has a link target but is no symbolic link"));
            }
        })?;
        self.rows(Table::Repack, |c, key, _| {
            let Some(ino) = c.ino_key(Table::Repack, key) else { return };
            if c.nodes.get(&ino).is_none_or(|node| node.kind != FileKind::Regular) {
                c.general(format!("inode {ino} is listed for repacking but is no file"));
            }
        })
    }

    fn next_ino(&mut self, table: Table, from: u64) -> Result<Option<Ino>, KvError> {
        let mut found = None;
        self.kv.keys(table, Bound::Included(&from.to_be_bytes()), Bound::Unbounded, |key| {
            found = Parts::new(table, key).ino().ok();
            ControlFlow::Break(())
        })?;
        Ok(found)
    }

    /// Extents of a removed inode: they still count.
    fn removed(&mut self, ino: Ino, volume: atoll_base::id::VolumeId) -> Result<(), KvError> {
        let mut wrong = Vec::new();
        let mut bytes = 0;
        let kv = self.kv;
        extent::each(kv, ino, 0, u64::MAX, |head| {
            bytes += u64::from(head.len);
            self.row(ino, head, &mut wrong)?;
            Ok(ControlFlow::Continue(()))
        })?;
        self.volumes.entry(volume).or_default().1 += bytes;
        for what in wrong {
            self.about(ino, what);
        }
        Ok(())
    }

    pub(super) fn orphans(&mut self) -> Result<(), KvError> {
        self.rows(Table::Orphan, |c, key, value| {
            let Some(ino) = c.ino_key(Table::Orphan, key) else { return };
            let Some(orphan) = c.decode::<Orphan>(Table::Orphan, key, value) else { return };
            let exists = c.nodes.contains_key(&ino);
            match orphan {
                Orphan::Removed { .. } if exists => c.about(ino, "is listed as removed"),
                Orphan::Removed { .. } if !matches!(c.next_ino(Table::Extent, ino.0), Ok(Some(i)) if i == ino) => {
                    c.general(format!("inode {ino} is listed as removed but has no extents to release"));
                }
                Orphan::Tail if !exists => {
                    c.general(format!("inode {ino} is listed with a cut but does not exist"));
                }
                _ => {}
            }
        })
    }

    pub(super) fn block_counts(&mut self) -> Result<(), KvError> {
        self.rows(Table::Block, |c, key, value| {
            let Some(id) = c.noted(block_key(Table::Block, key)) else { return };
            let Some(count) = c.noted(store::parse_count(value)) else { return };
            let refs = c.blocks.get(&id).map_or(0, |(refs, _)| *refs);
            if refs != count || count == 0 {
                c.general(format!("block {:#x} counts {count} references but has {refs}", id.0));
            }
        })?;
        let mut missing = Vec::new();
        for (id, (refs, _)) in &self.blocks {
            if store::block_refs(self.kv, *id)? == 0 {
                missing.push(format!("block {:#x} has {refs} references but is not counted", id.0));
            }
        }
        missing.into_iter().for_each(|what| self.general(what));
        let mut garbage = 0;
        self.rows(Table::Garbage, |c, key, value| {
            garbage += 1;
            let Some(id) = c.noted(block_key(Table::Garbage, key)) else { return };
            c.decode::<Garbage>(Table::Garbage, key, value);
            if c.blocks.contains_key(&id) {
                c.general(format!("block {:#x} is referenced, but is to be collected", id.0));
            }
        })?;
        if garbage != self.meta.garbage {
            let what = format!("{} blocks are counted as garbage but {garbage} are", self.meta.garbage);
            self.general(what);
        }
        Ok(())
    }
}
