//! NFS version 4, minor versions 0, 1 and 2 (RFC 7530, RFC 8881, RFC 7862).
//!
//! # Where things are
//!
//! - [`compound`]: a COMPOUND in execution, and exactly once; `ops`: the operations; this file: their order and the frame around them;
//! - [`slots`]: sessions and slots; [`shares`]: how many slots each session may use; [`slot_recalls`]: getting some back; [`leases`]: who was heard when;
//! - [`delegations`]: who may do locally what others would have to be asked for;
//! - [`opening`], [`closing`]: CLOSEs that are answered before they are in the state;
//! - [`administration`]: what administrators see and do of clients;
//! - [`back`]: calls to clients; [`offers`]: locks that have become free for who waits;
//! - [`offloads`]: copies that go on behind their COPY; [`drivers`]: what these and others that work in the background have in common;
//! - [`pseudo`]: the tree that joins the exports; `attributes`, `acls`, `status`: what things are called on the wire.
//!
//! # The way of a COMPOUND
//!
//! It is decoded whole; what comes before an operation that does not decode is executed. In v4.1 SEQUENCE takes the slot, or finds that the
//! request was executed before. The operations run one after the other until one fails. A request that changes something is finished even if
//! the connection breaks; its reply stays in the slot, and what is needed to give it again in the replicated state.

mod acls;
pub(super) mod administration;
mod attributes;
mod back;
mod closing;
mod compound;
pub(crate) mod delegations;
pub(super) mod drivers;
mod execute;
mod expiry;
mod labels;
mod leases;
mod offers;
mod offloads;
mod opening;
mod ops;
mod pseudo;
pub(crate) mod shares;
mod slot_recalls;
mod slots;
mod status;

use super::shield::{Shield, shield};
use super::{Engine, once};
use crate::rpc::{Answer, Credential, RpcCall};
use atoll_base::block::BlockService;
use atoll_meta::MetadataService;
use atoll_meta::nfs4::ChannelLimits;
use atoll_proto::nfs4::{ArgOp4, CompoundCall, VERSION};
use atoll_xdr::Encoder;
use bytes::Bytes;
use compound::{Compound, Identity};
pub(crate) use ops::wire_stateid;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::sync::watch;
use xxhash_rust::xxh3::Xxh3;

/// Most operations of a COMPOUND: clients in use stay below 20.
pub(crate) const OPERATIONS_MAX: u32 = 64;

/// Longest request and reply: 1 MiB of data, and what stands around it.
const MESSAGE_MAX: u32 = (1 << 20) + (64 << 10);

/// Least size of a request or reply that a session can work with: that of SEQUENCE and a little more.
pub(crate) const REQUEST_MIN: u32 = 256;

/// What is offered for requests of clients.
pub(crate) const FORE: ChannelLimits = ChannelLimits {
    header_pad: 0,
    max_request: MESSAGE_MAX,
    max_response: MESSAGE_MAX,
    // Replies to requests that change something are some hundred bytes long.
    max_response_cached: 8 << 10,
    max_operations: OPERATIONS_MAX,
    // As many as Linux asks for; memory of a slot: its last reply.
    max_requests: 64,
};

/// What is offered for callbacks.
pub(crate) const BACK: ChannelLimits = ChannelLimits {
    header_pad: 0,
    max_request: 4 << 10,
    // Linux refuses a session that lowers its own offer, a page.
    max_response: 64 << 10,
    max_response_cached: 4 << 10,
    max_operations: 8,
    max_requests: 16,
};

/// What an engine keeps for version 4.
#[derive(Debug)]
pub(crate) struct State {
    pub(crate) leases: leases::Leases,
    pub(crate) sessions: slots::Sessions,
    pub(crate) joints: pseudo::Cache,
    /// OPENs of each client that are being executed.
    pub(crate) opening: opening::Opening,
    /// Opens of which a CLOSE was answered early.
    pub(crate) closing: closing::Closing,
    pub(crate) offers: offers::Offers,
    pub(crate) delegations: delegations::Delegations,
    /// Closed with the engine, which ends its [`drivers`].
    end: watch::Sender<()>,
    /// `so_major_id` and server scope: the same at every frontend of the cluster (RFC 8881 §2.10.4, §2.10.5).
    pub(crate) server_identity: Bytes,
}

impl State {
    /// Everybody counts as heard just now.
    pub(crate) fn new(server_identity: Bytes) -> Self {
        Self {
            leases: leases::Leases::new(),
            sessions: slots::Sessions::default(),
            joints: pseudo::Cache::default(),
            opening: opening::Opening::default(),
            closing: closing::Closing::default(),
            offers: offers::Offers::default(),
            delegations: delegations::Delegations::default(),
            end: watch::Sender::new(()),
            server_identity,
        }
    }
}

/// Whether a request may change something, and must be finished once begun.
fn changes(op: &ArgOp4) -> bool {
    use ArgOp4 as A;
    matches!(
        op,
        A::Close(_)
            | A::Commit(_)
            | A::Create(_)
            | A::DelegReturn(_)
            | A::GetDirDelegation(_)
            | A::Link(_)
            | A::Lock(_)
            | A::LockU(_)
            | A::Open(_)
            | A::OpenConfirm(_)
            | A::OpenDowngrade(_)
            | A::Remove(_)
            | A::Rename(_)
            | A::SetAttr(_)
            | A::SetClientId(_)
            | A::SetClientIdConfirm(_)
            | A::Write(_)
            | A::WriteSame(_)
            | A::ReleaseLockOwner(_)
            | A::BackchannelCtl(_)
            | A::ExchangeId(_)
            | A::CreateSession(_)
            | A::DestroySession(_)
            | A::FreeStateId(_)
            | A::DestroyClientId(_)
            | A::ReclaimComplete(_)
            | A::WantDelegation(_)
            | A::SetXattr(_)
            | A::RemoveXattr(_)
            | A::Allocate(_)
            | A::Deallocate(_)
            | A::Copy(_)
            | A::OffloadCancel(_)
            | A::Clone(_)
    )
}

/// A COMPOUND in execution.
enum Execution {
    /// It ends with whoever waits for it.
    WhileWanted(Pin<Box<dyn Future<Output = Answer> + Send>>),
    /// It does not.
    ToItsEnd(Shield<Answer>),
}

impl Future for Execution {
    type Output = Answer;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Answer> {
        match &mut *self {
            Self::WhileWanted(execution) => execution.as_mut().poll(cx),
            Self::ToItsEnd(execution) => Pin::new(execution).poll(cx),
        }
    }
}

/// Bytes of SEQUENCE with its number.
const SEQUENCE_LEN: usize = 4 + 16 + 4 * 4;

/// What a retransmission has in common with the request: principal and operations, but not SEQUENCE, whose hints may differ.
fn fingerprint(call: &RpcCall, compound: &CompoundCall) -> u64 {
    let tag = compound.tag.as_bytes().len();
    let header = 4 + tag.next_multiple_of(4) + 4 + 4;
    let ops = call.args.unread().get(header + SEQUENCE_LEN..).unwrap_or_default();
    let mut hash = Xxh3::new();
    match &call.credential {
        Credential::None => hash.update(&[0]),
        Credential::Sys { uid, gid, .. } => {
            hash.update(&[1]);
            hash.update(&uid.to_be_bytes());
            hash.update(&gid.to_be_bytes());
        }
    }
    hash.update(ops);
    hash.digest()
}

impl<M: MetadataService, B: BlockService> Engine<M, B> {
    /// Answers a call of NFS version 4.
    pub fn nfs4(&self, call: RpcCall, reply: Encoder) -> impl Future<Output = Answer> + Send + use<M, B> {
        // Begun before anybody waits: the future holds neither call nor reply.
        let begun = self.begin_nfs4(call, reply);
        async {
            match begun {
                Ok(execution) => execution.await,
                Err(answer) => answer,
            }
        }
    }

    /// The execution of a call, or the answer to one that has none.
    fn begin_nfs4(&self, call: RpcCall, reply: Encoder) -> Result<Execution, Answer> {
        debug_assert_eq!(call.version, VERSION);
        match call.procedure {
            0 => return Err(Answer::Success(reply)),
            1 => {}
            _ => return Err(Answer::ProcedureUnavailable),
        }
        let Some(this) = self.this.upgrade() else { return Err(Answer::Drop) };
        self.stats.heard(call.peer.ip().to_canonical(), || self.clock.now());
        let size = call.args.remaining();
        let Ok(compound) = CompoundCall::decode(&mut call.args.clone(), OPERATIONS_MAX as usize) else {
            return Err(Answer::GarbageArgs);
        };
        let fingerprint = match compound.ops.first() {
            Some(ArgOp4::Sequence(_)) => fingerprint(&call, &compound),
            _ => 0,
        };
        let changing = compound.ops.iter().any(changes);
        let mut cx = Compound::new(this, call.without_args(), compound.minorversion, reply);
        // Of a session's request the slot knows.
        let key = (compound.minorversion == 0 && changing).then(|| once::key(&call));
        drop(call);
        if let Some(key) = key {
            // A retransmission of what is being executed: the outcome is not known yet, and the client asks again.
            if !cx.engine.once.enter(key) {
                return Err(Answer::Disconnect);
            }
            cx.identity = Identity::Request(key);
        }
        let execution = async move {
            let answer = cx.run(compound, fingerprint, size).await;
            if let Some(key) = key {
                cx.engine.once.leave(&key);
            }
            answer
        };
        Ok(if changing {
            Execution::ToItsEnd(shield(execution))
        } else {
            Execution::WhileWanted(Box::pin(execution))
        })
    }

    /// The lease time as clients are told, in seconds.
    pub fn lease_seconds(&self) -> u32 {
        u32::try_from(self.lease().as_secs()).unwrap_or(u32::MAX).max(1)
    }

    /// The lease time.
    pub(crate) fn lease(&self) -> Duration {
        self.config.lease
    }
}
