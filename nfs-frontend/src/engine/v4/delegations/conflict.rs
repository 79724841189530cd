//! Delegations that are in somebody's way, and waiting for their return (RFC 8881 §10.4.2–§10.4.4).
//!
//! A holder in reach returns a delegation within milliseconds, so who met it waits a moment instead of being sent away. Invariant: who waits
//! holds nothing that the holder needs to write back what it has and return: no room of a file, no lock.

use super::policy::History;
use crate::engine::Engine;
use atoll_base::attr::{Attr, Delegated, FileKind};
use atoll_base::block::BlockService;
use atoll_base::id::Ino;
use atoll_lockd::ShareBits;
use atoll_meta::delegation::{DelegationKind, DelegationPhase, Intrusion};
use atoll_meta::nfs4::{ClientId, OpenTarget, State, StateId, StateKind, StateOp};
use atoll_meta::{FsError, MetadataService, Op, Response};
use std::sync::atomic::Ordering;
use std::time::Duration;
use tokio::time::{Instant, sleep, timeout_at};

/// States read in one step.
const PAGE: usize = 256;

/// Pause before a call is repeated that met something of which nothing is found any more.
const BREATH: Duration = Duration::from_millis(5);

/// A delegation of another that an operation met. Of several it is one; the next is met when this is back. Small and plain, for it is part of how
/// every operation may end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Met {
    ino: Ino,
    intrusion: Intrusion,
}

impl Met {
    pub(crate) fn new(ino: Ino, intrusion: Intrusion) -> Self {
        Self { ino, intrusion }
    }
}

/// What a call intends.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Intent {
    files: Intrusion,
    /// Directories whose entries it changes.
    entries: [Option<(Ino, Intrusion)>; 2],
}

impl Intent {
    pub(crate) fn of(op: &Op) -> Self {
        let (first, second) = match op {
            Op::Create { dir, .. } | Op::Link { dir, .. } => (Some((*dir, Intrusion::Add)), None),
            Op::State(StateOp::Open { target: OpenTarget::Name { dir, create: Some(_), .. }, .. }) => {
                (Some((*dir, Intrusion::Add)), None)
            }
            Op::Remove { dir, .. } => (Some((*dir, Intrusion::Remove)), None),
            Op::Rename { from_dir, to_dir, .. } if from_dir == to_dir => {
                (Some((*from_dir, Intrusion::Rename)), None)
            }
            Op::Rename { from_dir, to_dir, .. } => {
                (Some((*from_dir, Intrusion::Remove)), Some((*to_dir, Intrusion::Add)))
            }
            _ => (None, None),
        };
        Self { files: intrusion(op), entries: [first, second] }
    }

    /// With one of the inodes that it concerns.
    fn with(&self, attr: &Attr) -> Intrusion {
        if attr.kind != FileKind::Directory {
            return self.files;
        }
        let its = self.entries.iter().flatten().find(|(dir, _)| *dir == attr.ino);
        its.map_or(Intrusion::Change, |(_, intrusion)| *intrusion)
    }
}

/// What a call intends with the file that it names.
fn intrusion(op: &Op) -> Intrusion {
    let Op::State(StateOp::Open { share, target, .. }) = op else { return Intrusion::Change };
    let cuts = matches!(target, OpenTarget::Name { create: Some((_, attrs)), .. } if attrs.size.is_some());
    let writes = share.access.contains(ShareBits::Write) || share.deny != ShareBits::None;
    if cuts || writes { Intrusion::Change } else { Intrusion::Read }
}

/// How long an operation waits for delegations to come back, over all its attempts.
#[derive(Debug)]
pub(crate) struct Patience {
    most: Duration,
    until: Option<Instant>,
}

impl Patience {
    /// For NFSv4: a client that is told to ask later does so after a tenth of a second.
    pub(crate) fn v4() -> Self {
        Self { most: Duration::from_millis(500), until: None }
    }

    /// For NFSv3: clients come back after five seconds.
    pub(crate) fn v3() -> Self {
        Self { most: Duration::from_secs(2), until: None }
    }
}

/// Whether a delegation forbids somebody what it intends.
fn forbids(state: &State, intrusion: Intrusion, asking: Option<ClientId>) -> bool {
    let StateKind::Delegation { kind, phase, notices, .. } = state.kind else { return false };
    phase != DelegationPhase::Revoked
        && Some(state.client) != asking
        && (intrusion != Intrusion::Read || kind == DelegationKind::Write)
        && !notices.cover(intrusion)
}

impl<M: MetadataService, B: BlockService> Engine<M, B> {
    /// The delegations of an inode that forbid `asking` what it intends.
    pub(crate) async fn in_the_way(
        &self,
        ino: Ino,
        intrusion: Intrusion,
        asking: Option<ClientId>,
    ) -> Result<Vec<State>, FsError> {
        let mut after = StateId(0);
        let mut found = Vec::new();
        loop {
            let states = self.meta.states_of(ino, after, PAGE).await?;
            let Some(last) = states.last() else { return Ok(found) };
            after = last.stateid.id;
            found.extend(states.into_iter().filter(|state| forbids(state, intrusion, asking)));
        }
    }

    /// Whether somebody else than `asking` may have data of a file that are not here. Costs nothing unless it is delegated for writing.
    pub(crate) async fn may_be_elsewhere(
        &self,
        attr: &Attr,
        asking: Option<ClientId>,
    ) -> Result<bool, FsError> {
        if attr.delegated != Delegated::Write {
            return Ok(false);
        }
        match asking {
            None => Ok(true),
            Some(_) => Ok(!self.in_the_way(attr.ino, Intrusion::Read, asking).await?.is_empty()),
        }
    }

    /// What a call met that was refused for delegations.
    pub(crate) async fn met(&self, intent: Intent, asking: Option<ClientId>, response: &Response) -> Met {
        let mut met = None;
        for change in response.changes.iter().filter(|c| c.after.delegated != Delegated::No) {
            let intrusion = intent.with(&change.after);
            let ino = change.after.ino;
            let it = Met { ino, intrusion };
            met.get_or_insert(it);
            // The caller's own are not in its way.
            if self.in_the_way(ino, intrusion, asking).await.is_ok_and(|holders| !holders.is_empty()) {
                return it;
            }
        }
        // It is gone already.
        met.unwrap_or(Met { ino: Ino(0), intrusion: Intrusion::Read })
    }

    /// Asks for the delegations that an operation met and waits for them. True if the operation is to be tried again; false if patience has ended.
    pub(crate) async fn ask_back(&self, met: Met, asking: Option<ClientId>, patience: &mut Patience) -> bool {
        let until = *patience.until.get_or_insert_with(|| Instant::now() + patience.most);
        let Met { ino, intrusion } = met;
        let mut waited = false;
        loop {
            let wait = self.v4.delegations.returns.wait(ino);
            let mut returned = std::pin::pin!(wait.notified());
            returned.as_mut().enable();
            let Ok(holders) = self.in_the_way(ino, intrusion, asking).await else { return false };
            if holders.is_empty() {
                break;
            }
            waited = true;
            if self.recall(ino, intrusion, asking, &holders).await.is_err() {
                return false;
            }
            // Who is not heard any more is not waited for. All else that it has is not in the way.
            let lapsed = |state: &&State| self.v4.leases.age(state.client) > self.lease();
            let mut gone = false;
            for holder in holders.iter().filter(lapsed) {
                gone |= self.revoke(holder).await.is_ok();
            }
            if !gone && timeout_at(until, returned).await.is_err() {
                return false;
            }
        }
        if !waited {
            sleep(BREATH).await;
        }
        Instant::now() < until
    }

    /// Has delegations marked as recalled, unless all of them are.
    async fn recall(
        &self,
        ino: Ino,
        intrusion: Intrusion,
        except: Option<ClientId>,
        holders: &[State],
    ) -> Result<(), FsError> {
        let held =
            |state: &&State| matches!(state.kind, StateKind::Delegation { phase: DelegationPhase::Held, .. });
        let count = holders.iter().filter(held).count();
        let history: &History = &self.v4.delegations.history;
        history.recalled(ino, self.meta.now().secs);
        if count == 0 {
            return Ok(());
        }
        self.alone(Op::State(StateOp::Recall { ino, intrusion, except })).await?;
        self.v4.delegations.counters.recalled.fetch_add(count as u64, Ordering::Relaxed);
        Ok(())
    }
}
