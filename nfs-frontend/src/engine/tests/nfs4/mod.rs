//! NFSv4 through the engine's entry point: COMPOUNDs encoded as clients do it, results decoded as they read them.

mod acls;
mod attributes;
mod callbacks;
mod conformance;
mod labels;
mod namespace;

use super::world::World;
use atoll_proto::nfs4::{
    ArgOp4, Bitmap, CbClient4, CbSecParms4, ChannelAttrs4, ClientOwner4, Compound4Args, Compound4Res,
    CreateHow4, CreateSession4Args, ExchangeId4Args, Fattr4, FileHandle, Identity, Name4, NetAddr4,
    Open4Args, Open4Ok, OpenClaim4, OpenConfirm4Args, OpenFlag4, PutFh4Args, ResOp4, Sequence4Args,
    SessionId4, SetClientId4Args, SetClientIdConfirm4Args, StateId4, StateOwner4, StateProtect4Args, Text4,
    call,
};
use atoll_xdr::Array;

/// Sends a COMPOUND.
async fn compound(w: &World, minorversion: u32, ops: Vec<ArgOp4>) -> Compound4Res {
    let args = Compound4Args { tag: Default::default(), minorversion, ops: Array::new(ops).unwrap() };
    w.call::<call::Compound>(args).await
}

fn identity(text: &str) -> Identity {
    Identity::copy_from(text.as_bytes()).unwrap()
}

fn name(text: &str) -> Name4 {
    Name4::copy_from(text.as_bytes()).unwrap()
}

/// A client of v4.0 with one open owner.
struct Client40<'w> {
    w: &'w World,
    id: u64,
    seqid: u32,
}

impl<'w> Client40<'w> {
    async fn new(w: &'w World, owner: &str) -> Self {
        Self::with_verifier(w, owner, [1; 8]).await
    }

    async fn with_verifier(w: &'w World, owner: &str, verifier: [u8; 8]) -> Self {
        Self::with_callback(w, owner, verifier, "").await
    }

    /// One that can be called at a universal address.
    async fn with_callback(w: &'w World, owner: &str, verifier: [u8; 8], address: &str) -> Self {
        let args = SetClientId4Args {
            client: ClientOwner4 { verifier, ownerid: identity(owner) },
            callback: CbClient4 {
                cb_program: 1,
                cb_location: NetAddr4 {
                    netid: Text4::from_static(b"tcp"),
                    addr: Text4::copy_from(address.as_bytes()).unwrap(),
                },
            },
            callback_ident: 77,
        };
        let res = compound(w, 0, vec![ArgOp4::SetClientId(args)]).await;
        let Some(ResOp4::SetClientId(Ok(set))) = res.ops.last() else { panic!("{res:?}") };
        let confirm =
            SetClientIdConfirm4Args { clientid: set.clientid, setclientid_confirm: set.setclientid_confirm };
        let id = set.clientid;
        let res = compound(w, 0, vec![ArgOp4::SetClientIdConfirm(confirm)]).await;
        assert_eq!(res.status, Ok(()));
        Self { w, id, seqid: 0 }
    }

    /// Sends a COMPOUND.
    async fn send(&self, ops: Vec<ArgOp4>) -> Compound4Res {
        compound(self.w, 0, ops).await
    }

    fn next(&mut self) -> u32 {
        self.seqid += 1;
        self.seqid
    }

    /// Arguments of an OPEN in the root, as the owner's next step.
    fn open_args(&mut self, file: &str, access: u32, deny: u32, create: bool) -> ArgOp4 {
        let attrs = Fattr4 { mask: Bitmap::EMPTY, values: Default::default() };
        ArgOp4::Open(Box::new(Open4Args {
            seqid: self.next(),
            share_access: access,
            share_deny: deny,
            owner: StateOwner4 { clientid: self.id, owner: identity("owner") },
            openhow: if create {
                OpenFlag4::Create(CreateHow4::Unchecked(attrs))
            } else {
                OpenFlag4::NoCreate
            },
            claim: OpenClaim4::Null(name(file)),
        }))
    }

    /// Opens a file of the root, and confirms the owner if that is asked. Returns its handle and stateid.
    async fn open(&mut self, file: &str, access: u32, deny: u32) -> (FileHandle, StateId4) {
        let open = self.open_args(file, access, deny, true);
        let res = self.send(vec![ArgOp4::PutRootFh, open, ArgOp4::GetFh]).await;
        let [_, ResOp4::Open(Ok(Open4Ok { stateid, rflags, .. })), ResOp4::GetFh(Ok(fh))] = &res.ops[..]
        else {
            panic!("{res:?}")
        };
        let (mut stateid, fh) = (*stateid, fh.object);
        if rflags & atoll_proto::nfs4::open_result::CONFIRM != 0 {
            let seqid = self.next();
            let confirm = ArgOp4::OpenConfirm(OpenConfirm4Args { open_stateid: stateid, seqid });
            let res = self.send(vec![put(&fh), confirm]).await;
            let Some(ResOp4::OpenConfirm(Ok(confirmed))) = res.ops.last() else { panic!("{res:?}") };
            stateid = *confirmed;
        }
        (fh, stateid)
    }
}

/// A session of v4.1 with one slot.
struct Session41<'w> {
    w: &'w World,
    id: SessionId4,
    seqid: u32,
}

impl<'w> Session41<'w> {
    async fn new(w: &'w World, owner: &str) -> Self {
        let args = ExchangeId4Args {
            clientowner: ClientOwner4 { verifier: [1; 8], ownerid: identity(owner) },
            flags: 0,
            state_protect: StateProtect4Args::None,
            client_impl_id: None,
        };
        let res = compound(w, 1, vec![ArgOp4::ExchangeId(Box::new(args))]).await;
        let Some(ResOp4::ExchangeId(Ok(known))) = res.ops.last() else { panic!("{res:?}") };
        let channel = ChannelAttrs4 {
            headerpadsize: 0,
            maxrequestsize: 1 << 20,
            maxresponsesize: 1 << 20,
            maxresponsesize_cached: 4096,
            maxoperations: 16,
            maxrequests: 1,
            rdma_ird: None,
        };
        let args = CreateSession4Args {
            clientid: known.clientid,
            sequence: known.sequenceid,
            flags: 0,
            fore_chan_attrs: channel,
            back_chan_attrs: channel,
            cb_program: 1,
            sec_parms: Array::new(vec![CbSecParms4::None]).unwrap(),
        };
        let res = compound(w, 1, vec![ArgOp4::CreateSession(args)]).await;
        let Some(ResOp4::CreateSession(Ok(made))) = res.ops.last() else { panic!("{res:?}") };
        Self { w, id: made.sessionid, seqid: 0 }
    }

    /// Sends the slot's next request.
    async fn send(&mut self, ops: Vec<ArgOp4>) -> Compound4Res {
        let ops = self.next(ops);
        compound(self.w, 1, ops).await
    }

    /// The operations of the slot's next request.
    fn next(&mut self, mut ops: Vec<ArgOp4>) -> Vec<ArgOp4> {
        self.seqid += 1;
        let sequence = Sequence4Args {
            sessionid: self.id,
            sequenceid: self.seqid,
            slotid: 0,
            highest_slotid: 0,
            cachethis: true,
        };
        ops.insert(0, ArgOp4::Sequence(sequence));
        ops
    }
}

fn put(fh: &FileHandle) -> ArgOp4 {
    ArgOp4::PutFh(PutFh4Args { object: *fh })
}
