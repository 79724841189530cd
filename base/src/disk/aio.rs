//! Durable writes that the kernel goes on with while the thread does something else (`io_submit`, Linux's own asynchronous I/O, on a descriptor with `O_DIRECT` and `O_DSYNC`).
//!
//! The one place with `unsafe` in the product: there is no safe way to hand memory to the kernel and go on. What makes it sound is said at each call. It was preferred to io_uring,
//! which containers and hardened systems forbid, and whose requests end with the thread that made them.
#![allow(unsafe_code)]

use super::{Begun, SyncedWrite};
use rustix::io::Errno;
use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::fd::AsRawFd;
use std::ptr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// `IOCB_CMD_PWRITE` of linux/aio_abi.h.
const PWRITE: u16 = 1;

/// `struct iocb` of linux/aio_abi.h.
#[repr(C)]
#[derive(Default)]
struct ControlBlock {
    data: u64,
    #[cfg(target_endian = "little")]
    key: u32,
    write_flags: i32,
    #[cfg(target_endian = "big")]
    key: u32,
    opcode: u16,
    priority: i16,
    file: u32,
    memory: u64,
    len: u64,
    offset: i64,
    reserved: u64,
    flags: u32,
    eventfd: u32,
}

/// `struct io_event` of linux/aio_abi.h.
#[repr(C)]
#[derive(Default)]
struct Event {
    data: u64,
    block: u64,
    result: i64,
    result2: i64,
}

const _: () = assert!(size_of::<ControlBlock>() == 64 && size_of::<Event>() == 32);

/// The way into one file: room for one write at a time.
pub(super) struct Queue {
    context: libc::c_ulong,
    /// Makes each write durable.
    file: File,
    /// A write is under way. It alone asks for events.
    busy: AtomicBool,
}

impl Queue {
    /// `file` is open with `O_DIRECT` and `O_DSYNC`. None where the system has no such thing, or no more of it (`fs.aio-max-nr`).
    pub(super) fn new(file: File) -> Option<Arc<Self>> {
        let (room, mut context): (libc::c_ulong, libc::c_ulong) = (1, 0);
        // SAFETY: the kernel writes the context, and nothing else.
        let made = unsafe { libc::syscall(libc::SYS_io_setup, room, &raw mut context) };
        (made == 0).then(|| Arc::new(Self { context, file, busy: AtomicBool::new(false) }))
    }

    /// Begins to write `data[part]`, aligned for a descriptor past the page cache. Gives `data` back if nothing was begun.
    pub(super) fn begin(self: &Arc<Self>, data: Vec<u8>, part: Range<usize>, offset: u64) -> Begun {
        let (bytes, Ok(offset)) = (&data[part], i64::try_from(offset)) else { return Err(data) };
        if self.busy.swap(true, Ordering::Acquire) {
            return Err(data);
        }
        let mut block = ControlBlock {
            opcode: PWRITE,
            file: self.file.as_raw_fd() as u32,
            memory: bytes.as_ptr().expose_provenance() as u64,
            len: bytes.len() as u64,
            offset,
            ..ControlBlock::default()
        };
        let mut blocks = [&raw mut block];
        let one: libc::c_long = 1;
        // SAFETY: the kernel has read the control block when it returns, and holds the file itself. It reads the bytes until the write's event was taken: until then
        // `UnderWay` owns them, where nobody changes them, and if that is forgotten, or the event never comes, they are not freed.
        let begun = unsafe { libc::syscall(libc::SYS_io_submit, self.context, one, blocks.as_mut_ptr()) };
        if begun != 1 {
            self.busy.store(false, Ordering::Release);
            return Err(data);
        }
        Ok(Box::new(UnderWay { queue: self.clone(), data: Some(data) }))
    }

    /// The result of the write under way. An error says that the kernel does not tell, and may go on reading the bytes.
    fn finish(&self) -> io::Result<i64> {
        let mut event = Event::default();
        let one: libc::c_long = 1;
        let no_timeout = ptr::null_mut::<libc::timespec>();
        loop {
            // SAFETY: the kernel writes at most one event.
            let taken = unsafe {
                libc::syscall(libc::SYS_io_getevents, self.context, one, one, &raw mut event, no_timeout)
            };
            match taken {
                1 => break,
                0 => continue,
                _ => {}
            }
            let error = io::Error::last_os_error();
            if error.kind() != io::ErrorKind::Interrupted {
                return Err(error);
            }
        }
        self.busy.store(false, Ordering::Release);
        Ok(event.result)
    }
}

impl Drop for Queue {
    fn drop(&mut self) {
        // SAFETY: nobody has the context any more; it is not used again.
        unsafe { libc::syscall(libc::SYS_io_destroy, self.context) };
    }
}

/// A write under way, with the bytes that the kernel reads.
struct UnderWay {
    queue: Arc<Queue>,
    /// None when it has ended.
    data: Option<Vec<u8>>,
}

impl UnderWay {
    /// The bytes, which nobody else reads any more, and the result.
    fn finish(&mut self) -> (Vec<u8>, io::Result<i64>) {
        let result = self.queue.finish();
        let data = self.data.take().unwrap_or_default();
        if result.is_err() {
            std::mem::forget(data);
            return (Vec::new(), result);
        }
        (data, result)
    }
}

impl SyncedWrite for UnderWay {
    fn wait(mut self: Box<Self>) -> (Vec<u8>, io::Result<usize>) {
        let (data, result) = self.finish();
        let done = result.and_then(|result| match usize::try_from(result) {
            Ok(bytes) => Ok(bytes),
            Err(_) => match Errno::from_raw_os_error(result.unsigned_abs() as i32) {
                // Nothing is durable: a file system that takes no such writes, or says so only now; or interrupted.
                Errno::INVAL | Errno::OPNOTSUPP | Errno::INTR | Errno::AGAIN => Ok(0),
                error => Err(error.into()),
            },
        });
        (data, done)
    }
}

impl Drop for UnderWay {
    fn drop(&mut self) {
        if self.data.is_some() {
            // Who drops it does not want to know.
            let _ = self.finish();
        }
    }
}
