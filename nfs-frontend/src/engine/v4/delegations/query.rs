//! What others see of a file that its holder may have changed: CB_GETATTR (RFC 8881 §10.4.3, §20.1; RFC 9754 §5).
//!
//! The holder says size and change attribute. One that differs from what it was when the delegation was given means that it has changed the file, and
//! then the server's own moves on with each question, as it cannot tell whether there was another change since the last.

use super::Met;
use crate::engine::Engine;
use crate::engine::shield::shield;
use atoll_base::attr::Attr;
use atoll_base::block::BlockService;
use atoll_base::time::Timestamp;
use atoll_meta::delegation::{DelegationPhase, Intrusion};
use atoll_meta::nfs4::{ClientId, State, StateKind, StateOp};
use atoll_meta::{FsError, MetadataService, Op};
use atoll_proto::nfs4::callback::{CbArgOp4, CbGetAttr4Args, CbResOp4};
use atoll_proto::nfs4::{Attr4, AttrValue4, Bitmap, NfsTime4};
use std::time::Duration;
use tokio::time::timeout;

/// Time for the holder's answer. Then the delegation is recalled instead.
const ANSWER: Duration = Duration::from_millis(500);

/// Time after which a holder's connection counts as dead.
const GIVEN_UP: Duration = Duration::from_secs(10);

/// What a holder answers.
#[derive(Debug, Default)]
struct Told {
    change: Option<u64>,
    size: Option<u64>,
    accessed: Option<NfsTime4>,
    modified: Option<NfsTime4>,
}

fn time(wire: NfsTime4) -> Timestamp {
    Timestamp { secs: wire.seconds, nanos: wire.nseconds }
}

impl<M: MetadataService, B: BlockService> Engine<M, B> {
    /// A file's attributes as they are with what the holder of a write delegation has done. `Err` if that does not answer: it is to be recalled.
    pub(crate) async fn as_held(&self, attr: Attr, asking: Option<ClientId>) -> Result<Attr, Met> {
        let recall = Met::new(attr.ino, Intrusion::Read);
        let holders = self.in_the_way(attr.ino, Intrusion::Read, asking).await.map_err(|_| recall)?;
        let Some(holder) = holders.first() else { return Ok(attr) };
        let told = self.ask_holder(holder).await.ok_or(recall)?;
        // It may flush the file, which must not be left off half way.
        let (engine, holder) = (self.this.upgrade().ok_or(recall)?, holder.clone());
        shield(async move { engine.take_in(attr, &holder, &told).await }).await.map_err(|_| recall)
    }

    async fn ask_holder(&self, holder: &State) -> Option<Told> {
        // Who is to return it will say all by that.
        let StateKind::Delegation { timestamps, phase: DelegationPhase::Held, .. } = holder.kind else {
            return None;
        };
        let (_, fh) = self.names_of(holder)?;
        let mut asked = vec![Attr4::Change as u32, Attr4::Size as u32];
        if timestamps {
            asked.extend([Attr4::TimeDelegAccess as u32, Attr4::TimeDelegModify as u32]);
        }
        let op = CbArgOp4::GetAttr(CbGetAttr4Args { fh, attr_request: Bitmap::of(&asked) });
        // The call goes on when nobody waits for it any more: given up, its connection would count as dead.
        let (engine, client) = (self.this.upgrade()?, holder.client);
        let call = tokio::spawn(async move { engine.call_back(client, op, GIVEN_UP).await });
        let Ok(Ok(Ok(CbResOp4::GetAttr(Ok(answer))))) = timeout(ANSWER, call).await else { return None };
        let mut told = Told::default();
        for value in answer.obj_attributes.read().ok()? {
            match value {
                AttrValue4::Change(change) => told.change = Some(change),
                AttrValue4::Size(size) => told.size = Some(size),
                AttrValue4::TimeDelegAccess(time) if timestamps => told.accessed = Some(time),
                AttrValue4::TimeDelegModify(time) if timestamps => told.modified = Some(time),
                _ => {}
            }
        }
        told.change.is_some().then_some(told)
    }

    async fn take_in(&self, attr: Attr, holder: &State, told: &Told) -> Result<Attr, FsError> {
        let StateKind::Delegation { change, .. } = holder.kind else { return Ok(attr) };
        let longer = told.size.is_some_and(|size| size > attr.size);
        let modified = told.change.is_some_and(|told| told != change) || longer;
        let (atime, mtime) = (told.accessed.map(time), told.modified.map(time));
        let news = atime.is_some_and(|t| t > attr.atime) || mtime.is_some_and(|t| t > attr.mtime);
        if !modified && !news {
            return Ok(attr);
        }
        if news {
            let (client, delegation) = (holder.client, holder.stateid);
            self.alone(Op::State(StateOp::DelegatedTimes { client, delegation, atime, mtime })).await?;
        }
        if modified {
            // What is dirty here is shown ahead of the store: the two must not come to the same value.
            let _settled = self.settle(attr.ino).await;
            self.alone(Op::State(StateOp::HolderChanged(holder.stateid.id))).await?;
        }
        let mut now = self.attr(attr.ino).await?;
        if modified && let Some(size) = told.size {
            now.size = size;
        }
        Ok(now)
    }
}
