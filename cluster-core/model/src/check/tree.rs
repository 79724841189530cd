//! Inodes, directory entries, links, parents.

use super::{Checker, Node};
use crate::keys::{self, Parts};
use crate::kv::{KvError, KvRead, Table};
use crate::limits::DIRECTORY_SIZE;
use crate::model::GROUP;
use crate::record::Inode;
use crate::store;
use atoll_base::attr::FileKind;
use atoll_base::id::{Cookie, Ino};
use atoll_base::limits::{FILE_SIZE_MAX, LINK_MAX};
use atoll_base::time::NANOS_PER_SEC;
use atoll_meta::FsError;
use std::collections::BTreeSet;

impl<K: KvRead> Checker<'_, K> {
    pub(super) fn inodes(&mut self) -> Result<(), KvError> {
        self.rows(Table::Inode, |c, key, value| {
            let Some(ino) = c.ino_key(Table::Inode, key) else { return };
            let Some(inode) = c.decode::<Inode>(Table::Inode, key, value) else { return };
            let dir = inode.dir.as_ref();
            let node = Node {
                kind: inode.attr.kind,
                volume: inode.attr.volume,
                nlink: inode.attr.nlink,
                parent: dir.map(|d| d.parent),
                entries: dir.map_or(0, |d| d.entries),
                next_cookie: dir.map_or(0, |d| d.next_cookie),
                delegated: inode.attr.delegated,
                found_entries: 0,
                links: 0,
                subdirectories: 0,
                name: None,
            };
            c.nodes.insert(ino, node);
            let volume = c.volumes.entry(inode.attr.volume).or_default();
            volume.0 += 1;
            volume.1 += inode.attr.used;
            // What belongs to it is looked at once names are known.
            if inode.attr.ino != ino {
                c.about(ino, format!("its record says that it is inode {}", inode.attr.ino));
            }
        })
    }

    /// Entries by name and by cookie are the same; then what each inode says of itself.
    pub(super) fn entries(&mut self) -> Result<(), KvError> {
        self.rows(Table::Dirent, |c, key, value| {
            let mut parts = Parts::new(Table::Dirent, key);
            let Some(dir) = c.noted(parts.ino()) else { return };
            let name = parts.rest();
            if let Some((ino, cookie)) = c.noted(store::parse_dirent(value)) {
                c.entry(dir, name, ino, cookie);
            }
        })?;
        self.rows(Table::DirCookie, |c, key, value| {
            let mut parts = Parts::new(Table::DirCookie, key);
            let place = parts.ino().and_then(|dir| Ok((dir, Cookie(parts.u64()?))));
            let Some((dir, cookie)) = c.noted(place) else { return };
            let Some((ino, name)) = c.noted(store::parse_dircookie(value)) else { return };
            match store::dirent(c.kv, dir, name) {
                Ok(Some(entry)) if entry == (ino, cookie) => {}
                Ok(_) => {
                    let name = name.escape_ascii();
                    c.about(dir, format!("cookie {} stands for {name}, which is not so by name", cookie.0));
                }
                Err(e) => c.general(e.what().to_owned()),
            }
        })?;
        self.rows(Table::Inode, |c, key, value| {
            let Some(ino) = c.ino_key(Table::Inode, key) else { return };
            if let Ok(inode) = crate::codec::decode::<Inode>(value) {
                c.attributes(ino, &inode);
                c.acl(ino, &inode);
                c.label(ino, &inode);
                if let Err(error) = c.belongings(ino, &inode) {
                    c.about(ino, error.what().to_owned());
                }
            }
        })
    }

    fn entry(&mut self, dir: Ino, name: &[u8], ino: Ino, cookie: Cookie) {
        let shown = name.escape_ascii();
        let by_cookie = self.kv.get(Table::DirCookie, &keys::cookie(dir, cookie), |value| {
            value.and_then(|v| store::parse_dircookie(v).ok()).is_some_and(|(i, n)| i == ino && n == name)
        });
        if !matches!(by_cookie, Ok(true)) {
            self.about(dir, format!("entry {shown} is not found by its cookie {}", cookie.0));
        }
        if crate::ops::names::check(name, FsError::Exists).is_err() {
            self.about(dir, format!("entry {shown} has a name that none can have"));
        }
        let Some(directory) = self.nodes.get_mut(&dir) else {
            self.general(format!("entry {shown} is in directory {dir}, which does not exist"));
            return;
        };
        let (volume, is_dir, next) = (directory.volume, directory.parent.is_some(), directory.next_cookie);
        directory.found_entries += 1;
        if !is_dir {
            self.about(dir, format!("has an entry {shown} but is no directory"));
        } else if cookie < Cookie::FIRST_ENTRY || cookie.0 >= next {
            self.about(dir, format!("entry {shown} has the cookie {}, which was never given out", cookie.0));
        }
        let Some(node) = self.nodes.get_mut(&ino) else {
            self.about(dir, format!("entry {shown} stands for inode {ino}, which does not exist"));
            return;
        };
        node.links += 1;
        node.name.get_or_insert((dir, cookie));
        let (other_volume, parent) = (node.volume, node.parent);
        if let Some(parent) = parent {
            if let Some(directory) = self.nodes.get_mut(&dir) {
                directory.subdirectories += 1;
            }
            if parent != dir {
                self.about(ino, format!("says that its parent is {parent}, but is an entry of {dir}"));
            }
        }
        if other_volume != volume {
            self.about(ino, format!("belongs to volume {}, but has a name in {}", other_volume.0, volume.0));
        }
    }

    fn attributes(&mut self, ino: Ino, inode: &Inode) {
        let attr = &inode.attr;
        let mut wrong = Vec::new();
        let mut claim = |holds: bool, what: &str| {
            if !holds {
                wrong.push(what.to_owned());
            }
        };
        let is_file = attr.kind == FileKind::Regular;
        claim(inode.dir.is_some() == inode.is_dir(), "its type and its directory part disagree");
        claim(inode.file.is_some() == is_file, "its type and its file part disagree");
        claim(attr.mode <= 0o7777, "its mode has bits that none has");
        claim(attr.generation != 0, "its generation is 0");
        claim(attr.nlink <= LINK_MAX, "its link count is too high");
        let times = [attr.atime, attr.mtime, attr.ctime, attr.btime];
        claim(times.iter().all(|t| t.nanos < NANOS_PER_SEC), "a time has too many nanoseconds");
        claim(ino.group() == GROUP && ino.0 < self.meta.next_ino, "its number was never given out");
        claim(is_file || attr.used == 0, "it is no file but counts bytes of data");
        match attr.kind {
            FileKind::Regular => claim(attr.size <= FILE_SIZE_MAX, "it is too long"),
            FileKind::Directory => claim(attr.size == DIRECTORY_SIZE, "its size is not a directory's"),
            FileKind::Symlink => {
                let len = self.kv.get(Table::Symlink, &keys::ino(ino), |v| v.map(|v| v.len() as u64));
                claim(matches!(len, Ok(Some(len)) if len == attr.size), "its target is missing or damaged");
            }
            _ => claim(attr.size == 0, "it has a size"),
        }
        for what in wrong {
            self.about(ino, what);
        }
    }

    pub(super) fn links(&mut self) {
        let mut wrong = Vec::new();
        for (ino, node) in &self.nodes {
            let is_root = node.parent == Some(*ino);
            // A removed file stays while it is open, or copied.
            let holds = [Table::FileState, Table::FileOffload];
            let is_open = node.kind == FileKind::Regular
                && node.nlink == 0
                && holds.into_iter().any(|table| self.has_prefixed(table, &keys::ino(*ino)));
            if node.links == 0 && !is_root && !is_open {
                wrong.push((*ino, "no name leads to it".to_owned()));
            }
            match node.parent {
                Some(_) => {
                    let expected = u32::from(!is_root);
                    if node.links > expected {
                        wrong.push((*ino, format!("it is a directory with {} names", node.links)));
                    }
                    if node.nlink != node.subdirectories + 2 {
                        let n = node.subdirectories;
                        wrong.push((*ino, format!("counts {} links with {n} subdirectories", node.nlink)));
                    }
                    if node.entries != node.found_entries {
                        let n = node.found_entries;
                        wrong.push((*ino, format!("counts {} entries but has {n}", node.entries)));
                    }
                }
                None if node.nlink != node.links => {
                    wrong.push((*ino, format!("counts {} links but has {} names", node.nlink, node.links)));
                }
                None => {}
            }
        }
        for (ino, what) in wrong {
            self.about(ino, what);
        }
    }

    /// Every directory's parents lead to a root.
    pub(super) fn circles(&mut self) {
        let mut good: BTreeSet<Ino> = BTreeSet::new();
        let mut bad: BTreeSet<Ino> = BTreeSet::new();
        let mut wrong = Vec::new();
        for (&start, node) in &self.nodes {
            if node.kind != FileKind::Directory {
                continue;
            }
            let mut way = Vec::new();
            let mut seen = BTreeSet::new();
            let mut ino = start;
            let is_good = loop {
                if good.contains(&ino) {
                    break true;
                }
                if bad.contains(&ino) || !seen.insert(ino) {
                    break false;
                }
                way.push(ino);
                match self.nodes.get(&ino).and_then(|node| node.parent) {
                    Some(parent) if parent == ino => break true,
                    Some(parent) => ino = parent,
                    None => break false,
                }
            };
            if is_good {
                good.extend(way);
            } else {
                bad.extend(way);
                wrong.push(start);
            }
        }
        for ino in wrong {
            self.about(ino, "its parents do not lead to a root");
        }
    }
}
