//! NFSv4: clients and sessions, opens, lock states, delegations and offloads (RFC 7530 §9, §10; RFC 8881 §2.4, §2.10, §8, §9, §10).
//!
//! Everything has a row of its own, so that each operation writes a few small rows however many others there are. What opens and
//! locks mean for a file is in the file's lock table beside that of NLM: byte ranges by owner, opens as counts.
//!
//! A file whose last name was removed stays until the last of its states goes, with CLOSE or with its client.

pub(crate) mod clients;
pub(crate) mod delegations;
mod exchange_id;
mod lock_states;
pub(crate) mod notices;
pub(crate) mod offloads;
mod opens;
pub(crate) mod release;
pub(crate) mod sessions;
mod setclientid;
pub(crate) mod states;
pub(crate) mod wishes;

pub(super) use opens::share_refusal;

use crate::kv::KvWrite;
use crate::transaction::{Step, Transaction};
use atoll_meta::nfs4::{ClientOp, ClientOutcome, StateOp, StateOutcome};

/// An operation on clients and sessions.
pub(super) fn client<K: KvWrite>(t: &mut Transaction<'_, K>, op: &ClientOp) -> Step<ClientOutcome> {
    match op {
        ClientOp::SetClientId { owner, verifier, principal, callback, about } => {
            setclientid::set(t, owner, *verifier, principal, callback, about)
        }
        ClientOp::Confirm { client, confirm, principal } => {
            setclientid::confirm(t, *client, *confirm, principal)
        }
        ClientOp::ExchangeId { owner, verifier, update, principal, about } => {
            exchange_id::exchange(t, owner, *verifier, *update, principal, about)
        }
        ClientOp::CreateSession { client, sequence, principal, terms } => {
            sessions::create(t, *client, *sequence, principal, terms)
        }
        ClientOp::SetCallback { session, program, security } => {
            sessions::set_callback(t, *session, *program, security)
        }
        ClientOp::DestroySession(session) => sessions::destroy(t, *session),
        ClientOp::DestroyClient(client) => clients::destroy(t, *client),
        ClientOp::ReclaimComplete(client) => clients::reclaim_complete(t, *client),
        ClientOp::Expire(client) => clients::expire(t, *client),
        ClientOp::RetireSlots { session, keep } => sessions::retire_slots(t, *session, *keep),
    }
}

/// An operation on opens, locks and delegations.
pub(super) fn state<K: KvWrite>(t: &mut Transaction<'_, K>, op: &StateOp) -> Step<StateOutcome> {
    match op {
        StateOp::Open { client, owner, share, target, delegate, under } => {
            // Whoever the call is for, the open is this client's.
            t.client = Some(*client);
            let (client, share, delegate, under) = (*client, *share, *delegate, *under);
            opens::open(t, &opens::Wanted { client, owner, share, target, delegate, under })
        }
        StateOp::Confirm { client, open } => opens::confirm(t, *client, *open),
        StateOp::Downgrade { client, open, share } => opens::downgrade(t, *client, *open, *share),
        StateOp::Close { client, open } => opens::close(t, *client, *open),
        StateOp::Lock { client, state, range, mode, wait } => {
            lock_states::lock(t, *client, state, *range, *mode, wait.as_ref())
        }
        StateOp::Unlock { client, lock, range } => lock_states::unlock(t, *client, *lock, *range),
        StateOp::Free { client, state } => lock_states::free(t, *client, *state),
        StateOp::ReleaseOwner { client, owner } => lock_states::release_owner(t, *client, owner),
        StateOp::Delegate { client, ino, generation, wish } => {
            wishes::delegate(t, *client, (*ino, *generation), *wish)
        }
        StateOp::Return { client, delegation } => delegations::give_back(t, *client, *delegation),
        StateOp::Recall { ino, intrusion, except } => delegations::recall(t, *ino, *intrusion, *except),
        StateOp::Revoke(delegation) => delegations::revoke(t, *delegation),
        StateOp::DelegatedTimes { client, delegation, atime, mtime } => {
            delegations::set_times(t, *client, *delegation, *atime, *mtime)
        }
        StateOp::HolderChanged(delegation) => delegations::holder_changed(t, *delegation),
        StateOp::DelegateDirectory { client, ino, generation, export, notices } => {
            wishes::delegate_directory(t, *client, (*ino, *generation), *export, *notices)
        }
        StateOp::Noticed { delegation, upto } => notices::told(t, *delegation, *upto),
        StateOp::RecallOne(delegation) => delegations::recall_one(t, *delegation),
        StateOp::Refuse(error) => Err((*error).into()),
    }
}
