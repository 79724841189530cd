//! GETATTR, SETATTR, ACCESS, READLINK (RFC 1813 §3.3.1, §3.3.2, §3.3.4, §3.3.5).

use super::{Result3, attempt, fail, fail_with};
use crate::engine::once::Begun;
use crate::engine::{Engine, Interrupt, attrs, status};
use crate::rpc::RpcCall;
use atoll_base::access::{Cred, Granted, Perm};
use atoll_base::attr::{Attr, Delegated, FileKind, SetTime};
use atoll_base::block::BlockService;
use atoll_base::limits::FILE_SIZE_MAX;
use atoll_meta::{FsError, MetadataService, OnceKey, Op, Response};
use atoll_proto::nfs3::{
    Access3Args, Access3Ok, Failure, GetAttr3Args, GetAttr3Ok, NfsStat3, Path3, PostOpAttr, ReadLink3Args,
    ReadLink3Ok, SetAttr3Args, SetAttr3Ok, SetAttr3Res, WccData, access,
};
use std::sync::Arc;

/// The bits of ACCESS that mode bits or an access control list grant, within those asked for. What has no meaning for the type is not granted
/// (RFC 1813 §3.3.4).
pub(crate) fn access_granted(cred: &Cred, attr: &Attr, read_only: bool, asked: u32) -> u32 {
    let perm = Granted::new(cred, attr);
    let mut bits = 0;
    if perm.permits(Perm::READ) {
        bits |= access::READ;
    }
    if attr.kind == FileKind::Directory {
        if perm.permits(Perm::EXEC) {
            bits |= access::LOOKUP;
        }
        // Changing entries takes searching too. A list may let add, or remove; replacing takes both.
        if !read_only {
            let adds = perm.permits(Perm::ADD_FILE) || perm.permits(Perm::ADD_DIRECTORY);
            let deletes = perm.deletes();
            bits |= if adds { access::EXTEND } else { 0 };
            bits |= if deletes { access::DELETE } else { 0 };
            bits |= if adds && deletes { access::MODIFY } else { 0 };
        }
    } else {
        if perm.permits(Perm::EXEC) {
            bits |= access::EXECUTE;
        }
        // A device or fifo on a read-only export is written to on the client, not here.
        let writable = !read_only || !matches!(attr.kind, FileKind::Regular);
        if perm.permits(Perm::WRITE) && writable {
            bits |= access::MODIFY | access::EXTEND;
        } else if perm.permits(Perm::APPEND) && writable {
            bits |= access::EXTEND;
        }
    }
    bits & asked
}

/// The reply to SETATTR, from its outcome alone.
fn setattr_reply(ino: atoll_base::id::Ino, response: &Response) -> SetAttr3Res {
    let obj_wcc = attrs::wcc(response.change_of(ino));
    match response.result {
        Ok(_) => Ok(SetAttr3Ok { obj_wcc }),
        Err(e) => Err(Failure { status: status::for_setattr(e), detail: obj_wcc }),
    }
}

impl<M: MetadataService, B: BlockService> Engine<M, B> {
    pub(super) async fn getattr(&self, call: &RpcCall, args: &GetAttr3Args) -> Result3<GetAttr3Ok, ()> {
        let node = attempt!(self.admit(&args.object, call).await);
        let attr = attempt!(self.node_attr(&node).await);
        let attr = self.with_holder(attr).await?;
        Ok(Ok(GetAttr3Ok { obj_attributes: attrs::fattr(&attr) }))
    }

    pub(super) async fn access(&self, call: &RpcCall, args: &Access3Args) -> Result3<Access3Ok, PostOpAttr> {
        let node = attempt!(self.admit(&args.object, call).await);
        let attr = attempt!(self.node_attr(&node).await);
        let attr = self.with_holder(attr).await?;
        let cred = self.cred(&node.export, &call.credential).await;
        let access = access_granted(&cred, &attr, node.export.spec.read_only, args.access);
        Ok(Ok(Access3Ok { obj_attributes: Some(attrs::fattr(&attr)), access }))
    }

    /// Attributes as they are with what the holder of a write delegation has done.
    pub(super) async fn with_holder(&self, attr: Attr) -> Result<Attr, Interrupt> {
        if attr.delegated != Delegated::Write {
            return Ok(attr);
        }
        Box::pin(self.as_held(attr, None)).await.map_err(Interrupt::Delegated)
    }

    pub(super) async fn readlink(
        &self,
        call: &RpcCall,
        args: &ReadLink3Args,
    ) -> Result3<ReadLink3Ok, PostOpAttr> {
        let node = attempt!(self.admit(&args.symlink, call).await);
        match self.meta.readlink(node.handle.ino).await {
            Ok((mut attr, target)) => {
                attempt!(crate::engine::resolve::same_object(&node.handle, &attr));
                self.touches.overlay(&mut attr);
                self.accessed(&node.export, &mut attr);
                let Ok(data) = Path3::new(target) else { return fail_with(NfsStat3::Io, Some(&attr)) };
                Ok(Ok(ReadLink3Ok { symlink_attributes: Some(attrs::fattr(&attr)), data }))
            }
            Err(e @ (FsError::WrongType | FsError::Invalid)) => {
                fail_with(e, self.node_attr(&node).await.ok().as_ref())
            }
            Err(e) => fail(e),
        }
    }

    pub(super) async fn setattr(
        self: &Arc<Self>,
        call: &RpcCall,
        key: OnceKey,
        args: SetAttr3Args,
    ) -> Result3<SetAttr3Ok, WccData> {
        let _running = match self.begin(key).await? {
            Begun::Fresh(running) => running,
            Begun::Known(response) => {
                let handle =
                    attempt!(self.handle_key.open(args.object.as_slice()).map_err(|_| NfsStat3::BadHandle));
                return Ok(setattr_reply(handle.ino, &response));
            }
        };
        let node = attempt!(self.admit(&args.object, call).await);
        let checked = Self::check_writable(&node.export)
            .and_then(|()| {
                let guard = args.guard.map(attrs::timestamp).transpose()?;
                Ok((attrs::set_attr(&args.new_attributes)?, guard))
            })
            .and_then(|checked| match checked.0.size {
                Some(size) if size > FILE_SIZE_MAX => Err(NfsStat3::Inval),
                _ => Ok(checked),
            });
        let (set, guard) = match checked {
            Ok(checked) => checked,
            Err(status) => {
                return Ok(Err(Failure { status, detail: self.wcc_now(node.handle.ino).await }));
            }
        };
        let cred = self.cred(&node.export, &call.credential).await;
        let (ino, generation) = (node.handle.ino, node.handle.generation);
        let _settled = self.settle(ino).await;
        if set.atime != SetTime::Keep {
            self.touches.forget(ino).await;
        }
        let op = Op::SetAttr { ino, generation, set, guard };
        let response = attempt!(self.execute_request(key, cred, op).await);
        Ok(setattr_reply(ino, &response))
    }
}
