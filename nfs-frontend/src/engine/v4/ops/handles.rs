//! The current and the saved handle: PUTFH, PUTROOTFH, PUTPUBFH, GETFH, SAVEFH, RESTOREFH, LOOKUP, LOOKUPP
//! (RFC 8881 §18.8, §18.13, §18.14, §18.19–§18.21, §18.27, §18.29).

use super::names;
use crate::engine::ExportRef;
use crate::engine::resolve::{Node, same_object};
use crate::engine::v4::compound::{Compound, Done, Object};
use crate::engine::v4::pseudo::Joints;
use atoll_base::access::{Perm, permits};
use atoll_base::attr::{Attr, FileKind};
use atoll_base::block::BlockService;
use atoll_base::id::ExportId;
use atoll_meta::{FsError, MetadataService};
use atoll_proto::nfs4::{FileHandle, GetFh4Ok, Name4, NfsStat4};
use std::sync::Arc;

impl<M: MetadataService, B: BlockService> Compound<M, B> {
    pub(crate) async fn put_fh(&mut self, handle: &FileHandle) -> Done<()> {
        let object = self.open_handle(handle.as_slice()).await?;
        self.enter(object);
        Ok(())
    }

    /// The root of what the caller may use; the public handle is the same.
    pub(crate) async fn put_root_fh(&mut self) -> Done<()> {
        let joints = self.engine.joints().await?;
        let root = self.at_joint(joints, Joints::ROOT).await?;
        self.enter(root);
        Ok(())
    }

    pub(crate) fn get_fh(&self) -> Done<GetFh4Ok> {
        Ok(GetFh4Ok { object: self.wire_handle(self.object()?) })
    }

    pub(crate) fn save_fh(&mut self) -> Done<()> {
        self.object()?;
        self.saved = self.current.clone();
        self.saved_stateid = self.stateid;
        Ok(())
    }

    pub(crate) fn restore_fh(&mut self) -> Done<()> {
        let missing = if self.minor == 0 { NfsStat4::RestoreFh } else { NfsStat4::NoFileHandle };
        let saved = self.saved.clone().ok_or(missing)?;
        self.current = Some(saved);
        self.stateid = self.saved_stateid;
        Ok(())
    }

    pub(crate) async fn lookup(&mut self, name: &Name4) -> Done<()> {
        let object = self.object()?.clone();
        names::check(name)?;
        let found = self.look_up(&object, name).await?;
        self.enter(found);
        Ok(())
    }

    /// What a name in a directory stands for.
    pub(crate) async fn look_up(&self, dir: &Object, name: &Name4) -> Done<Object> {
        match dir {
            Object::Pseudo(joints, index) => {
                let child =
                    joints.node(*index).children.get(name.as_bytes()).copied().ok_or(NfsStat4::NoEnt)?;
                self.at_joint(joints.clone(), child).await
            }
            Object::Real(node) => {
                let attr = self.look_up_in(node, name).await;
                if let Some(joined) = self.joined(node, name).await? {
                    // The directory is there, or was when the export was made.
                    return Ok(joined);
                }
                Ok(Self::beside(node, &attr?))
            }
        }
    }

    /// The same in a directory of a volume.
    pub(crate) async fn look_up_in(&self, node: &Node, name: &Name4) -> Done<Attr> {
        let found = match self.engine.find(node.handle.ino, name.as_bytes()).await {
            Ok(found) => found,
            Err(FsError::NotDirectory) => return Err(self.not_a_directory(node).await?.into()),
            Err(e) => return Err(e.into()),
        };
        same_object(&node.handle, &found.dir)?;
        let cred = self.cred(&node.export).await;
        // Who may not search learns nothing about the name.
        if !permits(&cred, &found.dir, Perm::EXEC) {
            return Err(NfsStat4::Access.into());
        }
        Ok(found.child?)
    }

    /// Why an object that is no directory cannot be searched: a symbolic link has a status of its own (RFC 8881 §15.1.2.8).
    pub(crate) async fn not_a_directory(&self, node: &Node) -> Done<NfsStat4> {
        Ok(match self.node_attr(node).await?.kind {
            FileKind::Symlink => NfsStat4::Symlink,
            _ => NfsStat4::NotDir,
        })
    }

    /// The root of the export that begins at a name in a directory, if one does that the caller may use.
    async fn joined(&self, node: &Node, name: &Name4) -> Done<Option<Object>> {
        let joints = self.engine.joints().await?;
        let Some(export) = joints.below(node.handle.ino, name.as_bytes()) else { return Ok(None) };
        self.export_root(export).await
    }

    /// The root of an export, if the caller may use it.
    async fn export_root(&self, export: ExportId) -> Done<Option<Object>> {
        let Some(export) = ExportRef::find(self.engine.meta().exports(), export) else { return Ok(None) };
        if self.engine.check_client(&export, &self.call).await.is_err() {
            return Ok(None);
        }
        let root = match self.engine.export_root(&export).await {
            Ok(ino) => self.engine.meta().getattr(ino).await?,
            // The path was removed since.
            Err(FsError::NotFound | FsError::NotDirectory | FsError::Stale) => return Ok(None),
            Err(e) => return Err(e.into()),
        };
        let handle = crate::engine::Handle {
            export: export.id,
            volume: root.volume,
            ino: root.ino,
            generation: root.generation,
        };
        Ok(Some(Object::Real(Node { handle, export })))
    }

    /// What a client sees at a node of the pseudo file system: the export there if it may use it, else the node.
    async fn at_joint(&self, joints: Arc<Joints>, index: usize) -> Done<Object> {
        if let Some(export) = joints.node(index).export
            && let Some(root) = self.export_root(export).await?
        {
            return Ok(root);
        }
        if joints.node(index).children.is_empty() && index != Joints::ROOT {
            return Err(NfsStat4::Access.into());
        }
        Ok(Object::Pseudo(joints, index))
    }

    pub(crate) async fn lookup_parent(&mut self) -> Done<()> {
        let object = self.object()?.clone();
        let parent = self.parent(&object).await?;
        self.enter(parent);
        Ok(())
    }

    /// The directory above; there is none above the root (NFS4ERR_NOENT, RFC 8881 §18.14).
    pub(crate) async fn parent(&self, object: &Object) -> Done<Object> {
        match object {
            Object::Pseudo(_, Joints::ROOT) => Err(NfsStat4::NoEnt.into()),
            Object::Pseudo(joints, index) => self.at_joint(joints.clone(), joints.node(*index).parent).await,
            Object::Real(node) => {
                let attr = self.node_attr(node).await?;
                if attr.kind != FileKind::Directory {
                    return Err(self.not_a_directory(node).await?.into());
                }
                let cred = self.cred(&node.export).await;
                if !permits(&cred, &attr, Perm::EXEC) {
                    return Err(NfsStat4::Access.into());
                }
                if self.is_root(node).await? {
                    return self.above(node).await;
                }
                let parent = self.engine.parent_within(node, node.handle.ino).await?;
                let parent = self.engine.attr(parent).await?;
                Ok(Self::beside(node, &parent))
            }
        }
    }

    /// Whether it is the root of its export.
    pub(crate) async fn is_root(&self, node: &Node) -> Done<bool> {
        Ok(self.engine.export_root(&node.export).await? == node.handle.ino)
    }

    /// The directory above an export's root.
    async fn above(&self, root: &Node) -> Done<Object> {
        let joints = self.engine.joints().await?;
        if let Some((outer, dir)) = joints.above(root.export.id)
            && let Some(Object::Real(outer)) = self.export_root(outer).await?
        {
            let attr = self.engine.attr(dir).await?;
            return Ok(Self::beside(&outer, &attr));
        }
        match joints.at_export(root.export.id) {
            None | Some(Joints::ROOT) => Err(NfsStat4::NoEnt.into()),
            Some(index) => {
                let parent = joints.node(index).parent;
                self.at_joint(joints, parent).await
            }
        }
    }

    /// The number that a directory above has for the object (`mounted_on_fileid`, RFC 8881 §5.8.2.23).
    pub(crate) async fn mounted_on(&self, object: &Object, attr: &Attr) -> Done<u64> {
        if let Object::Real(node) = object
            && attr.kind == FileKind::Directory
            && self.is_root(node).await?
        {
            let joints = self.engine.joints().await?;
            return Ok(joints.mounted_on(node.export.id).unwrap_or(attr.ino).0);
        }
        Ok(attr.ino.0)
    }
}
