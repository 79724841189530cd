//! A node: metadata, blocks and maintenance over one disk. The NFS side is put on top by [`crate::service`].

mod admin;
mod scrub;
mod sizes;

pub use scrub::{Finding, Line, Summary};
pub use sizes::DISK_MIN;

use crate::data_dir::Identity;
use crate::maintenance::{self, BlockIds, Pace};
use anyhow::{Context, Result, bail};
use atoll_base::disk::{Disk, Subdir};
use atoll_base::id::FrontendId;
use atoll_base::time::{Clock, SystemClock};
use atoll_blockstore::{BlockStore, Config as BlockConfig};
use atoll_core::service::{self, LocalMetadata, Options as MetaOptions};
use atoll_meta::call::Origin;
use atoll_meta::{Op, Outcome};
use atoll_model::read;
use std::path::Path;
use std::sync::Arc;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

/// Where in the data directory the metadata are.
pub(crate) const META_DIR: &str = "meta";
const WITHOUT_METADATA: &str = "there are blocks of data, but the metadata that say whose they are are missing: restore the \
     directory `meta` from a copy. Atoll does not start an empty file system over them";
/// Site of the sync that makes that directory durable.
pub const SYNC_META_ENTRY: &str = "node.meta";

/// The frontend id under which a node's own writers (repacker, import) register, so that neither they nor the NFS
/// frontend fence each other.
const OWN_WRITER: u32 = 1 << 31;

/// Segments of which less than this many percent live are compacted. Files may take one and a half times their size,
/// and 100/70 leaves a little for blocks that are partly unused.
const COMPACT_BELOW: u8 = 70;

/// Entries of the log in memory. One member reads them only to apply them, right after they were written; each takes about twice
/// its bytes.
const LOG_CACHE: usize = 8 << 20;
/// Pages of the metadata in memory, beside the system's page cache and the caches of attributes and names. With both bounds a
/// node with a million files and 64 idle clients has 140 MiB resident, of which the index of outcomes takes about 19.
const STATE_CACHE: usize = 16 << 20;

/// Told in words what a start that takes seconds is doing.
pub type OnProgress = Arc<dyn Fn(String) + Send + Sync>;

/// How to open a node.
#[derive(Clone)]
pub struct Options {
    /// 128 random bits that name the cluster.
    pub cluster_id: [u8; 16],
    /// Raft and frontend id.
    pub node_id: u64,
    /// Metadata settings.
    pub meta: MetaOptions,
    /// Block store settings.
    pub blocks: BlockConfig,
    /// The clock.
    pub clock: Arc<dyn Clock>,
    /// Whether to run the collector, the repacker and compaction.
    pub maintain: bool,
    /// How briskly they go.
    pub pace: Pace,
    /// Told of the progress of a long start.
    pub progress: OnProgress,
}

impl Options {
    /// What `atoll serve` runs with on this disk.
    pub fn for_disk(identity: &Identity, disk: &dyn Disk) -> Result<Self> {
        let mut options = Self::new(identity.cluster_id()?, identity.node_id);
        options.fit(disk.space().context("the file system does not tell its size")?.total)?;
        Ok(options)
    }

    /// The sizes for a large disk.
    pub fn new(cluster_id: [u8; 16], node_id: u64) -> Self {
        let mut meta = MetaOptions::single(cluster_id);
        meta.group.id = node_id;
        meta.log.cache_bytes = LOG_CACHE;
        meta.state.cache_bytes = STATE_CACHE;
        let blocks = BlockConfig::new(u128::from_be_bytes(cluster_id));
        Self {
            cluster_id,
            node_id,
            meta,
            blocks: BlockConfig { compact_below_percent: COMPACT_BELOW, ..blocks },
            clock: Arc::new(SystemClock),
            maintain: true,
            pace: Pace::default(),
            progress: Arc::new(|words| tracing::info!("{words}")),
        }
    }
}

/// A running node.
pub struct Node {
    /// Metadata.
    pub meta: Arc<LocalMetadata>,
    /// Blocks.
    pub blocks: BlockStore,
    /// Ids for blocks that the node itself makes, and under which origin.
    pub ids: Arc<BlockIds>,
    /// The clock it runs by.
    pub clock: Arc<dyn Clock>,
    node_id: u64,
    stop: CancellationToken,
    maintenance: tokio::sync::Mutex<Option<JoinHandle<()>>>,
}

impl Node {
    /// Opens what is on the disk, or founds a new cluster of one. Waits until it leads and everything in the log is applied.
    pub async fn open(disk: Arc<dyn Disk>, options: Options) -> Result<Self> {
        let open_meta = async || {
            let meta_disk = Subdir::create(disk.clone(), META_DIR, SYNC_META_ENTRY)
                .context("cannot make the metadata directory")?;
            let progress = options.progress.clone();
            let told = Arc::new(move |p| progress(metadata_progress(p)));
            // Boxed: it is the largest part of what a command keeps on its stack.
            let meta = service::open(Arc::new(meta_disk), options.meta.clone(), options.clock.clone(), told);
            Box::pin(meta).await.context("cannot open the metadata")
        };
        let blocks = open_blocks(disk.clone(), &options);
        let (blocks, meta) = if is_founded(&*disk)? {
            // Neither needs the other to be opened, and clients wait.
            tokio::try_join!(blocks, open_meta())?
        } else {
            let blocks = blocks.await?;
            if blocks.metrics().blocks > 0 {
                bail!(WITHOUT_METADATA);
            }
            (blocks, open_meta().await?)
        };
        let meta = Arc::new(meta);
        if meta.cluster() != options.cluster_id {
            bail!("the metadata belong to another cluster than atoll.json says");
        }
        let is_new = meta.with_state(|kv| Ok(read::counters(kv)?.frontends == 0)).await?;
        if is_new && blocks.metrics().blocks > 0 {
            bail!(WITHOUT_METADATA);
        }
        let origin = register(&meta, FrontendId(options.node_id as u32 | OWN_WRITER)).await?;
        let ids = Arc::new(BlockIds::new(origin, 0));
        let stop = CancellationToken::new();
        let task = options.maintain.then(|| {
            let work =
                maintenance::run(meta.clone(), blocks.clone(), ids.clone(), options.pace, stop.clone());
            tokio::spawn(work)
        });
        Ok(Self {
            meta,
            blocks,
            ids,
            clock: options.clock,
            node_id: options.node_id,
            stop,
            maintenance: tokio::sync::Mutex::new(task),
        })
    }

    /// The id under which the node's NFS frontend registers.
    pub fn frontend(&self) -> FrontendId {
        FrontendId(self.node_id as u32)
    }

    /// Ends maintenance, makes the state durable and closes the files: the next start has nothing to repeat.
    pub async fn close(&self) -> Result<()> {
        self.stop.cancel();
        if let Some(task) = self.maintenance.lock().await.take()
            && let Err(error) = task.await
        {
            tracing::error!(%error, "maintenance died");
        }
        self.meta.stop().await.context("the metadata were not closed cleanly")?;
        let blocks = self.blocks.clone();
        tokio::task::spawn_blocking(move || blocks.close())
            .await?
            .context("the block store was not closed cleanly")
    }
}

async fn open_blocks(disk: Arc<dyn Disk>, options: &Options) -> Result<BlockStore> {
    let mut config = options.blocks.clone();
    let progress = options.progress.clone();
    config.on_progress = Some(Arc::new(move |p: atoll_blockstore::Progress| {
        progress(format!("reading the block store: {} of {} segments", p.done, p.total));
    }));
    let store = tokio::task::spawn_blocking(move || BlockStore::open(disk, config)).await?;
    store.context("cannot open the block store")
}

fn metadata_progress(progress: service::Progress) -> String {
    match progress {
        service::Progress::Repair(done) => format!("repairing the metadata file: {:.0} %", done * 100.0),
        service::Progress::Replay { last: 0, .. } => "founding the cluster".to_owned(),
        service::Progress::Replay { applied, last } => {
            format!("replaying the log: entry {applied} of {last}")
        }
    }
}

/// Whether there are metadata. Blocks without them mean that they were lost: to found a new, empty cluster over the blocks would
/// let the collector delete every one.
fn is_founded(disk: &dyn Disk) -> Result<bool> {
    match disk.list(Path::new(META_DIR)) {
        Ok(entries) => Ok(entries.iter().any(|e| e.name == service::FORMAT)),
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(false),
        Err(e) => Err(e).context("cannot list the metadata"),
    }
}

/// Begins a new life of a frontend.
async fn register(meta: &LocalMetadata, frontend: FrontendId) -> Result<Origin> {
    let registered = maintenance::execute(meta, None, Op::RegisterFrontend { frontend }).await;
    match registered.context("cannot register this node's writer")? {
        Outcome::Registered { epoch, .. } => Ok(Origin { frontend, epoch }),
        other => bail!("unexpected outcome of a registration: {other:?}"),
    }
}
