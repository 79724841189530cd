//! What one client did and was told, and what the server may therefore show after a crash.

use crate::content::{Content, Verifier};
use atoll_proto::nfs3::{Fattr3, FileHandle, FileType3, NfsTime3};
use bytes::Bytes;
use std::collections::BTreeMap;

/// Number of an object within its client's model.
pub(crate) type NodeId = u64;

/// The root of the export, which all clients share; each has the names that begin with its prefix.
pub(crate) const ROOT: NodeId = 0;

/// A change that a client asks for.
#[derive(Clone, Debug)]
pub(crate) enum Op {
    Create { dir: NodeId, name: String, node: NodeId, exclusive: bool },
    MakeDir { dir: NodeId, name: String, node: NodeId },
    SymLink { dir: NodeId, name: String, node: NodeId, text: String },
    Link { node: NodeId, dir: NodeId, name: String },
    Remove { dir: NodeId, name: String },
    RemoveDir { dir: NodeId, name: String },
    Rename { from: (NodeId, String), to: (NodeId, String) },
    SetMode { node: NodeId, mode: u32 },
    Truncate { node: NodeId, size: u64 },
    Write { node: NodeId, offset: u64, data: Bytes, stable: bool },
    Commit { node: NodeId },
}

/// What a successful reply says.
#[derive(Clone, Debug, Default)]
pub(crate) struct Told {
    pub(crate) handle: Option<FileHandle>,
    /// Attributes of objects after the operation.
    pub(crate) after: Vec<(NodeId, Fattr3)>,
    /// Of WRITE and COMMIT.
    pub(crate) verifier: Option<Verifier>,
    /// Of WRITE: whether the server says it is durable.
    pub(crate) stable: bool,
}

#[derive(Clone, Debug)]
pub(crate) enum Kind {
    Dir,
    Link(String),
    File(Content),
}

#[derive(Clone, Debug)]
pub(crate) struct Node {
    pub(crate) kind: Kind,
    /// Known once the client was told.
    pub(crate) handle: Option<FileHandle>,
    /// The attributes last shown, while nothing has changed them since.
    pub(crate) shown: Option<Fattr3>,
    /// The latest change time ever shown.
    pub(crate) ctime: NfsTime3,
    /// UNSTABLE data were written to it in this life of the server: its times may be ahead of what is stored.
    pub(crate) leased: bool,
}

impl Node {
    fn new(kind: Kind) -> Self {
        Self { kind, handle: None, shown: None, ctime: NfsTime3::default(), leased: false }
    }

    pub(crate) fn content(&self) -> &Content {
        match &self.kind {
            Kind::File(content) => content,
            other => panic!("not a file: {other:?}"),
        }
    }

    fn content_mut(&mut self) -> &mut Content {
        match &mut self.kind {
            Kind::File(content) => content,
            other => panic!("not a file: {other:?}"),
        }
    }
}

/// An object as a fresh client finds it.
pub(crate) struct Seen {
    pub(crate) handle: FileHandle,
    pub(crate) attr: Fattr3,
    /// Bytes of a file, or text of a link.
    pub(crate) data: Vec<u8>,
    /// What COMMIT says; asked for files with pending data.
    pub(crate) verifier: Option<Verifier>,
}

/// All that a client finds, by path from the root of the export.
pub(crate) type Tree = BTreeMap<String, Seen>;

/// One client's part of the file system.
#[derive(Clone)]
pub(crate) struct Model {
    pub(crate) nodes: BTreeMap<NodeId, Node>,
    pub(crate) names: BTreeMap<(NodeId, String), NodeId>,
    next: NodeId,
}

impl Model {
    pub(crate) fn new() -> Self {
        Self { nodes: BTreeMap::from([(ROOT, Node::new(Kind::Dir))]), names: BTreeMap::new(), next: ROOT + 1 }
    }

    pub(crate) fn fresh(&mut self) -> NodeId {
        self.next += 1;
        self.next - 1
    }

    pub(crate) fn links(&self, node: NodeId) -> usize {
        self.names.values().filter(|n| **n == node).count()
    }

    pub(crate) fn children(&self, dir: NodeId) -> impl Iterator<Item = (&str, NodeId)> {
        let range = (dir, String::new())..(dir + 1, String::new());
        self.names.range(range).map(|((_, name), node)| (name.as_str(), *node))
    }

    /// Whether `inner` is `outer` or below it.
    pub(crate) fn is_within(&self, inner: NodeId, outer: NodeId) -> bool {
        inner == outer || self.children(outer).any(|(_, child)| self.is_within(inner, child))
    }

    fn add(&mut self, dir: NodeId, name: &str, node: NodeId, kind: Kind) {
        self.nodes.insert(node, Node::new(kind));
        self.names.insert((dir, name.to_owned()), node);
    }

    /// Takes a name away, and the object with its last one.
    fn drop_name(&mut self, dir: NodeId, name: &str) {
        let Some(node) = self.names.remove(&(dir, name.to_owned())) else { return };
        self.forget_shown(node);
        if self.links(node) == 0 {
            self.nodes.remove(&node);
        }
    }

    fn forget_shown(&mut self, node: NodeId) {
        if let Some(node) = self.nodes.get_mut(&node) {
            node.shown = None;
        }
    }

    /// The operation took effect. `told` is what the reply said, if there was one.
    pub(crate) fn apply(&mut self, op: &Op, told: Option<&Told>) {
        match op {
            Op::Create { dir, name, node, .. } => self.add(*dir, name, *node, Kind::File(Content::default())),
            Op::MakeDir { dir, name, node } => self.add(*dir, name, *node, Kind::Dir),
            Op::SymLink { dir, name, node, text } => self.add(*dir, name, *node, Kind::Link(text.clone())),
            Op::Link { node, dir, name } => {
                self.names.insert((*dir, name.clone()), *node);
                self.forget_shown(*node);
            }
            Op::Remove { dir, name } | Op::RemoveDir { dir, name } => self.drop_name(*dir, name),
            Op::Rename { from, to } => {
                let node = self.names[from];
                // Two names of one object: nothing happens (RFC 1813 §3.3.14).
                if self.names.get(to) != Some(&node) {
                    self.names.remove(from);
                    self.drop_name(to.0, &to.1);
                    self.names.insert(to.clone(), node);
                    self.forget_shown(node);
                }
                self.forget_shown(to.0);
            }
            Op::SetMode { node, .. } => self.forget_shown(*node),
            Op::Truncate { node, size } => self.change(*node, |n| n.content_mut().truncate(*size as usize)),
            Op::Write { node, offset, data, stable } => {
                let (offset, verifier) = (*offset as usize, told.and_then(|t| t.verifier));
                let stable = told.map_or(*stable, |t| t.stable);
                self.change(*node, |n| {
                    if stable {
                        n.content_mut().write_stable(offset, data);
                    } else {
                        n.content_mut().write_unstable(offset, data, verifier);
                        n.leased = true;
                    }
                });
            }
            Op::Commit { node } => {
                if let Some(verifier) = told.and_then(|t| t.verifier) {
                    self.change(*node, |n| n.content_mut().commit(verifier));
                }
            }
        }
        match op {
            Op::Create { dir, .. }
            | Op::MakeDir { dir, .. }
            | Op::SymLink { dir, .. }
            | Op::Link { dir, .. }
            | Op::Remove { dir, .. }
            | Op::RemoveDir { dir, .. } => self.forget_shown(*dir),
            Op::Rename { from, .. } => self.forget_shown(from.0),
            _ => {}
        }
        let Some(told) = told else { return };
        if let (Some(handle), Op::Create { node, .. } | Op::MakeDir { node, .. } | Op::SymLink { node, .. }) =
            (told.handle, op)
        {
            self.change(*node, |n| n.handle = Some(handle));
        }
        for (node, attr) in &told.after {
            if let Some(node) = self.nodes.get_mut(node) {
                node.ctime = node.ctime.max(attr.ctime);
                node.shown = Some(*attr);
            }
        }
    }

    fn change(&mut self, node: NodeId, f: impl FnOnce(&mut Node)) {
        let node = self.nodes.get_mut(&node).expect("an operation is on an object that exists");
        node.shown = None;
        f(node);
    }

    /// All paths with their objects, from the root of the export.
    pub(crate) fn paths(&self) -> BTreeMap<String, NodeId> {
        let mut paths = BTreeMap::new();
        let mut dirs = vec![(String::new(), ROOT)];
        while let Some((path, dir)) = dirs.pop() {
            for (name, node) in self.children(dir) {
                let path = format!("{path}/{name}");
                if matches!(self.nodes[&node].kind, Kind::Dir) {
                    dirs.push((path.clone(), node));
                }
                paths.insert(path, node);
            }
        }
        paths
    }

    /// Whether what is found may be: all that was acknowledged, and nothing else.
    pub(crate) fn allows(&self, found: &Tree) -> Result<(), String> {
        let paths = self.paths();
        if let Some(missing) = paths.keys().find(|p| !found.contains_key(*p)) {
            return Err(format!("{missing} is missing"));
        }
        if let Some(extra) = found.keys().find(|p| !paths.contains_key(*p)) {
            return Err(format!("{extra} should not be there"));
        }
        for (path, id) in paths {
            self.allows_node(id, &found[&path]).map_err(|e| format!("{path}: {e}"))?;
        }
        Ok(())
    }

    fn allows_node(&self, id: NodeId, seen: &Seen) -> Result<(), String> {
        let (node, attr) = (&self.nodes[&id], &seen.attr);
        let links = match node.kind {
            Kind::Dir => {
                2 + self.children(id).filter(|(_, n)| matches!(self.nodes[n].kind, Kind::Dir)).count()
            }
            _ => self.links(id),
        };
        if attr.nlink as usize != links {
            return Err(format!("{} links instead of {links}", attr.nlink));
        }
        if node.handle.is_some_and(|h| h != seen.handle) {
            return Err("another file handle".to_owned());
        }
        let right = match (&node.kind, attr.file_type) {
            (Kind::Dir, FileType3::Directory) => Ok(()),
            (Kind::Link(text), FileType3::SymLink) if text.as_bytes() == seen.data => Ok(()),
            (Kind::Link(text), FileType3::SymLink) => Err(format!("the text of the link is not {text}")),
            (Kind::File(content), FileType3::Regular) => content.allows(&seen.data, seen.verifier),
            (_, other) => Err(format!("is a {other:?}")),
        };
        right?;
        if attr.ctime < node.ctime {
            return Err(format!("ctime went back from {:?} to {:?}", node.ctime, attr.ctime));
        }
        let same = match &node.kind {
            Kind::File(content) => content.now() == seen.data,
            _ => true,
        };
        if !same && attr.ctime == node.ctime {
            return Err("other bytes under a ctime that was shown before".to_owned());
        }
        let Some(shown) = &node.shown else { return Ok(()) };
        let but_times = Fattr3 {
            atime: shown.atime,
            mtime: shown.mtime,
            ctime: shown.ctime,
            used: shown.used,
            size: shown.size,
            ..*attr
        };
        if but_times != *shown {
            return Err(format!("attributes were {shown:?} and are {attr:?}"));
        }
        if (attr.ctime == shown.ctime || !node.leased)
            && (attr.mtime, attr.ctime) != (shown.mtime, shown.ctime)
        {
            return Err(format!("times were {shown:?} and are {attr:?}"));
        }
        Ok(())
    }

    /// What was found, and allowed, is what counts from now on.
    pub(crate) fn settle(&mut self, found: &Tree) {
        for (path, id) in self.paths() {
            let (node, seen) = (self.nodes.get_mut(&id).expect("has a path"), &found[&path]);
            node.handle = Some(seen.handle);
            node.ctime = seen.attr.ctime;
            node.shown = Some(seen.attr);
            node.leased = false;
            if let Kind::File(content) = &mut node.kind {
                content.settle(&seen.data);
            }
        }
        // Other clients change it too.
        self.forget_shown(ROOT);
    }
}
