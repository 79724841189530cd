//! Making the next segment before it is needed.

use crate::config::Prepare;
use crate::format::UNIT;
use crate::lock::lock;
use crate::segment::{self, Fresh, SEGMENT_MIN};
use crate::shared::Shared;
use crate::space::{Purpose, UPKEEP_SHARE};
use atoll_base::block::BlockError;
use std::io;
use std::sync::{Arc, Condvar, Mutex, PoisonError, mpsc};
use std::thread::JoinHandle;

enum Slot {
    Empty,
    Working,
    Ready(Fresh),
}

type Shelf = Arc<(Mutex<Slot>, Condvar)>;

struct Worker {
    requests: mpsc::Sender<u32>,
    shelf: Shelf,
    thread: JoinHandle<()>,
}

/// Makes segments, for the writer.
pub(crate) struct Preparer {
    shared: Arc<Shared>,
    next_number: u32,
    worker: Option<Worker>,
}

/// Bytes of a segment that puts may fill.
pub(crate) fn put_room(capacity: u64) -> u64 {
    capacity - capacity / UPKEEP_SHARE
}

fn make(shared: &Shared, number: u32, purpose: Purpose, least: u64) -> Result<Fresh, BlockError> {
    let wanted = shared.config.segment_bytes.max(least);
    let (disk, spares) = (&*shared.disk, &shared.space.spares);
    let size = |wanted, least| {
        let size = shared.space.segment_size(disk, purpose, wanted, least);
        size.map_err(|e| shared.fail("asking the disk for its room", &e))
    };
    let store_id = shared.config.store_id;
    let made = |fresh: io::Result<Fresh>| {
        shared.space.invalidate();
        fresh.map_err(|e| {
            if segment::is_full(&e) { BlockError::NoSpace } else { shared.fail("making a segment", &e) }
        })
    };
    if let Some(spare) = spares.take() {
        // What it lacks is asked for as if it were a segment.
        let more = size(wanted.saturating_sub(spare.len), 0)?.unwrap_or(0) / UNIT * UNIT;
        match segment::reuse(disk, store_id, number, spare, spare.len + more, least) {
            Ok(Some(fresh)) => return made(Ok(fresh)),
            // It is gone, and makes room for another.
            Ok(None) => {}
            Err(e) if segment::is_full(&e) => {}
            Err(e) => return made(Err(e)),
        }
    }
    loop {
        let fresh = match size(wanted, least)? {
            // Rather a whole one than many small ones beside what nobody can take.
            Some(size) if size >= wanted || spares.bytes() == 0 => {
                made(segment::create(disk, store_id, number, size, least))
            }
            _ => Err(BlockError::NoSpace),
        };
        let removed = matches!(fresh, Err(BlockError::NoSpace)) && spares.remove_all(disk);
        shared.space.invalidate();
        if !removed {
            return fresh;
        }
    }
}

fn least(config_segment: u64) -> u64 {
    SEGMENT_MIN.min(config_segment)
}

impl Preparer {
    pub(crate) fn start(shared: Arc<Shared>, next_number: u32) -> io::Result<Self> {
        let worker = match shared.config.prepare {
            Prepare::Inline => None,
            Prepare::Background => {
                let shelf: Shelf = Arc::new((Mutex::new(Slot::Empty), Condvar::new()));
                let (requests, inbox) = mpsc::channel();
                let (s, sh) = (shared.clone(), shelf.clone());
                let thread = std::thread::Builder::new().name("block-prepare".into()).spawn(move || {
                    for number in inbox {
                        let fresh = make(&s, number, Purpose::Put, least(s.config.segment_bytes));
                        let slot = match fresh {
                            Ok(fresh) => {
                                s.space.set_prepared_room(put_room(fresh.capacity));
                                Slot::Ready(fresh)
                            }
                            // The writer tries by itself when it needs one, and tells its callers.
                            Err(_) => Slot::Empty,
                        };
                        *lock(&sh.0) = slot;
                        sh.1.notify_all();
                    }
                })?;
                Some(Worker { requests, shelf, thread })
            }
        };
        Ok(Self { shared, next_number, worker })
    }

    fn number(&mut self) -> u32 {
        let n = self.next_number;
        self.next_number += 1;
        n
    }

    /// Asks for one segment to be made in the background, if that is configured.
    pub(crate) fn request(&mut self) {
        let number = self.next_number;
        if let Some(worker) = &self.worker {
            let mut slot = lock(&worker.shelf.0);
            if matches!(*slot, Slot::Empty) && worker.requests.send(number).is_ok() {
                *slot = Slot::Working;
                self.next_number += 1;
            }
        }
    }

    /// A segment of at least `least` bytes: the prepared one, or a new one.
    pub(crate) fn take(&mut self, purpose: Purpose, need: u64) -> Result<Fresh, BlockError> {
        if let Some(fresh) = self.prepared()
            && self.shared.failure().is_none()
        {
            if fresh.capacity >= need {
                return Ok(fresh);
            }
            // Too small for a large record, made when the disk was nearly full.
            self.discard(&fresh);
        }
        self.shared.check_writable()?;
        let need = need.max(least(self.shared.config.segment_bytes));
        let number = self.number();
        make(&self.shared, number, purpose, need)
    }

    fn prepared(&self) -> Option<Fresh> {
        let worker = self.worker.as_ref()?;
        let mut slot = lock(&worker.shelf.0);
        while matches!(*slot, Slot::Working) {
            slot = worker.shelf.1.wait(slot).unwrap_or_else(PoisonError::into_inner);
        }
        self.shared.space.set_prepared_room(0);
        match std::mem::replace(&mut *slot, Slot::Empty) {
            Slot::Ready(fresh) => Some(fresh),
            Slot::Empty | Slot::Working => None,
        }
    }

    fn discard(&self, fresh: &Fresh) {
        // It is empty; if it stays, the next open removes it.
        let _ = self.shared.disk.remove(&segment::path_of(fresh.header.segment));
        self.shared.space.invalidate();
    }

    /// Ends the thread and removes what it prepared.
    pub(crate) fn stop(mut self) {
        if let Some(fresh) = self.prepared() {
            self.discard(&fresh);
        }
        if let Some(worker) = self.worker.take() {
            drop(worker.requests);
            let _ = worker.thread.join();
        }
    }
}
