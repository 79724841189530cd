//! Directory delegations whose holders are told of changes: GET_DIR_DELEGATION, CB_NOTIFY (RFC 8881 §18.39, §20.4).

use super::backclient::{BACK, Called, Client, put, root};
use super::world::{World, name_of};
use crate::server::reverse::Reverse;
use atoll_base::access::Cred;
use atoll_base::attr::SetAttr;
use atoll_meta::nfs4::{StateId, StateOp};
use atoll_meta::{Call, CreateHow, MetadataService, NewNode, Op};
use atoll_proto::nfs3::{DirOpArgs3, Remove3Args, Rename3Args, call};
use atoll_proto::nfs4::callback::{CbArgOp4, NotifyAdd4, NotifyRemove4, NotifyRename4, notify_type};
use atoll_proto::nfs4::{
    ArgOp4, Bitmap, DelegReturn4Args, DirDelegation4, DirFromClient4, DirFromServer4, FileHandle,
    GetDirDelegation4Args, GetDirDelegation4Ok, Name4, NfsStat4, NfsTime4, Remove4Args, ResOp4, StateId4,
};
use atoll_xdr::Decoder;
use std::time::Duration;

const ALL: [u32; 3] = [notify_type::REMOVE_ENTRY, notify_type::ADD_ENTRY, notify_type::RENAME_ENTRY];

/// What a callback is about.
#[derive(Debug, PartialEq, Eq)]
enum Told {
    Changes(Vec<String>),
    Recall(StateId4),
}

fn text(name: &Name4) -> String {
    String::from_utf8(name.as_bytes().to_vec()).unwrap()
}

fn added(new: &NotifyAdd4) -> String {
    assert!(new.new_entry_cookie.is_some());
    let over = if new.old_entry.is_some() { "!" } else { "" };
    let after = new.prev_entry.as_ref().map(|it| text(&it.entry.file)).unwrap_or_default();
    let last = if new.last_entry { "$" } else { "" };
    format!("{over}{after}<{}{last}", text(&new.new_entry.file))
}

fn read(called: &Called) -> Told {
    match called.args.ops.get(1) {
        Some(CbArgOp4::Notify(args)) => {
            let changes = args.changes.iter().map(|change| {
                let mut d = Decoder::new(change.values.as_bytes().clone());
                let text = match () {
                    () if change.mask == Bitmap::of(&[notify_type::ADD_ENTRY]) => {
                        added(&d.decode::<NotifyAdd4>().unwrap())
                    }
                    () if change.mask == Bitmap::of(&[notify_type::REMOVE_ENTRY]) => {
                        format!("-{}", text(&d.decode::<NotifyRemove4>().unwrap().old_entry.file))
                    }
                    () if change.mask == Bitmap::of(&[notify_type::RENAME_ENTRY]) => {
                        let it: NotifyRename4 = d.decode().unwrap();
                        format!("{}>{}", text(&it.old_entry.old_entry.file), added(&it.new_entry))
                    }
                    () => panic!("{change:?}"),
                };
                d.finish().unwrap();
                text
            });
            Told::Changes(changes.collect())
        }
        Some(CbArgOp4::Recall(args)) => Told::Recall(args.stateid),
        other => panic!("{other:?}"),
    }
}

impl Client<'_> {
    async fn watch(&mut self, dir: FileHandle, kinds: &[u32]) -> Option<DirDelegation4> {
        let none = NfsTime4 { seconds: 0, nseconds: 0 };
        let get = ArgOp4::GetDirDelegation(GetDirDelegation4Args {
            signal_deleg_avail: false,
            notification_types: Bitmap::of(kinds),
            child_attr_delay: none,
            dir_attr_delay: none,
            child_attributes: Bitmap::of(&[1]),
            dir_attributes: Bitmap::of(&[3]),
        });
        match self.ask(vec![put(dir), get]).await.pop() {
            Some(ResOp4::GetDirDelegation(Ok(GetDirDelegation4Ok::Granted(it)))) => Some(it),
            Some(ResOp4::GetDirDelegation(Ok(GetDirDelegation4Ok::Unavailable(false)))) => None,
            other => panic!("{other:?}"),
        }
    }

    /// The next callback that is about something; questions for slots' numbers are answered.
    pub(super) async fn hear(&mut self) -> Called {
        loop {
            let called = self.called().await;
            let (slot, seqid) = (called.sequence().slotid as usize, called.sequence().sequenceid);
            let is_next = seqid == self.slots[slot].wrapping_add(1);
            if called.args.ops.get(1).is_some() {
                assert!(is_next);
                self.slots[slot] = seqid;
                return called;
            }
            match is_next {
                true => {
                    self.slots[slot] = seqid;
                    self.answer(&called, Ok(()), Ok(()));
                }
                false if seqid == self.slots[slot] => {
                    self.answer(&called, Err(NfsStat4::RetryUncachedRep), Ok(()));
                }
                false => self.answer(&called, Err(NfsStat4::SeqMisordered), Ok(())),
            }
        }
    }

    async fn heard(&mut self) -> Told {
        let called = self.hear().await;
        self.answer(&called, Ok(()), Ok(()));
        read(&called)
    }

    async fn changes(&mut self) -> Vec<String> {
        match self.heard().await {
            Told::Changes(changes) => changes,
            recall @ Told::Recall(_) => panic!("{recall:?}"),
        }
    }

    async fn return_it(&mut self, dir: FileHandle, deleg_stateid: StateId4) {
        let res = self.ask(vec![put(dir), ArgOp4::DelegReturn(DelegReturn4Args { deleg_stateid })]).await;
        assert!(res[1].status().is_ok(), "{res:?}");
    }

    async fn remove(&mut self, name: &str) -> Result<(), NfsStat4> {
        let target = Name4::copy_from(name.as_bytes()).unwrap();
        let at = root(self.world);
        self.ask(vec![put(at), ArgOp4::Remove(Remove4Args { target })]).await[1].status()
    }
}

async fn rename(world: &World, from: &str, to: &str) {
    let at = |name: &str| DirOpArgs3 { dir: world.root, name: name_of(name.as_bytes()) };
    world.call::<call::Rename>(Rename3Args { from: at(from), to: at(to) }).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn holders_are_told_in_order_whoever_changes_it() {
    let world = World::new().await;
    let mut a = Client::new(&world, "a", BACK).await;
    let mut b = Client::new(&world, "b", BACK).await;
    let held = a.watch(root(&world), &[0, 1, 2, 3, 4, 5]).await.unwrap();
    assert_eq!(held.notification, Bitmap::of(&ALL), "what is served, not what is asked for");
    assert_eq!((held.child_attributes, held.dir_attributes), (Bitmap::EMPTY, Bitmap::EMPTY));
    let other = b.watch(root(&world), &[notify_type::ADD_ENTRY, notify_type::REMOVE_ENTRY]).await.unwrap();
    assert_eq!(other.notification, Bitmap::of(&ALL[..2]));
    world.create(world.root, "x").await;
    world.mkdir(world.root, "y", 0o755).await;
    a.remove("x").await.unwrap();
    let expected = ["<x$", "x<y$", "-x"];
    assert_eq!(a.changes().await, expected, "its own, too");
    assert_eq!(b.changes().await, expected);
    // Who is not told of names that change is in the way.
    world.create(world.root, "z").await;
    assert_eq!((a.changes().await, b.changes().await), (vec!["y<z$".into()], vec!["y<z$".into()]));
    let ((), ()) = tokio::join!(rename(&world, "z", "w"), async {
        assert_eq!(b.heard().await, Told::Recall(other.stateid));
        b.return_it(root(&world), other.stateid).await;
    });
    assert_eq!(a.changes().await, ["z>y<w$"]);
    world.create(world.root, "v").await;
    rename(&world, "v", "w").await;
    let remove = Remove3Args { object: DirOpArgs3 { dir: world.root, name: name_of(b"w") } };
    world.call::<call::Remove>(remove).await.unwrap();
    assert_eq!(a.changes().await, ["w<v$", "v>!y<w$", "-w"]);
    // A long history is several callbacks.
    let names: Vec<String> = (0..30).map(|n| format!("{n:0>200}")).collect();
    for name in &names {
        world.create(world.root, name).await;
    }
    let mut heard = Vec::new();
    while heard.len() < names.len() {
        let changes = a.changes().await;
        assert!(changes.len() < 10, "they fit into a request of a page");
        heard.extend(changes);
    }
    assert!(heard.iter().zip(&names).all(|(change, name)| change.ends_with(&format!("<{name}$"))));
    a.return_it(root(&world), held.stateid).await;
    world.create(world.root, "untold").await;
    assert_eq!(world.engine.stats().delegations_recalled, 1);
}

#[tokio::test(start_paused = true)]
async fn who_cannot_be_told_is_recalled() {
    let world = World::new().await;
    let mut a = Client::new(&world, "a", BACK).await;
    let held = a.watch(root(&world), &ALL).await.unwrap();
    // One that asks for time has not heard yet.
    world.create(world.root, "x").await;
    let called = a.hear().await;
    a.answer(&called, Ok(()), Err(NfsStat4::Delay));
    world.create(world.root, "y").await;
    assert_eq!(a.changes().await, ["<x$", "x<y$"]);
    // One that does not understand.
    world.create(world.root, "z").await;
    let called = a.hear().await;
    a.answer(&called, Ok(()), Err(NfsStat4::BadStateId));
    assert_eq!(a.heard().await, Told::Recall(held.stateid));
    a.return_it(root(&world), held.stateid).await;
    assert_eq!(a.watch(root(&world), &ALL).await, None, "not so soon");
    // One that does not answer.
    world.meta.advance(60_000_000_000);
    let held = a.watch(root(&world), &ALL).await.unwrap();
    a.remove("x").await.unwrap();
    assert_eq!(read(&a.hear().await), Told::Changes(vec!["-x".into()]));
    a.connection = Some(Reverse::new());
    tokio::time::sleep(Duration::from_secs(11)).await;
    assert_eq!(a.bind(DirFromClient4::ForeOrBoth).await, Ok(DirFromServer4::Both));
    assert_eq!(a.heard().await, Told::Recall(held.stateid));
    a.return_it(root(&world), held.stateid).await;
    // One that is not there.
    world.meta.advance(60_000_000_000);
    let held = a.watch(root(&world), &ALL).await.unwrap();
    a.connection = None;
    a.remove("y").await.unwrap();
    while a.flags == 0 {
        tokio::time::sleep(Duration::from_millis(10)).await;
        a.ask(Vec::new()).await;
    }
    a.connection = Some(Reverse::new());
    assert_eq!(a.bind(DirFromClient4::ForeOrBoth).await, Ok(DirFromServer4::Both));
    assert_eq!(a.heard().await, Told::Recall(held.stateid));
}

#[tokio::test(start_paused = true)]
async fn a_callback_that_is_repeated_is_heard_once() {
    let world = World::new().await;
    let mut a = Client::new(&world, "a", BACK).await;
    a.watch(root(&world), &ALL).await.unwrap();
    world.create(world.root, "x").await;
    let first = a.hear().await;
    // The answer is lost with the connection.
    a.connection = Some(Reverse::new());
    assert_eq!(a.bind(DirFromClient4::ForeOrBoth).await, Ok(DirFromServer4::Both));
    let again = a.called().await;
    assert_eq!(again.args, first.args);
    a.answer(&again, Ok(()), Err(NfsStat4::RetryUncachedRep));
    a.remove("x").await.unwrap();
    assert_eq!(a.changes().await, ["-x"]);
}

/// Longer than a call is tried.
#[tokio::test(start_paused = true)]
async fn a_start_waits_for_a_store_that_cannot_recall_yet() {
    let (config, meta, blocks, dir) = {
        let world = World::new().await;
        Client::new(&world, "a", BACK).await.watch(root(&world), &ALL).await.unwrap();
        let dir = world.engine.handle_key.open(world.root.as_slice()).unwrap().ino;
        (world.config.clone(), world.meta.clone(), world.blocks.clone(), dir)
    };
    // Nobody is there to tell of it.
    let op = Op::Create {
        dir,
        name: "x".into(),
        node: NewNode::Regular,
        how: CreateHow::Guarded,
        attrs: SetAttr::default(),
    };
    let call = Call { origin: None, once: None, cred: Cred::root(), client: None, op };
    assert!(meta.apply(call).result.is_ok());
    let recall: fn(&Op) -> bool = |op| matches!(op, Op::State(StateOp::RecallOne(_)));
    for _ in 0..60 {
        meta.fail_next(recall, super::meta::Fault::LostBefore);
    }
    let begun = tokio::time::Instant::now();
    let world = World::over(config, meta, blocks).await;
    assert!(begun.elapsed() > world.config.patience, "it took more than one call");
    assert!(world.meta.notices(StateId(0), 1).await.unwrap().is_empty());
}

#[tokio::test(start_paused = true)]
async fn after_a_start_what_may_have_been_told_is_recalled() {
    for told_before in [false, true] {
        let mut world = World::new().await;
        let (held, quiet, saved) = {
            let quiet = world.mkdir(world.root, "quiet", 0o755).await;
            let quiet = FileHandle::new(quiet.as_slice()).unwrap();
            let mut a = Client::new(&world, "a", BACK).await;
            let held = a.watch(root(&world), &ALL).await.unwrap();
            let quiet = (quiet, a.watch(quiet, &ALL).await.unwrap());
            // What was told and noted is done with.
            world.create(world.root, "x").await;
            assert_eq!(a.changes().await.len(), 1);
            tokio::time::sleep(Duration::from_secs(1)).await;
            let note: fn(&Op) -> bool = |op| matches!(op, Op::State(StateOp::Noticed { .. }));
            world.create(world.root, "y").await;
            if told_before {
                for _ in 0..100 {
                    world.meta.fail_next(note, super::meta::Fault::LostBefore);
                }
                assert_eq!(a.changes().await.len(), 1);
                tokio::time::sleep(Duration::from_secs(1)).await;
            }
            (held, quiet, (a.session, a.seqid, a.slots.clone()))
        };
        world.crash().await;
        world.meta.forget_faults();
        // The former life may be in the middle of a callback, and hears of recalls until it gives up.
        tokio::time::sleep(Duration::from_secs(15)).await;
        world.meta.tell_again();
        let (session, seqid, slots) = saved;
        let connection = Some(Reverse::new());
        let mut a = Client { world: &world, connection, session, seqid, slots, flags: 0, minor: 1 };
        assert_eq!(a.bind(DirFromClient4::ForeOrBoth).await, Ok(DirFromServer4::Both));
        assert_eq!(a.heard().await, Told::Recall(held.stateid));
        a.return_it(root(&world), held.stateid).await;
        // The other goes on as if nothing had been.
        world.create(atoll_proto::nfs3::FileHandle::new(quiet.0.as_slice()).unwrap(), "in").await;
        assert_eq!(a.changes().await, ["<in$"]);
        a.return_it(quiet.0, quiet.1.stateid).await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_frontend_that_lost_its_place_for_a_while_recalls_what_may_have_been_told() {
    let world = World::new().await;
    let mut a = Client::new(&world, "a", BACK).await;
    let held = a.watch(root(&world), &ALL).await.unwrap();
    let note: fn(&Op) -> bool = |op| matches!(op, Op::State(StateOp::Noticed { .. }));
    (0..1000).for_each(|_| world.meta.fail_next(note, super::meta::Fault::LostBefore));
    world.create(world.root, "x").await;
    assert_eq!(a.changes().await.len(), 1);
    let op = Op::RegisterFrontend { frontend: world.engine.origin().await.frontend };
    world.meta.apply(Call { origin: None, once: None, cred: Cred::root(), client: None, op }).result.unwrap();
    world.meta.forget_faults();
    assert_eq!(a.heard().await, Told::Recall(held.stateid));
    assert!(world.meta.notices(StateId(0), 1).await.unwrap().is_empty());
    a.return_it(root(&world), held.stateid).await;
}
