//! READDIR and READDIRPLUS: pages add up to the directory, and every reply keeps to its limits.

use super::world::{World, name_of};
use atoll_proto::nfs3::{
    Create3Args, CreateHow3, DirOpArgs3, FileHandle, NfsStat3, ReadDir3Args, ReadDir3Ok, ReadDirPlus3Args,
    ReadDirPlus3Ok, Remove3Args, Sattr3, StableHow, call,
};
use proptest::prelude::*;
use std::collections::BTreeMap;

async fn fill(w: &World, dir: FileHandle, names: &[Vec<u8>]) -> BTreeMap<Vec<u8>, FileHandle> {
    let mut made = BTreeMap::new();
    for name in names {
        let at = DirOpArgs3 { dir, name: name_of(name) };
        let args = Create3Args { at, how: CreateHow3::Unchecked(Sattr3::default()) };
        made.insert(name.clone(), w.call::<call::Create>(args).await.unwrap().object.unwrap());
    }
    made
}

async fn list(w: &World, dir: FileHandle, count: u32) -> Result<Vec<(Vec<u8>, u64)>, NfsStat3> {
    let (mut all, mut cookie, mut cookieverf) = (Vec::new(), 0, [0; 8]);
    loop {
        let args = ReadDir3Args { dir, cookie, cookieverf, count };
        let bytes = w.bytes::<call::ReadDir>(w.next_xid(), &args).await;
        let len = bytes.len();
        let result: atoll_proto::nfs3::ReadDir3Res = atoll_xdr::Decoder::new(bytes).decode().unwrap();
        let ReadDir3Ok { dir_attributes, cookieverf: verf, entries, eof } = result.map_err(|f| f.status)?;
        assert!(len - 4 <= count as usize, "{len} bytes with the status for a limit of {count}");
        assert!(dir_attributes.is_some() && verf != [0; 8]);
        assert!(cookieverf == [0; 8] || cookieverf == verf, "the verifier stays");
        assert!(eof || !entries.is_empty(), "it goes on");
        cookieverf = verf;
        for entry in &entries {
            assert!(entry.cookie > cookie);
            cookie = entry.cookie;
            all.push((entry.name.to_vec(), entry.fileid));
        }
        if eof {
            return Ok(all);
        }
    }
}

async fn list_plus(
    w: &World,
    dir: FileHandle,
    dircount: u32,
    maxcount: u32,
) -> Result<Vec<(Vec<u8>, u64, Option<FileHandle>)>, NfsStat3> {
    let (mut all, mut cookie, mut cookieverf) = (Vec::new(), 0, [0; 8]);
    loop {
        let args = ReadDirPlus3Args { dir, cookie, cookieverf, dircount, maxcount };
        let bytes = w.bytes::<call::ReadDirPlus>(w.next_xid(), &args).await;
        let len = bytes.len();
        let result: atoll_proto::nfs3::ReadDirPlus3Res = atoll_xdr::Decoder::new(bytes).decode().unwrap();
        let ReadDirPlus3Ok { cookieverf: verf, entries, eof, .. } = result.map_err(|f| f.status)?;
        assert!(len - 4 <= maxcount as usize);
        assert!(eof || !entries.is_empty(), "it goes on");
        let directory: usize = entries.iter().map(|e| 24 + e.name.len().next_multiple_of(4)).sum();
        assert!(directory <= dircount as usize || entries.len() == 1);
        cookieverf = verf;
        for entry in &entries {
            cookie = entry.cookie;
            if let (Some(handle), Some(attributes)) = (entry.name_handle, entry.name_attributes) {
                assert_eq!(attributes.fileid, entry.fileid);
                assert_eq!(w.getattr(handle).await, attributes);
            }
            all.push((entry.name.to_vec(), entry.fileid, entry.name_handle));
        }
        if eof {
            return Ok(all);
        }
    }
}

fn any_names() -> impl Strategy<Value = Vec<Vec<u8>>> {
    let name =
        prop::collection::vec(any::<u8>().prop_filter("a byte of names", |b| !matches!(b, 0 | b'/')), 1..=40);
    prop::collection::vec(name.prop_filter("no alias", |n| n != b"." && n != b".."), 0..60)
}

fn run<F: Future>(f: F) -> F::Output {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(f)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(40))]

    #[test]
    fn pages_add_up(names in any_names(), count in 190u32..2000) {
        run(async {
            let w = World::new().await;
            let dir = w.mkdir(w.root, "d", 0o755).await;
            let made = fill(&w, dir, &names).await;
            let all = list(&w, dir, count).await.unwrap();
            assert_eq!(all[0], (b".".to_vec(), w.getattr(dir).await.fileid));
            assert_eq!(all[1], (b"..".to_vec(), w.getattr(w.root).await.fileid));
            let mut rest: Vec<_> = all[2..].to_vec();
            rest.sort();
            let mut expected = Vec::new();
            for (name, handle) in &made {
                expected.push((name.clone(), w.getattr(*handle).await.fileid));
            }
            assert_eq!(rest, expected);
        });
    }

    #[test]
    fn pages_with_attributes_add_up(names in any_names(), dircount in 1u32..1500, maxcount in 400u32..6000) {
        run(async {
            let w = World::new().await;
            let dir = w.mkdir(w.root, "d", 0o755).await;
            let made = fill(&w, dir, &names).await;
            let all = list_plus(&w, dir, dircount, maxcount).await.unwrap();
            assert_eq!(all[0].2, Some(dir));
            assert_eq!(all[1].2, Some(w.root));
            let mut rest: Vec<_> = all[2..].iter().map(|(n, _, h)| (n.clone(), h.unwrap())).collect();
            rest.sort();
            assert_eq!(rest, made.into_iter().collect::<Vec<_>>());
        });
    }
}

#[tokio::test]
async fn cookies_survive_changes_and_verifiers_are_checked() {
    let w = World::new().await;
    let dir = w.mkdir(w.root, "d", 0o755).await;
    let names: Vec<Vec<u8>> = (0..20).map(|i| format!("name{i:02}").into_bytes()).collect();
    fill(&w, dir, &names).await;
    let page = |cookie, cookieverf, count| ReadDir3Args { dir, cookie, cookieverf, count };
    let first = w.call::<call::ReadDir>(page(0, [0; 8], 400)).await.unwrap();
    assert!(!first.eof);
    let last = first.entries.last().unwrap();
    let gone = String::from_utf8(last.name.to_vec()).unwrap();
    w.call::<call::Remove>(Remove3Args { object: w.at(dir, &gone) }).await.unwrap();
    w.create(dir, "new").await;
    let second = w.call::<call::ReadDir>(page(last.cookie, first.cookieverf, 65536)).await.unwrap();
    assert!(second.eof);
    assert_eq!(first.entries.len() + second.entries.len(), 20 + 2 + 1);

    let other = w.mkdir(w.root, "e", 0o755).await;
    let theirs = w.call::<call::ReadDir>(ReadDir3Args { dir: other, ..page(0, [0; 8], 4096) }).await.unwrap();
    let refused = w.call::<call::ReadDir>(page(last.cookie, theirs.cookieverf, 4096)).await.unwrap_err();
    assert_eq!(refused.status, NfsStat3::BadCookie);
    assert!(refused.detail.is_some());
    let plus = ReadDirPlus3Args { dir, cookie: 5, cookieverf: [1; 8], dircount: 4096, maxcount: 4096 };
    assert_eq!(w.call::<call::ReadDirPlus>(plus).await.unwrap_err().status, NfsStat3::BadCookie);

    let end = second.entries.last().unwrap().cookie;
    let beyond = w.call::<call::ReadDir>(page(end, first.cookieverf, 4096)).await.unwrap();
    assert!(beyond.eof && beyond.entries.is_empty());
}

#[tokio::test]
async fn limits_too_small_and_things_that_are_no_directory() {
    let w = World::new().await;
    let file = w.create(w.root, "f").await;
    assert_eq!(list(&w, w.root, 100).await, Err(NfsStat3::TooSmall));
    assert_eq!(list(&w, w.root, 0).await, Err(NfsStat3::TooSmall));
    assert_eq!(list_plus(&w, w.root, 4096, 200).await, Err(NfsStat3::TooSmall));
    assert_eq!(list(&w, file, 4096).await, Err(NfsStat3::NotDir));
    assert_eq!(list_plus(&w, file, 4096, 4096).await, Err(NfsStat3::NotDir));
    assert_eq!(list(&w, w.root, u32::MAX).await.unwrap().len(), 3);
}

#[tokio::test]
async fn who_may_only_read_sees_names_and_no_more() {
    let mut w = World::new().await;
    let dir = w.mkdir(w.root, "d", 0o744).await;
    w.create(dir, "f").await;
    w.as_user(7, 7);
    let all = list_plus(&w, dir, 4096, 4096).await.unwrap();
    assert_eq!(all.len(), 3);
    assert!(all.iter().all(|(_, _, handle)| handle.is_none()));
    w.as_user(0, 0);
    let closed = w.mkdir(w.root, "closed", 0o711).await;
    w.as_user(7, 7);
    assert_eq!(list(&w, closed, 4096).await, Err(NfsStat3::Acces));
}

#[tokio::test]
async fn a_listing_shows_dirty_files_as_they_are() {
    let w = World::new().await;
    let file = w.create(w.root, "f").await;
    w.write_dirty(file, 0, &[1; 300]).await;
    w.write(file, 300, &[1; 300], StableHow::Unstable).await.unwrap();
    let args =
        ReadDirPlus3Args { dir: w.root, cookie: 0, cookieverf: [0; 8], dircount: 4096, maxcount: 8192 };
    let all = w.call::<call::ReadDirPlus>(args).await.unwrap();
    let entry = all.entries.iter().find(|e| &e.name[..] == b"f").unwrap();
    assert_eq!(entry.name_attributes.unwrap().size, 600);
    assert_eq!(entry.name_attributes.unwrap(), w.getattr(file).await);
}

#[tokio::test]
async fn a_large_directory_lists_in_large_pages() {
    let w = World::new().await;
    let dir = w.mkdir(w.root, "d", 0o755).await;
    let names: Vec<Vec<u8>> = (0..3000).map(|i| format!("file-number-{i}").into_bytes()).collect();
    fill(&w, dir, &names).await;
    assert_eq!(list(&w, dir, 1 << 20).await.unwrap().len(), 3002);
    assert_eq!(list_plus(&w, dir, 1 << 20, 1 << 20).await.unwrap().len(), 3002);
}
