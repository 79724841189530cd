//! GETATTR: SEQUENCE, PUTFH, GETATTR, in turn over some files.

use atoll_proto::nfs4::{ArgOp4, FileHandle, GetAttr4Args, PutFh4Args};

use super::{Slots, Template, results};
use crate::client::usual_attributes;
use crate::load::{BadReply, CallWriter, Progress, Workload};

/// See the module.
#[derive(Debug)]
pub struct Attributes {
    slots: Slots,
    calls: Vec<Template>,
    next: usize,
}

impl Attributes {
    /// GETATTR of each file.
    pub fn new(files: &[FileHandle], slots: Slots) -> Self {
        let ops = |object: &FileHandle| {
            let attr_request = usual_attributes();
            vec![
                ArgOp4::PutFh(PutFh4Args { object: *object }),
                ArgOp4::GetAttr(GetAttr4Args { attr_request }),
            ]
        };
        Self { calls: files.iter().map(|file| slots.template(ops(file), false)).collect(), slots, next: 0 }
    }
}

impl Workload for Attributes {
    fn call(&mut self, slot: usize, out: &mut CallWriter<'_>) {
        self.slots.put(slot, &self.calls[self.next], out);
        self.next = (self.next + 1) % self.calls.len();
    }

    fn reply(&mut self, _slot: usize, reply: &[u8]) -> Result<Progress, BadReply> {
        // PUTFH, GETATTR with some attributes.
        if results("GETATTR", &self.calls[0], reply)?.len() < 8 + 8 + 100 {
            return Err(BadReply("GETATTR returned few attributes".into()));
        }
        Ok(Progress::Done(1))
    }
}
