//! Security labels: each belongs to an inode that says it has one.

use super::Checker;
use crate::kv::{KvError, KvRead, Table};
use crate::record::Inode;
use atoll_base::id::Ino;
use atoll_base::label::Label;
use atoll_base::limits::LABEL_MAX;

impl<K: KvRead> Checker<'_, K> {
    /// The label of an inode.
    pub(super) fn label(&mut self, ino: Ino, inode: &Inode) {
        if inode.attr.label.is_some() {
            self.about(ino, "its row holds a security label, which has a row of its own");
        }
        if !inode.label {
            return;
        }
        let label = self.apart::<Label>(ino, Table::Label, "security label");
        if label.is_some_and(|label| !(1..=LABEL_MAX).contains(&label.data.len())) {
            self.about(ino, "its security label is empty or too long");
        }
    }

    /// Labels of no inode.
    pub(super) fn stray_labels(&mut self) -> Result<(), KvError> {
        self.rows(Table::Label, |c, key, _| {
            let Some(ino) = c.ino_key(Table::Label, key) else { return };
            if c.says(ino, |inode| inode.label) == Some(false) {
                c.general(format!("a security label is of inode {ino}, which knows of none"));
            }
        })
    }
}
