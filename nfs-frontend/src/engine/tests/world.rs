//! A client of an engine: encodes calls, decodes replies, through the public entry points only.

use super::blocks::Blocks;
use super::meta::Meta;
use crate::engine::{Config, Engine, HandleKey, Parts, Resolver};
use crate::rpc::{Answer, Credential, Gids, RpcCall, Transport};
use atoll_base::access::Cred;
use atoll_base::id::{FrontendId, ROOT_VOLUME};
use atoll_base::time::SystemClock;
use atoll_meta::export::{AtimePolicy, ClientMatch, ExportSpec, SecFlavor, Squash};
use atoll_meta::{Call, Op, Outcome};
use atoll_proto::mount;
use atoll_proto::nfs3::{
    Commit3Args, Commit3Res, Create3Args, CreateHow3, DirOpArgs3, Fattr3, FileHandle, GetAttr3Args,
    Lookup3Args, Lookup3Res, MkDir3Args, Name3, Payload, Read3Args, Read3Ok, Read3Res, Sattr3, StableHow,
    Write3Args, Write3Ok, Write3Res, call,
};
use atoll_proto::rpc::Procedure;
use atoll_xdr::{Decoder, Encoder};
use bytes::Bytes;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

pub(crate) type TestEngine = Engine<Meta, Blocks>;

/// Names and users of a made-up machine.
pub(crate) struct Names;

impl Resolver for Names {
    fn groups(&self, uid: u32) -> Option<Vec<u32>> {
        (uid == 500).then(|| (1000..1040).collect())
    }

    fn addresses(&self, host: &str) -> Option<Vec<IpAddr>> {
        (host == "known.example")
            .then(|| vec!["192.0.2.7".parse().unwrap(), "::ffff:192.0.2.8".parse().unwrap()])
    }

    fn user_name(&self, uid: u32) -> Option<String> {
        (uid == 500).then(|| "alice".into())
    }

    fn group_name(&self, gid: u32) -> Option<String> {
        (gid == 1000).then(|| "staff".into())
    }

    fn user_id(&self, name: &str) -> Option<u32> {
        (name == "alice").then_some(500)
    }

    fn group_id(&self, name: &str) -> Option<u32> {
        (name == "staff").then_some(1000)
    }
}

/// An export of the whole volume to everybody.
pub(crate) fn open_export() -> ExportSpec {
    ExportSpec {
        path: "/".into(),
        volume: ROOT_VOLUME,
        volume_path: "/".into(),
        clients: vec![ClientMatch::Any],
        read_only: false,
        squash: Squash::None,
        anon_uid: 65534,
        anon_gid: 65534,
        sec: vec![SecFlavor::Sys],
        secure: false,
        manage_gids: false,
        atime: AtimePolicy::Never,
        security_label: true,
    }
}

pub(crate) fn sys(uid: u32, gid: u32, gids: &[u32]) -> Credential {
    Credential::Sys { uid, gid, gids: Gids::new(gids).unwrap() }
}

/// Services, an engine over them, and a caller.
pub(crate) struct World {
    pub(crate) meta: Arc<Meta>,
    pub(crate) blocks: Arc<Blocks>,
    pub(crate) engine: Arc<TestEngine>,
    pub(crate) config: Config,
    pub(crate) root: FileHandle,
    pub(crate) peer: SocketAddr,
    pub(crate) who: Credential,
    xid: AtomicU32,
}

impl World {
    pub(crate) async fn new() -> Self {
        Self::with(Config::default(), None).await
    }

    pub(crate) async fn with(config: Config, seed: Option<u64>) -> Self {
        let (meta, blocks) = (Meta::new(seed), Blocks::new(seed));
        put_export(&meta, open_export());
        Self::over(config, meta, blocks).await
    }

    /// A new life of the frontend over services that live on.
    pub(crate) async fn over(config: Config, meta: Arc<Meta>, blocks: Arc<Blocks>) -> Self {
        let peer = "192.0.2.1:800".parse().unwrap();
        let engine = start(&config, &meta, &blocks).await;
        let mut world = Self {
            meta,
            blocks,
            engine,
            config,
            root: FileHandle::new(&[]).unwrap(),
            peer,
            who: sys(0, 0, &[]),
            xid: AtomicU32::new(1),
        };
        world.root = world.mount("/").await.unwrap();
        world
    }

    /// The frontend's process dies and another life of it begins.
    pub(crate) async fn crash(&mut self) {
        self.engine = start(&self.config, &self.meta, &self.blocks).await;
        // Now that nobody of the former life can hear it.
        self.meta.tell_again();
    }

    /// Nothing is dirty, nor reserved for what was.
    pub(crate) fn is_clean(&self) {
        let stats = self.engine.stats();
        assert_eq!((stats.dirty_bytes, stats.dirty_files, self.blocks.reserved()), (0, 0, 0));
    }

    pub(crate) fn as_user(&mut self, uid: u32, gid: u32) {
        self.who = sys(uid, gid, &[]);
    }

    pub(crate) fn next_xid(&self) -> u32 {
        self.xid.fetch_add(1, Ordering::Relaxed)
    }

    pub(crate) fn rpc(&self, xid: u32, program: u32, version: u32, procedure: u32, args: Bytes) -> RpcCall {
        RpcCall {
            peer: self.peer,
            local: "192.0.2.100:2049".parse().unwrap(),
            transport: Transport::Tcp,
            xid,
            program,
            version,
            procedure,
            credential: self.who.clone(),
            connection: None,
            args: Decoder::new(args),
        }
    }

    /// Sends a call and returns the bytes of the reply's results.
    pub(crate) async fn raw<P: Procedure>(&self, xid: u32, args: &P::Args) -> Answer {
        let mut e = Encoder::new();
        e.put(args);
        let call = self.rpc(xid, P::PROGRAM, P::VERSION, P::PROCEDURE, e.into_bytes());
        let reply = Encoder::new();
        match P::PROGRAM {
            atoll_proto::nfs3::PROGRAM if P::VERSION == atoll_proto::nfs4::VERSION => {
                self.engine.nfs4(call, reply).await
            }
            atoll_proto::nfs3::PROGRAM => self.engine.nfs3(call, reply).await,
            mount::PROGRAM => self.engine.mount(call, reply).await,
            atoll_proto::nfsacl::PROGRAM => self.engine.nfsacl(call, reply).await,
            atoll_proto::rquota::PROGRAM => self.engine.rquota(call, reply).await,
            other => panic!("program {other}"),
        }
    }

    pub(crate) async fn bytes<P: Procedure>(&self, xid: u32, args: &P::Args) -> Bytes {
        match self.raw::<P>(xid, args).await {
            Answer::Success(reply) => reply.into_bytes(),
            other => panic!("{other:?}"),
        }
    }

    pub(crate) async fn call<P: Procedure>(&self, args: P::Args) -> P::Res {
        let bytes = self.bytes::<P>(self.next_xid(), &args).await;
        let mut d = Decoder::new(bytes);
        let result = d.decode().unwrap();
        d.finish().unwrap();
        result
    }

    pub(crate) async fn mount(&self, path: &str) -> Result<FileHandle, mount::MountStat3> {
        let path = mount::DirPath::copy_from(path.as_bytes()).unwrap();
        self.call::<mount::v3::call::Mnt>(path).await.map(|ok| ok.handle)
    }

    pub(crate) fn at(&self, dir: FileHandle, name: &str) -> DirOpArgs3 {
        DirOpArgs3 { dir, name: name_of(name.as_bytes()) }
    }

    pub(crate) async fn create(&self, dir: FileHandle, name: &str) -> FileHandle {
        let how = CreateHow3::Guarded(Sattr3 { mode: Some(0o644), ..Sattr3::default() });
        let made = self.call::<call::Create>(Create3Args { at: self.at(dir, name), how }).await;
        made.unwrap().object.unwrap()
    }

    pub(crate) async fn mkdir(&self, dir: FileHandle, name: &str, mode: u32) -> FileHandle {
        let attributes = Sattr3 { mode: Some(mode), ..Sattr3::default() };
        let made = self.call::<call::MkDir>(MkDir3Args { at: self.at(dir, name), attributes }).await;
        made.unwrap().object.unwrap()
    }

    pub(crate) async fn lookup(&self, dir: FileHandle, name: &str) -> Lookup3Res {
        self.call::<call::Lookup>(Lookup3Args { what: self.at(dir, name) }).await
    }

    pub(crate) async fn getattr(&self, object: FileHandle) -> Fattr3 {
        self.call::<call::GetAttr>(GetAttr3Args { object }).await.unwrap().obj_attributes
    }

    pub(crate) async fn write(
        &self,
        file: FileHandle,
        offset: u64,
        data: &[u8],
        stable: StableHow,
    ) -> Write3Res {
        self.call::<call::Write>(write_args(file, offset, data, stable)).await
    }

    /// A stable write followed by an UNSTABLE one is a stream, which goes into the dirty map.
    pub(crate) async fn write_dirty(&self, file: FileHandle, offset: u64, data: &[u8]) -> Write3Ok {
        // The first of a stream is written through.
        let first = self.write(file, offset, data, StableHow::Unstable).await.unwrap();
        if self.engine.stats().dirty_files > 0 {
            return first;
        }
        self.write(file, offset, data, StableHow::Unstable).await.unwrap()
    }

    pub(crate) async fn commit(&self, file: FileHandle) -> Commit3Res {
        self.call::<call::Commit>(Commit3Args { file, offset: 0, count: 0 }).await
    }

    pub(crate) async fn read(&self, file: FileHandle, offset: u64, count: u32) -> Read3Res {
        self.call::<call::Read>(Read3Args { file, offset, count }).await
    }

    pub(crate) async fn read_all(&self, file: FileHandle) -> Vec<u8> {
        let mut all = Vec::new();
        loop {
            let Read3Ok { data, eof, count, .. } = self.read(file, all.len() as u64, 1 << 20).await.unwrap();
            assert_eq!(count as usize, data.len());
            all.extend_from_slice(&data);
            if eof {
                return all;
            }
            assert!(count > 0);
        }
    }
}

pub(crate) fn name_of(name: &[u8]) -> Name3 {
    Name3::copy_from(name).unwrap()
}

pub(crate) fn write_args(file: FileHandle, offset: u64, data: &[u8], stable: StableHow) -> Write3Args {
    Write3Args { file, offset, count: data.len() as u32, stable, data: Payload::copy_from(data).unwrap() }
}

pub(crate) fn put_export(meta: &Meta, spec: ExportSpec) -> atoll_base::id::ExportId {
    let call = Call { origin: None, once: None, cred: Cred::root(), client: None, op: Op::PutExport(spec) };
    match meta.apply(call).result.unwrap() {
        Outcome::Export(id) => id,
        other => panic!("{other:?}"),
    }
}

async fn start(config: &Config, meta: &Arc<Meta>, blocks: &Arc<Blocks>) -> Arc<TestEngine> {
    let parts = Parts {
        meta: meta.clone(),
        blocks: blocks.clone(),
        frontend: FrontendId(1),
        handle_key: HandleKey::new(&[9; 16]),
        clock: Arc::new(SystemClock),
        resolver: Arc::new(Names),
    };
    Engine::start(config.clone(), parts).await.unwrap()
}
