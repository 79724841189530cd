//! Listings of opens, locks, delegations and copies. Each is a walk in bounded steps over a view that moves on: what is made or ends
//! meanwhile may be in the listing or not. One walk at a time.

use super::{Service, names};
use crate::admin::states::{
    Copy, Delegation, File, Holder, Lease, Listing, Lock, Open, ROWS, ROWS_MAX, Range,
};
use anyhow::{Context, Result, bail};
use atoll_base::id::Ino;
use atoll_lockd::{ByteRange, FileLocks, LockClient, LockMode, LockOwner, Share, ShareBits};
use atoll_meta::delegation::{DelegationKind, DelegationPhase};
use atoll_meta::nfs4::{ClientId, State, StateId, StateKind};
use atoll_meta::{FsError, MetadataService};
use atoll_model::read;
use std::collections::BTreeMap;

/// Clients or states looked at in one step.
pub(super) const STEP: usize = 256;

/// Files whose lock tables are looked at in one step: a table may have a megabyte.
const FILES: usize = 16;

/// Rows beyond those shown that are counted.
const COUNTED_MAX: u64 = 100_000;

/// A listing as it grows: rows up to the limit, then a count.
pub(super) struct Growing<T> {
    rows: Vec<T>,
    limit: usize,
    more: u64,
    /// Where the last row is.
    last: String,
}

impl<T> Growing<T> {
    pub(super) fn new(range: &Range) -> Result<Self> {
        let limit = range.limit.unwrap_or(ROWS);
        if limit == 0 || limit > ROWS_MAX {
            bail!("a listing has 1 to {ROWS_MAX} rows");
        }
        Ok(Self { rows: Vec::new(), limit, more: 0, last: String::new() })
    }

    /// One more, whose place in the walk is `at`.
    pub(super) fn push(&mut self, at: impl FnOnce() -> String, row: impl FnOnce() -> T) {
        if self.rows.len() < self.limit {
            self.rows.push(row());
            self.last = at();
        } else {
            self.more += 1;
        }
    }

    pub(super) fn is_enough(&self) -> bool {
        self.more >= COUNTED_MAX
    }

    /// The end of the walk; each row is finished by `shown`.
    pub(super) fn end<U>(self, mut shown: impl FnMut(T) -> U) -> Listing<U> {
        let more_uncounted = self.is_enough();
        let next = (self.more > 0).then_some(self.last);
        Listing {
            rows: self.rows.into_iter().map(&mut shown).collect(),
            more: self.more,
            more_uncounted,
            next,
        }
    }
}

/// A byte range in a file's table.
struct Ranged {
    ino: Ino,
    owner: LockOwner,
    range: ByteRange,
    mode: LockMode,
    waits: bool,
    since: i64,
}

/// An open or a share reservation.
enum Opened {
    V4(State, Share, bool),
    Nlm(Ino, LockOwner, Share, i64),
}

impl Opened {
    fn ino(&self) -> Ino {
        match self {
            Self::V4(state, ..) => state.ino,
            Self::Nlm(ino, ..) => *ino,
        }
    }

    fn since(&self) -> i64 {
        match self {
            Self::V4(state, ..) => state.since,
            Self::Nlm(.., since) => *since,
        }
    }
}

impl Service {
    /// Opens of NFSv4 in order of making, then share reservations of NLM in order of inode.
    pub(crate) async fn list_opens(&self, range: &Range) -> Result<Listing<Open>> {
        let _one = self.listing.lock().await;
        let mut rows = Growing::new(range)?;
        let (from, mut place) = match &range.after {
            None => (Some(StateId(0)), FilePlace::START),
            Some(after) => match after.strip_prefix('s') {
                Some(number) => (Some(StateId(number.parse()?)), FilePlace::START),
                None => (None, after.parse()?),
            },
        };
        self.walk_states(&mut rows, from, |state| match state.kind {
            StateKind::Open { share, confirmed } => Some(Opened::V4(state, share, confirmed)),
            StateKind::Lock { .. } | StateKind::Delegation { .. } => None,
        })
        .await?;
        self.walk_tables(&mut rows, &mut place, |ino, table| {
            let shares = table.shares();
            let since = |owner| shares.since(owner).unwrap_or_default();
            shares.iter().map(|(owner, share)| Opened::Nlm(ino, owner.clone(), share, since(owner))).collect()
        })
        .await?;
        let files = names::files(&self.node, rows.rows.iter().map(Opened::ino).collect()).await?;
        let mut holders = Holders { service: self, known: BTreeMap::new() };
        let owners = rows.rows.iter().filter_map(|row| match row {
            Opened::V4(state, ..) => Some(state.client),
            Opened::Nlm(..) => None,
        });
        holders.learn(owners).await?;
        let now = self.node.meta.now().secs;
        Ok(rows.end(|row| {
            let file = file(&files, row.ino());
            let age_seconds = age(now, row.since());
            match row {
                Opened::V4(state, share, confirmed) => Open {
                    state: Some(state.stateid.id.0),
                    holder: holders.v4(state.client, &state.owner),
                    file,
                    access: bits(share.access),
                    deny: bits(share.deny),
                    confirmed,
                    age_seconds,
                },
                Opened::Nlm(_, owner, share, _) => Open {
                    state: None,
                    holder: holders.of(&owner),
                    file,
                    access: bits(share.access),
                    deny: bits(share.deny),
                    confirmed: true,
                    age_seconds,
                },
            }
        }))
    }

    /// Byte ranges of all protocols that are held or waited for, in order of inode.
    pub(crate) async fn list_locks(&self, range: &Range) -> Result<Listing<Lock>> {
        let _one = self.listing.lock().await;
        let mut rows = Growing::new(range)?;
        let mut place = range.after.as_deref().map_or(Ok(FilePlace::START), str::parse)?;
        self.walk_tables(&mut rows, &mut place, |ino, table| {
            let held = table.holders().map(|held| Ranged {
                ino,
                owner: held.owner.clone(),
                range: held.range,
                mode: held.mode,
                waits: false,
                since: held.since,
            });
            let waiting = table.waiters().map(|waiter| Ranged {
                ino,
                owner: waiter.owner.clone(),
                range: waiter.range,
                mode: waiter.mode,
                waits: true,
                since: waiter.since,
            });
            held.chain(waiting).collect()
        })
        .await?;
        let files = names::files(&self.node, rows.rows.iter().map(|row| row.ino).collect()).await?;
        let mut holders = Holders { service: self, known: BTreeMap::new() };
        let clients = rows.rows.iter().filter_map(|row| match row.owner.client() {
            LockClient::V4(id) => Some(ClientId(*id)),
            LockClient::Nlm(_) => None,
        });
        holders.learn(clients).await?;
        let now = self.node.meta.now().secs;
        Ok(rows.end(|row| {
            let (first, len) = row.range.to_v4();
            Lock {
                holder: holders.of(&row.owner),
                file: file(&files, row.ino),
                first,
                last: (len != ByteRange::V4_TO_EOF).then(|| first + (len - 1)),
                exclusive: row.mode == LockMode::Exclusive,
                waits: row.waits,
                age_seconds: age(now, row.since),
            }
        }))
    }

    /// Copies in the background in order of beginning. They are few.
    pub(crate) async fn list_copies(&self, range: &Range) -> Result<Listing<Copy>> {
        let _one = self.listing.lock().await;
        let mut rows = Growing::new(range)?;
        let after = after_state(range)?;
        for copy in self.node.meta.offloads(after, ROWS_MAX).await? {
            let id = copy.stateid.id;
            rows.push(|| format!("s{}", id.0), || copy);
        }
        let both = rows.rows.iter().flat_map(|copy| [copy.from.ino, copy.to.ino]).collect();
        let files = names::files(&self.node, both).await?;
        let mut holders = Holders { service: self, known: BTreeMap::new() };
        holders.learn(rows.rows.iter().map(|copy| copy.client)).await?;
        let now = self.node.meta.now().secs;
        Ok(rows.end(|copy| Copy {
            state: copy.stateid.id.0,
            holder: holders.v4(copy.client, &[]),
            from: file(&files, copy.from.ino),
            to: file(&files, copy.to.ino),
            copied: copy.count,
            of: copy.count + copy.left,
            phase: match copy.ended {
                None => "in work".to_owned(),
                Some(Ok(())) => "done".to_owned(),
                Some(Err(error)) => error.to_string(),
            },
            age_seconds: age(now, copy.since),
        }))
    }

    /// Delegations in order of giving.
    pub(crate) async fn list_delegations(&self, range: &Range) -> Result<Listing<Delegation>> {
        let _one = self.listing.lock().await;
        let mut rows = Growing::new(range)?;
        let from = after_state(range)?;
        self.walk_states(&mut rows, Some(from), |state| match state.kind {
            StateKind::Delegation { kind, phase, timestamps, .. } => Some((state, kind, phase, timestamps)),
            StateKind::Open { .. } | StateKind::Lock { .. } => None,
        })
        .await?;
        let files = names::files(&self.node, rows.rows.iter().map(|row| row.0.ino).collect()).await?;
        let mut holders = Holders { service: self, known: BTreeMap::new() };
        holders.learn(rows.rows.iter().map(|row| row.0.client)).await?;
        let now = self.node.meta.now().secs;
        Ok(rows.end(|(state, kind, phase, timestamps)| Delegation {
            state: state.stateid.id.0,
            holder: holders.v4(state.client, &state.owner),
            file: file(&files, state.ino),
            kind: match kind {
                DelegationKind::Read => "read",
                DelegationKind::Write => "write",
                DelegationKind::Directory => "directory",
            }
            .to_owned(),
            phase: match phase {
                DelegationPhase::Held => "held",
                DelegationPhase::Recalled => "recalled",
                DelegationPhase::Revoked => "revoked",
            }
            .to_owned(),
            timestamps,
            age_seconds: age(now, state.since),
        }))
    }

    /// Goes through the states of NFSv4 from one on; `of` says which are rows.
    async fn walk_states<T>(
        &self,
        rows: &mut Growing<T>,
        mut from: Option<StateId>,
        of: impl Fn(State) -> Option<T>,
    ) -> Result<(), FsError> {
        while let Some(after) = from
            && !rows.is_enough()
        {
            let walked = self.node.meta.with_state(|kv| read::all_states(kv, after, STEP)).await?;
            from = walked.next;
            for state in walked.found {
                let id = state.stateid.id;
                if let Some(row) = of(state) {
                    rows.push(|| format!("s{}", id.0), || row);
                }
            }
            tokio::task::yield_now().await;
        }
        Ok(())
    }

    /// Goes through lock tables from a place on; `of` says what a table gives.
    async fn walk_tables<T>(
        &self,
        rows: &mut Growing<T>,
        place: &mut FilePlace,
        of: impl Fn(Ino, &FileLocks) -> Vec<T>,
    ) -> Result<(), FsError> {
        let mut from = Some(Ino(place.ino.0.saturating_sub(1)));
        while let Some(after) = from
            && !rows.is_enough()
        {
            let walked = self.node.meta.with_state(|kv| read::lock_tables(kv, after, FILES)).await?;
            from = walked.next;
            for (ino, table) in walked.found {
                let skip = if ino == place.ino { place.rows } else { 0 };
                for (n, row) in of(ino, &table).into_iter().enumerate().skip(skip) {
                    rows.push(|| FilePlace { ino, rows: n + 1 }.to_string(), || row);
                }
            }
            tokio::task::yield_now().await;
        }
        Ok(())
    }

    pub(super) fn lease(&self, client: ClientId) -> Lease {
        let lease = self.engine.lease_of(client);
        let seconds = |d: std::time::Duration| i64::try_from(d.as_secs()).unwrap_or(i64::MAX);
        Lease {
            heard_seconds_ago: lease.heard.map(|d| d.as_secs()),
            left_seconds: seconds(lease.term).saturating_sub(seconds(lease.age)),
        }
    }
}

/// A place in the walk over lock tables: after so many rows of this file.
#[derive(Clone, Copy)]
struct FilePlace {
    ino: Ino,
    rows: usize,
}

impl FilePlace {
    const START: Self = Self { ino: Ino(0), rows: 0 };
}

impl std::fmt::Display for FilePlace {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "f{}.{}", self.ino.0, self.rows)
    }
}

impl std::str::FromStr for FilePlace {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> Result<Self> {
        let parts = text.strip_prefix('f').and_then(|rest| rest.split_once('.'));
        let (ino, rows) = parts.with_context(|| format!("{text:?} is no place in this listing"))?;
        Ok(Self { ino: Ino(ino.parse()?), rows: rows.parse()? })
    }
}

/// Who the NFSv4 clients of a listing are.
struct Holders<'s> {
    service: &'s Service,
    known: BTreeMap<ClientId, Option<Holder>>,
}

impl Holders<'_> {
    async fn learn(&mut self, clients: impl Iterator<Item = ClientId>) -> Result<(), FsError> {
        for id in clients {
            if self.known.contains_key(&id) {
                continue;
            }
            let holder = self.service.node.meta.client(id).await?.map(|client| Holder {
                protocol: protocol(client.minor),
                client: Some(hex(id)),
                name: text(&client.owner),
                address: client.about.address.map(|a| a.to_string()),
                lease: Some(self.service.lease(id)),
                owner: String::new(),
            });
            self.known.insert(id, holder);
        }
        Ok(())
    }

    fn v4(&self, id: ClientId, owner: &[u8]) -> Holder {
        let owner = owner.escape_ascii().to_string();
        match self.known.get(&id) {
            Some(Some(holder)) => Holder { owner, ..holder.clone() },
            _ => Holder {
                protocol: "4".to_owned(),
                client: Some(hex(id)),
                name: "(ended; what it had is being freed)".to_owned(),
                address: None,
                lease: None,
                owner,
            },
        }
    }

    fn of(&self, owner: &LockOwner) -> Holder {
        match owner.client() {
            LockClient::V4(id) => self.v4(ClientId(*id), owner.as_v4_holder().1),
            LockClient::Nlm(client) => {
                let (oh, svid) = owner.as_nlm_holder();
                Holder {
                    protocol: "nlm".to_owned(),
                    client: None,
                    name: text(client.name()),
                    address: client.address().map(|a| a.to_string()),
                    lease: None,
                    owner: format!("{svid}/{}", oh.escape_ascii()),
                }
            }
        }
    }
}

/// Where a listing by number goes on.
fn after_state(range: &Range) -> Result<StateId> {
    let Some(after) = &range.after else { return Ok(StateId(0)) };
    let number = after.strip_prefix('s').and_then(|number| number.parse().ok());
    number.map(StateId).with_context(|| format!("{after:?} is no place in this listing"))
}

fn file(files: &BTreeMap<Ino, File>, ino: Ino) -> File {
    files.get(&ino).cloned().unwrap_or(File { inode: ino.0, ..File::default() })
}

/// Seconds from then to now; the clock of another machine may be behind.
fn age(now: i64, since: i64) -> u64 {
    u64::try_from(now.saturating_sub(since)).unwrap_or(0)
}

pub(super) fn hex(id: ClientId) -> String {
    format!("{:016x}", id.0)
}

pub(super) fn protocol(minor: u32) -> String {
    format!("4.{minor}")
}

fn bits(bits: ShareBits) -> String {
    let word = match bits {
        ShareBits::None => "none",
        ShareBits::Read => "read",
        ShareBits::Write => "write",
        ShareBits::Both => "both",
    };
    word.to_owned()
}

/// Text as it is, other bytes escaped.
pub(super) fn text(bytes: &[u8]) -> String {
    match std::str::from_utf8(bytes) {
        Ok(text) if !text.chars().any(char::is_control) => text.to_owned(),
        _ => bytes.escape_ascii().to_string(),
    }
}
