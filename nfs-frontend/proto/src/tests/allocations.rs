//! What decoding and encoding allocate, measured.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

use atoll_xdr::{Decoder, Encoder, Opaque};
use bytes::BytesMut;

use crate::nfs3;
use crate::record::{RecordLimits, RecordReader, begin_record, end_record};
use crate::rpc::{AuthSys, CallHeader, Gids, OpaqueAuth, encode_call, encode_success_header};

thread_local! {
    static COUNT: Cell<usize> = const { Cell::new(0) };
    static LIVE: Cell<isize> = const { Cell::new(0) };
    static PEAK: Cell<isize> = const { Cell::new(0) };
}

/// The system's allocator, counting per thread, so that tests that run beside do not disturb.
struct Counting;

fn grown(by: isize) {
    // A thread that ends may still free after its counters are gone.
    let _ = LIVE.try_with(|live| {
        live.set(live.get() + by);
        let _ = PEAK.try_with(|peak| peak.set(peak.get().max(live.get())));
    });
}

#[allow(unsafe_code)] // the only way to see allocations; every call is passed on as it came
// SAFETY: all methods delegate to `System` with unchanged arguments.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        let _ = COUNT.try_with(|count| count.set(count.get() + 1));
        grown(layout.size().cast_signed());
        // SAFETY: as promised by our caller.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, ptr: *mut u8, layout: Layout) {
        grown(-layout.size().cast_signed());
        // SAFETY: as promised by our caller.
        unsafe { System.dealloc(ptr, layout) }
    }
    // `realloc` is the default: alloc, copy, dealloc. Its peak is the worst case of any allocator.
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// What a piece of code allocated on its thread.
#[derive(Debug)]
pub(crate) struct Used {
    /// Number of allocations.
    pub(crate) count: usize,
    /// Most bytes held at once, beyond those held before.
    pub(crate) peak: usize,
}

pub(crate) fn measure<T>(f: impl FnOnce() -> T) -> (T, Used) {
    let live = LIVE.get();
    PEAK.set(live);
    COUNT.set(0);
    let v = f();
    (v, Used { count: COUNT.get(), peak: usize::try_from(PEAK.get() - live).unwrap() })
}

#[test]
fn the_counter_counts() {
    let (v, used) = measure(|| Vec::<u8>::with_capacity(1000));
    assert_eq!((used.count, used.peak), (1, 1000));
    drop(v);
}

fn getattr_record() -> BytesMut {
    let sys = AuthSys {
        stamp: 1,
        machine_name: Opaque::from_static(b"client.example"),
        uid: 1000,
        gid: 1000,
        gids: Gids::new(&[4, 24, 27, 100, 1000]).unwrap(),
    };
    let mut e = Encoder::new();
    let record = begin_record(&mut e);
    let args = nfs3::GetAttr3Args { object: nfs3::FileHandle::new(&[7; 32]).unwrap() };
    encode_call::<nfs3::call::GetAttr>(&mut e, 9, OpaqueAuth::sys(&sys), &args);
    end_record(&mut e, record);
    let mut buf = BytesMut::with_capacity(64 * 1024);
    buf.extend_from_slice(&e.into_bytes());
    buf
}

/// The way of every call on the server: record, header, credential, arguments; then the reply.
#[test]
fn a_getattr_call_costs_at_most_one_allocation() {
    let attributes = nfs3::Fattr3 {
        file_type: nfs3::FileType3::Regular,
        mode: 0o644,
        nlink: 1,
        uid: 0,
        gid: 0,
        size: 5,
        used: 4096,
        rdev: nfs3::SpecData3::default(),
        fsid: 1,
        fileid: 2,
        atime: nfs3::NfsTime3::default(),
        mtime: nfs3::NfsTime3::default(),
        ctime: nfs3::NfsTime3::default(),
    };
    let mut encoder = Encoder::new();
    let mut reader = RecordReader::new(RecordLimits::default());
    let mut serve = |buf: &mut BytesMut| {
        let record = reader.next_record(buf).unwrap().unwrap();
        let mut d = Decoder::new(record);
        let call = CallHeader::parse(&mut d).unwrap();
        let sys = call.credential.auth_sys().unwrap();
        assert_eq!(sys.gids.len(), 5);
        let args: nfs3::GetAttr3Args = d.decode().unwrap();
        assert_eq!(args.object.as_slice(), [7; 32]);
        let record = begin_record(&mut encoder);
        encode_success_header(&mut encoder, call.xid);
        let res: nfs3::GetAttr3Res = Ok(nfs3::GetAttr3Ok { obj_attributes: attributes });
        encoder.put(&res);
        end_record(&mut encoder, record)
    };
    let mut buf = getattr_record();
    let second = buf.clone();
    buf.extend_from_slice(&second);
    // The reader's buffer becomes a shared one when the first record is split off: that is the one allocation, and a
    // buffer that holds many records has it once.
    let (len, used) = measure(|| serve(&mut buf));
    assert_eq!(len, 24 + 4 + 84);
    assert!(used.count <= 1, "{used:?}");
    let (_, used) = measure(|| serve(&mut buf));
    assert_eq!(used.count, 0, "a further record in the same buffer");
}

#[test]
fn an_encoder_uses_its_buffer_again() {
    let mut e = Encoder::new();
    let mut round = || {
        encode_success_header(&mut e, 1);
        drop(e.take());
    };
    round();
    let (_, used) = measure(|| (0..1000).for_each(|_| round()));
    assert_eq!(used.count, 0);
}
