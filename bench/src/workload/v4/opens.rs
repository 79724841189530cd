//! OPEN and CLOSE of existing files; small files: OPEN that creates, WRITE 4 KiB FILE_SYNC (so the Linux client writes what fits in one
//! call when it closes a file), CLOSE. An operation is a file, its latency that of all its calls.

use atoll_proto::nfs4::{
    Access4Args, ArgOp4, AttrValue4, Close4Args, CreateHow4, Fattr4, FileHandle, GetAttr4Args, Identity,
    Name4, Open4Args, OpenClaim4, OpenFlag4, Payload, PutFh4Args, ResOp4, StableHow4, StateId4, StateOwner4,
    Write4Args, share_access,
};

use super::{Slots, decoded};
use crate::client::usual_attributes;
use crate::load::{BadReply, CallWriter, Progress, Workload};
use crate::workload::data::{PAGE, content, noise};
use crate::workload::template::name;

/// What a slot does next.
#[derive(Debug, Clone, Copy)]
enum Stage {
    Open,
    Write(FileHandle, StateId4),
    Close(FileHandle, StateId4),
}

fn get_attr() -> ArgOp4 {
    ArgOp4::GetAttr(GetAttr4Args { attr_request: usual_attributes() })
}

fn put(object: FileHandle) -> ArgOp4 {
    ArgOp4::PutFh(PutFh4Args { object })
}

/// OPEN as the Linux client sends it.
fn open(dir: FileHandle, file: &[u8], client: u64, slot: usize, create: bool) -> Vec<ArgOp4> {
    let attrs = Fattr4::build(&[AttrValue4::Mode(0o644)]).expect("one attribute");
    let access = if create { share_access::WRITE } else { share_access::READ };
    let owner = Identity::copy_from(&(slot as u64).to_be_bytes()).expect("eight bytes");
    let args = Open4Args {
        seqid: 0,
        share_access: access | share_access::WANT_NO_DELEG,
        share_deny: 0,
        owner: StateOwner4 { clientid: client, owner },
        openhow: if create { OpenFlag4::Create(CreateHow4::Unchecked(attrs)) } else { OpenFlag4::NoCreate },
        claim: OpenClaim4::Null(Name4::copy_from(file).expect("the benchmark's names are short")),
    };
    let access = ArgOp4::Access(Access4Args { access: 0x2d });
    vec![put(dir), ArgOp4::Open(Box::new(args)), ArgOp4::GetFh, access, get_attr()]
}

fn close(file: FileHandle, open_stateid: StateId4) -> Vec<ArgOp4> {
    vec![put(file), ArgOp4::Close(Close4Args { seqid: 0, open_stateid }), get_attr()]
}

fn opened(reply: &[u8]) -> Result<(FileHandle, StateId4), BadReply> {
    match &decoded("OPEN", reply)?[..] {
        [_, _, ResOp4::Open(Ok(open)), ResOp4::GetFh(Ok(found)), ..] => Ok((found.object, open.stateid)),
        other => Err(BadReply(format!("OPEN: {other:?}"))),
    }
}

/// OPEN and CLOSE of the files of a directory, in turn.
#[derive(Debug)]
pub struct OpenClose {
    slots: Slots,
    client: u64,
    dir: FileHandle,
    names: Vec<String>,
    stages: Vec<Stage>,
    next: usize,
}

impl OpenClose {
    /// In this session of a client.
    pub fn new(dir: FileHandle, names: Vec<String>, client: u64, slots: Slots) -> Self {
        let stages = vec![Stage::Open; slots.last.len()];
        Self { slots, client, dir, names, stages, next: 0 }
    }
}

impl Workload for OpenClose {
    fn call(&mut self, slot: usize, out: &mut CallWriter<'_>) {
        let ops = match self.stages[slot] {
            Stage::Close(file, stateid) | Stage::Write(file, stateid) => close(file, stateid),
            Stage::Open => {
                let file = &self.names[self.next];
                self.next = (self.next + 1) % self.names.len();
                open(self.dir, file.as_bytes(), self.client, slot, false)
            }
        };
        let template = self.slots.template(ops, true);
        self.slots.put(slot, &template, out);
    }

    fn reply(&mut self, slot: usize, reply: &[u8]) -> Result<Progress, BadReply> {
        match self.stages[slot] {
            Stage::Open => {
                let (file, stateid) = opened(reply)?;
                self.stages[slot] = Stage::Close(file, stateid);
                Ok(Progress::Continues)
            }
            Stage::Close(..) | Stage::Write(..) => {
                decoded("CLOSE", reply)?;
                self.stages[slot] = Stage::Open;
                Ok(Progress::Done(1))
            }
        }
    }
}

/// Makes files in one directory.
#[derive(Debug)]
pub struct SmallFiles4 {
    slots: Slots,
    client: u64,
    dir: FileHandle,
    data: Payload,
    stages: Vec<Stage>,
    next: u64,
}

impl SmallFiles4 {
    /// In an empty directory, in this session of a client.
    pub fn new(dir: FileHandle, client: u64, slots: Slots) -> Self {
        let data = Payload::new(content(&noise(PAGE), 0, PAGE)).expect("a page fits");
        let stages = vec![Stage::Open; slots.last.len()];
        Self { slots, client, dir, data, stages, next: 0 }
    }
}

impl Workload for SmallFiles4 {
    fn call(&mut self, slot: usize, out: &mut CallWriter<'_>) {
        let (ops, cache) = match self.stages[slot] {
            Stage::Open => {
                let file = name(b's', self.next);
                self.next += 1;
                (open(self.dir, &file, self.client, slot, true), true)
            }
            Stage::Write(file, stateid) => {
                let stable = StableHow4::FileSync;
                let args = Write4Args { stateid, offset: 0, stable, data: self.data.clone() };
                (vec![put(file), ArgOp4::Write(args), get_attr()], false)
            }
            Stage::Close(file, stateid) => (close(file, stateid), true),
        };
        let template = self.slots.template(ops, cache);
        self.slots.put(slot, &template, out);
    }

    fn reply(&mut self, slot: usize, reply: &[u8]) -> Result<Progress, BadReply> {
        match self.stages[slot] {
            Stage::Open => {
                let (file, stateid) = opened(reply)?;
                self.stages[slot] = Stage::Write(file, stateid);
                Ok(Progress::Continues)
            }
            Stage::Write(file, stateid) => {
                let results = decoded("WRITE", reply)?;
                match results.get(2) {
                    Some(ResOp4::Write(Ok(done)))
                        if done.count as usize == PAGE && done.committed != StableHow4::Unstable => {}
                    other => return Err(BadReply(format!("WRITE: {other:?}"))),
                }
                self.stages[slot] = Stage::Close(file, stateid);
                Ok(Progress::Continues)
            }
            Stage::Close(..) => {
                decoded("CLOSE", reply)?;
                self.stages[slot] = Stage::Open;
                Ok(Progress::Done(1))
            }
        }
    }
}
