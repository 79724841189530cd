//! What happens to opens: OPEN_CONFIRM, OPEN_DOWNGRADE, CLOSE, and steps of their owners (RFC 8881 §18.2, §18.18; RFC 7530 §16.17–§16.19).
//!
//! In v4.0 each of them is a step in the sequence of its open owner, and a refusal counts as one (RFC 7530 §9.1.7). So what the
//! frontend refuses by its own checks goes through the state machine, too.
//!
//! CLOSE in a session is answered before it is durable if it can only succeed and nothing hangs on it: the open denies nobody
//! anything and has no locks under it, the file has a name, and no OPEN of its owner is under way that could move its stateid on. Should the entry be lost in a
//! crash, an open comes back that denies nobody anything (and that a deny of others may meet), until the client opens the file again or its lease ends.
//! Whatever else goes wrong with it behind its answer, it is tried again ([`Behind`]).

use crate::engine::resolve::Node;
use crate::engine::v4::closing::Behind;
use crate::engine::v4::compound::{Compound, Done, Halt, Identity};
use crate::engine::v4::status;
use atoll_base::access::Cred;

use atoll_base::block::BlockService;
use atoll_lockd::{Share, ShareBits};
use atoll_meta::nfs4::{ClientId, State, StateError, StateKind, StateOp, StateOutcome};
use atoll_meta::once::{Once, OwnerKey, OwnerSequence};
use atoll_meta::{Call, FsError, MetadataService, Op, Outcome, Response};
use atoll_proto::nfs4::{
    Close4Args, NfsStat4, OpNum4, OpenConfirm4Args, OpenDowngrade4Args, StateId4, share_access,
};
use atoll_xdr::{Encode, Encoder};
use std::sync::Arc;
use xxhash_rust::xxh3::xxh3_64;

/// Hash of an operation's arguments.
pub(crate) fn fingerprint(op: OpNum4, args: &impl Encode) -> u64 {
    let mut e = Encoder::new();
    e.put(&op);
    e.put(args);
    xxh3_64(&e.into_bytes())
}

impl<M: MetadataService, B: BlockService> Compound<M, B> {
    /// Runs a change of opens or locks: on the session's slot, or as a step of an owner's sequence.
    pub(crate) fn change_state(
        &mut self,
        cred: Cred,
        op: StateOp,
        step: Option<OwnerKey>,
    ) -> impl Future<Output = Done<Arc<Response>>> + Send {
        let once = match step {
            Some(step) => Once::Owner(step),
            None => self.once(),
        };
        let in_sequence = matches!(once, Once::Owner(_));
        // As in `change_once`: not in the future.
        let call = self.call_of(cred, Op::State(op), once);
        async move {
            let response = self.run_call(call).await?;
            self.stepped = true;
            match response.result {
                // DELAY would count in the client's sequence, and the state machine does not count this (RFC 7530 §9.1.7).
                Err(FsError::TableFull) if in_sequence => Err(NfsStat4::Resource.into()),
                Err(FsError::Fenced) if in_sequence => Err(Halt::Unknown),
                _ => Ok(response),
            }
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

    // ---- the other operations on opens

    /// The step of an owner's sequence that an operation with a stateid is; none in a session.
    pub(crate) async fn step_of(
        &mut self,
        wire: &StateId4,
        seqid: u32,
        fingerprint: impl FnOnce() -> u64,
    ) -> Done<Option<OwnerKey>> {
        if self.minor > 0 {
            return Ok(None);
        }
        let fingerprint = fingerprint();
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
            self.step_of(&args.open_stateid, args.seqid, || fingerprint(OpNum4::OpenConfirm, args)).await?;
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
                    .step_of(&args.open_stateid, args.seqid, || fingerprint(OpNum4::OpenDowngrade, args))
                    .await?;
                let client = self.client_of(&step)?;
                // A CLOSE beside it is not answered before it is known which of the two came first.
                let state = self.engine.meta().state(open.id).await?;
                let _moving = state.map(|state| self.engine.v4.opening.enter(client, &state.owner));
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
                    self.step_of(&args.open_stateid, args.seqid, || fingerprint(OpNum4::Close, args)).await?;
                let client = self.client_of(&step)?;
                let op = StateOp::Close { client, open };
                let sure = match step {
                    None => self.closes_without_doubt(&node, &args.open_stateid, client).await?,
                    Some(_) => None,
                };
                if let Some(state) = sure
                    && self.close_behind(state).await
                {
                    self.stateid = None;
                    return Ok(StateId4::INVALID);
                }
                self.change_state(Cred::root(), op, step).await?
            }
        };
        let stateid = self.state_reply(&response)?;
        self.stateid = None;
        // §18.2.4: nothing is to be done with it any more.
        Ok(if self.minor == 0 { stateid } else { StateId4::INVALID })
    }

    /// Has an open closed behind the answer, if that can be.
    async fn close_behind(&mut self, state: State) -> bool {
        // In this version, whichever was sent: not what an OPEN makes of it by the time that this is tried again.
        let op = StateOp::Close { client: state.client, open: state.stateid };
        let mut call = self.call_of(Cred::root(), Op::State(op), self.once());
        call.origin = Some(self.engine.origin().await);
        let call = Arc::<Call>::from(call);
        // Nobody may use it from here on, whatever the state shows.
        let closed = self.engine.v4.closing.enter(state.stateid);
        // An OPEN that began while this was found out may be queued already; one that begins now comes behind.
        if self.engine.v4.opening.any(state.client, &state.owner) {
            return false;
        }
        let unsettled = match &self.identity {
            Identity::Slot { turn, .. } => Some(turn.unsettled()),
            Identity::None | Identity::Request(_) => None,
        };
        let engine = Arc::downgrade(&self.engine);
        let behind = Behind { engine, call: call.clone(), state, closed, unsettled };
        self.engine.meta().execute_aside(&call, Box::new(behind.watch()))
    }

    /// What a CLOSE closes, if it will succeed and nobody waits for it.
    async fn closes_without_doubt(
        &self,
        node: &Node,
        wire: &StateId4,
        client: ClientId,
    ) -> Done<Option<State>> {
        let state = match self.state(wire).await {
            // It may be this very request that closed it: then its key tells.
            Err(Halt::Status(NfsStat4::BadStateId)) => return Ok(None),
            found => found?,
        };
        let StateKind::Open { share, confirmed: true } = state.kind else { return Ok(None) };
        if share.deny != ShareBits::None || self.engine.v4.opening.any(client, &state.owner) {
            return Ok(None);
        }
        // A removed file would come back with its open, and stay as long as the client.
        if self.node_attr(node).await?.nlink == 0 {
            return Ok(None);
        }
        Ok((!self.engine.meta().has_locks(state.stateid.id).await?).then_some(state))
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
