//! From file handle and caller to inode, export and identity; and attributes as clients are to see them.

use super::exports::ExportRef;
use super::handle::Handle;
use super::{Engine, Interrupt, Refused};
use crate::rpc::{AuthError, RpcCall};
use atoll_base::access::Cred;
use atoll_base::attr::Attr;
use atoll_base::block::BlockService;
use atoll_base::id::Ino;
use atoll_meta::service::Found;
use atoll_meta::{FsError, MetadataService};
use atoll_proto::nfs3::{FileHandle, NfsStat3};

/// How often attributes are read again because a lease ended meanwhile. Each time, a flush of some file finished
/// within the microseconds of one read; after so many the last answer is taken.
const OVERLAY_ATTEMPTS: usize = 16;

/// An object that a caller may try to use.
#[derive(Clone, Debug)]
pub(crate) struct Node {
    pub(crate) handle: Handle,
    pub(crate) export: ExportRef,
}

/// What a file handle stands for, for the lock manager.
#[derive(Clone, Debug)]
pub struct Target {
    /// The inode.
    pub ino: Ino,
    /// Its generation.
    pub generation: u32,
    /// The export.
    pub export: ExportRef,
    /// The caller under the export's rules.
    pub cred: Cred,
    /// The file.
    pub attr: Attr,
}

/// Why a file handle cannot be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum HandleError {
    /// It was not made by this cluster.
    #[error("not a file handle of this cluster")]
    BadHandle,
    /// The object, or its export, is gone.
    #[error("stale file handle")]
    Stale,
    /// The export's rules exclude the client.
    #[error("the client may not use this export")]
    Access,
    /// The export wants another flavour.
    #[error("the credential's flavour is not accepted")]
    Auth(AuthError),
    /// The metadata service failed.
    #[error(transparent)]
    Fs(FsError),
}

impl<M: MetadataService, B: BlockService> Engine<M, B> {
    /// Opens a file handle for a caller. The object's attributes are not read.
    pub(crate) async fn admit(&self, handle: &FileHandle, call: &RpcCall) -> Result<Node, Refused> {
        let handle = self.handle_key.open(handle.as_slice()).map_err(|_| NfsStat3::BadHandle)?;
        let export = ExportRef::find(self.meta.exports(), handle.export).ok_or(NfsStat3::Stale)?;
        if export.spec.volume != handle.volume {
            return Err(NfsStat3::Stale.into());
        }
        self.check_client(&export, call).await?;
        Ok(Node { handle, export })
    }

    /// What a file handle stands for, who asks, and the file as clients see it.
    pub async fn resolve(&self, handle: &[u8], call: &RpcCall) -> Result<Target, HandleError> {
        let handle = FileHandle::new(handle).map_err(|_| HandleError::BadHandle)?;
        let node = self.admit(&handle, call).await.map_err(|refused| match refused {
            Refused::Status(NfsStat3::BadHandle) => HandleError::BadHandle,
            Refused::Status(NfsStat3::Stale) => HandleError::Stale,
            Refused::Interrupt(Interrupt::Auth(e)) => HandleError::Auth(e),
            Refused::Status(_) | Refused::Interrupt(_) => HandleError::Access,
        })?;
        let attr = self.node_attr(&node).await.map_err(|e| match e {
            FsError::Stale => HandleError::Stale,
            other => HandleError::Fs(other),
        })?;
        let cred = self.cred(&node.export, &call.credential).await;
        let Node { handle, export } = node;
        Ok(Target { ino: handle.ino, generation: handle.generation, export, cred, attr })
    }

    /// A handle of another object under the same export.
    pub(crate) fn handle_of(&self, beside: &Handle, attr: &Attr) -> FileHandle {
        self.handle_key.seal(&Handle {
            export: beside.export,
            volume: attr.volume,
            ino: attr.ino,
            generation: attr.generation,
        })
    }

    /// Attributes as clients are to see them.
    pub(crate) async fn attr(&self, ino: Ino) -> Result<Attr, FsError> {
        let mut attempts = 0;
        loop {
            let seen = self.dirty.look();
            let mut attr = self.meta.getattr(ino).await?;
            attempts += 1;
            if self.dirty.overlay(seen, &mut attr) || attempts == OVERLAY_ATTEMPTS {
                self.touches.overlay(&mut attr);
                return Ok(attr);
            }
        }
    }

    /// Attributes of the object of a handle: of that very one, not of a later use of its number.
    pub(crate) async fn node_attr(&self, node: &Node) -> Result<Attr, FsError> {
        let attr = self.attr(node.handle.ino).await?;
        same_object(&node.handle, &attr)?;
        Ok(attr)
    }

    /// Looks a name up, with attributes as clients are to see them.
    pub(crate) async fn find(&self, dir: Ino, name: &[u8]) -> Result<Found, FsError> {
        let mut attempts = 0;
        loop {
            let seen = self.dirty.look();
            let mut found = self.meta.lookup(dir, name).await?;
            attempts += 1;
            let settled = match &mut found.child {
                Ok(child) => self.dirty.overlay(seen, child),
                Err(_) => true,
            };
            if settled || attempts == OVERLAY_ATTEMPTS {
                self.touches.overlay(&mut found.dir);
                if let Ok(child) = &mut found.child {
                    self.touches.overlay(child);
                }
                return Ok(found);
            }
        }
    }
}

/// `Stale` unless the attributes are of the handle's object.
pub(crate) fn same_object(handle: &Handle, attr: &Attr) -> Result<(), FsError> {
    if attr.generation == handle.generation && attr.volume == handle.volume {
        Ok(())
    } else {
        Err(FsError::Stale)
    }
}
