//! The pseudo file system, and where exports join it and each other (RFC 8881 §7, RFC 7530 §7).
//!
//! Every path that leads to an export is a node of a read-only tree that exists in no volume. A client that may use the export at
//! a node goes into it there; otherwise it goes on through the tree, so that an export is reached although those above are
//! closed to it. Inside an export, a directory at whose path another export lies is the way into that one.
//!
//! Handles of nodes name volume 0, which no volume has, and the hash of the path as inode: they are good as long as some export
//! lies below.

use crate::engine::handle::Handle;
use crate::engine::{Engine, ExportRef};
use atoll_base::attr::{Attr, Delegated, Device, FileKind};
use atoll_base::block::BlockService;
use atoll_base::id::{ExportId, Ino, ROOT_VOLUME, VolumeId};
use atoll_base::time::Timestamp;
use atoll_meta::{Exports, FsError, MetadataService};
use bytes::Bytes;
use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, PoisonError};
use xxhash_rust::xxh3::xxh3_64;

/// The volume that handles of nodes name.
pub(crate) const VOLUME: VolumeId = VolumeId(0);
/// The export that handles of nodes name.
const EXPORT: ExportId = ExportId(0);
const GENERATION: u32 = 1;

/// A directory that leads to exports.
#[derive(Debug)]
pub(crate) struct Node {
    pub(crate) ino: Ino,
    /// Of the root: itself.
    pub(crate) parent: usize,
    /// The export at this path.
    pub(crate) export: Option<ExportId>,
    pub(crate) children: BTreeMap<Bytes, usize>,
}

/// The joints of one state of the exports.
#[derive(Debug)]
pub(crate) struct Joints {
    version: u64,
    born: Timestamp,
    /// Whether some export has security labels: then their support is discovered at the root (RFC 7862 §9.4).
    labelled: bool,
    /// The first is the root.
    nodes: Vec<Node>,
    by_ino: HashMap<Ino, usize>,
    by_export: HashMap<ExportId, usize>,
    /// Directory and name at which another export begins.
    below: HashMap<(Ino, Bytes), ExportId>,
    /// The directory above an export's root inside of another export, with that one.
    above: HashMap<ExportId, (ExportId, Ino)>,
    /// What an export's root hides there.
    covered: HashMap<ExportId, Ino>,
}

/// The joints in use; made anew when the exports have changed.
#[derive(Debug, Default)]
pub(crate) struct Cache(Mutex<Option<Arc<Joints>>>);

fn components(path: &str) -> impl Iterator<Item = &str> {
    path.split('/').filter(|name| !name.is_empty())
}

impl Joints {
    /// The tree of all paths; joints within volumes are still to be found.
    fn tree(exports: &Exports, born: Timestamp) -> Self {
        let ino = |path: &str| Ino(xxh3_64(path.as_bytes()));
        let root = Node { ino: ino("/"), parent: 0, export: None, children: BTreeMap::new() };
        let mut nodes = vec![root];
        let mut by_export = HashMap::new();
        for export in &exports.list {
            let (mut at, mut path) = (0, String::new());
            for name in components(&export.spec.path) {
                path.push('/');
                path.push_str(name);
                let name = Bytes::copy_from_slice(name.as_bytes());
                at = match nodes[at].children.get(&name) {
                    Some(child) => *child,
                    None => {
                        let child = nodes.len();
                        nodes.push(Node {
                            ino: ino(&path),
                            parent: at,
                            export: None,
                            children: BTreeMap::new(),
                        });
                        nodes[at].children.insert(name, child);
                        child
                    }
                };
            }
            nodes[at].export = Some(export.id);
            by_export.insert(export.id, at);
        }
        let by_ino = nodes.iter().enumerate().map(|(index, node)| (node.ino, index)).collect();
        Self {
            version: exports.version,
            born,
            labelled: exports.list.iter().any(|export| export.spec.security_label),
            nodes,
            by_ino,
            by_export,
            below: HashMap::new(),
            above: HashMap::new(),
            covered: HashMap::new(),
        }
    }

    /// The root of everything.
    pub(crate) const ROOT: usize = 0;

    /// A node.
    pub(crate) fn node(&self, index: usize) -> &Node {
        &self.nodes[index]
    }

    /// Whether security labels are supported by some export.
    pub(crate) fn labelled(&self) -> bool {
        self.labelled
    }

    /// The node that a handle names.
    pub(crate) fn find(&self, handle: &Handle) -> Option<usize> {
        self.by_ino.get(&handle.ino).copied()
    }

    /// The node at which an export lies.
    pub(crate) fn at_export(&self, export: ExportId) -> Option<usize> {
        self.by_export.get(&export).copied()
    }

    /// The export that begins at a name in a directory.
    pub(crate) fn below(&self, dir: Ino, name: &Bytes) -> Option<ExportId> {
        if self.below.is_empty() {
            return None;
        }
        self.below.get(&(dir, name.clone())).copied()
    }

    /// The names in a directory at which other exports begin, in order.
    pub(crate) fn names_in(&self, dir: Ino) -> Vec<Bytes> {
        let mut names: Vec<Bytes> =
            self.below.keys().filter(|(at, _)| *at == dir).map(|(_, name)| name.clone()).collect();
        names.sort_unstable();
        names
    }

    /// Where an export's root hangs inside of another export.
    pub(crate) fn above(&self, export: ExportId) -> Option<(ExportId, Ino)> {
        self.above.get(&export).copied()
    }

    /// The number that the directory above has for an export's root; none for the root of everything.
    pub(crate) fn mounted_on(&self, export: ExportId) -> Option<Ino> {
        let node =
            || self.at_export(export).filter(|index| *index != Self::ROOT).map(|index| self.nodes[index].ino);
        self.covered.get(&export).copied().or_else(node)
    }

    /// The handle of a node.
    pub(crate) fn handle(&self, index: usize) -> Handle {
        Handle { export: EXPORT, volume: VOLUME, ino: self.nodes[index].ino, generation: GENERATION }
    }

    /// Attributes of a node: those of a directory that only its owner, nobody, could change.
    pub(crate) fn attr(&self, index: usize) -> Attr {
        let node = &self.nodes[index];
        Attr {
            ino: node.ino,
            volume: VOLUME,
            generation: GENERATION,
            kind: FileKind::Directory,
            mode: 0o555,
            nlink: 2 + node.children.len() as u32,
            uid: 0,
            gid: 0,
            size: 4096,
            used: 0,
            device: Device::default(),
            atime: self.born,
            mtime: self.born,
            ctime: self.born,
            btime: self.born,
            change: self.version + 1,
            acl: None,
            label: None,
            delegated: Delegated::No,
        }
    }
}

impl<M: MetadataService, B: BlockService> Engine<M, B> {
    /// The joints of the exports in force.
    pub(crate) async fn joints(&self) -> Result<Arc<Joints>, FsError> {
        let exports = self.meta.exports();
        {
            let cache = self.v4.joints.0.lock().unwrap_or_else(PoisonError::into_inner);
            if let Some(joints) = cache.as_ref().filter(|joints| joints.version == exports.version) {
                return Ok(joints.clone());
            }
        }
        let root = self.meta.volume(ROOT_VOLUME).await?.root;
        let mut joints = Joints::tree(&exports, self.meta.getattr(root).await?.btime);
        for inner in ExportRef::all(&exports) {
            // The innermost comes last, and is what `..` leads to.
            let mut covering: Vec<ExportRef> = ExportRef::all(&exports)
                .filter(|outer| outer.id != inner.id && is_below(&inner.spec.path, &outer.spec.path))
                .collect();
            covering.sort_by_key(|outer| outer.spec.path.len());
            for outer in covering {
                let rest: Vec<&str> =
                    components(&inner.spec.path).skip(components(&outer.spec.path).count()).collect();
                let Some((name, way)) = rest.split_last() else { continue };
                let way = way.join("/");
                let dir = match self.export_root(&outer).await {
                    Ok(start) => self.walk(start, way.as_bytes()).await,
                    Err(e) => Err(e),
                };
                match dir {
                    Ok(dir) => {
                        if let Ok(hidden) = self.meta.lookup(dir.ino, name.as_bytes()).await?.child {
                            joints.covered.insert(inner.id, hidden.ino);
                        }
                        joints.below.insert((dir.ino, Bytes::copy_from_slice(name.as_bytes())), inner.id);
                        joints.above.insert(inner.id, (outer.id, dir.ino));
                    }
                    // Not reached through this one until the path is there and the exports change.
                    Err(
                        FsError::NotFound | FsError::NotDirectory | FsError::AccessDenied | FsError::Stale,
                    ) => {}
                    Err(e) => return Err(e),
                }
            }
        }
        let joints = Arc::new(joints);
        *self.v4.joints.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(joints.clone());
        Ok(joints)
    }
}

fn is_below(path: &str, above: &str) -> bool {
    let (mut path, mut above) = (components(path), components(above));
    loop {
        match (path.next(), above.next()) {
            (Some(_), None) => return true,
            (Some(a), Some(b)) if a == b => {}
            _ => return false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_lies_below() {
        assert!(is_below("/a", "/"));
        assert!(is_below("/a/b", "/a"));
        assert!(!is_below("/ab", "/a"));
        assert!(!is_below("/a", "/a"));
        assert!(!is_below("/", "/a"));
    }
}
