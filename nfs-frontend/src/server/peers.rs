//! What the connections of one address share, and the budget of receive memory.
//!
//! Invariant: an address is in the table while it has connections, and no longer.

use super::limits::Limits;
use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, ready};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_util::sync::PollSemaphore;

/// Unit of the budget: a semaphore counts to 2^32 per acquisition at most, and finer accounting serves nothing.
const UNIT: usize = 1024;

fn units(bytes: usize) -> u32 {
    u32::try_from(bytes.div_ceil(UNIT)).expect("records are bounded far below 4 TiB")
}

struct Peer {
    connections: usize,
    memory: Arc<Semaphore>,
}

/// Connections by address, and the memory for what they receive.
pub(super) struct Peers {
    limits: Limits,
    memory: Arc<Semaphore>,
    table: Mutex<Table>,
}

#[derive(Default)]
struct Table {
    connections: usize,
    peers: HashMap<IpAddr, Peer>,
}

/// A connection's place in the table.
pub(super) struct Admission {
    peers: Arc<Peers>,
    address: IpAddr,
    memory: Arc<Semaphore>,
}

impl Peers {
    pub(super) fn new(limits: &Limits) -> Arc<Self> {
        Arc::new(Self {
            memory: Arc::new(Semaphore::new(limits.receive_memory / UNIT)),
            limits: limits.clone(),
            table: Mutex::default(),
        })
    }

    fn table(&self) -> MutexGuard<'_, Table> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Admits a connection, unless there are too many.
    pub(super) fn admit(self: &Arc<Self>, address: IpAddr) -> Option<Admission> {
        let mut table = self.table();
        if table.connections >= self.limits.connections {
            return None;
        }
        let memory = match table.peers.entry(address) {
            Entry::Occupied(mut entry) => {
                let peer = entry.get_mut();
                if peer.connections >= self.limits.connections_per_address {
                    return None;
                }
                peer.connections += 1;
                peer.memory.clone()
            }
            Entry::Vacant(entry) => {
                let memory = Arc::new(Semaphore::new(self.limits.receive_memory_per_address / UNIT));
                entry.insert(Peer { connections: 1, memory: memory.clone() });
                memory
            }
        };
        table.connections += 1;
        Some(Admission { peers: self.clone(), address, memory })
    }
}

impl Admission {
    /// The budget as this connection sees it.
    pub(super) fn budget(&self) -> Budget {
        Budget {
            own: PollSemaphore::new(self.memory.clone()),
            all: PollSemaphore::new(self.peers.memory.clone()),
            half: None,
        }
    }
}

impl Drop for Admission {
    fn drop(&mut self) {
        let mut table = self.peers.table();
        table.connections -= 1;
        if let Entry::Occupied(mut entry) = table.peers.entry(self.address) {
            entry.get_mut().connections -= 1;
            if entry.get().connections == 0 {
                entry.remove();
            }
        }
    }
}

/// Asks for receive memory, first of the address's part, then of the whole.
pub(super) struct Budget {
    own: PollSemaphore,
    all: PollSemaphore,
    half: Option<(usize, OwnedSemaphorePermit)>,
}

/// Receive memory granted; given back when dropped.
pub(super) struct Charge {
    _own: OwnedSemaphorePermit,
    _all: OwnedSemaphorePermit,
}

impl Budget {
    /// Takes `bytes` if they are free now.
    pub(super) fn try_charge(&self, bytes: usize) -> Option<Charge> {
        let own = self.own.clone_inner().try_acquire_many_owned(units(bytes)).ok()?;
        let all = self.all.clone_inner().try_acquire_many_owned(units(bytes)).ok()?;
        Some(Charge { _own: own, _all: all })
    }

    /// Takes `bytes`, waiting in turn. To be asked again with the same number until it is ready.
    pub(super) fn poll_charge(&mut self, cx: &mut Context<'_>, bytes: usize) -> Poll<Charge> {
        const OPEN: &str = "the budget's semaphores are never closed";
        if self.half.as_ref().is_some_and(|(asked, _)| *asked != bytes) {
            self.half = None;
        }
        let own = match self.half.take() {
            Some((_, own)) => own,
            None => ready!(self.own.poll_acquire_many(cx, units(bytes))).expect(OPEN),
        };
        match self.all.poll_acquire_many(cx, units(bytes)) {
            Poll::Ready(all) => Poll::Ready(Charge { _own: own, _all: all.expect(OPEN) }),
            Poll::Pending => {
                self.half = Some((bytes, own));
                Poll::Pending
            }
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use std::future::poll_fn;

    fn peers(connections: usize, per_address: usize) -> Arc<Peers> {
        let limits =
            Limits { connections, connections_per_address: per_address, ..Limits::default() }.consistent();
        Peers::new(&limits)
    }

    #[test]
    fn one_address_leaves_room_for_others() {
        let (a, b) = ("10.0.0.1".parse().unwrap(), "10.0.0.2".parse().unwrap());
        let peers = peers(3, 2);
        let first = peers.admit(a).unwrap();
        let _second = peers.admit(a).unwrap();
        assert!(peers.admit(a).is_none());
        let _other = peers.admit(b).unwrap();
        assert!(peers.admit(b).is_none(), "the whole is used up");
        drop(first);
        let again = peers.admit(b).unwrap();
        drop(again);
        assert_eq!(peers.table().connections, 2);
        assert_eq!(peers.table().peers.len(), 2);
    }

    #[tokio::test]
    async fn memory_of_one_address_is_a_part_of_the_whole() {
        let limits =
            Limits { receive_memory: 4 << 20, receive_memory_per_address: 2 << 20, ..Limits::default() }
                .consistent();
        let peers = Peers::new(&limits);
        let a = peers.admit("10.0.0.1".parse().unwrap()).unwrap();
        let b = peers.admit("10.0.0.2".parse().unwrap()).unwrap();
        let c = peers.admit("10.0.0.3".parse().unwrap()).unwrap();
        let held = a.budget().try_charge(2 << 20).unwrap();
        assert!(a.budget().try_charge(1).is_none(), "its part is used up");
        let _rest = b.budget().try_charge(2 << 20).unwrap();
        let mut budget = c.budget();
        let waits = poll_fn(|cx| budget.poll_charge(cx, 1 << 20));
        tokio::pin!(waits);
        assert!(futures_util::poll!(waits.as_mut()).is_pending(), "the whole is used up");
        drop(held);
        waits.await;
    }
}
