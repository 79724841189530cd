//! What a durable change and a cached read cost: `propose [DIR]`, in a fresh directory below DIR (or below the temporary one).
//!
//! Compares `execute` with the least that the disk allows: an append and an `fdatasync` of the same size.

use atoll_base::access::Cred;
use atoll_base::attr::SetAttr;
use atoll_base::disk::{Disk, Open, RealDisk};
use atoll_base::id::{Ino, ROOT_VOLUME};
use atoll_base::time::SystemClock;
use atoll_core::service::{LocalMetadata, Options, open};
use atoll_meta::{Call, CreateHow, MetadataService, NewNode, Op};
use std::error::Error;
use std::io::IoSlice;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

fn show(what: &str, mut times: Vec<Duration>, all: Duration) {
    times.sort_unstable();
    let at = |q: f64| times[((times.len() - 1) as f64 * q) as usize].as_nanos() as f64 / 1000.0;
    let rate = times.len() as f64 / all.as_secs_f64();
    println!(
        "{what:34} {rate:9.0}/s  p50 {:7.1} us  p90 {:7.1}  p99 {:8.1}  max {:9.1}",
        at(0.5),
        at(0.9),
        at(0.99),
        at(1.0)
    );
}

fn syncs(disk: &dyn Disk) -> Result<(), Box<dyn Error>> {
    let file = disk.open(Path::new("raw"), Open::CreateNew)?;
    file.allocate(0, 64 << 20)?;
    file.write_at(&[IoSlice::new(&vec![1; 64 << 20])], 0)?;
    file.sync("raw")?;
    let start = Instant::now();
    let mut times = Vec::new();
    for i in 0..3000u64 {
        let begin = Instant::now();
        file.write_at(&[IoSlice::new(&[7; 400])], i * 512)?;
        file.sync("raw")?;
        times.push(begin.elapsed());
    }
    show("append 400 B + fdatasync", times, start.elapsed());
    disk.remove(Path::new("raw"))?;
    Ok(())
}

fn create(dir: Ino, name: String) -> Call {
    let op = Op::Create {
        dir,
        name: name.into(),
        node: NewNode::Regular,
        how: CreateHow::Guarded,
        attrs: SetAttr { mode: Some(0o644), ..SetAttr::default() },
    };
    Call { origin: None, once: None, cred: Cred::root(), client: None, op }
}

async fn creates(
    meta: &Arc<LocalMetadata>,
    dir: Ino,
    in_flight: usize,
    total: u64,
) -> Result<(), Box<dyn Error>> {
    let next = Arc::new(AtomicU64::new(0));
    let start = Instant::now();
    let mut workers = Vec::new();
    for _ in 0..in_flight {
        let (meta, next) = (meta.clone(), next.clone());
        workers.push(tokio::spawn(async move {
            let mut times = Vec::new();
            loop {
                let i = next.fetch_add(1, Ordering::Relaxed);
                if i >= total {
                    return times;
                }
                let begin = Instant::now();
                let response = meta.execute(create(dir, format!("file-{in_flight}-{i}"))).await;
                times.push(begin.elapsed());
                assert!(matches!(&response, Ok(r) if r.result.is_ok()), "{response:?}");
            }
        }));
    }
    let mut times = Vec::new();
    for worker in workers {
        times.extend(worker.await?);
    }
    show(&format!("execute(Create), {in_flight} in flight"), times, start.elapsed());
    Ok(())
}

async fn reads(meta: &LocalMetadata, dir: Ino) -> Result<(), Box<dyn Error>> {
    const N: u32 = 2_000_000;
    let child = meta.lookup(dir, b"file-1-5").await?.child?;
    let start = Instant::now();
    for _ in 0..N {
        meta.getattr(child.ino).await?;
    }
    println!("getattr, cached: {:.0} ns", start.elapsed().as_nanos() as f64 / f64::from(N));
    let start = Instant::now();
    for _ in 0..N {
        meta.lookup(dir, b"file-1-5").await?;
    }
    println!("lookup, cached: {:.0} ns", start.elapsed().as_nanos() as f64 / f64::from(N));
    let start = Instant::now();
    for _ in 0..N / 20 {
        meta.parent(dir).await?;
    }
    println!("parent, from the view: {:.0} ns", start.elapsed().as_nanos() as f64 / f64::from(N / 20));
    Ok(())
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    tracing_subscriber::fmt().with_max_level(tracing::Level::WARN).init();
    let base = std::env::args().nth(1).map_or_else(std::env::temp_dir, Into::into);
    let dir = tempfile::tempdir_in(base)?;
    let disk: Arc<dyn Disk> = Arc::new(RealDisk::new(dir.path()));
    syncs(&*disk)?;
    let begin = Instant::now();
    let meta = open(disk.clone(), Options::single([7; 16]), Arc::new(SystemClock), Arc::new(|_| {})).await?;
    println!("first start: {:?}", begin.elapsed());
    let meta = Arc::new(meta);
    let root = meta.volume(ROOT_VOLUME).await?.root;
    for (in_flight, total) in [(1, 5000), (16, 40_000), (64, 100_000), (256, 100_000)] {
        creates(&meta, root, in_flight, total).await?;
    }
    reads(&meta, root).await?;
    println!("{:#?}", meta.status());
    let begin = Instant::now();
    meta.stop().await?;
    println!("stop: {:?}", begin.elapsed());
    drop(meta);
    let begin = Instant::now();
    let meta = open(disk, Options::single([7; 16]), Arc::new(SystemClock), Arc::new(|_| {})).await?;
    println!("second start: {:?}, {} commands replayed", begin.elapsed(), meta.status().commands);
    meta.stop().await?;
    Ok(())
}
