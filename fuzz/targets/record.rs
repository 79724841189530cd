//! Record marking: however a stream is cut into reads, the same records come out, within the bounds.
#![no_main]

use atoll_proto::record::{RecordLimits, RecordReader};
use bytes::{Bytes, BytesMut};
use libfuzzer_sys::fuzz_target;

const LIMITS: RecordLimits = RecordLimits { max_record: 4096, max_fragments: 16 };

/// Records of the stream when it comes in pieces of `step` bytes, and whether it was refused.
fn records(stream: &[u8], step: usize) -> (Vec<Bytes>, bool) {
    let mut reader = RecordReader::new(LIMITS);
    let mut buffer = BytesMut::new();
    let mut out = Vec::new();
    for piece in stream.chunks(step.max(1)) {
        buffer.extend_from_slice(piece);
        loop {
            match reader.next_record(&mut buffer) {
                Ok(Some(record)) => {
                    assert!(record.len() <= LIMITS.max_record);
                    out.push(record);
                }
                Ok(None) => break,
                Err(_) => return (out, true),
            }
        }
    }
    (out, false)
}

fuzz_target!(|data: &[u8]| {
    let Some((step, stream)) = data.split_first() else { return };
    let (whole, refused_whole) = records(stream, stream.len());
    let (cut, refused_cut) = records(stream, usize::from(*step) + 1);
    assert_eq!((whole, refused_whole), (cut, refused_cut));
});
