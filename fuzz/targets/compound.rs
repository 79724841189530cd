//! NFSv4 (RFC 8881 §16.2, §20): calls as a server reads them, replies as a client reads them, callbacks both ways. The
//! first byte chooses.
#![no_main]

use atoll_fuzz::round_trip;
use atoll_proto::nfs4::callback::{CbCompound4Args, CbCompound4Res};
use atoll_proto::nfs4::{
    ArgOp4, Bitmap, Compound4Args, Compound4Res, CompoundCall, Fattr4, ResOp4, SetAttrs4,
};
use atoll_xdr::{Decode, Decoder, Encode, Encoder};
use bytes::Bytes;
use std::fmt::Debug;

/// Operations a server admits.
const MAX_OPS: usize = 64;

fn again<T: Decode + Encode + PartialEq + Debug>(value: &T) {
    let mut encoder = Encoder::new();
    encoder.put(value);
    let mut decoder = Decoder::new(encoder.into_bytes());
    assert_eq!(decoder.decode::<T>().as_ref(), Ok(value));
    assert_eq!(decoder.finish(), Ok(()));
}

/// Operations that were read mean the same when they are written again, and what was not read has an answer.
fn call(bytes: &Bytes) {
    let Ok(call) = CompoundCall::decode(&mut Decoder::new(bytes.clone()), MAX_OPS) else { return };
    assert!(call.ops.len() <= MAX_OPS);
    for op in &call.ops {
        again::<ArgOp4>(op);
        let fattr = match op {
            ArgOp4::SetAttr(args) => &args.obj_attributes,
            ArgOp4::Create(args) => &args.createattrs,
            ArgOp4::Verify(args) => &args.obj_attributes,
            _ => continue,
        };
        attributes(fattr);
    }
    match call.stop {
        None => assert_eq!(call.ops.len(), call.announced as usize),
        Some(stop) => {
            if let Some(result) = stop.result(call.minorversion) {
                assert_eq!(result.status(), Err(stop.status(call.minorversion)));
                again::<ResOp4>(&result);
            }
        }
    }
}

fn attributes(fattr: &Fattr4) {
    if let Ok(values) = fattr.read() {
        // Written canonically, they are read as the same.
        let built = Fattr4::build(&values).expect("no longer than they were, and in order");
        assert_eq!(built.mask, fattr.mask);
        assert_eq!(built.read().as_ref(), Ok(&values));
    }
    if let Ok(set) = SetAttrs4::read(fattr, &SetAttrs4::ALL) {
        assert_eq!(set.mask(), fattr.mask);
    }
    assert_eq!(fattr.mask.iter().collect::<Bitmap>(), fattr.mask);
}

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    let Some((choice, rest)) = data.split_first() else { return };
    let bytes = Bytes::copy_from_slice(rest);
    match choice % 6 {
        0 => call(&bytes),
        1 => round_trip::<Compound4Args>(&bytes),
        2 => round_trip::<Compound4Res>(&bytes),
        3 => round_trip::<CbCompound4Args>(&bytes),
        4 => round_trip::<CbCompound4Res>(&bytes),
        _ => {
            if let Ok(fattr) = Decoder::new(bytes).decode() {
                attributes(&fattr);
            }
        }
    }
});
