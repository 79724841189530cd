//! Exports: checked when they are made, found by path, never numbered twice.

use crate::kv::{KvWrite, Table};
use crate::limits::{EXPORT_CLIENTS_MAX, EXPORT_PATH_MAX};
use crate::transaction::{Step, Transaction, require};
use crate::{keys, read, store};
use atoll_base::id::{ExportId, Ino, ROOT_VOLUME};
use atoll_base::limits::NAME_MAX;
use atoll_meta::export::{ClientMatch, EXPORTS_MAX};
use atoll_meta::{ExportSpec, FsError, Outcome};
use std::net::IpAddr;

/// Longest host name (RFC 1035 §2.3.4).
const HOST_MAX: usize = 255;

/// The components of an absolute path without `.`, `..` and anything empty; none of `/`.
fn components(path: &str) -> Result<Vec<&str>, FsError> {
    require(path.len() <= EXPORT_PATH_MAX, FsError::NameTooLong)?;
    let rest = path.strip_prefix('/').ok_or(FsError::Invalid)?;
    if rest.is_empty() {
        return Ok(Vec::new());
    }
    let components: Vec<&str> = rest.split('/').collect();
    for name in &components {
        require(!name.is_empty() && *name != "." && *name != "..", FsError::Invalid)?;
        require(!name.contains(|c: char| c.is_control()), FsError::Invalid)?;
        require(name.len() <= NAME_MAX, FsError::NameTooLong)?;
    }
    Ok(components)
}

fn is_client(client: &ClientMatch) -> bool {
    match client {
        ClientMatch::Any => true,
        ClientMatch::Network { addr: IpAddr::V4(addr), prefix } => {
            *prefix <= 32 && u32::from(*addr).checked_shl((*prefix).into()).unwrap_or(0) == 0
        }
        ClientMatch::Network { addr: IpAddr::V6(addr), prefix } => {
            *prefix <= 128 && u128::from(*addr).checked_shl((*prefix).into()).unwrap_or(0) == 0
        }
        ClientMatch::Host(name) => {
            let fits = |c: char| c.is_ascii_alphanumeric() || "-._*?".contains(c);
            (1..=HOST_MAX).contains(&name.len()) && name.chars().all(fits)
        }
    }
}

fn check_spec(spec: &ExportSpec) -> Result<(), FsError> {
    components(&spec.path)?;
    require(spec.volume != ROOT_VOLUME || spec.volume_path == spec.path, FsError::Invalid)?;
    require((1..=EXPORT_CLIENTS_MAX).contains(&spec.clients.len()), FsError::Invalid)?;
    require(spec.clients.iter().all(is_client), FsError::Invalid)?;
    let repeated = |i: usize| spec.sec[..i].contains(&spec.sec[i]);
    require(!spec.sec.is_empty() && !(0..spec.sec.len()).any(repeated), FsError::Invalid)
}

/// PutExport. Its root must be a directory now; should it be removed or moved later, mounting fails until it is back.
pub(crate) fn put<K: KvWrite>(t: &mut Transaction<'_, K>, spec: &ExportSpec) -> Step<Outcome> {
    check_spec(spec)?;
    let volume = t.model.volumes().get(&spec.volume).ok_or(FsError::NotFound)?;
    let mut ino: Ino = volume.root;
    for name in components(&spec.volume_path)? {
        let at = t.follow(ino, "a directory entry")?;
        require(t[at].is_dir(), FsError::NotDirectory)?;
        ino = store::dirent(t.kv, ino, name.as_bytes())?.ok_or(FsError::NotFound)?.0;
    }
    let root = t.follow(ino, "a directory entry")?;
    require(t[root].is_dir(), FsError::NotDirectory)?;

    let exports = read::exports(t.kv)?;
    let id = match exports.list.iter().find(|export| export.spec.path == spec.path) {
        Some(former) => former.id,
        None => {
            require(exports.list.len() < EXPORTS_MAX, FsError::TableFull)?;
            let id = ExportId(t.model.meta.next_export);
            t.model.meta.next_export = id.0.checked_add(1).ok_or(FsError::TableFull)?;
            id
        }
    };
    store::put(t.kv, Table::Export, &keys::export(id), spec)?;
    moved(t);
    Ok(Outcome::Export(id))
}

/// RemoveExport.
pub(crate) fn remove<K: KvWrite>(t: &mut Transaction<'_, K>, id: ExportId) -> Step<Outcome> {
    let key = keys::export(id);
    require(store::has(t.kv, Table::Export, &key)?, FsError::NotFound)?;
    t.kv.delete(Table::Export, &key)?;
    moved(t);
    Ok(Outcome::Done)
}

fn moved<K: KvWrite>(t: &mut Transaction<'_, K>) {
    t.model.meta.exports_version += 1;
    t.touched.exports = true;
}
