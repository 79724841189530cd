//! A naive reference: every client's opens, locks and delegations in plain maps, bytes locked one by one.

mod compare;
mod delegations;
mod locks;

use self::delegations::{covers, intrusion_of};
use super::super::rig::{ROOT, Rig};
use super::{Owner40, bytes, newest, open_file, stateid};
use crate::Table;
use crate::limits::STATES_MAX;
use atoll_base::access::Cred;
use atoll_base::attr::Attr;
use atoll_base::id::Ino;
use atoll_lockd::{LockMode, Share, ShareBits};
use atoll_meta::delegation::{DelegationKind, DelegationOutcome, DelegationPhase, DelegationWish, Intrusion};
use atoll_meta::nfs4::{ClientId, ClientOp, SessionId, StateError, StateId, StateOp, StateOutcome};
use atoll_meta::{FsError, Once, Op, RemoveKind, Response, SlotKey};
use std::collections::BTreeMap;

/// Bytes of a file that are ever locked.
const BYTES: usize = 8;

#[derive(Clone, Debug)]
struct Open {
    id: StateId,
    seqid: u32,
    share: Share,
    /// With which access and deny it was opened.
    with: Vec<Share>,
}

/// A delegation of one client.
#[derive(Clone, Copy, Debug)]
struct Delegation {
    id: StateId,
    seqid: u32,
    kind: DelegationKind,
    phase: DelegationPhase,
    timestamps: bool,
}

#[derive(Clone, Debug)]
struct Lock {
    id: StateId,
    seqid: u32,
    open: StateId,
    held: [Option<LockMode>; BYTES],
}

/// A client in one of its lives.
struct Life {
    id: ClientId,
    /// Of v4.1: the session and the next number of each slot.
    session: Option<(SessionId, [u32; 3])>,
    /// Of v4.0: the next number of each open owner, if it is known.
    open_owners: BTreeMap<usize, Owner40>,
    lock_owners: BTreeMap<usize, u32>,
    opens: BTreeMap<(usize, usize), Open>,
    locks: BTreeMap<(usize, usize), Lock>,
    /// By file.
    delegations: BTreeMap<usize, Delegation>,
    /// What it sent last with a key, and the answer.
    last: Option<(Once, Op, Response)>,
}

impl Life {
    fn states(&self) -> usize {
        self.opens.len() + self.locks.len() + self.delegations.len()
    }
}

/// Which operation; small numbers choose among clients, owners and files.
#[derive(Clone, Debug)]
pub(super) enum Act {
    Boot(usize),
    Expire(usize),
    Open { client: usize, owner: usize, file: usize, share: Share, wish: Option<DelegationWish> },
    Downgrade { client: usize, owner: usize, file: usize, share: Share },
    Close { client: usize, owner: usize, file: usize },
    Lock { client: usize, owner: usize, locker: usize, file: usize, at: (usize, usize), mode: LockMode },
    Unlock { client: usize, locker: usize, file: usize, at: (usize, usize) },
    Free { client: usize, locker: usize, file: usize },
    ReleaseOwner { client: usize, locker: usize },
    Delegate { client: usize, file: usize, wish: DelegationWish },
    Return { client: usize, file: usize },
    Recall { client: usize, file: usize, intrusion: Intrusion },
    Revoke { client: usize, file: usize },
    Write { client: usize, file: usize },
    Replace(usize),
    Repeat(usize),
    Sweep,
}

pub(super) struct World {
    rig: Rig,
    /// The first three are v4.1, the others v4.0.
    clients: Vec<Option<Life>>,
    boots: u8,
    files: Vec<Attr>,
    /// What clients that ended may still have, by file.
    dead: Vec<(Ino, Share, [Option<LockMode>; BYTES])>,
    dead_delegations: Vec<(Ino, DelegationKind)>,
    names: u32,
}

fn conflict(held: &[Option<LockMode>; BYTES], at: (usize, usize), mode: LockMode) -> bool {
    held[at.0..at.0 + at.1]
        .iter()
        .flatten()
        .any(|held| *held == LockMode::Exclusive || mode == LockMode::Exclusive)
}

fn name(n: usize) -> String {
    format!("owner{n}")
}

impl World {
    pub(super) fn new() -> Self {
        let mut rig = Rig::new();
        let files = (0..3).map(|n| rig.file(&format!("file{n}"))).collect();
        let clients = (0..5).map(|_| None).collect();
        Self { rig, clients, boots: 0, files, dead: Vec::new(), dead_delegations: Vec::new(), names: 0 }
    }

    fn is_v41(client: usize) -> bool {
        client < 3
    }

    fn life(&mut self, client: usize) -> &mut Life {
        if self.clients[client].is_none() {
            self.boot(client);
        }
        self.clients[client].as_mut().unwrap()
    }

    fn boot(&mut self, client: usize) {
        self.bury(client);
        self.boots += 1;
        let name = format!("client{client}");
        let (id, session) = if Self::is_v41(client) {
            let (id, session) = self.rig.v41_boot(&name, self.boots);
            (id, Some((session, [1; 3])))
        } else {
            (self.rig.v40_boot(&name, self.boots), None)
        };
        self.clients[client] = Some(Life {
            id,
            session,
            open_owners: BTreeMap::new(),
            lock_owners: BTreeMap::new(),
            opens: BTreeMap::new(),
            locks: BTreeMap::new(),
            delegations: BTreeMap::new(),
            last: None,
        });
    }

    /// What a client had may be there for a while.
    fn bury(&mut self, client: usize) {
        let Some(life) = self.clients[client].take() else { return };
        let nothing = Share { access: ShareBits::None, deny: ShareBits::None };
        for ((_, file), open) in &life.opens {
            self.dead.push((self.files[*file].ino, open.share, [None; BYTES]));
        }
        for ((_, file), lock) in &life.locks {
            self.dead.push((self.files[*file].ino, nothing, lock.held));
        }
        for (file, delegation) in life.delegations {
            if delegation.phase != DelegationPhase::Revoked {
                self.dead_delegations.push((self.files[file].ino, delegation.kind));
            }
        }
    }

    fn share_conflict(&self, file: usize, share: Share) -> bool {
        let lives = self.clients.iter().flatten();
        lives
            .flat_map(|life| &life.opens)
            .any(|((_, f), open)| *f == file && open.share.conflicts_with(&share))
    }

    fn lock_conflict(
        &self,
        client: usize,
        locker: usize,
        file: usize,
        at: (usize, usize),
        mode: LockMode,
    ) -> bool {
        self.clients.iter().enumerate().any(|(other, life)| {
            life.iter().flat_map(|life| &life.locks).any(|((l, f), lock)| {
                *f == file && (other, *l) != (client, locker) && conflict(&lock.held, at, mode)
            })
        })
    }

    fn dead_conflict(
        &self,
        file: usize,
        share: Option<Share>,
        lock: Option<((usize, usize), LockMode)>,
    ) -> bool {
        let ino = self.files[file].ino;
        self.dead.iter().filter(|(at, ..)| *at == ino).any(|(_, held, bytes)| {
            share.is_some_and(|share| held.conflicts_with(&share))
                || lock.is_some_and(|(at, mode)| conflict(bytes, at, mode))
        })
    }

    /// Sends an operation of a client, with a key as its protocol has it.
    fn send(&mut self, client: usize, once: Option<Once>, op: StateOp) -> Result<StateOutcome, FsError> {
        let op = Op::State(op);
        let life = self.clients[client].as_mut().unwrap();
        let once = match (&mut life.session, once) {
            (Some((session, slots)), _) => {
                let slot = self.rig.txn as usize / 10 % 3;
                let seqid = slots[slot];
                slots[slot] += 1;
                let before = bytes("x");
                let fingerprint = u64::from(seqid);
                let slot = slot as u32;
                Some(SlotKey { session: *session, slot, seqid, fingerprint, index: 0, before }.into())
            }
            (None, once) => once,
        };
        let Some(once) = once else { return super::state_outcome(self.rig.op(&Cred::root(), op)) };
        let response = self.rig.keyed(&Cred::root(), once.clone(), op.clone());
        life.last = Some((once, op, response.clone()));
        super::state_outcome(response)
    }

    /// The key of the next step of a v4.0 open owner.
    fn owner_key(&mut self, client: usize, owner: usize, state: Option<StateId>) -> Option<Once> {
        if Self::is_v41(client) {
            return None;
        }
        let life = self.life(client);
        let id = life.id;
        let its = life.open_owners.entry(owner).or_insert_with(|| Owner40::new(id, &name(owner), 1));
        Some(match state {
            None => its.by_name(),
            Some(state) => its.of(state),
        })
    }

    /// A refusal that does not count leaves the number as it was.
    fn uncount(&mut self, client: usize, owner: usize) {
        if let Some(its) = self.clients[client].as_mut().unwrap().open_owners.get_mut(&owner) {
            its.seqid -= 1;
        }
    }

    pub(super) fn act(&mut self, act: &Act) {
        match *act {
            Act::Boot(client) => self.boot(client),
            Act::Expire(client) => {
                let id = self.life(client).id;
                self.bury(client);
                self.rig.on_client(ClientOp::Expire(id)).unwrap();
            }
            Act::Open { client, owner, file, share, wish } => self.open(client, owner, file, share, wish),
            Act::Downgrade { client, owner, file, share } => self.downgrade(client, owner, file, share),
            Act::Close { client, owner, file } => self.close(client, owner, file),
            Act::Lock { client, owner, locker, file, at, mode } => {
                self.lock(client, owner, locker, file, at, mode);
            }
            Act::Unlock { client, locker, file, at } => self.unlock(client, locker, file, at),
            Act::Free { client, locker, file } => self.free(client, locker, file),
            Act::ReleaseOwner { client, locker } => self.release_owner(client, locker),
            Act::Delegate { client, file, wish } => self.delegate(client, file, wish),
            Act::Return { client, file } => self.give_back(client, file),
            Act::Recall { client, file, intrusion } => self.recall(client, file, intrusion),
            Act::Revoke { client, file } => self.revoke(client, file),
            Act::Write { client, file } => self.write(client, file),
            Act::Replace(file) => self.replace(file),
            Act::Repeat(client) => self.repeat(client),
            Act::Sweep => {
                self.rig.root(Op::Sweep).unwrap();
            }
        }
        if self.rig.rows(Table::ClientRelease) == 0 {
            self.dead.clear();
            self.dead_delegations.clear();
        }
    }

    fn open(&mut self, client: usize, owner: usize, file: usize, share: Share, wish: Option<DelegationWish>) {
        self.life(client);
        let attr = self.files[file].clone();
        let once = self.owner_key(client, owner, None);
        let pending = self.rig.rows(Table::ClientRelease) > 0;
        let id = self.life(client).id;
        let mut op = open_file(id, &name(owner), &attr, share);
        if let StateOp::Open { delegate, .. } = &mut op {
            *delegate = wish;
        }
        // Of a wish as of before the open, which is no hindrance.
        let fate = wish.map(|wish| self.fate(client, file, wish, Some(owner)));
        let answer = self.send(client, once, op);
        let intrudes = self.intrudes(Some(client), file, intrusion_of(share));
        let dead_delegation = self.intrudes_on_dead(file, intrusion_of(share));
        let clash = self.share_conflict(file, share);
        let dead = self.dead_conflict(file, Some(share), None);
        let life = self.life(client);
        let known = life.opens.get(&(owner, file)).cloned();
        let full = known.is_none() && life.states() >= STATES_MAX as usize;
        let outcome = match answer {
            Err(FsError::State(StateError::Delegated)) => {
                assert!(intrudes, "delegated to nobody");
                return self.uncount(client, owner);
            }
            Err(FsError::Delay) => {
                return assert!(pending && (clash || dead || dead_delegation), "delayed for nothing");
            }
            Err(FsError::State(StateError::ShareDenied)) => return assert!(clash, "denied by nobody"),
            Err(FsError::TableFull) => {
                assert!(full, "there is room");
                return self.uncount(client, owner);
            }
            other => other.unwrap(),
        };
        assert!(!clash && !full && !intrudes, "granted against another");
        let StateOutcome::Opened { open: stateid, confirm, delegation, .. } = outcome else { unreachable!() };
        let kept = match (wish, fate) {
            (Some(_), _) if confirm => {
                assert_eq!(delegation, DelegationOutcome::Contention);
                false
            }
            (Some(wish), Some(fate)) => self.settle(client, file, wish, fate, &delegation),
            _ => {
                assert_eq!(delegation, DelegationOutcome::NotAsked);
                false
            }
        };
        if let Some(wish) = wish
            && kept
            && wish.instead_of_open
            && known.is_none()
        {
            let held = &self.life(client).delegations[&file];
            if covers(held.kind, share) {
                return assert_eq!((stateid.id, stateid.seqid), (held.id, held.seqid));
            }
        }
        let life = self.life(client);
        let mut open = match known {
            Some(mut open) => {
                open.share.access = open.share.access.union(share.access);
                open.share.deny = open.share.deny.union(share.deny);
                open.seqid += 1;
                open
            }
            None => Open { id: stateid.id, seqid: 1, share, with: Vec::new() },
        };
        open.with.push(share);
        assert_eq!((stateid.id, stateid.seqid), (open.id, open.seqid));
        let others = life.opens.keys().any(|(o, _)| *o == owner);
        assert!(!confirm || !others, "an owner in use must confirm again");
        life.opens.insert((owner, file), open.clone());
        if confirm {
            let once = self.owner_key(client, owner, Some(open.id));
            let answer = self.send(client, once, StateOp::Confirm { client: id, open: stateid });
            let open = self.life(client).opens.get_mut(&(owner, file)).unwrap();
            open.seqid += 1;
            assert_eq!(super::stateid(&answer.unwrap()).seqid, open.seqid);
        }
    }

    fn downgrade(&mut self, client: usize, owner: usize, file: usize, to: Share) {
        let life = self.life(client);
        let (id, Some(open)) = (life.id, life.opens.get(&(owner, file)).cloned()) else { return };
        let once = self.owner_key(client, owner, Some(open.id));
        let answer =
            self.send(client, once, StateOp::Downgrade { client: id, open: newest(open.id), share: to });
        let union = |of: fn(&Share) -> ShareBits, to: ShareBits| {
            let fitting = open.with.iter().map(of).filter(|bits| to.contains(*bits));
            fitting.fold(ShareBits::None, ShareBits::union) == to
        };
        if !union(|s| s.access, to.access) || !union(|s| s.deny, to.deny) {
            return assert_eq!(answer, Err(FsError::Invalid));
        }
        let its = self.life(client).opens.get_mut(&(owner, file)).unwrap();
        its.seqid += 1;
        its.share = to;
        // Access and deny are kept apart.
        let none = ShareBits::None;
        let access = open.with.iter().filter(|s| to.access.contains(s.access));
        let deny = open.with.iter().filter(|s| to.deny.contains(s.deny));
        its.with = access
            .map(|s| Share { access: s.access, deny: none })
            .chain(deny.map(|s| Share { access: none, deny: s.deny }))
            .collect();
        assert_eq!(stateid(&answer.unwrap()).seqid, its.seqid);
    }

    fn close(&mut self, client: usize, owner: usize, file: usize) {
        let life = self.life(client);
        let (id, Some(open)) = (life.id, life.opens.get(&(owner, file)).cloned()) else { return };
        let once = self.owner_key(client, owner, Some(open.id));
        let answer = self.send(client, once, StateOp::Close { client: id, open: newest(open.id) });
        assert_eq!(stateid(&answer.unwrap()).seqid, open.seqid + 1);
        let life = self.life(client);
        life.opens.remove(&(owner, file));
        life.locks.retain(|_, lock| lock.open != open.id);
        self.forget_lockers(client);
        // Whether the owner is remembered shows at its next OPEN, which a new number would be right for.
    }

    /// A v4.0 lock owner without lock states is a new one.
    fn forget_lockers(&mut self, client: usize) {
        let life = self.life(client);
        let locks = &life.locks;
        life.lock_owners.retain(|locker, _| locks.keys().any(|(l, _)| l == locker));
    }

    /// A file is removed, and everybody closes what was open of it; another takes its place.
    fn replace(&mut self, file: usize) {
        let ino = self.files[file].ino;
        let names = self.rig.names(ROOT);
        let (name, _) = names.into_iter().find(|(_, at)| *at == ino).unwrap();
        self.undelegate(file, &name);
        self.rig.root(Op::Remove { dir: ROOT, name, kind: RemoveKind::Any }).unwrap();
        self.rig.check();
        for client in 0..self.clients.len() {
            let Some(life) = &self.clients[client] else { continue };
            let owners: Vec<usize> = life.opens.keys().filter(|(_, f)| *f == file).map(|(o, _)| *o).collect();
            for owner in owners {
                self.close(client, owner, file);
            }
        }
        self.names += 1;
        self.files[file] = self.rig.file(&format!("next{}", self.names));
    }

    /// A client sends its last request again, and gets the same answer; nothing else happens.
    fn repeat(&mut self, client: usize) {
        let Some((once, op, response)) = self.life(client).last.clone() else { return };
        let passing =
            matches!(response.result, Err(FsError::TableFull | FsError::State(StateError::Delegated)))
                || (matches!(response.result, Err(FsError::Delay)) && Self::is_v41(client));
        if passing {
            return;
        }
        let (kv, txn) = (self.rig.kv.clone(), self.rig.txn);
        // The owner may be forgotten since: idle ones give way, and lock owners go with their last state.
        if let Once::Owner(_) = once
            && !self.is_owner_known(client, &once)
        {
            return;
        }
        assert_eq!(self.rig.keyed(&Cred::root(), once, op), response);
        assert!(self.rig.txn > txn);
        for table in Table::ALL.into_iter().filter(|table| *table != Table::Meta) {
            let rows = |kv| super::super::rig::rows_of(kv, table);
            assert_eq!(rows(&self.rig.kv), rows(&kv), "{}", table.name());
        }
    }

    fn is_owner_known(&self, client: usize, once: &Once) -> bool {
        let life = self.clients[client].as_ref().unwrap();
        let Once::Owner(key) = once else { return true };
        match &key.sequence {
            atoll_meta::once::OwnerSequence::Open(name) => {
                life.opens.keys().any(|(owner, _)| bytes(&self::name(*owner)) == *name)
            }
            atoll_meta::once::OwnerSequence::Of(id) => {
                life.opens.values().any(|open| open.id == *id)
                    || life.locks.values().any(|lock| lock.id == *id)
            }
        }
    }
}
