//! Two members that apply the same commands, one of them reloaded now and then, with blocks that are a map.

use crate::kv::KvError;
use crate::limits::XATTR_COMPARED_MAX;
use crate::{
    Applied, Command, KvRead, KvWrite, MemKv, Model, Table, check, decode_response, encode_response, read,
};
use atoll_base::access::Cred;
use atoll_base::attr::{Attr, SetAttr};
use atoll_base::block::BlockId;
use atoll_base::id::{Cookie, Epoch, FrontendId, Ino};
use atoll_base::time::Timestamp;
use atoll_meta::{
    Call, CreateHow, Extent, FsError, NewNode, OnceKey, Op, Origin, Outcome, Piece, Response, Source,
};
use bytes::Bytes;
use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::ops::{Bound, ControlFlow};

pub(super) const ROOT: Ino = Ino(1);

pub(super) fn at(nanos: i128) -> Timestamp {
    Timestamp::from_nanos(1_000_000_000_000 + nanos)
}

pub(super) fn user(uid: u32) -> Cred {
    Cred::new(uid, uid + 100, vec![7])
}

pub(super) fn key(xid: u32) -> OnceKey {
    OnceKey { client: [1; 16], xid, fingerprint: 9 }
}

/// All rows of a table.
pub(super) fn rows_of(kv: &MemKv, table: Table) -> Vec<(Vec<u8>, Vec<u8>)> {
    let mut rows = Vec::new();
    kv.scan(table, Bound::Unbounded, Bound::Unbounded, |key, value| {
        rows.push((key.to_vec(), value.to_vec()));
        ControlFlow::Continue(())
    })
    .unwrap();
    rows
}

/// Rows of the file system's bytes that were read.
type Bytewise = BTreeSet<(Table, Vec<u8>)>;

/// A store that notes which of those it held before are read.
pub(super) struct Watched {
    kv: MemKv,
    /// One of how many rows with bytes of files cannot be read, if not all can, and by what number it goes.
    rots: Option<(u64, u64)>,
    /// What becomes of the next reads of such rows, the last first.
    failing: RefCell<Vec<KvError>>,
    read: RefCell<Bytewise>,
    written: Bytewise,
}

impl Watched {
    /// Runs `f` with the store in this place, and says which rows were read.
    fn during<R>(kv: &mut MemKv, f: impl FnOnce(&mut Self) -> R) -> (R, Bytewise) {
        let mut watched = Self {
            kv: std::mem::take(kv),
            rots: None,
            failing: RefCell::default(),
            read: RefCell::default(),
            written: BTreeSet::new(),
        };
        let result = f(&mut watched);
        *kv = watched.kv;
        (result, watched.read.into_inner())
    }

    fn is_rotten(&self, table: Table, key: &[u8]) -> bool {
        let sum =
            |salt: u64| key.iter().fold(salt, |sum, byte| (sum ^ u64::from(*byte)).wrapping_mul(0x0100_0193));
        !self.written.contains(&(table, key.to_vec()))
            && self.rots.is_some_and(|(one_of, salt)| sum(salt).is_multiple_of(one_of))
    }

    fn note(&self, table: Table, key: &[u8]) {
        let row = (table, key.to_vec());
        if matches!(table, Table::Inline | Table::Xattr | Table::Symlink) && !self.written.contains(&row) {
            self.read.borrow_mut().insert(row);
        }
    }
}

impl KvRead for Watched {
    fn get<R>(&self, table: Table, key: &[u8], f: impl FnOnce(Option<&[u8]>) -> R) -> Result<R, KvError> {
        if self.kv.get(table, key, |value| value.is_some())? {
            self.note(table, key);
            let rots = match table {
                Table::Inline => true,
                // What is compared is kept where nothing is found damaged.
                Table::Xattr => self.kv.value_len(table, key)?.is_some_and(|len| len > XATTR_COMPARED_MAX),
                _ => false,
            };
            if rots && self.is_rotten(table, key) {
                return Err(KvError::Damaged("rotten".into()));
            }
            if table == Table::Inline
                && let Some(error) = self.failing.borrow_mut().pop()
            {
                return Err(error);
            }
        }
        self.kv.get(table, key, f)
    }

    fn value_len(&self, table: Table, key: &[u8]) -> Result<Option<usize>, KvError> {
        self.kv.value_len(table, key)
    }

    fn walk(
        &self,
        table: Table,
        bounds: (Bound<&[u8]>, Bound<&[u8]>),
        back: bool,
        mut f: impl FnMut(&[u8], &[u8]) -> ControlFlow<()>,
    ) -> Result<(), KvError> {
        self.kv.walk(table, bounds, back, |key, value| {
            self.note(table, key);
            f(key, value)
        })
    }

    fn keys(
        &self,
        table: Table,
        from: Bound<&[u8]>,
        to: Bound<&[u8]>,
        f: impl FnMut(&[u8]) -> ControlFlow<()>,
    ) -> Result<(), KvError> {
        self.kv.keys(table, from, to, f)
    }
}

impl KvWrite for Watched {
    fn put(&mut self, table: Table, key: &[u8], value: &[u8]) -> Result<(), KvError> {
        self.written.insert((table, key.to_vec()));
        self.kv.put(table, key, value)
    }

    fn put_new(&mut self, table: Table, key: &[u8], value: &[u8]) -> Result<(), KvError> {
        self.written.insert((table, key.to_vec()));
        self.kv.put_new(table, key, value)
    }

    fn delete(&mut self, table: Table, key: &[u8]) -> Result<(), KvError> {
        self.written.insert((table, key.to_vec()));
        self.kv.delete(table, key)
    }
}

/// What is said before a call of the bytes that it needs.
struct NeededBytes {
    any: bool,
    rows: Bytewise,
}

impl NeededBytes {
    fn of(kv: &mut MemKv, op: &Op) -> Self {
        let any = read::may_need_bytes(op, |ino| read::getattr(kv, ino).unwrap().ok());
        let (found, rows) = Watched::during(kv, |kv| read::needed(kv, op));
        found.unwrap();
        Self { any, rows }
    }

    /// The execution needed no others.
    fn check(&self, read: &Bytewise) {
        assert!(self.rows.is_superset(read), "{:?} were to be needed, {read:?} were", self.rows);
        assert!(self.any || read.is_empty(), "{read:?} were needed for what needs none");
    }
}

pub(super) struct Rig {
    pub(super) kv: MemKv,
    pub(super) model: Model,
    twin: (MemKv, Model),
    pub(super) txn: u64,
    pub(super) clock: i128,
    pub(super) blocks: BTreeMap<BlockId, Vec<u8>>,
    next_block: u64,
    /// One of how many rows with bytes of files the other member finds damaged when it needs them, if it does.
    pub(super) rots: Option<u64>,
    /// Of the last command.
    pub(super) applied: Option<Applied>,
}

impl Rig {
    pub(super) fn new() -> Self {
        let mut kv = MemKv::default();
        Model::bootstrap(&mut kv, [3; 16], at(0)).unwrap();
        let model = Model::load(&kv).unwrap();
        let twin = (kv.clone(), Model::load(&kv).unwrap());
        Self {
            kv,
            model,
            twin,
            txn: 0,
            clock: 0,
            blocks: BTreeMap::new(),
            next_block: 1,
            rots: None,
            applied: None,
        }
    }

    /// Applies a call on both members; they must agree.
    pub(super) fn call(&mut self, call: Call) -> Response {
        self.txn += 10;
        self.clock += 10;
        let command = Command { stamp: at(self.clock), call };
        let command = Command::decode(&command.encode()).unwrap();
        let before = NeededBytes::of(&mut self.kv, &command.call.op);
        let (model, txn) = (&mut self.model, self.txn);
        let (applied, read) = Watched::during(&mut self.kv, |kv| model.apply(kv, txn, &command));
        let applied = applied.unwrap();
        before.check(&read);
        self.model.end_batch(&mut self.kv).unwrap();
        if self.txn.is_multiple_of(30) {
            self.twin.1 = Model::load(&self.twin.0).unwrap();
        }
        let (kv, model) = &mut self.twin;
        let rots = self.rots;
        let (other, _) = Watched::during(kv, |kv| {
            kv.rots = rots.map(|one_of| (one_of, txn));
            model.apply(kv, txn, &command)
        });
        let mut other = other.unwrap();
        model.end_batch(kv).unwrap();
        other.touched.lost.clear();
        assert_eq!(applied, other, "two members answer differently");
        let response = applied.response.clone();
        assert_eq!(decode_response(&encode_response(&response)).unwrap(), response);
        self.applied = Some(applied);
        response
    }

    /// Looks at the state with the eyes of a member that finds one of so many rows of bytes damaged; `salt` tells which.
    pub(super) fn seen_rotten<R>(&self, one_of: u64, salt: u64, look: impl FnOnce(&Watched) -> R) -> R {
        let mut kv = self.kv.clone();
        let (seen, _) = Watched::during(&mut kv, |kv| {
            kv.rots = Some((one_of, salt));
            look(kv)
        });
        seen
    }

    /// What a third member would do whose first reads of bytes of files fail, the last of `failing` first: the losses it notes.
    pub(super) fn with_failing(&self, failing: Vec<KvError>, op: Op) -> Result<usize, KvError> {
        let mut kv = self.kv.clone();
        let mut model = Model::load(&kv)?;
        let call = Call { origin: None, once: None, cred: Cred::root(), client: None, op };
        let command = Command { stamp: at(self.clock), call };
        let (applied, _) = Watched::during(&mut kv, |kv| {
            kv.failing = RefCell::new(failing);
            model.apply(kv, self.txn + 1, &command)
        });
        applied.map(|applied| applied.touched.lost.len())
    }

    pub(super) fn op(&mut self, cred: &Cred, op: Op) -> Response {
        self.call(Call { origin: None, once: None, cred: cred.clone(), client: None, op })
    }

    pub(super) fn root(&mut self, op: Op) -> Result<Outcome, FsError> {
        self.op(&Cred::root(), op).result
    }

    pub(super) fn by(&mut self, origin: Origin, op: Op) -> Result<Outcome, FsError> {
        self.call(Call { origin: Some(origin), once: None, cred: Cred::root(), client: None, op }).result
    }

    /// Both members hold the same bytes, reloading changes nothing, and nothing is inconsistent.
    pub(super) fn check(&self) {
        let (mut own, mut other) = (self.kv.clone(), self.twin.0.clone());
        // Lost bytes are where the other member has them.
        for (key, lost) in rows_of(&other, Table::Extent).into_iter().filter(|(_, value)| value[1] == 2) {
            assert!(self.rots.is_some());
            own.get(Table::Extent, &key, |row| {
                let row = row.expect("a lost row is a row elsewhere");
                assert_eq!((row[1], &row[2..14]), (0, &lost[2..]), "it is another");
            })
            .unwrap();
            assert!(other.get(Table::Inline, &key, |bytes| bytes.is_none()).unwrap());
            for kv in [&mut own, &mut other] {
                kv.delete(Table::Extent, &key).unwrap();
                kv.delete(Table::Inline, &key).unwrap();
            }
        }
        assert_eq!(own, other, "two members hold different states");
        assert_eq!(Model::load(&self.kv).unwrap(), self.model, "a reloaded member differs");
        let mut referenced = Vec::new();
        let findings = check::check(&self.kv, &mut |id, end| referenced.push((id, end))).unwrap();
        assert_eq!(findings, []);
        for (id, end) in referenced {
            assert!(self.blocks[&id].len() >= end as usize, "{id:?} is referred to up to {end}");
            assert!(read::block_is_referenced(&self.kv, id).unwrap());
        }
    }

    /// The other member's rows of a file: where they begin, and whether their bytes are lost.
    pub(super) fn losses(&self, ino: Ino) -> Vec<(u64, bool)> {
        let rows = rows_of(&self.twin.0, Table::Extent)
            .into_iter()
            .filter(|(key, _)| key[..8] == ino.0.to_be_bytes());
        rows.map(|(key, value)| (u64::from_be_bytes(key[8..].try_into().unwrap()), value[1] == 2)).collect()
    }

    pub(super) fn outcome(&self, key: &OnceKey) -> Option<Response> {
        read::outcome(self.model.once_index(), key, || &self.kv).unwrap()
    }

    pub(super) fn attr(&self, ino: Ino) -> Attr {
        read::getattr(&self.kv, ino).unwrap().unwrap()
    }

    /// The bytes of a file.
    pub(super) fn content(&self, ino: Ino) -> Vec<u8> {
        let size = self.attr(ino).size;
        let mut bytes = vec![0; size as usize];
        let mut covered = vec![false; size as usize];
        let mut from = 0;
        while from < size {
            let map = read::map(&self.kv, ino, from, size - from).unwrap().unwrap();
            assert!(map.complete_to > from);
            let mut last = from;
            for Extent { piece, .. } in map.extents {
                assert!(piece.offset >= last && piece.end() <= map.complete_to, "extents overlap");
                last = piece.end();
                let data = match &piece.source {
                    Source::Inline(data) => data.to_vec(),
                    Source::Block { id, offset } => {
                        self.blocks[id][*offset as usize..][..piece.len as usize].to_vec()
                    }
                };
                bytes[piece.offset as usize..piece.end() as usize].copy_from_slice(&data);
                covered[piece.offset as usize..piece.end() as usize].fill(true);
            }
            from = map.complete_to;
        }
        let mut from = 0;
        while from < size {
            let stretch = read::stretch(&self.kv, ino, from).unwrap().unwrap();
            assert!(stretch.end > from && stretch.end <= size);
            assert!(covered[from as usize..stretch.end as usize].iter().all(|c| *c == stretch.data));
            from = stretch.end;
        }
        assert_eq!(read::stretch(&self.kv, ino, size + 1).unwrap().unwrap().end, size + 1);
        bytes
    }

    pub(super) fn names(&self, dir: Ino) -> Vec<(Bytes, Ino)> {
        let mut names = Vec::new();
        let mut after = Cookie(0);
        loop {
            let page = read::readdir(&self.kv, dir, after, 2, 1000, true).unwrap().unwrap();
            for entry in page.entries {
                assert!(entry.cookie > after);
                assert_eq!(entry.attr.unwrap().ino, entry.ino);
                after = entry.cookie;
                let found = read::lookup(&self.kv, dir, &entry.name).unwrap().unwrap();
                assert_eq!(found.child.unwrap().ino, entry.ino);
                names.push((entry.name, entry.ino));
            }
            if page.end {
                return names;
            }
        }
    }

    // ---- shorthands

    pub(super) fn make(&mut self, cred: &Cred, dir: Ino, name: &str, node: NewNode, mode: u32) -> Attr {
        let attrs = SetAttr { mode: Some(mode), ..SetAttr::default() };
        let op = Op::Create { dir, name: name.to_owned().into(), node, how: CreateHow::Guarded, attrs };
        match self.op(cred, op).result {
            Ok(Outcome::Created { attr, new: true }) => attr,
            other => panic!("{other:?}"),
        }
    }

    pub(super) fn file(&mut self, name: &str) -> Attr {
        self.make(&Cred::root(), ROOT, name, NewNode::Regular, 0o644)
    }

    pub(super) fn dir(&mut self, dir: Ino, name: &str) -> Ino {
        self.make(&Cred::root(), dir, name, NewNode::Directory, 0o755).ino
    }

    pub(super) fn inline(&self, offset: u64, bytes: &[u8]) -> Piece {
        let source = Source::Inline(Bytes::copy_from_slice(bytes));
        Piece { offset, len: bytes.len() as u32, source }
    }

    /// A piece in a new block, a few bytes into it.
    pub(super) fn block(&mut self, epoch: Epoch, offset: u64, bytes: &[u8]) -> Piece {
        let id = BlockId::new(epoch, self.next_block);
        self.next_block += 1;
        let mut block = vec![0xee; 3];
        block.extend_from_slice(bytes);
        self.blocks.insert(id, block);
        Piece { offset, len: bytes.len() as u32, source: Source::Block { id, offset: 3 } }
    }

    pub(super) fn write(&mut self, cred: &Cred, attr: &Attr, pieces: Vec<Piece>) -> Result<Outcome, FsError> {
        let op = Op::Write { ino: attr.ino, generation: attr.generation, pieces, flush: None };
        self.op(cred, op).result
    }

    pub(super) fn set(&mut self, cred: &Cred, attr: &Attr, set: SetAttr) -> Result<Outcome, FsError> {
        self.op(cred, Op::SetAttr { ino: attr.ino, generation: attr.generation, set, guard: None }).result
    }

    pub(super) fn register(&mut self, frontend: u32) -> Origin {
        let frontend = FrontendId(frontend);
        match self.root(Op::RegisterFrontend { frontend }) {
            Ok(Outcome::Registered { epoch, .. }) => Origin { frontend, epoch },
            other => panic!("{other:?}"),
        }
    }

    pub(super) fn begin(&mut self, origin: Origin, attr: &Attr) -> (u64, Timestamp) {
        match self.by(origin, Op::BeginDirty { ino: attr.ino, generation: attr.generation }) {
            Ok(Outcome::Dirty { change_ceiling, ctime_ceiling }) => (change_ceiling, ctime_ceiling),
            other => panic!("{other:?}"),
        }
    }

    /// Sweeps until nothing is left.
    pub(super) fn sweep(&mut self) -> usize {
        for step in 1.. {
            match self.root(Op::Sweep) {
                Ok(Outcome::More(true)) => assert!(read::has_work(&self.kv).unwrap()),
                Ok(Outcome::More(false)) => {
                    assert!(!read::has_work(&self.kv).unwrap());
                    return step;
                }
                other => panic!("{other:?}"),
            }
            assert!(step < 10_000, "sweeping does not end");
        }
        unreachable!()
    }
}
