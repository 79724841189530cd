//! The reading of a COMPOUND by a server, and the writing of its reply.

use atoll_xdr::{Array, Decoder, Encoder, Entropy, Error, Opaque, Sample};
use bytes::Bytes;
use proptest::prelude::*;

use super::{both_ways, stateid};
use crate::nfs4::*;
use crate::tests::{decode, encode, hex};

fn call(text: &str, max_ops: usize) -> CompoundCall {
    let mut d = Decoder::new(hex(text).into());
    CompoundCall::decode(&mut d, max_ops).unwrap()
}

/// The number and status of the result that stands for what was not decoded.
fn answer(call: &CompoundCall) -> Option<(OpNum4, NfsStat4)> {
    let result = call.stop.as_ref().unwrap().result(call.minorversion)?;
    Some((result.op(), result.status().unwrap_err()))
}

#[test]
fn a_compound() {
    let args = Compound4Args {
        tag: Opaque::from_static(b"mount"),
        minorversion: 1,
        ops: Array::new(vec![ArgOp4::PutRootFh, ArgOp4::GetFh]).unwrap(),
    };
    let text = "00000005 6d6f756e74000000 00000001 00000002 00000018 0000000a";
    both_ways(&args, text);
    let call = call(text, 8);
    assert_eq!((&call.tag[..], call.minorversion, call.announced), (&b"mount"[..], 1, 2));
    assert_eq!((&call.ops[..], call.stop), (&args.ops[..], None));
}

#[test]
fn what_stands_before_a_bad_operation_is_kept() {
    // PUTROOTFH, LOOKUP of a name that is cut off.
    let cut = call("00000000 00000001 00000003 00000018 0000000f 00000008 61626364", 8);
    assert_eq!(cut.ops, [ArgOp4::PutRootFh]);
    assert_eq!(cut.stop.unwrap().op, Some(15));
    assert_eq!(answer(&cut), Some((OpNum4::Lookup, NfsStat4::BadXdr)));
    // SETATTR's failure carries a bitmap.
    let cut = call("00000000 00000001 00000001 00000022", 8);
    assert_eq!(
        cut.stop.unwrap().result(1).map(|res| encode(&res)).unwrap()[..],
        hex("00000022 00002734 00000000")
    );
}

#[test]
fn an_operation_that_is_missing() {
    let short = call("00000000 00000001 00000003 00000018", 8);
    assert_eq!(short.ops, [ArgOp4::PutRootFh]);
    assert_eq!(short.stop.unwrap().op, None);
    assert_eq!(answer(&short), Some((OpNum4::Illegal, NfsStat4::BadXdr)));
}

#[test]
fn an_operation_that_nobody_knows() {
    for number in ["00000000", "00000002", "0000004c", "0000273c", "ffffffff"] {
        let illegal = call(&format!("00000000 00000002 00000003 00000018 {number} 0000000a"), 8);
        assert_eq!(illegal.ops, [ArgOp4::PutRootFh]);
        assert_eq!(answer(&illegal), Some((OpNum4::Illegal, NfsStat4::OpIllegal)), "{number}");
    }
}

#[test]
fn an_operation_of_another_minor_version() {
    for (number, first) in [(39_u32, 0), (40, 1), (58, 1), (59, 2), (72, 2), (75, 2)] {
        for minor in 0..=MAX_MINOR_VERSION {
            let op = OpNum4::from_u32(number).unwrap();
            assert_eq!(op.defined_in(minor) != Defined::No, minor >= first, "{op:?} in {minor}");
            let call = call(&format!("00000000 {minor:08x} 00000001 {number:08x}"), 8);
            let status = if minor >= first { NfsStat4::BadXdr } else { NfsStat4::OpIllegal };
            let answered = if minor >= first { op } else { OpNum4::Illegal };
            assert_eq!(answer(&call), Some((answered, status)));
        }
    }
}

#[test]
fn what_later_versions_must_not_implement_is_read_over() {
    // RENEW, PUTROOTFH.
    let text = "00000000 00000001 00000002 0000001e 0000000000000007 00000018";
    let read = call(text, 8);
    assert_eq!(read.ops, [ArgOp4::Renew(ClientId4Args { clientid: 7 }), ArgOp4::PutRootFh]);
    assert_eq!(read.stop, None);
    assert_eq!(OpNum4::Renew.defined_in(0), Defined::Yes);
    assert_eq!(OpNum4::Renew.defined_in(1), Defined::Obsolete);
}

#[test]
fn an_unknown_minor_version_is_not_looked_into() {
    let call = call("00000000 00000003 00000001 ffffffff", 8);
    assert_eq!((call.ops.len(), answer(&call)), (0, None));
    assert_eq!(call.stop.unwrap().status(3), NfsStat4::MinorVersMismatch);
}

#[test]
fn more_operations_than_wanted() {
    let text = |minor| format!("00000000 {minor:08x} 00000003 00000018 00000018 0000000a");
    let many = call(&text(1), 2);
    assert_eq!((many.ops.len(), many.announced), (2, 3));
    assert_eq!(answer(&many), Some((OpNum4::GetFh, NfsStat4::TooManyOps)));
    assert_eq!(answer(&call(&text(0), 2)), Some((OpNum4::GetFh, NfsStat4::Resource)));
    assert_eq!(call(&text(0), 3).stop, None);
}

#[test]
fn an_announced_count_claims_no_memory() {
    let (_, used) = crate::tests::measure(|| call("00000000 00000001 ffffffff 00000018 00000018", 1 << 20));
    // Two operations are there, and the input itself is held.
    assert!(used.peak < 4 * size_of::<ArgOp4>() + 512, "{used:?}");
}

#[test]
fn only_a_broken_head_is_garbage() {
    for head in ["", "00000004", "00000000 00000001", "00000401"] {
        assert!(CompoundCall::decode(&mut Decoder::new(hex(head).into()), 8).is_err());
    }
    let none = call("00000000 00000001 00000000", 8);
    assert_eq!((none.ops.len(), none.stop), (0, None));
}

#[test]
fn minor_version_0_has_no_later_forms_of_open() {
    let open = |openhow, claim| {
        let owner = StateOwner4 { clientid: 1, owner: Opaque::from_static(b"o") };
        ArgOp4::Open(Box::new(Open4Args { seqid: 0, share_access: 1, share_deny: 0, owner, openhow, claim }))
    };
    let both = CreateVerfAttr4 { verf: [0; 8], attrs: Fattr4::default() };
    let name = OpenClaim4::Null(Opaque::from_static(b"f"));
    for op in [
        open(OpenFlag4::NoCreate, OpenClaim4::Fh),
        open(OpenFlag4::NoCreate, OpenClaim4::DelegPrevFh),
        open(OpenFlag4::NoCreate, OpenClaim4::DelegCurFh(stateid(1, 1))),
        open(OpenFlag4::Create(CreateHow4::Exclusive41(both)), name.clone()),
    ] {
        for minorversion in 0..2 {
            let ops = Array::new(vec![op.clone()]).unwrap();
            let bytes = encode(&Compound4Args { tag: Tag::default(), minorversion, ops });
            let call = CompoundCall::decode(&mut Decoder::new(bytes), 8).unwrap();
            let refused = Error::BadDiscriminant { kind: "OPEN4args of minor version 0", value: 18 };
            let stop = Stop { op: Some(18), why: StopReason::BadXdr(refused) };
            assert_eq!(call.stop, (minorversion == 0).then_some(stop));
        }
    }
    let plain = open(OpenFlag4::NoCreate, name);
    let bytes = encode(&Compound4Args {
        tag: Tag::default(),
        minorversion: 0,
        ops: Array::new(vec![plain]).unwrap(),
    });
    assert_eq!(CompoundCall::decode(&mut Decoder::new(bytes), 8).unwrap().stop, None);
}

#[test]
fn payloads_are_slices_of_the_record() {
    let data = Bytes::from(vec![7; 100_000]);
    let args = Write4Args {
        stateid: stateid(1, 1),
        offset: 0,
        stable: StableHow4::Unstable,
        data: Opaque::new(data).unwrap(),
    };
    let ops = Array::new(vec![ArgOp4::Write(args)]).unwrap();
    let record = encode(&Compound4Args { tag: Tag::default(), minorversion: 1, ops });
    let range = record.as_ptr_range();
    let (call, used) =
        crate::tests::measure(|| CompoundCall::decode(&mut Decoder::new(record.clone()), 8).unwrap());
    let ArgOp4::Write(write) = &call.ops[0] else { panic!("WRITE") };
    assert!(range.contains(&write.data.as_ptr()) && write.data.len() == 100_000);
    assert!(used.peak < 10_000, "{used:?}");
}

#[test]
fn a_reply_is_written_result_by_result() {
    let tag = Opaque::from_static(b"t");
    let data = Bytes::from(vec![7; 8192]);
    let read = Read4Ok { eof: true, data: Opaque::new(data.clone()).unwrap() };
    let results = vec![ResOp4::PutFh(Ok(())), ResOp4::Read(Ok(read)), ResOp4::Lookup(Err(NfsStat4::NoEnt))];
    let whole = Compound4Res {
        status: Err(NfsStat4::NoEnt),
        tag: tag.clone(),
        ops: Array::new(results.clone()).unwrap(),
    };
    let mut e = Encoder::new();
    let mut writer = CompoundWriter::begin(&mut e, &tag);
    writer.put(&results[0]);
    let pieces = [data.slice(..4096), data.slice(4096..)];
    assert_eq!(writer.put_with(|e| encode_read_ok(e, true, pieces)), 8192);
    writer.put(&results[2]);
    writer.finish(Err(NfsStat4::NoEnt));
    let segments = e.finish();
    // The payload's pieces are segments of their own, at the place they came from.
    assert_eq!(segments.count(), 4);
    assert!(segments.iter().any(|segment| segment.as_ptr() == data.as_ptr()));
    assert_eq!(segments.into_bytes(), encode(&whole));
}

#[test]
fn a_result_that_is_too_big_is_replaced() {
    let mut e = Encoder::new();
    let mut writer = CompoundWriter::begin(&mut e, &Tag::default());
    writer.put(&ResOp4::PutFh(Ok(())));
    let before = writer.encoded();
    writer.put_with(|e| encode_read_ok(e, true, [Bytes::from(vec![7; 8192])]));
    assert_eq!(writer.encoded(), before + 16 + 8192);
    let too_big = OpNum4::Read.failed(NfsStat4::RepTooBig);
    writer.replace_last(&too_big);
    writer.finish(too_big.status());
    let res: Compound4Res = decode(&e.into_bytes()).unwrap();
    assert_eq!(res.status, Err(NfsStat4::RepTooBig));
    assert_eq!(res.ops[..], [ResOp4::PutFh(Ok(())), too_big]);
}

#[test]
fn attributes_are_written_without_a_buffer_of_their_own() {
    let value = AttrValue4::Size(5);
    let mut e = Encoder::new();
    let (_, used) = crate::tests::measure(|| {
        let mut attrs = begin_getattr_ok(&mut e, Bitmap::of(&[4]));
        attrs.put(&value);
        attrs.finish();
    });
    assert_eq!(used.count, 0);
    let ok = GetAttr4Ok { obj_attributes: Fattr4::build([&value]).unwrap() };
    assert_eq!(e.into_bytes(), encode(&ResOp4::GetAttr(Ok(ok))));
}

#[test]
fn operations_are_small_in_memory() {
    // A COMPOUND is a vector of them.
    assert!(size_of::<ArgOp4>() <= 200, "{}", size_of::<ArgOp4>());
    assert!(size_of::<callback::CbArgOp4>() <= 200, "{}", size_of::<callback::CbArgOp4>());
}

#[test]
fn every_operation_can_fail() {
    for op in OpNum4::ALL {
        let result = op.failed(NfsStat4::Delay);
        assert_eq!((result.op(), result.status()), (*op, Err(NfsStat4::Delay)));
        assert_eq!(decode::<ResOp4>(&encode(&result)).unwrap(), result);
        // Also with the status whose arm has data: what is written then is another one, and decodes.
        for status in [NfsStat4::Denied, NfsStat4::ClidInuse, NfsStat4::TooSmall, NfsStat4::OffloadNoReqs] {
            let result = op.failed(status);
            let again = decode::<ResOp4>(&encode(&result)).unwrap();
            assert_eq!(again.status(), result.status());
        }
    }
}

proptest! {
    #[test]
    fn a_server_reads_what_a_client_writes(
        entropy in prop::collection::vec(any::<u8>(), 0..600),
        minorversion in 0..=MAX_MINOR_VERSION,
        cut in any::<prop::sample::Index>(),
    ) {
        let mut args = Compound4Args::sample(&mut Entropy::new(&entropy));
        args.minorversion = minorversion;
        let bytes = encode(&args);
        let head = encode(&args.tag).len() + 8;
        let whole = CompoundCall::decode(&mut Decoder::new(bytes.clone()), 64).unwrap();
        prop_assert_eq!(whole.announced as usize, args.ops.len());
        prop_assert_eq!(&whole.ops[..], &args.ops[..whole.ops.len()]);
        match whole.stop {
            None => prop_assert_eq!(whole.ops.len(), args.ops.len()),
            Some(stop) => {
                let op = &args.ops[whole.ops.len()];
                prop_assert_eq!(stop.op, Some(op.op().to_u32()));
                let illegal = op.op().defined_in(minorversion) == Defined::No;
                prop_assert_eq!(illegal, stop.why == StopReason::Illegal);
            }
        }
        // A call that is cut off anywhere keeps the operations that are whole.
        let end = head + cut.index(bytes.len() - head + 1);
        let part = CompoundCall::decode(&mut Decoder::new(bytes.slice(..end)), 64).unwrap();
        prop_assert!(part.ops.len() <= whole.ops.len());
        prop_assert_eq!(&part.ops[..], &whole.ops[..part.ops.len()]);
        prop_assert!(end == bytes.len() || part.stop.is_some());
        if let Some(stop) = part.stop {
            let result = stop.result(minorversion).unwrap();
            prop_assert_eq!(result.status(), Err(stop.status(minorversion)));
            prop_assert_eq!(decode::<ResOp4>(&encode(&result)).unwrap(), result);
        }
    }

    #[test]
    fn any_compound_is_read_or_refused(
        words in prop::collection::vec(
            prop_oneof![4 => Just(0_u32), 2 => Just(1), 4 => 3..76_u32, 1 => any::<u32>()], 0..120),
        minorversion in 0..4_u32,
    ) {
        let mut all = vec![0, minorversion, u32::try_from(words.len()).unwrap()];
        all.extend(words);
        let bytes: Vec<u8> = all.into_iter().flat_map(u32::to_be_bytes).collect();
        let call = CompoundCall::decode(&mut Decoder::new(bytes.into()), 16).unwrap();
        prop_assert!(call.ops.len() <= 16);
        prop_assert!(call.stop.is_some() || call.ops.len() == call.announced as usize);
    }
}
