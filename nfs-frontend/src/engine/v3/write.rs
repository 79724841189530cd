//! WRITE and COMMIT (RFC 1813 §3.3.7, §3.3.21).

use super::{Result3, attempt};
use crate::engine::once::Begun;
use crate::engine::{Engine, attrs, status};
use crate::rpc::RpcCall;
use atoll_base::attr::FileKind;
use atoll_base::block::BlockService;
use atoll_base::id::Ino;
use atoll_base::limits::{FILE_SIZE_MAX, IO_MAX};
use atoll_meta::{MetadataService, OnceKey, Outcome, Response};
use atoll_proto::nfs3::{
    Commit3Args, Commit3Ok, Failure, NfsStat3, StableHow, WccData, Write3Args, Write3Ok, Write3Res,
};
use std::sync::Arc;

/// The reply to WRITE, from the call and its outcome alone. What was asked to be UNSTABLE is answered so even if it was
/// written through: the outcome does not say which, and the verifier is right for both.
fn write_reply(ino: Ino, asked: StableHow, count: u32, response: &Response) -> Write3Res {
    let file_wcc = attrs::wcc(response.change_of(ino));
    match &response.result {
        Ok(Outcome::Written { verifier }) => {
            let committed = match asked {
                StableHow::Unstable => StableHow::Unstable,
                StableHow::DataSync | StableHow::FileSync => StableHow::FileSync,
            };
            Ok(Write3Ok { file_wcc, count, committed, verf: verifier.to_be_bytes() })
        }
        Ok(other) => unreachable!("a write ended as {other:?}"),
        Err(e) => Err(Failure { status: status::of(*e), detail: file_wcc }),
    }
}

impl<M: MetadataService, B: BlockService> Engine<M, B> {
    pub(super) async fn write(
        self: &Arc<Self>,
        call: &RpcCall,
        key: OnceKey,
        args: Write3Args,
    ) -> Result3<Write3Ok, WccData> {
        let mut data = args.data.into_bytes();
        let sent = data.len();
        data.truncate(IO_MAX as usize);
        let count = data.len() as u32;
        let _running = match self.begin(key).await? {
            Begun::Fresh(running) => running,
            Begun::Known(response) => {
                let handle =
                    attempt!(self.handle_key.open(args.file.as_slice()).map_err(|_| NfsStat3::BadHandle));
                return Ok(write_reply(handle.ino, args.stable, count, &response));
            }
        };
        let node = attempt!(self.admit(&args.file, call).await);
        let ino = node.handle.ino;
        let checked = Self::check_writable(&node.export).and_then(|()| {
            if args.count as usize != sent {
                return Err(NfsStat3::Inval);
            }
            match args.offset.checked_add(u64::from(count)) {
                Some(end) if end <= FILE_SIZE_MAX => Ok(()),
                _ => Err(NfsStat3::FBig),
            }
        });
        if let Err(status) = checked {
            return Ok(Err(Failure { status, detail: self.wcc_now(ino).await }));
        }
        let cred = self.cred(&node.export, &call.credential).await;
        let written = if data.is_empty() {
            self.write_nothing(&node, &cred).await
        } else if args.stable == StableHow::Unstable {
            self.write_unstable(&node, &cred, None, args.offset, data, key.into()).await
        } else {
            let (ino, generation) = (node.handle.ino, node.handle.generation);
            self.write_stable(ino, generation, &cred, None, args.offset, data, key.into()).await.map(Arc::new)
        };
        let reply = write_reply(ino, args.stable, count, &*attempt!(written));
        if reply.is_ok() {
            self.stats.written(u64::from(count));
        }
        Ok(reply)
    }

    pub(super) async fn commit(
        self: &Arc<Self>,
        call: &RpcCall,
        _repeatable: OnceKey,
        args: Commit3Args,
    ) -> Result3<Commit3Ok, WccData> {
        let node = attempt!(self.admit(&args.file, call).await);
        let ino = node.handle.ino;
        let verifier = match self.commit_file(ino, args.offset, args.count).await {
            Ok(verifier) => verifier,
            Err(e) => {
                return Ok(Err(Failure { status: status::for_commit(e), detail: self.wcc_now(ino).await }));
            }
        };
        let attr = attempt!(self.node_attr(&node).await);
        match attr.kind {
            FileKind::Regular => {}
            FileKind::Directory => {
                let detail = attrs::wcc_unchanged(&attr);
                return Ok(Err(Failure { status: NfsStat3::IsDir, detail }));
            }
            _ => return Ok(Err(Failure { status: NfsStat3::Inval, detail: attrs::wcc_unchanged(&attr) })),
        }
        Ok(Ok(Commit3Ok { file_wcc: attrs::wcc_unchanged(&attr), verf: verifier.to_be_bytes() }))
    }
}
