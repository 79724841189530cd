//! A panic while a group is written: what comes later must not go behind bytes that were never written.

use super::*;
use atoll_base::disk::wrap::{AroundDisk, AroundFile, WrapDisk, WrapFile};
use atoll_base::disk::{File, Open};
use std::io::{self, IoSlice};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, Ordering};

/// A disk whose writes panic while it is told so.
struct Fragile(SimDisk, Arc<AtomicBool>);

struct FragileFile(Arc<dyn File>, Arc<AtomicBool>);

impl AroundDisk for Fragile {
    fn inner(&self) -> &dyn Disk {
        &self.0
    }

    fn open(&self, path: &Path, how: Open) -> io::Result<Arc<dyn File>> {
        Ok(Arc::new(WrapFile(FragileFile(self.0.open(path, how)?, self.1.clone()))))
    }
}

impl AroundFile for FragileFile {
    fn inner(&self) -> &dyn File {
        &*self.0
    }

    fn write_at(&self, bufs: &[IoSlice<'_>], offset: u64) -> io::Result<()> {
        assert!(!self.1.load(Ordering::Relaxed), "as told");
        self.0.write_at(bufs, offset)
    }
}

#[test]
fn a_panic_of_a_caller_who_writes_fails_the_log() {
    let sim = SimDisk::new();
    let panics = Arc::<AtomicBool>::default();
    let disk: Arc<dyn Disk> = Arc::new(WrapDisk(Fragile(sim.clone(), panics.clone())));
    let wal = Wal::open_unattended(disk, dir(), config()).unwrap();
    wal.set_alone(true).unwrap();
    wait(|done| wal.append_early(vec![entry(1, 1, &[10])], done)).unwrap();
    wal.settle().unwrap();
    panics.store(true, Ordering::Relaxed);
    let (tx, rx) = mpsc::channel();
    let written = AssertUnwindSafe(|| {
        wal.append_early(vec![entry(1, 2, &[10])], Box::new(move |result| tx.send(result).unwrap()))
    });
    catch_unwind(written).unwrap_err();
    assert!(!matches!(rx.try_recv(), Ok(Ok(()))), "what was not written is not acknowledged");
    panics.store(false, Ordering::Relaxed);
    let refused = wal.append_early(vec![entry(1, 3, &[10])], Box::new(|_| ()));
    assert!(matches!(refused, Err(WalError::Failed(_))), "{refused:?}");
    drop(wal);
    let wal = Wal::open(super::disk(&sim), dir(), config()).unwrap();
    assert_eq!(view(&wal).unwrap().last, Some(id(1, 1)));
}
