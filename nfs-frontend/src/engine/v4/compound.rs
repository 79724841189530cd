//! One COMPOUND in execution: its handles and stateids, and what makes it happen exactly once (RFC 8881 §2.10.6, §16.2;
//! RFC 7530 §15.2).
//!
//! An operation that changes something carries a key into the metadata service, which keeps its outcome in the same step as the
//! change. A request of a session leaves with it, in the slot, all of the reply that comes before ([`Checkpoint`]). After a failover the
//! retransmitted request goes on from there: results before are repeated byte for byte, the operation is answered from its stored
//! outcome, and what follows shows the attributes that this outcome holds. So an operation that changes something asks
//! [`Compound::known`] before it checks anything, and takes its reply from the [`Response`] alone.

use super::pseudo::{self, Joints};
use super::slots::Turn;
use super::status;
use crate::engine::resolve::Node;
use crate::engine::{Engine, ExportRef, Handle, Interrupt, Met, Refused};
use crate::rpc::{Credential, RpcCall};
use atoll_base::access::Cred;
use atoll_base::attr::Attr;
use atoll_base::block::BlockService;
use atoll_base::id::Ino;
use atoll_meta::nfs4::{ClientId, Principal, StateError};
use atoll_meta::once::{Once, SLOT_BEFORE_MAX, SlotOutcome};
use atoll_meta::{Call, FsError, MetadataService, OnceKey, Op, Response, SlotKey};
use atoll_proto::nfs4::{ChangeInfo4, FileHandle, NfsStat4, StateId4};
use atoll_xdr::Encoder;
use bytes::Bytes;
use serde::{Deserialize, Serialize, Serializer};
use std::sync::Arc;
use xxhash_rust::xxh3::xxh3_64;

/// Why an operation ends the COMPOUND.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Halt {
    /// With this status.
    Status(NfsStat4),
    /// Whether it was executed is not known: no answer, the client asks again.
    Unknown,
    /// Nothing was done: delegations of others are in the way. It is tried again when they are back.
    Delegated(Met),
}

/// Bits of a stored outcome's index that count attempts.
const ATTEMPT_BITS: u32 = 4;

/// Result of an operation.
pub(crate) type Done<T> = Result<T, Halt>;

impl From<NfsStat4> for Halt {
    fn from(status: NfsStat4) -> Self {
        Self::Status(status)
    }
}

impl From<FsError> for Halt {
    fn from(error: FsError) -> Self {
        Self::Status(status::of(error))
    }
}

impl From<Refused> for Halt {
    fn from(refused: Refused) -> Self {
        match refused {
            Refused::Interrupt(Interrupt::Drop) => Self::Unknown,
            Refused::Interrupt(Interrupt::Delegated(met)) => Self::Delegated(met),
            other => Self::Status(status::of_refused(other)),
        }
    }
}

/// What a handle stands for.
#[derive(Clone, Debug)]
pub(crate) enum Object {
    /// An object of a volume, under an export.
    Real(Node),
    /// A node of the pseudo file system.
    Pseudo(Arc<Joints>, usize),
}

impl Object {
    /// Whether it can have a security label that is shown.
    pub(crate) fn labelled(&self) -> bool {
        match self {
            Self::Real(node) => node.export.spec.security_label,
            Self::Pseudo(joints, _) => joints.labelled(),
        }
    }

    pub(crate) fn handle(&self) -> Handle {
        match self {
            Self::Real(node) => node.handle,
            Self::Pseudo(joints, index) => joints.handle(*index),
        }
    }
}

/// What makes the request known again when it is retransmitted.
pub(crate) enum Identity {
    /// Nothing: it stands alone (EXCHANGE_ID and its like), or needs nothing.
    None,
    /// A request of NFSv4.0, by transaction id and content.
    Request(OnceKey),
    /// A request on a session's slot.
    Slot { turn: Turn, slot: u32, seqid: u32, fingerprint: u64 },
}

/// The state of a COMPOUND before an operation, as it is stored with the slot.
#[derive(Deserialize)]
struct Checkpoint {
    results: Vec<u8>,
    current: Option<Vec<u8>>,
    saved: Option<Vec<u8>>,
    stateid: Option<(u32, [u8; 12])>,
    saved_stateid: Option<(u32, [u8; 12])>,
}

/// A [`Checkpoint`] that is stored.
#[derive(Serialize)]
struct Stored<'a> {
    results: Raw<'a>,
    current: Option<Raw<'a>>,
    saved: Option<Raw<'a>>,
    stateid: Option<(u32, [u8; 12])>,
    saved_stateid: Option<(u32, [u8; 12])>,
}

/// Bytes that are written as a whole.
struct Raw<'a>(&'a [u8]);

impl Serialize for Raw<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_bytes(self.0)
    }
}

/// What of a [`Checkpoint`] is not results, in bytes: at most two handles of 64 bytes, two stateids, lengths.
const CHECKPOINT_REST: usize = 192;

/// See the module.
pub(crate) struct Compound<M: MetadataService, B: BlockService> {
    pub(crate) engine: Arc<Engine<M, B>>,
    /// Without its arguments.
    pub(crate) call: RpcCall,
    pub(crate) minor: u32,
    pub(crate) identity: Identity,
    /// The session's client.
    pub(crate) client: Option<ClientId>,
    /// The v4.0 client that the operation acts for.
    pub(crate) acts_for: Option<ClientId>,
    pub(crate) current: Option<Object>,
    pub(crate) saved: Option<Object>,
    /// The current stateid (RFC 8881 §16.2.3.1.2).
    pub(crate) stateid: Option<StateId4>,
    pub(crate) saved_stateid: Option<StateId4>,
    /// The reply; results begin at `begin`.
    pub(crate) reply: Encoder,
    pub(crate) begin: usize,
    /// Which operation runs, from 0.
    pub(crate) index: u32,
    /// How often this operation was tried before, after whoever was in the way had gone.
    pub(crate) attempt: u32,
    /// Whether this operation has gone through the state machine as a step of its owner's sequence.
    pub(crate) stepped: bool,
    /// Whether delegations in the way of this operation were waited for long enough.
    pub(crate) impatient: bool,
    /// Whether an operation may have changed something.
    pub(crate) changed: bool,
    /// The outcome to go on from.
    pub(crate) resume: Option<Box<SlotOutcome>>,
    /// Attributes after what this COMPOUND changed.
    after: Vec<Attr>,
    /// Most bytes of a reply of the session, and of one that it keeps.
    pub(crate) reply_max: usize,
    pub(crate) cached_max: usize,
    /// Whether the client wants this one to be kept.
    pub(crate) cache_this: bool,
}

impl<M: MetadataService, B: BlockService> Compound<M, B> {
    pub(crate) fn new(engine: Arc<Engine<M, B>>, call: RpcCall, minor: u32, reply: Encoder) -> Self {
        let begin = reply.len();
        Self {
            engine,
            call,
            minor,
            identity: Identity::None,
            client: None,
            acts_for: None,
            current: None,
            saved: None,
            stateid: None,
            saved_stateid: None,
            reply,
            begin,
            index: 0,
            attempt: 0,
            stepped: false,
            impatient: false,
            changed: false,
            resume: None,
            after: Vec::new(),
            reply_max: usize::MAX,
            cached_max: 0,
            cache_this: false,
        }
    }

    // ---- objects

    /// What the current handle stands for.
    pub(crate) fn object(&self) -> Result<&Object, NfsStat4> {
        self.current.as_ref().ok_or(NfsStat4::NoFileHandle)
    }

    /// The current object, which must be in a volume; `otherwise` if it is of the pseudo file system.
    pub(crate) fn node(&self, otherwise: NfsStat4) -> Result<Node, NfsStat4> {
        match self.object()? {
            Object::Real(node) => Ok(node.clone()),
            Object::Pseudo(..) => Err(otherwise),
        }
    }

    /// The saved object, which must be in a volume.
    pub(crate) fn saved_node(&self, otherwise: NfsStat4) -> Result<Node, NfsStat4> {
        match self.saved.as_ref().ok_or(NfsStat4::NoFileHandle)? {
            Object::Real(node) => Ok(node.clone()),
            Object::Pseudo(..) => Err(otherwise),
        }
    }

    /// Refusal of a change under a read-only export.
    pub(crate) fn check_writable(node: &Node) -> Result<(), NfsStat4> {
        Engine::<M, B>::check_writable(&node.export).map_err(|_| NfsStat4::RoFs)
    }

    /// Makes an object the current one; the current stateid goes (RFC 8881 §16.2.3.1.2).
    pub(crate) fn enter(&mut self, object: Object) {
        self.current = Some(object);
        self.stateid = None;
    }

    /// An object beside another one, under the same export.
    pub(crate) fn beside(node: &Node, attr: &Attr) -> Object {
        let handle = Handle {
            export: node.handle.export,
            volume: attr.volume,
            ino: attr.ino,
            generation: attr.generation,
        };
        Object::Real(Node { handle, export: node.export.clone() })
    }

    /// What a handle from the wire stands for.
    pub(crate) async fn open_handle(&self, wire: &[u8]) -> Done<Object> {
        let Ok(handle) = atoll_proto::nfs3::FileHandle::new(wire) else {
            return Err(NfsStat4::BadHandle.into());
        };
        let opened = self.engine.handle_key.open(handle.as_slice()).map_err(|_| NfsStat4::BadHandle)?;
        if opened.volume == pseudo::VOLUME {
            let joints = self.engine.joints().await?;
            let index = joints.find(&opened).ok_or(NfsStat4::Stale)?;
            return Ok(Object::Pseudo(joints, index));
        }
        Ok(Object::Real(self.engine.admit(&handle, &self.call).await?))
    }

    /// The wire form of an object's handle.
    pub(crate) fn wire_handle(&self, object: &Object) -> FileHandle {
        let sealed = self.engine.handle_key.seal(&object.handle());
        FileHandle::new(sealed.as_slice()).expect("handles are as long as in version 3")
    }

    /// Attributes of an object; after a change of this COMPOUND, those that it left.
    pub(crate) async fn attr(&self, object: &Object) -> Done<Attr> {
        match object {
            Object::Pseudo(joints, index) => Ok(joints.attr(*index)),
            Object::Real(node) => self.node_attr(node).await,
        }
    }

    /// The same of an object in a volume.
    pub(crate) async fn node_attr(&self, node: &Node) -> Done<Attr> {
        let known =
            self.after.iter().find(|a| a.ino == node.handle.ino && a.generation == node.handle.generation);
        match known {
            Some(attr) => {
                let mut attr = attr.clone();
                // Clients may have been shown more than the store has, before and since.
                let shown = self.engine.dirty.with_leased(attr.ino, |state| state.shown());
                if let Some(shown) = shown.flatten() {
                    shown.overlay(&mut attr);
                }
                Ok(attr)
            }
            None => Ok(self.engine.node_attr(node).await?),
        }
    }

    /// The client that asks, if it is known: in v4.0 by what it named in this COMPOUND.
    pub(crate) fn asking(&self) -> Option<ClientId> {
        self.client.or(self.acts_for)
    }

    /// Who asks, under the rules of an export.
    pub(crate) async fn cred(&self, export: &ExportRef) -> Cred {
        self.engine.cred(export, &self.call.credential).await
    }

    /// Who asks, for what is compared with whoever set a client up.
    pub(crate) fn principal(&self) -> Principal {
        match &self.call.credential {
            Credential::None => Principal::Nobody,
            Credential::Sys { uid, .. } => Principal::Sys(*uid),
        }
    }

    // ---- changes

    /// The outcome of this operation, if it was executed before.
    pub(crate) async fn known(&mut self) -> Done<Option<Arc<Response>>> {
        self.changed = true;
        if let Some(outcome) = self.resume.take_if(|outcome| outcome.index >> ATTEMPT_BITS == self.index) {
            let response = Arc::new(outcome.response);
            self.note(&response);
            return Ok(Some(response));
        }
        let Identity::Request(_) = self.identity else { return Ok(None) };
        let Once::Request(key) = self.once() else { return Ok(None) };
        let known = match self.engine.dirty.outcome(&key) {
            Some(response) => Some(response),
            None => self.engine.meta.outcome(&key).await.map_err(|_| Halt::Unknown)?.map(Arc::new),
        };
        if let Some(response) = &known {
            self.note(response);
        }
        Ok(known)
    }

    /// The key of this operation.
    pub(crate) fn once(&self) -> Once {
        match &self.identity {
            Identity::None => unreachable!("an operation that changes files outside of a session"),
            Identity::Request(key) => {
                let step = u64::from(self.index) << ATTEMPT_BITS | u64::from(self.attempt);
                let mixed = [key.fingerprint.to_be_bytes(), step.to_be_bytes()].concat();
                Once::Request(OnceKey { fingerprint: xxh3_64(&mixed), ..*key })
            }
            Identity::Slot { turn, slot, seqid, fingerprint } => Once::Slot(SlotKey {
                session: turn.session().session.id,
                slot: *slot,
                seqid: *seqid,
                fingerprint: *fingerprint,
                index: self.index << ATTEMPT_BITS | self.attempt,
                before: self.checkpoint(),
            }),
        }
    }

    /// Runs a change of the caller's under this operation's key.
    pub(crate) fn change(&mut self, cred: Cred, op: Op) -> impl Future<Output = Done<Arc<Response>>> + Send {
        let once = self.once();
        self.change_once(cred, op, once)
    }

    /// The same under a given key.
    pub(crate) fn change_once(
        &mut self,
        cred: Cred,
        op: Op,
        once: Once,
    ) -> impl Future<Output = Done<Arc<Response>>> + Send {
        // Put together before anybody waits: a call is large, and would be in the futures around this one, too.
        let call = self.call_of(cred, op, once);
        self.run_call(call)
    }

    /// A call, but for its origin.
    pub(crate) fn call_of(&self, cred: Cred, op: Op, once: Once) -> Box<Call> {
        Box::new(Call { origin: None, once: Some(once), cred, client: self.asking(), op })
    }

    /// Runs a change.
    pub(crate) async fn run_call(&mut self, mut call: Box<Call>) -> Done<Arc<Response>> {
        call.origin = Some(self.engine.origin().await);
        let response = Arc::new(self.engine.execute_known(call).await?);
        self.settled(response)
    }

    /// What came of a change under this operation's key, remembered for those that follow. Of one that did not happen because the session ended behind
    /// SEQUENCE, with its client or by another connection, there is no answer: NFS4ERR_BADSESSION is for SEQUENCE to say (RFC 8881 §15.2), and
    /// does so when the request is sent again.
    pub(crate) fn settled(&mut self, response: Arc<Response>) -> Done<Arc<Response>> {
        let ended = response.result == Err(StateError::BadSession.into());
        if ended && matches!(self.identity, Identity::Slot { .. }) {
            return Err(Halt::Unknown);
        }
        self.note(&response);
        Ok(response)
    }

    /// Remembers what a change left, for the operations that follow.
    pub(crate) fn note(&mut self, response: &Response) {
        if response.result.is_err() {
            return;
        }
        for change in &response.changes {
            self.remember(&change.after);
        }
    }

    /// The same for one object.
    pub(crate) fn remember(&mut self, attr: &Attr) {
        self.after.retain(|a| a.ino != attr.ino);
        self.after.push(attr.clone());
    }

    fn checkpoint(&self) -> Bytes {
        let seal =
            |object: &Option<Object>| object.as_ref().map(|o| self.engine.handle_key.seal(&o.handle()));
        let raw = |stateid: Option<StateId4>| stateid.map(|s| (s.seqid, s.other));
        let Some(all) = self.reply.as_contiguous() else { return Bytes::new() };
        if all.len() - self.begin > SLOT_BEFORE_MAX / 2 {
            return Bytes::new();
        }
        let results = &all[self.begin..];
        let (current, saved) = (seal(&self.current), seal(&self.saved));
        let checkpoint = Stored {
            results: Raw(results),
            current: current.as_ref().map(|handle| Raw(handle.as_slice())),
            saved: saved.as_ref().map(|handle| Raw(handle.as_slice())),
            stateid: raw(self.stateid),
            saved_stateid: raw(self.saved_stateid),
        };
        let bytes = Vec::with_capacity(results.len() + CHECKPOINT_REST);
        postcard::to_extend(&checkpoint, bytes).map(Bytes::from).unwrap_or_default()
    }

    /// Goes on from a stored outcome: the results before it are those that were sent. `RETRY_UNCACHED_REP` if they were too many
    /// to be kept.
    pub(crate) async fn resume_from(&mut self, outcome: Box<SlotOutcome>) -> Done<()> {
        if outcome.before.is_empty() {
            return Err(NfsStat4::RetryUncachedRep.into());
        }
        let checkpoint: Checkpoint = postcard::from_bytes(&outcome.before).map_err(|error| {
            tracing::error!(%error, "a slot's stored reply cannot be read");
            NfsStat4::RetryUncachedRep
        })?;
        // An object that is gone by now is answered for from the stored outcome all the same.
        let mut objects = Vec::new();
        for wire in [&checkpoint.current, &checkpoint.saved] {
            objects.push(match wire {
                Some(wire) => Some(self.open_handle(wire).await?),
                None => None,
            });
        }
        let stateid = |raw: Option<(u32, [u8; 12])>| raw.map(|(seqid, other)| StateId4 { seqid, other });
        self.saved = objects.pop().flatten();
        self.current = objects.pop().flatten();
        self.stateid = stateid(checkpoint.stateid);
        self.saved_stateid = stateid(checkpoint.saved_stateid);
        self.reply.raw(&checkpoint.results);
        self.index = outcome.index >> ATTEMPT_BITS;
        self.changed = true;
        self.resume = Some(outcome);
        Ok(())
    }
}

/// `change_info4` of a directory.
pub(crate) fn change_info(response: &Response, dir: Ino) -> ChangeInfo4 {
    match response.change_of(dir) {
        Some(change) => {
            ChangeInfo4 { atomic: true, before: change.before.change, after: change.after.change }
        }
        None => ChangeInfo4::default(),
    }
}
