//! OPEN with each claim and each way of creating, and its results with each delegation, byte for byte.

use atoll_xdr::Opaque;

use super::{both_ways, stateid};
use crate::nfs4::*;

/// Number, seqid, access, deny, owner.
const HEAD: &str = "00000012 00000009 00000003 00000001  0000000000000007 00000003 6f776e00";
const NO_CREATE: &str = "00000000";
const SIZE_0: &str = "00000001 00000010 00000008 0000000000000000";

fn open(openhow: OpenFlag4, claim: OpenClaim4) -> ArgOp4 {
    ArgOp4::Open(Box::new(Open4Args {
        seqid: 9,
        share_access: share_access::BOTH,
        share_deny: share_deny::READ,
        owner: StateOwner4 { clientid: 7, owner: Opaque::from_static(b"own") },
        openhow,
        claim,
    }))
}

fn name() -> Name4 {
    Opaque::from_static(b"file1")
}

#[test]
fn each_claim() {
    let claimed = |claim, text: &str| {
        both_ways(&open(OpenFlag4::NoCreate, claim), &format!("{HEAD} {NO_CREATE} {text}"))
    };
    claimed(OpenClaim4::Null(name()), "00000000 00000005 66696c6531000000");
    claimed(OpenClaim4::Previous(DelegationType4::Write), "00000001 00000002");
    let info = ClaimDelegateCur4 { delegate_stateid: stateid(3, 0xab), file: name() };
    claimed(
        OpenClaim4::DelegateCur(info),
        "00000002 00000003 abababababababababababab 00000005 66696c6531000000",
    );
    claimed(OpenClaim4::DelegatePrev(name()), "00000003 00000005 66696c6531000000");
    claimed(OpenClaim4::Fh, "00000004");
    claimed(OpenClaim4::DelegCurFh(stateid(3, 0xab)), "00000005 00000003 abababababababababababab");
    claimed(OpenClaim4::DelegPrevFh, "00000006");
}

#[test]
fn each_way_of_creating() {
    let created = |how, text: &str| {
        both_ways(&open(OpenFlag4::Create(how), OpenClaim4::Fh), &format!("{HEAD} 00000001 {text} 00000004"));
    };
    let attrs = Fattr4::build(&[AttrValue4::Size(0)]).unwrap();
    created(CreateHow4::Unchecked(attrs.clone()), &format!("00000000 {SIZE_0}"));
    created(CreateHow4::Guarded(attrs.clone()), &format!("00000001 {SIZE_0}"));
    created(CreateHow4::Exclusive([1, 2, 3, 4, 5, 6, 7, 8]), "00000002 0102030405060708");
    let both = CreateVerfAttr4 { verf: [1, 2, 3, 4, 5, 6, 7, 8], attrs };
    created(CreateHow4::Exclusive41(both), &format!("00000003 0102030405060708 {SIZE_0}"));
}

#[test]
fn each_delegation() {
    // Number, status, stateid, change of the directory, flags, attributes that were set.
    let head = "00000012 00000000 00000001 0a0a0a0a0a0a0a0a0a0a0a0a
                00000001 0000000000000005 0000000000000006 00000004 00000001 00000010";
    let opened = |delegation, text: &str| {
        let ok = Open4Ok {
            stateid: stateid(1, 10),
            cinfo: ChangeInfo4 { atomic: true, before: 5, after: 6 },
            rflags: open_result::LOCKTYPE_POSIX,
            attrset: Bitmap::of(&[4]),
            delegation,
        };
        both_ways(&ResOp4::Open(Ok(ok)), &format!("{head} {text}"));
    };
    let permissions = Ace4 {
        ace_type: ace_type::ALLOWED,
        flag: 0,
        access_mask: ace_mask::READ_DATA,
        who: Opaque::from_static(who::OWNER),
    };
    let ace = "00000000 00000000 00000001 00000006 4f574e4552400000";
    let read = ReadDelegation4 { stateid: stateid(1, 11), recall: false, permissions: permissions.clone() };
    let read_text = format!("00000001 0b0b0b0b0b0b0b0b0b0b0b0b 00000000 {ace}");
    let write = |space_limit| WriteDelegation4 {
        stateid: stateid(1, 11),
        recall: true,
        space_limit,
        permissions: permissions.clone(),
    };
    let write_text = |limit: &str| format!("00000001 0b0b0b0b0b0b0b0b0b0b0b0b 00000001 {limit} {ace}");
    let size = "00000001 0000000000001000";
    opened(OpenDelegation4::None, "00000000");
    opened(OpenDelegation4::Read(read.clone()), &format!("00000001 {read_text}"));
    opened(OpenDelegation4::Write(write(SpaceLimit4::Size(4096))), &format!("00000002 {}", write_text(size)));
    let blocks = ModifiedLimit4 { num_blocks: 3, bytes_per_block: 512 };
    opened(
        OpenDelegation4::Write(write(SpaceLimit4::Blocks(blocks))),
        &format!("00000002 {}", write_text("00000002 00000003 00000200")),
    );
    opened(OpenDelegation4::ReadAttrs(read), &format!("00000004 {read_text}"));
    opened(
        OpenDelegation4::WriteAttrs(write(SpaceLimit4::Size(4096))),
        &format!("00000005 {}", write_text(size)),
    );
    opened(OpenDelegation4::NoneExt(WhyNoDelegation4::NotWanted), "00000003 00000000");
    opened(OpenDelegation4::NoneExt(WhyNoDelegation4::Contention(true)), "00000003 00000001 00000001");
    opened(OpenDelegation4::NoneExt(WhyNoDelegation4::Resource(false)), "00000003 00000002 00000000");
    opened(OpenDelegation4::NoneExt(WhyNoDelegation4::IsDir), "00000003 00000008");
    both_ways(&ResOp4::Open(Err(NfsStat4::ShareDenied)), "00000012 0000271f");
}
