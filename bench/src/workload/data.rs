//! READ and WRITE of blocks of one file.
//!
//! Every 4 KiB page that the benchmark writes begins with its own offset in the file ([`stamp`]), and every READ is checked for
//! the stamp of its first page: a server that answers with other bytes fails the row.

use atoll_proto::nfs3::{Commit3Args, FileHandle, Payload, Read3Args, StableHow, Write3Args, call};
use atoll_proto::rpc::OpaqueAuth;
use bytes::{Bytes, BytesMut};
use rand::rngs::SmallRng;
use rand::seq::SliceRandom;
use rand::{Rng, RngCore, SeedableRng};

use super::template::{Results, args_at, encode, handle_len};
use crate::load::{BadReply, CallWriter, Progress, Workload};

/// Bytes between stamps.
pub const PAGE: usize = 4096;
/// UNSTABLE bytes after which a COMMIT is sent.
pub const COMMIT_EACH: u64 = 64 * 1024 * 1024;
/// Any constant: a page of zeros must not pass for the first page of a file.
const STAMP_KEY: u64 = 0x61_74_6f_6c_6c_20_70_67;

/// The first eight bytes of the page at `offset`.
pub fn stamp(offset: u64) -> [u8; 8] {
    (offset ^ STAMP_KEY).to_be_bytes()
}

/// Incompressible bytes, the same in every run.
pub fn noise(len: usize) -> BytesMut {
    let mut bytes = BytesMut::zeroed(len);
    SmallRng::seed_from_u64(7).fill_bytes(&mut bytes);
    bytes
}

/// `len` bytes of a file from `offset`, both multiples of a page: noise with stamps.
pub fn content(noise: &[u8], offset: u64, len: usize) -> Bytes {
    let mut bytes = BytesMut::from(&noise[..len]);
    for (page, at) in bytes.chunks_mut(PAGE).zip((offset..).step_by(PAGE)) {
        page[..8].copy_from_slice(&stamp(at));
    }
    bytes.freeze()
}

/// In which order blocks are visited.
#[derive(Debug)]
pub enum Order {
    /// Any block, with repetition, without end.
    Random(SmallRng),
    /// One after the other; from the front again if `again`.
    Sequential {
        /// The next block.
        next: u64,
        /// Whether it goes on after the last one.
        again: bool,
    },
    /// Each once, shuffled.
    Shuffled(Vec<u32>),
}

impl Order {
    /// Random blocks, the same in every run.
    pub fn random() -> Self {
        Self::Random(SmallRng::seed_from_u64(11))
    }

    /// Each of `blocks` once.
    pub fn shuffled(blocks: u64) -> Self {
        let blocks = u32::try_from(blocks).expect("files of the benchmark have less than 2^32 pages");
        let mut all: Vec<u32> = (0..blocks).collect();
        all.shuffle(&mut SmallRng::seed_from_u64(13));
        Self::Shuffled(all)
    }

    pub(super) fn next(&mut self, blocks: u64) -> Option<u64> {
        match self {
            Self::Random(rng) => Some(rng.random_range(0..blocks)),
            Self::Sequential { next, again } => {
                if *next == blocks && *again {
                    *next = 0;
                }
                let block = *next;
                (block < blocks).then(|| {
                    *next += 1;
                    block
                })
            }
            Self::Shuffled(left) => left.pop().map(u64::from),
        }
    }
}

/// A file and how it is visited.
#[derive(Debug)]
pub struct Blocks {
    /// The file.
    pub file: FileHandle,
    /// Its length, a multiple of `size`.
    pub len: u64,
    /// Bytes of one call.
    pub size: usize,
    /// Order of the calls.
    pub order: Order,
}

impl Blocks {
    fn next_offset(&mut self) -> Option<u64> {
        let size = self.size as u64;
        self.order.next(self.len / size).map(|block| block * size)
    }

    fn count(&self) -> u32 {
        u32::try_from(self.size).expect("a block is at most 1 MiB")
    }
}

/// READ of one block per operation.
#[derive(Debug)]
pub struct Reads {
    blocks: Blocks,
    template: Bytes,
    offset_at: usize,
    /// Offset asked for by each slot.
    asked: Vec<u64>,
}

impl Reads {
    /// READs with `slots` in flight.
    pub fn new(blocks: Blocks, slots: usize, credential: &OpaqueAuth) -> Self {
        let args = Read3Args { file: blocks.file, offset: 0, count: blocks.count() };
        let offset_at = args_at(credential) + handle_len(&blocks.file);
        Self { blocks, template: encode::<call::Read>(credential, &args), offset_at, asked: vec![0; slots] }
    }
}

impl Workload for Reads {
    fn call(&mut self, slot: usize, out: &mut CallWriter<'_>) {
        let Some(offset) = self.blocks.next_offset() else { return };
        self.asked[slot] = offset;
        out.put(&self.template);
        out.patch(self.offset_at, &offset.to_be_bytes());
    }

    fn reply(&mut self, slot: usize, results: &[u8]) -> Result<Progress, BadReply> {
        let mut results = Results::of("READ", results)?;
        results.post_op_attr()?;
        let count = results.u32()?;
        let _eof = results.u32()?;
        let len = results.u32()?;
        if count != len || len as usize != self.blocks.size {
            return Err(BadReply(format!(
                "READ returned count {count}, {len} bytes of {}",
                self.blocks.size
            )));
        }
        let data = results.take(len as usize)?;
        if data[..8] != stamp(self.asked[slot]) {
            return Err(BadReply(format!(
                "READ at {} returned other bytes than were written",
                self.asked[slot]
            )));
        }
        Ok(Progress::Done(1))
    }
}

/// What a slot of [`Writes`] waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Sent {
    Write,
    Commit,
}

/// WRITE of one block per operation; if UNSTABLE, with a COMMIT of the file each [`COMMIT_EACH`] bytes and at the end.
#[derive(Debug)]
pub struct Writes {
    blocks: Blocks,
    stable: StableHow,
    head: Bytes,
    offset_at: usize,
    /// A block without its first 16 bytes, which are the stamp and a number that makes each WRITE unlike all others.
    tail: Bytes,
    commit: Bytes,
    sent: Vec<Sent>,
    serial: u64,
    /// Bytes answered UNSTABLE since the last COMMIT was sent.
    unstable: u64,
    verifier: Option<[u8; 8]>,
}

/// Payloads from this size on are not copied into the send buffer.
const SPLICE: usize = 16 * 1024;

impl Writes {
    /// WRITEs with `slots` in flight.
    pub fn new(blocks: Blocks, stable: StableHow, slots: usize, credential: &OpaqueAuth) -> Self {
        let data = noise(blocks.size).freeze();
        let args = Write3Args {
            file: blocks.file,
            offset: 0,
            count: blocks.count(),
            stable,
            data: Payload::new(data.clone()).expect("a block is at most 1 MiB"),
        };
        let whole = encode::<call::Write>(credential, &args);
        let commit = Commit3Args { file: blocks.file, offset: 0, count: 0 };
        Self {
            head: whole.slice(..whole.len() - blocks.size),
            offset_at: args_at(credential) + handle_len(&blocks.file),
            tail: data.slice(16..),
            commit: encode::<call::Commit>(credential, &commit),
            sent: vec![Sent::Write; slots],
            serial: 0,
            unstable: 0,
            verifier: None,
            blocks,
            stable,
        }
    }

    fn put_commit(&mut self, slot: usize, out: &mut CallWriter<'_>) {
        self.unstable = 0;
        self.sent[slot] = Sent::Commit;
        out.put(&self.commit);
    }

    /// UNSTABLE data are lost when the verifier changes (RFC 1813 §3.3.7): no figure may come of it.
    fn check_verifier(&mut self, verifier: &[u8]) -> Result<(), BadReply> {
        match self.verifier {
            Some(known) if known == verifier => Ok(()),
            Some(_) => Err(BadReply("the write verifier changed: the server lost data".into())),
            None => {
                self.verifier = Some(verifier.try_into().expect("a verifier has eight bytes"));
                Ok(())
            }
        }
    }
}

impl Workload for Writes {
    fn call(&mut self, slot: usize, out: &mut CallWriter<'_>) {
        if self.unstable >= COMMIT_EACH {
            return self.put_commit(slot, out);
        }
        let Some(offset) = self.blocks.next_offset() else { return };
        self.sent[slot] = Sent::Write;
        self.serial += 1;
        out.put(&self.head);
        out.patch(self.offset_at, &offset.to_be_bytes());
        out.put(&stamp(offset));
        out.put(&self.serial.to_be_bytes());
        if self.tail.len() < SPLICE {
            out.put(&self.tail);
        } else {
            out.splice(self.tail.clone());
        }
    }

    fn reply(&mut self, slot: usize, results: &[u8]) -> Result<Progress, BadReply> {
        if self.sent[slot] == Sent::Commit {
            let mut results = Results::of("COMMIT", results)?;
            results.wcc_data()?;
            self.check_verifier(results.take(8)?)?;
            return Ok(Progress::Aside);
        }
        let mut results = Results::of("WRITE", results)?;
        results.wcc_data()?;
        let count = results.u32()?;
        let committed = results.u32()?;
        if count as usize != self.blocks.size {
            return Err(BadReply(format!("WRITE stored {count} bytes of {}", self.blocks.size)));
        }
        if committed < self.stable as u32 {
            return Err(BadReply(format!(
                "WRITE {:?} was answered with stable_how {committed}",
                self.stable
            )));
        }
        self.check_verifier(results.take(8)?)?;
        if committed == StableHow::Unstable as u32 {
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
