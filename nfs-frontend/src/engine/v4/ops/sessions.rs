//! Clients and sessions of v4.1: EXCHANGE_ID, CREATE_SESSION, SEQUENCE, BIND_CONN_TO_SESSION, BACKCHANNEL_CTL, DESTROY_SESSION,
//! DESTROY_CLIENTID, RECLAIM_COMPLETE (RFC 8881 §18.33–§18.37, §18.46, §18.50, §18.51).

use crate::engine::Engine;
use crate::engine::v4::back::credential;
use crate::engine::v4::compound::{Compound, Done, Halt, Identity};
use crate::engine::v4::slots::{Active, Begun, Refusal};
use crate::engine::v4::{self, status};
use crate::server::reverse::Connection;
use atoll_base::access::Cred;
use atoll_base::block::BlockService;
use atoll_meta::nfs4::{
    ChannelLimits, ClientAbout, ClientId, ClientOp, ClientOutcome, SessionId, SessionTerms,
};
use atoll_meta::once::SlotOutcome;
use atoll_meta::{Call, MetadataService, Op, Outcome};
use atoll_proto::nfs4::{
    BackchannelCtl4Args, BindConnToSession4Args, BindConnToSession4Ok, ChannelAttrs4, CreateSession4Args,
    CreateSession4Ok, DirFromClient4, DirFromServer4, ExchangeId4Args, ExchangeId4Ok, Identity as Name,
    NfsStat4, ReclaimComplete4Args, Sequence4Args, Sequence4Ok, ServerOwner4, SessionId4, StateProtect4Args,
    StateProtect4Ok, create_session, exchange_id, seq_status,
};
use atoll_xdr::Encoder;
use bytes::Bytes;
use std::sync::Arc;
use std::time::Duration;

/// Flags that a client may set in EXCHANGE_ID.
const EXCHANGE_FLAGS: u32 = exchange_id::SUPP_MOVED_REFER
    | exchange_id::SUPP_MOVED_MIGR
    | exchange_id::BIND_PRINC_STATEID
    | exchange_id::MASK_PNFS
    | exchange_id::UPD_CONFIRMED_REC_A;

/// Flags that a client may set in CREATE_SESSION.
const SESSION_FLAGS: u32 =
    create_session::PERSIST | create_session::CONN_BACK_CHAN | create_session::CONN_RDMA;

/// How long a request that comes again waits for the outcome of what was answered early, which is there within tens of milliseconds unless the log is in trouble.
const SETTLE: Duration = Duration::from_secs(2);

/// What SEQUENCE comes to.
pub(crate) enum Opened {
    /// The request is to be executed; the result of SEQUENCE.
    Fresh(Sequence4Ok),
    /// It was executed, up to the stored outcome.
    Resume(Box<SlotOutcome>),
    /// It was executed; the whole reply.
    Replay(Bytes),
    /// It was executed, and the reply is not kept; the result of SEQUENCE.
    Uncached(Sequence4Ok),
}

/// The smaller of what is asked and what is offered.
fn agree(asked: &ChannelAttrs4, offered: &ChannelLimits) -> ChannelLimits {
    ChannelLimits {
        header_pad: 0,
        max_request: asked.maxrequestsize.min(offered.max_request),
        max_response: asked.maxresponsesize.min(offered.max_response),
        max_response_cached: asked.maxresponsesize_cached.min(offered.max_response_cached),
        max_operations: asked.maxoperations.min(offered.max_operations),
        max_requests: asked.maxrequests.min(offered.max_requests),
    }
}

fn wire(limits: &ChannelLimits) -> ChannelAttrs4 {
    ChannelAttrs4 {
        headerpadsize: limits.header_pad,
        maxrequestsize: limits.max_request,
        maxresponsesize: limits.max_response,
        maxresponsesize_cached: limits.max_response_cached,
        maxoperations: limits.max_operations,
        maxrequests: limits.max_requests,
        rdma_ird: None,
    }
}

/// What came of a change of the request's own client or session. That these ended behind SEQUENCE is not for the operation to say (see
/// [`Compound::settled`]).
fn of_living(done: Done<()>) -> Done<()> {
    match done {
        Err(Halt::Status(NfsStat4::Expired | NfsStat4::StaleClientId | NfsStat4::BadSession)) => {
            Err(Halt::Unknown)
        }
        done => done,
    }
}

impl<M: MetadataService, B: BlockService> Engine<M, B> {
    /// A session's id on the wire.
    pub(crate) fn wire_session(&self, id: SessionId) -> SessionId4 {
        let mut wire = [0; 16];
        wire[..8].copy_from_slice(&id.0.to_be_bytes());
        wire[8..].copy_from_slice(&self.session_mark());
        wire
    }

    /// What every session id of this cluster ends with.
    fn session_mark(&self) -> [u8; 8] {
        (self.meta().verifier() >> 32).to_be_bytes()
    }
}

impl<M: MetadataService, B: BlockService> Compound<M, B> {
    /// Runs a change of clients or sessions: nobody's request by a key, for each can be repeated.
    pub(crate) async fn change_client(&mut self, op: ClientOp) -> Done<ClientOutcome> {
        self.changed = true;
        let call = Box::new(Call {
            origin: Some(self.engine.origin().await),
            once: None,
            cred: Cred::root(),
            client: None,
            op: Op::Client(op),
        });
        let response = self.engine.execute_known(call).await?;
        match response.result {
            Ok(Outcome::Client(outcome)) => Ok(outcome),
            Ok(other) => unreachable!("an operation on a client ended as {other:?}"),
            Err(e) => Err(status::of(e).into()),
        }
    }

    /// The same without a result.
    pub(crate) async fn settle_client(&mut self, op: ClientOp) -> Done<()> {
        self.change_client(op).await.map(|_done| ())
    }

    /// What administrators are told of the caller.
    pub(crate) fn about(&self, implementation: Bytes) -> ClientAbout {
        ClientAbout { address: Some(self.call.peer.ip().to_canonical()), implementation }
    }

    // ---- sessions on the wire

    fn session_of(&self, wire: &SessionId4) -> Result<SessionId, NfsStat4> {
        let [a, b, c, d, e, f, g, h, mark @ ..] = *wire;
        if mark != self.engine.session_mark() {
            return Err(NfsStat4::BadSession);
        }
        Ok(SessionId(u64::from_be_bytes([a, b, c, d, e, f, g, h])))
    }

    /// Whether the request is one of this session.
    pub(crate) fn is_within(&self, wire: &SessionId4) -> bool {
        match &self.identity {
            Identity::Slot { turn, .. } => self.session_of(wire) == Ok(turn.session().session.id),
            Identity::None | Identity::Request(_) => false,
        }
    }

    /// The session that a client names, which may have been made at another frontend, or have ended.
    async fn active(&self, wire: &SessionId4) -> Done<Arc<Active>> {
        let id = self.session_of(wire)?;
        let sessions = &self.engine.v4.sessions;
        // Before the session is looked for: one that ends meanwhile is looked for again.
        let ended = self.engine.meta().ended();
        if let Some(active) = ended.and_then(|ended| sessions.seen(id, ended)) {
            return Ok(active);
        }
        match self.engine.meta().session(id).await? {
            Some(session) => {
                let active = sessions.enter(session, false);
                ended.inspect(|ended| active.saw(*ended));
                Ok(active)
            }
            None => {
                self.engine.v4.sessions.remove(id);
                Err(NfsStat4::BadSession.into())
            }
        }
    }

    /// Whether the client has sent RECLAIM_COMPLETE.
    pub(crate) async fn has_reclaimed(&self, client: ClientId) -> bool {
        let session = match &self.identity {
            Identity::Slot { turn, .. } => Some(turn.session()),
            Identity::None | Identity::Request(_) => None,
        };
        if session.is_some_and(|session| session.has_reclaimed()) {
            return true;
        }
        let reclaimed = self.engine.meta().client(client).await.ok().flatten().is_some_and(|c| c.reclaimed);
        if let Some(session) = session.filter(|_| reclaimed) {
            session.reclaimed();
        }
        reclaimed
    }

    /// Whether the request's session promised to keep outcomes whatever happens.
    pub(crate) fn is_persistent(&self) -> bool {
        match &self.identity {
            Identity::Slot { turn, .. } => turn.session().session.terms.persist,
            Identity::None | Identity::Request(_) => false,
        }
    }

    // ---- operations

    pub(crate) async fn exchange_id(&mut self, args: ExchangeId4Args) -> Done<ExchangeId4Ok> {
        // One more is defined since 4.2 (EXCHGID4_FLAG_SUPP_FENCE_OPS, RFC 7862 §14.1.4), and is refused as in 4.1, which is what clients hear from knfsd and
        // Ganesha, too. What it asks for is not done here: DESTROY_SESSION does not wait for what runs. (tests/pynfs/README.md has the reasons.)
        if args.flags & !EXCHANGE_FLAGS != 0 {
            return Err(NfsStat4::Inval.into());
        }
        match args.state_protect {
            StateProtect4Args::None => {}
            // §18.35.3: it takes RPCSEC_GSS with integrity, which is not spoken yet.
            StateProtect4Args::MachCred(_) => return Err(NfsStat4::Inval.into()),
            StateProtect4Args::Ssv(_) => return Err(NfsStat4::EncrAlgUnsupp.into()),
        }
        let implementation = args.client_impl_id.map(|id| id.name.as_bytes().clone()).unwrap_or_default();
        let op = ClientOp::ExchangeId {
            owner: args.clientowner.ownerid.into_bytes(),
            verifier: args.clientowner.verifier,
            update: args.flags & exchange_id::UPD_CONFIRMED_REC_A != 0,
            principal: self.principal(),
            about: self.about(implementation),
        };
        let ClientOutcome::Exchanged { client, sequence, confirmed } = self.change_client(op).await? else {
            unreachable!("EXCHANGE_ID ended otherwise");
        };
        self.engine.v4.leases.renew(client);
        let identity = self.engine.v4.server_identity.clone();
        let name = || Name::new(identity.clone()).map_err(|_| NfsStat4::ServerFault);
        let confirmed = if confirmed { exchange_id::CONFIRMED_R } else { 0 };
        Ok(ExchangeId4Ok {
            clientid: client.0,
            sequenceid: sequence,
            flags: exchange_id::USE_NON_PNFS | confirmed,
            state_protect: StateProtect4Ok::None,
            server_owner: ServerOwner4 { minor_id: 0, major_id: name()? },
            server_scope: name()?,
            server_impl_id: None,
        })
    }

    pub(crate) async fn create_session(&mut self, args: CreateSession4Args) -> Done<CreateSession4Ok> {
        if args.flags & !SESSION_FLAGS != 0 {
            return Err(NfsStat4::Inval.into());
        }
        let (fore, back) = (&args.fore_chan_attrs, &args.back_chan_attrs);
        let small = fore.maxrequestsize < v4::REQUEST_MIN
            || fore.maxresponsesize < v4::REQUEST_MIN
            || back.maxrequestsize < v4::REQUEST_MIN
            || back.maxresponsesize < v4::REQUEST_MIN
            || fore.maxoperations == 0
            || fore.maxrequests == 0;
        if small {
            return Err(NfsStat4::TooSmall.into());
        }
        let mut security = Encoder::new();
        security.put(&args.sec_parms);
        let security = security.into_bytes();
        // With RPCSEC_GSS alone, which is not spoken, there are no callbacks.
        let backchannel = args.flags & create_session::CONN_BACK_CHAN != 0
            && self.call.connection.is_some()
            && args.back_chan_attrs.maxrequests > 0
            && args.back_chan_attrs.maxoperations >= 2
            && credential(&security).is_some();
        let mut agreed = agree(fore, &v4::FORE);
        agreed.max_requests =
            self.engine.v4.sessions.room_for(ClientId(args.clientid), agreed.max_requests).max(1);
        let terms = SessionTerms {
            fore: agreed,
            back: agree(back, &v4::BACK),
            persist: args.flags & create_session::PERSIST != 0,
            backchannel,
            callback_program: args.cb_program,
            callback_security: security,
        };
        let op = ClientOp::CreateSession {
            client: ClientId(args.clientid),
            sequence: args.sequence,
            principal: self.principal(),
            terms,
        };
        let ClientOutcome::Session { session, sequence, terms } = self.change_client(op).await? else {
            unreachable!("CREATE_SESSION ended otherwise");
        };
        self.engine.v4.leases.renew(ClientId(args.clientid));
        // A repeated CREATE_SESSION finds it here already, and its slots as they are.
        if let Some(made) = self.engine.meta().session(session).await? {
            let active = self.engine.v4.sessions.enter(made, true);
            if let Some(connection) = self.call.connection.as_ref().filter(|_| terms.backchannel) {
                self.bind(&active, connection);
            }
        }
        let persist = if terms.persist { create_session::PERSIST } else { 0 };
        let backchannel = if terms.backchannel { create_session::CONN_BACK_CHAN } else { 0 };
        Ok(CreateSession4Ok {
            sessionid: self.engine.wire_session(session),
            sequence,
            flags: persist | backchannel,
            fore_chan_attrs: wire(&terms.fore),
            back_chan_attrs: wire(&terms.back),
        })
    }

    /// Begins the request on its slot. `ops` is the number of operations, `size` that of the whole call in bytes.
    pub(crate) async fn sequence(
        &mut self,
        args: &Sequence4Args,
        fingerprint: u64,
        ops: u32,
        size: usize,
    ) -> Done<Opened> {
        let active = self.active(&args.sessionid).await?;
        let limits = active.session.terms.fore;
        if args.slotid >= limits.max_requests {
            return Err(NfsStat4::BadSlot.into());
        }
        if args.highest_slotid >= limits.max_requests {
            return Err(NfsStat4::BadHighSlot.into());
        }
        if ops > limits.max_operations {
            return Err(NfsStat4::TooManyOps.into());
        }
        if size > limits.max_request as usize {
            return Err(NfsStat4::ReqTooBig.into());
        }
        self.client = Some(active.session.client);
        self.engine.v4.leases.renew(active.session.client);
        self.reply_max = limits.max_response as usize;
        self.cached_max = limits.max_response_cached as usize;
        self.cache_this = args.cachethis;
        let mut status_flags = active.back.status_flags();
        if status_flags & seq_status::CB_PATH_DOWN_SESSION != 0
            && !self.engine.v4.sessions.any_path(active.session.client)
        {
            status_flags |= seq_status::CB_PATH_DOWN;
        }
        if self.engine.v4.delegations.has_revoked(active.session.client) {
            status_flags |= seq_status::RECALLABLE_STATE_REVOKED;
        }
        let refused = |refusal| {
            Halt::Status(match refusal {
                Refusal::BadSlot => NfsStat4::BadSlot,
                Refusal::Misordered => NfsStat4::SeqMisordered,
                Refusal::FalseRetry => NfsStat4::SeqFalseRetry,
                Refusal::InProgress => NfsStat4::Delay,
            })
        };
        let mut begun = active.begin(args.slotid, args.sequenceid, fingerprint, None).map_err(refused)?;
        if matches!(begun, Begun::Unknown) {
            // What was answered early is in the state soon; if it is not, the client asks again.
            tokio::time::timeout(SETTLE, active.settled(args.slotid)).await.map_err(|_| NfsStat4::Delay)?;
            let stored = self.engine.meta().slot(active.session.id, args.slotid).await?;
            begun = active.begin(args.slotid, args.sequenceid, fingerprint, Some(stored)).map_err(refused)?;
        }
        let new = matches!(begun, Begun::Fresh(_));
        let flow = active.flow(args.slotid, args.sequenceid, args.highest_slotid, new);
        if let Some(keep) = flow.retire {
            tokio::spawn(self.engine.clone().retire_slots(active, keep));
        }
        let ok = Sequence4Ok {
            sessionid: args.sessionid,
            sequenceid: args.sequenceid,
            slotid: args.slotid,
            highest_slotid: limits.max_requests - 1,
            target_highest_slotid: flow.target,
            status_flags,
        };
        let identity = |turn| Identity::Slot { turn, slot: args.slotid, seqid: args.sequenceid, fingerprint };
        Ok(match begun {
            Begun::Fresh(turn) => {
                self.identity = identity(turn);
                Opened::Fresh(ok)
            }
            Begun::Resume(turn, outcome) => {
                self.identity = identity(turn);
                Opened::Resume(outcome)
            }
            Begun::Replay(reply) => Opened::Replay(reply),
            Begun::Uncached => Opened::Uncached(ok),
            Begun::Unknown => unreachable!("the stored outcome was given"),
        })
    }

    /// Binds a connection to a session for callbacks, if they can be sent; what waited for that goes on.
    fn bind(&self, session: &Active, connection: &Connection) -> bool {
        let bound = session.back.bind(connection, self.minor);
        if bound {
            self.engine.v4.delegations.paths.wake(session.session.client);
        }
        bound
    }

    pub(crate) async fn bind_connection(
        &mut self,
        args: &BindConnToSession4Args,
    ) -> Done<BindConnToSession4Ok> {
        let active = self.active(&args.sessionid).await?;
        self.engine.v4.leases.renew(active.session.client);
        // §18.34.3. Every connection serves the fore channel, bound or not.
        let wants_back = !matches!(args.dir, DirFromClient4::Fore);
        let connection = self.call.connection.as_ref().filter(|_| wants_back);
        let bound = connection.is_some_and(|connection| self.bind(&active, connection));
        if bound && active.to_recall().is_some() {
            self.engine.v4.sessions.fallen.notify_one();
        }
        let dir = match (args.dir, bound) {
            (DirFromClient4::Fore, _) | (DirFromClient4::ForeOrBoth, false) => DirFromServer4::Fore,
            (DirFromClient4::Back, true) => DirFromServer4::Back,
            (DirFromClient4::ForeOrBoth | DirFromClient4::BackOrBoth, true) => DirFromServer4::Both,
            (DirFromClient4::Back | DirFromClient4::BackOrBoth, false) => return Err(NfsStat4::Inval.into()),
        };
        Ok(BindConnToSession4Ok { sessionid: args.sessionid, dir, use_conn_in_rdma_mode: false })
    }

    pub(crate) async fn backchannel_ctl(&mut self, args: &BackchannelCtl4Args) -> Done<()> {
        let Identity::Slot { turn, .. } = &self.identity else { return Err(NfsStat4::OpNotInSession.into()) };
        let active = turn.session().clone();
        let mut security = Encoder::new();
        security.put(&args.sec_parms);
        let security = security.into_bytes();
        let accepted = credential(&security);
        let session = active.session.id;
        let op = ClientOp::SetCallback { session, program: args.cb_program, security };
        of_living(self.settle_client(op).await)?;
        active.back.set(args.cb_program, accepted);
        Ok(())
    }

    pub(crate) async fn destroy_session(&mut self, wire: &SessionId4) -> Done<()> {
        let id = self.session_of(wire)?;
        self.settle_client(ClientOp::DestroySession(id)).await?;
        self.engine.v4.sessions.remove(id);
        Ok(())
    }

    pub(crate) async fn destroy_client(&mut self, client: ClientId) -> Done<()> {
        self.settle_client(ClientOp::DestroyClient(client)).await?;
        self.engine.v4.leases.forget(client);
        Ok(())
    }

    pub(crate) async fn reclaim_complete(&mut self, args: &ReclaimComplete4Args) -> Done<()> {
        let client = self.client.ok_or(NfsStat4::OpNotInSession)?;
        if args.one_fs {
            // Nothing is reclaimed of a single file system, but which one must be said.
            self.object()?;
            return Ok(());
        }
        of_living(self.settle_client(ClientOp::ReclaimComplete(client)).await)
    }
}
