//! A server with what the workloads need on it: files, directories, handles. Made when first needed, kept for the rest.

use std::time::Duration;

use anyhow::{Context, Result, bail};
use atoll_proto::nfs3::{FileHandle, StableHow};
use atoll_proto::nfs4::StableHow4;
use atoll_proto::rpc::OpaqueAuth;
use bytes::Bytes;
use futures_util::{StreamExt, TryStreamExt, stream};

use crate::client::{Nfs3Client, Nfs3Error, Nfs3Result, Nfs41Client, RpcError, Sequential, credential};
use crate::load::{Limits, Shape, Workload, run};
use crate::peer::{Peer, Server, Site};
use crate::scale::Scale;
use crate::workload::Work;
use crate::workload::attributes::Rotating;
use crate::workload::data::{Blocks, Order, PAGE, Reads, Writes, content, noise};
use crate::workload::listing::Listing;
use crate::workload::names::{Names, Renames};
use crate::workload::small_files::SmallFiles;
use crate::workload::v4::{Attributes, Locks, OpenBlocks, OpenClose, Reads4, Slots, SmallFiles4, Writes4};

/// 1 MiB.
pub const MIB: u64 = 1024 * 1024;
/// Calls in flight while things are made.
const MAKING: usize = 32;
/// Longest time to make what one workload needs.
const MAKING_TIME: Duration = Duration::from_secs(240);
/// Longest time without a reply while things are made by the load generator.
const SILENCE: Duration = Duration::from_secs(30);

/// A server with its fixtures.
#[derive(Debug)]
pub struct Bed {
    /// The server; absent only while it restarts, and for good if that failed.
    server: Option<Server>,
    site: Site,
    runtime: tokio::runtime::Runtime,
    credential: OpaqueAuth,
    scale: Scale,
    /// The directory with files for GETATTR, LOOKUP and ACCESS.
    files: Option<(FileHandle, Vec<(String, FileHandle)>)>,
    /// A file for random blocks, in cache.
    random: Option<FileHandle>,
    /// A file for 1 MiB blocks, in cache.
    blocks: Option<FileHandle>,
    /// A file that is read cold.
    stream: Option<FileHandle>,
    /// A large directory.
    large: Option<FileHandle>,
    /// Numbers directories and files.
    serial: u32,
}

impl Bed {
    /// A bed for a server that was just started on an empty directory.
    pub fn new(server: Server, site: &Site, scale: Scale) -> Result<Self> {
        let scale = if server.peer.in_memory() { scale.in_memory() } else { scale };
        Ok(Self {
            server: Some(server),
            site: site.clone(),
            runtime: tokio::runtime::Builder::new_current_thread().enable_all().build()?,
            credential: credential(0, 0),
            scale,
            files: None,
            random: None,
            blocks: None,
            stream: None,
            large: None,
            serial: 0,
        })
    }

    /// The server.
    pub fn server(&self) -> Result<&Server> {
        self.server.as_ref().context("the server is gone")
    }

    /// Restarts the server with an empty page cache. Fails if emptying is not permitted.
    pub fn restart_cold(&mut self) -> Result<()> {
        let server = self.server.take().context("the server is gone")?;
        self.server = Some(server.restart(&self.site, crate::machine::drop_caches)?);
        Ok(())
    }

    /// Stops the server.
    pub fn stop(self) -> Result<()> {
        self.server.map_or(Ok(()), Server::stop)
    }

    /// Runs client code on a new connection, for at most [`MAKING_TIME`].
    fn make<T>(&self, make: impl AsyncFnOnce(Nfs3Client, FileHandle) -> Nfs3Result<T>) -> Result<T> {
        let server = self.server()?;
        let done = self.runtime.block_on(async {
            let work = async {
                let root = Nfs3Client::mount(server.mount, &server.export, &self.credential).await?;
                let client = Nfs3Client::connect(server.nfs, self.credential.clone()).await?;
                make(client, root).await
            };
            tokio::time::timeout(MAKING_TIME, work).await
        });
        match done {
            Ok(made) => Ok(made?),
            Err(_) => bail!("what it needs was not made within {MAKING_TIME:?}"),
        }
    }

    fn name(&mut self, kind: &str) -> String {
        self.serial += 1;
        format!("{kind}-{}", self.serial)
    }

    /// A new empty directory below the root.
    fn directory(&mut self) -> Result<FileHandle> {
        let name = self.name("dir");
        self.make(async |client, root| client.mkdir(root, &name, 0o755).await)
    }

    /// A new file below the root, filled with `len` bytes and committed.
    pub fn file(&mut self, len: u64) -> Result<FileHandle> {
        let name = self.name("file");
        let noise = noise(MIB as usize);
        self.make(async |client, root| {
            let file = client.create(root, &name, 0o644).await?;
            let chunk = |offset, len| content(&noise, offset, len);
            match client.write_file(file, len, Sequential::default(), chunk).await {
                // A server without COMMIT: write it durably at once, it will say so.
                Err(e) if no_commit(&e) => fill_stable(&client, file, len, &noise).await?,
                other => other?,
            }
            Ok(file)
        })
    }

    /// As [`Self::file`], and read once, so that it is in whatever cache the server has.
    fn cached_file(&mut self, len: u64) -> Result<FileHandle> {
        let file = self.file(len)?;
        self.make(async |client, _| {
            for offset in (0..len).step_by(MIB as usize) {
                client.read(file, offset, 1 << 20).await?;
            }
            Ok(())
        })?;
        Ok(file)
    }

    /// A new directory with `count` empty files; with their names and handles.
    fn many_files(&mut self, count: u64) -> Result<(FileHandle, Vec<(String, FileHandle)>)> {
        let name = self.name("many");
        self.make(async |client, root| {
            let dir = client.mkdir(root, &name, 0o755).await?;
            let client = &client;
            let files = stream::iter((0..count).map(|n| async move {
                let name = format!("entry-{n:07}");
                let handle = client.create(dir, &name, 0o644).await?;
                Ok::<_, Nfs3Error>((name, handle))
            }));
            Ok((dir, files.buffered(MAKING).try_collect().await?))
        })
    }

    fn attribute_files(&mut self) -> Result<(FileHandle, Vec<(String, FileHandle)>)> {
        if self.files.is_none() {
            self.files = Some(self.many_files(self.scale.files)?);
        }
        Ok(self.files.clone().expect("just made"))
    }

    fn random_file(&mut self) -> Result<FileHandle> {
        if self.random.is_none() {
            self.random = Some(self.cached_file(self.scale.random_bytes)?);
        }
        Ok(self.random.expect("just made"))
    }

    fn block_file(&mut self) -> Result<FileHandle> {
        if self.blocks.is_none() {
            self.blocks = Some(self.cached_file(self.scale.block_bytes)?);
        }
        Ok(self.blocks.expect("just made"))
    }

    fn stream_file(&mut self) -> Result<FileHandle> {
        if self.stream.is_none() {
            self.stream = Some(self.file(self.scale.stream_bytes)?);
        }
        Ok(self.stream.expect("just made"))
    }

    /// Makes what a workload needs and the workload. For the cold one the server is restarted with an empty cache.
    pub fn prepare(&mut self, work: Work, shape: Shape) -> Result<Box<dyn Workload>> {
        let slots = shape.in_flight();
        let auth = self.credential.clone();
        Ok(match work {
            Work::Getattr => Box::new(Rotating::getattr(&self.attribute_files()?.1, &auth)),
            Work::Access => Box::new(Rotating::access(&self.attribute_files()?.1, &auth)),
            Work::Lookup => {
                let (dir, files) = self.attribute_files()?;
                Box::new(Rotating::lookup(dir, &files, &auth))
            }
            Work::Read4k => {
                let (file, len) = (self.random_file()?, self.scale.random_bytes);
                Box::new(Reads::new(Blocks { file, len, size: PAGE, order: Order::random() }, slots, &auth))
            }
            Work::Read1m => {
                let (file, len) = (self.block_file()?, self.scale.block_bytes);
                Box::new(Reads::new(
                    Blocks { file, len, size: MIB as usize, order: Order::random() },
                    slots,
                    &auth,
                ))
            }
            Work::ReadCold => {
                let file = self.stream_file()?;
                self.restart_cold()?;
                Box::new(self.sequential_reads(file, self.scale.stream_bytes, slots))
            }
            Work::WriteSync4k | Work::Write4k => {
                let (file, len) = (self.random_file()?, self.scale.random_bytes);
                let stable = if work == Work::Write4k { StableHow::Unstable } else { StableHow::FileSync };
                let blocks = Blocks { file, len, size: PAGE, order: Order::random() };
                Box::new(Writes::new(blocks, stable, slots, &auth))
            }
            Work::Write1m => {
                // `nfs3_server` has no holes, and calls may arrive out of order.
                let first = if self.server()?.peer.in_memory() { self.scale.stream_bytes } else { 0 };
                let file = self.file(first)?;
                let order = Order::Sequential { next: 0, again: true };
                let blocks = Blocks { file, len: self.scale.stream_bytes, size: MIB as usize, order };
                Box::new(Writes::new(blocks, StableHow::Unstable, slots, &auth))
            }
            Work::Create => Box::new(Names::create(self.directory()?, &auth)),
            Work::Mkdir => Box::new(Names::mkdir(self.directory()?, &auth)),
            Work::Rename => {
                let dir = self.directory()?;
                self.make(async |client, _| {
                    for slot in 0..slots {
                        client.create(dir, &Renames::first_name(slot), 0o644).await?;
                    }
                    Ok(())
                })?;
                Box::new(Renames::new(dir, slots, &auth))
            }
            Work::Remove => {
                let (dir, count) = self.create_for_removal(shape)?;
                Box::new(Names::remove(dir, count, &auth))
            }
            Work::Readdirplus => {
                if self.large.is_none() {
                    self.large = Some(self.many_files(self.scale.entries)?.0);
                }
                let dir = self.large.expect("just made");
                Box::new(Listing::new(dir, self.scale.entries, slots, &auth))
            }
            Work::SmallFiles => Box::new(SmallFiles::new(self.directory()?, slots, &auth)),
            Work::V41Getattr
            | Work::V41OpenClose
            | Work::V41Read4k
            | Work::V41Read1m
            | Work::V41WriteSync4k
            | Work::V41Write4k
            | Work::V41SmallFiles
            | Work::V41Lock => return self.prepare_v41(work, shape),
            Work::ReadFresh | Work::Overwrite | Work::ReadOverwritten => {
                bail!("the overwriting trial is run as a whole")
            }
        })
    }

    /// The same for NFSv4.1, with a new client. Opens that it makes stay until its lease ends.
    fn prepare_v41(&mut self, work: Work, shape: Shape) -> Result<Box<dyn Workload>> {
        let count = shape.in_flight();
        // Files by names below the root.
        let (dir, names, len) = match work {
            Work::V41Getattr | Work::V41OpenClose | Work::V41Lock => {
                let dir = self.name("many41");
                let files = self.scale.files;
                let made = self.make(async |client, root| {
                    let dir = client.mkdir(root, &dir, 0o755).await?;
                    let client = &client;
                    let files = stream::iter((0..files).map(|n| async move {
                        let name = format!("entry-{n:07}");
                        client.create(dir, &name, 0o644).await?;
                        Ok::<_, Nfs3Error>(name)
                    }));
                    files.buffered(MAKING).try_collect::<Vec<_>>().await
                })?;
                (Some(dir), made, 0)
            }
            Work::V41SmallFiles => {
                let dir = self.name("small41");
                self.make(async |client, root| client.mkdir(root, &dir, 0o755).await)?;
                (Some(dir), Vec::new(), 0)
            }
            _ => {
                let len = match work {
                    Work::V41Read1m => self.scale.block_bytes,
                    _ => self.scale.random_bytes,
                };
                self.cached_file(len)?;
                (None, vec![format!("file-{}", self.serial)], len)
            }
        };
        let name = self.name("client");
        let server = self.server()?;
        let root = match server.peer {
            Peer::Ganesha | Peer::GaneshaSync => vec!["bench"],
            _ => Vec::new(),
        };
        let path: Vec<&str> = root.into_iter().chain(dir.as_deref()).collect();
        let auth = self.credential.clone();
        let making = async {
            let mut client = Nfs41Client::connect(server.nfs, auth.clone(), &name).await?;
            let dir = client.find(&path).await?;
            let slots = Slots::new(client.session(count).await?, count, &auth);
            let made: Box<dyn Workload> = match work {
                Work::V41Getattr => {
                    let mut files = Vec::new();
                    for name in &names {
                        let path: Vec<&str> = path.iter().copied().chain([&**name]).collect();
                        files.push(client.find(&path).await?);
                    }
                    Box::new(Attributes::new(&files, slots))
                }
                Work::V41OpenClose => Box::new(OpenClose::new(dir, names, client.id(), slots)),
                Work::V41SmallFiles => Box::new(SmallFiles4::new(dir, client.id(), slots)),
                Work::V41Lock => {
                    let mut files = Vec::new();
                    for name in names.iter().cycle().take(count) {
                        files.push(client.open(dir, name, b"owner").await?);
                    }
                    Box::new(Locks::new(files, client.id(), slots))
                }
                _ => {
                    let (file, stateid) = client.open(dir, &names[0], b"owner").await?;
                    let size = if work == Work::V41Read1m { MIB as usize } else { PAGE };
                    let blocks = OpenBlocks { file, stateid, len, size };
                    match work {
                        Work::V41Write4k => Box::new(Writes4::new(blocks, StableHow4::Unstable, slots)),
                        Work::V41WriteSync4k => Box::new(Writes4::new(blocks, StableHow4::FileSync, slots)),
                        _ => Box::new(Reads4::new(blocks, slots)),
                    }
                }
            };
            Ok::<_, Nfs3Error>(made)
        };
        let done = self.runtime.block_on(async { tokio::time::timeout(MAKING_TIME, making).await });
        Ok(done.context("what it needs was not made in time")??)
    }

    /// READs of 1 MiB from the front to the end.
    pub fn sequential_reads(&self, file: FileHandle, len: u64, slots: usize) -> Reads {
        let order = Order::Sequential { next: 0, again: false };
        let blocks = Blocks { file, len, size: MIB as usize, order };
        Reads::new(blocks, slots, &self.credential)
    }

    /// WRITEs of every page of a file once, shuffled.
    pub fn overwrites(&self, file: FileHandle, len: u64, slots: usize) -> Writes {
        let blocks = Blocks { file, len, size: PAGE, order: Order::shuffled(len / PAGE as u64) };
        Writes::new(blocks, StableHow::Unstable, slots, &self.credential)
    }

    /// Files for REMOVE, made by the load generator without measuring: as many as CREATE makes in the time of a row.
    fn create_for_removal(&mut self, shape: Shape) -> Result<(FileHandle, u64)> {
        let dir = self.directory()?;
        let mut names = Names::create(dir, &self.credential);
        let limits = Limits { duration: self.scale.duration, silence: SILENCE };
        run(self.server()?.nfs, shape, limits, &mut names)?;
        Ok((dir, names.used()))
    }

    /// Makes `count` files in directories of 1000 each.
    pub fn make_files(&mut self, count: u64) -> Result<()> {
        const EACH: u64 = 1000;
        for _ in 0..count / EACH {
            self.many_files(EACH)?;
        }
        Ok(())
    }
}

fn no_commit(error: &Nfs3Error) -> bool {
    matches!(error, Nfs3Error::Rpc(RpcError::NotExecuted(_)))
}

async fn fill_stable(client: &Nfs3Client, file: FileHandle, len: u64, noise: &[u8]) -> Nfs3Result<()> {
    for offset in (0..len).step_by(noise.len()) {
        #[allow(clippy::cast_possible_truncation)] // at most the length of the noise
        let size = (len - offset).min(noise.len() as u64) as usize;
        let data: Bytes = content(noise, offset, size);
        client.write(file, offset, data, StableHow::FileSync).await?;
    }
    Ok(())
}
