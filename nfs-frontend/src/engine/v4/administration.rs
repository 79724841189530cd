//! What administrators see and do of clients beside what the metadata service tells: leases, and eviction.

use super::leases::Heard;
use crate::engine::Engine;
use atoll_base::block::BlockService;
use atoll_lockd::{ClientMatch, LockClient, NlmClient};
use atoll_meta::lock::LockOp;
use atoll_meta::nfs4::{ClientId, StateId, StateKind};
use atoll_meta::{FsError, MetadataService, Op};
use std::time::Duration;
use tracing::warn;

/// States counted in one step.
const PAGE: usize = 256;

/// A client's lease, as the frontend that hears it sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lease {
    /// How long ago the client was heard; `None` if not since this frontend started.
    pub heard: Option<Duration>,
    /// How long the lease has run: since then, or since the frontend started.
    pub age: Duration,
    /// How long it lasts.
    pub term: Duration,
}

/// What an evicted client had.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Freed {
    /// Sessions.
    pub sessions: u64,
    /// Opens.
    pub opens: u64,
    /// Lock states: owners that had, or have had, locks in a file.
    pub lock_states: u64,
    /// Delegations, revoked ones that it had not freed included.
    pub delegations: u64,
}

impl<M: MetadataService, B: BlockService> Engine<M, B> {
    /// The lease of a client, whether there is such a client or not.
    pub fn lease_of(&self, client: ClientId) -> Lease {
        let Heard { heard, age } = self.v4.leases.heard(client);
        Lease { heard, age, term: self.lease() }
    }

    /// Ends a client whatever its lease, and says what it had at that moment, or a little before. `None` if there is none. What is
    /// too much for one command is freed in the background.
    pub async fn evict(&self, id: ClientId) -> Result<Option<Freed>, FsError> {
        let Some(client) = self.meta.client(id).await? else { return Ok(None) };
        let mut freed = Freed { sessions: client.sessions.into(), ..Freed::default() };
        let mut after = StateId(0);
        loop {
            let states = self.meta.states_by(id, after, PAGE).await?;
            let Some(last) = states.last() else { break };
            after = last.stateid.id;
            for state in states {
                match state.kind {
                    StateKind::Open { .. } => freed.opens += 1,
                    StateKind::Lock { .. } => freed.lock_states += 1,
                    StateKind::Delegation { .. } => freed.delegations += 1,
                }
            }
            tokio::task::yield_now().await;
        }
        warn!(client = id.0, "an administrator evicts a client; what it had is freed");
        self.end_client(id).await?;
        Ok(Some(freed))
    }

    /// Frees all locks and share reservations of an NLM client, as its FREE_ALL does. It is not told: NLM has no way to.
    pub async fn evict_nlm(&self, client: NlmClient) -> Result<(), FsError> {
        let name = client.name().escape_ascii();
        warn!(%name, address = ?client.address(), "an administrator frees the locks of an NLM client");
        let which = ClientMatch::Client(LockClient::Nlm(client));
        self.alone(Op::Lock(LockOp::ReleaseClient(which))).await
    }
}
