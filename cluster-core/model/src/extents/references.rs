//! Reference counts of blocks.
//!
//! A block's count is the number of rows that refer to it, dead ones included; at 0 its row moves to `Garbage`.
//! A block in there never comes back, because the collector may be deleting it: see [`check_new_blocks`].

use crate::kv::{KvWrite, Table};
use crate::record::Garbage;
use crate::transaction::{Step, Transaction, require};
use crate::{keys, store};
use atoll_base::block::BlockId;
use atoll_meta::{FsError, Piece, Source};
use std::collections::BTreeSet;

/// Requires that each block may be referenced: it is already, or it is new and was put by the caller's present life. One in
/// `Garbage` may be gone any moment, and one of an earlier life may have been collected: the writer must put it again under
/// a new id.
pub(crate) fn check_new_blocks<K: KvWrite>(t: &Transaction<'_, K>, pieces: &[Piece]) -> Step<()> {
    let mut seen = BTreeSet::new();
    for piece in pieces {
        let Source::Block { id, .. } = piece.source else { continue };
        if !seen.insert(id) || store::has(t.kv, Table::Block, &keys::block(id))? {
            continue;
        }
        require(!store::has(t.kv, Table::Garbage, &keys::block(id))?, FsError::Conflict)?;
        require(t.origin.is_none_or(|o| o.epoch == id.epoch()), FsError::Conflict)?;
    }
    Ok(())
}

pub(super) fn reference<K: KvWrite>(t: &mut Transaction<'_, K>, id: BlockId) -> Step<()> {
    let refs = store::block_refs(t.kv, id)? + 1;
    Ok(t.kv.put(Table::Block, &keys::block(id), &refs.to_be_bytes())?)
}

pub(super) fn unreference<K: KvWrite>(t: &mut Transaction<'_, K>, id: BlockId) -> Step<()> {
    let key = keys::block(id);
    match store::block_refs(t.kv, id)? {
        0 => panic!("block {id:?} lost a reference it did not have"),
        1 => {
            t.kv.delete(Table::Block, &key)?;
            t.model.meta.garbage += 1;
            let garbage = Garbage { txn: t.txn, since: t.now };
            store::put(t.kv, Table::Garbage, &key, &garbage)?;
        }
        n => t.kv.put(Table::Block, &key, &(n - 1).to_be_bytes())?,
    }
    Ok(())
}

/// A reference on each block of the pieces that rows refer to already, while rows change: so that a block that is taken out
/// and put in by the same command does not become garbage in between.
pub(super) fn hold_blocks<K: KvWrite>(t: &mut Transaction<'_, K>, pieces: &[Piece]) -> Step<Vec<BlockId>> {
    let mut held = Vec::new();
    for id in pieces.iter().filter_map(block_of) {
        if store::has(t.kv, Table::Block, &keys::block(id))? {
            reference(t, id)?;
            held.push(id);
        }
    }
    Ok(held)
}

pub(super) fn let_go<K: KvWrite>(t: &mut Transaction<'_, K>, held: Vec<BlockId>) -> Step<()> {
    held.into_iter().try_for_each(|id| unreference(t, id))
}

pub(super) fn block_of(piece: &Piece) -> Option<BlockId> {
    match piece.source {
        Source::Inline(_) => None,
        Source::Block { id, .. } => Some(id),
    }
}
