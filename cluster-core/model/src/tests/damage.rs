//! The check finds what is wrong: each row of a rich state is removed, damaged, or doubled, and that must show. And what comes of bytes that one member
//! needs and cannot read.

use super::rig::{ROOT, Rig, key, rows_of as rows, user};
use crate::check::{Finding, check};
use crate::limits::{OUTCOME_TAGS, RELEASE_ROWS_MAX};
use crate::{KvError, KvWrite, MemKv, Table};
use atoll_base::access::Cred;
use atoll_base::acl::posix::PosixTag;
use atoll_base::acl::{PosixList, SetAcl};
use atoll_base::attr::SetAttr;
use atoll_base::id::{Epoch, Ino};
use atoll_base::label::Label;
use atoll_lockd::{ByteRange, Callback, LockMode, LockOwner, LockRequest, NlmClient, Wait};
use atoll_meta::export::{AtimePolicy, ClientMatch, SecFlavor, Squash};
use atoll_meta::lock::LockOp;
use atoll_meta::{Call, ExportSpec, NewNode, Op, RemoveKind};

fn findings(kv: &MemKv) -> Vec<Finding> {
    check(kv, &mut |_, _| {})
        .unwrap_or_else(|e| vec![Finding { volume: None, path: String::new(), what: e.what().into() }])
}

fn lock(ino: Ino, generation: u32, host: &str, wait: Wait) -> Op {
    let client = NlmClient::new(host.into(), Some("10.0.0.1".parse().unwrap())).unwrap();
    let owner = LockOwner::nlm(client, b"oh", 1).unwrap();
    let request = LockRequest { owner, range: ByteRange::WHOLE, mode: LockMode::Exclusive, wait };
    Op::Lock(LockOp::Lock { ino, generation, request, client_state: 3 })
}

/// Something in every table.
fn rich() -> Rig {
    let mut rig = Rig::new();
    let dir = rig.dir(ROOT, "dir");
    let sub = rig.dir(dir, "sub");
    let f = rig.make(&Cred::root(), sub, "file", NewNode::Regular, 0o644);
    rig.make(&Cred::root(), dir, "link", NewNode::Symlink("there".into()), 0);
    for i in 0..RELEASE_ROWS_MAX as u64 + 3 {
        let piece = rig.block(Epoch(1), 30 * i, &[1; 10]);
        rig.write(&Cred::root(), &f, vec![piece]).unwrap();
    }
    let pieces = vec![rig.inline(15, b"inline")];
    rig.write(&Cred::root(), &f, pieces).unwrap();
    rig.set(&Cred::root(), &f, SetAttr { size: Some(25), ..SetAttr::default() }).unwrap();
    let xattr = Op::SetXattr {
        ino: f.ino,
        generation: f.generation,
        name: "user.x".into(),
        value: Some("y".into()),
        how: atoll_meta::XattrHow::Either,
    };
    rig.root(xattr).unwrap();
    let entries = [
        (PosixTag::Owner, 6),
        (PosixTag::User(9), 4),
        (PosixTag::Group, 4),
        (PosixTag::Mask, 4),
        (PosixTag::Other, 0),
    ];
    let acl = SetAcl::Posix { access: Some(Some(PosixList::new(entries).unwrap())), default: None };
    let label = Some(Box::new(Label { format: 0, policy: 0, data: "label".into() }));
    rig.set(&Cred::root(), &f, SetAttr { acl: Some(Box::new(acl)), label, ..SetAttr::default() }).unwrap();
    let gone = rig.file("gone");
    for i in 0..RELEASE_ROWS_MAX as u64 + 1 {
        let piece = rig.block(Epoch(1), 30 * i, &[1; 10]);
        rig.write(&Cred::root(), &gone, vec![piece]).unwrap();
    }
    rig.root(Op::Remove { dir: ROOT, name: "gone".into(), kind: RemoveKind::Any }).unwrap();
    let short = rig.file("short");
    let piece = rig.block(Epoch(1), 0, &[1; 10]);
    rig.write(&Cred::root(), &short, vec![piece]).unwrap();
    for n in 0..OUTCOME_TAGS as u32 {
        let op = Op::Remove { dir: ROOT, name: "never".into(), kind: RemoveKind::Any };
        rig.call(Call {
            origin: None,
            once: Some(key(1000 + n).into()),
            cred: Cred::root(),
            client: None,
            op,
        });
    }
    let once = Some(key(4));
    let op = Op::Remove { dir: ROOT, name: "short".into(), kind: RemoveKind::Any };
    rig.call(Call { origin: None, once: once.map(Into::into), cred: Cred::root(), client: None, op });
    let origin = rig.register(1);
    rig.begin(origin, &f);
    let wait = Wait::Queue(Callback::new(vec![1]).unwrap());
    rig.root(lock(f.ino, f.generation, "a", Wait::No)).unwrap();
    rig.root(lock(f.ino, f.generation, "b", wait)).unwrap();
    let freed = atoll_lockd::ClientMatch::NlmName(b"a".to_vec());
    rig.root(Op::Lock(LockOp::ReleaseClient(freed))).unwrap();
    let many: Vec<_> = (0..3).map(|i| rig.file(&format!("locked{i}"))).collect();
    for file in &many {
        rig.root(lock(file.ino, file.generation, "c", Wait::No)).unwrap();
    }
    let freed = atoll_lockd::ClientMatch::NlmName(b"c".to_vec());
    rig.root(Op::Lock(LockOp::ReleaseClient(freed))).unwrap();
    rig.op(&user(1), Op::Touch(vec![(f.ino, rig.model.now())]));
    let spec = ExportSpec {
        path: "/dir".into(),
        volume: atoll_base::id::ROOT_VOLUME,
        volume_path: "/dir".into(),
        clients: vec![ClientMatch::Any],
        read_only: false,
        squash: Squash::Root,
        anon_uid: 65534,
        anon_gid: 65534,
        sec: vec![SecFlavor::Sys],
        secure: true,
        manage_gids: false,
        atime: AtimePolicy::Never,
        security_label: false,
    };
    rig.root(Op::PutExport(spec)).unwrap();
    super::nfs4::fill(&mut rig);
    rig.check();
    rig
}

/// Tables whose rows stand for themselves, or are not missed: that one is missing shows nowhere.
fn stands_alone(table: Table) -> bool {
    matches!(table, Table::Export | Table::LockRelease | Table::Slot | Table::OutcomeTag)
}

#[test]
fn a_missing_row_shows() {
    let rig = rich();
    for table in Table::ALL {
        let rows = rows(&rig.kv, table);
        assert!(!rows.is_empty(), "table {} has nothing in it", table.name());
        for (key, _) in rows {
            let mut kv = rig.kv.clone();
            kv.delete(table, &key).unwrap();
            let found = findings(&kv);
            assert!(stands_alone(table) || !found.is_empty(), "{} {}", table.name(), key.escape_ascii());
        }
    }
}

#[test]
fn a_damaged_row_shows() {
    let rig = rich();
    for table in Table::ALL {
        for (key, value) in rows(&rig.kv, table) {
            // Whatever the bytes, the check ends and does not panic.
            for i in 0..value.len().min(40) {
                let mut damaged = value.clone();
                damaged[i] ^= 0x5a;
                let mut kv = rig.kv.clone();
                kv.put(table, &key, &damaged).unwrap();
                findings(&kv);
            }
            let has_no_form = matches!(table, Table::Symlink | Table::Xattr);
            for bytes in [&[][..], &[0xff; 3], &[&value[..], &[7]].concat()] {
                let empty_is_right = value.is_empty();
                if empty_is_right || has_no_form && bytes.len() == value.len() {
                    continue;
                }
                let mut kv = rig.kv.clone();
                kv.put(table, &key, bytes).unwrap();
                let found = findings(&kv);
                assert!(!found.is_empty(), "{} {} as {bytes:?}", table.name(), key.escape_ascii());
            }
        }
    }
}

#[test]
fn a_row_too_many_shows() {
    let rig = rich();
    for table in Table::ALL {
        let rows = rows(&rig.kv, table);
        let (key, value) = rows.last().unwrap();
        // The key's last number one further.
        let mut more = key.clone();
        *more.last_mut().unwrap() = more.last().unwrap().wrapping_add(77);
        let mut kv = rig.kv.clone();
        kv.put(table, &more, value).unwrap();
        // A second singleton is never read.
        assert!(table == Table::Meta || !findings(&kv).is_empty(), "{}", table.name());
    }
}

#[test]
fn findings_name_the_path() {
    let rig = rich();
    let file = rig.names(rig.names(rig.names(ROOT)[0].1)[0].1)[0].1;
    let mut kv = rig.kv.clone();
    let (key, _) = rows(&kv, Table::Extent)[0].clone();
    assert_eq!(key[..8], file.0.to_be_bytes());
    kv.delete(Table::Extent, &key).unwrap();
    let found = findings(&kv);
    assert!(found.iter().any(|f| f.path == "/dir/sub/file" && f.to_string().contains("counts")), "{found:?}");
}

#[test]
fn bytes_that_cannot_be_read_are_lost_where_they_were_and_nowhere_else() {
    let mut rig = Rig::new();
    let (file, other) = (rig.file("file"), rig.file("other"));
    let write = |rig: &mut Rig, offset, len: usize| {
        let piece = rig.inline(offset, &vec![b'x'; len]);
        rig.write(&Cred::root(), &file, vec![piece]).unwrap();
        rig.check();
        rig.losses(file.ino)
    };
    rig.rots = Some(1);
    assert_eq!(write(&mut rig, 0, 64), [(0, false)]);
    // A page in its middle: what is around it is needed.
    assert_eq!(write(&mut rig, 16, 16), [(0, true), (16, false), (32, true)]);
    // A part of a page takes in the rest of it.
    assert_eq!(write(&mut rig, 35, 2), [(0, true), (16, false), (32, true), (48, true)]);
    // What is in the row itself could be read.
    rig.set(&Cred::root(), &file, SetAttr { size: Some(20), ..SetAttr::default() }).unwrap();
    assert_eq!(rig.losses(file.ino), [(0, true), (16, false)]);
    let clone = Op::Clone {
        from: file.ino,
        from_generation: file.generation,
        from_offset: 0,
        to: other.ino,
        to_generation: other.generation,
        to_offset: 16,
        len: 20,
        partial: false,
    };
    rig.root(clone).unwrap();
    rig.check();
    // Both in one row there.
    assert_eq!(rig.losses(other.ino), [(16, true)]);
    // Written over, or cut off, it is as good as new.
    assert_eq!(write(&mut rig, 0, 16), [(0, false), (16, false)]);
    rig.set(&Cred::root(), &other, SetAttr { size: Some(0), ..SetAttr::default() }).unwrap();
    rig.root(Op::Remove { dir: ROOT, name: "file".into(), kind: RemoveKind::Any }).unwrap();
    rig.check();
}

#[test]
fn only_what_is_damaged_at_a_second_look_is_lost() {
    let mut rig = Rig::new();
    let file = rig.file("file");
    let piece = rig.inline(0, &[b'x'; 64]);
    rig.write(&Cred::root(), &file, vec![piece]).unwrap();
    let set = SetAttr { size: Some(40), ..SetAttr::default() };
    let cut = Op::SetAttr { ino: file.ino, generation: file.generation, set, guard: None };
    let (failed, damaged) = (KvError::Failed("EIO".into()), KvError::Damaged("a sum".into()));
    let after = |failing: &[&KvError]| {
        rig.with_failing(failing.iter().rev().map(|e| (*e).clone()).collect(), cut.clone())
    };
    assert_eq!(after(&[]).unwrap(), 0);
    assert_eq!(after(&[&damaged]).unwrap(), 0);
    assert_eq!(after(&[&damaged, &damaged]).unwrap(), 1);
    // The member stops, and a restart finds the bytes where they were.
    assert!(matches!(after(&[&failed]), Err(KvError::Failed(_))));
    assert!(matches!(after(&[&damaged, &failed]), Err(KvError::Failed(_))));
}
