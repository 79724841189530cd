//! One command being applied: the inodes it looks at, what it changes, and what it will answer.
//!
//! The store below cannot take a write back. So an operation checks everything first, on inodes loaded here, and
//! writes to the store only when nothing can refuse any more; changed inodes are written once, at the end, and a
//! refusal drops them. What an operation puts into the store before its end must therefore come after its last
//! refusal.
//!
//! # Time and the change counter
//!
//! [`Transaction::changed`] moves both, at most once per inode and command. ctime is the command's time, or 1 ns after
//! the former ctime if that is not earlier. If a frontend holds a write lease on the inode, it may have shown any
//! value up to the lease's ceilings for bytes that are not here, so the counter and ctime jump past the ceilings, and the
//! lease reserves a new range above: it must not end, because the data that the holder has acknowledged are still
//! to come, and if they get lost that must be noticed. A holder avoids the jump by flushing with `release` first.

use crate::extents::Lost;
use crate::kv::{KvError, KvWrite, Table};
use crate::model::Model;
use crate::record::{File, Inode, Lease};
use crate::{keys, limits, store};
use atoll_base::access::Cred;
use atoll_base::attr::{Attr, FileKind};
use atoll_base::id::{FrontendId, Ino, VolumeId};
use atoll_base::time::Timestamp;
use atoll_meta::lock::GrantedWaiter;
use atoll_meta::nfs4::ClientId;
use atoll_meta::{Change, FsError, Origin};
use bytes::Bytes;
use std::ops::{Index, IndexMut};

/// Why an operation ends early.
#[derive(Debug)]
pub(crate) enum Stop {
    /// Refused: nothing has changed.
    Refused(FsError),
    /// The store failed.
    Store(KvError),
}

impl From<FsError> for Stop {
    fn from(e: FsError) -> Self {
        Stop::Refused(e)
    }
}

impl From<KvError> for Stop {
    fn from(e: KvError) -> Self {
        Stop::Store(e)
    }
}

/// Among how many inodes listed last a repetition is looked for: more than any operation of a client lists.
const TOUCHED_TRIES: usize = 8;

/// Result of a step of an operation.
pub(crate) type Step<T> = Result<T, Stop>;

/// `Err(error)` unless `condition`.
pub(crate) fn require(condition: bool, error: FsError) -> Result<(), FsError> {
    if condition { Ok(()) } else { Err(error) }
}

/// What caches above the state must drop or take notice of after a command.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Touched {
    /// Inodes whose attributes or data changed, or that are gone. After commands that concern many, one may be listed twice.
    pub inos: Vec<Ino>,
    /// Names that now stand for something else, or nothing: directory and name.
    pub dirents: Vec<(Ino, Bytes)>,
    /// Whether the exports changed.
    pub exports: bool,
    /// Whether an NFSv4 client or session ended.
    pub ended: bool,
    /// Blocked lock requests that were granted by this command.
    pub grants: Vec<GrantedWaiter>,
    /// Whether delegations are to be returned that were not before.
    pub recalls: bool,
    /// Whether holders of directory delegations are to be told of changes.
    pub notices: bool,
    /// Whether there is an offload more.
    pub offloads: bool,
    /// The write verifier, if it changed.
    pub verifier: Option<u64>,
    /// Inodes of which this member lost bytes that the command needed, and what the store said. Alone among all this, it may differ between members.
    pub lost: Vec<(Ino, String)>,
}

/// An inode loaded into the transaction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct At(usize);

#[derive(Debug, PartialEq, Eq)]
enum Fate {
    Clean,
    Dirty,
    Gone,
}

struct Slot {
    inode: Inode,
    /// As it was before the command; a new inode as it was made.
    original: Attr,
    /// Whether the store has it.
    stored: bool,
    fate: Fate,
    /// Whether change and ctime have moved.
    moved: bool,
}

pub(crate) struct Transaction<'a, K> {
    pub(crate) kv: &'a mut K,
    pub(crate) model: &'a mut Model,
    pub(crate) txn: u64,
    pub(crate) now: Timestamp,
    pub(crate) cred: &'a Cred,
    pub(crate) origin: Option<Origin>,
    /// Whose delegations are not in the way.
    pub(crate) client: Option<ClientId>,
    pub(crate) touched: Touched,
    pub(crate) lost: Lost,
    slots: Vec<Slot>,
    reported: Vec<At>,
}

impl<K> Index<At> for Transaction<'_, K> {
    type Output = Inode;

    fn index(&self, at: At) -> &Inode {
        &self.slots[at.0].inode
    }
}

impl<K> IndexMut<At> for Transaction<'_, K> {
    fn index_mut(&mut self, at: At) -> &mut Inode {
        let slot = &mut self.slots[at.0];
        if slot.fate == Fate::Clean {
            slot.fate = Fate::Dirty;
        }
        &mut slot.inode
    }
}

impl<'a, K: KvWrite> Transaction<'a, K> {
    pub(crate) fn new(
        kv: &'a mut K,
        model: &'a mut Model,
        txn: u64,
        now: Timestamp,
        cred: &'a Cred,
        origin: Option<Origin>,
        client: Option<ClientId>,
    ) -> Self {
        Self {
            kv,
            model,
            txn,
            now,
            cred,
            origin,
            client,
            touched: Touched::default(),
            lost: Lost::default(),
            // Few operations have to do with more.
            slots: Vec::with_capacity(2),
            reported: Vec::with_capacity(2),
        }
    }

    // ---- inodes

    /// Loads an inode, if there is one.
    pub(crate) fn find(&mut self, ino: Ino) -> Step<Option<At>> {
        if let Some(i) = self.slots.iter().position(|s| s.inode.attr.ino == ino) {
            return Ok((self.slots[i].fate != Fate::Gone).then_some(At(i)));
        }
        let Some(inode) = store::inode(self.kv, ino)? else { return Ok(None) };
        self.slots.push(Slot {
            original: inode.attr.clone(),
            inode,
            stored: true,
            fate: Fate::Clean,
            moved: false,
        });
        Ok(Some(At(self.slots.len() - 1)))
    }

    /// Loads an inode named by a client: `Stale` if it is gone. It is reported in the response from here on.
    pub(crate) fn load(&mut self, ino: Ino) -> Step<At> {
        let at = self.find(ino)?.ok_or(FsError::Stale)?;
        self.report(at);
        Ok(at)
    }

    /// The same, with the generation of its file handle.
    pub(crate) fn load_generation(&mut self, ino: Ino, generation: u32) -> Step<At> {
        let at = self.find(ino)?.ok_or(FsError::Stale)?;
        require(self[at].attr.generation == generation, FsError::Stale)?;
        self.report(at);
        Ok(at)
    }

    /// Loads a directory named by a client.
    pub(crate) fn load_dir(&mut self, ino: Ino) -> Step<At> {
        let at = self.load(ino)?;
        require(self[at].is_dir(), FsError::NotDirectory)?;
        Ok(at)
    }

    /// Loads an inode that a record names: that there is none is damage.
    pub(crate) fn follow(&mut self, ino: Ino, from: &str) -> Step<At> {
        match self.find(ino)? {
            Some(at) => Ok(at),
            None => {
                Err(Stop::Store(KvError::Failed(format!("inode {ino}, named by {from}, does not exist"))))
            }
        }
    }

    /// Adds a new inode.
    pub(crate) fn add(&mut self, inode: Inode) -> At {
        let ino = inode.attr.ino;
        self.volume_mut(inode.attr.volume).inodes += 1;
        self.touch(ino);
        self.slots.push(Slot {
            original: inode.attr.clone(),
            inode,
            stored: false,
            fate: Fate::Dirty,
            moved: true,
        });
        At(self.slots.len() - 1)
    }

    /// Takes an inode away at the end of the command.
    pub(crate) fn vanish(&mut self, at: At) {
        let volume = self[at].attr.volume;
        let record = self.volume_mut(volume);
        record.inodes = record.inodes.checked_sub(1).expect("a volume counts fewer inodes than it has");
        self.touch(self[at].attr.ino);
        self.slots[at.0].fate = Fate::Gone;
    }

    /// Lists an inode in the response, once.
    pub(crate) fn report(&mut self, at: At) {
        if !self.reported.contains(&at) {
            self.reported.push(at);
        }
    }

    /// Regular file's own part.
    pub(crate) fn file(&self, at: At) -> &File {
        let inode = &self[at];
        inode.file.as_ref().unwrap_or_else(|| panic!("inode {} has no file part", inode.attr.ino))
    }

    /// The same, to change.
    pub(crate) fn file_mut(&mut self, at: At) -> &mut File {
        let inode = &mut self[at];
        let ino = inode.attr.ino;
        inode.file.as_mut().unwrap_or_else(|| panic!("inode {ino} has no file part"))
    }

    /// Requires a regular file to put data into or lock.
    pub(crate) fn require_regular(&self, at: At) -> Result<(), FsError> {
        match self[at].attr.kind {
            FileKind::Regular => Ok(()),
            FileKind::Directory => Err(FsError::IsDirectory),
            _ => Err(FsError::WrongType),
        }
    }

    // ---- change and time

    /// Notes a change of the inode: see the top of this file. Returns its new ctime.
    pub(crate) fn changed(&mut self, at: At) -> Step<Timestamp> {
        self.changed_at(at, self.now)
    }

    /// The same, with another time in the place of the command's.
    pub(crate) fn changed_at(&mut self, at: At, time: Timestamp) -> Step<Timestamp> {
        if self.slots[at.0].moved {
            return Ok(self[at].attr.ctime);
        }
        self.slots[at.0].moved = true;
        let mut change = self[at].attr.change;
        let mut ctime = self[at].attr.ctime;
        let ino = self[at].attr.ino;
        let holder = self[at].file.as_ref().and_then(|f| f.lease);
        if let Some(frontend) = holder {
            let lease = store::lease(self.kv, frontend, ino)?;
            change = change.max(lease.change_ceiling);
            ctime = ctime.max(lease.ctime_ceiling);
        }
        let attr = &mut self[at].attr;
        attr.change = change + 1;
        attr.ctime = time.max(ctime.next());
        let (change, ctime) = (attr.change, attr.ctime);
        if let Some(frontend) = holder {
            let epoch = self.model.epoch_of(frontend);
            let lease = Lease {
                epoch,
                change_ceiling: change + limits::LEASE_CHANGES,
                ctime_ceiling: ctime.plus_nanos(limits::LEASE_NANOS),
            };
            self.put_lease(frontend, ino, &lease)?;
        }
        self.touch(ino);
        Ok(ctime)
    }

    /// Notes a change of the inode's data: mtime too.
    pub(crate) fn data_changed(&mut self, at: At) -> Step<()> {
        let ctime = self.changed(at)?;
        self[at].attr.mtime = ctime;
        Ok(())
    }

    pub(crate) fn put_lease(&mut self, frontend: FrontendId, ino: Ino, lease: &Lease) -> Step<()> {
        Ok(store::put(self.kv, Table::Dirty, &keys::lease(frontend, ino), lease)?)
    }

    /// Lists an inode for the caches above.
    pub(crate) fn touch(&mut self, ino: Ino) {
        let last = self.touched.inos.len().saturating_sub(TOUCHED_TRIES);
        if !self.touched.inos[last..].contains(&ino) {
            self.touched.inos.push(ino);
        }
    }

    /// Lists a name for the caches above.
    pub(crate) fn touch_name(&mut self, dir: Ino, name: &Bytes) {
        self.touched.dirents.push((dir, name.clone()));
    }

    pub(crate) fn volume_mut(&mut self, id: VolumeId) -> &mut crate::record::VolumeRecord {
        self.model.volume_mut(id)
    }

    // ---- the end

    /// Writes the changed inodes.
    pub(crate) fn finish(&mut self) -> Result<(), KvError> {
        for slot in &self.slots {
            let ino = slot.inode.attr.ino;
            let (former, attr) = (&slot.original, &slot.inode.attr);
            let (stored, stays) = (slot.stored, slot.fate != Fate::Gone);
            match slot.fate {
                Fate::Clean => continue,
                Fate::Dirty => store::put_inode(self.kv, &slot.inode)?,
                Fate::Gone => self.kv.delete(Table::Inode, &keys::ino(ino))?,
            }
            let acl = attr.acl.as_deref().filter(|_| stays);
            if former.acl.as_deref().filter(|_| stored) != acl {
                store::put_apart(self.kv, Table::Acl, ino, acl)?;
            }
            let label = attr.label.as_deref().filter(|_| stays);
            if former.label.as_deref().filter(|_| stored) != label {
                store::put_apart(self.kv, Table::Label, ino, label)?;
            }
        }
        Ok(())
    }

    /// Writes what was done so far, which stays even if what follows is refused.
    pub(crate) fn settle(&mut self) -> Result<(), KvError> {
        self.finish()?;
        self.slots.clear();
        self.reported.clear();
        Ok(())
    }

    /// The changes for the response: as they are, or after a refusal as they were.
    pub(crate) fn changes(&self, refused: bool) -> Vec<Change> {
        let changes = self.reported.iter().map(|at| {
            let slot = &self.slots[at.0];
            let after = if refused { &slot.original } else { &slot.inode.attr };
            Change { before: slot.original.before(), after: after.clone() }
        });
        changes.collect()
    }
}
