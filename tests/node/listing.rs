//! A large directory that is listed by some while others create and remove in it: whatever was there all the time is listed
//! once, whatever was not there at any time is not listed, every time.
//!
//! `ATOLL_LONG=1` does it with a million entries.

use crate::nfs::Client;
use crate::process::{Server, atoll};
use atoll_proto::nfs3::{
    Create3Args, CreateHow3, DirOpArgs3, FileHandle, MkDir3Args, Name3, ReadDir3Args, ReadDirPlus3Args,
    Remove3Args, Sattr3, call,
};
use std::collections::{HashMap, HashSet};
use std::net::SocketAddr;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::SeqCst};
use std::time::Instant;

/// Clients that fill the directory.
const FILLERS: u32 = 48;
/// Clients that create and remove while it is listed.
const CHURNERS: u32 = 2;
/// One in so many entries is there to be removed.
const OLD: u32 = 20;
/// New entries of a churner that are there at a time.
const NEW: u64 = 10;
/// Listings of each lister.
const ROUNDS: u32 = 5;

/// Entries that stay.
fn entries() -> u32 {
    if std::env::var("ATOLL_LONG").is_ok_and(|v| v == "1") { 1_000_000 } else { 20_000 }
}

/// When an entry came and went, by the directory's own clock; `u64::MAX` is never.
struct Life {
    /// Before CREATE was sent, after it was answered.
    create: (u64, u64),
    /// The same of REMOVE.
    remove: (u64, u64),
}

/// The directory as its clients know it.
struct Directory {
    server: SocketAddr,
    dir: FileHandle,
    /// Of each entry that stays, by its number.
    fileids: Vec<AtomicU64>,
    /// Entries that come or go.
    others: Mutex<HashMap<Vec<u8>, Life>>,
    clock: AtomicU64,
    changes: AtomicU64,
    stop: AtomicBool,
}

fn stay(n: u32) -> String {
    format!("stay-{n:07}")
}

fn old(n: u32) -> String {
    format!("old-{n:07}")
}

impl Directory {
    fn at(&self, name: &str) -> DirOpArgs3 {
        DirOpArgs3 { dir: self.dir, name: Name3::copy_from(name.as_bytes()).unwrap() }
    }

    fn tick(&self) -> u64 {
        self.clock.fetch_add(1, SeqCst)
    }

    /// Makes an entry; its fileid.
    fn create(&self, client: &mut Client, name: &str) -> u64 {
        let how = CreateHow3::Guarded(Sattr3 { mode: Some(0o644), ..Sattr3::default() });
        let made = client.call::<call::Create>(Create3Args { at: self.at(name), how });
        made.map_err(|e| e.status).unwrap().obj_attributes.unwrap().fileid
    }

    /// Makes an entry that goes again.
    fn come(&self, client: &mut Client, name: &str) {
        let asked = self.tick();
        // Known before it can be listed.
        let life = Life { create: (asked, u64::MAX), remove: (u64::MAX, u64::MAX) };
        self.others.lock().unwrap().insert(name.into(), life);
        self.create(client, name);
        let done = self.tick();
        self.others.lock().unwrap().get_mut(name.as_bytes()).unwrap().create.1 = done;
        self.changes.fetch_add(1, SeqCst);
    }

    fn go(&self, client: &mut Client, name: &str) {
        let asked = self.tick();
        self.others.lock().unwrap().get_mut(name.as_bytes()).unwrap().remove.0 = asked;
        let removed = client.call::<call::Remove>(Remove3Args { object: self.at(name) });
        removed.map_err(|e| e.status).unwrap();
        let done = self.tick();
        self.others.lock().unwrap().get_mut(name.as_bytes()).unwrap().remove.1 = done;
        self.changes.fetch_add(1, SeqCst);
    }

    /// One filler's part.
    fn fill(&self, filler: u32) {
        let mut client = Client::mount(self.server);
        for n in (filler..self.fileids.len() as u32).step_by(FILLERS as usize) {
            let fileid = self.create(&mut client, &stay(n));
            self.fileids[n as usize].store(fileid, SeqCst);
            if n % OLD == 0 {
                self.come(&mut client, &old(n));
            }
        }
    }

    /// Creates and removes until told to stop.
    fn churn(&self, churner: u32) {
        let mut client = Client::mount(self.server);
        let olds = self.fileids.len() as u32 / OLD / CHURNERS;
        for n in 0.. {
            if self.stop.load(SeqCst) {
                return;
            }
            self.come(&mut client, &format!("new-{churner}-{n}"));
            if n >= NEW {
                self.go(&mut client, &format!("new-{churner}-{}", n - NEW));
            }
            if n % 3 == 0 && n / 3 < u64::from(olds) {
                // In no order: 7919 is a prime, and no number of old entries is a multiple of it.
                let nth = (n / 3 * 7919 % u64::from(olds)) as u32 * CHURNERS + churner;
                self.go(&mut client, &old(nth * OLD));
            }
        }
    }

    /// Lists the directory once; names with fileids.
    fn list(&self, client: &mut Client, how: How) -> Vec<(Vec<u8>, u64)> {
        let (mut all, mut cookie, mut cookieverf) = (Vec::new(), 0, [0; 8]);
        loop {
            let before = all.len();
            let eof = match how {
                How::Names { count } => {
                    let args = ReadDir3Args { dir: self.dir, cookie, cookieverf, count };
                    let page = client.call::<call::ReadDir>(args).map_err(|e| e.status).unwrap();
                    cookieverf = page.cookieverf;
                    for entry in page.entries.iter() {
                        cookie = entry.cookie;
                        all.push((entry.name.to_vec(), entry.fileid));
                    }
                    page.eof
                }
                How::Attributes { dircount, maxcount } => {
                    let args = ReadDirPlus3Args { dir: self.dir, cookie, cookieverf, dircount, maxcount };
                    let page = client.call::<call::ReadDirPlus>(args).map_err(|e| e.status).unwrap();
                    cookieverf = page.cookieverf;
                    for entry in page.entries.iter() {
                        cookie = entry.cookie;
                        if let Some(attributes) = entry.name_attributes {
                            assert_eq!(attributes.fileid, entry.fileid);
                        }
                        all.push((entry.name.to_vec(), entry.fileid));
                    }
                    page.eof
                }
            };
            if eof {
                return all;
            }
            assert!(all.len() > before, "a page without entries that is not the last");
        }
    }

    /// Lists once and compares with what is known; how many entries there were.
    fn check(&self, client: &mut Client, how: How) -> usize {
        let begin = self.clock.load(SeqCst);
        let listed = self.list(client, how);
        let end = self.clock.load(SeqCst);
        let mut stayed = vec![false; self.fileids.len()];
        let mut others = HashSet::new();
        for (name, fileid) in &listed {
            let text = String::from_utf8_lossy(name);
            if let Some(number) = text.strip_prefix("stay-") {
                let n: usize = number.parse().unwrap();
                assert_eq!(*fileid, self.fileids[n].load(SeqCst), "{text}");
                assert!(!std::mem::replace(&mut stayed[n], true), "{text} twice, {how:?}");
            } else if text != "." && text != ".." {
                assert!(others.insert(name.clone()), "{text} twice, {how:?}");
            }
        }
        let missed: Vec<_> = (0..).zip(&stayed).filter(|(_, seen)| !**seen).map(|(n, _)| stay(n)).collect();
        assert!(missed.is_empty(), "{how:?}: {} missed, such as {:?}", missed.len(), missed[0]);
        let known = self.others.lock().unwrap();
        for name in &others {
            let name_text = String::from_utf8_lossy(name);
            let life = known.get(name).unwrap_or_else(|| panic!("{name_text}: nobody made that"));
            assert!(life.create.0 < end && life.remove.1 >= begin, "{name_text} was not there, {how:?}");
        }
        for (name, life) in known.iter() {
            if life.create.1 < begin && life.remove.0 >= end {
                assert!(others.contains(name), "{} missed, {how:?}", String::from_utf8_lossy(name));
            }
        }
        listed.len()
    }
}

/// How a directory is listed.
#[derive(Clone, Copy, Debug)]
enum How {
    /// READDIR
    Names { count: u32 },
    /// READDIRPLUS
    Attributes { dircount: u32, maxcount: u32 },
}

/// Small pages, as clients begin with, and the largest.
const LISTERS: [How; 4] = [
    How::Names { count: 4096 },
    How::Names { count: 1 << 20 },
    How::Attributes { dircount: 4096, maxcount: 32 << 10 },
    How::Attributes { dircount: 1 << 20, maxcount: 1 << 20 },
];

#[test]
fn whatever_stays_in_a_changing_directory_is_listed_once() {
    let data = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let server = Server::start_shipped(data.path(), &["--export", "/=127.0.0.1,rw,no_root_squash,insecure"]);
    let mut client = Client::mount(server.nfs);
    let (dir, name) = (client.root, Name3::from_static(b"large"));
    let attributes = Sattr3 { mode: Some(0o755), ..Sattr3::default() };
    let made = client.call::<call::MkDir>(MkDir3Args { at: DirOpArgs3 { dir, name }, attributes });
    let directory = Directory {
        server: server.nfs,
        dir: made.map_err(|e| e.status).unwrap().object.unwrap(),
        fileids: (0..entries()).map(|_| AtomicU64::new(0)).collect(),
        others: Mutex::default(),
        clock: AtomicU64::new(0),
        changes: AtomicU64::new(0),
        stop: AtomicBool::new(false),
    };
    let directory = &directory;
    let began = Instant::now();
    std::thread::scope(|scope| {
        for filler in 0..FILLERS {
            scope.spawn(move || directory.fill(filler));
        }
    });
    println!("{} entries made in {:.1?}, {}", directory.fileids.len(), began.elapsed(), server.memory());

    directory.changes.store(0, SeqCst);
    std::thread::scope(|scope| {
        let churners: Vec<_> =
            (0..CHURNERS).map(|churner| scope.spawn(move || directory.churn(churner))).collect();
        let listers = LISTERS.map(|how| {
            scope.spawn(move || {
                let mut client = Client::mount(directory.server);
                for round in 1..=ROUNDS {
                    let (began, changes) = (Instant::now(), directory.changes.load(SeqCst));
                    let listed = directory.check(&mut client, how);
                    let changes = directory.changes.load(SeqCst) - changes;
                    println!(
                        "{how:?} {round}: {listed} entries in {:.1?}, {changes} changes",
                        began.elapsed()
                    );
                }
            })
        });
        let ended = listers.map(|lister| lister.join());
        directory.stop.store(true, SeqCst);
        ended.into_iter().for_each(|ended| ended.expect("a lister found fault"));
        churners.into_iter().for_each(|churner| churner.join().expect("a churner was refused"));
    });
    let changes = directory.changes.load(SeqCst);
    // Whether the test tests anything; how fast a busy machine is does not matter.
    assert!(changes > 5 * u64::from(ROUNDS), "the directory hardly changed while it was listed: {changes}");
    // Nothing changes any more: exactly what is left.
    let left = directory.others.lock().unwrap().values().filter(|life| life.remove.1 == u64::MAX).count();
    for how in LISTERS {
        let listed = directory.check(&mut client, how);
        assert_eq!(listed, 2 + directory.fileids.len() + left, "{how:?}");
    }
    println!("{changes} changes, {}", server.memory());
    server.stop();
    let fsck = atoll(&["fsck", data.path().to_str().unwrap()]);
    assert_eq!(fsck.status, Some(0), "{}{}", fsck.stdout, fsck.stderr);
}
