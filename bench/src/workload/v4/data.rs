//! READ and WRITE of blocks of one open file: SEQUENCE, PUTFH, READ; SEQUENCE, PUTFH, WRITE, GETATTR. Bytes and COMMITs are as in
//! version 3.

use atoll_proto::nfs4::{
    ArgOp4, Attr4, Bitmap, Commit4Args, FileHandle, GetAttr4Args, Payload, PutFh4Args, Read4Args, StableHow4,
    StateId4, Write4Args,
};
use bytes::Bytes;

use super::{Slots, Template, results};
use crate::load::{BadReply, CallWriter, Progress, Workload};
use crate::workload::data::{COMMIT_EACH, Order, noise, stamp};

/// An open file and how it is visited.
#[derive(Debug)]
pub struct OpenBlocks {
    /// The file.
    pub file: FileHandle,
    /// By which open.
    pub stateid: StateId4,
    /// Its length, a multiple of `size`.
    pub len: u64,
    /// Bytes of one call.
    pub size: usize,
}

/// READ of one random block per operation.
#[derive(Debug)]
pub struct Reads4 {
    slots: Slots,
    template: Template,
    offset_at: usize,
    blocks: OpenBlocks,
    order: Order,
    asked: Vec<u64>,
}

impl Reads4 {
    /// READs in this session.
    pub fn new(blocks: OpenBlocks, slots: Slots) -> Self {
        let count = u32::try_from(blocks.size).expect("a block is at most 1 MiB");
        let ops = vec![
            ArgOp4::PutFh(PutFh4Args { object: blocks.file }),
            ArgOp4::Read(Read4Args { stateid: blocks.stateid, offset: 0, count }),
        ];
        let template = slots.template(ops, false);
        // At the end: offset, count.
        let offset_at = template.call.len() - 12;
        let asked = vec![0; slots.last.len()];
        Self { slots, template, offset_at, blocks, order: Order::random(), asked }
    }
}

impl Workload for Reads4 {
    fn call(&mut self, slot: usize, out: &mut CallWriter<'_>) {
        let size = self.blocks.size as u64;
        let Some(block) = self.order.next(self.blocks.len / size) else { return };
        self.asked[slot] = block * size;
        self.slots.put(slot, &self.template, out);
        out.patch(self.offset_at, &self.asked[slot].to_be_bytes());
    }

    fn reply(&mut self, slot: usize, reply: &[u8]) -> Result<Progress, BadReply> {
        // PUTFH; READ: number, status, eof, length, data.
        let results = results("READ", &self.template, reply)?;
        let data = results.get(8 + 16..).unwrap_or_default();
        if data.len() != self.blocks.size || data[..8] != stamp(self.asked[slot]) {
            return Err(BadReply(format!(
                "READ at {} returned other bytes than were written",
                self.asked[slot]
            )));
        }
        Ok(Progress::Done(1))
    }
}

/// What a slot of [`Writes4`] waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Sent {
    Write,
    Commit,
}

/// WRITE of one random block per operation; if UNSTABLE, with a COMMIT of the file each [`COMMIT_EACH`] bytes and at the end.
#[derive(Debug)]
pub struct Writes4 {
    slots: Slots,
    blocks: OpenBlocks,
    stable: StableHow4,
    /// The call up to the data, and behind them.
    write: Template,
    head: Bytes,
    foot: Bytes,
    offset_at: usize,
    tail: Bytes,
    commit: Template,
    order: Order,
    sent: Vec<Sent>,
    serial: u64,
    unstable: u64,
    verifier: Option<[u8; 8]>,
}

impl Writes4 {
    /// WRITEs in this session.
    pub fn new(blocks: OpenBlocks, stable: StableHow4, slots: Slots) -> Self {
        let data = noise(blocks.size).freeze();
        let put = ArgOp4::PutFh(PutFh4Args { object: blocks.file });
        let args = Write4Args {
            stateid: blocks.stateid,
            offset: 0,
            stable,
            data: Payload::new(data.clone()).expect("a block is at most 1 MiB"),
        };
        // As the Linux client after a WRITE: what else it keeps of the file.
        let attr_request = Bitmap::of(&[
            Attr4::Change as u32,
            Attr4::Size as u32,
            Attr4::SpaceUsed as u32,
            Attr4::TimeMetadata as u32,
            Attr4::TimeModify as u32,
        ]);
        let mut foot = atoll_xdr::Encoder::new();
        let get = ArgOp4::GetAttr(GetAttr4Args { attr_request });
        foot.put(&get);
        let foot = foot.into_bytes();
        let write = slots.template(vec![put.clone(), ArgOp4::Write(args), get], false);
        let head = write.call.slice(..write.call.len() - foot.len() - blocks.size);
        let commit = slots.template(vec![put, ArgOp4::Commit(Commit4Args { offset: 0, count: 0 })], false);
        Self {
            // Behind the offset: how stable, length of the data.
            offset_at: head.len() - 16,
            head,
            foot,
            tail: data.slice(16..),
            write,
            commit,
            order: Order::random(),
            sent: vec![Sent::Write; slots.last.len()],
            serial: 0,
            unstable: 0,
            verifier: None,
            slots,
            blocks,
            stable,
        }
    }

    fn put_commit(&mut self, slot: usize, out: &mut CallWriter<'_>) {
        self.unstable = 0;
        self.sent[slot] = Sent::Commit;
        self.slots.put(slot, &self.commit, out);
    }

    fn check_verifier(&mut self, verifier: &[u8]) -> Result<(), BadReply> {
        match self.verifier {
            Some(known) if known == verifier => Ok(()),
            Some(_) => Err(BadReply("the write verifier changed: the server lost data".into())),
            None => {
                self.verifier = Some(verifier.try_into().map_err(|_| BadReply("no verifier".into()))?);
                Ok(())
            }
        }
    }
}

impl Workload for Writes4 {
    fn call(&mut self, slot: usize, out: &mut CallWriter<'_>) {
        if self.unstable >= COMMIT_EACH {
            return self.put_commit(slot, out);
        }
        let size = self.blocks.size as u64;
        let Some(block) = self.order.next(self.blocks.len / size) else { return };
        let offset = block * size;
        self.sent[slot] = Sent::Write;
        self.serial += 1;
        out.put(&self.head);
        self.slots.number(slot, &self.write, out);
        out.patch(self.offset_at, &offset.to_be_bytes());
        out.put(&stamp(offset));
        out.put(&self.serial.to_be_bytes());
        out.put(&self.tail);
        out.put(&self.foot);
    }

    fn reply(&mut self, slot: usize, reply: &[u8]) -> Result<Progress, BadReply> {
        if self.sent[slot] == Sent::Commit {
            // PUTFH; COMMIT: number, status, verifier.
            let results = results("COMMIT", &self.commit, reply)?;
            self.check_verifier(results.get(8 + 8..8 + 16).unwrap_or_default())?;
            return Ok(Progress::Aside);
        }
        // PUTFH; WRITE: number, status, count, committed, verifier; GETATTR.
        let results = results("WRITE", &self.write, reply)?;
        let word = |at: usize| results.get(at..at + 4).map(|w| u32::from_be_bytes([w[0], w[1], w[2], w[3]]));
        let (count, committed) = (word(16).unwrap_or(0), word(20).unwrap_or(0));
        if count as usize != self.blocks.size {
            return Err(BadReply(format!("WRITE stored {count} bytes of {}", self.blocks.size)));
        }
        if committed < self.stable as u32 {
            return Err(BadReply(format!(
                "WRITE {:?} was answered with stable_how {committed}",
                self.stable
            )));
        }
        self.check_verifier(results.get(24..32).unwrap_or_default())?;
        if committed == StableHow4::Unstable as u32 {
            self.unstable += u64::from(count);
        }
        Ok(Progress::Done(1))
    }

    fn closing_call(&mut self, out: &mut CallWriter<'_>) {
        if self.unstable > 0 {
            self.put_commit(0, out);
        }
    }
}
