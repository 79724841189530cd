//! A client of NFSv4.1 or 4.2: one session of some slots, and a backchannel whose callbacks it answers now and then.

use crate::dice::Dice;
use crate::judge;
use crate::known::{Kind, Stateids};
use crate::ops::{Asked, Asking, Note, Seqids, identity};
use crate::world::{Failed, Reply, World};
use atoll_nfs::server::Reverse;
use atoll_proto::nfs4::callback::{CbArgOp4, CbCompound4Args, CbCompound4Res, CbResOp4, CbSequence4Ok};
use atoll_proto::nfs4::{
    ArgOp4, BindConnToSession4Args, CbSecParms4, ChannelAttrs4, ClientId4Args, ClientOwner4, Compound4Res,
    CreateSession4Args, DelegReturn4Args, DestroySession4Args, DirFromClient4, ExchangeId4Args, FileHandle,
    GetDirDelegation4Ok, NfsStat4, OpenDelegation4, PutFh4Args, ReclaimComplete4Args, ResOp4, Sequence4Args,
    SessionId4, StableHow4, StateId4, StateProtect4Args, Tag, create_session,
};
use atoll_proto::rpc::{Accepted, CallHeader, ReplyHeader};
use atoll_xdr::{Array, Decoder, Encoder};
use bytes::Bytes;
use std::collections::HashMap;

const SLOTS: usize = 3;

/// The last request of a slot.
struct Last {
    ops: Vec<ArgOp4>,
    reply: Bytes,
    /// It must be answered with the same bytes as long as the frontend lives.
    kept: bool,
    /// And after a restart.
    durable: bool,
}

#[derive(Default)]
struct Slot {
    seqid: u32,
    last: Option<Last>,
}

struct Session {
    client: u64,
    id: SessionId4,
    slots: [Slot; SLOTS],
}

/// See the module.
pub(crate) struct Client41 {
    name: String,
    minor: u32,
    uid: u32,
    boot: u8,
    session: Option<Session>,
    stateids: Stateids,
    /// Of the present connection, which callbacks come over.
    back: Option<Reverse>,
    /// Callbacks that were heard: the last number of each slot.
    heard: HashMap<u32, u32>,
    /// Delegations to be returned.
    recalled: Vec<ArgOp4>,
    /// Copies that go on, or did, with their targets.
    copies: Vec<(FileHandle, StateId4)>,
}

fn changes(op: &ArgOp4) -> bool {
    match op {
        // What is UNSTABLE is not kept over a restart, and its verifier changes.
        // One of no bytes changes nothing, and is executed again.
        ArgOp4::Write(args) => args.stable != StableHow4::Unstable && !args.data.is_empty(),
        ArgOp4::Open(_)
        | ArgOp4::Close(_)
        | ArgOp4::OpenDowngrade(_)
        | ArgOp4::Lock(_)
        | ArgOp4::LockU(_)
        | ArgOp4::SetAttr(_)
        | ArgOp4::Remove(_)
        | ArgOp4::Rename(_)
        | ArgOp4::Link(_)
        | ArgOp4::Create(_)
        | ArgOp4::FreeStateId(_)
        | ArgOp4::OffloadCancel(_)
        | ArgOp4::SetXattr(_)
        | ArgOp4::RemoveXattr(_) => true,
        _ => false,
    }
}

/// Whether a request is answered the same after a restart: what it did last is in the state, and nothing behind it is looked up again.
fn is_durable(ops: &[ArgOp4], res: &Compound4Res) -> bool {
    let volatile = |op: &ArgOp4| {
        matches!(op, ArgOp4::Write(args) if args.stable == StableHow4::Unstable)
            || matches!(op, ArgOp4::Commit(_) | ArgOp4::ReclaimComplete(_) | ArgOp4::Copy(_))
    };
    if ops.iter().any(volatile) || res.status.is_err() {
        return false;
    }
    let Some(last) = ops.iter().rposition(changes) else { return false };
    ops[last + 1..].iter().all(|op| matches!(op, ArgOp4::GetFh))
}

impl Client41 {
    pub(crate) fn new(name: &str, minor: u32, uid: u32) -> Self {
        let name = name.to_owned();
        Self {
            name,
            minor,
            uid,
            boot: 1,
            session: None,
            stateids: Stateids::default(),
            back: None,
            heard: HashMap::new(),
            recalled: Vec::new(),
            copies: Vec::new(),
        }
    }

    async fn compound(&self, w: &mut World, ops: &[ArgOp4]) -> Result<Reply, Failed> {
        w.connection = self.back.as_ref().map(Reverse::handle);
        let reply = w.compound(self.uid, self.minor, ops).await;
        w.connection = None;
        reply
    }

    async fn alone(&self, w: &mut World, op: ArgOp4) -> Result<Compound4Res, Failed> {
        let ops = vec![op];
        let Reply { res, .. } = self.compound(w, &ops).await?;
        judge::judge(self.minor, &ops, &res)?;
        Ok(res)
    }

    /// Sets itself up, if it is not.
    async fn set_up(&mut self, w: &mut World, d: &mut Dice<'_>) -> Result<(), Failed> {
        if self.session.is_some() {
            return Ok(());
        }
        let args = ExchangeId4Args {
            clientowner: ClientOwner4 { verifier: [self.boot; 8], ownerid: identity(&self.name) },
            flags: 0,
            state_protect: StateProtect4Args::None,
            client_impl_id: None,
        };
        let res = self.alone(w, ArgOp4::ExchangeId(Box::new(args))).await?;
        let Some(ResOp4::ExchangeId(Ok(known))) = res.ops.last() else { return Ok(()) };
        self.back = (!d.once_in(4)).then(Reverse::new);
        self.heard.clear();
        let channel = ChannelAttrs4 {
            headerpadsize: 0,
            maxrequestsize: d.pick(&[1 << 20, 1 << 20, 2000]),
            maxresponsesize: d.pick(&[1 << 20, 1 << 20, 1 << 20, 700]),
            maxresponsesize_cached: d.pick(&[4096, 4096, 500]),
            maxoperations: d.pick(&[64, 64, 6]),
            maxrequests: SLOTS as u32,
            rdma_ird: None,
        };
        let args = CreateSession4Args {
            clientid: known.clientid,
            sequence: known.sequenceid,
            flags: if d.once_in(3) { create_session::PERSIST } else { 0 }
                | if self.back.is_some() { create_session::CONN_BACK_CHAN } else { 0 },
            fore_chan_attrs: channel,
            back_chan_attrs: ChannelAttrs4 { maxresponsesize: 4096, maxresponsesize_cached: 4096, ..channel },
            cb_program: 1,
            sec_parms: Array::new(vec![CbSecParms4::None]).unwrap(),
        };
        let res = self.alone(w, ArgOp4::CreateSession(args.clone())).await?;
        let Some(ResOp4::CreateSession(Ok(made))) = res.ops.last() else { return Ok(()) };
        if d.once_in(4) {
            // RFC 8881 §18.36.4: the same once more gets the same.
            let again = self.alone(w, ArgOp4::CreateSession(args)).await?;
            if again != res {
                return Err(format!("CREATE_SESSION again is answered otherwise | {res:?} {again:?}").into());
            }
        }
        self.session =
            Some(Session { client: known.clientid, id: made.sessionid, slots: Default::default() });
        if !d.once_in(8) {
            let complete = ArgOp4::ReclaimComplete(ReclaimComplete4Args { one_fs: false });
            self.send(w, 0, false, vec![plain(complete)]).await?;
        }
        Ok(())
    }

    /// One request, perhaps retransmitted at once.
    pub(crate) async fn act(&mut self, w: &mut World, d: &mut Dice<'_>) -> Result<(), Failed> {
        self.set_up(w, d).await?;
        self.called(w, d);
        if !self.recalled.is_empty() && !d.once_in(4) {
            let recalled = std::mem::take(&mut self.recalled);
            return self.send(w, 0, false, recalled.into_iter().take(4).map(plain).collect()).await;
        }
        let Some(session) = &self.session else { return Ok(()) };
        if d.once_in(8) && self.back.is_some() {
            let sessionid = session.id;
            let args = BindConnToSession4Args {
                sessionid,
                dir: DirFromClient4::ForeOrBoth,
                use_conn_in_rdma_mode: false,
            };
            self.alone(w, ArgOp4::BindConnToSession(args)).await?;
        }
        let Some(session) = &self.session else { return Ok(()) };
        let slot = d.below(SLOTS);
        let cache = d.once_in(2);
        let again = d.once_in(4);
        let mut asking = Asking {
            minor: self.minor,
            client: session.client,
            stateids: &self.stateids,
            copies: &self.copies,
            handles: &w.handles,
            seqids: Seqids::default(),
            asked: Vec::new(),
        };
        let things = 1 + d.below(3);
        for _ in 0..things {
            asking.add(d);
        }
        let asked = asking.asked;
        self.send(w, slot, cache, asked).await?;
        if again { self.repeat(w, slot, false).await } else { Ok(()) }
    }

    /// Answers some of the callbacks that have come.
    fn called(&mut self, w: &World, d: &mut Dice<'_>) {
        let Some(back) = &self.back else { return };
        while let Some(message) = back.next_call() {
            let mut decoder = Decoder::new(message);
            let header = CallHeader::parse(&mut decoder).unwrap();
            let args: CbCompound4Args = decoder.decode().unwrap();
            w.tell(|| format!("callback to {}: {:?}", self.name, args.ops));
            let Some(CbArgOp4::Sequence(sequence)) = args.ops.first() else { panic!("{args:?}") };
            // Some it does not hear at all.
            if d.once_in(6) {
                continue;
            }
            let last = self.heard.get(&sequence.slotid).copied().unwrap_or(0);
            let mut ops = Vec::new();
            if sequence.sequenceid == last.wrapping_add(1) {
                self.heard.insert(sequence.slotid, sequence.sequenceid);
                ops.push(CbResOp4::Sequence(Ok(CbSequence4Ok {
                    sessionid: sequence.sessionid,
                    sequenceid: sequence.sequenceid,
                    slotid: sequence.slotid,
                    highest_slotid: 1,
                    target_highest_slotid: 1,
                })));
                ops.extend(args.ops.get(1).map(|op| match op {
                    _ if d.once_in(8) => op.op().failed(d.pick(&[NfsStat4::Delay, NfsStat4::BadStateId])),
                    CbArgOp4::Recall(recall) => {
                        self.recalled.push(ArgOp4::PutFh(PutFh4Args { object: recall.fh }));
                        let deleg_stateid = recall.stateid;
                        self.recalled.push(ArgOp4::DelegReturn(DelegReturn4Args { deleg_stateid }));
                        CbResOp4::Recall(Ok(()))
                    }
                    CbArgOp4::Notify(_) => CbResOp4::Notify(Ok(())),
                    CbArgOp4::NotifyLock(_) => CbResOp4::NotifyLock(Ok(())),
                    CbArgOp4::RecallSlot(_) => CbResOp4::RecallSlot(Ok(())),
                    CbArgOp4::Offload(_) => CbResOp4::Offload(Ok(())),
                    other => other.op().failed(NfsStat4::NotSupp),
                }));
            } else {
                let again = sequence.sequenceid == last;
                let status = if again { NfsStat4::RetryUncachedRep } else { NfsStat4::SeqMisordered };
                ops.push(CbResOp4::Sequence(Err(status)));
            }
            let status = ops.last().map_or(Ok(()), CbResOp4::status);
            let res = CbCompound4Res { status, tag: Tag::default(), ops: Array::new(ops).unwrap() };
            let mut e = Encoder::new();
            e.put(&ReplyHeader::accepted(header.xid, Accepted::Success));
            e.put(&res);
            back.reply(header.xid, e.into_bytes());
        }
    }

    fn sequence(&self, slot: usize, sequenceid: u32, cachethis: bool) -> Option<ArgOp4> {
        let sessionid = self.session.as_ref()?.id;
        let highest_slotid = SLOTS as u32 - 1;
        let args = Sequence4Args { sessionid, sequenceid, slotid: slot as u32, highest_slotid, cachethis };
        Some(ArgOp4::Sequence(args))
    }

    async fn send(
        &mut self,
        w: &mut World,
        slot: usize,
        cache: bool,
        asked: Vec<Asked>,
    ) -> Result<(), Failed> {
        let Some(session) = &self.session else { return Ok(()) };
        let seqid = session.slots[slot].seqid.wrapping_add(1);
        let Some(sequence) = self.sequence(slot, seqid, cache) else { return Ok(()) };
        let notes: Vec<Note> = asked.iter().map(|a| a.note).collect();
        let ops: Vec<ArgOp4> = std::iter::once(sequence).chain(asked.into_iter().map(|a| a.op)).collect();
        let faults = w.faults();
        let Reply { bytes, res } = self.compound(w, &ops).await?;
        // A CLOSE may have been answered before, and is tried again: only if the engine lives.
        let may_be_lost = w.faults() < faults && ops.iter().any(|op| matches!(op, ArgOp4::Close(_)));
        judge::judge(self.minor, &ops, &res)?;
        self.heard(w, &notes, &res);
        if self.lost(&res) {
            return Ok(());
        }
        let Some(session) = &mut self.session else { return Ok(()) };
        if let Some(ResOp4::Sequence(Ok(_))) = res.ops.first() {
            let changed = |(op, result): (&ArgOp4, &ResOp4)| changes(op) && result.status().is_ok();
            let kept = cache || ops.iter().zip(res.ops.iter()).any(changed) || ops.len() == 1;
            // Too long a reply is not kept, however it was asked for.
            let kept = kept && bytes.len() <= 400;
            let durable = kept && !may_be_lost && is_durable(&ops, &res);
            let slot = &mut session.slots[slot];
            slot.seqid = seqid;
            slot.last = Some(Last { ops, reply: bytes, kept, durable });
        }
        Ok(())
    }

    /// Takes in what a reply tells.
    fn heard(&mut self, w: &mut World, notes: &[Note], res: &Compound4Res) {
        for (n, (result, note)) in res.ops.iter().skip(1).zip(notes).enumerate() {
            match (result, note) {
                (ResOp4::Open(Ok(opened)), Note::Open(owner)) => {
                    if let Some(ResOp4::GetFh(Ok(fh))) = res.ops.get(n + 2) {
                        if !opened.stateid.is_special() {
                            self.stateids.learn(opened.stateid, fh.object, Kind::Open(*owner));
                        }
                        self.learn(&opened.delegation, fh.object);
                    }
                }
                (ResOp4::WantDelegation(Ok(told)), _) => {
                    if let Some(ResOp4::GetFh(Ok(fh))) = res.ops.get(n + 2) {
                        self.learn(told, fh.object);
                    }
                }
                (ResOp4::GetDirDelegation(Ok(GetDirDelegation4Ok::Granted(it))), _) => {
                    if let Some(ResOp4::GetFh(Ok(fh))) = res.ops.get(n + 2) {
                        self.stateids.learn(it.stateid, fh.object, Kind::Delegation);
                    }
                }
                (ResOp4::Lock(Ok(locked)), Note::Lock(owner, fh)) => {
                    self.stateids.learn(locked.lock_stateid, *fh, Kind::Lock(*owner));
                }
                (ResOp4::Lock(Ok(locked)), Note::Again(held)) => {
                    self.stateids.learn(locked.lock_stateid, held.fh, held.kind);
                }
                (ResOp4::LockU(Ok(stateid)) | ResOp4::OpenDowngrade(Ok(stateid)), Note::Again(held)) => {
                    self.stateids.learn(*stateid, held.fh, held.kind);
                }
                (ResOp4::Copy(Ok(copy)), _) => {
                    if let (Some(stateid), Some(ResOp4::GetFh(Ok(fh)))) =
                        (copy.response.callback_id, res.ops.get(n + 2))
                    {
                        self.copies.push((fh.object, stateid));
                    }
                }
                (ResOp4::GetFh(Ok(fh)), _) => w.learn(fh.object),
                _ => {}
            }
        }
    }

    fn learn(&mut self, told: &OpenDelegation4, fh: FileHandle) {
        let stateid = match told {
            OpenDelegation4::Read(it) | OpenDelegation4::ReadAttrs(it) => it.stateid,
            OpenDelegation4::Write(it) | OpenDelegation4::WriteAttrs(it) => it.stateid,
            OpenDelegation4::None | OpenDelegation4::NoneExt(_) => return,
        };
        self.stateids.learn(stateid, fh, Kind::Delegation);
    }

    /// Whether the session is gone; then the client sets itself up anew the next time.
    fn lost(&mut self, res: &Compound4Res) -> bool {
        let gone = res.status == Err(NfsStat4::BadSession);
        if gone {
            self.session = None;
        }
        gone
    }

    /// Sends the last request of a slot once more.
    async fn repeat(&mut self, w: &mut World, slot: usize, restarted: bool) -> Result<(), Failed> {
        let Some(session) = &self.session else { return Ok(()) };
        let Some(last) = &session.slots[slot].last else { return Ok(()) };
        let must = if restarted { last.durable } else { last.kept };
        if restarted && !must {
            return Ok(());
        }
        let (ops, reply) = (last.ops.clone(), last.reply.clone());
        let Reply { bytes, res } = self.compound(w, &ops).await?;
        judge::judge(self.minor, &ops, &res)?;
        if self.lost(&res) {
            return Ok(());
        }
        let uncached = res.status == Err(NfsStat4::RetryUncachedRep);
        if bytes != reply && (must || !uncached) {
            let when = if restarted { "after a restart" } else { "of a slot" };
            let words = format!(
                "a retransmission {when} is answered otherwise | {ops:?}\n first {}\n then {res:?}",
                hex(&reply)
            );
            return Err(words.into());
        }
        Ok(())
    }

    /// The last request of some slot comes again, after whatever has happened since.
    pub(crate) async fn repeat_any(&mut self, w: &mut World, d: &mut Dice<'_>) -> Result<(), Failed> {
        self.repeat(w, d.below(SLOTS), false).await
    }

    /// The server has restarted: what was answered is answered the same.
    pub(crate) async fn restarted(&mut self, w: &mut World) -> Result<(), Failed> {
        for slot in 0..SLOTS {
            self.repeat(w, slot, true).await?;
        }
        if let Some(session) = &mut self.session {
            // The replies of the others are not kept.
            for slot in &mut session.slots {
                if slot.last.as_ref().is_some_and(|last| !last.durable) {
                    slot.last = None;
                }
            }
        }
        Ok(())
    }

    /// Requests that break the rules of slots (RFC 8881 §2.10.6).
    pub(crate) async fn break_rules(&mut self, w: &mut World, d: &mut Dice<'_>) -> Result<(), Failed> {
        self.set_up(w, d).await?;
        let Some(session) = &self.session else { return Ok(()) };
        let slot = d.below(SLOTS);
        let seqid = session.slots[slot].seqid;
        let has_last = session.slots[slot].last.is_some();
        let (sequence, expected) = match d.below(4) {
            0 if seqid > 0 && has_last => (self.sequence(slot, seqid, true), NfsStat4::SeqFalseRetry),
            // After a restart any number that is not below is right.
            1 if has_last => (self.sequence(slot, seqid.wrapping_add(2), true), NfsStat4::SeqMisordered),
            2 => (self.sequence(SLOTS + 7, 1, true), NfsStat4::BadSlot),
            _ if has_last => (self.sequence(slot, seqid.wrapping_sub(1), true), NfsStat4::SeqMisordered),
            _ => return Ok(()),
        };
        let Some(sequence) = sequence else { return Ok(()) };
        // No sequence asks for this.
        let ops = vec![sequence, ArgOp4::PutRootFh, ArgOp4::PutPubFh, ArgOp4::PutRootFh];
        let Reply { res, .. } = self.compound(w, &ops).await?;
        judge::judge(self.minor, &ops, &res)?;
        if self.lost(&res) || res.status == Err(expected) {
            return Ok(());
        }
        Err(format!("not refused with {expected:?} | {ops:?}: {res:?}").into())
    }

    /// The end of the session or the client, or a new boot.
    pub(crate) async fn end(&mut self, w: &mut World, d: &mut Dice<'_>) -> Result<(), Failed> {
        match (d.below(4), &self.session) {
            (0, Some(session)) => {
                let sessionid = session.id;
                self.alone(w, ArgOp4::DestroySession(DestroySession4Args { sessionid })).await?;
                self.session = None;
            }
            (1, Some(session)) => {
                let clientid = session.client;
                let res = self.alone(w, ArgOp4::DestroyClientId(ClientId4Args { clientid })).await?;
                if res.status.is_ok() {
                    return Err("DESTROY_CLIENTID of a client with a session succeeds | ".to_owned().into());
                }
            }
            (2, Some(_)) => self.session = None,
            _ => {
                self.boot = self.boot.wrapping_add(1);
                self.session = None;
            }
        }
        Ok(())
    }
}

fn plain(op: ArgOp4) -> Asked {
    Asked { op, note: Note::Nothing, steps: Vec::new() }
}

pub(crate) fn hex(bytes: &[u8]) -> String {
    match atoll_xdr::Decoder::new(Bytes::copy_from_slice(bytes)).decode::<Compound4Res>() {
        Ok(res) => format!("{res:?}"),
        Err(_) => format!("{bytes:02x?}"),
    }
}
