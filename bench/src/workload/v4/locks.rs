//! LOCK and LOCKU of a range, each slot with a file and a lock owner of its own. An operation is both calls.

use atoll_proto::nfs4::{
    ArgOp4, ExistLockOwner4, FileHandle, Identity, Lock4Args, LockType4, LockU4Args, Locker4,
    OpenToLockOwner4, PutFh4Args, ResOp4, StateId4, StateOwner4,
};

use super::{Slots, decoded};
use crate::load::{BadReply, CallWriter, Progress, Workload};

/// A slot's file, and where it is with it.
#[derive(Debug, Clone, Copy)]
struct Held {
    file: FileHandle,
    open: StateId4,
    /// Its lock state, once there is one.
    lock: Option<StateId4>,
    locked: bool,
}

/// See the module.
#[derive(Debug)]
pub struct Locks {
    slots: Slots,
    client: u64,
    held: Vec<Held>,
}

impl Locks {
    /// With an open file for each slot.
    pub fn new(files: Vec<(FileHandle, StateId4)>, client: u64, slots: Slots) -> Self {
        let held = files.into_iter().map(|(file, open)| Held { file, open, lock: None, locked: false });
        Self { slots, client, held: held.collect() }
    }
}

impl Workload for Locks {
    fn call(&mut self, slot: usize, out: &mut CallWriter<'_>) {
        let Held { file, open, lock, locked } = self.held[slot];
        let (offset, length, locktype) = (1000, 100, LockType4::Write);
        let op = match lock {
            Some(lock_stateid) if locked => {
                ArgOp4::LockU(LockU4Args { locktype, seqid: 0, lock_stateid, offset, length })
            }
            lock => {
                let locker = match lock {
                    Some(lock_stateid) => Locker4::Exist(ExistLockOwner4 { lock_stateid, lock_seqid: 0 }),
                    None => Locker4::New(OpenToLockOwner4 {
                        open_seqid: 0,
                        open_stateid: open,
                        lock_seqid: 0,
                        lock_owner: StateOwner4 {
                            clientid: self.client,
                            owner: Identity::copy_from(&(slot as u64).to_be_bytes()).expect("eight bytes"),
                        },
                    }),
                };
                ArgOp4::Lock(Lock4Args { locktype, reclaim: false, offset, length, locker })
            }
        };
        let template = self.slots.template(vec![ArgOp4::PutFh(PutFh4Args { object: file }), op], true);
        self.slots.put(slot, &template, out);
    }

    fn reply(&mut self, slot: usize, reply: &[u8]) -> Result<Progress, BadReply> {
        let held = &mut self.held[slot];
        match decoded(if held.locked { "LOCKU" } else { "LOCK" }, reply)?.last() {
            Some(ResOp4::Lock(Ok(locked))) => {
                held.lock = Some(locked.lock_stateid);
                held.locked = true;
                Ok(Progress::Continues)
            }
            Some(ResOp4::LockU(Ok(stateid))) => {
                held.lock = Some(*stateid);
                held.locked = false;
                Ok(Progress::Done(1))
            }
            other => Err(BadReply(format!("LOCK: {other:?}"))),
        }
    }
}
