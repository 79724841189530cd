//! Volumes.

use crate::kv::{KvError, KvWrite};
use crate::limits::{DIRECTORY_SIZE, VOLUMES_MAX};
use crate::model::Model;
use crate::record::{Dir, Inode, VolumeRecord};
use crate::store;
use crate::transaction::{Step, Transaction, require};
use atoll_base::attr::{Attr, Delegated, Device, FileKind};
use atoll_base::id::{Cookie, VolumeId};
use atoll_base::time::Timestamp;
use atoll_meta::{FsError, Outcome};

/// Longest name.
const NAME_MAX: usize = 64;

fn is_name(name: &str) -> bool {
    let fits = |b: u8| b.is_ascii_alphanumeric() || b"_.-".contains(&b);
    (1..=NAME_MAX).contains(&name.len()) && name.bytes().all(fits)
}

/// Makes a volume with its root directory, mode 0755, of uid and gid 0. Used by the bootstrap too.
pub(crate) fn make(
    kv: &mut impl KvWrite,
    model: &mut Model,
    name: String,
    txn: u64,
    now: Timestamp,
) -> Result<VolumeId, KvError> {
    let id = VolumeId(model.meta.next_volume);
    model.meta.next_volume += 1;
    let (root, generation) = model.new_ino(txn);
    let attr = Attr {
        ino: root,
        volume: id,
        generation,
        kind: FileKind::Directory,
        mode: 0o755,
        nlink: 2,
        uid: 0,
        gid: 0,
        size: DIRECTORY_SIZE,
        used: 0,
        device: Device::default(),
        atime: now,
        mtime: now,
        ctime: now,
        btime: now,
        change: 1,
        acl: None,
        label: None,
        delegated: Delegated::No,
    };
    let dir = Dir { parent: root, next_cookie: Cookie::FIRST_ENTRY.0, entries: 0 };
    let inode =
        Inode { attr, dir: Some(dir), file: None, xattrs: 0, xattr_bytes: 0, acl: false, label: false };
    store::put_inode(kv, &inode)?;
    model.add_volume(id, VolumeRecord { name, root, inodes: 1, bytes: 0 });
    Ok(id)
}

/// CreateVolume.
pub(crate) fn create<K: KvWrite>(t: &mut Transaction<'_, K>, name: &str) -> Step<Outcome> {
    require(is_name(name), FsError::Invalid)?;
    require(t.model.volumes().values().all(|v| v.name != name), FsError::Exists)?;
    require(t.model.volumes().len() < VOLUMES_MAX, FsError::TableFull)?;
    let id = make(t.kv, t.model, name.to_owned(), t.txn, t.now)?;
    Ok(Outcome::Volume(id))
}
