//! Access control lists: each belongs to an inode that says it has one, and says what its mode says.

use super::Checker;
use crate::kv::{KvError, KvRead, Table};
use crate::record::Inode;
use atoll_base::acl::Acl;
use atoll_base::attr::FileKind;
use atoll_base::id::Ino;

impl<K: KvRead> Checker<'_, K> {
    /// The list of an inode.
    pub(super) fn acl(&mut self, ino: Ino, inode: &Inode) {
        if inode.attr.acl.is_some() {
            self.about(ino, "its row holds an access control list, which has a row of its own");
        }
        if !inode.acl {
            return;
        }
        match self.apart::<Acl>(ino, Table::Acl, "access control list") {
            Some(_) if inode.attr.kind == FileKind::Symlink => {
                self.about(ino, "it is a symbolic link with an access control list");
            }
            Some(acl) if !acl.is_sound(inode.is_dir(), inode.attr.mode) => {
                self.about(ino, "its access control list is malformed, or its mode is not the list's");
            }
            _ => {}
        }
    }

    /// Lists of no inode.
    pub(super) fn stray_acls(&mut self) -> Result<(), KvError> {
        self.rows(Table::Acl, |c, key, _| {
            let Some(ino) = c.ino_key(Table::Acl, key) else { return };
            match c.says(ino, |inode| inode.acl) {
                Some(false) if c.nodes.contains_key(&ino) => {
                    c.about(ino, "there is an access control list that it does not know of");
                }
                Some(false) => {
                    c.general(format!("an access control list is of inode {ino}, which does not exist"))
                }
                _ => {}
            }
        })
    }
}
