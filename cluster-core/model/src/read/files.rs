//! From blocks back to the names of files, for whoever must report damage.

use crate::extent;
use crate::keys::{self, Parts};
use crate::kv::{KvError, KvRead, Table};
use crate::record::VolumeRecord;
use crate::store;
use atoll_base::block::BlockId;
use atoll_base::id::Ino;
use std::collections::{BTreeMap, BTreeSet};
use std::ops::{Bound, ControlFlow};

/// A file that refers to a block.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct BlockFile {
    /// The block.
    pub block: BlockId,
    /// Name of the volume.
    pub volume: String,
    /// A path of the file within it; bytes that are not UTF-8 are replaced. `?` and the inode number if no name leads to it.
    pub path: String,
}

/// The files that refer to any of `blocks`, in order of block: goes through all extents and all entries, so it takes a while.
pub fn files_of_blocks(kv: &impl KvRead, blocks: &BTreeSet<BlockId>) -> Result<Vec<BlockFile>, KvError> {
    let mut users = BTreeSet::new();
    store::each_from(kv, Table::Extent, Bound::Unbounded, Bound::Unbounded, |key, value| {
        let (ino, offset) = extent::parse_key(key)?;
        if let Some(id) = extent::parse_head(offset, value)?.block
            && blocks.contains(&id)
        {
            users.insert((id, ino));
        }
        Ok(ControlFlow::Continue(()))
    })?;
    let names = names(kv, &users.iter().map(|(_, ino)| *ino).collect())?;
    let mut found = Vec::new();
    for (block, ino) in users {
        let (volume, path) = match names.get(&ino) {
            Some((dir, name)) => path(kv, *dir, name)?,
            None => (volume_of(kv, ino)?, format!("?{ino}")),
        };
        found.push(BlockFile { block, volume, path });
    }
    Ok(found)
}

/// One entry that leads to each of `inos`.
fn names(kv: &impl KvRead, inos: &BTreeSet<Ino>) -> Result<BTreeMap<Ino, (Ino, Vec<u8>)>, KvError> {
    let mut names = BTreeMap::new();
    store::each_from(kv, Table::Dirent, Bound::Unbounded, Bound::Unbounded, |key, value| {
        let (ino, _) = store::parse_dirent(value)?;
        if inos.contains(&ino) {
            let mut parts = Parts::new(Table::Dirent, key);
            names.insert(ino, (parts.ino()?, parts.rest().to_vec()));
        }
        Ok(ControlFlow::Continue(()))
    })?;
    Ok(names)
}

/// Volume and path of an entry, found by climbing to the volume's root.
fn path(kv: &impl KvRead, mut dir: Ino, name: &[u8]) -> Result<(String, String), KvError> {
    let mut path = format!("/{}", String::from_utf8_lossy(name));
    // A circle is damage of its own, which the check reports; here it must only end.
    let mut seen = BTreeSet::new();
    while seen.insert(dir) {
        let Some(record) = store::inode(kv, dir)? else { break };
        let Some(parent) = record.dir.map(|d| d.parent).filter(|parent| *parent != dir) else { break };
        match name_in(kv, parent, dir)? {
            Some(name) => path.insert_str(0, &format!("/{}", String::from_utf8_lossy(&name))),
            None => path.insert_str(0, &format!("/?{dir}")),
        }
        dir = parent;
    }
    Ok((volume_of(kv, dir)?, path))
}

fn name_in(kv: &impl KvRead, dir: Ino, child: Ino) -> Result<Option<Vec<u8>>, KvError> {
    let mut found = None;
    store::each_prefixed(kv, Table::Dirent, &keys::ino(dir), |key, value| {
        let (ino, _) = store::parse_dirent(value)?;
        if ino != child {
            return Ok(ControlFlow::Continue(()));
        }
        let mut parts = Parts::new(Table::Dirent, key);
        parts.ino()?;
        found = Some(parts.rest().to_vec());
        Ok(ControlFlow::Break(()))
    })?;
    Ok(found)
}

fn volume_of(kv: &impl KvRead, ino: Ino) -> Result<String, KvError> {
    let Some(inode) = store::inode(kv, ino)? else { return Ok("?".into()) };
    let record: Option<VolumeRecord> = store::get(kv, Table::Volume, &keys::volume(inode.attr.volume))?;
    Ok(record.map_or_else(|| "?".into(), |r| r.name))
}
