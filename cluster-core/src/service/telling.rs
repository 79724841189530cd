//! What the leader is to tell others of: granted waiters and recalled delegations.
//!
//! Both are in the replicated state until they are answered. In one term of leadership each is handed out once; a new term, of this
//! member or another, begins anew.

use super::shared::{Shared, unreadable};
use crate::raft::group::Leadership;
use atoll_base::id::Ino;
use atoll_lockd::GrantId;
use atoll_meta::lock::GrantedWaiter;
use atoll_meta::nfs4::{State, StateId};
use atoll_model::KvError;
use atoll_model::read;
use std::collections::HashSet;
use std::hash::Hash;
use std::sync::{Mutex, PoisonError};
use tokio::sync::Notify;

/// Files whose grants, or recalled delegations, that are read at once.
const PAGE: usize = 1000;

/// What was handed out for telling.
#[derive(Default)]
pub(super) struct Telling {
    grants: Mutex<Told<(Ino, GrantId)>>,
    recalls: Mutex<Told<StateId>>,
}

/// What was handed out in one term of leadership.
struct Told<T> {
    term: u64,
    told: HashSet<T>,
}

impl<T> Default for Told<T> {
    fn default() -> Self {
        Self { term: 0, told: HashSet::new() }
    }
}

impl<T: Eq + Hash> Told<T> {
    /// Leaves of `pending` what nobody was told of in this term; forgets what is not pending any more.
    fn retain_untold<P>(&mut self, term: u64, pending: &mut Vec<P>, id: impl Fn(&P) -> T) {
        if self.term != term {
            *self = Self { term, told: HashSet::new() };
        }
        let now = pending.iter().map(&id).collect();
        let told = std::mem::replace(&mut self.told, now);
        pending.retain(|p| !told.contains(&id(p)));
    }
}

impl Shared {
    /// Waits for granted waiters that nobody was told of ([`atoll_meta::MetadataService::granted_waiters`]).
    pub(super) async fn granted_waiters(&self) -> Vec<GrantedWaiter> {
        self.to_tell(&self.published.grants, Self::untold_grants).await
    }

    /// Waits for delegations to be returned that nobody was told of ([`atoll_meta::MetadataService::recalled`]).
    pub(super) async fn recalled(&self) -> Vec<State> {
        self.to_tell(&self.published.recalls, Self::untold_recalls).await
    }

    /// Granted waiters that nobody was told of in this term.
    fn untold_grants(&self, leadership: Leadership) -> Result<Vec<GrantedWaiter>, KvError> {
        let current = self.published.current();
        let (mut pending, mut after) = (Vec::new(), None);
        loop {
            let page = read::pending_grants(current.view.reader(), after, PAGE)?;
            after = page.last().map(|grant| grant.ino);
            pending.extend(page);
            if after.is_none() {
                break;
            }
        }
        let mut told = self.telling.grants.lock().unwrap_or_else(PoisonError::into_inner);
        told.retain_untold(leadership.term, &mut pending, |g| (g.ino, g.grant));
        Ok(pending)
    }

    /// Delegations to be returned that nobody was told of in this term.
    fn untold_recalls(&self, leadership: Leadership) -> Result<Vec<State>, KvError> {
        let current = self.published.current();
        let (mut pending, mut after) = (Vec::new(), StateId(0));
        loop {
            let page = read::recalled(current.view.reader(), after, PAGE)?;
            let Some(last) = page.last() else { break };
            after = last.stateid.id;
            pending.extend(page);
        }
        let mut told = self.telling.recalls.lock().unwrap_or_else(PoisonError::into_inner);
        told.retain_untold(leadership.term, &mut pending, |state| state.stateid.id);
        Ok(pending)
    }

    /// Waits until this member leads and there is something to tell.
    async fn to_tell<T>(
        &self,
        news: &Notify,
        untold: impl Fn(&Self, Leadership) -> Result<Vec<T>, KvError>,
    ) -> Vec<T> {
        let mut leadership = self.group.leadership();
        loop {
            // Before looking, so that nothing that comes meanwhile is missed.
            let told = news.notified();
            let now = *leadership.borrow_and_update();
            if now.leads {
                match untold(self, now) {
                    Ok(pending) if !pending.is_empty() => return pending,
                    Ok(_) => {}
                    Err(error) => drop(unreadable(&error)),
                }
            }
            tokio::select! {
                () = told => {}
                changed = leadership.changed() => if changed.is_err() {
                    // The group has stopped; there will never be anything to tell.
                    std::future::pending::<()>().await;
                },
            }
        }
    }
}
