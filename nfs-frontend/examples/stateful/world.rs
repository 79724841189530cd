//! An engine over services in memory, calls to it, and what must be true of it at the end.

use crate::blocks::Blocks;
use crate::client41::hex;
use crate::dice::Dice;
use crate::meta::{Fault, Meta};
use crate::trouble;
use atoll_base::access::Cred;
use atoll_base::id::{FrontendId, ROOT_VOLUME};
use atoll_base::time::{Clock, Timestamp};
use atoll_lockd::ClientMatch;
use atoll_meta::export::{AtimePolicy, ClientMatch as ExportClients, ExportSpec, SecFlavor, Squash};
use atoll_meta::lock::LockOp;
use atoll_meta::nfs4::{ClientId, ClientOp};
use atoll_meta::{Call, Op, Outcome};
use atoll_model::{KvRead, Model, Table, check, read};
use atoll_nfs::dispatch::LockService;
use atoll_nfs::engine::{Config, Engine, HandleKey, Parts, Resolver};
use atoll_nfs::lock_manager::{Config as LockConfig, LockManager};
use atoll_nfs::rpc::{Answer, Credential, Gids, RpcCall, Transport};
use atoll_nfs::server::Connection;
use atoll_proto::nfs4::{ArgOp4, Compound4Args, Compound4Res, FileHandle, call};
use atoll_proto::rpc::Procedure;
use atoll_proto::{mount, nfs4, nlm};
use atoll_xdr::{Array, Decoder, Encoder};
use bytes::Bytes;
use std::net::IpAddr;
use std::ops::{Bound, ControlFlow};
use std::sync::Arc;
use std::time::Duration;

/// Names under which machines lock by NLM.
pub(crate) const MACHINES: [&str; 2] = ["old1", "old2"];

/// How often a call is sent whose answer does not come.
const TRIES: usize = 8;

/// A sequence that failed, in words: the kind, ` | `, details.
pub(crate) struct Failed(pub(crate) String);

impl From<String> for Failed {
    fn from(words: String) -> Self {
        Self(words)
    }
}

type TestEngine = Engine<Meta, Blocks>;

struct Nobody;

impl Resolver for Nobody {
    fn groups(&self, _: u32) -> Option<Vec<u32>> {
        None
    }

    fn addresses(&self, _: &str) -> Option<Vec<IpAddr>> {
        None
    }

    fn user_name(&self, _uid: u32) -> Option<String> {
        None
    }

    fn group_name(&self, _gid: u32) -> Option<String> {
        None
    }

    fn user_id(&self, _name: &str) -> Option<u32> {
        None
    }

    fn group_id(&self, _name: &str) -> Option<u32> {
        None
    }
}

/// Always the same moment: it is only shown.
struct Still;

impl Clock for Still {
    fn now(&self) -> Timestamp {
        Timestamp::from_nanos(1_700_000_000_000_000_000)
    }
}

/// The reply to a COMPOUND.
pub(crate) struct Reply {
    pub(crate) bytes: Bytes,
    pub(crate) res: Compound4Res,
}

/// See the module.
pub(crate) struct World {
    meta: Arc<Meta>,
    blocks: Arc<Blocks>,
    engine: Option<Arc<TestEngine>>,
    locks: Option<Arc<LockManager<Meta, TestEngine>>>,
    /// Handles that anybody has seen, the oldest first.
    pub(crate) handles: Vec<FileHandle>,
    xid: u32,
    /// Over which the next calls come.
    pub(crate) connection: Option<Connection>,
    pub(crate) calls: u64,
    tell: bool,
}

/// Whether a reply of NLM says that nothing is settled and the client is to ask again (NLM4_DENIED_GRACE_PERIOD, what comes of a call whose outcome stays
/// unknown): its retransmission may find what became of it.
fn asks_again((program, ..): (u32, u32, u32), reply: &[u8]) -> bool {
    let mut d = Decoder::new(Bytes::copy_from_slice(reply));
    let stat = d.decode::<nlm::NetObj>().and_then(|_cookie| d.decode::<u32>());
    program == nlm::PROGRAM && stat == Ok(4)
}

fn export() -> ExportSpec {
    ExportSpec {
        path: "/".into(),
        volume: ROOT_VOLUME,
        volume_path: "/".into(),
        clients: vec![ExportClients::Any],
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

impl World {
    pub(crate) async fn new(tell: bool) -> Self {
        let (meta, blocks) = (Meta::new(None), Blocks::new(None));
        let put = Op::PutExport(export());
        meta.apply(Call { origin: None, once: None, cred: Cred::root(), client: None, op: put })
            .result
            .unwrap();
        let mut world = Self {
            meta,
            blocks,
            engine: None,
            locks: None,
            handles: Vec::new(),
            xid: 0,
            connection: None,
            calls: 0,
            tell,
        };
        world.start().await;
        world
    }

    /// Tells what happens, if somebody listens.
    pub(crate) fn tell(&self, words: impl FnOnce() -> String) {
        if self.tell {
            println!("{}", words());
        }
    }

    /// The frontend's process dies, and another life of it begins.
    pub(crate) async fn restart(&mut self) {
        self.tell(|| "the engine is killed and started".into());
        self.locks = None;
        let former = self.engine.take().map(|engine| Arc::downgrade(&engine));
        // What it does in the background ends when it looks around the next time.
        while former.as_ref().is_some_and(|engine| engine.strong_count() > 0) {
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        self.blocks.forget_reservations();
        self.start().await;
    }

    async fn start(&mut self) {
        let parts = Parts {
            meta: self.meta.clone(),
            blocks: self.blocks.clone(),
            frontend: FrontendId(1),
            handle_key: HandleKey::new(&[9; 16]),
            clock: Arc::new(Still),
            resolver: Arc::new(Nobody),
        };
        let engine = Engine::start(Config { copy_extents: 1, ..Config::default() }, parts).await.unwrap();
        self.locks = Some(LockManager::new(self.meta.clone(), engine.clone(), LockConfig::default()));
        self.engine = Some(engine);
    }

    fn engine(&self) -> &Arc<TestEngine> {
        self.engine.as_ref().expect("between two lives")
    }

    /// Time passes, and what is due is done.
    pub(crate) async fn pass(&self, time: Duration) {
        self.tell(|| format!("{time:?} pass"));
        self.meta.advance(time.as_nanos() as i128);
        // At once: else the engine would look around each half second of it.
        tokio::time::advance(time).await;
        for _ in 0..8 {
            tokio::task::yield_now().await;
        }
    }

    /// Something goes wrong with a call to come.
    pub(crate) fn fail_next(&self, d: &mut Dice<'_>) {
        let fault = d.pick(&[Fault::LostAfter, Fault::LostBefore]);
        self.tell(|| format!("the next change is {fault:?}"));
        self.meta.fail_next(|_| true, fault);
    }

    /// How many calls to come something goes wrong with.
    pub(crate) fn faults(&self) -> usize {
        self.meta.faults()
    }

    pub(crate) fn next_xid(&mut self) -> u32 {
        self.xid += 1;
        self.xid
    }

    pub(crate) fn learn(&mut self, fh: FileHandle) {
        self.handles.retain(|known| *known != fh);
        self.handles.push(fh);
    }

    /// Sends a call until it is answered; the bytes of its results.
    pub(crate) async fn raw(
        &mut self,
        uid: u32,
        xid: u32,
        what: (u32, u32, u32),
        args: Bytes,
    ) -> Result<Bytes, Failed> {
        let (program, version, procedure) = what;
        for _ in 0..TRIES {
            self.calls += 1;
            let rpc = RpcCall {
                peer: "192.0.2.1:800".parse().unwrap(),
                local: "192.0.2.100:2049".parse().unwrap(),
                transport: Transport::Tcp,
                xid,
                program,
                version,
                procedure,
                credential: Credential::Sys { uid, gid: uid, gids: Gids::new(&[]).unwrap() },
                connection: self.connection.clone(),
                args: Decoder::new(args.clone()),
            };
            let reply = Encoder::new();
            let answer = match (program, version) {
                (nfs4::PROGRAM, nfs4::VERSION) => self.engine().nfs4(rpc, reply).await,
                (nfs4::PROGRAM, _) => self.engine().nfs3(rpc, reply).await,
                (mount::PROGRAM, _) => self.engine().mount(rpc, reply).await,
                (nlm::PROGRAM, _) => self.locks.as_ref().expect("between two lives").nlm(rpc, reply).await,
                other => panic!("program {other:?}"),
            };
            if let Some(words) = trouble::take() {
                return Err(Failed(format!("{words} | ")));
            }
            match answer {
                Answer::Success(reply) => return Ok(reply.into_bytes()),
                Answer::Drop | Answer::Disconnect => self.tell(|| "no answer".into()),
                other => return Err(Failed(format!("an answer of RPC | {what:?}: {other:?}"))),
            }
        }
        Err(Failed(format!("no answer, {TRIES} times | {what:?}")))
    }

    /// Sends a COMPOUND.
    pub(crate) async fn compound(&mut self, uid: u32, minor: u32, ops: &[ArgOp4]) -> Result<Reply, Failed> {
        let xid = self.next_xid();
        self.compound_as(uid, minor, ops, xid).await
    }

    /// The same with a given transaction id.
    pub(crate) async fn compound_as(
        &mut self,
        uid: u32,
        minorversion: u32,
        ops: &[ArgOp4],
        xid: u32,
    ) -> Result<Reply, Failed> {
        let ops = Array::new(ops.to_vec()).unwrap();
        let args = Compound4Args { tag: Default::default(), minorversion, ops };
        let mut e = Encoder::new();
        e.put(&args);
        self.tell(|| format!("4.{minorversion} uid {uid} xid {xid}: {:?}", args.ops));
        type P = call::Compound;
        let what = (P::PROGRAM, P::VERSION, P::PROCEDURE);
        let bytes = self.raw(uid, xid, what, e.into_bytes()).await?;
        self.tell(|| format!("    {}", hex(&bytes)));
        let mut d = Decoder::new(bytes.clone());
        let res =
            d.decode().map_err(|e| Failed(format!("a reply does not decode | {e} {bytes:02x?} {args:?}")))?;
        d.finish().map_err(|e| Failed(format!("a reply has more | {e} {bytes:02x?} {args:?}")))?;
        Ok(Reply { bytes, res })
    }

    /// Calls a procedure of another program.
    pub(crate) async fn call<P: Procedure>(&mut self, args: &P::Args, again: bool) -> Result<P::Res, Failed>
    where
        P::Args: std::fmt::Debug,
        P::Res: std::fmt::Debug,
    {
        let mut e = Encoder::new();
        e.put(args);
        let (xid, args_bytes) = (self.next_xid(), e.into_bytes());
        self.tell(|| format!("program {} version {} xid {xid}: {args:?}", P::PROGRAM, P::VERSION));
        let what = (P::PROGRAM, P::VERSION, P::PROCEDURE);
        let bytes = self.raw(0, xid, what, args_bytes.clone()).await?;
        if again {
            let then = self.raw(0, xid, what, args_bytes).await?;
            if then != bytes && !asks_again(what, &bytes) {
                return Err(Failed(format!(
                    "a retransmission of {what:?} is answered otherwise | {args:?}\n first {bytes:02x?}\n then {then:02x?}"
                )));
            }
        }
        let mut d = Decoder::new(bytes);
        let res: P::Res =
            d.decode().map_err(|e| Failed(format!("a reply of {what:?} does not decode | {e}")))?;
        d.finish().map_err(|e| Failed(format!("a reply of {what:?} has more | {e}")))?;
        self.tell(|| format!("    {res:?}"));
        Ok(res)
    }

    // ---- the end

    fn check(&self) -> Result<(), Failed> {
        let wrong = self.meta.inspect(|model, kv| {
            let mut missing = Vec::new();
            let findings = check::check(kv, &mut |id, end| {
                if self.blocks.length(id).is_none_or(|len| len < end as usize) {
                    missing.push(id);
                }
            })
            .unwrap();
            if let Some(finding) = findings.first() {
                return Some(format!("the state is inconsistent: {finding} | {findings:?}"));
            }
            if !missing.is_empty() {
                return Some(format!("blocks are referred to that are not there | {missing:?}"));
            }
            (Model::load(kv).unwrap() != *model)
                .then(|| "a member that loads the state differs | ".to_owned())
        });
        wrong.map_or(Ok(()), |wrong| Err(Failed(wrong)))
    }

    fn apply(&self, op: Op) -> Outcome {
        let call = Call { origin: None, once: None, cred: Cred::root(), client: None, op };
        self.meta.apply(call).result.unwrap_or(Outcome::Done)
    }

    /// All clients end, and nothing of them may be left.
    pub(crate) async fn end(self) -> Result<(), Failed> {
        self.tell(|| "all clients end".into());
        self.meta.forget_faults();
        let lost = self.engine().flush_all().await;
        if lost > 0 {
            return Err(Failed("data could not be flushed | ".into()));
        }
        if let Some(words) = trouble::take() {
            return Err(Failed(format!("{words} | at the end")));
        }
        self.check()?;
        let stats = self.engine().stats();
        if stats.dirty_bytes + stats.dirty_files as u64 + self.blocks.reserved() > 0 {
            let words = format!(
                "memory or room is left | {} {} {}",
                stats.dirty_bytes,
                stats.dirty_files,
                self.blocks.reserved()
            );
            return Err(Failed(words));
        }
        let clients = self.meta.inspect(|_, kv| read::clients(kv, ClientId(0), 1000).unwrap());
        for client in clients {
            self.apply(Op::Client(ClientOp::Expire(client.id)));
        }
        for machine in MACHINES {
            let which = ClientMatch::NlmName(machine.into());
            self.apply(Op::Lock(LockOp::ReleaseClient(which)));
        }
        // Ends the leases of the frontend's life.
        self.apply(Op::RegisterFrontend { frontend: FrontendId(1) });
        while self.apply(Op::Sweep) == Outcome::More(true) {}
        self.check()?;
        let left = self.meta.inspect(|_, kv| {
            let of_nfs4 = Table::ALL
                .into_iter()
                .filter(|table| (Table::Client4..=Table::ClosedState).contains(table))
                .filter(|table| *table != Table::ExpiredClient);
            let all =
                of_nfs4.chain([Table::Lock, Table::LockClient, Table::PendingGrant, Table::LockRelease]);
            let all = all.chain([Table::Orphan, Table::Dirty]);
            let delegations = [Table::FileDelegation, Table::Recalled, Table::Watch, Table::Notice];
            let copies = [Table::Offload, Table::FileOffload, Table::ClientOffload];
            let mut all = all.chain(delegations).chain(copies);
            all.find(|table| {
                let mut any = false;
                kv.scan(*table, Bound::Unbounded, Bound::Unbounded, |_, _| {
                    any = true;
                    ControlFlow::Break(())
                })
                .unwrap();
                any
            })
        });
        match left {
            Some(table) => {
                Err(Failed(format!("something is left of clients that ended: {} | ", table.name())))
            }
            None => Ok(()),
        }
    }
}
