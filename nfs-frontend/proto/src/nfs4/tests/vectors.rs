//! Operations written by hand from the RFCs, byte for byte, in both directions.

use atoll_xdr::{Array, Opaque};

use super::{both_ways, stateid};
use crate::nfs4::pnfs::*;
use crate::nfs4::*;
use crate::rpc::{AuthSys, Gids};
use crate::tests::{decode, encode, hex};

const OWNER: &str = "0000000000000007 00000003 6f776e00";

fn owner() -> StateOwner4 {
    StateOwner4 { clientid: 7, owner: Opaque::from_static(b"own") }
}

#[test]
fn lock_of_a_new_and_of_a_known_owner() {
    let lock = |locker| {
        ArgOp4::Lock(Lock4Args {
            locktype: LockType4::WriteBlocking,
            reclaim: false,
            offset: 0x10,
            length: u64::MAX,
            locker,
        })
    };
    let head = "0000000c 00000004 00000000 0000000000000010 ffffffffffffffff";
    let new = OpenToLockOwner4 {
        open_seqid: 2,
        open_stateid: stateid(1, 0xaa),
        lock_seqid: 3,
        lock_owner: owner(),
    };
    both_ways(
        &lock(Locker4::New(new)),
        &format!("{head} 00000001 00000002 00000001 aaaaaaaaaaaaaaaaaaaaaaaa 00000003 {OWNER}"),
    );
    let exist = ExistLockOwner4 { lock_stateid: stateid(4, 0xbb), lock_seqid: 5 };
    both_ways(
        &lock(Locker4::Exist(exist)),
        &format!("{head} 00000000 00000004 bbbbbbbbbbbbbbbbbbbbbbbb 00000005"),
    );
}

#[test]
fn locks_that_are_denied() {
    let denied = LockDenied4 { offset: 1, length: 2, locktype: LockType4::Read, owner: owner() };
    let body = format!("0000271a 0000000000000001 0000000000000002 00000001 {OWNER}");
    both_ways(&ResOp4::Lock(Err(Failure::With(denied.clone()))), &format!("0000000c {body}"));
    both_ways(&ResOp4::LockT(Err(Failure::With(denied))), &format!("0000000d {body}"));
    both_ways(&ResOp4::LockT(Ok(())), "0000000d 00000000");
    both_ways(&ResOp4::Lock(Err(NfsStat4::Grace.into())), "0000000c 0000271d");
    // A denial without the lock in the way would not be what its status says.
    assert_eq!(&encode(&OpNum4::Lock.failed(NfsStat4::Denied))[..], hex("0000000c 00002716"));
}

#[test]
fn setclientid() {
    let args = SetClientId4Args {
        client: ClientOwner4 { verifier: [1; 8], ownerid: Opaque::from_static(b"client") },
        callback: CbClient4 {
            cb_program: 0x4000_0000,
            cb_location: NetAddr4 {
                netid: Opaque::from_static(b"tcp"),
                addr: Opaque::from_static(b"10.0.0.1.3.233"),
            },
        },
        callback_ident: 2,
    };
    let address = "00000003 74637000 0000000e 31302e302e302e312e332e3233330000";
    both_ways(
        &ArgOp4::SetClientId(args.clone()),
        &format!("00000023 0101010101010101 00000006 636c69656e740000 40000000 {address} 00000002"),
    );
    let ok = SetClientId4Ok { clientid: 7, setclientid_confirm: [2; 8] };
    both_ways(&ResOp4::SetClientId(Ok(ok)), "00000023 00000000 0000000000000007 0202020202020202");
    let using = ClientUsing4 { client_using: args.callback.cb_location };
    both_ways(&ResOp4::SetClientId(Err(Failure::With(using))), &format!("00000023 00002721 {address}"));
}

fn implementation() -> ImplId4 {
    ImplId4 {
        domain: Opaque::from_static(b"kernel.org"),
        name: Opaque::from_static(b"Linux"),
        date: NfsTime4 { seconds: 0, nseconds: 0 },
    }
}

const IMPLEMENTATION: &str =
    "00000001 0000000a 6b65726e656c2e6f72670000 00000005 4c696e7578000000 0000000000000000 00000000";

#[test]
fn exchange_id_with_implementation() {
    let args = |state_protect, client_impl_id| {
        ArgOp4::ExchangeId(Box::new(ExchangeId4Args {
            clientowner: ClientOwner4 { verifier: [1; 8], ownerid: Opaque::from_static(b"own") },
            flags: exchange_id::SUPP_MOVED_REFER | exchange_id::BIND_PRINC_STATEID,
            state_protect,
            client_impl_id,
        }))
    };
    let head = "0000002a 0101010101010101 00000003 6f776e00 00000101";
    both_ways(&args(StateProtect4Args::None, None), &format!("{head} 00000000 00000000"));
    both_ways(
        &args(StateProtect4Args::None, Some(implementation())),
        &format!("{head} 00000000 {IMPLEMENTATION}"),
    );
    let ops = StateProtectOps4 { must_enforce: Bitmap::of(&[42, 43]), must_allow: Bitmap::EMPTY };
    both_ways(
        &args(StateProtect4Args::MachCred(ops.clone()), None),
        &format!("{head} 00000001 00000002 00000000 00000c00 00000000 00000000"),
    );
    let ssv = SsvParms4 {
        ops,
        hash_algs: Array::new(vec![Opaque::from_static(&[6, 1])]).unwrap(),
        encr_algs: Array::default(),
        window: 4,
        num_gss_handles: 1,
    };
    both_ways(
        &args(StateProtect4Args::Ssv(ssv), None),
        &format!(
            "{head} 00000002 00000002 00000000 00000c00 00000000
             00000001 00000002 06010000 00000000 00000004 00000001 00000000"
        ),
    );
    // At most one implementation.
    assert!(decode::<ArgOp4>(&hex(&format!("{head} 00000000 00000002"))).is_err());

    let ok = ExchangeId4Ok {
        clientid: 7,
        sequenceid: 1,
        flags: exchange_id::USE_NON_PNFS | exchange_id::CONFIRMED_R,
        state_protect: StateProtect4Ok::None,
        server_owner: ServerOwner4 { minor_id: 9, major_id: Opaque::from_static(b"maj") },
        server_scope: Opaque::from_static(b"scope"),
        server_impl_id: None,
    };
    both_ways(
        &ResOp4::ExchangeId(Ok(ok)),
        "0000002a 00000000 0000000000000007 00000001 80010000 00000000
         0000000000000009 00000003 6d616a00 00000005 73636f7065000000 00000000",
    );
}

#[test]
fn create_session() {
    let channel = |slots, rdma_ird| ChannelAttrs4 {
        headerpadsize: 0,
        maxrequestsize: 0x10_0400,
        maxresponsesize: 0x10_0200,
        maxresponsesize_cached: 0x1800,
        maxoperations: 8,
        maxrequests: slots,
        rdma_ird,
    };
    let sys = AuthSys {
        stamp: 1,
        machine_name: Opaque::from_static(b"host"),
        uid: 0,
        gid: 0,
        gids: Gids::new(&[4]).unwrap(),
    };
    let gss = GssCbHandles4 {
        service: GssService4::Integrity,
        handle_from_server: Opaque::from_static(&[1]),
        handle_from_client: Opaque::from_static(&[2]),
    };
    let args = CreateSession4Args {
        clientid: 7,
        sequence: 1,
        flags: create_session::PERSIST | create_session::CONN_BACK_CHAN,
        fore_chan_attrs: channel(64, None),
        back_chan_attrs: channel(16, Some(5)),
        cb_program: 0x4000_0000,
        sec_parms: Array::new(vec![CbSecParms4::None, CbSecParms4::Sys(sys), CbSecParms4::Gss(gss)]).unwrap(),
    };
    let sizes = "00000000 00100400 00100200 00001800 00000008";
    both_ways(
        &ArgOp4::CreateSession(args.clone()),
        &format!(
            "0000002b 0000000000000007 00000001 00000003
             {sizes} 00000040 00000000  {sizes} 00000010 00000001 00000005
             40000000 00000003
             00000000
             00000001 00000001 00000004 686f7374 00000000 00000000 00000001 00000004
             00000006 00000002 00000001 01000000 00000001 02000000"
        ),
    );
    let ok = CreateSession4Ok {
        sessionid: [3; 16],
        sequence: 1,
        flags: create_session::CONN_BACK_CHAN,
        fore_chan_attrs: args.fore_chan_attrs,
        back_chan_attrs: args.back_chan_attrs,
    };
    both_ways(
        &ResOp4::CreateSession(Ok(ok)),
        &format!(
            "0000002b 00000000 03030303030303030303030303030303 00000001 00000002
             {sizes} 00000040 00000000  {sizes} 00000010 00000001 00000005"
        ),
    );
}

#[test]
fn sequence() {
    let args =
        Sequence4Args { sessionid: [3; 16], sequenceid: 2, slotid: 4, highest_slotid: 5, cachethis: true };
    both_ways(
        &ArgOp4::Sequence(args),
        "00000035 03030303030303030303030303030303 00000002 00000004 00000005 00000001",
    );
    let ok = Sequence4Ok {
        sessionid: [3; 16],
        sequenceid: 2,
        slotid: 4,
        highest_slotid: 63,
        target_highest_slotid: 62,
        status_flags: seq_status::CB_PATH_DOWN_SESSION,
    };
    both_ways(
        &ResOp4::Sequence(Ok(ok)),
        "00000035 00000000 03030303030303030303030303030303 00000002 00000004 0000003f 0000003e 00000200",
    );
}

#[test]
fn create_of_each_type() {
    let create = |objtype, text: &str| {
        let args =
            Create4Args { objtype, objname: Opaque::from_static(b"n"), createattrs: Fattr4::default() };
        both_ways(&ArgOp4::Create(args), &format!("00000006 {text} 00000001 6e000000 00000000 00000000"));
    };
    create(CreateType4::SymLink(Opaque::from_static(b"to")), "00000005 00000002 746f0000");
    create(CreateType4::Block(SpecData4 { major: 8, minor: 1 }), "00000003 00000008 00000001");
    create(CreateType4::Character(SpecData4 { major: 1, minor: 3 }), "00000004 00000001 00000003");
    create(CreateType4::Directory, "00000002");
    create(CreateType4::Socket, "00000006");
    create(CreateType4::Fifo, "00000007");
    // Answered with NFS4ERR_BADTYPE, so they decode.
    create(CreateType4::Other(1), "00000001");
    create(CreateType4::Other(77), "0000004d");
}

#[test]
fn setattr_tells_what_was_set_even_if_it_failed() {
    let result = SetAttr4Res { status: Err(NfsStat4::Inval), attrsset: Bitmap::of(&[4]) };
    both_ways(&ResOp4::SetAttr(result), "00000022 00000016 00000001 00000010");
    let result = SetAttr4Res { status: Ok(()), attrsset: Bitmap::of(&[33]) };
    both_ways(&ResOp4::SetAttr(result), "00000022 00000000 00000002 00000000 00000002");
}

#[test]
fn read_and_write() {
    let read = Read4Args { stateid: StateId4::READ_BYPASS, offset: 1, count: 2 };
    both_ways(&ArgOp4::Read(read), "00000019 ffffffff ffffffffffffffffffffffff 0000000000000001 00000002");
    let ok = Read4Ok { eof: true, data: Opaque::from_static(b"data!") };
    both_ways(&ResOp4::Read(Ok(ok)), "00000019 00000000 00000001 00000005 6461746121000000");
    let write = Write4Args {
        stateid: StateId4::CURRENT,
        offset: 3,
        stable: StableHow4::DataSync,
        data: Opaque::from_static(b"x"),
    };
    both_ways(
        &ArgOp4::Write(write),
        "00000026 00000001 000000000000000000000000 0000000000000003 00000001 00000001 78000000",
    );
}

#[test]
fn read_plus() {
    let contents = vec![
        ReadPlusContent4::Data(ReadPlusData4 { offset: 0, data: Opaque::from_static(b"abc") }),
        ReadPlusContent4::Hole(ReadPlusHole4 { offset: 3, length: 0x1000 }),
    ];
    let ok = ReadPlus4Ok { eof: false, contents: Array::new(contents).unwrap() };
    both_ways(
        &ResOp4::ReadPlus(Ok(ok)),
        "00000044 00000000 00000000 00000002
         00000000 0000000000000000 00000003 61626300
         00000001 0000000000000003 0000000000001000",
    );
    let none = ReadPlus4Ok { eof: true, contents: Array::default() };
    both_ways(&ResOp4::ReadPlus(Ok(none)), "00000044 00000000 00000001 00000000");
}

#[test]
fn copy_and_clone() {
    let copy = Copy4Args {
        src_stateid: stateid(1, 1),
        dst_stateid: stateid(2, 2),
        src_offset: 3,
        dst_offset: 4,
        count: 5,
        consecutive: true,
        synchronous: false,
        source_server: Array::new(vec![NetLoc4::Name(Opaque::from_static(b"srv"))]).unwrap(),
    };
    let numbers = "00000001 010101010101010101010101 00000002 020202020202020202020202
                   0000000000000003 0000000000000004 0000000000000005";
    both_ways(
        &ArgOp4::Copy(copy.clone()),
        &format!("0000003c {numbers} 00000001 00000000 00000001 00000001 00000003 73727600"),
    );
    let clone = Clone4Args {
        src_stateid: copy.src_stateid,
        dst_stateid: copy.dst_stateid,
        src_offset: 3,
        dst_offset: 4,
        count: 5,
    };
    both_ways(&ArgOp4::Clone(clone), &format!("00000047 {numbers}"));
    let requirements = CopyRequirements4 { consecutive: true, synchronous: false };
    let response = WriteResponse4 {
        callback_id: Some(stateid(1, 1)),
        count: 0,
        committed: StableHow4::Unstable,
        writeverf: [9; 8],
    };
    both_ways(
        &ResOp4::Copy(Ok(Copy4Ok { response, requirements })),
        "0000003c 00000000 00000001 00000001 010101010101010101010101 0000000000000000 00000000
         0909090909090909 00000001 00000000",
    );
    both_ways(&ResOp4::Copy(Err(Failure::With(requirements))), "0000003c 0000276e 00000001 00000000");
    let status = OffloadStatus4Ok { count: 9, complete: Some(Err(NfsStat4::NoSpc)) };
    both_ways(&ResOp4::OffloadStatus(Ok(status)), "00000043 00000000 0000000000000009 00000001 0000001c");
}

#[test]
fn extended_attributes() {
    let set = SetXattr4Args {
        option: SetXattrOption4::Create,
        key: Opaque::from_static(b"key"),
        value: Opaque::from_static(b"v"),
    };
    both_ways(&ArgOp4::SetXattr(set), "00000049 00000001 00000003 6b657900 00000001 76000000");
    both_ways(&ResOp4::GetXattr(Err(NfsStat4::NoXattr)), "00000048 0000276f");
    let names = Array::new(vec![Opaque::from_static(b"a"), Opaque::from_static(b"bc")]).unwrap();
    both_ways(
        &ResOp4::ListXattrs(Ok(ListXattrs4Ok { cookie: 2, names, eof: true })),
        "0000004a 00000000 0000000000000002 00000002 00000001 61000000 00000002 62630000 00000001",
    );
}

#[test]
fn security_flavors() {
    let krb5 =
        GssInfo4 { oid: Opaque::from_static(&[0x2a, 0x86, 0x48]), qop: 0, service: GssService4::Privacy };
    let flavors = Array::new(vec![SecInfo4::Gss(krb5), SecInfo4::Flavor(1)]).unwrap();
    let body = "00000000 00000002 00000006 00000003 2a864800 00000000 00000003 00000001";
    both_ways(&ResOp4::SecInfo(Ok(flavors.clone())), &format!("00000021 {body}"));
    both_ways(&ResOp4::SecInfoNoName(Ok(flavors)), &format!("00000034 {body}"));
    both_ways(&ArgOp4::SecInfoNoName(SecInfoStyle4::Parent), "00000034 00000001");
}

#[test]
fn stateids_that_are_tested() {
    let stateids = Array::new(vec![stateid(1, 1), StateId4::INVALID]).unwrap();
    both_ways(
        &ArgOp4::TestStateId(TestStateId4Args { stateids }),
        "00000037 00000002 00000001 010101010101010101010101 ffffffff 000000000000000000000000",
    );
    let status_codes = Array::new(vec![Ok(()), Err(NfsStat4::BadStateId)]).unwrap();
    both_ways(
        &ResOp4::TestStateId(Ok(TestStateId4Ok { status_codes })),
        "00000037 00000000 00000002 00000000 00002729",
    );
}

#[test]
fn layouts_are_read_over() {
    let get = LayoutGet4Args {
        signal_layout_avail: false,
        layout_type: 4,
        iomode: LayoutIoMode4::ReadWrite,
        offset: 0,
        length: u64::MAX,
        minlength: 0x1000,
        stateid: stateid(1, 1),
        maxcount: 0x2000,
    };
    both_ways(
        &ArgOp4::LayoutGet(get),
        "00000032 00000000 00000004 00000002 0000000000000000 ffffffffffffffff 0000000000001000
         00000001 010101010101010101010101 00002000",
    );
    let of_file = LayoutReturnFile4 {
        offset: 0,
        length: u64::MAX,
        stateid: stateid(1, 1),
        body: Opaque::from_static(b"b"),
    };
    let returned = |layoutreturn| {
        ArgOp4::LayoutReturn(LayoutReturn4Args {
            reclaim: false,
            layout_type: 1,
            iomode: LayoutIoMode4::Any,
            layoutreturn,
        })
    };
    both_ways(
        &returned(LayoutReturn4::File(of_file)),
        "00000033 00000000 00000001 00000003 00000001 0000000000000000 ffffffffffffffff
         00000001 010101010101010101010101 00000001 62000000",
    );
    both_ways(&returned(LayoutReturn4::All), "00000033 00000000 00000001 00000003 00000003");
    let later = ResOp4::LayoutGet(Err(Failure::With(WillSignal4 { will_signal: true })));
    both_ways(&later, "00000032 0000274a 00000001");
    let small = ResOp4::GetDeviceInfo(Err(Failure::With(MinCount4 { mincount: 64 })));
    both_ways(&small, "0000002f 00002715 00000040");
}

#[test]
fn an_acl() {
    let ace = |ace_type, flag, access_mask, who| Ace4 { ace_type, flag, access_mask, who };
    let aces = vec![
        ace(ace_type::ALLOWED, 0, ace_mask::GENERIC_READ, Opaque::from_static(who::EVERYONE)),
        ace(ace_type::DENIED, ace_flag::IDENTIFIER_GROUP, ace_mask::DELETE, Opaque::from_static(b"g@d")),
    ];
    let body = "00000002 00000000 00000000 00120081 00000009 45564552594f4e4540000000
                00000001 00000040 00010000 00000003 67406400";
    both_ways(&Acl4::new(aces.clone()).unwrap(), body);
    let acl = Acl41 { flag: acl_flag::PROTECTED, aces: Array::new(aces).unwrap() };
    both_ways(&acl, &format!("00000002 {body}"));
}

#[test]
fn locations() {
    let path = |name| Path4::new(vec![Opaque::from_static(name)]).unwrap();
    let location = FsLocation4 {
        servers: Array::new(vec![Opaque::from_static(b"s1"), Opaque::from_static(b"s2")]).unwrap(),
        root_path: path(b"vol"),
    };
    let locations = FsLocations4 { fs_root: path(b"a"), locations: Array::new(vec![location]).unwrap() };
    both_ways(
        &locations,
        "00000001 00000001 61000000 00000001
         00000002 00000002 73310000 00000002 73320000 00000001 00000003 766f6c00",
    );
}
