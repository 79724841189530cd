//! What others see of files that a client holds for writing (RFC 8881 §10.4.3).

use super::backclient::{BACK, Client, put, root};
use super::delegations::{BOTH, WANT_WRITE, handle};
use super::meta::Fault;
use super::world::World;
use atoll_meta::Op;
use atoll_proto::nfs3::{ReadDirPlus3Args, ReadDirPlus3Res, call};
use atoll_proto::nfs4::{
    ArgOp4, Attr4, AttrValue4, Bitmap, Commit4Args, FileHandle, FileType4, NfsStat4, Payload, ReadDir4Args,
    ReadDir4Ok, ResOp4, StableHow4, StateId4, Write4Args,
};
use atoll_xdr::Decoder;
use std::time::Duration;

/// The next callback is CB_GETATTR, and answered with these.
async fn says(a: &Client<'_>, change: u64, size: u64) {
    let called = a.called().await;
    a.tell(&called, &[AttrValue4::Change(change), AttrValue4::Size(size)]);
}

#[tokio::test(start_paused = true)]
async fn others_see_what_the_holder_says() {
    let world = World::new().await;
    let file = handle(&world.create(world.root, "f").await);
    let mut a = Client::new(&world, "a", BACK).await;
    let mut b = Client::new(&world, "b", BACK).await;
    a.delegated("f", BOTH | WANT_WRITE).await;
    let (change, size) = a.attrs(file).await.unwrap();
    let (seen, ()) = tokio::join!(b.attrs(file), says(&a, change, size));
    assert_eq!(seen.unwrap(), (change, size), "nothing has changed");
    let (first, ()) = tokio::join!(b.attrs(file), says(&a, change + 1, 5));
    let (second, ()) = tokio::join!(b.attrs(file), says(&a, change + 1, 5));
    let (first, second) = (first.unwrap(), second.unwrap());
    assert_eq!((first.1, second.1), (5, 5));
    assert!(change < first.0 && first.0 < second.0, "it may have changed in between");
    // Version 3, too.
    let (found, ()) = tokio::join!(world.lookup(world.root, "f"), says(&a, change + 1, 7));
    assert_eq!(found.unwrap().obj_attributes.unwrap().size, 7);
    // One that does not answer is recalled.
    let (seen, _unanswered) = tokio::join!(b.attrs(file), a.called());
    assert_eq!(seen, Err(NfsStat4::Delay));
}

/// Entries of the root behind a cookie.
async fn listed(client: &mut Client<'_>, cookie: u64, attrs: &[Attr4]) -> Result<ReadDir4Ok, NfsStat4> {
    let attr_request = Bitmap::of(&attrs.iter().map(|attr| *attr as u32).collect::<Vec<_>>());
    let args = ReadDir4Args { cookie, cookieverf: [0; 8], dircount: 4096, maxcount: 4096, attr_request };
    let mut res = client.ask(vec![put(root(client.world)), ArgOp4::ReadDir(args)]).await;
    match res.pop() {
        Some(ResOp4::ReadDir(listing)) => listing,
        other => panic!("{other:?}"),
    }
}

/// Attributes of the only entry of the root.
async fn shown(client: &mut Client<'_>, attrs: &[Attr4]) -> Result<Vec<AttrValue4>, NfsStat4> {
    let listing = listed(client, 0, attrs).await?;
    Ok(listing.entries.first().unwrap().attrs.read().unwrap())
}

#[tokio::test(start_paused = true)]
async fn a_listing_says_what_it_does_not_know() {
    let world = World::new().await;
    world.create(world.root, "f").await;
    let mut a = Client::new(&world, "a", BACK).await;
    let mut b = Client::new(&world, "b", BACK).await;
    a.delegated("f", BOTH | WANT_WRITE).await;
    let asked = [Attr4::Type, Attr4::Size, Attr4::RdAttrError];
    let regular = AttrValue4::Type(FileType4::Regular);
    let known = vec![regular.clone(), AttrValue4::Size(0), AttrValue4::RdAttrError(Ok(()))];
    assert_eq!(shown(&mut a, &asked).await, Ok(known), "the holder itself");
    let unknown = vec![regular.clone(), AttrValue4::RdAttrError(Err(NfsStat4::Delay))];
    assert_eq!(shown(&mut b, &asked).await, Ok(unknown));
    // Who wants to hear of no error waits for the holder; if that does not answer it is recalled.
    let (seen, ()) = tokio::join!(shown(&mut b, &asked[..2]), says(&a, 9, 5));
    assert_eq!(seen, Ok(vec![regular, AttrValue4::Size(5)]));
    let (seen, _unanswered) = tokio::join!(shown(&mut b, &asked[..2]), a.called());
    assert_eq!(seen, Err(NfsStat4::Delay));
    // Version 3 leaves attributes out.
    let (dir, cookieverf) = (world.root, [0; 8]);
    let args = ReadDirPlus3Args { dir, cookie: 0, cookieverf, dircount: 4096, maxcount: 4096 };
    let bytes = world.bytes::<call::ReadDirPlus>(world.next_xid(), &args).await;
    let result: ReadDirPlus3Res = Decoder::new(bytes).decode().unwrap();
    let entries = result.unwrap().entries;
    let entry = entries.iter().find(|entry| &entry.name[..] == b"f").unwrap();
    assert!(entry.name_attributes.is_none() && entry.name_handle.is_some());
}

#[tokio::test(start_paused = true)]
async fn a_page_ends_before_whose_holder_does_not_answer() {
    let world = World::new().await;
    world.create(world.root, "e").await;
    world.create(world.root, "f").await;
    let mut a = Client::new(&world, "a", BACK).await;
    let mut b = Client::new(&world, "b", BACK).await;
    a.delegated("f", BOTH | WANT_WRITE).await;
    let asked = [Attr4::Size];
    let (page, _unanswered) = tokio::join!(listed(&mut b, 0, &asked), a.called());
    let page = page.unwrap();
    assert_eq!((page.entries.len(), page.eof), (1, false));
    let (rest, _unanswered) = tokio::join!(listed(&mut b, page.entries[0].cookie, &asked), a.called());
    assert_eq!(rest.map(|page| page.entries.len()), Err(NfsStat4::Delay));
}

async fn write(a: &mut Client<'_>, file: FileHandle, stateid: StateId4) {
    let data = Payload::copy_from(b"held").unwrap();
    let write = Write4Args { stateid, offset: 0, stable: StableHow4::Unstable, data };
    let res = a.ask(vec![put(file), ArgOp4::Write(write)]).await;
    assert!(matches!(res[1], ResOp4::Write(Ok(_))), "{res:?}");
}

#[tokio::test(start_paused = true)]
async fn who_asks_and_goes_leaves_no_flush_half_done() {
    let world = World::new().await;
    let file = handle(&world.create(world.root, "f").await);
    let mut a = Client::new(&world, "a", BACK).await;
    let mut b = Client::new(&world, "b", BACK).await;
    let held = a.delegated("f", BOTH | WANT_WRITE).await;
    // The second is taken in without the store.
    write(&mut a, file, held).await;
    write(&mut a, file, held).await;
    assert_eq!(world.engine.stats().dirty_files, 1);
    // The question has the data flushed; that takes its time, and meanwhile the asking client is gone.
    world.meta.fail_next(|op| matches!(op, Op::Write { .. }), Fault::LostBefore);
    let asks = tokio::time::timeout(Duration::from_millis(1), b.attrs(file));
    let (gone, ()) = tokio::join!(asks, says(&a, 99, 4));
    assert!(gone.is_err());
    let commit = ArgOp4::Commit(Commit4Args { offset: 0, count: 0 });
    let res = a.ask(vec![put(file), commit]).await;
    assert!(matches!(res[1], ResOp4::Commit(Ok(_))), "{res:?}");
    assert_eq!(world.engine.stats().dirty_files, 0);
}
