//! OPEN (RFC 8881 §18.16, RFC 7530 §16.16, RFC 9754): what is to be opened, by what right, and the delegation that comes with it.
//!
//! The reply is made of the arguments and the outcome alone, so that it is the same whenever it is made.

use super::delegations::{Asked, stateid_of};
use super::opens::fingerprint;
use crate::engine::resolve::Node;
use crate::engine::v4::compound::{Compound, Done, Identity, change_info};
use crate::engine::v4::delegations::policy::Want;
use crate::engine::v4::status;
use atoll_base::attr::{Attr, FileKind, SetAttr};
use atoll_base::block::BlockService;
use atoll_base::id::Ino;
use atoll_lockd::{Share, ShareBits};
use atoll_meta::nfs4::{ClientId, OpenTarget, StateError, StateOp, StateOutcome, Stateid};
use atoll_meta::once::{OwnerKey, OwnerSequence};
use atoll_meta::{CreateHow, FsError, MetadataService, Outcome, Response};
use atoll_proto::nfs4::{
    Bitmap, ChangeInfo4, CreateHow4, NfsStat4, OpNum4, Open4Args, Open4Ok, OpenClaim4, OpenFlag4, StateId4,
    open_result, share_access,
};
use std::sync::Arc;

/// Bits of share_access that are neither access nor a known want are refused.
const SHARE_ACCESS_KNOWN: u32 = share_access::BOTH
    | share_access::WANT_DELEG_MASK
    | share_access::WANT_SIGNAL_DELEG_WHEN_RESRC_AVAIL
    | share_access::WANT_PUSH_DELEG_WHEN_UNCONTENDED
    | share_access::WANT_DELEG_TIMESTAMPS
    | share_access::WANT_OPEN_XOR_DELEGATION;

/// What OPEN is to do, checked as far as that needs no state.
struct Plan {
    share: Share,
    target: OpenTarget,
    /// Attributes that a creation sets.
    mask: Bitmap,
    /// Whether an existing file loses what it has.
    cuts: bool,
    /// The delegation under which the client has opened it already.
    under: Option<Stateid>,
}

impl<M: MetadataService, B: BlockService> Compound<M, B> {
    pub(crate) async fn open(&mut self, args: Open4Args) -> Done<Open4Ok> {
        let client = self.acting(args.owner.clientid).await?;
        self.acts_for = Some(client);
        let step = (self.minor == 0).then(|| OwnerKey {
            client,
            sequence: OwnerSequence::Open(args.owner.owner.as_bytes().clone()),
            seqid: args.seqid,
            fingerprint: fingerprint(OpNum4::Open, &args),
        });
        let object = self.object()?.clone();
        let by_name = matches!(args.claim, OpenClaim4::Null(_) | OpenClaim4::DelegateCur(_));
        let node = match self.node(if by_name { NfsStat4::RoFs } else { NfsStat4::IsDir }) {
            Ok(node) => Ok(node),
            // A node of the pseudo file system is found by name as a directory.
            Err(status) => Err(match &args.claim {
                OpenClaim4::Null(name) if self.look_up(&object, name).await.is_ok() => NfsStat4::IsDir,
                OpenClaim4::Null(_) if matches!(args.openhow, OpenFlag4::NoCreate) => NfsStat4::NoEnt,
                _ => status,
            }),
        };
        let known = if self.minor > 0 { self.known().await? } else { None };
        let dir = node.as_ref().ok().map(|node| node.handle.ino);
        let planned = match (&known, node) {
            (_, Ok(node)) => self.plan(&args, &node, client).await.map(|plan| (node, plan)),
            (_, Err(status)) => Err(status),
        };
        let (response, mask, cuts) = match (known, planned) {
            (Some(response), Ok((_, plan))) => (response, plan.mask, plan.cuts),
            // What was executed once was in order then.
            (Some(response), Err(_)) => (response, Bitmap::EMPTY, false),
            (None, Ok((node, plan))) => {
                let (mask, cuts) = (plan.mask.clone(), plan.cuts);
                (self.run_open(&node, &args, client, plan, step).await?, mask, cuts)
            }
            (None, Err(status)) => (self.refuse_step(status, step).await?, Bitmap::EMPTY, false),
        };
        if let Ok(Outcome::State(StateOutcome::Opened { delegation, .. })) = &response.result {
            self.note_delegation(delegation);
        }
        self.opened(&args, dir, by_name, mask, cuts, &response)
    }

    /// The reply, from the arguments and the outcome alone.
    fn opened(
        &mut self,
        args: &Open4Args,
        dir: Option<Ino>,
        by_name: bool,
        mask: Bitmap,
        cuts: bool,
        response: &Response,
    ) -> Done<Open4Ok> {
        match &response.result {
            Ok(Outcome::State(StateOutcome::Opened { open, attr, created, confirm, delegation })) => {
                self.remember(attr);
                if let Ok(node) = self.node(NfsStat4::ServerFault) {
                    let object = Self::beside(&node, attr);
                    self.enter(object);
                }
                self.stateid = Some(self.wire_stateid(*open));
                let cinfo = match dir {
                    Some(dir) if by_name => change_info(response, dir),
                    _ => ChangeInfo4::default(),
                };
                let attrset = match (*created, cuts) {
                    (true, _) => mask,
                    // An existing file was cut off.
                    (false, true) => mask.and(&Bitmap::of(&[atoll_proto::nfs4::Attr4::Size as u32])),
                    (false, false) => Bitmap::EMPTY,
                };
                let confirm = if *confirm { open_result::CONFIRM } else { 0 };
                // By the session's terms, which are the same whenever this reply is made.
                let notify = if self.has_backchannel() { open_result::MAY_NOTIFY_LOCK } else { 0 };
                // RFC 9754 §4: the delegation stands for the open.
                let only_delegated = stateid_of(delegation) == Some(open.id);
                let (stateid, without) = match only_delegated {
                    true => (StateId4::ANONYMOUS, open_result::NO_OPEN_STATEID),
                    false => (self.wire_stateid(*open), 0),
                };
                let rflags = open_result::LOCKTYPE_POSIX | confirm | notify | without;
                Ok(Open4Ok {
                    stateid,
                    cinfo,
                    rflags,
                    attrset,
                    delegation: self.delegation_told(args.share_access, delegation, attr),
                })
            }
            Ok(other) => unreachable!("OPEN ended as {other:?}"),
            // The file is the last that the call came to.
            Err(FsError::WrongType) => Err(match response.changes.last().map(|c| c.after.kind) {
                Some(FileKind::Symlink) => NfsStat4::Symlink,
                Some(FileKind::Directory) => NfsStat4::IsDir,
                // RFC 7530 §16.16.5: for special files, too.
                _ if self.minor == 0 => NfsStat4::Symlink,
                _ => NfsStat4::WrongType,
            }
            .into()),
            Err(FsError::State(StateError::DelegationRevoked)) => Err(self.revoked().into()),
            Err(e) => Err(status::of(*e).into()),
        }
    }

    fn has_backchannel(&self) -> bool {
        match &self.identity {
            Identity::Slot { turn, .. } => turn.session().back.was_asked_for(),
            Identity::None | Identity::Request(_) => false,
        }
    }

    async fn plan(&self, args: &Open4Args, node: &Node, client: ClientId) -> Result<Plan, NfsStat4> {
        let bits = args.share_access & share_access::BOTH;
        let known = if self.minor == 0 { share_access::BOTH } else { SHARE_ACCESS_KNOWN };
        let deny = ShareBits::from_wire(args.share_deny).ok_or(NfsStat4::Inval)?;
        let access = ShareBits::from_wire(bits).filter(|a| *a != ShareBits::None).ok_or(NfsStat4::Inval)?;
        if args.share_access & !known != 0 {
            return Err(NfsStat4::Inval);
        }
        if self.minor > 0 && Want::of(args.share_access).is_none() {
            return Err(NfsStat4::Inval);
        }
        let share = Share { access, deny };
        let cred = self.cred(&node.export).await;
        let mut mask = Bitmap::EMPTY;
        let mut cuts = false;
        let create = match &args.openhow {
            OpenFlag4::NoCreate => None,
            OpenFlag4::Create(how) => {
                let persistent = self.is_persistent();
                let (how, attrs) = match how {
                    CreateHow4::Unchecked(fattr) => {
                        mask = fattr.mask.clone();
                        let attrs = self.creation(fattr, FileKind::Regular, node, &cred).await?;
                        cuts = attrs.size == Some(0);
                        (CreateHow::Unchecked, attrs)
                    }
                    CreateHow4::Guarded(fattr) => {
                        mask = fattr.mask.clone();
                        (CreateHow::Guarded, self.creation(fattr, FileKind::Regular, node, &cred).await?)
                    }
                    // The reply cache of a persistent session does what verifiers are for (§18.16.3).
                    CreateHow4::Exclusive(_) | CreateHow4::Exclusive41(_) if persistent => {
                        return Err(NfsStat4::Inval);
                    }
                    CreateHow4::Exclusive(verifier) => (CreateHow::Exclusive(*verifier), SetAttr::default()),
                    CreateHow4::Exclusive41(both) => {
                        mask = both.attrs.mask.clone();
                        let attrs = self.creation(&both.attrs, FileKind::Regular, node, &cred).await?;
                        (CreateHow::Exclusive(both.verf), attrs)
                    }
                };
                Some((how, attrs))
            }
        };
        let mut under = None;
        let target = match &args.claim {
            OpenClaim4::Null(name) => {
                super::names::check(name)?;
                OpenTarget::Name { dir: node.handle.ino, name: name.as_bytes().clone(), create }
            }
            OpenClaim4::Fh if create.is_some() => return Err(NfsStat4::Inval),
            OpenClaim4::Fh => OpenTarget::File { ino: node.handle.ino, generation: node.handle.generation },
            // Nothing was lost, so there is nothing to reclaim.
            OpenClaim4::Previous(_) => return Err(NfsStat4::NoGrace),
            // What the client does under a delegation, it does with a file that exists.
            OpenClaim4::DelegateCur(_) | OpenClaim4::DelegCurFh(_) if create.is_some() => {
                return Err(NfsStat4::Inval);
            }
            OpenClaim4::DelegateCur(claim) => {
                super::names::check(&claim.file)?;
                under = Some(self.stateid_of(&claim.delegate_stateid)?);
                OpenTarget::Name { dir: node.handle.ino, name: claim.file.as_bytes().clone(), create: None }
            }
            OpenClaim4::DelegCurFh(delegation) => {
                under = Some(self.stateid_of(delegation)?);
                OpenTarget::File { ino: node.handle.ino, generation: node.handle.generation }
            }
            OpenClaim4::DelegatePrev(_) | OpenClaim4::DelegPrevFh => return Err(NfsStat4::NotSupp),
        };
        if self.minor > 0 {
            // §18.51.3: what a client may have to reclaim comes first.
            if !self.has_reclaimed(client).await {
                return Err(NfsStat4::Grace);
            }
        }
        let writes =
            access.contains(ShareBits::Write) || matches!(&target, OpenTarget::Name { create: Some(_), .. });
        if writes {
            Self::check_writable(node)?;
        }
        Ok(Plan { share, target, mask, cuts, under })
    }

    async fn run_open(
        &mut self,
        node: &Node,
        args: &Open4Args,
        client: ClientId,
        plan: Plan,
        step: Option<OwnerKey>,
    ) -> Done<Arc<Response>> {
        if self.impatient {
            return self.refuse_step(NfsStat4::Delay, step).await;
        }
        let cred = self.cred(&node.export).await;
        let engine = self.engine.clone();
        let _opening = engine.v4.opening.enter(client, args.owner.owner.as_bytes());
        let file = self.file_of(&plan.target).await;
        // What the client has closed must not come back to it. CLOSE of v4.0 is not answered early.
        if step.is_none() && file.is_some_and(|ino| engine.v4.closing.is_tried(client, ino)) {
            return Err(NfsStat4::Delay.into());
        }
        // Clients whose lease has run out make way. In v4.0 a refusal would be the owner's step, so they go before it.
        if step.is_some()
            && let Some(ino) = file
        {
            engine.make_way(ino, client, plan.share).await?;
        }
        let asked = Asked {
            access: args.share_access,
            writes: plan.share.access.contains(ShareBits::Write),
            file,
            export: node.export.id,
        };
        // UNCHECKED may meet, and truncate, a file with UNSTABLE data.
        let wish = if plan.under.is_none() { self.wish(&asked, client) } else { None };
        let _settled = match &plan.target {
            // What was taken in here without the store's knowledge is put there first, and nothing more is taken in meanwhile.
            _ if wish.is_some() && file.is_some_and(|ino| engine.dirty.is_leased(ino)) => match file {
                Some(ino) => Some(engine.settle(ino).await),
                None => None,
            },
            OpenTarget::Name { dir, name, create: Some((CreateHow::Unchecked, attrs)) }
                if attrs.size.is_some() =>
            {
                engine.settle_name(*dir, name).await
            }
            _ => None,
        };
        let op = StateOp::Open {
            client,
            owner: args.owner.owner.as_bytes().clone(),
            share: plan.share,
            target: plan.target.clone(),
            delegate: wish,
            under: plan.under,
        };
        let response = self.change_state(cred.clone(), op.clone(), step.clone()).await?;
        if let (None, Ok(Outcome::State(StateOutcome::Opened { attr, .. }))) = (file, &response.result) {
            engine.v4.delegations.history.opened(attr.ino, client, engine.meta().now().secs);
        }
        if response.result != Err(FsError::State(StateError::ShareDenied)) || step.is_some() {
            return Ok(response);
        }
        match file {
            Some(ino) if engine.make_way(ino, client, plan.share).await? => {
                self.attempt += 1;
                self.change_state(cred, op, step).await
            }
            _ => Ok(response),
        }
    }

    async fn file_of(&self, target: &OpenTarget) -> Option<Ino> {
        match target {
            OpenTarget::File { ino, .. } => Some(*ino),
            OpenTarget::Name { dir, name, .. } => {
                self.engine.find(*dir, name).await.ok()?.child.ok().map(|attr: Attr| attr.ino)
            }
        }
    }
}
