//! An open file of a simulated disk.

use super::super::direct::aligned;
use super::super::{Begun, File, SyncedWrite};
use super::SimDisk;
use super::image::CHUNK;
use super::node::Node;
use super::state::{Power, State};
use super::tree::FileId;
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};
use std::io::{self, IoSlice};
use std::ops::Range;
use std::sync::MutexGuard;

pub(super) struct SimFile {
    pub(super) disk: SimDisk,
    pub(super) id: FileId,
    pub(super) writable: bool,
}

impl Drop for SimFile {
    fn drop(&mut self) {
        let mut state = self.disk.lock();
        if let Some(count) = state.handles.get_mut(&self.id) {
            *count -= 1;
            if *count == 0 {
                state.handles.remove(&self.id);
                state.collect();
            }
        }
    }
}

impl SimFile {
    fn for_writing(&self) -> io::Result<MutexGuard<'_, State>> {
        let state = self.disk.lock();
        state.powered()?;
        if self.writable { Ok(state) } else { Err(rustix::io::Errno::BADF.into()) }
    }
}

/// A write that processes see, and that is durable once it was waited for.
struct UnderWay {
    disk: SimDisk,
    id: FileId,
    data: Vec<u8>,
    written: io::Result<()>,
    range: Range<u64>,
    site: &'static str,
}

impl SyncedWrite for UnderWay {
    fn wait(self: Box<Self>) -> (Vec<u8>, io::Result<usize>) {
        let Self { disk, id, data, written, range, site } = *self;
        let len = (range.end - range.start) as usize;
        let synced = written.and_then(|()| disk.lock().sync(id, site, |node| node.sync_range(range)));
        (data, synced.map(|()| len))
    }
}

fn range(offset: u64, len: u64) -> io::Result<Range<u64>> {
    match offset.checked_add(len) {
        Some(end) if end <= i64::MAX as u64 => Ok(offset..end),
        _ => Err(rustix::io::Errno::FBIG.into()),
    }
}

impl File for SimFile {
    fn read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<usize> {
        let mut state = self.disk.lock();
        state.powered()?;
        Ok(state.node(self.id).live().read(buf, offset))
    }

    fn written(&self) -> io::Result<Vec<Range<u64>>> {
        let mut state = self.disk.lock();
        state.powered()?;
        Ok(state.node(self.id).live().written())
    }

    fn write_at(&self, bufs: &[IoSlice<'_>], offset: u64) -> io::Result<()> {
        let mut data: Vec<u8> = bufs.iter().flat_map(|b| b.iter().copied()).collect();
        let range = range(offset, data.len() as u64)?;
        let mut state = self.for_writing()?;
        state.reserve(self.id, range.clone())?;
        if state.malice.cut_writes && state.power == Power::Counting(0) {
            let mut rng = SmallRng::seed_from_u64(state.operations);
            let end = range.end.min(rng.random_range(range.start..=range.end + CHUNK) / CHUNK * CHUNK);
            data.truncate(end.saturating_sub(range.start) as usize);
        }
        state.change(self.id, |node| node.write(data, offset))?;
        if state.failing_writes > 0 {
            state.failing_writes -= 1;
            return Err(rustix::io::Errno::IO.into());
        }
        Ok(())
    }

    fn begin_synced_write(
        &self,
        data: Vec<u8>,
        part: Range<usize>,
        offset: u64,
        site: &'static str,
    ) -> Begun {
        let bytes = &data[part.clone()];
        if !aligned(bytes, offset) {
            return Err(data);
        }
        let written = self.write_at(&[IoSlice::new(bytes)], offset);
        let range = offset..offset + part.len() as u64;
        Ok(Box::new(UnderWay { disk: self.disk.clone(), id: self.id, data, written, range, site }))
    }

    fn sync(&self, site: &'static str) -> io::Result<()> {
        self.disk.lock().sync(self.id, site, Node::sync)
    }

    fn len(&self) -> io::Result<u64> {
        let mut state = self.disk.lock();
        state.powered()?;
        Ok(state.node(self.id).live().len())
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        range(0, len)?;
        self.for_writing()?.change(self.id, |node| node.set_len(len))
    }

    fn allocate(&self, offset: u64, len: u64) -> io::Result<()> {
        let range = range(offset, len)?;
        let mut state = self.for_writing()?;
        state.reserve(self.id, range.clone())?;
        state.change(self.id, |node| node.allocate(range))
    }

    fn punch_hole(&self, offset: u64, len: u64) -> io::Result<()> {
        let range = range(offset, len)?;
        self.for_writing()?.change(self.id, |node| {
            let end = range.end.min(node.live().len());
            if range.start < end {
                node.punch(range.start..end);
            }
        })
    }
}
