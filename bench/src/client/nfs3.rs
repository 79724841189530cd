//! MOUNT and NFSv3 procedures as plain functions.

use std::net::SocketAddr;

use atoll_proto::mount::{self, DirPath, MountStat3};
use atoll_proto::nfs3::{
    Commit3Args, Create3Args, CreateHow3, CreatedRes, DirOpArgs3, Failure, Fattr3, FileHandle, GetAttr3Args,
    Lookup3Args, Lookup3Ok, MkDir3Args, Name3, NfsStat3, Payload, Read3Args, Read3Ok, ReadDirPlus3Args,
    ReadDirPlus3Ok, Remove3Args, Rename3Args, RmDir3Args, Sattr3, StableHow, Write3Args, Write3Ok,
    WriteVerf3, call,
};
use atoll_proto::rpc::{OpaqueAuth, Procedure};
use bytes::Bytes;
use futures_util::{StreamExt, TryStreamExt, stream};

use super::{RpcClient, RpcError};

/// Why a procedure failed.
#[derive(Debug, thiserror::Error)]
pub enum Nfs3Error {
    /// No results.
    #[error(transparent)]
    Rpc(#[from] RpcError),
    /// The server's answer is a failure.
    #[error("{procedure}: {status:?}")]
    Status {
        /// Name of the procedure.
        procedure: &'static str,
        /// The failure.
        status: NfsStat3,
    },
    /// MOUNT refused.
    #[error("MNT: {0:?}")]
    Mount(MountStat3),
    /// The answer is a success, and not what RFC 1813 lets a server answer here.
    #[error("{0}")]
    Wrong(&'static str),
    /// An argument is above the bound of its type.
    #[error("argument: {0}")]
    Argument(#[from] atoll_xdr::Error),
}

/// Result of a procedure.
pub type Nfs3Result<T> = std::result::Result<T, Nfs3Error>;

/// One connection with one identity.
#[derive(Debug, Clone)]
pub struct Nfs3Client {
    rpc: RpcClient,
    credential: OpaqueAuth,
}

/// How [`Nfs3Client::write_file`] sends data.
#[derive(Debug, Clone, Copy)]
pub struct Sequential {
    /// Bytes of one WRITE.
    pub chunk: usize,
    /// Calls in flight.
    pub in_flight: usize,
}

impl Default for Sequential {
    fn default() -> Self {
        Self { chunk: 1024 * 1024, in_flight: 8 }
    }
}

/// Gives the status of a failure its procedure's name.
fn ok<T, F>(procedure: &'static str, res: std::result::Result<T, Failure<F>>) -> Nfs3Result<T> {
    res.map_err(|failure| Nfs3Error::Status { procedure, status: failure.status })
}

impl Nfs3Client {
    /// Connects to the port of NFS.
    pub async fn connect(server: SocketAddr, credential: OpaqueAuth) -> Nfs3Result<Self> {
        let rpc = RpcClient::connect(server).await.map_err(RpcError::from)?;
        Ok(Self { rpc, credential })
    }

    /// Asks the MOUNT service (often on a port of its own) for the root of an export.
    pub async fn mount(server: SocketAddr, path: &str, credential: &OpaqueAuth) -> Nfs3Result<FileHandle> {
        let rpc = RpcClient::connect(server).await.map_err(RpcError::from)?;
        let path = DirPath::copy_from(path.as_bytes())?;
        let res = rpc.call::<mount::v3::call::Mnt>(credential, &path).await?;
        res.map(|mounted| mounted.handle).map_err(Nfs3Error::Mount)
    }

    /// Any procedure.
    pub async fn call<P: Procedure>(&self, args: &P::Args) -> Nfs3Result<P::Res> {
        Ok(self.rpc.call::<P>(&self.credential, args).await?)
    }

    /// GETATTR.
    pub async fn getattr(&self, object: FileHandle) -> Nfs3Result<Fattr3> {
        let res = self.call::<call::GetAttr>(&GetAttr3Args { object }).await?;
        ok("GETATTR", res).map(|got| got.obj_attributes)
    }

    /// LOOKUP.
    pub async fn lookup(&self, dir: FileHandle, name: &str) -> Nfs3Result<Lookup3Ok> {
        ok("LOOKUP", self.call::<call::Lookup>(&Lookup3Args { what: at(dir, name)? }).await?)
    }

    /// CREATE, GUARDED: the name must not exist.
    pub async fn create(&self, dir: FileHandle, name: &str, mode: u32) -> Nfs3Result<FileHandle> {
        let how = CreateHow3::Guarded(Sattr3 { mode: Some(mode), ..Sattr3::default() });
        let res = self.call::<call::Create>(&Create3Args { at: at(dir, name)?, how }).await?;
        self.created("CREATE", res, dir, name).await
    }

    /// MKDIR.
    pub async fn mkdir(&self, dir: FileHandle, name: &str, mode: u32) -> Nfs3Result<FileHandle> {
        let attributes = Sattr3 { mode: Some(mode), ..Sattr3::default() };
        let res = self.call::<call::MkDir>(&MkDir3Args { at: at(dir, name)?, attributes }).await?;
        self.created("MKDIR", res, dir, name).await
    }

    /// A server need not return the handle of what it created (RFC 1813 §3.3.8): then it is looked up.
    async fn created(
        &self,
        procedure: &'static str,
        res: CreatedRes,
        dir: FileHandle,
        name: &str,
    ) -> Nfs3Result<FileHandle> {
        match ok(procedure, res)?.object {
            Some(handle) => Ok(handle),
            None => Ok(self.lookup(dir, name).await?.object),
        }
    }

    /// REMOVE.
    pub async fn remove(&self, dir: FileHandle, name: &str) -> Nfs3Result<()> {
        let res = self.call::<call::Remove>(&Remove3Args { object: at(dir, name)? }).await?;
        ok("REMOVE", res).map(drop)
    }

    /// RMDIR.
    pub async fn rmdir(&self, dir: FileHandle, name: &str) -> Nfs3Result<()> {
        let res = self.call::<call::RmDir>(&RmDir3Args { object: at(dir, name)? }).await?;
        ok("RMDIR", res).map(drop)
    }

    /// RENAME.
    pub async fn rename(&self, from: (FileHandle, &str), to: (FileHandle, &str)) -> Nfs3Result<()> {
        let args = Rename3Args { from: at(from.0, from.1)?, to: at(to.0, to.1)? };
        ok("RENAME", self.call::<call::Rename>(&args).await?).map(drop)
    }

    /// READ.
    pub async fn read(&self, file: FileHandle, offset: u64, count: u32) -> Nfs3Result<Read3Ok> {
        ok("READ", self.call::<call::Read>(&Read3Args { file, offset, count }).await?)
    }

    /// WRITE of bytes as they are.
    pub async fn write(
        &self,
        file: FileHandle,
        offset: u64,
        data: Bytes,
        stable: StableHow,
    ) -> Nfs3Result<Write3Ok> {
        let data = Payload::new(data)?;
        let count = u32::try_from(data.len()).expect("the bound of a payload is far below 2^32");
        ok("WRITE", self.call::<call::Write>(&Write3Args { file, offset, count, stable, data }).await?)
    }

    /// COMMIT of the whole file.
    pub async fn commit(&self, file: FileHandle) -> Nfs3Result<WriteVerf3> {
        let res = self.call::<call::Commit>(&Commit3Args { file, offset: 0, count: 0 }).await?;
        ok("COMMIT", res).map(|done| done.verf)
    }

    /// One READDIRPLUS.
    pub async fn readdirplus(
        &self,
        dir: FileHandle,
        cookie: u64,
        cookieverf: [u8; 8],
        maxcount: u32,
    ) -> Nfs3Result<ReadDirPlus3Ok> {
        let args = ReadDirPlus3Args { dir, cookie, cookieverf, dircount: maxcount, maxcount };
        ok("READDIRPLUS", self.call::<call::ReadDirPlus>(&args).await?)
    }

    /// Names and handles of a whole directory, `.` and `..` included if the server lists them.
    pub async fn list(&self, dir: FileHandle) -> Nfs3Result<Vec<(Bytes, Option<FileHandle>)>> {
        const MAXCOUNT: u32 = 64 * 1024;
        let (mut names, mut cookie, mut verf) = (Vec::new(), 0, [0; 8]);
        loop {
            let page = self.readdirplus(dir, cookie, verf, MAXCOUNT).await?;
            let before = names.len();
            for entry in page.entries {
                cookie = entry.cookie;
                names.push((Bytes::copy_from_slice(&entry.name), entry.name_handle));
            }
            if page.eof {
                return Ok(names);
            }
            if names.len() == before {
                return Err(Nfs3Error::Wrong("READDIRPLUS returned no entry and no end"));
            }
            verf = page.cookieverf;
        }
    }

    /// Writes `len` bytes UNSTABLE in order, `chunk(offset, len)` giving the bytes, and commits them. Fails if the write
    /// verifier changed on the way: the server lost data.
    pub async fn write_file(
        &self,
        file: FileHandle,
        len: u64,
        how: Sequential,
        chunk: impl Fn(u64, usize) -> Bytes,
    ) -> Nfs3Result<()> {
        let step = how.chunk as u64;
        let writes = stream::iter((0..len.div_ceil(step)).map(|n| {
            let offset = n * step;
            #[allow(clippy::cast_possible_truncation)] // at most `how.chunk`
            let size = (len - offset).min(step) as usize;
            let data = chunk(offset, size);
            async move {
                let done = self.write(file, offset, data, StableHow::Unstable).await?;
                if done.count as usize == size {
                    Ok(done.verf)
                } else {
                    Err(Nfs3Error::Wrong("WRITE was short"))
                }
            }
        }));
        let verfs: Vec<WriteVerf3> = writes.buffer_unordered(how.in_flight).try_collect().await?;
        let committed = self.commit(file).await?;
        if verfs.iter().any(|verf| *verf != committed) {
            return Err(Nfs3Error::Wrong("the write verifier changed between WRITE and COMMIT"));
        }
        Ok(())
    }
}

fn at(dir: FileHandle, name: &str) -> Nfs3Result<DirOpArgs3> {
    Ok(DirOpArgs3 { dir, name: Name3::copy_from(name.as_bytes())? })
}
