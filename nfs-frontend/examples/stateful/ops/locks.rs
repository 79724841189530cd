//! Byte-range locks: LOCK, LOCKU, LOCKT.

use super::{Asking, Note, length, offset};
use crate::dice::Dice;
use crate::known::{Kind, OWNERS};
use atoll_proto::nfs4::{
    ArgOp4, ExistLockOwner4, Lock4Args, LockT4Args, LockType4, LockU4Args, Locker4, OpenToLockOwner4,
};

impl Asking<'_> {
    fn lock_type(&self, d: &mut Dice<'_>) -> LockType4 {
        d.pick(&[LockType4::Write, LockType4::Read, LockType4::WriteBlocking, LockType4::ReadBlocking])
    }

    pub(super) fn lock_new(&mut self, d: &mut Dice<'_>) {
        let Some(held) = self.held(d, false) else { return };
        let owner = d.below(OWNERS.len());
        self.handle_of(d, &held);
        let (open_seqid, mut steps) = self.step(d, held.kind);
        let (lock_seqid, more) = self.step(d, Kind::Lock(owner));
        steps.extend(more);
        let lock_owner = self.owner(d, owner);
        let new = OpenToLockOwner4 { open_seqid, open_stateid: held.stateid, lock_seqid, lock_owner };
        let args = Lock4Args {
            locktype: self.lock_type(d),
            reclaim: d.once_in(32),
            offset: offset(d),
            length: length(d),
            locker: Locker4::New(new),
        };
        self.push_noted(ArgOp4::Lock(args), Note::Lock(owner, held.fh), steps);
    }

    pub(super) fn lock_more(&mut self, d: &mut Dice<'_>) {
        let Some(held) = self.held(d, true) else { return };
        self.handle_of(d, &held);
        let (lock_seqid, steps) = self.step(d, held.kind);
        let locker = Locker4::Exist(ExistLockOwner4 { lock_stateid: held.stateid, lock_seqid });
        let (offset, length) = (offset(d), length(d));
        let args = Lock4Args { locktype: self.lock_type(d), reclaim: false, offset, length, locker };
        self.push_noted(ArgOp4::Lock(args), Note::Again(held), steps);
    }

    pub(super) fn unlock(&mut self, d: &mut Dice<'_>) {
        let Some(held) = self.held(d, true) else { return };
        self.handle_of(d, &held);
        let (seqid, steps) = self.step(d, held.kind);
        let args = LockU4Args {
            locktype: LockType4::Write,
            seqid,
            lock_stateid: held.stateid,
            offset: offset(d),
            length: length(d),
        };
        self.push_noted(ArgOp4::LockU(args), Note::Again(held), steps);
    }

    pub(super) fn lock_test(&mut self, d: &mut Dice<'_>) {
        self.any_handle(d);
        let which = d.below(OWNERS.len());
        let owner = self.owner(d, which);
        let args = LockT4Args { locktype: self.lock_type(d), offset: offset(d), length: length(d), owner };
        self.push(ArgOp4::LockT(args));
    }
}
