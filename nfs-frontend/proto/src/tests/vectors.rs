//! Messages written by hand from the RFCs, byte for byte, in both directions.

use atoll_xdr::{Array, Decoder, Encoder, List, Opaque};
use bytes::Bytes;

use super::{decode, encode, hex};
use crate::nfs3::*;
use crate::rpc::*;
use crate::{mount, nfsacl, nlm, nsm, portmap, rquota};

const FATTR: &str = "
    00000002 000001ed 00000003 000003e8 00000064
    0000000000001000 0000000000002000 00000000 00000000
    0000000000000007 000000000000002a
    5f000001 00000001 5f000002 00000002 5f000003 3b9ac9ff";

fn fattr() -> Fattr3 {
    Fattr3 {
        file_type: FileType3::Directory,
        mode: 0o755,
        nlink: 3,
        uid: 1000,
        gid: 100,
        size: 4096,
        used: 8192,
        rdev: SpecData3::default(),
        fsid: 7,
        fileid: 42,
        atime: NfsTime3 { seconds: 0x5f00_0001, nseconds: 1 },
        mtime: NfsTime3 { seconds: 0x5f00_0002, nseconds: 2 },
        ctime: NfsTime3 { seconds: 0x5f00_0003, nseconds: 999_999_999 },
    }
}

fn handle(bytes: &[u8]) -> FileHandle {
    FileHandle::new(bytes).unwrap()
}

#[track_caller]
fn both_ways<T>(value: &T, text: &str)
where
    T: atoll_xdr::Encode + atoll_xdr::Decode + PartialEq + std::fmt::Debug,
{
    let bytes = hex(text);
    assert_eq!(&encode(value)[..], &bytes[..]);
    assert_eq!(&decode::<T>(&bytes).unwrap(), value);
}

#[test]
fn getattr_call_with_auth_sys() {
    let bytes = hex("deadbeef 00000000 00000002 000186a3 00000003 00000001
         00000001 00000024
             01020304 00000005 686f737441 000000 000003e8 00000064 00000002 00000004 0000001b
         00000000 00000000
         00000006 aabbccddeeff 0000");
    let mut d = Decoder::new(Bytes::from(bytes.clone()));
    let call = CallHeader::parse(&mut d).unwrap();
    assert_eq!((call.xid, call.program, call.version, call.procedure), (0xdead_beef, PROGRAM, VERSION, 1));
    assert_eq!(Proc::from_u32(call.procedure), Some(Proc::GetAttr));
    assert_eq!(call.credential.known_flavor(), Some(AuthFlavor::Sys));
    let sys = call.credential.auth_sys().unwrap();
    assert_eq!(
        (&sys.machine_name[..], sys.uid, sys.gid, &sys.gids[..]),
        (&b"hostA"[..], 1000, 100, &[4, 27][..])
    );
    assert_eq!(call.verifier, OpaqueAuth::NONE);
    let args: GetAttr3Args = d.decode().unwrap();
    assert_eq!(args.object, handle(&[0xaa, 0xbb, 0xcc, 0xdd, 0xee, 0xff]));
    d.finish().unwrap();

    let mut e = Encoder::new();
    encode_call::<call::GetAttr>(&mut e, 0xdead_beef, OpaqueAuth::sys(&sys), &args);
    assert_eq!(&e.into_bytes()[..], &bytes[..]);
}

#[test]
fn getattr_reply() {
    let bytes = hex(&format!("deadbeef 00000001 00000000 00000000 00000000 00000000  00000000 {FATTR}"));
    let mut e = Encoder::new();
    encode_success_header(&mut e, 0xdead_beef);
    let res: GetAttr3Res = Ok(GetAttr3Ok { obj_attributes: fattr() });
    e.put(&res);
    assert_eq!(&e.into_bytes()[..], &bytes[..]);

    let mut d = Decoder::new(bytes.into());
    assert_eq!(d.decode::<ReplyHeader>().unwrap(), ReplyHeader::accepted(0xdead_beef, Accepted::Success));
    assert_eq!(d.decode::<GetAttr3Res>().unwrap(), res);
    d.finish().unwrap();
    both_ways::<GetAttr3Res>(&Err(NfsStat3::Stale.into()), "00000046");
}

#[test]
fn replies_that_refuse() {
    let range = VersionRange { low: 2, high: 4 };
    both_ways(
        &ReplyHeader::accepted(1, Accepted::ProgMismatch(range)),
        "00000001 00000001 00000000 00000000 00000000 00000002 00000002 00000004",
    );
    both_ways(
        &ReplyHeader::accepted(1, Accepted::ProgUnavail),
        "00000001 00000001 00000000 00000000 00000000 00000001",
    );
    both_ways(
        &ReplyHeader::accepted(1, Accepted::GarbageArgs),
        "00000001 00000001 00000000 00000000 00000000 00000004",
    );
    both_ways(
        &ReplyHeader::denied(1, Denied::AuthError(AuthStat::TooWeak)),
        "00000001 00000001 00000001 00000001 00000005",
    );
    let starttls = ReplyBody::Accepted { verifier: OpaqueAuth::starttls(), stat: Accepted::Success };
    both_ways(
        &ReplyHeader { xid: 1, body: starttls },
        "00000001 00000001 00000000 00000000 00000008 5354415254544c53 00000000",
    );
}

#[test]
fn calls_that_are_refused() {
    let parse = |text: &str| CallHeader::parse(&mut Decoder::new(hex(text).into()));
    // RPC version 3
    let mismatch = parse("00000009 00000000 00000003").unwrap_err();
    assert_eq!(
        &encode(&mismatch.reply().unwrap())[..],
        hex("00000009 00000001 00000001 00000000 00000002 00000002")
    );
    // A credential of 404 bytes
    let bad = parse("00000009 00000000 00000002 000186a3 00000003 00000000 00000001 00000194").unwrap_err();
    assert_eq!(bad.reply(), Some(ReplyHeader::denied(9, Denied::AuthError(AuthStat::BadCred))));
    // A verifier of 404 bytes
    let bad =
        parse("00000009 00000000 00000002 000186a3 00000003 00000000 00000000 00000000 00000000 00000194")
            .unwrap_err();
    assert_eq!(bad.reply(), Some(ReplyHeader::denied(9, Denied::AuthError(AuthStat::BadVerf))));
    // A reply, and three bytes
    assert_eq!(parse("00000009 00000001 00000000"), Err(CallError::NotACall));
    assert_eq!(parse("000009"), Err(CallError::NotACall));
}

#[test]
fn auth_sys_with_17_groups_or_a_tail_is_bad() {
    let sys = |gids: u32, tail: &str| {
        let text = format!(
            "00000001 00000000 00000001 00000002 {gids:08x} {} {tail}",
            "00000005".repeat(gids as usize)
        );
        OpaqueAuth { flavor: 1, body: Opaque::new(hex(&text)).unwrap() }.auth_sys()
    };
    assert_eq!(sys(16, "").unwrap().gids.len(), 16);
    assert_eq!(sys(17, ""), Err(atoll_xdr::Error::TooLong { len: 17, max: 16 }));
    assert_eq!(sys(0, "00000000"), Err(atoll_xdr::Error::TrailingBytes(4)));
}

#[test]
fn create_call() {
    let at = DirOpArgs3 { dir: handle(&[1, 2, 3, 4]), name: Name3::from_static(b"file\xff") };
    let attributes = Sattr3 {
        mode: Some(0o644),
        size: Some(0),
        mtime: SetTime::ClientTime(NfsTime3 { seconds: 5, nseconds: 6 }),
        atime: SetTime::ServerTime,
        ..Sattr3::default()
    };
    both_ways(
        &Create3Args { at: at.clone(), how: CreateHow3::Unchecked(attributes) },
        "00000004 01020304 00000005 66696c65ff 000000
         00000000
         00000001 000001a4 00000000 00000000 00000001 0000000000000000
         00000001 00000002 00000005 00000006",
    );
    both_ways(
        &Create3Args { at, how: CreateHow3::Exclusive(*b"verifier") },
        "00000004 01020304 00000005 66696c65ff 000000 00000002 7665726966696572",
    );
}

#[test]
fn create_reply() {
    let wcc = WccData { before: Some(fattr().wcc()), after: None };
    both_ways::<CreatedRes>(
        &Ok(CreatedOk { object: Some(handle(&[9])), obj_attributes: Some(fattr()), dir_wcc: wcc }),
        &format!(
            "00000000 00000001 00000001 09000000 00000001 {FATTR}
             00000001 0000000000001000 5f000002 00000002 5f000003 3b9ac9ff 00000000"
        ),
    );
    both_ways::<CreatedRes>(
        &Err(Failure { status: NfsStat3::Exist, detail: WccData::default() }),
        "00000011 00000000 00000000",
    );
}

#[test]
fn mknod_and_setattr_calls() {
    let at = DirOpArgs3 { dir: handle(&[]), name: Name3::from_static(b"") };
    let unchanged = "00000000 00000000 00000000 00000000 00000000 00000000";
    let device = DeviceData3 { attributes: Sattr3::default(), spec: SpecData3 { major: 8, minor: 1 } };
    both_ways(
        &MkNod3Args { at: at.clone(), what: MkNodData3::Block(device) },
        &format!("00000000 00000000 00000003 {unchanged} 00000008 00000001"),
    );
    both_ways(
        &MkNod3Args { at, what: MkNodData3::Fifo(Sattr3::default()) },
        &format!("00000000 00000000 00000007 {unchanged}"),
    );
    both_ways(
        &SetAttr3Args {
            object: handle(&[1]),
            new_attributes: Sattr3::default(),
            guard: Some(NfsTime3 { seconds: 1, nseconds: 2 }),
        },
        &format!("00000001 01000000 {unchanged} 00000001 00000001 00000002"),
    );
}

#[test]
fn readdirplus() {
    both_ways(
        &ReadDirPlus3Args {
            dir: handle(&[1, 2, 3]),
            cookie: 5,
            cookieverf: [8; 8],
            dircount: 512,
            maxcount: 4096,
        },
        "00000003 01020300 0000000000000005 0808080808080808 00000200 00001000",
    );
    let bytes = hex(&format!(
        "00000000 00000001 {FATTR} 0102030405060708
         00000001 000000000000002a 00000001 2e000000 0000000000000001 00000001 {FATTR} 00000001 00000002 abcd0000
         00000001 000000000000002b 00000004 6e616d65 0000000000000002 00000000 00000000
         00000000 00000001"
    ));
    let mut e = Encoder::new();
    let mut w = ReadDirPlusWriter::begin(&mut e, &Some(fattr()), [1, 2, 3, 4, 5, 6, 7, 8], 512, 4096);
    let dot = DirPlusEntry {
        fileid: 42,
        name: b".",
        cookie: 1,
        attributes: Some(&fattr()),
        handle: Some(&handle(&[0xab, 0xcd])),
    };
    assert!(w.push(&dot));
    assert!(w.push(&DirPlusEntry { fileid: 43, name: b"name", cookie: 2, attributes: None, handle: None }));
    assert_eq!(w.finish(true), Ok(2));
    assert_eq!(&e.into_bytes()[..], &bytes[..]);

    let listing = decode::<ReadDirPlus3Res>(&bytes).unwrap().unwrap();
    assert!(listing.eof);
    assert_eq!(&listing.entries[1].name[..], b"name");
    assert_eq!(listing.entries[0].name_handle, Some(handle(&[0xab, 0xcd])));
    assert_eq!(&encode::<ReadDirPlus3Res>(&Ok(listing))[..], &bytes[..]);
}

#[test]
fn read_and_write() {
    let data = Payload::from_static(b"hello");
    both_ways(
        &Write3Args {
            file: handle(&[1]),
            offset: 10,
            count: 5,
            stable: StableHow::FileSync,
            data: data.clone(),
        },
        "00000001 01000000 000000000000000a 00000005 00000002 00000005 68656c6c6f 000000",
    );
    let text = "00000000 00000000 00000005 00000001 00000005 68656c6c6f 000000";
    both_ways::<Read3Res>(&Ok(Read3Ok { file_attributes: None, count: 5, eof: true, data }), text);
    let mut e = Encoder::new();
    let pieces = [Bytes::from_static(b"hel"), Bytes::from_static(b"lo")];
    assert_eq!(encode_read_ok(&mut e, &None, true, pieces), 5);
    assert_eq!(&e.into_bytes()[..], hex(text));
}

#[test]
fn mount_and_portmap() {
    let flavors = Array::new(vec![AuthFlavor::Sys.to_u32()]).unwrap();
    both_ways::<mount::MountRes3>(
        &Ok(mount::MountOk3 { handle: handle(&[7; 4]), auth_flavors: flavors }),
        "00000000 00000004 07070707 00000001 00000001",
    );
    both_ways::<mount::MountRes3>(&Err(mount::MountStat3::Acces), "0000000d");
    both_ways::<mount::MountRes1>(&Err(mount::MountStat3::NotSupp.into()), "0000000d");
    let node = mount::ExportNode {
        dir: mount::DirPath::from_static(b"/"),
        groups: List::new(vec![mount::MountName::from_static(b"*")]).unwrap(),
    };
    both_ways::<mount::Exports>(
        &List::new(vec![node]).unwrap(),
        "00000001 00000001 2f000000 00000001 00000001 2a000000 00000000 00000000",
    );
    both_ways(
        &portmap::v2::Mapping { program: PROGRAM, version: 3, protocol: 6, port: 2049 },
        "000186a3 00000003 00000006 00000801",
    );
}

#[test]
fn nlm4_lock_and_denied_test() {
    let lock = nlm::Lock::<u64> {
        caller_name: Opaque::from_static(b"c"),
        fh: Opaque::from_static(b"\x01"),
        oh: Opaque::from_static(b"o1"),
        svid: 77,
        offset: 1 << 32,
        len: 0,
    };
    both_ways(
        &nlm::LockArgs {
            cookie: Opaque::from_static(b"\0\0\0\x05"),
            block: true,
            exclusive: true,
            lock,
            reclaim: false,
            state: 3,
        },
        "00000004 00000005 00000001 00000001
         00000001 63000000 00000001 01000000 00000002 6f310000 0000004d 0000000100000000 0000000000000000
         00000000 00000003",
    );
    let holder = nlm::Holder::<u32> { exclusive: false, svid: 1, oh: Opaque::default(), offset: 2, len: 3 };
    both_ways(
        &nlm::TestAnswer { cookie: Opaque::default(), reply: nlm::TestReply::Denied(holder) },
        "00000000 00000001 00000000 00000001 00000000 00000002 00000003",
    );
}

#[test]
fn nfsacl_getacl_reply() {
    let entry = |tag, perm| nfsacl::AclEntry { tag, id: 0, perm };
    let acl = nfsacl::SecAttr {
        mask: nfsacl::mask::ACL | nfsacl::mask::ACL_COUNT,
        acl_count: 2,
        acl: Array::new(vec![entry(nfsacl::tag::USER_OBJ, 7), entry(nfsacl::tag::OTHER, 5)]).unwrap(),
        ..Default::default()
    };
    both_ways::<nfsacl::GetAcl3Res>(
        &Ok(nfsacl::GetAcl3Ok { obj_attributes: None, acl }),
        "00000000 00000000 00000003 00000002 00000002
         00000001 00000000 00000007 00000020 00000000 00000005
         00000000 00000000",
    );
}

/// Fields of the same type, whose order no round trip can tell.
#[test]
fn fields_of_one_type_are_in_the_order_of_the_rfc() {
    both_ways(
        &FsStat3Ok {
            obj_attributes: None,
            total_bytes: 1,
            free_bytes: 2,
            available_bytes: 3,
            total_files: 4,
            free_files: 5,
            available_files: 6,
            invarsec: 7,
        },
        "00000000 0000000000000001 0000000000000002 0000000000000003 0000000000000004 0000000000000005
         0000000000000006 00000007",
    );
    both_ways(
        &FsInfo3Ok {
            obj_attributes: None,
            rtmax: 1,
            rtpref: 2,
            rtmult: 3,
            wtmax: 4,
            wtpref: 5,
            wtmult: 6,
            dtpref: 7,
            max_file_size: 8,
            time_delta: NfsTime3 { seconds: 9, nseconds: 10 },
            properties: properties::LINK
                | properties::SYMLINK
                | properties::HOMOGENEOUS
                | properties::CAN_SET_TIME,
        },
        "00000000 00000001 00000002 00000003 00000004 00000005 00000006 00000007 0000000000000008
         00000009 0000000a 0000001b",
    );
    let pathconf = |no_trunc, chown_restricted, case_insensitive, case_preserving| PathConf3Ok {
        obj_attributes: None,
        link_max: 1,
        name_max: 255,
        no_trunc,
        chown_restricted,
        case_insensitive,
        case_preserving,
    };
    both_ways(
        &pathconf(true, false, false, true),
        "00000000 00000001 000000ff 00000001 00000000 00000000 00000001",
    );
    both_ways(
        &pathconf(false, true, false, true),
        "00000000 00000001 000000ff 00000000 00000001 00000000 00000001",
    );
    let (from, to) = (WccData { before: Some(fattr().wcc()), after: None }, WccData::default());
    both_ways::<Rename3Res>(
        &Ok(RenameWcc { from_dir_wcc: from, to_dir_wcc: to }),
        "00000000 00000001 0000000000001000 5f000002 00000002 5f000003 3b9ac9ff 00000000 00000000 00000000",
    );
    let name =
        |dir: u8, name: &'static [u8]| DirOpArgs3 { dir: handle(&[dir]), name: Name3::from_static(name) };
    both_ways(
        &Rename3Args { from: name(1, b"a"), to: name(2, b"b") },
        "00000001 01000000 00000001 61000000 00000001 02000000 00000001 62000000",
    );
    both_ways(
        &Link3Args { file: handle(&[1]), link: name(2, b"b") },
        "00000001 01000000 00000001 02000000 00000001 62000000",
    );
    both_ways::<Lookup3Res>(
        &Ok(Lookup3Ok { object: handle(&[1]), obj_attributes: Some(fattr()), dir_attributes: None }),
        &format!("00000000 00000001 01000000 00000001 {FATTR} 00000000"),
    );
    both_ways(
        &Commit3Args { file: handle(&[1]), offset: 2, count: 3 },
        "00000001 01000000 0000000000000002 00000003",
    );
}

#[test]
fn rpcbind_nsm_and_rquota() {
    both_ways(
        &portmap::v3::Rpcb {
            program: 100_003,
            version: 3,
            netid: Opaque::from_static(b"tcp6"),
            addr: Opaque::from_static(b"::.8.1"),
            owner: Opaque::from_static(b"0"),
        },
        "000186a3 00000003 00000004 74637036 00000006 3a3a2e382e31 0000 00000001 30000000",
    );
    let my_id = nsm::MyId { my_name: Opaque::from_static(b"me"), my_prog: 100_021, my_vers: 4, my_proc: 16 };
    both_ways(
        &nsm::MonArgs {
            mon_id: nsm::MonId { mon_name: Opaque::from_static(b"peer"), my_id },
            private: *b"0123456789abcdef",
        },
        "00000004 70656572 00000002 6d650000 000186b5 00000004 00000010 30313233343536373839616263646566",
    );
    both_ways(
        &nsm::StateChange { mon_name: Opaque::from_static(b"peer"), state: 5 },
        "00000004 70656572 00000005",
    );
    both_ways(
        &rquota::GetQuotaRes::Ok(rquota::RQuota {
            block_size: 1,
            active: true,
            block_hard_limit: 2,
            block_soft_limit: 3,
            blocks: 4,
            file_hard_limit: 5,
            file_soft_limit: 6,
            files: 7,
            block_seconds_left: 8,
            file_seconds_left: 9,
        }),
        "00000001 00000001 00000001 00000002 00000003 00000004 00000005 00000006 00000007 00000008 00000009",
    );
    both_ways(&rquota::GetQuotaRes::NoQuota, "00000002");
    both_ways(
        &rquota::ExtGetQuotaArgs {
            path: Opaque::from_static(b"/"),
            kind: rquota::QuotaType::Group.to_u32(),
            id: 9,
        },
        "00000001 2f000000 00000001 00000009",
    );
}
