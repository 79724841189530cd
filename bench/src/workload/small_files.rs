//! Small files: CREATE, WRITE 4 KiB UNSTABLE, COMMIT. An operation is a file, its latency that of all three calls.

use atoll_proto::nfs3::{
    Commit3Args, Create3Args, CreateHow3, DirOpArgs3, FileHandle, Name3, Payload, Sattr3, StableHow,
    Write3Args, call,
};
use atoll_proto::rpc::OpaqueAuth;

use super::data::{PAGE, content, noise};
use super::template::{Results, encode, name};
use crate::load::{BadReply, CallWriter, Progress, Workload};

/// What a slot does next with its file.
#[derive(Debug, Clone, Copy)]
enum Stage {
    Create,
    Write(FileHandle),
    Commit(FileHandle, [u8; 8]),
}

/// Makes files in one directory.
#[derive(Debug)]
pub struct SmallFiles {
    dir: FileHandle,
    credential: OpaqueAuth,
    stages: Vec<Stage>,
    next: u64,
    data: Payload,
}

impl SmallFiles {
    /// Makes files in `dir`, which is empty.
    pub fn new(dir: FileHandle, slots: usize, credential: &OpaqueAuth) -> Self {
        let data = Payload::new(content(&noise(PAGE), 0, PAGE)).expect("a page fits");
        Self { dir, credential: credential.clone(), stages: vec![Stage::Create; slots], next: 0, data }
    }
}

impl Workload for SmallFiles {
    fn call(&mut self, slot: usize, out: &mut CallWriter<'_>) {
        let credential = &self.credential;
        let call = match self.stages[slot] {
            Stage::Create => {
                let name = Name3::copy_from(&name(b's', self.next)).expect("the benchmark's names are short");
                self.next += 1;
                let how = CreateHow3::Guarded(Sattr3 { mode: Some(0o644), ..Sattr3::default() });
                let args = Create3Args { at: DirOpArgs3 { dir: self.dir, name }, how };
                encode::<call::Create>(credential, &args)
            }
            Stage::Write(file) => {
                #[allow(clippy::cast_possible_truncation)] // 4096
                let count = PAGE as u32;
                let stable = StableHow::Unstable;
                let args = Write3Args { file, offset: 0, count, stable, data: self.data.clone() };
                encode::<call::Write>(credential, &args)
            }
            Stage::Commit(file, _) => {
                encode::<call::Commit>(credential, &Commit3Args { file, offset: 0, count: 0 })
            }
        };
        out.put(&call);
    }

    fn reply(&mut self, slot: usize, results: &[u8]) -> Result<Progress, BadReply> {
        match self.stages[slot] {
            Stage::Create => {
                let handle = Results::of("CREATE", results)?.post_op_fh3()?;
                let handle = handle.ok_or_else(|| BadReply("CREATE returned no handle".into()))?;
                self.stages[slot] = Stage::Write(handle);
                Ok(Progress::Continues)
            }
            Stage::Write(file) => {
                let mut results = Results::of("WRITE", results)?;
                results.wcc_data()?;
                let count = results.u32()?;
                let committed = results.u32()?;
                if count as usize != PAGE {
                    return Err(BadReply(format!("WRITE stored {count} bytes of {PAGE}")));
                }
                let verifier = results.take(8)?.try_into().expect("a verifier has eight bytes");
                if committed == StableHow::Unstable as u32 {
                    self.stages[slot] = Stage::Commit(file, verifier);
                    return Ok(Progress::Continues);
                }
                // Stable already: a client would not send COMMIT either.
                self.stages[slot] = Stage::Create;
                Ok(Progress::Done(1))
            }
            Stage::Commit(_, written) => {
                let mut results = Results::of("COMMIT", results)?;
                results.wcc_data()?;
                if results.take(8)? != written {
                    return Err(BadReply("the write verifier changed: the server lost data".into()));
                }
                self.stages[slot] = Stage::Create;
                Ok(Progress::Done(1))
            }
        }
    }
}
