//! GETATTR, LOOKUP, ACCESS: one call each, in turn over some files.

use atoll_proto::nfs3::{
    Access3Args, DirOpArgs3, FileHandle, GetAttr3Args, Lookup3Args, Name3, access, call,
};
use atoll_proto::rpc::OpaqueAuth;
use bytes::Bytes;

use super::template::{Results, encode};
use crate::load::{BadReply, CallWriter, Progress, Workload};

/// The same calls again and again, in turn.
#[derive(Debug)]
pub struct Rotating {
    procedure: &'static str,
    calls: Vec<Bytes>,
    next: usize,
    /// Least length of results that are a success.
    least: usize,
}

impl Rotating {
    /// GETATTR of each file.
    pub fn getattr(files: &[(String, FileHandle)], credential: &OpaqueAuth) -> Self {
        let call = |handle| encode::<call::GetAttr>(credential, &GetAttr3Args { object: handle });
        Self::new("GETATTR", 84, files.iter().map(|(_, handle)| call(*handle)).collect())
    }

    /// ACCESS of each file, all bits.
    pub fn access(files: &[(String, FileHandle)], credential: &OpaqueAuth) -> Self {
        let call = |object| encode::<call::Access>(credential, &Access3Args { object, access: access::ALL });
        Self::new("ACCESS", 8, files.iter().map(|(_, handle)| call(*handle)).collect())
    }

    /// LOOKUP of each name.
    pub fn lookup(dir: FileHandle, files: &[(String, FileHandle)], credential: &OpaqueAuth) -> Self {
        let call = |name: &str| {
            let name = Name3::copy_from(name.as_bytes()).expect("the benchmark's names are short");
            encode::<call::Lookup>(credential, &Lookup3Args { what: DirOpArgs3 { dir, name } })
        };
        Self::new("LOOKUP", 16, files.iter().map(|(name, _)| call(name)).collect())
    }

    fn new(procedure: &'static str, least: usize, calls: Vec<Bytes>) -> Self {
        assert!(!calls.is_empty(), "there are files to ask about");
        Self { procedure, calls, next: 0, least }
    }
}

impl Workload for Rotating {
    fn call(&mut self, _slot: usize, out: &mut CallWriter<'_>) {
        out.put(&self.calls[self.next]);
        self.next = (self.next + 1) % self.calls.len();
    }

    fn reply(&mut self, _slot: usize, results: &[u8]) -> Result<Progress, BadReply> {
        Results::of(self.procedure, results)?.take(self.least)?;
        Ok(Progress::Done(1))
    }
}
