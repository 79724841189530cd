//! Segment files open for reading: a bounded cache, the longest unused closed first.

use crate::lock::lock;
use crate::segment::path_of;
use atoll_base::disk::{Disk, File, Open};
use std::collections::HashMap;
use std::io;
use std::sync::{Arc, Mutex};

pub(crate) struct FileCache {
    limit: usize,
    inner: Mutex<Inner>,
}

#[derive(Default)]
struct Inner {
    files: HashMap<u32, (Arc<dyn File>, u64)>,
    clock: u64,
}

impl FileCache {
    pub(crate) fn new(limit: usize) -> Self {
        Self { limit: limit.max(1), inner: Mutex::default() }
    }

    /// The file of a segment; `NotFound` if compaction removed it in the meantime.
    pub(crate) fn get(&self, disk: &dyn Disk, segment: u32) -> io::Result<Arc<dyn File>> {
        if let Some(file) = self.cached(segment) {
            return Ok(file);
        }
        let file = disk.open(&path_of(segment), Open::Read)?;
        let mut inner = lock(&self.inner);
        inner.clock += 1;
        let now = inner.clock;
        if inner.files.len() >= self.limit
            && let Some(oldest) = inner.files.iter().min_by_key(|(_, (_, used))| *used).map(|(n, _)| *n)
        {
            inner.files.remove(&oldest);
        }
        inner.files.insert(segment, (file.clone(), now));
        Ok(file)
    }

    fn cached(&self, segment: u32) -> Option<Arc<dyn File>> {
        let mut inner = lock(&self.inner);
        inner.clock += 1;
        let now = inner.clock;
        let (file, used) = inner.files.get_mut(&segment)?;
        *used = now;
        Some(file.clone())
    }

    /// Closes a segment's file once its readers are done.
    pub(crate) fn forget(&self, segment: u32) {
        lock(&self.inner).files.remove(&segment);
    }
}
