//! Records of given sizes for the reply server ([`crate::limits::reply_server`]): what the network and the system calls cost
//! when there is no file system behind them.

use std::fmt::Debug;

use bytes::Bytes;

use super::template::Results;
use crate::limits::reply_server::{HEADER, encode_call};
use crate::load::{BadReply, CallWriter, Progress, Workload};

/// Calls of one size that ask for replies of one size.
#[derive(Debug)]
pub struct Raw {
    head: Vec<u8>,
    /// What is left of a large call: not copied.
    rest: Bytes,
    reply: usize,
}

impl Raw {
    /// Calls of `call` bytes and replies of `reply` bytes, record marks included; small sizes are raised to the least that
    /// have room for the headers.
    pub fn new(call: usize, reply: usize) -> Self {
        /// Calls up to this size are copied into the send buffer.
        const COPY: usize = 16 * 1024;
        let call = call.max(HEADER);
        let reply = reply.max(32);
        let mut head = encode_call(u32::try_from(reply).expect("a reply is at most some MiB"));
        let rest = if call > COPY {
            Bytes::from(vec![0x5a; call - head.len()])
        } else {
            head.resize(call, 0x5a);
            Bytes::new()
        };
        Self { head, rest, reply }
    }
}

impl Workload for Raw {
    fn call(&mut self, _slot: usize, out: &mut CallWriter<'_>) {
        out.put(&self.head);
        if !self.rest.is_empty() {
            out.splice(self.rest.clone());
        }
    }

    fn reply(&mut self, _slot: usize, results: &[u8]) -> Result<Progress, BadReply> {
        // The mark and the header of an accepted call come before.
        Results::of("raw", results)?.take(self.reply - 32)?;
        Ok(Progress::Done(1))
    }
}
