//! Taking in an UNSTABLE WRITE.

use super::file::{Admission, Lease, Write};
use super::ranges::SEGMENT_COST;
use super::room::Kind;
use super::table::Pin;
use crate::engine::{Engine, status};
use atoll_base::access::Cred;
use atoll_base::attr::Attr;
use atoll_base::block::BlockService;
use atoll_base::id::Ino;
use atoll_meta::nfs4::ClientId;
use atoll_meta::{Call, FsError, MetadataService, OnceKey, Op, Outcome, Response};
use bytes::Bytes;
use std::sync::Arc;

/// How often a lease is asked for on behalf of one write: once to have one, once more should it have ended or be for
/// an earlier life of the frontend, and some for luck against others that use up the ceilings.
const LEASE_ATTEMPTS: usize = 8;

/// What became of an UNSTABLE WRITE.
pub(crate) enum Taken {
    /// It is in the map, or was refused: the outcome.
    Settled(Arc<Response>),
    /// There can be no lease: write it through.
    WriteThrough,
}

/// An UNSTABLE WRITE that was decoded and admitted.
pub(crate) struct UnstableWrite<'a> {
    pub(crate) ino: Ino,
    pub(crate) generation: u32,
    pub(crate) cred: &'a Cred,
    /// The NFSv4 client, if known.
    pub(crate) client: Option<ClientId>,
    pub(crate) offset: u64,
    pub(crate) data: &'a Bytes,
    pub(crate) key: Option<OnceKey>,
}

fn refused(error: FsError, attr: Attr) -> Response {
    let change = atoll_meta::Change { before: attr.before(), after: attr };
    Response { result: Err(error), changes: vec![change] }
}

impl<M: MetadataService, B: BlockService> Engine<M, B> {
    /// Takes a write into the dirty map. `Err` if the metadata service could not be asked.
    pub(crate) async fn take_unstable(&self, write: UnstableWrite<'_>) -> Result<Taken, FsError> {
        let len = write.data.len() as u64;
        let claim_bytes = len + SEGMENT_COST + super::file::COVERED_COST;
        let mut claim = Some(self.budget.claim(claim_bytes).await);
        let file = self.dirty.pin(write.ino);
        let _room = file.room.enter(Kind::Unstable).await;
        if let Err(e) = self.blocks.reserve(len) {
            let error = status::of_blocks(&e);
            let attr = self.attr(write.ino).await;
            return Ok(Taken::Settled(Arc::new(match attr {
                Ok(attr) => refused(error, attr),
                Err(e) => Response::refused(e),
            })));
        }
        let mut reserved = Reserved { engine: self, bytes: len };
        let mut leased = false;
        for _ in 0..LEASE_ATTEMPTS {
            let accepted = {
                let mut state = file.state();
                // In this order, under the lock: whoever makes this life of the frontend end first stops `epoch`, then
                // moves the verifier, then forgets what is in the state.
                let verifier = self.meta.verifier();
                let now = self.meta.now();
                let Some(taken) = claim.take() else {
                    unreachable!("the claim is used up only by accepting")
                };
                let w = Write {
                    cred: write.cred,
                    client: write.client,
                    offset: write.offset,
                    data: write.data,
                    key: write.key,
                    verifier,
                    now,
                    epoch: self.epoch(),
                    leased,
                };
                match state.accept(&w, taken) {
                    Ok(response) => {
                        reserved.bytes = 0;
                        if let Some(key) = write.key {
                            self.dirty.remember(key, response.clone());
                        }
                        Ok((response, state.is_time_to_look(self.config.early_bytes)))
                    }
                    Err((admission, back)) => {
                        claim = Some(back);
                        Err(admission)
                    }
                }
            };
            let admission = match accepted {
                Ok((response, look)) => {
                    if look && let Some(engine) = self.this.upgrade() {
                        let file = self.dirty.pin(write.ino);
                        tokio::spawn(async move { engine.flush_early(&file).await });
                    }
                    return Ok(Taken::Settled(response));
                }
                Err(admission) => admission,
            };
            match admission {
                Admission::Refused(error, attr) => {
                    return Ok(Taken::Settled(Arc::new(refused(error, *attr))));
                }
                Admission::NeedsLease => {
                    let before = file.state().lease();
                    let _asking = file.leasing.lock().await;
                    // Whoever asked before may have brought what is needed, unless bits are to be cleared for us.
                    if file.state().lease() != before {
                        continue;
                    }
                    match self.begin_dirty(&file, &write).await? {
                        Leasing::Granted => leased = true,
                        // No more leases for this frontend, or another frontend writes the file too.
                        Leasing::Refused(FsError::TableFull | FsError::Conflict, _) => {
                            return Ok(Taken::WriteThrough);
                        }
                        Leasing::Refused(_, response) => return Ok(Taken::Settled(response)),
                    }
                }
            }
        }
        Err(FsError::Delay)
    }

    async fn begin_dirty(&self, file: &Pin, write: &UnstableWrite<'_>) -> Result<Leasing, FsError> {
        let op = Op::BeginDirty { ino: write.ino, generation: write.generation };
        let origin = self.origin().await;
        let call =
            Call { origin: Some(origin), once: None, cred: write.cred.clone(), client: write.client, op };
        let response = self.execute_repeatable(Box::new(call), &mut false).await?;
        match response.result {
            Ok(Outcome::Dirty { change_ceiling, ctime_ceiling }) => {
                let base = response.change_of(write.ino).expect("BeginDirty tells the file's attributes");
                let lease = Lease { epoch: origin.epoch, change_ceiling, ctime_ceiling };
                let new = file.state().grant(lease, base.after.clone(), write.client);
                if new {
                    self.dirty.lease_began();
                }
                Ok(Leasing::Granted)
            }
            Ok(other) => unreachable!("BeginDirty answered with {other:?}"),
            Err(e) => Ok(Leasing::Refused(e, Arc::new(response))),
        }
    }
}

enum Leasing {
    Granted,
    Refused(FsError, Arc<Response>),
}

/// Room reserved in the block store, given back unless it was passed on to the file's state.
struct Reserved<'a, M: MetadataService, B: BlockService> {
    engine: &'a Engine<M, B>,
    bytes: u64,
}

impl<M: MetadataService, B: BlockService> Drop for Reserved<'_, M, B> {
    fn drop(&mut self) {
        if self.bytes > 0 {
            self.engine.blocks.release(self.bytes);
        }
    }
}
