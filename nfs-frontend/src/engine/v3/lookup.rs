//! LOOKUP (RFC 1813 §3.3.3).

use super::{Result3, attempt, fail_with, names};
use crate::engine::resolve::{Node, same_object};
use crate::engine::{Engine, attrs};
use crate::rpc::RpcCall;
use atoll_base::access::{Perm, permits};
use atoll_base::attr::{Attr, FileKind};
use atoll_base::block::BlockService;
use atoll_base::id::Ino;
use atoll_meta::{FsError, MetadataService};
use atoll_proto::nfs3::{Lookup3Args, Lookup3Ok, PostOpAttr};

/// Directories between one and its export's root that `..` climbs at most to see whether it still lies below. No
/// client reaches a deeper one: a path has 4096 bytes.
const CLIMB_MAX: usize = 4096;

impl<M: MetadataService, B: BlockService> Engine<M, B> {
    pub(super) async fn lookup(&self, call: &RpcCall, args: &Lookup3Args) -> Result3<Lookup3Ok, PostOpAttr> {
        let node = attempt!(self.admit(&args.what.dir, call).await);
        let name = &args.what.name[..];
        if let Err(status) = names::check(name) {
            return fail_with(status, self.node_attr(&node).await.ok().as_ref());
        }
        let cred = self.cred(&node.export, &call.credential).await;
        if names::is_dot(name) {
            let dir = attempt!(self.node_attr(&node).await);
            return match self.lookup_dot(&node, &dir, name, permits(&cred, &dir, Perm::EXEC)).await {
                Ok(object) => self.found(&node, &dir, &object),
                Err(e) => fail_with(e, Some(&dir)),
            };
        }
        let found = attempt!(self.find(node.handle.ino, name).await);
        attempt!(same_object(&node.handle, &found.dir));
        // Who may not search learns nothing about the name.
        if !permits(&cred, &found.dir, Perm::EXEC) {
            return fail_with(FsError::AccessDenied, Some(&found.dir));
        }
        match found.child {
            Ok(object) => self.found(&node, &found.dir, &self.with_holder(object).await?),
            Err(e) => fail_with(e, Some(&found.dir)),
        }
    }

    fn found(&self, node: &Node, dir: &Attr, object: &Attr) -> Result3<Lookup3Ok, PostOpAttr> {
        Ok(Ok(Lookup3Ok {
            object: self.handle_of(&node.handle, object),
            obj_attributes: Some(attrs::fattr(object)),
            dir_attributes: Some(attrs::fattr(dir)),
        }))
    }

    /// `.` and `..`. The latter stays within the export: its root is its own parent.
    async fn lookup_dot(
        &self,
        node: &Node,
        dir: &Attr,
        name: &[u8],
        may_search: bool,
    ) -> Result<Attr, FsError> {
        if dir.kind != FileKind::Directory {
            return Err(FsError::NotDirectory);
        }
        if !may_search {
            return Err(FsError::AccessDenied);
        }
        if name == b"." {
            return Ok(dir.clone());
        }
        self.attr(self.parent_within(node, dir.ino).await?).await
    }

    /// The parent of a directory as the export shows it; `Stale` for a directory that was moved out of the export.
    pub(crate) async fn parent_within(&self, node: &Node, dir: Ino) -> Result<Ino, FsError> {
        let root = self.export_root(&node.export).await?;
        if dir == root {
            return Ok(root);
        }
        let parent = self.meta.parent(dir).await?;
        let mut at = parent;
        for _ in 0..CLIMB_MAX {
            if at == root {
                return Ok(parent);
            }
            let above = self.meta.parent(at).await?;
            if above == at {
                return Err(FsError::Stale);
            }
            at = above;
        }
        Err(FsError::Stale)
    }
}
