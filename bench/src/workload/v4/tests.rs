#![allow(clippy::unwrap_used)]
//! The workloads against a server of a few lines that decodes every COMPOUND whole and holds the rules of slots.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use atoll_proto::nfs4::{
    Access4Ok, ArgOp4, AttrValue4, Commit4Ok, Compound4Args, Compound4Res, Fattr4, FileHandle, GetAttr4Ok,
    GetFh4Ok, Lock4Ok, Locker4, NfsStat4, Open4Ok, OpenDelegation4, Payload, Principal4, Read4Ok, ResOp4,
    Sequence4Ok, StableHow4, StateId4, Status4, Write4Ok,
};
use atoll_xdr::{Array, Decoder, Encoder};

use super::{Attributes, Locks, OpenBlocks, OpenClose, Reads4, Slots, SmallFiles4, Writes4};
use crate::client::credential;
use crate::load::{Limits, LoadError, Measured, Shape, Workload, run};
use crate::workload::data::{PAGE, content, noise};
use crate::workload::tests::serve_calls;

const SESSION: [u8; 16] = [5; 16];
const SHAPE: Shape = Shape { connections: 2, per_connection: 3 };
const SLOTS: usize = 6;

fn handle(n: u8) -> FileHandle {
    FileHandle::new(&[n; 5]).unwrap()
}

fn stateid(n: u8) -> StateId4 {
    StateId4 { seqid: 1, other: [n; 12] }
}

/// What the server knows.
#[derive(Default)]
struct State {
    slots: BTreeMap<u32, u32>,
    opens: u64,
    closes: u64,
    locked: BTreeSet<Vec<u8>>,
    unstable: u64,
    /// How it misbehaves: the verifier changes with each COMMIT.
    forgets: bool,
}

impl State {
    fn answer(&mut self, args: Compound4Args) -> Compound4Res {
        assert_eq!((args.minorversion, args.tag.len()), (1, 0));
        let ops: Vec<ResOp4> = args.ops.iter().enumerate().map(|(n, op)| self.op(n, op, &args)).collect();
        let status = ops.last().unwrap().status();
        Compound4Res { status, tag: Default::default(), ops: Array::new(ops).unwrap() }
    }

    fn op(&mut self, n: usize, op: &ArgOp4, all: &Compound4Args) -> ResOp4 {
        let ok: Status4 = Ok(());
        let verifier = |unstable: u64, forgets: bool| if forgets { unstable.to_be_bytes() } else { [8; 8] };
        match op {
            ArgOp4::Sequence(a) => {
                assert_eq!((n, a.sessionid, a.highest_slotid), (0, SESSION, SLOTS as u32 - 1));
                let last = self.slots.entry(a.slotid).or_default();
                assert_eq!(a.sequenceid, *last + 1, "slot {}", a.slotid);
                *last = a.sequenceid;
                ResOp4::Sequence(Ok(Sequence4Ok {
                    sessionid: a.sessionid,
                    sequenceid: a.sequenceid,
                    slotid: a.slotid,
                    highest_slotid: 5,
                    target_highest_slotid: 5,
                    status_flags: 0,
                }))
            }
            ArgOp4::PutFh(_) => ResOp4::PutFh(ok),
            ArgOp4::GetFh => ResOp4::GetFh(Ok(GetFh4Ok { object: handle(7) })),
            ArgOp4::Access(a) => ResOp4::Access(Ok(Access4Ok { supported: a.access, access: a.access })),
            ArgOp4::GetAttr(_) => {
                let owner = AttrValue4::Owner(Principal4::copy_from(&[b'o'; 120]).unwrap());
                ResOp4::GetAttr(Ok(GetAttr4Ok { obj_attributes: Fattr4::build(&[owner]).unwrap() }))
            }
            ArgOp4::Open(_) => {
                self.opens += 1;
                ResOp4::Open(Ok(Open4Ok {
                    stateid: stateid(1),
                    cinfo: Default::default(),
                    rflags: 0,
                    attrset: Default::default(),
                    delegation: OpenDelegation4::None,
                }))
            }
            ArgOp4::Close(a) => {
                assert_eq!(a.open_stateid, stateid(1));
                self.closes += 1;
                ResOp4::Close(Ok(StateId4::INVALID))
            }
            ArgOp4::Read(a) => {
                let data = content(&noise(PAGE), a.offset, a.count as usize);
                ResOp4::Read(Ok(Read4Ok { eof: false, data: Payload::new(data).unwrap() }))
            }
            ArgOp4::Write(a) => {
                self.unstable += u64::from(a.stable == StableHow4::Unstable);
                let count = a.data.len() as u32;
                let writeverf = verifier(0, self.forgets);
                ResOp4::Write(Ok(Write4Ok { count, committed: a.stable, writeverf }))
            }
            ArgOp4::Commit(_) => {
                ResOp4::Commit(Ok(Commit4Ok { writeverf: verifier(self.unstable, self.forgets) }))
            }
            ArgOp4::Lock(a) => {
                let owner = match &a.locker {
                    Locker4::New(new) => new.lock_owner.owner.to_vec(),
                    Locker4::Exist(held) => held.lock_stateid.other[..8].to_vec(),
                };
                assert!(self.locked.insert(owner.clone()), "locked twice");
                let mut other = [9; 12];
                other[..8].copy_from_slice(&owner);
                ResOp4::Lock(Ok(Lock4Ok { lock_stateid: StateId4 { seqid: 1, other } }))
            }
            ArgOp4::LockU(a) => {
                assert!(self.locked.remove(&a.lock_stateid.other[..8]), "not locked");
                ResOp4::LockU(Ok(a.lock_stateid))
            }
            other => panic!("{other:?} in {all:?}"),
        }
    }
}

fn serve(forgets: bool) -> (SocketAddr, Arc<Mutex<State>>) {
    let state = Arc::new(Mutex::new(State { forgets, ..State::default() }));
    let shared = state.clone();
    let answer = move |_procedure, d: &mut Decoder, e: &mut Encoder| {
        let args: Compound4Args = d.decode().unwrap();
        d.finish().expect("nothing behind the arguments");
        e.put(&shared.lock().unwrap().answer(args));
    };
    (serve_calls(answer), state)
}

fn slots() -> Slots {
    Slots::new(SESSION, SLOTS, &credential(0, 0))
}

fn blocks(size: usize) -> OpenBlocks {
    OpenBlocks { file: handle(3), stateid: stateid(1), len: 64 * size as u64, size }
}

fn go(server: SocketAddr, workload: &mut dyn Workload) -> Result<Measured, LoadError> {
    let limits = Limits { duration: Duration::from_millis(40), silence: Duration::from_secs(20) };
    run(server, SHAPE, limits, workload)
}

#[test]
fn each_workload_keeps_the_rules_of_slots_and_checks_what_it_gets() {
    let all: [(Box<dyn Workload>, u64); 7] = [
        (Box::new(Attributes::new(&[handle(1), handle(2)], slots())), 1),
        (Box::new(Reads4::new(blocks(PAGE), slots())), 1),
        (Box::new(Writes4::new(blocks(PAGE), StableHow4::Unstable, slots())), 1),
        (Box::new(Writes4::new(blocks(PAGE), StableHow4::FileSync, slots())), 1),
        (Box::new(OpenClose::new(handle(1), vec!["a".into(), "b".into()], 1, slots())), 2),
        (Box::new(SmallFiles4::new(handle(1), 1, slots())), 3),
        (Box::new(Locks::new(vec![(handle(1), stateid(1)); SLOTS], 1, slots())), 2),
    ];
    for (n, (mut workload, calls)) in all.into_iter().enumerate() {
        let (server, state) = serve(false);
        let measured = go(server, &mut *workload).unwrap_or_else(|e| panic!("workload {n}: {e}"));
        assert!(measured.ops > 0 && measured.calls >= measured.ops * calls, "workload {n}: {measured:?}");
        let state = state.lock().unwrap();
        assert_eq!(state.opens, state.closes, "workload {n}");
        assert!(state.locked.is_empty(), "workload {n}");
    }
}

#[test]
fn lost_data_and_refusals_fail_the_run() {
    let (server, _) = serve(true);
    let lost = go(server, &mut Writes4::new(blocks(PAGE), StableHow4::Unstable, slots()));
    assert!(matches!(&lost, Err(LoadError::Reply(e)) if e.0.contains("verifier")), "{lost:?}");
    let template = slots().template(Vec::new(), false);
    let mut e = Encoder::new();
    e.put(&Compound4Res {
        status: Err(NfsStat4::BadSession),
        tag: Default::default(),
        ops: Array::default(),
    });
    let reply = e.into_bytes();
    let refused = super::results("GETATTR", &template, &reply);
    assert!(matches!(&refused, Err(e) if e.0 == "GETATTR: BadSession"), "{refused:?}");
}
