//! `atoll client`, `atoll open`, `atoll lock` against a running server, with clients of NFSv4.1 and NLM.

use crate::nfs::Client;
use crate::process::{Server, atoll};
use atoll_proto::nfs3::FileHandle as FileHandle3;
use atoll_proto::nfs4::{
    ArgOp4, Bitmap, CbSecParms4, ChannelAttrs4, ClientOwner4, Compound4Args, Compound4Res, CreateHow4,
    CreateSession4Args, ExchangeId4Args, Fattr4, FileHandle, Identity, Lock4Args, LockType4, Locker4, Name4,
    NfsStat4, Open4Args, OpenClaim4, OpenFlag4, OpenToLockOwner4, PutFh4Args, ReclaimComplete4Args, ResOp4,
    Sequence4Args, SessionId4, StateId4, StateOwner4, StateProtect4Args, call,
};
use atoll_proto::nlm::{self, NlmStat, ShareAccess, ShareMode};
use atoll_xdr::{Array, Opaque};
use serde_json::Value;

struct Session {
    connection: Client,
    client: u64,
    id: SessionId4,
    seqid: u32,
}

fn identity(text: &str) -> Identity {
    Identity::copy_from(text.as_bytes()).unwrap()
}

impl Session {
    fn new(mut connection: Client, name: &str) -> Self {
        let args = ExchangeId4Args {
            clientowner: ClientOwner4 { verifier: [1; 8], ownerid: identity(name) },
            flags: 0,
            state_protect: StateProtect4Args::None,
            client_impl_id: None,
        };
        let res = compound(&mut connection, vec![ArgOp4::ExchangeId(Box::new(args))]);
        let Some(ResOp4::ExchangeId(Ok(known))) = res.ops.last() else { panic!("{res:?}") };
        let channel = ChannelAttrs4 {
            headerpadsize: 0,
            maxrequestsize: 1 << 20,
            maxresponsesize: 1 << 20,
            maxresponsesize_cached: 4096,
            maxoperations: 16,
            maxrequests: 1,
            rdma_ird: None,
        };
        let args = CreateSession4Args {
            clientid: known.clientid,
            sequence: known.sequenceid,
            flags: 0,
            fore_chan_attrs: channel,
            back_chan_attrs: channel,
            cb_program: 1,
            sec_parms: Array::new(vec![CbSecParms4::None]).unwrap(),
        };
        let client = known.clientid;
        let res = compound(&mut connection, vec![ArgOp4::CreateSession(args)]);
        let Some(ResOp4::CreateSession(Ok(made))) = res.ops.last() else { panic!("{res:?}") };
        let mut session = Self { client, id: made.sessionid, connection, seqid: 0 };
        let complete = ArgOp4::ReclaimComplete(ReclaimComplete4Args { one_fs: false });
        assert_eq!(session.send(vec![complete]).status, Ok(()));
        session
    }

    fn send(&mut self, mut ops: Vec<ArgOp4>) -> Compound4Res {
        self.seqid += 1;
        let sequence = Sequence4Args {
            sessionid: self.id,
            sequenceid: self.seqid,
            slotid: 0,
            highest_slotid: 0,
            cachethis: true,
        };
        ops.insert(0, ArgOp4::Sequence(sequence));
        compound(&mut self.connection, ops)
    }

    fn open(&mut self, dir: ArgOp4, file: &str, create: bool) -> (FileHandle, StateId4) {
        let attrs = Fattr4 { mask: Bitmap::EMPTY, values: Default::default() };
        let open = Open4Args {
            seqid: 0,
            share_access: 3,
            share_deny: 0,
            owner: StateOwner4 { clientid: self.client, owner: identity("process 7") },
            openhow: if create {
                OpenFlag4::Create(CreateHow4::Unchecked(attrs))
            } else {
                OpenFlag4::NoCreate
            },
            claim: OpenClaim4::Null(Name4::copy_from(file.as_bytes()).unwrap()),
        };
        let res = self.send(vec![dir, ArgOp4::Open(Box::new(open)), ArgOp4::GetFh]);
        let [_, _, ResOp4::Open(Ok(opened)), ResOp4::GetFh(Ok(fh))] = &res.ops[..] else { panic!("{res:?}") };
        (fh.object, opened.stateid)
    }

    fn lock(&mut self, fh: FileHandle, open_stateid: StateId4, offset: u64, length: u64) -> Compound4Res {
        let lock_owner = StateOwner4 { clientid: self.client, owner: identity("thread 9") };
        let new = OpenToLockOwner4 { open_seqid: 0, open_stateid, lock_seqid: 0, lock_owner };
        let locktype = LockType4::Write;
        let args = Lock4Args { locktype, reclaim: false, offset, length, locker: Locker4::New(new) };
        self.send(vec![ArgOp4::PutFh(PutFh4Args { object: fh }), ArgOp4::Lock(args)])
    }
}

fn compound(connection: &mut Client, ops: Vec<ArgOp4>) -> Compound4Res {
    let args = Compound4Args { tag: Default::default(), minorversion: 1, ops: Array::new(ops).unwrap() };
    connection.call::<call::Compound>(args)
}

fn nlm_lock(connection: &mut Client, fh: FileHandle3, block: bool) -> NlmStat {
    let lock = nlm::Lock {
        caller_name: Opaque::from_static(b"old.example"),
        fh: Opaque::copy_from(fh.as_slice()).unwrap(),
        oh: Opaque::from_static(b"12@old"),
        svid: 12,
        offset: 0,
        len: 10,
    };
    let cookie = Opaque::from_static(b"c");
    let args = nlm::LockArgs { cookie, block, exclusive: true, lock, reclaim: false, state: 1 };
    connection.call::<nlm::v4::call::Lock>(args).stat
}

fn nlm_share(connection: &mut Client, fh: FileHandle3) -> NlmStat {
    let share = nlm::Share {
        caller_name: Opaque::from_static(b"old.example"),
        fh: Opaque::copy_from(fh.as_slice()).unwrap(),
        oh: Opaque::from_static(b"12@old"),
        mode: ShareMode::DenyNone,
        access: ShareAccess::Read,
    };
    let args = nlm::ShareArgs { cookie: Opaque::from_static(b"c"), share, reclaim: false };
    connection.call::<nlm::v4::call::Share>(args).stat
}

#[test]
fn who_has_what_and_eviction() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(dir.path(), &["--export", "/=127.0.0.1,rw,no_root_squash,insecure"]);
    let data = dir.path().to_str().unwrap();
    let command = |words: &[&str]| atoll(&[words, &["--dir", data]].concat());
    let json = |words: &[&str]| -> Value {
        let done = command(&[words, &["--json"]].concat());
        assert_eq!(done.status, Some(0), "{}", done.stderr);
        serde_json::from_str(&done.stdout).unwrap()
    };
    for what in ["client", "open", "lock", "delegation"] {
        let none = json(&[what, "list"]);
        assert!(none["rows"].as_array().unwrap().is_empty() && none["next"].is_null(), "{none}");
    }

    // Two files with names to be found, one of them two directories down and with two links.
    let mut old = Client::mount(server.nfs);
    let (a, b) = (old.mkdir(old.root, "a"), "deep");
    let deep = old.mkdir(a, b);
    let file = old.create_in(deep, "shared").unwrap();
    old.link(file, old.root, "another name");
    let mut new = Session::new(Client::mount(server.nfs), "new.example");
    let (_, _) = new.open(ArgOp4::PutRootFh, "top", true);
    let below = ArgOp4::PutFh(PutFh4Args { object: FileHandle::new(deep.as_slice()).unwrap() });
    let (fh, open) = new.open(below, "shared", false);
    assert_eq!(new.lock(fh, open, 5, 10).status, Ok(()));
    assert_eq!(new.lock(fh, open, 100, u64::MAX).status, Ok(()));
    assert_eq!(nlm_lock(&mut old, file, true), NlmStat::Blocked);
    assert_eq!(nlm_share(&mut old, file), NlmStat::Granted);

    let id = format!("{:016x}", new.client);
    let clients = json(&["client", "list"]);
    let client = &clients["rows"][0];
    assert_eq!(client["id"], id);
    assert_eq!(client["name"], "new.example");
    assert_eq!(client["protocol"], "4.1");
    assert_eq!(client["address"], "127.0.0.1");
    assert_eq!((client["states"].as_u64(), client["sessions"].as_u64()), (Some(3), Some(1)));
    assert!(client["lease"]["heard_seconds_ago"].as_u64().unwrap() < 60, "{client}");
    assert!(client["lease"]["left_seconds"].as_i64().unwrap() > 0, "{client}");
    let nlm = &clients["rows"][1];
    assert_eq!((&nlm["id"], &nlm["protocol"]), (&"nlm:old.example@127.0.0.1".into(), &"nlm".into()));
    assert_eq!((nlm["states"].as_u64(), &nlm["lease"]), (Some(1), &Value::Null), "one file");

    let opens = json(&["open", "list"]);
    let rows = opens["rows"].as_array().unwrap();
    let path = |row: &Value| row["file"]["path"].as_str().unwrap().to_owned();
    let names = ["/a/deep/shared", "/another name"];
    assert_eq!(rows.len(), 3, "{opens}");
    assert_eq!(path(&rows[0]), "/top");
    assert!(names.contains(&&*path(&rows[1])) && rows[1]["client"] == id, "{opens}");
    assert_eq!(
        (&rows[1]["access"], &rows[1]["deny"], &rows[1]["owner"]),
        (&"both".into(), &"none".into(), &"process 7".into())
    );
    assert!(rows[2]["protocol"] == "nlm" && rows[2]["name"] == "old.example", "{opens}");
    assert!(rows[2]["access"] == "read" && names.contains(&&*path(&rows[2])), "{opens}");

    let locks = json(&["lock", "list"]);
    let rows = locks["rows"].as_array().unwrap();
    let range =
        |row: &Value| (row["first"].as_u64().unwrap(), row["last"].as_u64(), row["waits"].as_bool().unwrap());
    assert_eq!(
        rows.iter().map(range).collect::<Vec<_>>(),
        [(5, Some(14), false), (100, None, false), (0, Some(9), true)]
    );
    assert!(
        rows[0]["client"] == id && rows[0]["owner"] == "thread 9" && rows[0]["exclusive"] == true,
        "{locks}"
    );
    assert!(rows[2]["name"] == "old.example" && names.contains(&&*path(&rows[2])), "{locks}");
    assert!(rows.iter().all(|row| row["age_seconds"].as_u64().is_some_and(|age| age < 600)), "{locks}");

    // A page at a time gives the same, and the table says that there is more.
    for what in ["client", "open", "lock"] {
        let all = json(&[what, "list"]);
        let (mut pages, mut after) = (Vec::new(), None::<String>);
        loop {
            let more: Vec<&str> = after.as_deref().map_or(vec![], |place| vec!["--after", place]);
            let page = json(&[&[what, "list", "--limit", "1"], &more[..]].concat());
            pages.extend(page["rows"].as_array().unwrap().clone());
            let left = all["rows"].as_array().unwrap().len() - pages.len();
            assert_eq!(page["more"].as_u64(), Some(left as u64), "{page}");
            match page["next"].as_str() {
                Some(next) => after = Some(next.to_owned()),
                None => break,
            }
        }
        let places = |rows: &[Value]| {
            rows.iter()
                .map(|r| (r["state"].clone(), r["first"].clone(), r["name"].clone()))
                .collect::<Vec<_>>()
        };
        assert_eq!(places(&pages), places(all["rows"].as_array().unwrap()));
        let text = command(&[what, "list", "--limit", "1"]).stdout;
        let left = if what == "client" { 1 } else { 2 };
        assert!(text.contains(&format!("\n{left} more (go on with --after ")), "{text}");
    }
    for wrong in [
        &["open", "list", "--after", "x"][..],
        &["lock", "list", "--limit", "0"],
        &["client", "list", "--after", "x"],
    ] {
        assert_eq!(command(wrong).status, Some(2));
    }

    // Evicted: the session is unknown, what it had is gone.
    let unknown = command(&["client", "evict", "1234"]);
    assert!(
        unknown.status == Some(2) && unknown.stderr.contains("no NFSv4 client 1234"),
        "{}",
        unknown.stderr
    );
    let nonsense = command(&["client", "evict", "xyz"]);
    assert!(nonsense.status == Some(2) && nonsense.stderr.contains("no client id"), "{}", nonsense.stderr);
    let done = command(&["client", "evict", &id]);
    assert_eq!(done.status, Some(0), "{}", done.stderr);
    assert!(
        done.stdout.contains("1 sessions, 2 opens, 1 lock states, 0 delegations freed"),
        "{}",
        done.stdout
    );
    assert_eq!(new.send(vec![]).status, Err(NfsStat4::BadSession));
    let left = json(&["client", "list"]);
    assert!(left["rows"].as_array().unwrap().iter().all(|row| row["protocol"] == "nlm"), "{left}");
    let opens = json(&["open", "list"]);
    assert!(opens["rows"].as_array().unwrap().iter().all(|row| row["protocol"] == "nlm"), "{opens}");
    // Who waited may have it, or have been given up: nobody answers the call that tells it.
    let locks = json(&["lock", "list"]);
    assert!(locks["rows"].as_array().unwrap().iter().all(|row| row["protocol"] == "nlm"), "{locks}");
    let again = command(&["client", "evict", &id]);
    assert_eq!(again.status, Some(2), "{}", again.stdout);

    // One of NLM loses what it has.
    let unknown = command(&["client", "evict", "nlm:old.example"]);
    assert!(unknown.status == Some(2) && unknown.stderr.contains("no NLM client"), "{}", unknown.stderr);
    let done = command(&["client", "evict", "nlm:old.example@127.0.0.1"]);
    assert!(done.stdout.contains("its locks in 1 files freed"), "{}{}", done.stdout, done.stderr);
    for what in ["client", "open", "lock"] {
        let none = json(&[what, "list"]);
        assert!(none["rows"].as_array().unwrap().is_empty(), "{none}");
    }
    server.stop();
}
