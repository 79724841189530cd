//! Delegations on the wire: what OPEN says of them, DELEGRETURN, WANT_DELEGATION, GET_DIR_DELEGATION, the times that a holder keeps
//! (RFC 8881 §18.6, §18.16.3, §18.39, §18.49; RFC 9754 §5).

use crate::engine::resolve::Node;
use crate::engine::v3::cookie_verifier;
use crate::engine::v4::compound::{Compound, Done, Halt, Identity};
use crate::engine::v4::delegations::policy::Want;
use crate::engine::v4::status;
use atoll_base::access::Cred;
use atoll_base::attr::{Attr, FileKind};
use atoll_base::block::BlockService;
use atoll_base::id::{ExportId, Ino};
use atoll_base::limits::FILE_SIZE_MAX;
use atoll_base::time::{NANOS_PER_SEC, Timestamp};
use atoll_meta::delegation::{DelegationKind, DelegationOutcome, DelegationWish, NoticeKinds};
use atoll_meta::nfs4::{ClientId, StateId, StateOp, StateOutcome};
use atoll_meta::{MetadataService, Op, Outcome, Response};
use atoll_proto::nfs4::callback::notify_type;
use atoll_proto::nfs4::{
    Ace4, Attr4, Bitmap, DelegClaim4, DelegReturn4Args, DirDelegation4, GetDirDelegation4Args,
    GetDirDelegation4Ok, NfsStat4, NfsTime4, OpenDelegation4, Principal4, ReadDelegation4, SetAttr4Args,
    SetAttrs4, SpaceLimit4, WantDelegation4Args, WhyNoDelegation4, WriteDelegation4, ace_mask, ace_type,
    share_access, who,
};
use std::sync::Arc;

/// Changes of a directory that can be told of. Not those of attributes: they are recalled for.
const SERVED: [u32; 3] = [notify_type::REMOVE_ENTRY, notify_type::ADD_ENTRY, notify_type::RENAME_ENTRY];

/// What of an OPEN decides about a delegation.
pub(crate) struct Asked {
    /// `share_access` with its wants.
    pub(crate) access: u32,
    pub(crate) writes: bool,
    /// The file, unless this OPEN makes it.
    pub(crate) file: Option<Ino>,
    pub(crate) export: ExportId,
}

/// The delegation that was given, if one was.
pub(crate) fn stateid_of(outcome: &DelegationOutcome) -> Option<StateId> {
    match outcome {
        DelegationOutcome::Given { stateid, .. } => Some(stateid.id),
        DelegationOutcome::NotAsked | DelegationOutcome::Contention | DelegationOutcome::Resource => None,
    }
}

/// Who may open the file at the holder without asking by ACCESS: everybody, for what the mode lets everybody do (§10.4). Where there is a list, it may
/// keep some from it.
fn permissions(attr: &Attr, kind: DelegationKind) -> Ace4 {
    let everybody =
        |bit: u32| attr.acl.is_none() && [0, 3, 6].iter().all(|shift| attr.mode >> shift & bit != 0);
    let mut mask = 0;
    if everybody(4) {
        mask |= ace_mask::READ_DATA;
    }
    if everybody(2) && kind == DelegationKind::Write {
        mask |= ace_mask::WRITE_DATA | ace_mask::APPEND_DATA;
    }
    let who = Principal4::from_static(who::EVERYONE);
    Ace4 { ace_type: ace_type::ALLOWED, flag: 0, access_mask: mask, who }
}

/// Times that the holder of a delegation kept.
struct HeldTimes {
    atime: Option<Timestamp>,
    mtime: Option<Timestamp>,
}

/// The times that a holder tells the server, which stand alone in their SETATTR.
fn delegated_times(args: &SetAttr4Args) -> Result<Option<HeldTimes>, NfsStat4> {
    let times = Bitmap::of(&[Attr4::TimeDelegAccess as u32, Attr4::TimeDelegModify as u32]);
    let asked = &args.obj_attributes.mask;
    if asked.and(&times).is_empty() {
        return Ok(None);
    }
    // A change of something else would be another call, and a half of the two could not be told.
    if !asked.without(&times).is_empty() {
        return Err(NfsStat4::Inval);
    }
    let set = SetAttrs4::read(&args.obj_attributes, &times).map_err(|e| e.status())?;
    let time = |t: Option<NfsTime4>| match t {
        Some(t) if t.nseconds >= NANOS_PER_SEC => Err(NfsStat4::Inval),
        t => Ok(t.map(|t| Timestamp { secs: t.seconds, nanos: t.nseconds })),
    };
    Ok(Some(HeldTimes { atime: time(set.deleg_atime)?, mtime: time(set.deleg_mtime)? }))
}

impl<M: MetadataService, B: BlockService> Compound<M, B> {
    /// Whether the client can be asked to return what it is given.
    pub(super) fn has_path(&self, client: ClientId) -> bool {
        match &self.identity {
            Identity::Slot { turn, .. } => {
                turn.session().back.has_path() || self.engine.v4.sessions.any_path(client)
            }
            Identity::Request(_) | Identity::None => {
                self.engine.has_path_40(client, self.call.local.ip().to_canonical())
            }
        }
    }

    /// The delegation to ask the store for with an OPEN.
    pub(crate) fn wish(&self, asked: &Asked, client: ClientId) -> Option<DelegationWish> {
        let want = if self.minor == 0 { Want::NoPreference } else { Want::of(asked.access)? };
        let secs = self.engine.meta().now().secs;
        let history = &self.engine.v4.delegations.history;
        let kind = match asked.file {
            Some(ino) => history.of_open(want, asked.writes, ino, client, secs)?,
            None if want == Want::NoPreference => return None,
            None => want.kind(asked.writes)?,
        };
        if !self.has_path(client) {
            return None;
        }
        let wants = |bit: u32| self.minor >= 2 && asked.access & bit != 0;
        Some(DelegationWish {
            kind,
            timestamps: wants(share_access::WANT_DELEG_TIMESTAMPS),
            instead_of_open: wants(share_access::WANT_OPEN_XOR_DELEGATION),
            export: asked.export,
        })
    }

    /// What OPEN and WANT_DELEGATION say of the delegation.
    pub(crate) fn delegation_told(
        &self,
        access: u32,
        outcome: &DelegationOutcome,
        attr: &Attr,
    ) -> OpenDelegation4 {
        use OpenDelegation4 as D;
        let want = Want::of(access).filter(|_| self.minor > 0).unwrap_or(Want::NoPreference);
        let why = match outcome {
            DelegationOutcome::Given { stateid, kind, timestamps } => {
                let stateid = self.wire_stateid(*stateid);
                let permissions = permissions(attr, *kind);
                match (kind, want) {
                    // It has another already (§18.16.3).
                    (DelegationKind::Read, Want::Write) => WhyNoDelegation4::NotSuppUpgrade,
                    (DelegationKind::Write, Want::Read) => WhyNoDelegation4::NotSuppDowngrade,
                    (DelegationKind::Write, _) => {
                        // There is no quota to run into; data that find no room are told by WRITE and COMMIT.
                        let space_limit = SpaceLimit4::Size(FILE_SIZE_MAX);
                        let it = WriteDelegation4 { stateid, recall: false, space_limit, permissions };
                        return if *timestamps { D::WriteAttrs(it) } else { D::Write(it) };
                    }
                    (DelegationKind::Read | DelegationKind::Directory, _) => {
                        let it = ReadDelegation4 { stateid, recall: false, permissions };
                        return if *timestamps { D::ReadAttrs(it) } else { D::Read(it) };
                    }
                }
            }
            _ if access & share_access::WANT_DELEG_MASK == share_access::WANT_CANCEL => {
                WhyNoDelegation4::Cancelled
            }
            DelegationOutcome::Contention => WhyNoDelegation4::Contention(false),
            DelegationOutcome::Resource | DelegationOutcome::NotAsked => WhyNoDelegation4::Resource(false),
        };
        match want {
            Want::NoPreference => D::None,
            Want::No if !matches!(why, WhyNoDelegation4::Cancelled) => {
                D::NoneExt(WhyNoDelegation4::NotWanted)
            }
            _ => D::NoneExt(why),
        }
    }

    /// Takes note of a delegation that was given.
    pub(crate) fn note_delegation(&self, outcome: &DelegationOutcome) {
        match outcome {
            DelegationOutcome::Given { stateid, .. } => self.engine.v4.delegations.given(stateid.id),
            DelegationOutcome::Resource => self.make_room(),
            DelegationOutcome::NotAsked | DelegationOutcome::Contention => {}
        }
    }

    /// The client has as many as it may: it is asked to return those that it needs least (§20.6).
    fn make_room(&self) {
        let Some(client) = self.asking().filter(|_| self.minor > 0) else { return };
        let engine = self.engine.clone();
        if engine.v4.delegations.may_recall_any(client) {
            tokio::spawn(async move { engine.recall_any(client).await });
        }
    }

    pub(crate) async fn delegation_return(&mut self, args: &DelegReturn4Args) -> Done<()> {
        let node = self.node(NfsStat4::BadStateId)?;
        let response = match self.known().await? {
            Some(response) => response,
            None => {
                let delegation = self.stateid_of(&args.deleg_stateid)?;
                let client = match self.client {
                    Some(client) => client,
                    None => self.holder(&args.deleg_stateid).await?.0,
                };
                self.acts_for = Some(client);
                let op = Op::State(StateOp::Return { client, delegation });
                let response = self.change(Cred::root(), op).await?;
                self.engine.v4.delegations.ended(node.handle.ino, delegation.id);
                if self.engine.v4.delegations.has_revoked(client) {
                    self.engine.look_at_revoked(client).await;
                }
                response
            }
        };
        match &response.result {
            Ok(_) => Ok(()),
            Err(e) => Err(status::of(*e).into()),
        }
    }

    /// Asks the store for a delegation without an OPEN.
    async fn delegate(&mut self, node: &Node, wish: DelegationWish) -> Done<DelegationOutcome> {
        let client = self.client.ok_or(NfsStat4::OpNotInSession)?;
        let (ino, generation) = (node.handle.ino, node.handle.generation);
        let cred = self.cred(&node.export).await;
        let op = Op::State(StateOp::Delegate { client, ino, generation, wish });
        let response = self.change(cred, op).await?;
        self.delegated(response)
    }

    /// The same of a directory, with notices.
    async fn delegate_directory(
        &mut self,
        node: &Node,
        client: ClientId,
        notices: NoticeKinds,
    ) -> Done<DelegationOutcome> {
        let (ino, generation, export) = (node.handle.ino, node.handle.generation, node.export.id);
        if notices == NoticeKinds::NONE {
            let kind = DelegationKind::Directory;
            let wish = DelegationWish { kind, timestamps: false, instead_of_open: false, export };
            return self.delegate(node, wish).await;
        }
        let cred = self.cred(&node.export).await;
        let op = Op::State(StateOp::DelegateDirectory { client, ino, generation, export, notices });
        let response = self.change(cred, op).await?;
        self.delegated(response)
    }

    fn delegated(&self, response: Arc<Response>) -> Done<DelegationOutcome> {
        match &response.result {
            Ok(Outcome::State(StateOutcome::Delegation(outcome))) => Ok(*outcome),
            Ok(other) => unreachable!("a request for a delegation ended as {other:?}"),
            Err(e) => Err(status::of(*e).into()),
        }
    }

    /// WANT_DELEGATION: what cannot be given now is not given later, either.
    pub(crate) async fn want_delegation(&mut self, args: &WantDelegation4Args) -> Done<OpenDelegation4> {
        let node = self.node(NfsStat4::WrongType)?;
        let want = Want::of(args.want).ok_or(NfsStat4::Inval)?;
        if want == Want::NoPreference {
            return Err(NfsStat4::Inval.into());
        }
        let known = self.known().await?.map(|response| self.delegated(response));
        let attr = self.node_attr(&node).await?;
        let none = |why| Ok(OpenDelegation4::NoneExt(why));
        let outcome = match known {
            Some(known) => known,
            None => {
                match args.claim {
                    DelegClaim4::Fh => {}
                    // Nothing was lost, so there is nothing to reclaim.
                    DelegClaim4::Previous(_) => return Err(NfsStat4::NoGrace.into()),
                    DelegClaim4::DelegPrevFh => return Err(NfsStat4::NotSupp.into()),
                }
                match (attr.kind, want) {
                    (FileKind::Directory, _) => return Err(NfsStat4::WrongType.into()),
                    (FileKind::Regular, _) => {}
                    (_, Want::Write) => return none(WhyNoDelegation4::WriteDelegNotSuppFtype),
                    _ => return none(WhyNoDelegation4::NotSuppFtype),
                }
                let client = self.client.ok_or(NfsStat4::OpNotInSession)?;
                let cancels = args.want & share_access::WANT_DELEG_MASK == share_access::WANT_CANCEL;
                let Some(kind) = want.kind(false) else {
                    let why = if cancels { WhyNoDelegation4::Cancelled } else { WhyNoDelegation4::NotWanted };
                    return none(why);
                };
                let delegations = &self.engine.v4.delegations;
                if delegations.history.was_recalled(attr.ino, self.engine.meta().now().secs) {
                    return none(WhyNoDelegation4::Contention(false));
                }
                if !self.has_path(client) {
                    return none(WhyNoDelegation4::Resource(false));
                }
                if kind == DelegationKind::Write {
                    Self::check_writable(&node)?;
                }
                let timestamps = self.minor >= 2 && args.want & share_access::WANT_DELEG_TIMESTAMPS != 0;
                let export = node.export.id;
                let wish = DelegationWish { kind, timestamps, instead_of_open: false, export };
                self.delegate(&node, wish).await
            }
        };
        let outcome = match outcome {
            // There is no status for it (§15.2).
            Err(Halt::Status(NfsStat4::Access)) => return none(WhyNoDelegation4::Resource(false)),
            other => other?,
        };
        self.note_delegation(&outcome);
        Ok(self.delegation_told(args.want, &outcome, &attr))
    }

    /// GET_DIR_DELEGATION: recalled when others change the directory, but for changes of entries that the client wants to be told of. Of attributes nobody
    /// is told, which is the server's choice (§18.39.3).
    pub(crate) async fn get_dir_delegation(
        &mut self,
        args: &GetDirDelegation4Args,
    ) -> Done<GetDirDelegation4Ok> {
        let unavailable = Ok(GetDirDelegation4Ok::Unavailable(false));
        let wanted = |kind| args.notification_types.contains(kind);
        let notices = NoticeKinds {
            adds: wanted(notify_type::ADD_ENTRY),
            removes: wanted(notify_type::REMOVE_ENTRY),
            renames: wanted(notify_type::RENAME_ENTRY),
        };
        let Ok(node) = self.node(NfsStat4::NotSupp) else {
            self.object()?;
            return unavailable;
        };
        let known = match self.known().await? {
            Some(response) => Some(self.delegated(response)?),
            None => None,
        };
        let outcome = match known {
            Some(known) => known,
            None => {
                let attr = self.node_attr(&node).await?;
                if attr.kind != FileKind::Directory {
                    return Err(NfsStat4::NotDir.into());
                }
                let client = self.client.ok_or(NfsStat4::OpNotInSession)?;
                let secs = self.engine.meta().now().secs;
                if self.engine.v4.delegations.history.was_recalled(attr.ino, secs) || !self.has_path(client) {
                    return unavailable;
                }
                self.delegate_directory(&node, client, notices).await?
            }
        };
        let DelegationOutcome::Given { stateid, .. } = outcome else { return unavailable };
        self.note_delegation(&outcome);
        let stateid = self.wire_stateid(stateid);
        self.stateid = Some(stateid);
        Ok(GetDirDelegation4Ok::Granted(DirDelegation4 {
            cookieverf: cookie_verifier(&node.handle),
            stateid,
            notification: args.notification_types.and(&Bitmap::of(&SERVED)),
            child_attributes: Bitmap::EMPTY,
            dir_attributes: Bitmap::EMPTY,
        }))
    }

    /// The times that the holder of a delegation kept (RFC 9754 §5). `None` if the SETATTR is about something else.
    pub(crate) async fn set_delegated_times(
        &mut self,
        node: &Node,
        args: &SetAttr4Args,
    ) -> Done<Option<Arc<Response>>> {
        if self.minor < 2 {
            return Ok(None);
        }
        let Some(HeldTimes { atime, mtime }) = delegated_times(args)? else { return Ok(None) };
        let client = self.client.ok_or(NfsStat4::OpNotInSession)?;
        let delegation = self.stateid_of(&args.stateid)?;
        let engine = self.engine.clone();
        let _settled = engine.settle(node.handle.ino).await;
        if atime.is_some() {
            engine.touches.forget(node.handle.ino).await;
        }
        let op = Op::State(StateOp::DelegatedTimes { client, delegation, atime, mtime });
        self.change(Cred::root(), op).await.map(Some)
    }
}
