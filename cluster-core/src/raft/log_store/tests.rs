#![allow(clippy::unwrap_used)]

use super::super::types::BatchOutcome;
use super::*;
use atoll_base::disk::sim::SimDisk;
use futures_util::TryStreamExt;
use openraft::storage::{EntryResponder, RaftSnapshotBuilder, RaftStateMachine};
use openraft::testing::log::{StoreBuilder, Suite};
use openraft::type_config::TypeConfigExt;
use openraft::type_config::alias::{SnapshotMetaOf, SnapshotOf, StoredMembershipOf};
use openraft::{StorageError, Vote as RaftVote};

/// The smallest state machine that the suite accepts.
#[derive(Clone, Default)]
struct Memory {
    applied: Option<LogId>,
    membership: StoredMembershipOf<TypeConfig>,
    /// The builder is a clone, and what it builds is the current one.
    snapshot: Arc<std::sync::Mutex<Option<SnapshotMetaOf<TypeConfig>>>>,
}

impl RaftSnapshotBuilder<TypeConfig> for Memory {
    type SnapshotData = ();

    async fn build_snapshot(&mut self) -> Result<SnapshotOf<TypeConfig, ()>, io::Error> {
        let meta = SnapshotMetaOf::<TypeConfig> {
            last_log_id: self.applied,
            last_membership: self.membership.clone(),
        };
        *self.snapshot.lock().unwrap() = Some(meta.clone());
        Ok(SnapshotOf::<TypeConfig, ()> { meta, snapshot: () })
    }
}

impl RaftStateMachine<TypeConfig> for Memory {
    type SnapshotData = ();
    type SnapshotBuilder = Self;

    async fn applied_state(&mut self) -> Result<(Option<LogId>, StoredMembershipOf<TypeConfig>), io::Error> {
        Ok((self.applied, self.membership.clone()))
    }

    async fn apply<S>(&mut self, mut entries: S) -> Result<(), io::Error>
    where
        S: Stream<Item = Result<EntryResponder<TypeConfig>, io::Error>> + Unpin + OptionalSend,
    {
        while let Some((entry, responder)) = entries.try_next().await? {
            self.applied = Some(entry.log_id);
            if let EntryPayload::Membership(membership) = entry.payload {
                self.membership = StoredMembershipOf::<TypeConfig>::new(Some(entry.log_id), membership);
            }
            if let Some(responder) = responder {
                responder.send(BatchOutcome::default());
            }
        }
        Ok(())
    }

    async fn get_snapshot_builder(&mut self) -> Self {
        self.clone()
    }

    async fn install_snapshot(&mut self, meta: &SnapshotMetaOf<TypeConfig>, (): ()) -> Result<(), io::Error> {
        self.applied = meta.last_log_id;
        self.membership = meta.last_membership.clone();
        *self.snapshot.lock().unwrap() = Some(meta.clone());
        Ok(())
    }

    async fn get_current_snapshot(&mut self) -> Result<Option<SnapshotOf<TypeConfig, ()>>, io::Error> {
        Ok(self
            .snapshot
            .lock()
            .unwrap()
            .clone()
            .map(|meta| SnapshotOf::<TypeConfig, ()> { meta, snapshot: () }))
    }
}

fn small() -> Config {
    Config { segment_bytes: 16 << 10, cache_bytes: 512, ..Config::default() }
}

fn open(disk: &SimDisk) -> LogStore {
    LogStore::open(Arc::new(disk.clone()), Path::new("log"), small()).unwrap()
}

struct Fresh;

impl StoreBuilder<TypeConfig, LogStore, Memory> for Fresh {
    async fn build(&self) -> Result<((), LogStore, Memory), StorageError<TypeConfig>> {
        Ok(((), open(&SimDisk::new()), Memory::default()))
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn passes_the_suite_of_openraft() {
    Suite::test_all(Fresh).await.unwrap();
}

fn normal(index: u64, commands: Vec<Bytes>) -> Entry {
    let id = LogId { leader_id: LeaderId { term: 1, node_id: 7 }, index };
    Entry::new(id, EntryPayload::Normal(Batch(commands)))
}

async fn append(store: &mut LogStore, entries: Vec<Entry>) {
    let (tx, rx) = tokio::sync::oneshot::channel();
    let encoded = entries.into_iter().map(|e| encode(e).unwrap()).collect();
    store.wal.room().await;
    store.wal.append(encoded, Box::new(move |result| drop(tx.send(result)))).unwrap();
    rx.await.unwrap().unwrap();
}

#[tokio::test]
async fn all_is_there_after_a_power_cut() {
    let disk = SimDisk::new();
    let mut store = open(&disk);
    let members = Membership::new_with_defaults(vec![[7].into()], []);
    let vote = RaftVote { leader_id: LeaderId { term: 1, node_id: 7 }, committed: true };
    store.save_vote(&vote).await.unwrap();
    let mut entries = vec![
        Entry::new(normal(1, vec![]).log_id, EntryPayload::Membership(members)),
        Entry::new(normal(2, vec![]).log_id, EntryPayload::Blank),
    ];
    let sizes = [0, 1, 100, 4096, 4097, 9000];
    entries.extend((3..60).map(|i| normal(i, vec![Bytes::from(vec![i as u8; sizes[i as usize % 6]]); 1])));
    for entry in &entries {
        append(&mut store, vec![entry.clone()]).await;
    }
    store.purge(entries[0].log_id).await.unwrap();
    let mut store = open(&disk.crash(5));
    assert_eq!(store.read_vote().await.unwrap(), Some(vote));
    let state = store.get_log_state().await.unwrap();
    assert_eq!(state.last_purged_log_id, Some(entries[0].log_id));
    assert_eq!(state.last_log_id, Some(entries[58].log_id));
    assert_eq!(store.try_get_log_entries(..).await.unwrap(), entries[1..]);
    let streamed: Vec<Entry> = store.entries_stream(5..=40).await.try_collect().await.unwrap();
    assert_eq!(streamed, entries[4..40]);
    assert!(store.try_get_log_entries(70..).await.unwrap().is_empty());
}

#[tokio::test]
async fn cached_commands_are_the_slices_that_were_appended() {
    let disk = SimDisk::new();
    let config = Config { cache_bytes: 1 << 20, ..small() };
    let mut store = LogStore::open(Arc::new(disk), Path::new("log"), config).unwrap();
    let command = Bytes::from(vec![1; 6000]);
    append(&mut store, vec![normal(1, vec![command.clone()])]).await;
    let read = store.limited_get_log_entries(1, 2).await.unwrap();
    let EntryPayload::Normal(Batch(commands)) = &read[0].payload else { panic!("{read:?}") };
    assert_eq!(commands[0].as_ptr(), command.as_ptr());
}

#[tokio::test]
async fn entries_that_nobody_tells_of_have_failed() {
    let (tx, rx) = TypeConfig::oneshot();
    drop(Flushed(Some(IOFlushed::signal(tx))));
    assert!(rx.await.unwrap().is_err());
    let (tx, rx) = TypeConfig::oneshot();
    Flushed(Some(IOFlushed::signal(tx))).tell(Ok(()));
    assert!(rx.await.unwrap().is_ok());
}
