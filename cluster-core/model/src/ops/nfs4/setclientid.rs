//! SETCLIENTID and SETCLIENTID_CONFIRM (RFC 7530 §9.1.1, §9.1.2, §16.33.5, §16.34.5), whose cases are named by its records
//! { verifier, name, client id, callback, confirm verifier }.

use super::clients;
use crate::kv::KvWrite;
use crate::record::nfs4::{CallbackUpdate, ClientRecord, MinorRecord};
use crate::transaction::{Step, Transaction, require};
use atoll_meta::FsError;
use atoll_meta::nfs4::{Callback40, ClientAbout, ClientId, ClientOutcome, Principal, StateError};
use bytes::Bytes;

/// A verifier that no other command makes: the transaction's number, mixed so that it is not easily guessed. (The multiplier is odd, so no two
/// are the same.)
fn token(txn: u64) -> [u8; 8] {
    txn.wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(29).to_be_bytes()
}

/// SETCLIENTID.
pub(super) fn set<K: KvWrite>(
    t: &mut Transaction<'_, K>,
    owner: &Bytes,
    verifier: [u8; 8],
    principal: &Principal,
    callback: &Callback40,
    about: &ClientAbout,
) -> Step<ClientOutcome> {
    clients::check_texts(owner, about, Some(callback))?;
    let confirm = token(t.txn);
    if let Some(id) = clients::names(t.kv, 0, owner)?.confirmed {
        let mut record = clients::follow(t.kv, id)?;
        let MinorRecord::V40 { callback: present, update, .. } = &mut record.minor else {
            return Err(super::states::damaged("a client is listed with another minor version than its own"));
        };
        // One that has nothing must let another principal have its name (§9.1.2).
        if record.principal != *principal && clients::is_busy(t.kv, id)? {
            return Ok(ClientOutcome::InUse(present.clone()));
        }
        if record.principal == *principal && record.verifier == verifier {
            *update = Some(CallbackUpdate { callback: callback.clone(), confirm, about: about.clone() });
            clients::drop_unconfirmed(t, 0, owner)?;
            clients::put(t.kv, id, &record)?;
            return Ok(ClientOutcome::Set { client: id, confirm });
        }
    }
    let client = clients::new_id(t)?;
    let record = ClientRecord {
        owner: owner.clone(),
        verifier,
        principal: principal.clone(),
        confirmed: false,
        reclaimed: false,
        about: about.clone(),
        minor: MinorRecord::V40 { callback: callback.clone(), confirm, update: None },
    };
    clients::add(t, client, &record)?;
    Ok(ClientOutcome::Set { client, confirm })
}

/// SETCLIENTID_CONFIRM.
pub(super) fn confirm<K: KvWrite>(
    t: &mut Transaction<'_, K>,
    id: ClientId,
    sent: [u8; 8],
    principal: &Principal,
) -> Step<ClientOutcome> {
    let stale = FsError::State(StateError::StaleClient);
    let mut record = clients::load(t.kv, id)?.ok_or(stale)?;
    let is_callers = record.principal == *principal;
    let MinorRecord::V40 { callback, confirm, update } = &mut record.minor else {
        return Err(stale.into());
    };
    let updates = update.as_ref().is_some_and(|update| update.confirm == sent);
    require(updates || *confirm == sent, stale)?;
    require(is_callers, StateError::ClientInUse.into())?;
    if let Some(new) = update.take_if(|_| updates) {
        *callback = new.callback;
        *confirm = new.confirm;
        record.about = new.about;
        clients::put(t.kv, id, &record)?;
    } else if !record.confirmed {
        clients::make_confirmed(t, id, record)?;
    }
    // Else it comes a second time.
    Ok(ClientOutcome::Done)
}
