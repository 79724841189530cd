//! LOCK, LOCKT, LOCKU, RELEASE_LOCKOWNER, FREE_STATEID, TEST_STATEID (RFC 8881 §18.10–§18.12, §18.38, §18.48;
//! RFC 7530 §16.10–§16.12, §16.37).

use super::io::has_data;
use super::opens::fingerprint;
use crate::engine::resolve::Node;
use crate::engine::v4::compound::{Compound, Done, Halt, Identity, Object};
use crate::engine::v4::{offers, status};
use atoll_base::access::Cred;
use atoll_base::block::BlockService;
use atoll_lockd::{ByteRange, Callback, Conflict, LockMode, LockOwner, RangeError};
use atoll_meta::delegation::DelegationPhase;
use atoll_meta::lock::LockTest;
use atoll_meta::nfs4::{LockState, State, StateKind, StateOp, StateOutcome};
use atoll_meta::once::{Once, OwnerKey};
use atoll_meta::{MetadataService, Op, Outcome, Response};
use atoll_proto::nfs4::{
    Failure, Identity as Name, Lock4Args, Lock4Ok, LockDenied4, LockT4Args, LockType4, LockU4Args, Locker4,
    NfsStat4, OpNum4, StateId4, StateOwner4, Status4, TestStateId4Args, TestStateId4Ok,
};
use atoll_xdr::Array;
use std::sync::Arc;

fn range(offset: u64, length: u64) -> Result<ByteRange, NfsStat4> {
    ByteRange::from_v4(offset, length).map_err(|_: RangeError| NfsStat4::Inval)
}

fn mode(kind: LockType4) -> LockMode {
    if kind.exclusive() { LockMode::Exclusive } else { LockMode::Shared }
}

/// The lock that is in the way, as the wire has it.
fn denied(conflict: &Conflict) -> LockDenied4 {
    let (offset, length) = conflict.range.to_v4();
    let (clientid, owner) = conflict.owner.as_v4_holder();
    // A name of NLM may be a little longer than the wire's bound.
    let owner = &owner[..owner.len().min(1024)];
    LockDenied4 {
        offset,
        length,
        locktype: match conflict.mode {
            LockMode::Shared => LockType4::Read,
            LockMode::Exclusive => LockType4::Write,
        },
        owner: StateOwner4 { clientid, owner: Name::copy_from(owner).expect("cut to the bound") },
    }
}

/// How LOCK and LOCKT end without success.
pub(crate) enum Refused {
    Denied(LockDenied4),
    Halt(Halt),
}

impl<E: Into<Halt>> From<E> for Refused {
    fn from(e: E) -> Self {
        Self::Halt(e.into())
    }
}

/// The result of a refusal, unless there is no answer at all.
pub(crate) fn failure(refused: Refused) -> Result<Failure<LockDenied4>, Halt> {
    match refused {
        Refused::Denied(denied) => Ok(Failure::With(denied)),
        Refused::Halt(Halt::Status(status)) => Ok(Failure::Plain(status)),
        Refused::Halt(halt) => Err(halt),
    }
}

/// What is in the way of a LOCK when all lapsed clients are gone that were.
enum Way {
    Free,
    Blocked(Conflict),
    Unknown,
}

fn is_revoked(state: &State) -> bool {
    matches!(state.kind, StateKind::Delegation { phase: DelegationPhase::Revoked, .. })
}

impl<M: MetadataService, B: BlockService> Compound<M, B> {
    pub(crate) async fn lock(&mut self, args: &Lock4Args) -> Result<Lock4Ok, Refused> {
        let node = self.node(NfsStat4::IsDir)?;
        let response = match self.known_in_session().await? {
            Some(response) => response,
            None => {
                let (state, step) = match &args.locker {
                    Locker4::New(new) => {
                        let open = self.stateid_of(&new.open_stateid)?;
                        let step = self
                            .step_of(&new.open_stateid, new.open_seqid, || fingerprint(OpNum4::Lock, args))
                            .await?;
                        if let Some(step) = &step
                            && new.lock_owner.clientid != step.client.0
                        {
                            // Nobody's, or another client's.
                            self.acting(new.lock_owner.clientid).await?;
                            return Err(NfsStat4::BadStateId.into());
                        }
                        let owner = new.lock_owner.owner.as_bytes().clone();
                        (LockState::New { open, owner, seqid: new.lock_seqid }, step)
                    }
                    Locker4::Exist(held) => {
                        let lock = self.stateid_of(&held.lock_stateid)?;
                        let step = self
                            .step_of(&held.lock_stateid, held.lock_seqid, || fingerprint(OpNum4::Lock, args))
                            .await?;
                        (LockState::Held(lock), step)
                    }
                };
                let client = self.client_of(&step)?;
                let kind = self.node_attr(&node).await?.kind;
                let range = match args.reclaim {
                    // Nothing was lost, so there is nothing to reclaim.
                    true => Err(NfsStat4::NoGrace),
                    false => has_data(kind).and_then(|()| range(args.offset, args.length)),
                };
                match range {
                    Ok(range) => {
                        let wait = match args.locktype {
                            LockType4::ReadBlocking | LockType4::WriteBlocking => self.callback(&node),
                            LockType4::Read | LockType4::Write => None,
                        };
                        let mode = mode(args.locktype);
                        self.run_lock(&node, StateOp::Lock { client, state, range, mode, wait }, step).await?
                    }
                    Err(status) => self.refuse_step(status, step).await?,
                }
            }
        };
        match &response.result {
            Ok(Outcome::State(StateOutcome::Locked(stateid))) => {
                let lock_stateid = self.wire_stateid(*stateid);
                self.accept_offer(&node, args).await;
                self.stateid = Some(lock_stateid);
                Ok(Lock4Ok { lock_stateid })
            }
            Ok(Outcome::State(StateOutcome::Denied(conflict))) => Err(Refused::Denied(denied(conflict))),
            Ok(other) => unreachable!("LOCK ended as {other:?}"),
            Err(e) => Err(status::of(*e).into()),
        }
    }

    /// LOCK. Clients whose lease has run out make way.
    async fn run_lock(&mut self, node: &Node, op: StateOp, step: Option<OwnerKey>) -> Done<Arc<Response>> {
        // In v4.0 a refusal would be the owner's step, so they go before it.
        if step.is_some() {
            let _in_the_way = Box::pin(self.clear_way(node, &op)).await?;
            return self.change_state(Cred::root(), op, step).await;
        }
        let response = self.change_state(Cred::root(), op.clone(), None).await?;
        let Ok(Outcome::State(StateOutcome::Denied(before))) = &response.result else { return Ok(response) };
        match Box::pin(self.clear_way(node, &op)).await? {
            Way::Unknown => return Ok(response),
            Way::Blocked(now) if now == *before => return Ok(response),
            // Who was named may be gone, and another in the way.
            Way::Blocked(_) | Way::Free => {}
        }
        self.attempt += 1;
        self.change_state(Cred::root(), op, None).await
    }

    /// How the client is told when a lock that it is denied becomes free; `None` if it cannot be.
    fn callback(&self, node: &Node) -> Option<Callback> {
        let Identity::Slot { turn, .. } = &self.identity else { return None };
        let back = &turn.session().back;
        if !back.has_path() {
            if back.was_asked_for() {
                back.want();
            }
            return None;
        }
        offers::describe(self.wire_handle(&Object::Real(node.clone())).as_slice())
    }

    /// A lock that was taken is not offered any more.
    async fn accept_offer(&self, node: &Node, args: &Lock4Args) {
        let ino = node.handle.ino;
        let (Some(client), Ok(range)) = (self.client, range(args.offset, args.length)) else { return };
        if !self.engine.v4.offers.any(ino) {
            return;
        }
        let owner = match &args.locker {
            Locker4::New(new) => new.lock_owner.owner.as_bytes().clone(),
            Locker4::Exist(held) => {
                let Ok(lock) = self.stateid_of(&held.lock_stateid) else { return };
                match self.engine.meta().state(lock.id).await {
                    Ok(Some(state)) => state.owner,
                    // Then the offer ends by time.
                    _ => return,
                }
            }
        };
        if let Ok(owner) = LockOwner::v4(client.0, owner.to_vec()) {
            self.engine.v4.offers.locked(ino, &owner, range);
        }
    }

    /// Has lapsed clients make way for a LOCK.
    async fn clear_way(&self, node: &Node, op: &StateOp) -> Done<Way> {
        let StateOp::Lock { client, state, range, mode, .. } = op else { return Ok(Way::Unknown) };
        let owner = match state {
            LockState::New { owner, .. } => Some(owner.clone()),
            LockState::Held(held) => self.engine.meta().state(held.id).await?.map(|state| state.owner),
        };
        let Some(owner) = owner else { return Ok(Way::Unknown) };
        let owner = LockOwner::v4(client.0, owner.to_vec()).map_err(|_| NfsStat4::Inval)?;
        let (ino, generation) = (node.handle.ino, node.handle.generation);
        let test = LockTest { ino, generation, owner, range: *range, mode: *mode };
        // What else is wrong is told by the operation itself.
        Ok(match self.engine.clear_way(&test).await {
            Ok(None) => Way::Free,
            Ok(Some(conflict)) => Way::Blocked(conflict),
            Err(_) => Way::Unknown,
        })
    }

    pub(crate) async fn lock_test(&mut self, args: &LockT4Args) -> Result<(), Refused> {
        let client = self.acting(args.owner.clientid).await?;
        let node = self.node(NfsStat4::IsDir)?;
        has_data(self.node_attr(&node).await?.kind)?;
        let owner =
            LockOwner::v4(client.0, args.owner.owner.as_bytes().to_vec()).map_err(|_| NfsStat4::Inval)?;
        let test = LockTest {
            ino: node.handle.ino,
            generation: node.handle.generation,
            owner,
            range: range(args.offset, args.length)?,
            mode: mode(args.locktype),
        };
        match self.engine.clear_way(&test).await? {
            Some(conflict) => Err(Refused::Denied(denied(&conflict))),
            None => Ok(()),
        }
    }

    pub(crate) async fn unlock(&mut self, args: &LockU4Args) -> Done<StateId4> {
        self.node(NfsStat4::IsDir)?;
        let response = match self.known_in_session().await? {
            Some(response) => response,
            None => {
                let lock = self.stateid_of(&args.lock_stateid)?;
                let step =
                    self.step_of(&args.lock_stateid, args.seqid, || fingerprint(OpNum4::LockU, args)).await?;
                let client = self.client_of(&step)?;
                match range(args.offset, args.length) {
                    Ok(range) => {
                        self.change_state(Cred::root(), StateOp::Unlock { client, lock, range }, step).await?
                    }
                    Err(status) => self.refuse_step(status, step).await?,
                }
            }
        };
        match &response.result {
            Ok(Outcome::State(StateOutcome::State(stateid))) => {
                let stateid = self.wire_stateid(*stateid);
                self.stateid = Some(stateid);
                Ok(stateid)
            }
            Ok(other) => unreachable!("LOCKU ended as {other:?}"),
            Err(e) => Err(status::of(*e).into()),
        }
    }

    /// Runs an operation on state that is no step of an owner's.
    async fn plain(&mut self, op: StateOp) -> Done<Arc<Response>> {
        match self.known().await? {
            Some(response) => Ok(response),
            None => {
                let once: Once = self.once();
                self.change_once(Cred::root(), Op::State(op), once).await
            }
        }
    }

    fn done(response: &Response) -> Done<()> {
        match &response.result {
            Ok(_) => Ok(()),
            Err(e) => Err(status::of(*e).into()),
        }
    }

    pub(crate) async fn release_owner(&mut self, owner: &StateOwner4) -> Done<()> {
        let client = self.acting(owner.clientid).await?;
        let response =
            self.plain(StateOp::ReleaseOwner { client, owner: owner.owner.as_bytes().clone() }).await?;
        Self::done(&response)
    }

    pub(crate) async fn free_stateid(&mut self, wire: &StateId4) -> Done<()> {
        let state = self.stateid_of(wire)?;
        let client = self.client.ok_or(NfsStat4::OpNotInSession)?;
        let response = self.plain(StateOp::Free { client, state }).await?;
        if self.engine.v4.delegations.has_revoked(client) {
            self.engine.look_at_revoked(client).await;
        }
        Self::done(&response)
    }

    pub(crate) async fn test_stateids(&self, args: &TestStateId4Args) -> Done<TestStateId4Ok> {
        let mut codes: Vec<Status4> = Vec::with_capacity(args.stateids.len());
        for wire in args.stateids.iter() {
            codes.push(match self.state(wire).await {
                Ok(state) if is_revoked(&state) => Err(NfsStat4::DelegRevoked),
                Ok(_) => Ok(()),
                Err(Halt::Status(status)) => Err(status),
                Err(halt) => return Err(halt),
            });
        }
        Ok(TestStateId4Ok { status_codes: Array::new(codes).map_err(|_| NfsStat4::ServerFault)? })
    }
}
