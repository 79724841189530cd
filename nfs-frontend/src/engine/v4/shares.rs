//! How many slots each session may use (RFC 8881 §2.10.6.1): what was agreed, unless all that were agreed are more than there shall be. Then
//! each session has the same part of the bound, and one slot at least.
//!
//! Slots cost memory here (a reply each) and rows in the replicated state (an outcome each). One client cannot have more than [`Bounds::client`]
//! in use, whatever sessions it makes, and all together not more than [`Bounds::all`], but for one each. Pure arithmetic: who is told, and
//! when slots are let go, is the business of [`super::slots`].

use atoll_meta::nfs4::ClientId;
use std::collections::HashMap;

/// Slots in use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Bounds {
    /// Of one client's sessions.
    pub(crate) client: u64,
    /// Of all sessions that this frontend serves.
    pub(crate) all: u64,
}

impl Default for Bounds {
    /// Sixteen sessions of a client, and four thousand in all, may be as large as sessions get.
    fn default() -> Self {
        Self { client: 1 << 10, all: 1 << 18 }
    }
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Held {
    sessions: u64,
    /// As agreed.
    slots: u64,
}

impl Held {
    fn with(self, slots: u32) -> Self {
        Self { sessions: self.sessions + 1, slots: self.slots + u64::from(slots) }
    }

    fn without(self, slots: u32) -> Self {
        Self { sessions: self.sessions - 1, slots: self.slots - u64::from(slots) }
    }

    /// What a session of so many slots may use of them.
    fn share(self, slots: u32, bound: u64) -> u32 {
        if self.slots <= bound {
            return slots;
        }
        let part = (bound / self.sessions.max(1)).max(1);
        slots.min(u32::try_from(part).unwrap_or(u32::MAX))
    }
}

/// Whose targets a session's coming or going may move.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Moved {
    Nobodys,
    TheClients,
    All,
}

/// See the module.
#[derive(Debug, Default)]
pub(crate) struct Shares {
    bounds: Bounds,
    all: Held,
    clients: HashMap<ClientId, Held>,
}

impl Shares {
    #[cfg(test)]
    pub(crate) fn set_bounds(&mut self, bounds: Bounds) {
        self.bounds = bounds;
    }

    fn of(&self, client: ClientId) -> Held {
        self.clients.get(&client).copied().unwrap_or_default()
    }

    fn pressed(&self, client: ClientId) -> Moved {
        match (self.all.slots > self.bounds.all, self.of(client).slots > self.bounds.client) {
            (true, _) => Moved::All,
            (false, true) => Moved::TheClients,
            (false, false) => Moved::Nobodys,
        }
    }

    /// A session of so many slots, at least one.
    pub(crate) fn joined(&mut self, client: ClientId, slots: u32) -> Moved {
        self.all = self.all.with(slots);
        self.clients.insert(client, self.of(client).with(slots));
        self.pressed(client)
    }

    /// It is gone, or not in use any more.
    pub(crate) fn left(&mut self, client: ClientId, slots: u32) -> Moved {
        let before = self.pressed(client);
        self.all = self.all.without(slots);
        match self.of(client).without(slots) {
            none if none.sessions == 0 => drop(self.clients.remove(&client)),
            some => drop(self.clients.insert(client, some)),
        }
        before
    }

    /// How many of its slots a session may use.
    pub(crate) fn target(&self, client: ClientId, slots: u32) -> u32 {
        let share = self.of(client).share(slots, self.bounds.client);
        share.min(self.all.share(slots, self.bounds.all))
    }

    /// How many slots a further session gets of those that it asks for.
    pub(crate) fn room(&self, client: ClientId, asked: u32) -> u32 {
        let share = self.of(client).with(asked).share(asked, self.bounds.client);
        share.min(self.all.with(asked).share(asked, self.bounds.all))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const A: ClientId = ClientId(1);
    const B: ClientId = ClientId(2);

    #[test]
    fn who_asks_for_little_is_left_alone() {
        let mut shares = Shares { bounds: Bounds { client: 16, all: 100 }, ..Shares::default() };
        assert_eq!(shares.joined(A, 8), Moved::Nobodys);
        assert_eq!(shares.joined(A, 8), Moved::Nobodys);
        assert_eq!((shares.target(A, 8), shares.room(A, 8)), (8, 5));
        assert_eq!(shares.joined(A, 4), Moved::TheClients);
        assert_eq!((shares.target(A, 8), shares.target(A, 4)), (5, 4));
        // Another client does not feel it.
        assert_eq!(shares.joined(B, 16), Moved::Nobodys);
        assert_eq!(shares.target(B, 16), 16);
        assert_eq!(shares.left(A, 4), Moved::TheClients);
        assert_eq!(shares.target(A, 8), 8);
    }

    #[test]
    fn each_has_one_however_many_there_are() {
        let mut shares = Shares { bounds: Bounds { client: 2, all: 3 }, ..Shares::default() };
        for _ in 0..5 {
            shares.joined(A, 2);
        }
        assert_eq!((shares.target(A, 2), shares.room(A, 2), shares.room(B, 2)), (1, 1, 1));
    }

    proptest! {
        /// The sum of targets is within each bound, but for one slot each; without pressure, targets are what was agreed; and who is said
        /// not to be moved is not.
        #[test]
        fn targets_keep_the_bounds(
            client in 1..40_u64,
            all in 1..80_u64,
            steps in prop::collection::vec((any::<bool>(), 0..3_u64, 1..20_u32), 1..60),
        ) {
            let bounds = Bounds { client, all };
            let mut shares = Shares { bounds, ..Shares::default() };
            let mut sessions: Vec<(ClientId, u32)> = Vec::new();
            for (joins, who, slots) in steps {
                let targets = |shares: &Shares, sessions: &[(ClientId, u32)]| -> Vec<u32> {
                    sessions.iter().map(|(client, slots)| shares.target(*client, *slots)).collect()
                };
                let (client, moved, before, others) = if joins || sessions.is_empty() {
                    let before = targets(&shares, &sessions);
                    let others = sessions.clone();
                    let moved = shares.joined(ClientId(who), slots);
                    sessions.push((ClientId(who), slots));
                    (ClientId(who), moved, before, others)
                } else {
                    let gone = sessions.remove(slots as usize % sessions.len());
                    let before = targets(&shares, &sessions);
                    (gone.0, shares.left(gone.0, gone.1), before, sessions.clone())
                };
                for ((whose, slots), before) in others.iter().zip(before) {
                    let may_move = moved == Moved::All || moved == Moved::TheClients && *whose == client;
                    prop_assert!(may_move || shares.target(*whose, *slots) == before);
                }
                let sum = |of: Option<ClientId>| -> (u64, u64, u64) {
                    let its = sessions.iter().filter(|(client, _)| of.is_none_or(|of| of == *client));
                    its.fold((0, 0, 0), |(n, agreed, used), (client, slots)| {
                        (n + 1, agreed + u64::from(*slots), used + u64::from(shares.target(*client, *slots)))
                    })
                };
                let (n, agreed, used) = sum(None);
                prop_assert!(used <= bounds.all.max(n));
                let mut pressed = agreed > bounds.all;
                for who in 0..3 {
                    let (n, agreed, used) = sum(Some(ClientId(who)));
                    prop_assert!(used <= bounds.client.max(n));
                    pressed |= agreed > bounds.client;
                }
                prop_assert!(pressed || used == agreed);
            }
        }
    }
}
