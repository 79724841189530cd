//! CREATE, MKDIR, SYMLINK, MKNOD (RFC 1813 §3.3.8–11).

use super::{Result3, attempt, names};
use crate::engine::once::Begun;
use crate::engine::{Engine, Handle, attrs, status};
use crate::rpc::RpcCall;
use atoll_base::attr::{Device, FileKind, SetAttr};
use atoll_base::block::BlockService;
use atoll_base::limits::{FILE_SIZE_MAX, SYMLINK_MAX};
use atoll_meta::{CreateHow, MetadataService, NewNode, OnceKey, Op, Outcome, Response};
use atoll_proto::nfs3::{
    Create3Args, CreateHow3, CreatedOk, CreatedRes, DeviceData3, DirOpArgs3, Failure, MkDir3Args, MkNod3Args,
    MkNodData3, NfsStat3, Sattr3, SymLink3Args, WccData,
};
use std::sync::Arc;

/// What a request wants to be made, checked as far as that needs no state.
struct Making {
    node: NewNode,
    how: CreateHow,
    attrs: SetAttr,
}

impl Making {
    fn guarded(node: NewNode, attributes: &Sattr3) -> Result<Self, NfsStat3> {
        Ok(Self { node, how: CreateHow::Guarded, attrs: attrs::set_attr(attributes)? })
    }

    fn file(how: &CreateHow3) -> Result<Self, NfsStat3> {
        let (how, attributes) = match how {
            CreateHow3::Unchecked(attributes) => (CreateHow::Unchecked, *attributes),
            CreateHow3::Guarded(attributes) => (CreateHow::Guarded, *attributes),
            CreateHow3::Exclusive(verf) => (CreateHow::Exclusive(*verf), Sattr3::default()),
        };
        if attributes.size.is_some_and(|size| size > FILE_SIZE_MAX) {
            return Err(NfsStat3::Inval);
        }
        Ok(Self { node: NewNode::Regular, how, attrs: attrs::set_attr(&attributes)? })
    }

    fn symlink(args: &SymLink3Args) -> Result<Self, NfsStat3> {
        let target = args.symlink.data.as_bytes();
        if target.len() > SYMLINK_MAX {
            return Err(NfsStat3::NameTooLong);
        }
        if target.is_empty() || target.contains(&0) {
            return Err(NfsStat3::Inval);
        }
        Self::guarded(NewNode::Symlink(target.clone()), &args.symlink.attributes)
    }

    fn special(what: &MkNodData3) -> Result<Self, NfsStat3> {
        let device = |kind, d: &DeviceData3| {
            let device = Device { major: d.spec.major, minor: d.spec.minor };
            Self::guarded(NewNode::Special(kind, device), &d.attributes)
        };
        let plain = |kind, attributes| Self::guarded(NewNode::Special(kind, Device::default()), attributes);
        match what {
            MkNodData3::Block(d) => device(FileKind::BlockDevice, d),
            MkNodData3::Character(d) => device(FileKind::CharDevice, d),
            MkNodData3::Socket(attributes) => plain(FileKind::Socket, attributes),
            MkNodData3::Fifo(attributes) => plain(FileKind::Fifo, attributes),
            MkNodData3::Regular | MkNodData3::Directory | MkNodData3::SymLink => Err(NfsStat3::BadType),
        }
    }
}

impl<M: MetadataService, B: BlockService> Engine<M, B> {
    pub(super) async fn create(
        self: &Arc<Self>,
        call: &RpcCall,
        key: OnceKey,
        args: Create3Args,
    ) -> Result3<CreatedOk, WccData> {
        self.make(call, key, args.at, Making::file(&args.how)).await
    }

    pub(super) async fn mkdir(
        self: &Arc<Self>,
        call: &RpcCall,
        key: OnceKey,
        args: MkDir3Args,
    ) -> Result3<CreatedOk, WccData> {
        self.make(call, key, args.at, Making::guarded(NewNode::Directory, &args.attributes)).await
    }

    pub(super) async fn symlink(
        self: &Arc<Self>,
        call: &RpcCall,
        key: OnceKey,
        args: SymLink3Args,
    ) -> Result3<CreatedOk, WccData> {
        let making = Making::symlink(&args);
        self.make(call, key, args.at, making).await
    }

    pub(super) async fn mknod(
        self: &Arc<Self>,
        call: &RpcCall,
        key: OnceKey,
        args: MkNod3Args,
    ) -> Result3<CreatedOk, WccData> {
        self.make(call, key, args.at, Making::special(&args.what)).await
    }

    async fn make(
        self: &Arc<Self>,
        call: &RpcCall,
        key: OnceKey,
        at: DirOpArgs3,
        making: Result<Making, NfsStat3>,
    ) -> Result3<CreatedOk, WccData> {
        let _running = match self.begin(key).await? {
            Begun::Fresh(running) => running,
            Begun::Known(response) => {
                let dir = attempt!(self.handle_key.open(at.dir.as_slice()).map_err(|_| NfsStat3::BadHandle));
                return Ok(self.created_reply(&dir, &response));
            }
        };
        let node = attempt!(self.admit(&at.dir, call).await);
        let dir = node.handle.ino;
        let checked = names::check_new(&at.name).and(Self::check_writable(&node.export)).and(making);
        let making = match checked {
            Ok(making) => making,
            Err(status) => return Ok(Err(Failure { status, detail: self.wcc_now(dir).await })),
        };
        let cred = self.cred(&node.export, &call.credential).await;
        let device = matches!(making.node, NewNode::Special(FileKind::BlockDevice | FileKind::CharDevice, _));
        if device && !cred.is_superuser() {
            // mknod(2): a device takes privilege.
            return Ok(Err(Failure { status: NfsStat3::Perm, detail: self.wcc_now(dir).await }));
        }
        // UNCHECKED may meet, and truncate, a file with UNSTABLE data.
        let _settled = match making.how {
            CreateHow::Unchecked => self.settle_name(dir, &at.name).await,
            CreateHow::Guarded | CreateHow::Exclusive(_) => None,
        };
        let Making { node: new, how, attrs } = making;
        let op = Op::Create { dir, name: at.name.into_bytes(), node: new, how, attrs };
        let response = attempt!(self.execute_request(key, cred, op).await);
        Ok(self.created_reply(&node.handle, &response))
    }

    /// The reply, from the directory's handle and the outcome alone.
    fn created_reply(&self, dir: &Handle, response: &Response) -> CreatedRes {
        let dir_wcc = attrs::wcc(response.change_of(dir.ino));
        match &response.result {
            Ok(Outcome::Created { attr, .. }) => Ok(CreatedOk {
                object: Some(self.handle_of(dir, attr)),
                obj_attributes: Some(attrs::fattr(attr)),
                dir_wcc,
            }),
            Ok(other) => unreachable!("a creation ended as {other:?}"),
            Err(e) => Err(Failure { status: status::of(*e), detail: dir_wcc }),
        }
    }
}
