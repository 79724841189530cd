//! RPC headers and credentials.
#![no_main]

use atoll_fuzz::round_trip;
use atoll_proto::rpc::{AuthSys, CallHeader, OpaqueAuth, ReplyHeader};
use atoll_xdr::Decoder;
use bytes::Bytes;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let bytes = Bytes::copy_from_slice(data);
    if let Ok(header) = CallHeader::parse(&mut Decoder::new(bytes.clone())) {
        let _either = header.credential.auth_sys();
    }
    round_trip::<OpaqueAuth>(&bytes);
    round_trip::<AuthSys>(&bytes);
    round_trip::<ReplyHeader>(&bytes);
});
