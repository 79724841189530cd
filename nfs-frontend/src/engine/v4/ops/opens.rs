//! OPEN, OPEN_CONFIRM, OPEN_DOWNGRADE, CLOSE (RFC 8881 §18.2, §18.16, §18.18; RFC 7530 §16.16–§16.19).
//!
//! In v4.0 each of them is a step in the sequence of its open owner, and a refusal counts as one (RFC 7530 §9.1.7). So what the
//! frontend refuses by its own checks goes through the state machine, too.
//!
//! CLOSE in a session is answered before it is durable if it can only succeed and nothing hangs on it: the open denies nobody
//! anything and has no locks under it, the file has a name, and no OPEN of the client is under way that could move its stateid on. Should the entry be lost in a
//! crash, an open comes back that conflicts with nothing, until the client opens the file again or its lease ends.

use crate::engine::resolve::Node;
use crate::engine::shield::shield;
use crate::engine::v4::compound::{Compound, Done, Halt, Identity, change_info};
use crate::engine::v4::status;
use atoll_base::access::Cred;
use atoll_base::attr::{Attr, FileKind, SetAttr};
use atoll_base::block::BlockService;
use atoll_lockd::{Share, ShareBits};
use atoll_meta::nfs4::{ClientId, OpenTarget, State, StateError, StateId, StateKind, StateOp, StateOutcome};
use atoll_meta::once::{Once, OwnerKey, OwnerSequence};
use atoll_meta::{Call, CreateHow, FsError, MetadataService, Op, Outcome, Response};
use atoll_proto::nfs4::{
    Bitmap, ChangeInfo4, Close4Args, CreateHow4, NfsStat4, OpNum4, Open4Args, Open4Ok, OpenClaim4,
    OpenConfirm4Args, OpenDelegation4, OpenDowngrade4Args, OpenFlag4, StateId4, WhyNoDelegation4,
    open_result, share_access,
};
use atoll_xdr::{Encode, Encoder};
use bytes::Bytes;
use std::sync::Arc;
use std::task::Poll;
use xxhash_rust::xxh3::xxh3_64;

/// Bits of share_access that are neither access nor a known want are refused.
const SHARE_ACCESS_KNOWN: u32 = share_access::BOTH
    | share_access::WANT_DELEG_MASK
    | share_access::WANT_SIGNAL_DELEG_WHEN_RESRC_AVAIL
    | share_access::WANT_PUSH_DELEG_WHEN_UNCONTENDED
    | share_access::WANT_DELEG_TIMESTAMPS
    | share_access::WANT_OPEN_XOR_DELEGATION;

/// States of a file among which CLOSE looks for locks.
const FEW_STATES: usize = 16;

/// Hash of an operation's arguments.
pub(crate) fn fingerprint(op: OpNum4, args: &impl Encode) -> u64 {
    let mut e = Encoder::new();
    e.put(&op);
    e.put(args);
    xxh3_64(&e.into_bytes())
}

/// What OPEN is to do, checked as far as that needs no state.
struct Plan {
    share: Share,
    target: OpenTarget,
    /// Attributes that a creation sets.
    mask: Bitmap,
    /// Whether an existing file loses what it has.
    cuts: bool,
}

impl<M: MetadataService, B: BlockService> Compound<M, B> {
    /// Runs a change of opens or locks: on the session's slot, or as a step of an owner's sequence.
    pub(crate) async fn change_state(
        &mut self,
        cred: Cred,
        op: StateOp,
        step: Option<OwnerKey>,
    ) -> Done<Arc<Response>> {
        let once = match step {
            Some(step) => Once::Owner(step),
            None => self.once(),
        };
        let in_sequence = matches!(once, Once::Owner(_));
        let response = self.change_once(cred, Op::State(op), once).await?;
        self.stepped = true;
        match response.result {
            // DELAY would count in the client's sequence, and the state machine does not count this (RFC 7530 §9.1.7).
            Err(FsError::TableFull) if in_sequence => Err(NfsStat4::Resource.into()),
            Err(FsError::Fenced) if in_sequence => Err(Halt::Unknown),
            _ => Ok(response),
        }
    }

    /// Lets a refusal of the frontend count in an owner's sequence. Some do not count (RFC 7530 §9.1.7), and in a session none does.
    pub(crate) async fn refuse_step(
        &mut self,
        status: NfsStat4,
        step: Option<OwnerKey>,
    ) -> Done<Arc<Response>> {
        let uncounted = matches!(
            status,
            NfsStat4::StaleClientId
                | NfsStat4::StaleStateId
                | NfsStat4::BadStateId
                | NfsStat4::BadSeqId
                | NfsStat4::BadXdr
                | NfsStat4::Resource
                | NfsStat4::NoFileHandle
                | NfsStat4::Moved
        );
        match step {
            Some(step) if !uncounted => {
                let refusal = FsError::State(StateError::Wire(status.to_u32()));
                self.change_state(Cred::root(), StateOp::Refuse(refusal), Some(step)).await
            }
            _ => Err(status.into()),
        }
    }

    pub(crate) async fn open(&mut self, args: Open4Args) -> Done<Open4Ok> {
        let client = self.acting(args.owner.clientid).await?;
        self.acts_for = Some(client);
        let step = (self.minor == 0).then(|| OwnerKey {
            client,
            sequence: OwnerSequence::Open(args.owner.owner.as_bytes().clone()),
            seqid: args.seqid,
            fingerprint: fingerprint(OpNum4::Open, &args),
        });
        let object = self.object()?.clone();
        let by_name = matches!(args.claim, OpenClaim4::Null(_));
        let node = match self.node(if by_name { NfsStat4::RoFs } else { NfsStat4::IsDir }) {
            Ok(node) => Ok(node),
            // A node of the pseudo file system is found by name as a directory.
            Err(status) => Err(match &args.claim {
                OpenClaim4::Null(name) if self.look_up(&object, name).await.is_ok() => NfsStat4::IsDir,
                OpenClaim4::Null(_) if matches!(args.openhow, OpenFlag4::NoCreate) => NfsStat4::NoEnt,
                _ => status,
            }),
        };
        let known = if self.minor > 0 { self.known().await? } else { None };
        let dir = node.as_ref().ok().map(|node| node.handle.ino);
        let planned = match (&known, node) {
            (_, Ok(node)) => self.plan(&args, &node, client).await.map(|plan| (node, plan)),
            (_, Err(status)) => Err(status),
        };
        let (response, mask, cuts) = match (known, planned) {
            (Some(response), Ok((_, plan))) => (response, plan.mask, plan.cuts),
            // What was executed once was in order then.
            (Some(response), Err(_)) => (response, Bitmap::EMPTY, false),
            (None, Ok((node, plan))) => {
                let (mask, cuts) = (plan.mask.clone(), plan.cuts);
                (
                    self.run_open(&node, args.owner.owner.as_bytes().clone(), client, plan, step).await?,
                    mask,
                    cuts,
                )
            }
            (None, Err(status)) => (self.refuse_step(status, step).await?, Bitmap::EMPTY, false),
        };
        self.opened(&args, dir, by_name, mask, cuts, &response)
    }

    /// The reply, from the arguments and the outcome alone.
    fn opened(
        &mut self,
        args: &Open4Args,
        dir: Option<atoll_base::id::Ino>,
        by_name: bool,
        mask: Bitmap,
        cuts: bool,
        response: &Response,
    ) -> Done<Open4Ok> {
        match &response.result {
            Ok(Outcome::State(StateOutcome::Opened { open, attr, created, confirm })) => {
                self.remember(attr);
                if let Ok(node) = self.node(NfsStat4::ServerFault) {
                    let object = Self::beside(&node, attr);
                    self.enter(object);
                }
                let stateid = self.wire_stateid(*open);
                self.stateid = Some(stateid);
                let cinfo = match dir {
                    Some(dir) if by_name => change_info(response, dir),
                    _ => ChangeInfo4::default(),
                };
                let attrset = match (*created, cuts) {
                    (true, _) => mask,
                    // An existing file was cut off.
                    (false, true) => mask.and(&Bitmap::of(&[atoll_proto::nfs4::Attr4::Size as u32])),
                    (false, false) => Bitmap::EMPTY,
                };
                let confirm = if *confirm { open_result::CONFIRM } else { 0 };
                // By the session's terms, which are the same whenever this reply is made.
                let notify = if self.has_backchannel() { open_result::MAY_NOTIFY_LOCK } else { 0 };
                let rflags = open_result::LOCKTYPE_POSIX | confirm | notify;
                Ok(Open4Ok {
                    stateid,
                    cinfo,
                    rflags,
                    attrset,
                    delegation: self.no_delegation(args.share_access),
                })
            }
            Ok(other) => unreachable!("OPEN ended as {other:?}"),
            // The file is the last that the call came to.
            Err(FsError::WrongType) => Err(match response.changes.last().map(|c| c.after.kind) {
                Some(FileKind::Symlink) => NfsStat4::Symlink,
                Some(FileKind::Directory) => NfsStat4::IsDir,
                // RFC 7530 §16.16.5: for special files, too.
                _ if self.minor == 0 => NfsStat4::Symlink,
                _ => NfsStat4::WrongType,
            }
            .into()),
            Err(e) => Err(status::of(*e).into()),
        }
    }

    fn has_backchannel(&self) -> bool {
        match &self.identity {
            Identity::Slot { turn, .. } => turn.session().back.was_asked_for(),
            Identity::None | Identity::Request(_) => false,
        }
    }

    /// Why there is no delegation, for those who asked (RFC 8881 §18.16.3).
    fn no_delegation(&self, access: u32) -> OpenDelegation4 {
        match access & share_access::WANT_DELEG_MASK {
            _ if self.minor == 0 => OpenDelegation4::None,
            share_access::WANT_NO_PREFERENCE => OpenDelegation4::None,
            share_access::WANT_NO_DELEG => OpenDelegation4::NoneExt(WhyNoDelegation4::NotWanted),
            share_access::WANT_CANCEL => OpenDelegation4::NoneExt(WhyNoDelegation4::Cancelled),
            _ => OpenDelegation4::NoneExt(WhyNoDelegation4::Resource(false)),
        }
    }

    async fn plan(&self, args: &Open4Args, node: &Node, client: ClientId) -> Result<Plan, NfsStat4> {
        let bits = args.share_access & share_access::BOTH;
        let known = if self.minor == 0 { share_access::BOTH } else { SHARE_ACCESS_KNOWN };
        let deny = ShareBits::from_wire(args.share_deny).ok_or(NfsStat4::Inval)?;
        let access = ShareBits::from_wire(bits).filter(|a| *a != ShareBits::None).ok_or(NfsStat4::Inval)?;
        if args.share_access & !known != 0 {
            return Err(NfsStat4::Inval);
        }
        let share = Share { access, deny };
        let cred = self.cred(&node.export).await;
        let mut mask = Bitmap::EMPTY;
        let mut cuts = false;
        let create = match &args.openhow {
            OpenFlag4::NoCreate => None,
            OpenFlag4::Create(how) => {
                let persistent = self.is_persistent();
                let (how, attrs) = match how {
                    CreateHow4::Unchecked(fattr) => {
                        mask = fattr.mask.clone();
                        let attrs = self.creation(fattr, &cred)?;
                        cuts = attrs.size == Some(0);
                        (CreateHow::Unchecked, attrs)
                    }
                    CreateHow4::Guarded(fattr) => {
                        mask = fattr.mask.clone();
                        (CreateHow::Guarded, self.creation(fattr, &cred)?)
                    }
                    // The reply cache of a persistent session does what verifiers are for (§18.16.3).
                    CreateHow4::Exclusive(_) | CreateHow4::Exclusive41(_) if persistent => {
                        return Err(NfsStat4::Inval);
                    }
                    CreateHow4::Exclusive(verifier) => (CreateHow::Exclusive(*verifier), SetAttr::default()),
                    CreateHow4::Exclusive41(both) => {
                        mask = both.attrs.mask.clone();
                        (CreateHow::Exclusive(both.verf), self.creation(&both.attrs, &cred)?)
                    }
                };
                Some((how, attrs))
            }
        };
        let target = match &args.claim {
            OpenClaim4::Null(name) => {
                super::names::check(name)?;
                OpenTarget::Name { dir: node.handle.ino, name: name.as_bytes().clone(), create }
            }
            OpenClaim4::Fh if create.is_some() => return Err(NfsStat4::Inval),
            OpenClaim4::Fh => OpenTarget::File { ino: node.handle.ino, generation: node.handle.generation },
            // Nothing was lost, so there is nothing to reclaim.
            OpenClaim4::Previous(_) => return Err(NfsStat4::NoGrace),
            OpenClaim4::DelegateCur(_) | OpenClaim4::DelegCurFh(_) => return Err(NfsStat4::BadStateId),
            OpenClaim4::DelegatePrev(_) | OpenClaim4::DelegPrevFh => return Err(NfsStat4::NotSupp),
        };
        if self.minor > 0 {
            // §18.51.3: what a client may have to reclaim comes first.
            if !self.has_reclaimed(client).await {
                return Err(NfsStat4::Grace);
            }
        }
        let writes =
            access.contains(ShareBits::Write) || matches!(&target, OpenTarget::Name { create: Some(_), .. });
        if writes {
            Self::check_writable(node)?;
        }
        Ok(Plan { share, target, mask, cuts })
    }

    async fn run_open(
        &mut self,
        node: &Node,
        owner: Bytes,
        client: ClientId,
        plan: Plan,
        step: Option<OwnerKey>,
    ) -> Done<Arc<Response>> {
        let cred = self.cred(&node.export).await;
        let engine = self.engine.clone();
        let _opening = engine.v4.opening.enter(client);
        // UNCHECKED may meet, and truncate, a file with UNSTABLE data.
        let _settled = match &plan.target {
            OpenTarget::Name { dir, name, create: Some((CreateHow::Unchecked, attrs)) }
                if attrs.size.is_some() =>
            {
                engine.settle_name(*dir, name).await
            }
            _ => None,
        };
        // Clients whose lease has run out make way. In v4.0 a refusal would be the owner's step, so they go before it.
        if step.is_some()
            && let Some(ino) = self.file_of(&plan.target).await
        {
            engine.make_way(ino, client, plan.share).await?;
        }
        let op = StateOp::Open { client, owner, share: plan.share, target: plan.target.clone() };
        let response = self.change_state(cred.clone(), op.clone(), step.clone()).await?;
        if response.result != Err(FsError::State(StateError::ShareDenied)) || step.is_some() {
            return Ok(response);
        }
        match self.file_of(&plan.target).await {
            Some(ino) if engine.make_way(ino, client, plan.share).await? => {
                self.attempt += 1;
                self.change_state(cred, op, step).await
            }
            _ => Ok(response),
        }
    }

    async fn file_of(&self, target: &OpenTarget) -> Option<atoll_base::id::Ino> {
        match target {
            OpenTarget::File { ino, .. } => Some(*ino),
            OpenTarget::Name { dir, name, .. } => {
                self.engine.find(*dir, name).await.ok()?.child.ok().map(|attr: Attr| attr.ino)
            }
        }
    }

    // ---- the other operations on opens

    /// The step of an owner's sequence that an operation with a stateid is; none in a session.
    pub(crate) async fn step_of(
        &mut self,
        wire: &StateId4,
        seqid: u32,
        fingerprint: u64,
    ) -> Done<Option<OwnerKey>> {
        if self.minor > 0 {
            return Ok(None);
        }
        let (client, state) = self.holder(wire).await?;
        self.acts_for = Some(client);
        Ok(Some(OwnerKey { client, sequence: OwnerSequence::Of(state), seqid, fingerprint }))
    }

    fn state_reply(&mut self, response: &Response) -> Done<StateId4> {
        match &response.result {
            Ok(Outcome::State(StateOutcome::State(stateid))) => Ok(self.wire_stateid(*stateid)),
            Ok(other) => unreachable!("an operation on a state ended as {other:?}"),
            Err(e) => Err(status::of(*e).into()),
        }
    }

    pub(crate) async fn open_confirm(&mut self, args: &OpenConfirm4Args) -> Done<StateId4> {
        self.node(NfsStat4::IsDir)?;
        self.changed = true;
        let open = self.stateid_of(&args.open_stateid)?;
        let step =
            self.step_of(&args.open_stateid, args.seqid, fingerprint(OpNum4::OpenConfirm, args)).await?;
        let client = step.as_ref().map(|s| s.client).ok_or(NfsStat4::NotSupp)?;
        let response = self.change_state(Cred::root(), StateOp::Confirm { client, open }, step).await?;
        self.state_reply(&response)
    }

    pub(crate) async fn open_downgrade(&mut self, args: &OpenDowngrade4Args) -> Done<StateId4> {
        self.node(NfsStat4::IsDir)?;
        let response = match self.known_in_session().await? {
            Some(response) => response,
            None => {
                let open = self.stateid_of(&args.open_stateid)?;
                let step = self
                    .step_of(&args.open_stateid, args.seqid, fingerprint(OpNum4::OpenDowngrade, args))
                    .await?;
                let client = self.client_of(&step)?;
                let access = args.share_access & if self.minor == 0 { u32::MAX } else { share_access::BOTH };
                let access = ShareBits::from_wire(access).filter(|a| *a != ShareBits::None);
                match (access, ShareBits::from_wire(args.share_deny)) {
                    (Some(access), Some(deny)) => {
                        let op = StateOp::Downgrade { client, open, share: Share { access, deny } };
                        self.change_state(Cred::root(), op, step).await?
                    }
                    _ => self.refuse_step(NfsStat4::Inval, step).await?,
                }
            }
        };
        let stateid = self.state_reply(&response)?;
        self.stateid = Some(stateid);
        Ok(stateid)
    }

    pub(crate) async fn close(&mut self, args: &Close4Args) -> Done<StateId4> {
        let node = self.node(NfsStat4::IsDir)?;
        let response = match self.known_in_session().await? {
            Some(response) => response,
            None => {
                let open = self.stateid_of(&args.open_stateid)?;
                let step =
                    self.step_of(&args.open_stateid, args.seqid, fingerprint(OpNum4::Close, args)).await?;
                let client = self.client_of(&step)?;
                let op = StateOp::Close { client, open };
                if step.is_none() && self.closes_without_doubt(&node, &args.open_stateid, client).await? {
                    match self.begin_change(op).await? {
                        Some(response) => response,
                        None => {
                            self.stateid = None;
                            return Ok(StateId4::INVALID);
                        }
                    }
                } else {
                    self.change_state(Cred::root(), op, step).await?
                }
            }
        };
        let stateid = self.state_reply(&response)?;
        self.stateid = None;
        // §18.2.4: nothing is to be done with it any more.
        Ok(if self.minor == 0 { stateid } else { StateId4::INVALID })
    }

    /// Whether a CLOSE will succeed, and nobody waits for it.
    async fn closes_without_doubt(&self, node: &Node, wire: &StateId4, client: ClientId) -> Done<bool> {
        let state = self.state(wire).await?;
        let StateKind::Open { share, confirmed: true } = state.kind else { return Ok(false) };
        if share.deny != ShareBits::None || self.engine.v4.opening.any(client) {
            return Ok(false);
        }
        // A removed file would come back with its open, and stay as long as the client.
        if self.node_attr(node).await?.nlink == 0 {
            return Ok(false);
        }
        // Of a file that many have open it is not worth looking for locks.
        let of_file = self.engine.meta().states_of(state.ino, StateId(0), FEW_STATES).await?;
        let locked =
            |s: &State| matches!(s.kind, StateKind::Lock { open: under, .. } if under == state.stateid.id);
        Ok(of_file.len() < FEW_STATES && !of_file.iter().any(locked))
    }

    /// Begins a change of state, which then goes on by itself. `None` if it is not done at once.
    async fn begin_change(&mut self, op: StateOp) -> Done<Option<Arc<Response>>> {
        let call = Call {
            origin: Some(self.engine.origin().await),
            once: Some(self.once()),
            cred: Cred::root(),
            op: Op::State(op),
        };
        let engine = self.engine.clone();
        let mut change = shield(async move { engine.execute_known(call).await });
        // The first poll puts it in the queue: what the client asks next comes behind it.
        match futures_util::poll!(&mut change) {
            Poll::Ready(response) => Ok(Some(Arc::new(response?))),
            Poll::Pending => Ok(None),
        }
    }

    /// The outcome of an earlier execution on the session's slot; in v4.0 the owner's sequence has it.
    pub(crate) async fn known_in_session(&mut self) -> Done<Option<Arc<Response>>> {
        self.changed = true;
        if self.minor == 0 { Ok(None) } else { self.known().await }
    }

    /// Who acts: the session's client, or the owner's.
    pub(crate) fn client_of(&self, step: &Option<OwnerKey>) -> Result<ClientId, Halt> {
        let client = self.client.or(step.as_ref().map(|s| s.client));
        client.ok_or(Halt::Status(NfsStat4::OpNotInSession))
    }
}
