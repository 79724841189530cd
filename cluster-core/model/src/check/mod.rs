//! Referential integrity of a whole state, for `atoll fsck` and as an oracle of tests.
//!
//! One pass over each table, with look-ups into the others; in memory only what a tree needs: a few words per inode
//! and per block. A record that does not decode is a finding, and what it would have said is then missing
//! elsewhere, so one damage can make several findings.

mod acls;
mod data;
mod labels;
mod locks;
mod nfs4_clients;
mod nfs4_delegations;
mod nfs4_offloads;
mod nfs4_states;
mod tables;
mod tree;

use crate::keys::{self, Parts};
use crate::kv::{KvError, KvRead, Table};
use crate::record::{Inode, Meta, Orphan};
use crate::{codec, store};
use atoll_base::attr::{Delegated, FileKind};
use atoll_base::block::BlockId;
use atoll_base::id::{Cookie, Ino, VolumeId};
use serde::de::DeserializeOwned;
use std::collections::BTreeMap;
use std::fmt;
use std::ops::{Bound, ControlFlow};

/// Something wrong.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Finding {
    /// The volume it is in, if it is in one.
    pub volume: Option<VolumeId>,
    /// Path within the volume, as far as known: `?` and the inode number for what no name leads to; empty if it concerns
    /// no inode.
    pub path: String,
    /// What is wrong.
    pub what: String,
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(volume) = self.volume {
            write!(f, "volume {}: ", volume.0)?;
        }
        if !self.path.is_empty() {
            write!(f, "{}: ", self.path)?;
        }
        f.write_str(&self.what)
    }
}

/// Most findings kept; after that only a note that there are more.
const FINDINGS_MAX: usize = 10_000;

/// What the passes know of an inode.
struct Node {
    kind: FileKind,
    volume: VolumeId,
    nlink: u32,
    /// Of a directory: what it says its parent is.
    parent: Option<Ino>,
    entries: u64,
    next_cookie: u64,
    delegated: Delegated,
    // Found in the table of entries:
    found_entries: u64,
    links: u32,
    subdirectories: u32,
    /// The first entry that leads here.
    name: Option<(Ino, Cookie)>,
}

struct Checker<'a, K> {
    kv: &'a K,
    meta: Meta,
    findings: Vec<Finding>,
    nodes: BTreeMap<Ino, Node>,
    /// References to each block, and the first byte behind the last that is referred to.
    blocks: BTreeMap<BlockId, (u64, u32)>,
    /// Inodes and bytes of each volume, as found.
    volumes: BTreeMap<VolumeId, (u64, u64)>,
}

/// Checks everything. Calls `blocks` once for each referenced block, in order of ids, with the first byte behind the
/// last that any extent refers to. An error is the store's; a state that was never bootstrapped is one.
pub fn check<K: KvRead>(kv: &K, blocks: &mut dyn FnMut(BlockId, u32)) -> Result<Vec<Finding>, KvError> {
    let meta = crate::model::meta(kv)?;
    let mut checker = Checker {
        kv,
        meta,
        findings: Vec::new(),
        nodes: BTreeMap::new(),
        blocks: BTreeMap::new(),
        volumes: BTreeMap::new(),
    };
    checker.inodes()?;
    checker.entries()?;
    checker.links();
    checker.circles();
    checker.strays()?;
    checker.stray_acls()?;
    checker.stray_labels()?;
    checker.orphans()?;
    checker.block_counts()?;
    checker.volume_counts()?;
    checker.leases()?;
    checker.outcomes()?;
    checker.exports()?;
    checker.lock_tables()?;
    checker.lock_clients()?;
    checker.clients()?;
    checker.sessions()?;
    checker.states()?;
    checker.offloads()?;
    for (id, (_, end)) in &checker.blocks {
        blocks(*id, *end);
    }
    Ok(checker.findings)
}

impl<K: KvRead> Checker<'_, K> {
    fn find(&mut self, volume: Option<VolumeId>, path: String, what: String) {
        match self.findings.len() {
            n if n < FINDINGS_MAX => self.findings.push(Finding { volume, path, what }),
            FINDINGS_MAX => {
                let what = "more findings follow that are not listed".into();
                self.findings.push(Finding { volume: None, path: String::new(), what });
            }
            _ => {}
        }
    }

    /// A finding about the state as a whole.
    fn general(&mut self, what: impl Into<String>) {
        self.find(None, String::new(), what.into());
    }

    /// A finding about an inode.
    fn about(&mut self, ino: Ino, what: impl Into<String>) {
        let volume = self.nodes.get(&ino).map(|node| node.volume);
        let path = self.path(ino);
        self.find(volume, path, what.into());
    }

    /// A path to an inode, by the first entry that was found for it and its parents.
    fn path(&self, mut ino: Ino) -> String {
        let mut names: Vec<String> = Vec::new();
        // A circle of directories is cut off here.
        for _ in 0..crate::limits::DEPTH_MAX {
            let Some(node) = self.nodes.get(&ino) else { break };
            if node.parent == Some(ino) {
                let path: Vec<String> = names.into_iter().rev().collect();
                return format!("/{}", path.join("/"));
            }
            let Some((dir, cookie)) = node.name else { break };
            let name = self.kv.get(Table::DirCookie, &keys::cookie(dir, cookie), |value| {
                let (_, name) = store::parse_dircookie(value?).ok()?;
                Some(String::from_utf8_lossy(name).into_owned())
            });
            names.push(name.ok().flatten().unwrap_or_else(|| "?".into()));
            ino = dir;
        }
        let path: Vec<String> = names.into_iter().rev().collect();
        format!("?{ino}/{}", path.join("/")).trim_end_matches('/').to_owned()
    }

    /// Decodes a record, or notes that it cannot be.
    fn decode<T: DeserializeOwned>(&mut self, table: Table, key: &[u8], value: &[u8]) -> Option<T> {
        match codec::decode(value) {
            Ok(record) => Some(record),
            Err(e) => {
                self.general(format!("record {} of table {}: {e}", key.escape_ascii(), table.name()));
                None
            }
        }
    }

    /// Takes a value, or notes why it cannot be had.
    fn noted<T>(&mut self, result: Result<T, KvError>) -> Option<T> {
        match result {
            Ok(value) => Some(value),
            Err(error) => {
                self.general(error.what().to_owned());
                None
            }
        }
    }

    /// Calls `f` with each row of a table.
    fn rows(&mut self, table: Table, mut f: impl FnMut(&mut Self, &[u8], &[u8])) -> Result<(), KvError> {
        let kv = self.kv;
        kv.scan(table, Bound::Unbounded, Bound::Unbounded, |key, value| {
            f(self, key, value);
            ControlFlow::Continue(())
        })
    }

    /// What an inode says is in a row of its own, if that is there and can be read.
    fn apart<T: DeserializeOwned>(&mut self, ino: Ino, table: Table, what: &str) -> Option<T> {
        let read = self.kv.get(table, &keys::ino(ino), |value| value.map(codec::decode));
        match self.noted(read).flatten() {
            Some(Ok(value)) => return Some(value),
            None => self.about(ino, format!("its {what} is missing")),
            Some(Err(e)) => self.about(ino, format!("its {what}: {e}")),
        }
        None
    }

    /// Whether an inode says something of itself; one that does not exist does not. `None` if that cannot be known.
    fn says(&mut self, ino: Ino, what: impl FnOnce(&Inode) -> bool) -> Option<bool> {
        let says = self.kv.get(Table::Inode, &keys::ino(ino), |value| {
            value.and_then(|value| codec::decode::<Inode>(value).ok()).is_some_and(|inode| what(&inode))
        });
        self.noted(says)
    }

    fn ino_key(&mut self, table: Table, key: &[u8]) -> Option<Ino> {
        let mut parts = Parts::new(table, key);
        let ino = parts.ino().and_then(|ino| parts.end().map(|()| ino));
        self.noted(ino)
    }

    fn orphan(&self, ino: Ino) -> Result<Option<Orphan>, KvError> {
        self.kv.get(Table::Orphan, &keys::ino(ino), |v| v.and_then(|v| codec::decode(v).ok()))
    }
}
