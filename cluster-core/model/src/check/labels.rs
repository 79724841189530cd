//! Security labels: each belongs to an inode that says it has one.

use super::Checker;
use crate::kv::{KvError, KvRead, Table};
use crate::record::Inode;
use crate::{codec, keys};
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
        let read = self.kv.get(Table::Label, &keys::ino(ino), |value| value.map(codec::decode::<Label>));
        match self.noted(read).flatten() {
            None => self.about(ino, "its security label is missing"),
            Some(Err(e)) => self.about(ino, format!("its security label: {e}")),
            Some(Ok(label)) if !(1..=LABEL_MAX).contains(&label.data.len()) => {
                self.about(ino, "its security label is empty or too long");
            }
            Some(Ok(_)) => {}
        }
    }

    /// Labels of no inode.
    pub(super) fn stray_labels(&mut self) -> Result<(), KvError> {
        self.rows(Table::Label, |c, key, _| {
            let Some(ino) = c.ino_key(Table::Label, key) else { return };
            let knows = c.kv.get(Table::Inode, &keys::ino(ino), |value| {
                value.and_then(|value| codec::decode::<Inode>(value).ok()).is_some_and(|inode| inode.label)
            });
            if c.noted(knows) == Some(false) {
                c.general(format!("a security label is of inode {ino}, which knows of none"));
            }
        })
    }
}
