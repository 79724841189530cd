//! Layers against a plain map: batches, freezing and flushing in any order, and views kept over all of it.

use super::super::base::{self, Base, open_file, transact};
use super::super::front::{Front, Frozen, View};
use super::super::layer::{Layer, Value};
use super::super::reader::StateWriter;
use super::super::values::{VALUE_MIN, Values, Writer};
use super::*;
use atoll_base::disk::Open;
use atoll_model::kv::MemKv;
use proptest::prelude::*;
use redb::{Database, Durability};

/// What the store does around the layers, step by step.
struct Rig {
    front: Arc<Front>,
    db: Arc<Database>,
    values: Arc<Values>,
    writer: Writer,
    frozen: Option<Frozen>,
    live: Vec<u64>,
    batches: u64,
}

impl Rig {
    fn new() -> Self {
        let disk = SimDisk::new();
        let db = open_file(&disk, Path::new("state"), Open::CreateNew, SIZES.cache_bytes, None).unwrap();
        base::sync(&db).unwrap();
        let values = Values::open(&disk, Path::new("")).unwrap();
        let base = Base::open(&db, values.pin()).unwrap();
        let place = base.place().unwrap();
        let writer = Writer::new(values.clone(), base.slot_rows().unwrap()).unwrap();
        Self {
            front: Front::new(base, place),
            db,
            values,
            writer,
            frozen: None,
            live: Vec::new(),
            batches: 0,
        }
    }

    fn batch(&mut self, finishes: bool, f: impl FnOnce(&mut StateWriter<'_>)) {
        let (reader, place) = self.front.begin(&mut self.live);
        let mut writer = StateWriter { reader, place, live: &self.live, finished: false };
        f(&mut writer);
        if finishes {
            self.batches += 1;
            writer.set_applied(log_id(self.batches));
            writer.finished = true;
            self.front.finish(writer.place.clone());
        }
    }

    fn freeze(&mut self) {
        if self.frozen.is_none() {
            self.frozen = self.front.freeze();
        }
    }

    fn flush(&mut self) {
        let Some(frozen) = self.frozen.take() else { return };
        self.writer.begin(false).unwrap();
        transact(&self.db, Some(&mut self.writer), Durability::Immediate, |rows| {
            frozen.layer.write_to(rows)?;
            rows.set_place(&frozen.place)
        })
        .unwrap();
        self.front.flushed(&frozen, Base::open(&self.db, self.values.pin()).unwrap());
    }
}

/// A key: few, so that they meet; short ones, long ones, and one on each side of the border.
fn key() -> impl Strategy<Value = Vec<u8>> {
    let digits = prop::collection::vec(prop::sample::select(vec![0u8, 1, 7, 255]), 0..4);
    (prop::sample::select(vec![0usize, 28, 40]), digits).prop_map(|(pad, mut key)| {
        key.splice(0..0, std::iter::repeat_n(9, pad));
        key
    })
}

fn table() -> impl Strategy<Value = Table> {
    prop::sample::select(vec![Table::Meta, Table::Inode, Table::Repack])
}

fn bound() -> impl Strategy<Value = Bound<Vec<u8>>> {
    prop_oneof![
        2 => Just(Bound::Unbounded),
        3 => key().prop_map(Bound::Included),
        3 => key().prop_map(Bound::Excluded),
        1 => (0u16..300).prop_map(|n| Bound::Excluded(row(n))),
    ]
}

/// What is written as `byte`: little, or so much that it takes a place beside redb's file.
fn bytes(byte: u8) -> Vec<u8> {
    let len = if byte.is_multiple_of(4) { VALUE_MIN + 30 * usize::from(byte) } else { 3 };
    vec![byte; len]
}

/// One key of many in order.
fn row(n: u16) -> Vec<u8> {
    [&[5], n.to_be_bytes().as_slice()].concat()
}

/// What to ask of a view.
#[derive(Clone, Debug)]
struct Question {
    table: Table,
    key: Vec<u8>,
    from: Bound<Vec<u8>>,
    to: Bound<Vec<u8>>,
    /// Pairs after which a scan is left.
    pairs: usize,
}

fn question() -> impl Strategy<Value = Question> {
    let pairs = prop_oneof![Just(1usize), 1usize..30, Just(usize::MAX)];
    (table(), key(), bound(), bound(), pairs).prop_map(|(table, key, from, to, pairs)| Question {
        table,
        key,
        from,
        to,
        pairs,
    })
}

/// Everything that the answers to a question say.
type Pairs = Vec<(Vec<u8>, Vec<u8>)>;

fn ask(kv: &impl KvRead, q: &Question) -> (Option<Vec<u8>>, Pairs, Pairs) {
    let value = kv.get(q.table, &q.key, |v| v.map(<[u8]>::to_vec)).unwrap();
    let (from, to) = (q.from.as_ref().map(Vec::as_slice), q.to.as_ref().map(Vec::as_slice));
    let collect = |pairs: &mut Pairs, key: &[u8], value: &[u8]| {
        pairs.push((key.to_vec(), value.to_vec()));
        if pairs.len() < q.pairs { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
    };
    let (mut there, mut back) = (Vec::new(), Vec::new());
    let mut keys = Vec::new();
    let every = |key: &[u8]| {
        keys.push(key.to_vec());
        if keys.len() < q.pairs { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
    };
    kv.keys(q.table, from, to, every).unwrap();
    kv.scan(q.table, from, to, |k, v| collect(&mut there, k, v)).unwrap();
    kv.scan_back(q.table, from, to, |k, v| collect(&mut back, k, v)).unwrap();
    assert!(keys.iter().eq(there.iter().map(|(key, _)| key)));
    (value, there, back)
}

/// The plain map does not like ranges that end before they begin.
fn is_proper(q: &Question) -> bool {
    match (&q.from, &q.to) {
        (Bound::Excluded(a), Bound::Excluded(b)) => a < b,
        (Bound::Included(a) | Bound::Excluded(a), Bound::Included(b) | Bound::Excluded(b)) => a <= b,
        _ => true,
    }
}

fn agree(kv: &impl KvRead, model: &MemKv, q: &Question) -> Result<(), TestCaseError> {
    if is_proper(q) {
        prop_assert_eq!(ask(kv, q), ask(model, q));
    } else {
        let found = ask(kv, q);
        prop_assert!(found.1.is_empty() && found.2.is_empty());
    }
    Ok(())
}

#[derive(Clone, Debug)]
enum Step {
    Batch {
        writes: Vec<(Table, Vec<u8>, Option<u8>)>,
        finishes: bool,
        ask: Question,
    },
    /// Many keys in a row, or none of them any more.
    Fill {
        table: Table,
        rows: std::ops::Range<u16>,
        delete: bool,
    },
    Take,
    Drop(prop::sample::Index),
    Refresh(prop::sample::Index),
    Freeze,
    Flush,
    Ask(Question),
}

fn step() -> impl Strategy<Value = Step> {
    let write = (table(), key(), prop::option::weighted(0.7, any::<u8>()));
    let batch = (prop::collection::vec(write, 1..12), prop::bool::weighted(0.85), question());
    let fill = (table(), 0u16..250, 1u16..250, prop::bool::weighted(0.3));
    prop_oneof![
        6 => batch.prop_map(|(writes, finishes, ask)| Step::Batch { writes, finishes, ask }),
        1 => fill.prop_map(|(table, from, n, delete)| Step::Fill { table, rows: from..from + n, delete }),
        3 => Just(Step::Take),
        1 => any::<prop::sample::Index>().prop_map(Step::Drop),
        1 => any::<prop::sample::Index>().prop_map(Step::Refresh),
        1 => Just(Step::Freeze),
        1 => Just(Step::Flush),
        4 => question().prop_map(Step::Ask),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, ..ProptestConfig::default() })]

    #[test]
    fn every_view_goes_on_giving_what_it_gave(steps in prop::collection::vec(step(), 1..60)) {
        let mut rig = Rig::new();
        let mut now = MemKv::default();
        let mut views: Vec<(View, MemKv)> = Vec::new();
        for step in steps {
            match step {
                Step::Batch { writes, finishes, ask } => {
                    let mut after = now.clone();
                    let mut agreed = Ok(());
                    rig.batch(finishes, |state| {
                        for (table, key, value) in writes {
                            match value {
                                // As the model does it: some that are new are said to be.
                                Some(byte) if byte % 4 != 0 && after.get(table, &key, |v| v.is_none()).unwrap() => {
                                    state.put_new(table, &key, &[byte; 3]).unwrap();
                                    after.put_new(table, &key, &[byte; 3]).unwrap();
                                }
                                Some(byte) => {
                                    state.put(table, &key, &bytes(byte)).unwrap();
                                    after.put(table, &key, &bytes(byte)).unwrap();
                                }
                                None => {
                                    state.delete(table, &key).unwrap();
                                    after.delete(table, &key).unwrap();
                                }
                            }
                        }
                        // It sees what it wrote itself.
                        agreed = agree(state, &after, &ask);
                    });
                    agreed?;
                    if finishes {
                        now = after;
                    }
                    agree(rig.front.view().reader(), &now, &ask)?;
                }
                Step::Fill { table, rows, delete } => rig.batch(true, |state| {
                    for n in rows {
                        if delete {
                            state.delete(table, &row(n)).unwrap();
                            now.delete(table, &row(n)).unwrap();
                        } else {
                            state.put(table, &row(n), &[1]).unwrap();
                            now.put(table, &row(n), &[1]).unwrap();
                        }
                    }
                }),
                Step::Take => views.push((rig.front.view(), now.clone())),
                Step::Drop(at) => if !views.is_empty() {
                    views.swap_remove(at.index(views.len()));
                },
                Step::Refresh(at) => if !views.is_empty() {
                    let at = at.index(views.len());
                    let view = &mut views[at].0;
                    if let Some(refreshed) = view.refreshed() {
                        prop_assert_eq!(refreshed.applied(), view.applied());
                        *view = refreshed;
                    }
                },
                Step::Freeze => rig.freeze(),
                Step::Flush => rig.flush(),
                Step::Ask(q) => for (view, then) in &views {
                    agree(view.reader(), then, &q)?;
                },
            }
        }
        for (view, then) in &views {
            for table in [Table::Meta, Table::Inode, Table::Repack] {
                let all = Question {
                    table, key: Vec::new(), from: Bound::Unbounded, to: Bound::Unbounded, pairs: usize::MAX,
                };
                agree(view.reader(), then, &all)?;
            }
        }
    }
}

/// A rig whose batch `i` sets one key to `i`.
fn hot(rig: &mut Rig, batches: u64) {
    for _ in 0..batches {
        let next = (rig.batches + 1).to_be_bytes();
        rig.batch(true, |state| state.put(Table::Inode, b"hot", &next).unwrap());
    }
}

fn value(view: &View) -> u64 {
    view.reader().get(Table::Inode, b"hot", |v| number(v.unwrap())).unwrap()
}

#[test]
fn a_hot_key_keeps_only_versions_that_are_read() {
    let mut rig = Rig::new();
    hot(&mut rig, 3);
    let few = rig.front.active_bytes();
    hot(&mut rig, 1000);
    assert_eq!(rig.front.active_bytes(), few);
    let views: Vec<_> = (0..3)
        .map(|_| {
            hot(&mut rig, 10);
            rig.front.view()
        })
        .collect();
    hot(&mut rig, 1000);
    let some = rig.front.active_bytes();
    assert!(some > few);
    let seen: Vec<_> = views.iter().map(value).collect();
    assert_eq!(seen, [1013, 1023, 1033]);
    drop(views);
    hot(&mut rig, 2);
    assert_eq!(rig.front.active_bytes(), few);
}

#[test]
fn a_batch_taken_back_gives_its_memory_back() {
    let layer = Layer::default();
    layer.put(Table::Inode, b"a", 1, Value::Copied(b"before"[..].into()), &[]);
    let bytes = layer.bytes();
    layer.put(Table::Inode, b"a", 2, Value::Copied(b"after, and longer"[..].into()), &[1]);
    layer.put(Table::Inode, b"a", 2, Value::Deleted, &[1]);
    layer.put(Table::Inode, &[7; 100], 2, Value::Copied(b"new"[..].into()), &[1]);
    assert!(layer.bytes() > bytes);
    layer.take_back(2);
    assert_eq!(layer.bytes(), bytes);
    assert_eq!(layer.get(Table::Inode, b"a", 9).unwrap().bytes(), Some(b"before".as_slice()));
    assert!(layer.get(Table::Inode, &[7; 100], 9).is_none());
}

#[test]
fn a_refreshed_view_lets_go_of_what_was_flushed() {
    let mut rig = Rig::new();
    hot(&mut rig, 5);
    let old = rig.front.view();
    hot(&mut rig, 1);
    let newest = rig.front.view();
    rig.freeze();
    assert!(newest.refreshed().is_none(), "nothing is flushed yet");
    let layer = Arc::downgrade(&rig.frozen.as_ref().unwrap().layer);
    rig.flush();
    assert!(old.refreshed().is_none(), "the file tells a later state");
    drop(old);
    let refreshed = newest.refreshed().unwrap();
    drop(newest);
    assert!(layer.upgrade().is_none(), "somebody holds the layer");
    assert!(refreshed.refreshed().is_none());
    hot(&mut rig, 3);
    assert_eq!(value(&refreshed), 6);
}

/// What was new and is deleted takes no memory once nobody can ask for it, and no look into the file.
#[test]
fn what_came_and_went_leaves_nothing() {
    let mut rig = Rig::new();
    rig.batch(true, |state| state.put(Table::Inode, b"stays", b"here").unwrap());
    let bytes = rig.front.active_bytes();
    rig.batch(true, |state| state.put_new(Table::State, b"open", b"held").unwrap());
    let view = rig.front.view();
    rig.batch(true, |state| state.delete(Table::State, b"open").unwrap());
    rig.batch(true, |_| {});
    let held = |view: &View| view.reader().get(Table::State, b"open", |v| v.is_some()).unwrap();
    assert!(held(&view), "a view from before the deletion still has it");
    assert!(rig.front.active_bytes() > bytes);
    drop(view);
    rig.batch(true, |_| {});
    assert_eq!(rig.front.active_bytes(), bytes);
    assert!(!held(&rig.front.view()));
}
