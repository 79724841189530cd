//! READ (RFC 1813 §3.3.6).

use super::{Result3, patiently};
use crate::engine::resolve::same_object;
use crate::engine::{Engine, Interrupt, Met, Refused, attrs};
use crate::rpc::RpcCall;
use atoll_base::access::{Perm, permits};
use atoll_base::attr::{Delegated, FileKind};
use atoll_base::block::BlockService;
use atoll_base::limits::IO_MAX;
use atoll_meta::delegation::Intrusion;
use atoll_meta::nfs4::StateError;
use atoll_meta::{FsError, MetadataService};
use atoll_proto::nfs3::{Failure, PostOpAttr, Read3Args, encode_read_ok};
use atoll_xdr::Encoder;

impl<M: MetadataService, B: BlockService> Engine<M, B> {
    /// Writes the whole result; says whether it is a failure.
    pub(super) async fn read(
        &self,
        call: &RpcCall,
        args: &Read3Args,
        reply: &mut Encoder,
    ) -> Result<bool, Interrupt> {
        match patiently!(self, self.read_result(call, args, reply))? {
            Ok(()) => Ok(false),
            Err(failure) => {
                reply.put(&failure);
                Ok(true)
            }
        }
    }

    async fn read_result(
        &self,
        call: &RpcCall,
        args: &Read3Args,
        reply: &mut Encoder,
    ) -> Result3<(), PostOpAttr> {
        let node = match self.admit(&args.file, call).await {
            Ok(node) => node,
            Err(Refused::Status(status)) => return Ok(Err(status.into())),
            Err(Refused::Interrupt(interrupt)) => return Err(interrupt),
        };
        let cred = self.cred(&node.export, &call.credential).await;
        let check = |attr: &atoll_base::attr::Attr| {
            same_object(&node.handle, attr)?;
            match attr.kind {
                FileKind::Regular => {}
                FileKind::Directory => return Err(FsError::IsDirectory),
                _ => return Err(FsError::Invalid),
            }
            // The owner may read what it could open once (NFS has no open), and what may be executed must be read.
            let allowed =
                cred.uid == attr.uid || permits(&cred, attr, Perm::READ) || permits(&cred, attr, Perm::EXEC);
            match allowed {
                true if attr.delegated == Delegated::Write => Err(FsError::State(StateError::Delegated)),
                true => Ok(()),
                false => Err(FsError::AccessDenied),
            }
        };
        let count = args.count.min(IO_MAX);
        match self.read_file(node.handle.ino, args.offset, count, check).await {
            Ok(mut contents) => {
                self.accessed(&node.export, &mut contents.attr);
                let attributes = Some(attrs::fattr(&contents.attr));
                let read = encode_read_ok(reply, &attributes, contents.eof, contents.pieces);
                self.stats.read(u64::from(read));
                Ok(Ok(()))
            }
            Err((FsError::State(StateError::Delegated), _)) => {
                Err(Interrupt::Delegated(Met::new(node.handle.ino, Intrusion::Read)))
            }
            Err((e, attr)) => {
                let attr = match attr {
                    Some(attr) => Some(*attr),
                    None => self.node_attr(&node).await.ok(),
                };
                let e = match (&attr, e) {
                    (Some(attr), FsError::WrongType) if attr.kind == FileKind::Directory => {
                        FsError::IsDirectory
                    }
                    _ => e,
                };
                Ok(Err(Failure {
                    status: crate::engine::status::of(e),
                    detail: attr.as_ref().filter(|_| e != FsError::Stale).map(attrs::fattr),
                }))
            }
        }
    }
}
