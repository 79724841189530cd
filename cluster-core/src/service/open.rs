//! Opening the metadata directory: made on the first start, checked on every other.
//!
//! | Path | What |
//! |---|---|
//! | `FORMAT` | the version of the format, the cluster's id and the member's number |
//! | `log/` | the Raft log ([`crate::log`]) |
//! | `state/` | the replicated state ([`crate::state`]) |
//!
//! `FORMAT` comes first and atomically; whatever else is missing is made again. The entries of all three are made durable by the
//! log, which is opened last and syncs the directory that it is in, before anything is counted on. A directory with other things in it and no
//! `FORMAT` is not ours and left alone. That no other process uses the directory is the caller's business.

use super::Limits;
use super::local::LocalMetadata;
use super::machine::{AppliedCounters, MetaMachine, genesis};
use super::maintenance::{Maintenance, MaintenanceOptions};
use super::published::{CacheSizes, Published};
use super::shared::{Parts, Shared};
use crate::log::{self, WalError};
use crate::raft::group::{GroupError, GroupOptions, RaftGroup, outcome};
use crate::raft::in_process::InProcess;
use crate::raft::log_store::LogStore;
use crate::raft::types::{Completion, MemberId, TypeConfig};
use crate::state::{self, SnapshotData, StateError, StateStore};
use crate::waiting::while_waiting;
use atoll_base::checksum;
use atoll_base::disk::{Disk, Open, read_exact_at};
use atoll_base::time::Clock;
use openraft::RaftNetworkFactory;
use openraft::network::NetSnapshot;
use std::io::{self, IoSlice};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::oneshot;

/// The file that says whose the metadata are; it exists as soon as a cluster is founded.
pub const FORMAT: &str = "FORMAT";
const FORMAT_NEW: &str = "FORMAT.new";
const LOG: &str = "log";
const STATE: &str = "state";
/// First line of `FORMAT`.
const MAGIC: &str = "atoll metadata 1";
/// Longest `FORMAT` that is read.
const FORMAT_MAX: u64 = 4096;
/// Site of the sync of `FORMAT`.
pub const SYNC_FORMAT: &str = "meta.format";
/// Site of the sync of the directory that names it.
pub const SYNC_META_DIR: &str = "meta.dir";

/// How long an opening may take before its progress is told, and how often it is then.
const QUIET: Duration = Duration::from_secs(1);
const TELL_EVERY: Duration = Duration::from_millis(500);

/// How to open and run.
#[derive(Clone, Debug)]
pub struct Options {
    /// Id of a cluster that is founded by this opening; an existing directory keeps its own.
    pub new_cluster: [u8; 16],
    /// The Raft group.
    pub group: GroupOptions,
    /// Sizes of the log.
    pub log: log::Config,
    /// Sizes of the state.
    pub state: state::Config,
    /// Caches above it.
    pub caches: CacheSizes,
    /// Bounds of the queue of changes.
    pub limits: Limits,
    /// Background work.
    pub maintenance: MaintenanceOptions,
}

impl Options {
    /// A single member, production sizes.
    pub fn single(new_cluster: [u8; 16]) -> Self {
        Self {
            new_cluster,
            group: GroupOptions::single(1),
            log: log::Config::default(),
            state: state::Config::default(),
            caches: CacheSizes::default(),
            limits: Limits::default(),
            maintenance: MaintenanceOptions::default(),
        }
    }
}

/// What an opening that takes longer than a second is doing.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Progress {
    /// Repairing the state's file; 0.0 to 1.0.
    Repair(f64),
    /// Applying the log: last entry applied, last entry there is.
    Replay {
        /// Last entry applied.
        applied: u64,
        /// Last entry.
        last: u64,
    },
}

/// Told of progress.
pub type OnProgress = Arc<dyn Fn(Progress) + Send + Sync>;

/// Why the directory does not open.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// Something else is in it.
    #[error("the directory is not Atoll's: it has {0:?} and no {FORMAT}")]
    Foreign(String),
    /// Written by a release that this one does not know, or damaged.
    #[error("{FORMAT}: {0}")]
    Format(String),
    /// The disk refused.
    #[error("metadata directory: {0}")]
    Disk(#[from] io::Error),
    /// The log does not open.
    #[error(transparent)]
    Log(#[from] WalError),
    /// The state does not open.
    #[error(transparent)]
    State(#[from] StateError),
    /// The group does not start.
    #[error(transparent)]
    Group(#[from] GroupError),
    /// The first command of the cluster was not taken.
    #[error("the cluster could not be founded")]
    Genesis,
}

/// Opens a member without others.
pub async fn open(
    disk: Arc<dyn Disk>,
    options: Options,
    clock: Arc<dyn Clock>,
    progress: OnProgress,
) -> Result<LocalMetadata, OpenError> {
    let network = InProcess::<MetaMachine>::default().network(options.group.id);
    Box::pin(open_member(disk, options, clock, progress, network)).await
}

/// Opens a member that reaches others by `network`. If it is the sole voter, returns when it leads and everything in the log is
/// applied; else at once.
pub async fn open_member<N>(
    disk: Arc<dyn Disk>,
    options: Options,
    clock: Arc<dyn Clock>,
    progress: OnProgress,
    network: N,
) -> Result<LocalMetadata, OpenError>
where
    N: RaftNetworkFactory<TypeConfig>,
    N::Network: NetSnapshot<TypeConfig, SnapshotData = SnapshotData>,
{
    let identity = Identity { cluster: options.new_cluster, member: options.group.id };
    let opened = {
        let (disk, log, state) = (disk.clone(), options.log.clone(), options.state);
        let progress = progress.clone();
        let work = move || open_files(disk, identity, log, state, progress);
        tokio::task::spawn_blocking(work).await.map_err(|e| io::Error::other(e.to_string()))?
    };
    let Files { identity, log, store } = opened?;
    let published = Published::new(Arc::new(store.view()), options.caches);
    store.on_flush({
        let published = published.clone();
        move || published.refresh()
    });
    let counters = Arc::new(AppliedCounters::default());
    let machine = MetaMachine::new(published.clone(), counters.clone());
    let last = log.last_index();
    let start = Box::pin(RaftGroup::start(options.group, log.clone(), network, store.clone(), machine));
    let group = while_waiting(QUIET, TELL_EVERY, start, || {
        let applied = published.current().view.applied().map_or(0, |id| id.index);
        progress(Progress::Replay { applied, last });
    });
    let group = Arc::new(group.await?);
    if group.reads_locally() && !published.is_founded() {
        found(&group, identity.cluster, &*clock).await?;
    }
    let limits = options.limits.within(LogStore::max_batch_bytes(&options.log));
    let shared = Shared::new(Parts {
        cluster: identity.cluster,
        disk,
        log,
        store,
        published,
        group,
        counters,
        clock,
        limits,
    });
    let maintenance = Maintenance::start(shared.clone(), options.maintenance);
    Ok(LocalMetadata { shared, maintenance })
}

/// Proposes the genesis and waits for it.
pub(super) async fn found(
    group: &RaftGroup<MetaMachine>,
    cluster: [u8; 16],
    clock: &dyn Clock,
) -> Result<(), OpenError> {
    let (tx, rx) = oneshot::channel();
    let done = Completion::new(move |result: Option<_>| {
        // The receiver waits below.
        let _gone = tx.send(result.and_then(outcome).is_some());
    });
    group.propose(vec![genesis(cluster, clock.now())], done);
    match rx.await {
        Ok(true) => Ok(()),
        _ => Err(OpenError::Genesis),
    }
}

struct Files {
    identity: Identity,
    log: LogStore,
    store: Arc<StateStore>,
}

fn open_files(
    disk: Arc<dyn Disk>,
    new: Identity,
    config: log::Config,
    state: state::Config,
    progress: OnProgress,
) -> Result<Files, OpenError> {
    let identity = identity(&*disk, new)?;
    match disk.create_dir(Path::new(STATE)) {
        Err(e) if e.kind() != io::ErrorKind::AlreadyExists => return Err(e.into()),
        _ => {}
    }
    let repair = Arc::new(move |done| progress(Progress::Repair(done)));
    let store = StateStore::open(disk.clone(), Path::new(STATE), state, Some(repair))?;
    let log = LogStore::open(disk, Path::new(LOG), config)?;
    Ok(Files { identity, log, store: Arc::new(store) })
}

/// What `FORMAT` says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Identity {
    cluster: [u8; 16],
    member: MemberId,
}

impl Identity {
    fn text(&self) -> String {
        let body =
            format!("{MAGIC}\ncluster {:032x}\nmember {}\n", u128::from_be_bytes(self.cluster), self.member);
        let sum = checksum::crc32c(body.as_bytes());
        format!("{body}crc32c {sum:08x}\n")
    }

    fn parse(text: &str) -> Option<Self> {
        let (body, sum) = text.strip_suffix('\n')?.rsplit_once("crc32c ")?;
        if checksum::crc32c(body.as_bytes()) != u32::from_str_radix(sum, 16).ok()? {
            return None;
        }
        let mut lines = body.strip_prefix(MAGIC)?.strip_prefix('\n')?.lines();
        let cluster = u128::from_str_radix(lines.next()?.strip_prefix("cluster ")?, 16).ok()?;
        let member = lines.next()?.strip_prefix("member ")?.parse().ok()?;
        Some(Self { cluster: cluster.to_be_bytes(), member })
    }
}

/// Reads `FORMAT`, or writes it into an empty directory.
fn identity(disk: &dyn Disk, new: Identity) -> Result<Identity, OpenError> {
    let root = Path::new("");
    let entries = disk.list(root)?;
    if entries.iter().any(|e| e.name == FORMAT) {
        let found = read_identity(disk)?;
        if found.member != new.member {
            return Err(OpenError::Format(format!("this is member {}, not {}", found.member, new.member)));
        }
        // Found, but perhaps never synced, if the process that wrote it was killed.
        disk.sync_dir(root, SYNC_META_DIR)?;
        return Ok(found);
    }
    if let Some(foreign) = entries.iter().find(|e| e.name != FORMAT_NEW) {
        return Err(OpenError::Foreign(foreign.name.clone()));
    }
    let file = disk.open(Path::new(FORMAT_NEW), Open::Create)?;
    let text = new.text();
    file.set_len(0)?;
    file.write_at(&[IoSlice::new(text.as_bytes())], 0)?;
    file.sync(SYNC_FORMAT)?;
    disk.rename(Path::new(FORMAT_NEW), Path::new(FORMAT))?;
    // Before anything else is made here: file systems need not keep the order of entries, and without its marker the
    // rest would pass for somebody else's.
    disk.sync_dir(root, SYNC_META_DIR)?;
    Ok(new)
}

fn read_identity(disk: &dyn Disk) -> Result<Identity, OpenError> {
    let file = disk.open(Path::new(FORMAT), Open::Read)?;
    let len = file.len()?;
    if len > FORMAT_MAX {
        return Err(OpenError::Format(format!("{len} bytes long")));
    }
    let mut bytes = vec![0; len as usize];
    read_exact_at(&*file, &mut bytes, 0)?;
    let text = String::from_utf8_lossy(&bytes);
    Identity::parse(&text).ok_or_else(|| {
        let first = text.lines().next().unwrap_or_default();
        OpenError::Format(format!("written by an unknown release, or damaged; it begins with {first:?}"))
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;
    use atoll_base::disk::sim::SimDisk;

    const NEW: Identity = Identity { cluster: *b"0123456789abcdef", member: 1 };

    #[test]
    fn identity_is_kept() {
        let disk = SimDisk::new();
        assert_eq!(identity(&disk, NEW).unwrap(), NEW);
        let other = Identity { cluster: [9; 16], member: 1 };
        assert_eq!(identity(&disk.crash(3), other).unwrap(), NEW);
    }

    #[test]
    fn another_member_is_refused() {
        let disk = SimDisk::new();
        identity(&disk, NEW).unwrap();
        assert!(matches!(identity(&disk, Identity { member: 2, ..NEW }), Err(OpenError::Format(_))));
    }

    #[test]
    fn foreign_directories_are_left_alone() {
        let disk = SimDisk::new();
        disk.create_dir(Path::new("photos")).unwrap();
        assert!(matches!(identity(&disk, NEW), Err(OpenError::Foreign(name)) if name == "photos"));
    }

    #[test]
    fn any_damage_of_the_marker_is_seen() {
        let disk = SimDisk::new();
        identity(&disk, NEW).unwrap();
        for byte in 0..NEW.text().len() as u64 {
            let hurt = disk.clone();
            hurt.rot(Path::new(FORMAT), byte, 4).unwrap();
            assert!(matches!(identity(&hurt, NEW), Err(OpenError::Format(_))), "byte {byte}");
            hurt.rot(Path::new(FORMAT), byte, 4).unwrap();
        }
        assert_eq!(identity(&disk, NEW).unwrap(), NEW);
    }
}
