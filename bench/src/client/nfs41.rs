//! NFSv4.1 in one session (RFC 8881 §2.10), for preparing what is measured: COMPOUNDs one after the other.

use std::net::SocketAddr;

use atoll_proto::nfs4::{
    ArgOp4, Bitmap, CbSecParms4, ChannelAttrs4, ClientOwner4, Compound4Args, Compound4Res,
    CreateSession4Args, ExchangeId4Args, FileHandle, Identity, Lookup4Args, Name4, Open4Args, OpenClaim4,
    OpenFlag4, PutFh4Args, ReclaimComplete4Args, ResOp4, Sequence4Args, SessionId4, StateId4, StateOwner4,
    StateProtect4Args, call, share_access,
};
use atoll_proto::rpc::OpaqueAuth;
use atoll_xdr::Array;

use super::{Nfs3Error, Nfs3Result, RpcClient, RpcError};

/// A client with a session of one slot for itself, and others for the load generator.
#[derive(Debug)]
pub struct Nfs41Client {
    rpc: RpcClient,
    credential: OpaqueAuth,
    client: u64,
    /// Number of the next CREATE_SESSION.
    sequence: u32,
    session: SessionId4,
    seqid: u32,
}

/// Attributes that the Linux client asks for with nearly every COMPOUND.
pub fn usual_attributes() -> Bitmap {
    // type change size fsid fileid mode numlinks owner group rawdev space_used atime ctime mtime mounted_on_fileid
    Bitmap::of(&[1, 3, 4, 8, 20, 33, 35, 36, 37, 41, 45, 47, 52, 53, 55])
}

fn wrong(what: &'static str) -> impl Fn(Compound4Res) -> Nfs3Error {
    move |res| {
        eprintln!("{what}: {res:?}");
        Nfs3Error::Wrong(what)
    }
}

async fn send(rpc: &RpcClient, credential: &OpaqueAuth, ops: Vec<ArgOp4>) -> Nfs3Result<Compound4Res> {
    let args = Compound4Args { tag: Default::default(), minorversion: 1, ops: Array::new(ops)? };
    Ok(rpc.call::<call::Compound>(credential, &args).await?)
}

impl Nfs41Client {
    /// Connects and sets itself up under a name that nobody used before.
    pub async fn connect(server: SocketAddr, credential: OpaqueAuth, name: &str) -> Nfs3Result<Self> {
        let rpc = RpcClient::connect(server).await.map_err(RpcError::from)?;
        let args = ExchangeId4Args {
            clientowner: ClientOwner4 { verifier: [1; 8], ownerid: Identity::copy_from(name.as_bytes())? },
            flags: 0,
            state_protect: StateProtect4Args::None,
            client_impl_id: None,
        };
        let res = send(&rpc, &credential, vec![ArgOp4::ExchangeId(Box::new(args))]).await?;
        let Some(ResOp4::ExchangeId(Ok(known))) = res.ops.last() else {
            return Err(wrong("EXCHANGE_ID failed")(res));
        };
        let (client, sequence) = (known.clientid, known.sequenceid);
        let mut this = Self { rpc, credential, client, sequence, session: [0; 16], seqid: 0 };
        this.session = this.session(1).await?;
        this.compound(vec![ArgOp4::ReclaimComplete(ReclaimComplete4Args { one_fs: false })]).await?;
        Ok(this)
    }

    /// The client id, which owners of opens and locks carry.
    pub fn id(&self) -> u64 {
        self.client
    }

    /// A session of its own for the load generator, with so many slots at least.
    pub async fn session(&mut self, slots: usize) -> Nfs3Result<SessionId4> {
        let slots = u32::try_from(slots).expect("slots are few");
        let channel = ChannelAttrs4 {
            headerpadsize: 0,
            maxrequestsize: (1 << 20) + (16 << 10),
            maxresponsesize: (1 << 20) + (16 << 10),
            maxresponsesize_cached: 4096,
            maxoperations: 8,
            maxrequests: slots,
            rdma_ird: None,
        };
        let args = CreateSession4Args {
            clientid: self.client,
            sequence: self.sequence,
            flags: 0,
            fore_chan_attrs: channel,
            back_chan_attrs: ChannelAttrs4 {
                maxrequestsize: 4096,
                maxresponsesize: 4096,
                maxrequests: 1,
                ..channel
            },
            cb_program: 0x4000_0000,
            sec_parms: Array::new(vec![CbSecParms4::None])?,
        };
        let res = send(&self.rpc, &self.credential, vec![ArgOp4::CreateSession(args)]).await?;
        match res.ops.last() {
            Some(ResOp4::CreateSession(Ok(made))) if made.fore_chan_attrs.maxrequests >= slots => {
                self.sequence = self.sequence.wrapping_add(1);
                Ok(made.sessionid)
            }
            Some(ResOp4::CreateSession(Ok(_))) => {
                Err(Nfs3Error::Wrong("a session has fewer slots than asked"))
            }
            _ => Err(wrong("CREATE_SESSION failed")(res)),
        }
    }

    /// Executes operations, all of which must succeed; their results.
    pub async fn compound(&mut self, mut ops: Vec<ArgOp4>) -> Nfs3Result<Vec<ResOp4>> {
        self.seqid += 1;
        let sequence = Sequence4Args {
            sessionid: self.session,
            sequenceid: self.seqid,
            slotid: 0,
            highest_slotid: 0,
            cachethis: false,
        };
        ops.insert(0, ArgOp4::Sequence(sequence));
        let res = send(&self.rpc, &self.credential, ops).await?;
        match res.status {
            Ok(()) => Ok(res.ops.into_iter().skip(1).collect()),
            Err(_) => Err(wrong("a COMPOUND failed")(res)),
        }
    }

    /// The object at a path from the root of the pseudo file system.
    pub async fn find(&mut self, path: &[&str]) -> Nfs3Result<FileHandle> {
        let mut ops = vec![ArgOp4::PutRootFh];
        for name in path {
            ops.push(ArgOp4::Lookup(Lookup4Args { objname: Name4::copy_from(name.as_bytes())? }));
        }
        ops.push(ArgOp4::GetFh);
        match self.compound(ops).await?.pop() {
            Some(ResOp4::GetFh(Ok(found))) => Ok(found.object),
            _ => Err(Nfs3Error::Wrong("GETFH without a handle")),
        }
    }

    /// Opens an existing file for reading and writing.
    pub async fn open(
        &mut self,
        dir: FileHandle,
        name: &str,
        owner: &[u8],
    ) -> Nfs3Result<(FileHandle, StateId4)> {
        let args = Open4Args {
            seqid: 0,
            share_access: share_access::BOTH | share_access::WANT_NO_DELEG,
            share_deny: 0,
            owner: StateOwner4 { clientid: self.client, owner: Identity::copy_from(owner)? },
            openhow: OpenFlag4::NoCreate,
            claim: OpenClaim4::Null(Name4::copy_from(name.as_bytes())?),
        };
        let ops =
            vec![ArgOp4::PutFh(PutFh4Args { object: dir }), ArgOp4::Open(Box::new(args)), ArgOp4::GetFh];
        match &self.compound(ops).await?[..] {
            [_, ResOp4::Open(Ok(open)), ResOp4::GetFh(Ok(found))] => Ok((found.object, open.stateid)),
            _ => Err(Nfs3Error::Wrong("OPEN without a handle")),
        }
    }
}
