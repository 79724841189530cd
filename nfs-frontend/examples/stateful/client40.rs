//! A client of NFSv4.0: open owners and lock owners with sequences of their own (RFC 7530 §9.1.7).

use crate::dice::Dice;
use crate::judge;
use crate::known::{Kind, Stateids};
use crate::ops::{Asking, Note, Seqids, identity};
use crate::world::{Failed, Reply, World};
use atoll_proto::nfs4::{
    ArgOp4, CbClient4, ClientOwner4, Compound4Res, NetAddr4, NfsStat4, ResOp4, SetClientId4Args,
    SetClientIdConfirm4Args, StableHow4,
};

/// See the module.
pub(crate) struct Client40 {
    name: String,
    uid: u32,
    boot: u8,
    id: Option<u64>,
    stateids: Stateids,
    seqids: Seqids,
}

/// Statuses that do not count in an owner's sequence (RFC 7530 §9.1.7).
fn counts(status: Result<(), NfsStat4>) -> bool {
    !matches!(
        status,
        Err(NfsStat4::StaleClientId
            | NfsStat4::StaleStateId
            | NfsStat4::BadStateId
            | NfsStat4::BadSeqId
            | NfsStat4::BadXdr
            | NfsStat4::Resource
            | NfsStat4::NoFileHandle
            | NfsStat4::Moved)
    )
}

/// Whether an operation has a place in an owner's sequence.
fn is_step(op: &ArgOp4) -> bool {
    matches!(
        op,
        ArgOp4::Open(_)
            | ArgOp4::OpenConfirm(_)
            | ArgOp4::OpenDowngrade(_)
            | ArgOp4::Close(_)
            | ArgOp4::Lock(_)
            | ArgOp4::LockU(_)
    )
}

/// A retransmission has the same results of what changes something. What only reads (or writes nothing) is executed again, since v4.0 keeps no replies, and
/// if that ends otherwise nothing more can be said.
fn check_again(ops: &[ArgOp4], first: &Compound4Res, then: &Compound4Res) -> Result<(), Failed> {
    for (op, (one, two)) in ops.iter().zip(first.ops.iter().zip(then.ops.iter())) {
        let changes = is_step(op)
            || matches!(
                op,
                ArgOp4::Create(_)
                    | ArgOp4::Link(_)
                    | ArgOp4::Remove(_)
                    | ArgOp4::Rename(_)
                    | ArgOp4::SetAttr(_)
            )
            || matches!(op, ArgOp4::Write(args) if !args.data.is_empty());
        // Unstable data of a file that a later operation of the same request removed have no outcome, and nowhere to go.
        let removed = matches!(op, ArgOp4::Write(args) if args.stable == StableHow4::Unstable)
            && two.status() == Err(NfsStat4::Stale);
        if changes && one != two && !removed {
            let words = format!(
                "a retransmission of v4.0 is answered otherwise | {ops:?}\n first {one:?}\n then {two:?}"
            );
            return Err(words.into());
        }
        if one.status() != two.status() {
            return Ok(());
        }
    }
    Ok(())
}

impl Client40 {
    pub(crate) fn new(name: &str, uid: u32) -> Self {
        let name = name.to_owned();
        Self { name, uid, boot: 1, id: None, stateids: Stateids::default(), seqids: Seqids::default() }
    }

    async fn send(&self, w: &mut World, ops: &[ArgOp4]) -> Result<Compound4Res, Failed> {
        let Reply { res, .. } = w.compound(self.uid, 0, ops).await?;
        judge::judge(0, ops, &res)?;
        Ok(res)
    }

    async fn set_up(&mut self, w: &mut World) -> Result<(), Failed> {
        if self.id.is_some() {
            return Ok(());
        }
        let args = SetClientId4Args {
            client: ClientOwner4 { verifier: [self.boot; 8], ownerid: identity(&self.name) },
            callback: CbClient4 {
                cb_program: 1,
                cb_location: NetAddr4 { netid: Default::default(), addr: Default::default() },
            },
            callback_ident: 1,
        };
        let res = self.send(w, &[ArgOp4::SetClientId(args)]).await?;
        let Some(ResOp4::SetClientId(Ok(set))) = res.ops.last() else { return Ok(()) };
        let (clientid, setclientid_confirm) = (set.clientid, set.setclientid_confirm);
        let confirm = SetClientIdConfirm4Args { clientid, setclientid_confirm };
        let res = self.send(w, &[ArgOp4::SetClientIdConfirm(confirm)]).await?;
        if res.status.is_ok() {
            self.id = Some(clientid);
        }
        Ok(())
    }

    /// One request, perhaps retransmitted at once.
    pub(crate) async fn act(&mut self, w: &mut World, d: &mut Dice<'_>) -> Result<(), Failed> {
        self.set_up(w).await?;
        let Some(client) = self.id else { return Ok(()) };
        let again = d.once_in(4);
        let mut asking = Asking {
            minor: 0,
            client,
            stateids: &self.stateids,
            copies: &[],
            handles: &w.handles,
            seqids: self.seqids.clone(),
            asked: Vec::new(),
        };
        let things = 1 + d.below(2);
        for _ in 0..things {
            asking.add(d);
        }
        let asked = asking.asked;
        let ops: Vec<ArgOp4> = asked.iter().map(|a| a.op.clone()).collect();
        let xid = w.next_xid();
        let Reply { res, .. } = w.compound_as(self.uid, 0, &ops, xid).await?;
        judge::judge(0, &ops, &res)?;
        for (n, (result, asked)) in res.ops.iter().zip(&asked).enumerate() {
            if counts(result.status()) {
                for (kind, seqid) in &asked.steps {
                    *self.seqids.of(*kind) = seqid.wrapping_add(1);
                }
            }
            match (result, asked.note) {
                (ResOp4::Open(Ok(opened)), Note::Open(owner)) => {
                    if let Some(ResOp4::GetFh(Ok(fh))) = res.ops.get(n + 1) {
                        self.stateids.learn(opened.stateid, fh.object, Kind::Open(owner));
                    }
                }
                (ResOp4::Lock(Ok(locked)), Note::Lock(owner, fh)) => {
                    self.stateids.learn(locked.lock_stateid, fh, Kind::Lock(owner));
                }
                (ResOp4::Lock(Ok(locked)), Note::Again(held)) => {
                    self.stateids.learn(locked.lock_stateid, held.fh, held.kind);
                }
                (
                    ResOp4::LockU(Ok(stateid))
                    | ResOp4::OpenDowngrade(Ok(stateid))
                    | ResOp4::OpenConfirm(Ok(stateid)),
                    Note::Again(held),
                ) => self.stateids.learn(*stateid, held.fh, held.kind),
                (ResOp4::GetFh(Ok(fh)), _) => w.learn(fh.object),
                _ => {}
            }
        }
        if matches!(res.status, Err(NfsStat4::Expired | NfsStat4::StaleClientId)) {
            self.forget();
        }
        // Of several steps of an owner in one request only the last is known again.
        if again && ops.iter().filter(|op| is_step(op)).count() <= 1 {
            let Reply { res: then, .. } = w.compound_as(self.uid, 0, &ops, xid).await?;
            check_again(&ops, &res, &then)?;
        }
        Ok(())
    }

    fn forget(&mut self) {
        self.id = None;
        self.seqids = Seqids::default();
    }

    /// A new boot, or the same client sets itself up again.
    pub(crate) fn end(&mut self, d: &mut Dice<'_>) {
        if d.once_in(2) {
            self.boot = self.boot.wrapping_add(1);
            self.forget();
        } else {
            self.id = None;
        }
    }
}
