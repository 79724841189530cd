//! The end of clients that are not heard any more (RFC 8881 §8.4.2.4, RFC 7530 §9.6.3).
//!
//! A lapsed client is courteous: it keeps what it has until that is in somebody's way, or [`COURTESY`] is over. One without
//! opens and locks, or never confirmed, is forgotten with its lease.

use super::leases::{COURTESY, Heard};
use crate::engine::Engine;
use atoll_base::block::BlockService;
use atoll_base::id::Ino;
use atoll_lockd::{LockClient, Share};
use atoll_meta::lock::{Conflict, LockTest};
use atoll_meta::nfs4::{ClientId, ClientOp, State, StateId, StateKind};
use atoll_meta::{FsError, MetadataService, Op};
use std::collections::HashSet;
use tracing::{info, warn};

/// States or clients read in one step.
const PAGE: usize = 256;

impl<M: MetadataService, B: BlockService> Engine<M, B> {
    /// Forgets a client with all it has, if its lease has run out. Says whether it did.
    pub(crate) async fn expire_if_lapsed(&self, client: ClientId) -> Result<bool, FsError> {
        if self.v4.leases.age(client) <= self.lease() {
            return Ok(false);
        }
        self.expire(client).await?;
        Ok(true)
    }

    /// Forgets a client with all it has.
    pub(crate) async fn expire(&self, client: ClientId) -> Result<(), FsError> {
        info!(client = client.0, "the lease of a client ran out; what it had is freed");
        self.end_client(client).await
    }

    /// Has the client forgotten everywhere, whatever the reason.
    pub(super) async fn end_client(&self, client: ClientId) -> Result<(), FsError> {
        self.alone(Op::Client(ClientOp::Expire(client))).await?;
        self.v4.sessions.remove_all(client);
        self.v4.leases.forget(client);
        self.v4.delegations.client_gone(client);
        Ok(())
    }

    /// Expires those lapsed clients whose opens of a file conflict with another client's. Says whether there were any.
    pub(crate) async fn make_way(&self, ino: Ino, asking: ClientId, share: Share) -> Result<bool, FsError> {
        let mut after = StateId(0);
        let mut any = false;
        loop {
            let states = self.meta.states_of(ino, after, PAGE).await?;
            let Some(last) = states.last() else { return Ok(any) };
            after = last.stateid.id;
            let in_the_way = |state: &State| match state.kind {
                StateKind::Open { share: held, .. } => state.client != asking && share.conflicts_with(&held),
                StateKind::Lock { .. } | StateKind::Delegation { .. } => false,
            };
            let mut holders: Vec<ClientId> =
                states.iter().filter(|state| in_the_way(state)).map(|state| state.client).collect();
            holders.sort_unstable();
            holders.dedup();
            for holder in holders {
                any |= Box::pin(self.expire_if_lapsed(holder)).await?;
            }
        }
    }

    /// Has lapsed clients of NFSv4 make way for a lock. Returns the lock that is in the way all the same.
    pub(crate) async fn clear_way(&self, test: &LockTest) -> Result<Option<Conflict>, FsError> {
        loop {
            let Some(conflict) = self.meta.test_lock(test.clone()).await? else { return Ok(None) };
            let gone = match conflict.owner.client() {
                LockClient::V4(holder) if conflict.owner.client() != test.owner.client() => {
                    Box::pin(self.expire_if_lapsed(ClientId(*holder))).await?
                }
                _ => false,
            };
            if !gone {
                return Ok(Some(conflict));
            }
        }
    }

    /// Looks through all clients for those that need not be waited for.
    pub(crate) async fn expire_due(&self) {
        let mut after = ClientId(0);
        let mut there = HashSet::new();
        loop {
            let clients = match self.meta.clients(after, PAGE).await {
                Ok(clients) => clients,
                Err(FsError::Delay) => return,
                Err(error) => {
                    warn!(%error, "clients cannot be looked through");
                    return;
                }
            };
            let Some(last) = clients.last() else { break };
            after = last.id;
            there.extend(clients.iter().map(|client| client.id));
            for client in clients {
                if client.revoked > 0 || self.v4.delegations.has_revoked(client.id) {
                    self.v4.delegations.set_revoked(client.id, client.revoked);
                }
                let Heard { heard, age } = self.v4.leases.heard(client.id);
                let useless = !client.confirmed || client.states == 0;
                if (age > self.lease() && useless || age > self.lease() + COURTESY)
                    && (heard.is_some() || self.v4.leases.is_unheard_again(client.id))
                    && let Err(error) = self.expire(client.id).await
                {
                    warn!(client = client.id.0, %error, "a client whose lease ran out cannot be forgotten yet");
                    return;
                }
            }
        }
        let unheard = 2 * self.lease();
        // Sessions of clients that gave way to a new boot would take a share of the slots for ever.
        let is_there = |client| there.contains(&client) || self.v4.leases.age(client) <= unheard;
        self.v4.sessions.keep_of(is_there);
        self.v4.leases.forget_gone(unheard, &there);
    }
}
