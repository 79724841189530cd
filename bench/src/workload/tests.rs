#![allow(clippy::unwrap_used)]
//! The workloads against a server of a few lines that decodes every call whole, and against the same server misbehaving.

use std::collections::{BTreeMap, HashMap};
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use atoll_proto::nfs3::{
    Commit3Args, Commit3Ok, Create3Args, CreatedOk, EntryPlus3, FileHandle, MkDir3Args, Name3, NfsStat3,
    Payload, Proc, Read3Args, Read3Ok, ReadDirPlus3Args, ReadDirPlus3Ok, Remove3Args, Rename3Args, StableHow,
    WccData, Write3Args, Write3Ok,
};
use atoll_proto::record::{RecordLimits, RecordReader, begin_record, end_record};
use atoll_proto::rpc::{CallHeader, encode_success_header};
use atoll_xdr::{Decode, Decoder, Encode, Encoder, List};
use bytes::{Bytes, BytesMut};
use std::io::{Read, Write};

use super::data::{Blocks, COMMIT_EACH, Order, PAGE, Reads, Writes, content, noise};
use super::listing::Listing;
use super::names::{Names, Renames};
use super::small_files::SmallFiles;
use crate::client::credential;
use crate::load::{Limits, LoadError, Measured, Shape, Workload, run};

/// How the server misbehaves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fault {
    None,
    /// Other bytes than were written.
    Bytes,
    /// A new verifier with every COMMIT.
    Verifier,
    /// UNSTABLE where FILE_SYNC was asked for.
    Unstable,
    /// A byte less than was asked for.
    Short,
}

#[derive(Debug, Default)]
struct State {
    pages: HashMap<u64, Bytes>,
    names: BTreeMap<Vec<u8>, u64>,
    calls: HashMap<u32, u64>,
    written_since_commit: u64,
    most_uncommitted: u64,
}

fn handle(n: u64) -> FileHandle {
    FileHandle::new(&n.to_be_bytes()[..5]).unwrap()
}

fn args<T: Decode>(d: &mut Decoder) -> T {
    let args = d.decode().unwrap();
    d.finish().expect("the call has the arguments of its procedure and nothing behind");
    args
}

fn done(e: &mut Encoder, result: &impl Encode) {
    e.u32(0);
    e.put(result);
}

impl State {
    fn made(&mut self, name: &[u8], e: &mut Encoder) {
        let number = self.names.len() as u64;
        if self.names.insert(name.to_vec(), number).is_some() {
            return e.u32(NfsStat3::Exist as u32);
        }
        let made =
            CreatedOk { object: Some(handle(number)), obj_attributes: None, dir_wcc: WccData::default() };
        done(e, &made);
    }

    fn answer(&mut self, procedure: u32, d: &mut Decoder, fault: Fault, e: &mut Encoder) {
        *self.calls.entry(procedure).or_default() += 1;
        match Proc::from_u32(procedure).unwrap() {
            Proc::Write => {
                let write: Write3Args = args(d);
                assert_eq!(write.count as usize, write.data.len());
                for (page, at) in write.data.chunks(PAGE).zip((write.offset..).step_by(PAGE)) {
                    self.pages.insert(at, Bytes::copy_from_slice(page));
                }
                let mut committed = write.stable;
                if fault == Fault::Unstable {
                    committed = StableHow::Unstable;
                }
                if write.stable == StableHow::Unstable {
                    self.written_since_commit += u64::from(write.count);
                    self.most_uncommitted = self.most_uncommitted.max(self.written_since_commit);
                }
                let count = write.count - u32::from(fault == Fault::Short);
                done(e, &Write3Ok { file_wcc: WccData::default(), count, committed, verf: [7; 8] });
            }
            Proc::Read => {
                let read: Read3Args = args(d);
                let mut data = BytesMut::new();
                for at in (read.offset..read.offset + u64::from(read.count)).step_by(PAGE) {
                    data.extend_from_slice(&self.pages[&at]);
                }
                if fault == Fault::Bytes {
                    data[7] ^= 1;
                }
                let count = read.count - u32::from(fault == Fault::Short);
                data.truncate(count as usize);
                let data = Payload::new(data).unwrap();
                done(e, &Read3Ok { file_attributes: None, count, eof: false, data });
            }
            Proc::Commit => {
                let _commit: Commit3Args = args(d);
                self.written_since_commit = 0;
                let verf = [if fault == Fault::Verifier { 8 } else { 7 }; 8];
                done(e, &Commit3Ok { file_wcc: WccData::default(), verf });
            }
            Proc::Create => self.made(&args::<Create3Args>(d).at.name, e),
            Proc::MkDir => self.made(&args::<MkDir3Args>(d).at.name, e),
            Proc::Remove => match self.names.remove(&args::<Remove3Args>(d).object.name[..]) {
                Some(_) => done(e, &WccData::default()),
                None => e.u32(NfsStat3::NoEnt as u32),
            },
            Proc::Rename => {
                let rename: Rename3Args = args(d);
                match self.names.remove(&rename.from.name[..]) {
                    Some(file) => {
                        assert!(self.names.insert(rename.to.name.to_vec(), file).is_none());
                        done(e, &(&WccData::default()));
                        e.put(&WccData::default());
                    }
                    None => e.u32(NfsStat3::NoEnt as u32),
                }
            }
            Proc::ReadDirPlus => {
                let list: ReadDirPlus3Args = args(d);
                let (verifier, end) = ([9; 8], DIRECTORY - u64::from(fault == Fault::Short));
                assert_eq!(list.cookieverf, if list.cookie == 0 { [0; 8] } else { verifier });
                let last = (list.cookie + 10).min(end);
                let entry = |n: u64| EntryPlus3 {
                    fileid: n,
                    name: Name3::copy_from(if n == 1 { b"." } else { b"x" }).unwrap(),
                    cookie: n,
                    name_attributes: None,
                    name_handle: None,
                };
                let entries = List::new((list.cookie + 1..=last).map(entry).collect()).unwrap();
                let eof = last == end;
                done(e, &ReadDirPlus3Ok { dir_attributes: None, cookieverf: verifier, entries, eof });
            }
            other => panic!("{other:?}"),
        }
    }
}

/// Entries of every directory, one of which is `.`.
const DIRECTORY: u64 = 35;

/// Answers calls on a port of its own: `answer` reads the arguments and writes the results.
pub(super) fn serve_calls(
    answer: impl FnMut(u32, &mut Decoder, &mut Encoder) + Clone + Send + 'static,
) -> SocketAddr {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let (mut stream, mut answer) = (stream.unwrap(), answer.clone());
            std::thread::spawn(move || {
                let mut records = RecordReader::new(RecordLimits::default());
                let (mut buf, mut chunk) = (BytesMut::new(), vec![0; 1 << 16]);
                loop {
                    let mut e = Encoder::new();
                    while let Some(call) = records.next_record(&mut buf).unwrap() {
                        let mut d = Decoder::new(call);
                        let header = CallHeader::parse(&mut d).unwrap();
                        let record = begin_record(&mut e);
                        encode_success_header(&mut e, header.xid);
                        answer(header.procedure, &mut d, &mut e);
                        end_record(&mut e, record);
                    }
                    // The load generator leaves when it has seen enough.
                    if stream.write_all(&e.into_bytes()).is_err() {
                        return;
                    }
                    match stream.read(&mut chunk) {
                        Ok(0) | Err(_) => return,
                        Ok(n) => buf.extend_from_slice(&chunk[..n]),
                    }
                }
            });
        }
    });
    address
}

fn serve(fault: Fault) -> (SocketAddr, Arc<Mutex<State>>) {
    let state = Arc::new(Mutex::new(State::default()));
    let shared = state.clone();
    let answer = move |procedure, d: &mut Decoder, e: &mut Encoder| {
        shared.lock().unwrap().answer(procedure, d, fault, e);
    };
    (serve_calls(answer), state)
}

const SHAPE: Shape = Shape { connections: 2, per_connection: 3 };
const SLOTS: usize = 6;

fn go(server: SocketAddr, workload: &mut dyn Workload) -> Result<Measured, LoadError> {
    let limits = Limits { duration: Duration::from_millis(40), silence: Duration::from_secs(20) };
    run(server, SHAPE, limits, workload)
}

fn blocks(len: u64, size: usize, order: Order) -> Blocks {
    Blocks { file: handle(1), len, size, order }
}

/// Each page once: a run that ends by itself, so its limit of time must not be short.
fn write_all(server: SocketAddr, pages: u64, stable: StableHow) -> Result<Measured, LoadError> {
    let all = blocks(pages * PAGE as u64, PAGE, Order::shuffled(pages));
    let limits = Limits { duration: Duration::from_secs(60), silence: Duration::from_secs(20) };
    run(server, SHAPE, limits, &mut Writes::new(all, stable, SLOTS, &credential(0, 0)))
}

#[test]
fn what_is_overwritten_reads_back_and_every_page_was_written_once() {
    let (server, state) = serve(Fault::None);
    let written = write_all(server, 100, StableHow::Unstable).unwrap();
    assert_eq!((written.ops, written.calls), (100, 101), "and one COMMIT at the end");
    {
        let state = state.lock().unwrap();
        assert_eq!(state.pages.len(), 100);
        assert_eq!(state.written_since_commit, 0);
        let mut pages: Vec<_> = state.pages.values().collect();
        pages.sort_unstable();
        pages.dedup();
        assert_eq!(pages.len(), 100, "no two writes are alike");
    }
    let again = blocks(100 * PAGE as u64, PAGE, Order::Sequential { next: 0, again: false });
    let read = go(server, &mut Reads::new(again, SLOTS, &credential(0, 0))).unwrap();
    assert_eq!(read.ops, 100);
}

#[test]
fn unstable_data_are_committed_each_64_mib() {
    let (server, state) = serve(Fault::None);
    let size = 1 << 20;
    let all = blocks(150 << 20, size, Order::Sequential { next: 0, again: false });
    let limits = Limits { duration: Duration::from_secs(60), silence: Duration::from_secs(20) };
    let mut writes = Writes::new(all, StableHow::Unstable, SLOTS, &credential(0, 0));
    // One connection, which the server takes in order: on others WRITEs could overtake the COMMIT.
    let shape = Shape { connections: 1, per_connection: SLOTS };
    assert_eq!(run(server, shape, limits, &mut writes).unwrap().ops, 150);
    let state = state.lock().unwrap();
    assert_eq!(state.calls[&(Proc::Commit as u32)], 3);
    // Those in flight when the bound was passed.
    assert!(state.most_uncommitted <= COMMIT_EACH + (SLOTS * size) as u64);
}

#[test]
fn stable_writes_need_no_commit() {
    let (server, state) = serve(Fault::None);
    assert_eq!(write_all(server, 20, StableHow::FileSync).unwrap().calls, 20);
    assert!(!state.lock().unwrap().calls.contains_key(&(Proc::Commit as u32)));
}

#[test]
fn a_server_that_misbehaves_fails_the_run() {
    for (fault, stable, says) in [
        (Fault::Verifier, StableHow::Unstable, "lost data"),
        (Fault::Unstable, StableHow::FileSync, "stable_how 0"),
        (Fault::Short, StableHow::FileSync, "4095 bytes"),
    ] {
        let error = write_all(serve(fault).0, 20, stable).unwrap_err();
        assert!(error.to_string().contains(says), "{fault:?}: {error}");
    }
    for (fault, says) in [(Fault::Bytes, "other bytes"), (Fault::Short, "4095 bytes")] {
        let (server, state) = serve(fault);
        let data = content(&noise(PAGE), 0, PAGE);
        state.lock().unwrap().pages.insert(0, data);
        let reads = blocks(PAGE as u64, PAGE, Order::random());
        let error = go(server, &mut Reads::new(reads, SLOTS, &credential(0, 0))).unwrap_err();
        assert!(error.to_string().contains(says), "{fault:?}: {error}");
    }
}

#[test]
fn names_are_created_renamed_and_removed() {
    let (server, state) = serve(Fault::None);
    let auth = credential(0, 0);
    let mut create = Names::create(handle(1), &auth);
    let made = go(server, &mut create).unwrap().ops;
    assert_eq!(made, create.used());
    assert_eq!(state.lock().unwrap().names.len() as u64, made);
    // Creating them again finds them there.
    let error = go(server, &mut Names::create(handle(1), &auth)).unwrap_err();
    assert!(error.to_string().contains("CREATE: Exist"), "{error}");
    let limits = Limits { duration: Duration::from_secs(60), silence: Duration::from_secs(20) };
    let removed = run(server, SHAPE, limits, &mut Names::remove(handle(1), made, &auth)).unwrap();
    assert_eq!(removed.ops, made);
    assert!(state.lock().unwrap().names.is_empty());

    for slot in 0..SLOTS {
        state.lock().unwrap().names.insert(Renames::first_name(slot).into_bytes(), slot as u64);
    }
    assert!(go(server, &mut Renames::new(handle(1), SLOTS, &auth)).unwrap().ops > 0);
    assert_eq!(state.lock().unwrap().names.len(), SLOTS);

    let (server, state) = serve(Fault::None);
    let made = go(server, &mut Names::mkdir(handle(2), &auth)).unwrap().ops;
    assert_eq!(state.lock().unwrap().names.len() as u64, made);
}

#[test]
fn a_listing_counts_entries_and_misses_none() {
    let auth = credential(0, 0);
    let server = serve(Fault::None).0;
    let measured = go(server, &mut Listing::new(handle(1), DIRECTORY - 1, SLOTS, &auth)).unwrap();
    // Four calls list it; the first has nine entries that count.
    assert!(measured.ops >= 9 && measured.latency.count() == measured.calls);
    let error = go(serve(Fault::Short).0, &mut Listing::new(handle(1), DIRECTORY - 1, SLOTS, &auth));
    assert!(error.unwrap_err().to_string().contains("33 entries of 34"));
}

#[test]
fn a_small_file_is_three_calls_and_one_operation() {
    let (server, state) = serve(Fault::None);
    let measured = go(server, &mut SmallFiles::new(handle(1), SLOTS, &credential(0, 0))).unwrap();
    assert_eq!(measured.calls, 3 * measured.ops);
    assert_eq!(measured.latency.count(), measured.ops);
    assert_eq!(state.lock().unwrap().names.len() as u64, measured.ops);
    let error = go(serve(Fault::Verifier).0, &mut SmallFiles::new(handle(1), SLOTS, &credential(0, 0)));
    assert!(error.unwrap_err().to_string().contains("lost data"));
}
