//! Which change a client asks for next.

use crate::model::{Kind, Model, NodeId, Op, ROOT};
use bytes::Bytes;
use rand::Rng;
use rand::rngs::SmallRng;

/// Objects of one client, at most: every restart reads all of them.
const OBJECTS_MAX: usize = 14;
/// Bytes of one file, at most.
const FILE_MAX: u64 = 700_000;

/// What a load is made of.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Mix {
    /// Share of operations that write large data, in percent.
    pub(crate) large: u32,
    /// Share of operations that are COMMIT, in percent.
    pub(crate) commits: u32,
    /// Share of writes that are UNSTABLE, in percent.
    pub(crate) unstable: u32,
}

impl Default for Mix {
    fn default() -> Self {
        Self { large: 8, commits: 7, unstable: 50 }
    }
}

fn any<T: Copy>(rng: &mut SmallRng, of: &[T]) -> Option<T> {
    if of.is_empty() { None } else { Some(of[rng.random_range(0..of.len())]) }
}

fn data(rng: &mut SmallRng, len: usize) -> Bytes {
    let mut data = vec![0; len];
    rng.fill(&mut data[..]);
    data.into()
}

/// A change that succeeds if everything is as `model` says. `prefix` is the client's own in the shared root.
pub(crate) fn next(rng: &mut SmallRng, model: &mut Model, prefix: &str, mix: Mix) -> Op {
    loop {
        if let Some(op) = attempt(rng, model, prefix, mix) {
            return op;
        }
    }
}

fn attempt(rng: &mut SmallRng, model: &mut Model, prefix: &str, mix: Mix) -> Option<Op> {
    let of_kind = |model: &Model, f: fn(&Kind) -> bool| -> Vec<NodeId> {
        model.nodes.iter().filter(|(_, n)| f(&n.kind)).map(|(id, _)| *id).collect()
    };
    let dirs = of_kind(model, |k| matches!(k, Kind::Dir));
    let files = of_kind(model, |k| matches!(k, Kind::File(_)));
    let names: Vec<_> = model.names.iter().map(|((dir, name), node)| (*dir, name.clone(), *node)).collect();
    let is_dir = |model: &Model, node: NodeId| matches!(model.nodes[&node].kind, Kind::Dir);
    let room = model.nodes.len() < OBJECTS_MAX;
    // Now and then a name that is taken, for renames.
    let fresh_name = |rng: &mut SmallRng, dir: NodeId| {
        let number: u32 = rng.random_range(0..1_000_000);
        if dir == ROOT { format!("{prefix}{number}") } else { format!("n{number}") }
    };
    let dir = any(rng, &dirs)?;
    let name = fresh_name(rng, dir);
    if model.names.contains_key(&(dir, name.clone())) {
        return None;
    }
    let kind = rng.random_range(0..100);
    let after = mix.large + mix.commits;
    Some(match kind {
        k if k < mix.large => {
            let (node, len) = (any(rng, &files)?, rng.random_range(65_537..300_000));
            let offset = rng.random_range(0..=model.nodes[&node].content().now().len() as u64);
            if offset + len as u64 > FILE_MAX {
                return Some(Op::Truncate { node, size: rng.random_range(0..70_000) });
            }
            let stable = rng.random_range(0..100) >= mix.unstable;
            Op::Write { node, offset, data: data(rng, len), stable }
        }
        k if k < after => Op::Commit { node: any(rng, &files)? },
        k if k < after + 10 => {
            if !room {
                return None;
            }
            Op::Create { dir, name, node: model.fresh(), exclusive: rng.random_bool(0.4) }
        }
        k if k < after + 13 => {
            if !room || dirs.len() > 5 {
                return None;
            }
            Op::MakeDir { dir, name, node: model.fresh() }
        }
        k if k < after + 16 => {
            if !room {
                return None;
            }
            let text = format!("to/{}", rng.random_range(0..1_000_000));
            Op::SymLink { dir, name, node: model.fresh(), text }
        }
        k if k < after + 20 => Op::Link { node: any(rng, &files)?, dir, name },
        k if k < after + 28 => {
            let (dir, name, node) = names.get(rng.random_range(0..names.len().max(1)))?.clone();
            if is_dir(model, node) {
                if model.children(node).next().is_some() {
                    return None;
                }
                return Some(Op::RemoveDir { dir, name });
            }
            Op::Remove { dir, name }
        }
        k if k < after + 38 => {
            let (from_dir, from, node) = names.get(rng.random_range(0..names.len().max(1)))?.clone();
            let mut to = (dir, name);
            if rng.random_bool(0.4) {
                let (dir, name, target) = names[rng.random_range(0..names.len())].clone();
                let fits = match (is_dir(model, node), is_dir(model, target)) {
                    (true, true) => model.children(target).next().is_none(),
                    (false, false) => true,
                    _ => false,
                };
                if !fits {
                    return None;
                }
                to = (dir, name);
            }
            if is_dir(model, node) && model.is_within(to.0, node) {
                return None;
            }
            Op::Rename { from: (from_dir, from), to }
        }
        k if k < after + 43 => {
            let node = any(rng, &model.nodes.keys().copied().filter(|n| *n != ROOT).collect::<Vec<_>>())?;
            if matches!(model.nodes[&node].kind, Kind::Link(_)) {
                return None;
            }
            let bits = if is_dir(model, node) { 0o700 } else { 0o600 };
            Op::SetMode { node, mode: bits | rng.random_range(0..0o100) }
        }
        k if k < after + 48 => {
            let node = any(rng, &files)?;
            let len = model.nodes[&node].content().now().len() as u64;
            Op::Truncate { node, size: rng.random_range(0..=len + 5000) }
        }
        _ => {
            let node = any(rng, &files)?;
            let size = model.nodes[&node].content().now().len() as u64;
            let len = match rng.random_range(0..10) {
                0..7 => rng.random_range(1..3000),
                7..9 => 4096 * rng.random_range(1..4),
                _ => rng.random_range(10_000..60_000),
            };
            let offset = if rng.random_bool(0.5) { size } else { rng.random_range(0..=size + 3000) };
            if offset + len as u64 > FILE_MAX {
                return None;
            }
            let stable = rng.random_range(0..100) >= mix.unstable;
            Op::Write { node, offset, data: data(rng, len), stable }
        }
    })
}
