//! REMOVE, RMDIR, RENAME, LINK (RFC 1813 §3.3.12–15).

use super::{Result3, attempt, names};
use crate::engine::once::Begun;
use crate::engine::{Engine, attrs, status};
use crate::rpc::RpcCall;
use atoll_base::block::BlockService;
use atoll_base::id::Ino;
use atoll_meta::{MetadataService, OnceKey, Op, RemoveKind, Response};
use atoll_proto::nfs3::{
    DirOpArgs3, Failure, Link3Args, Link3Ok, Link3Res, NfsStat3, Remove3Args, Removed3Ok, Removed3Res,
    Rename3Args, Rename3Res, RenameWcc, RmDir3Args, WccData,
};
use std::sync::Arc;

fn removed_reply(dir: Ino, response: &Response) -> Removed3Res {
    let dir_wcc = attrs::wcc(response.change_of(dir));
    match response.result {
        Ok(_) => Ok(Removed3Ok { dir_wcc }),
        Err(e) => Err(Failure { status: status::of(e), detail: dir_wcc }),
    }
}

fn renamed_reply(from: Ino, to: Ino, response: &Response) -> Rename3Res {
    let wcc = RenameWcc {
        from_dir_wcc: attrs::wcc(response.change_of(from)),
        to_dir_wcc: attrs::wcc(response.change_of(to)),
    };
    match response.result {
        Ok(_) => Ok(wcc),
        Err(e) => Err(Failure { status: status::of(e), detail: wcc }),
    }
}

fn linked_reply(file: Ino, dir: Ino, response: &Response) -> Link3Res {
    let both = Link3Ok {
        file_attributes: response.change_of(file).map(|c| attrs::fattr(&c.after)),
        link_dir_wcc: attrs::wcc(response.change_of(dir)),
    };
    match response.result {
        Ok(_) => Ok(both),
        Err(e) => Err(Failure { status: status::of(e), detail: both }),
    }
}

impl<M: MetadataService, B: BlockService> Engine<M, B> {
    pub(super) async fn remove(
        self: &Arc<Self>,
        call: &RpcCall,
        key: OnceKey,
        args: Remove3Args,
    ) -> Result3<Removed3Ok, WccData> {
        let checked = names::check(&args.object.name).and_then(|()| {
            // The aliases are directories (§3.3.12 leaves them to RMDIR).
            if names::is_dot(&args.object.name) { Err(NfsStat3::IsDir) } else { Ok(()) }
        });
        self.unlink(call, key, args.object, RemoveKind::NonDirectory, checked).await
    }

    pub(super) async fn rmdir(
        self: &Arc<Self>,
        call: &RpcCall,
        key: OnceKey,
        args: RmDir3Args,
    ) -> Result3<Removed3Ok, WccData> {
        let checked = names::check(&args.object.name).and_then(|()| match &args.object.name[..] {
            // §3.3.13
            b"." => Err(NfsStat3::Inval),
            b".." => Err(NfsStat3::Exist),
            _ => Ok(()),
        });
        self.unlink(call, key, args.object, RemoveKind::Directory, checked).await
    }

    async fn unlink(
        self: &Arc<Self>,
        call: &RpcCall,
        key: OnceKey,
        at: DirOpArgs3,
        kind: RemoveKind,
        checked: Result<(), NfsStat3>,
    ) -> Result3<Removed3Ok, WccData> {
        let _running = match self.begin(key).await? {
            Begun::Fresh(running) => running,
            Begun::Known(response) => {
                let dir = attempt!(self.handle_key.open(at.dir.as_slice()).map_err(|_| NfsStat3::BadHandle));
                return Ok(removed_reply(dir.ino, &response));
            }
        };
        let node = attempt!(self.admit(&at.dir, call).await);
        let dir = node.handle.ino;
        if let Err(status) = checked.and(Self::check_writable(&node.export)) {
            return Ok(Err(Failure { status, detail: self.wcc_now(dir).await }));
        }
        let cred = self.cred(&node.export, &call.credential).await;
        // A file that goes with this name takes its dirty data along; one with other names must have them first.
        let _settled = self.settle_linked(dir, &at.name).await;
        let op = Op::Remove { dir, name: at.name.into_bytes(), kind };
        let response = attempt!(self.execute_request(key, cred, op).await);
        Ok(removed_reply(dir, &response))
    }

    pub(super) async fn rename(
        self: &Arc<Self>,
        call: &RpcCall,
        key: OnceKey,
        args: Rename3Args,
    ) -> Result3<RenameWcc, RenameWcc> {
        let open = |dir: &atoll_proto::nfs3::FileHandle| self.handle_key.open(dir.as_slice());
        let _running = match self.begin(key).await? {
            Begun::Fresh(running) => running,
            Begun::Known(response) => {
                let (Ok(from), Ok(to)) = (open(&args.from.dir), open(&args.to.dir)) else {
                    return Ok(Err(NfsStat3::BadHandle.into()));
                };
                return Ok(renamed_reply(from.ino, to.ino, &response));
            }
        };
        let from = attempt!(self.admit(&args.from.dir, call).await);
        let to = attempt!(self.admit(&args.to.dir, call).await);
        let (from_dir, to_dir) = (from.handle.ino, to.handle.ino);
        let checked = names::check(&args.from.name)
            .and(names::check(&args.to.name))
            .and_then(|()| {
                let aliases = names::is_dot(&args.from.name) || names::is_dot(&args.to.name);
                if aliases { Err(NfsStat3::Inval) } else { Ok(()) }
            })
            .and(Self::check_writable(&from.export))
            .and(Self::check_writable(&to.export))
            .and_then(|()| {
                // Two exports of one volume may have different rules; clients see two file systems.
                if from.export.id == to.export.id { Ok(()) } else { Err(NfsStat3::XDev) }
            });
        if let Err(status) = checked {
            let detail = RenameWcc {
                from_dir_wcc: self.wcc_now(from_dir).await,
                to_dir_wcc: self.wcc_now(to_dir).await,
            };
            return Ok(Err(Failure { status, detail }));
        }
        let cred = self.cred(&from.export, &call.credential).await;
        let _settled = self.settle_rename((from_dir, &args.from.name), (to_dir, &args.to.name)).await;
        let op = Op::Rename {
            from_dir,
            from_name: args.from.name.into_bytes(),
            to_dir,
            to_name: args.to.name.into_bytes(),
        };
        let response = attempt!(self.execute_request(key, cred, op).await);
        Ok(renamed_reply(from_dir, to_dir, &response))
    }

    pub(super) async fn link(
        self: &Arc<Self>,
        call: &RpcCall,
        key: OnceKey,
        args: Link3Args,
    ) -> Result3<Link3Ok, Link3Ok> {
        let open = |handle: &atoll_proto::nfs3::FileHandle| self.handle_key.open(handle.as_slice());
        let _running = match self.begin(key).await? {
            Begun::Fresh(running) => running,
            Begun::Known(response) => {
                let (Ok(file), Ok(dir)) = (open(&args.file), open(&args.link.dir)) else {
                    return Ok(Err(NfsStat3::BadHandle.into()));
                };
                return Ok(linked_reply(file.ino, dir.ino, &response));
            }
        };
        let file = attempt!(self.admit(&args.file, call).await);
        let dir = attempt!(self.admit(&args.link.dir, call).await);
        let checked = names::check_new(&args.link.name)
            .and(Self::check_writable(&file.export))
            .and(Self::check_writable(&dir.export))
            .and_then(|()| if file.export.id == dir.export.id { Ok(()) } else { Err(NfsStat3::XDev) });
        if let Err(status) = checked {
            let detail = Link3Ok {
                file_attributes: self.node_attr(&file).await.ok().as_ref().map(attrs::fattr),
                link_dir_wcc: self.wcc_now(dir.handle.ino).await,
            };
            return Ok(Err(Failure { status, detail }));
        }
        let cred = self.cred(&file.export, &call.credential).await;
        let (ino, generation) = (file.handle.ino, file.handle.generation);
        let _settled = self.settle(ino).await;
        let op = Op::Link { ino, generation, dir: dir.handle.ino, name: args.link.name.into_bytes() };
        let response = attempt!(self.execute_request(key, cred, op).await);
        Ok(linked_reply(ino, dir.handle.ino, &response))
    }
}
