//! CREATE, MKDIR, REMOVE, RENAME of names in one directory.

use atoll_proto::nfs3::{
    Create3Args, CreateHow3, DirOpArgs3, FileHandle, MkDir3Args, Name3, Remove3Args, Rename3Args, Sattr3,
    call,
};
use atoll_proto::rpc::OpaqueAuth;
use bytes::Bytes;

use super::template::{Results, args_at, encode, handle_len, name};
use crate::load::{BadReply, CallWriter, Progress, Workload};

/// First letter of the names.
const LETTER: u8 = b'f';

/// A call per new name, counted up from 0.
#[derive(Debug)]
pub struct Names {
    procedure: &'static str,
    template: Bytes,
    name_at: usize,
    next: u64,
    /// No calls for names from here on.
    end: u64,
}

fn at(dir: FileHandle, letter: u8) -> DirOpArgs3 {
    DirOpArgs3 { dir, name: Name3::copy_from(&name(letter, 0)).expect("the benchmark's names are short") }
}

impl Names {
    /// CREATE, GUARDED.
    pub fn create(dir: FileHandle, credential: &OpaqueAuth) -> Self {
        let how = CreateHow3::Guarded(Sattr3 { mode: Some(0o644), ..Sattr3::default() });
        let template = encode::<call::Create>(credential, &Create3Args { at: at(dir, LETTER), how });
        Self::new("CREATE", template, dir, credential, u64::MAX)
    }

    /// MKDIR.
    pub fn mkdir(dir: FileHandle, credential: &OpaqueAuth) -> Self {
        let attributes = Sattr3 { mode: Some(0o755), ..Sattr3::default() };
        let template = encode::<call::MkDir>(credential, &MkDir3Args { at: at(dir, LETTER), attributes });
        Self::new("MKDIR", template, dir, credential, u64::MAX)
    }

    /// REMOVE of the first `count` files that [`Self::create`] made.
    pub fn remove(dir: FileHandle, count: u64, credential: &OpaqueAuth) -> Self {
        let template = encode::<call::Remove>(credential, &Remove3Args { object: at(dir, LETTER) });
        Self::new("REMOVE", template, dir, credential, count)
    }

    fn new(
        procedure: &'static str,
        template: Bytes,
        dir: FileHandle,
        credential: &OpaqueAuth,
        end: u64,
    ) -> Self {
        let name_at = args_at(credential) + handle_len(&dir) + 4;
        Self { procedure, template, name_at, next: 0, end }
    }

    /// How many names were used.
    pub fn used(&self) -> u64 {
        self.next
    }
}

impl Workload for Names {
    fn call(&mut self, _slot: usize, out: &mut CallWriter<'_>) {
        if self.next == self.end {
            return;
        }
        out.put(&self.template);
        out.patch(self.name_at, &name(LETTER, self.next));
        self.next += 1;
    }

    fn reply(&mut self, _slot: usize, results: &[u8]) -> Result<Progress, BadReply> {
        // The shortest success is an empty `wcc_data`.
        Results::of(self.procedure, results)?.take(8)?;
        Ok(Progress::Done(1))
    }
}

/// RENAME of one file per slot, each time to a new name in the same directory.
#[derive(Debug)]
pub struct Renames {
    template: Bytes,
    from_at: usize,
    to_at: usize,
    /// Number of the present name of each slot's file.
    present: Vec<u64>,
}

impl Renames {
    /// The name that the file of a slot must have at first.
    pub fn first_name(slot: usize) -> String {
        String::from_utf8_lossy(&name(LETTER, first_number(slot))).into_owned()
    }

    /// RENAMEs in `dir`, which holds a file of the name [`Self::first_name`] for every slot.
    pub fn new(dir: FileHandle, slots: usize, credential: &OpaqueAuth) -> Self {
        let args = Rename3Args { from: at(dir, LETTER), to: at(dir, LETTER) };
        let from_at = args_at(credential) + handle_len(&dir) + 4;
        let to_at = from_at + super::template::NAME_LEN + handle_len(&dir) + 4;
        let template = encode::<call::Rename>(credential, &args);
        Self { template, from_at, to_at, present: (0..slots).map(first_number).collect() }
    }
}

/// Slots have 10^8 numbers each, of the 10^11 that names can hold.
fn first_number(slot: usize) -> u64 {
    slot as u64 * 100_000_000
}

impl Workload for Renames {
    fn call(&mut self, slot: usize, out: &mut CallWriter<'_>) {
        let number = self.present[slot];
        out.put(&self.template);
        out.patch(self.from_at, &name(LETTER, number));
        out.patch(self.to_at, &name(LETTER, number + 1));
    }

    fn reply(&mut self, slot: usize, results: &[u8]) -> Result<Progress, BadReply> {
        Results::of("RENAME", results)?.take(16)?;
        self.present[slot] += 1;
        Ok(Progress::Done(1))
    }
}
