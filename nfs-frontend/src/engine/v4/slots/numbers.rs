//! The numbers of the slots of sessions that were forgotten for being idle. Their connections may live on, and an old request be on its way in
//! one of them: for a slot whose number is not known it would be a new one, and be executed once more (RFC 8881 §2.10.6.1). Of slots that were given back
//! the replicated state knows nothing at all.
//!
//! What else was known of a slot's last request, its fingerprint and its reply, goes. If it may have changed something and comes again, it is answered from the stored outcome,
//! or, if there is none, told that its reply is not kept: the outcome was removed with the slot, or it was an UNSTABLE WRITE, and others may have written since.
//! Else it is executed again.

use super::{Active, Last, Slot};
use atoll_meta::nfs4::{ClientId, SessionId};
use std::collections::BTreeMap;

/// Sessions that are remembered, of 12 bytes for each slot. Of more, the oldest go.
const REMEMBERED_MAX: usize = 1 << 15;

/// The number of a slot's last request, if it is known, and whether it may have changed something ([`Last::changed`]).
type Number = Option<(u32, bool)>;

#[derive(Debug, Default)]
pub(super) struct Numbers(BTreeMap<SessionId, (ClientId, Box<[Number]>)>);

impl Numbers {
    /// Remembers those of a session.
    pub(super) fn keep(&mut self, active: &Active) {
        let number = |slot: &Slot| slot.seqid.map(|seqid| (seqid, slot.last.changed));
        let numbers: Box<[_]> = active.slots().all.iter().map(number).collect();
        if numbers.iter().all(Option::is_none) {
            return;
        }
        self.0.insert(active.session.id, (active.session.client, numbers));
        if self.0.len() > REMEMBERED_MAX {
            self.0.pop_first();
        }
    }

    /// The slots of a session that is there again.
    pub(super) fn take(&mut self, id: SessionId) -> Option<Vec<Slot>> {
        let (_, numbers) = self.0.remove(&id)?;
        let slot = |number: &Number| {
            let last = Last { changed: number.is_some_and(|(_, changed)| changed), ..Last::default() };
            Slot { seqid: number.map(|(seqid, _)| seqid), last, ..Slot::default() }
        };
        Some(numbers.iter().map(slot).collect())
    }

    /// Forgets a session that is gone.
    pub(super) fn remove(&mut self, id: SessionId) {
        self.0.remove(&id);
    }

    /// Forgets sessions of all clients but of these.
    pub(super) fn keep_of(&mut self, is_there: impl Fn(ClientId) -> bool) {
        self.0.retain(|_, (client, _)| is_there(*client));
    }
}
