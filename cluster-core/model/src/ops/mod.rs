//! The operations, one family per file.

pub(crate) mod attributes;
mod create;
mod data;
mod export;
mod lease;
pub(crate) mod link;
pub(crate) mod lock_clients;
pub(crate) mod locks;
pub(crate) mod names;
pub(crate) mod nfs4;
pub(crate) mod ranges;
mod sweep;
pub(crate) mod volume;
mod write;

use crate::kv::KvWrite;
use crate::transaction::{Step, Stop, Transaction};
use atoll_meta::{Op, Outcome};

/// Runs one operation.
pub(crate) fn run<K: KvWrite>(t: &mut Transaction<'_, K>, op: &Op) -> Step<Outcome> {
    match op {
        Op::SetAttr { ino, generation, set, guard } => attributes::set(t, *ino, *generation, set, *guard),
        Op::Create { dir, name, node, how, attrs } => create::create(t, *dir, name, node, *how, attrs),
        Op::Link { ino, generation, dir, name } => link::link(t, *ino, *generation, *dir, name),
        Op::Remove { dir, name, kind } => link::remove(t, *dir, name, *kind),
        Op::Rename { from_dir, from_name, to_dir, to_name } => {
            link::rename(t, (*from_dir, from_name), (*to_dir, to_name))
        }
        Op::BeginDirty { ino, generation } => lease::begin(t, *ino, *generation),
        Op::Write { ino, generation, pieces, flush } => {
            write::write(t, *ino, *generation, pieces, flush.as_ref())
        }
        Op::Repack { ino, offset, len, expect, pieces } => {
            write::repack(t, *ino, (*offset, *len), expect, pieces)
        }
        Op::Touch(times) => attributes::touch(t, times),
        Op::Lock(op) => locks::run(t, op),
        Op::SetXattr { ino, generation, name, value, how } => {
            attributes::set_xattr(t, *ino, *generation, name, value.as_ref(), *how)
        }
        Op::RegisterFrontend { frontend } => lease::register(t, *frontend),
        Op::DataLost { inos } => lease::data_lost(t, inos),
        Op::PutExport(spec) => export::put(t, spec),
        Op::RemoveExport(id) => export::remove(t, *id),
        Op::CreateVolume { name } => volume::create(t, name),
        Op::Collected(ids) => sweep::collected(t, ids),
        Op::Sweep => sweep::sweep(t),
        Op::Client(op) => nfs4::client(t, op).map(Outcome::Client),
        Op::State(op) => nfs4::state(t, op).map(Outcome::State),
        Op::Punch { ino, generation, offset, len } => ranges::punch(t, *ino, *generation, *offset, *len),
        Op::Extend { ino, generation, size } => ranges::extend(t, *ino, *generation, *size),
        Op::Clone { from, from_generation, from_offset, to, to_generation, to_offset, len, partial } => {
            let from = ranges::Place { ino: *from, generation: *from_generation, offset: *from_offset };
            let to = ranges::Place { ino: *to, generation: *to_generation, offset: *to_offset };
            ranges::clone(t, from, to, *len, *partial)
        }
        Op::Offload(op) => nfs4::offloads::run(t, op),
        Op::DataRefused => lease::data_refused(t),
        Op::Refused(error) => Err(Stop::Refused(*error)),
    }
}
