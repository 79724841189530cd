//! The engine: NFSv3, MOUNT, NFSACL and RQUOTA as operations on the metadata service and the block service.
//!
//! # Where things are
//!
//! - [`handle`]: file handles; [`exports`]: who may use what, and as whom; [`idmap`]: look-ups outside of the cluster;
//! - `v3`: the procedures of RFC 1813, a file per family; `v4`: NFSv4.0 to 4.2; [`mount`], `nfsacl`, `rquota`;
//! - `once`: requests that must not be executed twice;
//! - `dirty`: UNSTABLE data and all its invariants; `io`: reading and stable writing;
//! - `touch`: access times; [`stats`]: what `atoll status` shows.
//!
//! # The way of a call
//!
//! Arguments are decoded → for procedures that change something, the outcome of an earlier execution is looked for and
//! answered with if there is one → handles are opened and the export's rules applied → the engine's own checks → one
//! call of the metadata service, carrying the request's key → the reply is derived from its response alone, so that
//! a stored response gives the same bytes again.
//!
//! Reads whose answers are at hand never leave the first poll. Calls that change something are finished even if
//! the caller drops the future: a connection that breaks must not leave half of an engine's own bookkeeping behind.
//!
//! # Starting and stopping
//!
//! [`Engine::start`] registers the frontend, which ends what its former life held, and starts the engine's background
//! work; that ends when the last `Arc` is dropped. A graceful stop is [`Engine::flush_all`] after the last call.

pub mod attrs;
pub mod config;
mod dirty;
pub mod exports;
pub mod handle;
pub mod idmap;
mod io;
pub mod mount;
mod nfsacl;
mod once;
mod resolve;
mod rquota;
mod shield;
pub mod stats;
mod status;
mod touch;
mod v3;
mod v4;

#[cfg(test)]
pub(crate) mod tests;

pub use config::Config;
pub use exports::{ExportRef, Resolver};
pub use handle::{Handle, HandleKey};
pub use idmap::SystemResolver;
pub use resolve::{HandleError, Target};
pub use stats::{Latency, ProcedureStats, Snapshot};
pub use v4::administration::{Freed, Lease};

pub(crate) use v4::delegations::{Met, Patience};

use crate::pause::Pause;
use crate::rpc::AuthError;
use atoll_base::access::Cred;
use atoll_base::block::BlockService;
use atoll_base::id::{Epoch, FrontendId};
use atoll_base::time::Clock;
use atoll_meta::{Call, FsError, MetadataService, Op, Origin, Outcome, Response};
use atoll_proto::nfs3::NfsStat3;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Weak};
use tokio::time::Instant;
use tracing::{info, warn};

/// No epoch: the engine is between two lives.
const NO_EPOCH: u32 = 0;

/// While it lives, the engine is between two lives.
struct Between<'a> {
    epoch: &'a AtomicU32,
    /// What follows: the former life until the next one is ready, so that whoever is refused in it begins anew if this is given up half-way.
    then: u32,
}

impl Drop for Between<'_> {
    fn drop(&mut self) {
        self.epoch.store(self.then, Ordering::SeqCst);
    }
}

/// What an engine is made of.
pub struct Parts<M, B> {
    /// The metadata service.
    pub meta: Arc<M>,
    /// The block service.
    pub blocks: Arc<B>,
    /// Which frontend this is, across its restarts.
    pub frontend: FrontendId,
    /// The cluster's secret for file handles.
    pub handle_key: HandleKey,
    /// Wall-clock time, for what is shown to administrators.
    pub clock: Arc<dyn Clock>,
    /// The machine's names and users: [`SystemResolver`].
    pub resolver: Arc<dyn Resolver>,
}

/// The engine of one frontend. See the module.
pub struct Engine<M, B> {
    this: Weak<Self>,
    config: Config,
    meta: Arc<M>,
    blocks: Arc<B>,
    frontend: FrontendId,
    /// The present life, or [`NO_EPOCH`].
    epoch: AtomicU32,
    registering: tokio::sync::Mutex<()>,
    next_block: AtomicU64,
    own_requests: AtomicU64,
    handle_key: HandleKey,
    clock: Arc<dyn Clock>,
    resolver: Arc<dyn Resolver>,
    access: exports::Access,
    principals: idmap::Principals,
    once: once::InProgress,
    dirty: Arc<dirty::Table>,
    budget: dirty::Budget,
    /// For each batch that a flush puts.
    putting: Arc<tokio::sync::Semaphore>,
    recent: dirty::Recent,
    touches: touch::Touches,
    mounts: mount::Mounts,
    stats: stats::Stats,
    refusals: io::Refusals,
    v4: v4::State,
    streams: io::Streams,
}

impl<M, B> std::fmt::Debug for Engine<M, B> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Engine")
            .field("frontend", &self.frontend)
            .field("epoch", &self.epoch)
            .finish_non_exhaustive()
    }
}

/// Why a call gets no result of its procedure.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Interrupt {
    /// GARBAGE_ARGS
    Garbage,
    /// AUTH_ERROR
    Auth(AuthError),
    /// No answer.
    Drop,
    /// Delegations of others are in the way. The frame around the procedures has them returned and tries again.
    Delegated(Met),
}

/// Why a call went no further.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Refused {
    /// A status of the procedure.
    Status(NfsStat3),
    /// No result at all.
    Interrupt(Interrupt),
}

impl From<NfsStat3> for Refused {
    fn from(status: NfsStat3) -> Self {
        Self::Status(status)
    }
}

impl From<FsError> for Refused {
    fn from(error: FsError) -> Self {
        Self::Status(status::of(error))
    }
}

impl<M: MetadataService, B: BlockService> Engine<M, B> {
    /// Registers the frontend and starts. Waits as long as the metadata service cannot answer. What a former life of
    /// this frontend had accepted and not flushed is lost from here on, and the write verifier says so.
    pub async fn start(config: Config, parts: Parts<M, B>) -> Result<Arc<Self>, FsError> {
        let server_identity = parts.handle_key.server_identity();
        let engine = Arc::new_cyclic(|this: &Weak<Self>| Self {
            this: this.clone(),
            meta: parts.meta,
            blocks: parts.blocks,
            frontend: parts.frontend,
            epoch: AtomicU32::new(NO_EPOCH),
            registering: tokio::sync::Mutex::default(),
            next_block: AtomicU64::new(1),
            own_requests: AtomicU64::new(1),
            handle_key: parts.handle_key,
            clock: parts.clock,
            resolver: parts.resolver.clone(),
            access: exports::Access::new(&config),
            principals: idmap::Principals::new(
                config.idmap_domain.as_deref(),
                parts.resolver,
                config.groups_ttl,
                config.lookup_timeout,
            ),
            once: once::InProgress::default(),
            dirty: dirty::Table::new(),
            budget: dirty::Budget::new(config.dirty_max),
            putting: Arc::new(tokio::sync::Semaphore::new(config.flushes.max(1))),
            recent: dirty::Recent::new(),
            touches: touch::Touches::default(),
            mounts: mount::Mounts::default(),
            stats: stats::Stats::default(),
            refusals: io::Refusals::default(),
            v4: v4::State::new(server_identity),
            streams: io::Streams::default(),
            config,
        });
        let epoch = engine.register().await?;
        engine.recall_what_may_be_told(epoch).await?;
        tokio::spawn(background(Arc::downgrade(&engine)));
        v4::drivers::start(&engine);
        Ok(engine)
    }

    /// Settings.
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// The metadata service.
    pub fn meta(&self) -> &Arc<M> {
        &self.meta
    }

    /// The block service.
    pub fn blocks(&self) -> &Arc<B> {
        &self.blocks
    }

    /// Where each further call of this frontend comes from. Waits while the frontend is being registered.
    pub async fn origin(&self) -> Origin {
        loop {
            let epoch = self.epoch();
            if epoch.0 != NO_EPOCH {
                return Origin { frontend: self.frontend, epoch };
            }
            let _registered = self.registering.lock().await;
        }
    }

    fn epoch(&self) -> Epoch {
        Epoch(self.epoch.load(Ordering::SeqCst))
    }

    /// A number for a new block of this life; numbers go on over lives.
    fn next_block(&self) -> u64 {
        self.next_block.fetch_add(1, Ordering::Relaxed)
    }

    /// Takes a new epoch, as soon as the metadata service can give one. The caller is alone.
    async fn register(&self) -> Result<Epoch, FsError> {
        let mut pause = Pause::of_calls();
        loop {
            match self.register_once().await {
                Err(FsError::Delay) => pause.rest().await,
                registered => {
                    let epoch = registered?;
                    self.epoch.store(epoch.0, Ordering::SeqCst);
                    return Ok(epoch);
                }
            }
        }
    }

    /// This life of the frontend is over: what it holds is dropped, and another begins.
    ///
    /// Order: nothing is accepted any more (there is no epoch), then the verifier moves, then the data go. So every
    /// UNSTABLE write that goes was answered with a verifier from before. Where it could not be moved, COMMITs fail.
    ///
    /// If it is dropped half-way, the former life goes on until the next call is refused in it, and all of this is done again.
    async fn fenced(&self, epoch: Epoch) {
        let _registering = self.registering.lock().await;
        if self.epoch() != epoch {
            return;
        }
        warn!(
            frontend = self.frontend.0,
            epoch = epoch.0,
            "the frontend was fenced; what it held is dropped"
        );
        let mut between = Between { epoch: &self.epoch, then: epoch.0 };
        self.epoch.store(NO_EPOCH, Ordering::SeqCst);
        let verifier = self.meta.verifier();
        let held = self.dirty.leased();
        let mut pause = Pause::of_calls();
        let new = loop {
            match self.register_once().await {
                Ok(new) => break new,
                Err(e) => warn!(error = %e, "cannot register"),
            }
            pause.rest().await;
        };
        if !held.is_empty() {
            self.declare_lost(new, &held).await;
            if self.meta.verifier() == verifier {
                held.iter().for_each(|file| self.dirty.refused.add_untold(file.ino, verifier));
            }
        }
        held.iter().for_each(|file| self.forget_dirty(file, epoch));
        // Whoever had this one's place has told what it made, too.
        if let Err(error) = Box::pin(self.recall_what_may_be_told(new)).await {
            warn!(%error, "what holders of delegations may have been told cannot be recalled");
        }
        between.then = new.0;
    }

    /// Moves the verifier because of data that are about to be dropped. Who fenced us moved it when the leases ended, but
    /// since then more may have been accepted under the verifier that was new then. `DataLost` counts only what is under a
    /// lease, so one is taken first.
    async fn declare_lost(&self, epoch: Epoch, held: &[dirty::Pin]) {
        let origin = Some(Origin { frontend: self.frontend, epoch });
        let mut inos = Vec::new();
        for file in held {
            let Some(generation) = file.state().attr().map(|attr| attr.generation) else { continue };
            let op = Op::BeginDirty { ino: file.ino, generation };
            let call = Call { origin, once: None, cred: Cred::root(), client: None, op };
            if self.until_known(call).await.is_ok_and(|r| r.result.is_ok()) {
                inos.push(file.ino);
            }
        }
        let call = Call { origin, once: None, cred: Cred::root(), client: None, op: Op::DataLost { inos } };
        if let Err(e) = self.until_known(call).await {
            warn!(error = %e, "the loss could not be recorded");
        }
    }

    /// Sends a call that can be repeated until its outcome is known.
    async fn until_known(&self, call: Call) -> Result<Response, FsError> {
        let mut pause = Pause::of_calls();
        loop {
            match self.meta.execute(call.clone()).await {
                Err(FsError::Delay) => pause.rest().await,
                answer => return answer,
            }
        }
    }

    /// One attempt, which lets nobody use the new epoch yet.
    async fn register_once(&self) -> Result<Epoch, FsError> {
        let op = Op::RegisterFrontend { frontend: self.frontend };
        let call = Call { origin: None, once: None, cred: Cred::root(), client: None, op };
        match self.meta.execute(call).await?.result? {
            Outcome::Registered { epoch, verifier } => {
                assert_ne!(epoch.0, NO_EPOCH, "epochs are above zero");
                info!(frontend = self.frontend.0, epoch = epoch.0, verifier, "frontend registered");
                Ok(epoch)
            }
            other => unreachable!("RegisterFrontend answered with {other:?}"),
        }
    }

    /// Runs a call that has a key or can be repeated, until its outcome is known or patience ends (`Delay`).
    /// `missed` is set if an answer was missed on the way: a copy of the call may then have had its effect, or have it yet, even if the last
    /// answer is a refusal that is not an outcome stored under the call's key.
    pub(crate) async fn execute_repeatable(
        &self,
        call: Box<Call>,
        missed: &mut bool,
    ) -> Result<Response, FsError> {
        let deadline = Instant::now() + self.config.patience;
        let answer = self.meta.execute_kept(&call).await;
        match trouble(&answer) {
            None => answer,
            // Apart, since it is rare and its future large.
            Some(trouble) => Box::pin(self.execute_again(call, answer, trouble, deadline, missed)).await,
        }
    }

    /// Goes on with a call that has met trouble.
    async fn execute_again(
        &self,
        mut call: Box<Call>,
        mut answer: Result<Response, FsError>,
        mut met: Trouble,
        deadline: Instant,
        missed: &mut bool,
    ) -> Result<Response, FsError> {
        let mut pause = Pause::of_calls();
        *missed |= answer == Err(FsError::Delay);
        while Instant::now() + pause.next() <= deadline {
            match met {
                // Refused without effect: goes again in the new life. Blocks of the old one must not be referred to.
                Trouble::Fenced => {
                    if let Some(origin) = call.origin {
                        self.fenced(origin.epoch).await;
                    }
                    if matches!(&call.op, Op::Write { pieces, .. } if refers_to_blocks(pieces)) {
                        return Err(FsError::Fenced);
                    }
                    call.origin = Some(self.origin().await);
                }
                Trouble::Delay => {
                    pause.rest().await;
                }
            }
            answer = self.meta.execute_kept(&call).await;
            *missed |= answer == Err(FsError::Delay);
            match trouble(&answer) {
                None => return answer,
                Some(trouble) => met = trouble,
            }
        }
        answer
    }
}

/// Why a call is sent again.
#[derive(Clone, Copy)]
enum Trouble {
    /// By a frontend of another life.
    Fenced,
    /// Its outcome is not known, or it was refused without effect, to be tried again shortly.
    Delay,
}

fn trouble(answer: &Result<Response, FsError>) -> Option<Trouble> {
    match answer {
        Err(FsError::Fenced) | Ok(Response { result: Err(FsError::Fenced), .. }) => Some(Trouble::Fenced),
        Err(FsError::Delay) | Ok(Response { result: Err(FsError::Delay), .. }) => Some(Trouble::Delay),
        Ok(_) | Err(_) => None,
    }
}

fn refers_to_blocks(pieces: &[atoll_meta::Piece]) -> bool {
    pieces.iter().any(|p| matches!(p.source, atoll_meta::Source::Block { .. }))
}

/// Ages, memory pressure, access times.
async fn background<M: MetadataService, B: BlockService>(engine: Weak<Engine<M, B>>) {
    let Some((tick, lease)) = engine.upgrade().map(|e| (e.config.tick, e.lease())) else { return };
    let mut looked = Instant::now();
    loop {
        // Pressure is looked at in short steps, so that an engine that is dropped is not kept.
        let Some(this) = engine.upgrade() else { return };
        let pressed = tokio::time::timeout(tick, this.budget.pressure.notified());
        let _either = pressed.await;
        this.flush_due().await;
        this.send_touches().await;
        if looked.elapsed() >= lease / 2 {
            looked = Instant::now();
            this.expire_due().await;
        }
    }
}
