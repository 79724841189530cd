//! Callbacks, byte for byte.

use atoll_xdr::{Array, Decoder, Encoder, Opaque};

use super::{both_ways, stateid};
use crate::nfs4::callback::*;
use crate::nfs4::{Bitmap, Fattr4, FileHandle, NfsStat4, StableHow4, StateOwner4, Tag, WriteResponse4};
use crate::rpc::{AuthFlavor, CallHeader, OpaqueAuth};

fn handle() -> FileHandle {
    FileHandle::new(&[0xfe, 0xed, 0xbe]).unwrap()
}

const HANDLE: &str = "00000003 feedbe00";

fn sequence(lists: Vec<ReferringCallList4>) -> CbArgOp4 {
    CbArgOp4::Sequence(CbSequence4Args {
        sessionid: [5; 16],
        sequenceid: 2,
        slotid: 0,
        highest_slotid: 3,
        cachethis: false,
        referring_call_lists: Array::new(lists).unwrap(),
    })
}

const SEQUENCE: &str = "0000000b 05050505050505050505050505050505 00000002 00000000 00000003 00000000";

#[test]
fn cb_sequence_with_referring_calls() {
    both_ways(&sequence(Vec::new()), &format!("{SEQUENCE} 00000000"));
    let call = |sequenceid, slotid| ReferringCall4 { sequenceid, slotid };
    let lists = vec![
        ReferringCallList4 {
            sessionid: [5; 16],
            calls: Array::new(vec![call(0x11, 1), call(0x22, 2)]).unwrap(),
        },
        ReferringCallList4 { sessionid: [6; 16], calls: Array::default() },
    ];
    both_ways(
        &sequence(lists),
        &format!(
            "{SEQUENCE} 00000002
             05050505050505050505050505050505 00000002 00000011 00000001 00000022 00000002
             06060606060606060606060606060606 00000000"
        ),
    );
    let ok = CbSequence4Ok {
        sessionid: [5; 16],
        sequenceid: 2,
        slotid: 0,
        highest_slotid: 3,
        target_highest_slotid: 4,
    };
    both_ways(
        &CbResOp4::Sequence(Ok(ok)),
        "0000000b 00000000 05050505050505050505050505050505 00000002 00000000 00000003 00000004",
    );
    both_ways(&CbResOp4::Sequence(Err(NfsStat4::BadSession)), "0000000b 00002744");
}

#[test]
fn a_whole_recall() {
    let recall = CbRecall4Args { stateid: stateid(1, 0xaa), truncate: true, fh: handle() };
    let args = CbCompound4Args {
        tag: Tag::default(),
        minorversion: 1,
        callback_ident: 0,
        ops: Array::new(vec![sequence(Vec::new()), CbArgOp4::Recall(recall)]).unwrap(),
    };
    let text = format!(
        "00000000 00000001 00000000 00000002 {SEQUENCE} 00000000
         00000004 00000001 aaaaaaaaaaaaaaaaaaaaaaaa 00000001 {HANDLE}"
    );
    both_ways(&args, &text);

    let mut e = Encoder::new();
    encode_cb_call(&mut e, 9, 0x4000_1234, OpaqueAuth::NONE, &args);
    let mut d = Decoder::new(e.into_bytes());
    let header = CallHeader::parse(&mut d).unwrap();
    assert_eq!((header.xid, header.program, header.version, header.procedure), (9, 0x4000_1234, 1, 1));
    assert_eq!(header.credential.known_flavor(), Some(AuthFlavor::None));
    assert_eq!(d.decode::<CbCompound4Args>().unwrap(), args);
    d.finish().unwrap();
}

#[test]
fn each_callback() {
    both_ways(
        &CbArgOp4::GetAttr(CbGetAttr4Args { fh: handle(), attr_request: Bitmap::of(&[3, 4]) }),
        &format!("00000003 {HANDLE} 00000001 00000018"),
    );
    both_ways(
        &CbArgOp4::RecallAny(CbRecallAny4Args { objects_to_keep: 10, type_mask: Bitmap::of(&[0, 1]) }),
        "00000008 0000000a 00000001 00000003",
    );
    both_ways(
        &CbArgOp4::RecallableObjAvail(CbRecallAny4Args {
            objects_to_keep: 1,
            type_mask: Bitmap::of(&[recall_any::DIR_DLG]),
        }),
        "00000009 00000001 00000001 00000004",
    );
    both_ways(&CbArgOp4::RecallSlot(CbRecallSlot4Args { target_highest_slotid: 7 }), "0000000a 00000007");
    both_ways(
        &CbArgOp4::WantsCancelled(CbWantsCancelled4Args { contended: true, resourced: false }),
        "0000000c 00000001 00000000",
    );
    let lock_owner = StateOwner4 { clientid: 7, owner: Opaque::from_static(b"me") };
    both_ways(
        &CbArgOp4::NotifyLock(CbNotifyLock4Args { fh: handle(), lock_owner }),
        &format!("0000000d {HANDLE} 0000000000000007 00000002 6d650000"),
    );
    let stateid = stateid(1, 0xcc);
    let offload = |info| CbArgOp4::Offload(CbOffload4Args { fh: handle(), stateid, info });
    let head = format!("0000000f {HANDLE} 00000001 cccccccccccccccccccccccc");
    let written =
        WriteResponse4 { callback_id: None, count: 64, committed: StableHow4::FileSync, writeverf: [9; 8] };
    both_ways(
        &offload(Ok(written)),
        &format!("{head} 00000000 00000000 0000000000000040 00000002 0909090909090909"),
    );
    both_ways(
        &offload(Err(OffloadFailed4 { status: NfsStat4::NoSpc, bytes_copied: 32 })),
        &format!("{head} 0000001c 0000000000000020"),
    );
}

#[test]
fn cb_notify() {
    let entry = |file| NotifyEntry4 { file: Opaque::from_static(file), attrs: Fattr4::default() };
    let mut e = Encoder::new();
    e.put(&NotifyRemove4 { old_entry: entry(b"a"), old_entry_cookie: 5 });
    e.put(&NotifyAdd4 {
        old_entry: None,
        new_entry: entry(b"b"),
        new_entry_cookie: Some(6),
        prev_entry: None,
        last_entry: true,
    });
    let changes = Notify4 {
        mask: Bitmap::of(&[notify_type::REMOVE_ENTRY, notify_type::ADD_ENTRY]),
        values: Opaque::new(e.into_bytes()).unwrap(),
    };
    let notify = CbNotify4Args {
        stateid: stateid(1, 0xdd),
        fh: handle(),
        changes: Array::new(vec![changes]).unwrap(),
    };
    both_ways(
        &CbArgOp4::Notify(notify),
        &format!(
            "00000006 00000001 dddddddddddddddddddddddd {HANDLE} 00000001 00000001 0000000c
             00000040
             00000001 61000000 00000000 00000000 0000000000000005
             00000000 00000001 62000000 00000000 00000000 00000001 0000000000000006 00000000 00000001"
        ),
    );
}
