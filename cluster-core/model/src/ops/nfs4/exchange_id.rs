//! EXCHANGE_ID with SP4_NONE (RFC 8881 §18.35.4, whose cases are numbered).

use super::clients;
use crate::kv::KvWrite;
use crate::record::nfs4::{ClientRecord, MinorRecord};
use crate::transaction::{Step, Transaction, require};
use atoll_meta::FsError;
use atoll_meta::nfs4::{ClientAbout, ClientId, ClientOutcome, Principal, StateError};
use bytes::Bytes;

/// `csa_sequence` of a client's first CREATE_SESSION.
const FIRST_SEQUENCE: u32 = 1;

fn known(id: ClientId, record: &ClientRecord) -> Step<ClientOutcome> {
    let MinorRecord::V41 { sequence, .. } = &record.minor else {
        return Err(super::states::damaged("a client is listed with another minor version than its own"));
    };
    Ok(ClientOutcome::Exchanged { client: id, sequence: sequence.wrapping_add(1), confirmed: true })
}

/// EXCHANGE_ID.
pub(super) fn exchange<K: KvWrite>(
    t: &mut Transaction<'_, K>,
    owner: &Bytes,
    verifier: [u8; 8],
    update: bool,
    principal: &Principal,
    about: &ClientAbout,
) -> Step<ClientOutcome> {
    clients::check_texts(owner, about, None)?;
    let confirmed = match clients::names(t.kv, 1, owner)?.confirmed {
        Some(id) => Some((id, clients::follow(t.kv, id)?)),
        None => None,
    };
    if update {
        // 7, 8, 9, 6.
        let (id, mut record) = confirmed.ok_or(FsError::NotFound)?;
        require(record.verifier == verifier, StateError::NotSame.into())?;
        require(record.principal == *principal, FsError::NotOwner)?;
        record.about = about.clone();
        clients::put(t.kv, id, &record)?;
        return known(id, &record);
    }
    let mut new = None;
    if let Some((id, record)) = confirmed {
        if record.principal != *principal {
            // 3
            require(!clients::is_busy(t.kv, id)?, StateError::ClientInUse.into())?;
            new = Some(clients::new_id(t)?);
            clients::end(t, id, &record)?;
        } else if record.verifier == verifier {
            // 2
            clients::drop_unconfirmed(t, 1, owner)?;
            return known(id, &record);
        }
        // Else 5: it goes when the new one is confirmed.
    }
    // 1, 4
    let record = ClientRecord {
        owner: owner.clone(),
        verifier,
        principal: principal.clone(),
        confirmed: false,
        reclaimed: false,
        about: about.clone(),
        minor: MinorRecord::V41 { sequence: FIRST_SEQUENCE.wrapping_sub(1), created: None },
    };
    let client = match new {
        Some(id) => id,
        None => clients::new_id(t)?,
    };
    clients::add(t, client, &record)?;
    Ok(ClientOutcome::Exchanged { client, sequence: FIRST_SEQUENCE, confirmed: false })
}
