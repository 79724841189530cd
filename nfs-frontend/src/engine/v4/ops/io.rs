//! READ, WRITE, COMMIT (RFC 8881 §18.3, §18.22, §18.32).
//!
//! A stateid is no permission: it is sent in the clear and is the same for all users of a client. So the caller's own is checked as in
//! version 3, and as there an owner keeps what the mode takes away, for who opened a file before that goes on.

use super::stateids::Use;
use crate::engine::io::Contents;
use crate::engine::resolve::same_object;
use crate::engine::v4::compound::{Compound, Done};
use crate::engine::v4::status;
use atoll_base::access::{Cred, Perm, permits};
use atoll_base::attr::{Attr, FileKind};
use atoll_base::block::BlockService;
use atoll_base::limits::{FILE_SIZE_MAX, IO_MAX};
use atoll_meta::{FsError, MetadataService, Outcome};
use atoll_proto::nfs4::{
    Commit4Args, Commit4Ok, NfsStat4, Read4Args, StableHow4, StateId4, Write4Args, Write4Ok, encode_read_ok,
};
use bytes::Bytes;

/// Refusal of what is for regular files only, as v4.0 and LOCK have it.
pub(crate) fn has_data(kind: FileKind) -> Result<(), NfsStat4> {
    match kind {
        FileKind::Regular => Ok(()),
        FileKind::Directory => Err(NfsStat4::IsDir),
        _ => Err(NfsStat4::Inval),
    }
}

/// Whether the caller may read a file's data.
pub(crate) fn may_read(cred: &Cred, attr: &Attr) -> bool {
    cred.uid == attr.uid || permits(cred, attr, Perm::READ)
}

impl<M: MetadataService, B: BlockService> Compound<M, B> {
    fn require_file(&self, attr: &Attr) -> Result<(), NfsStat4> {
        has_data(attr.kind).map_err(|status| match attr.kind {
            FileKind::Directory => status,
            FileKind::Symlink if self.minor > 0 => NfsStat4::Symlink,
            _ if self.minor > 0 => NfsStat4::WrongType,
            _ => status,
        })
    }

    /// Writes the whole result.
    pub(crate) async fn read(&mut self, args: &Read4Args) -> Done<()> {
        let contents = self.read_contents(args).await?;
        let read = encode_read_ok(&mut self.reply, contents.eof, contents.pieces);
        self.engine.stats.read(u64::from(read));
        Ok(())
    }

    /// What READ and READ_PLUS are asked for.
    pub(crate) async fn read_contents(&self, args: &Read4Args) -> Done<Contents> {
        let node = self.node(NfsStat4::IsDir)?;
        let attr = self.node_attr(&node).await?;
        self.require_file(&attr)?;
        self.check_use(&args.stateid, &node, Use::Read).await?;
        let cred = self.cred(&node.export).await;
        let check = |attr: &Attr| {
            same_object(&node.handle, attr)?;
            let allowed = may_read(&cred, attr) || permits(&cred, attr, Perm::EXEC);
            if allowed { Ok(()) } else { Err(FsError::AccessDenied) }
        };
        let count = args.count.min(IO_MAX);
        match self.engine.read_file(node.handle.ino, args.offset, count, check).await {
            Ok(mut contents) => {
                self.engine.accessed(&node.export, &mut contents.attr);
                Ok(contents)
            }
            Err((e, _)) => Err(e.into()),
        }
    }

    pub(crate) async fn write(&mut self, args: Write4Args) -> Done<Write4Ok> {
        let mut data = args.data.into_bytes();
        data.truncate(IO_MAX as usize);
        self.write_data(&args.stateid, args.offset, args.stable, data).await
    }

    /// Writes at most [`IO_MAX`] bytes into the current file.
    pub(crate) async fn write_data(
        &mut self,
        stateid: &StateId4,
        offset: u64,
        stable: StableHow4,
        data: Bytes,
    ) -> Done<Write4Ok> {
        let node = self.node(NfsStat4::IsDir)?;
        let count = data.len() as u32;
        let response = match self.known().await? {
            Some(response) => response,
            None => {
                let attr = self.node_attr(&node).await?;
                self.require_file(&attr)?;
                self.check_use(stateid, &node, Use::Write).await?;
                let client = self.asking();
                Self::check_writable(&node)?;
                match offset.checked_add(u64::from(count)) {
                    Some(end) if end <= FILE_SIZE_MAX => {}
                    _ if count == 0 => return Err(NfsStat4::Inval.into()),
                    _ => return Err(NfsStat4::FBig.into()),
                }
                let cred = self.cred(&node.export).await;
                let once = self.once();
                let engine = self.engine.clone();
                let written = if data.is_empty() {
                    engine.write_nothing(&node, &cred).await
                } else if stable == StableHow4::Unstable {
                    engine.write_unstable(&node, &cred, client, offset, data, once).await
                } else {
                    let (ino, generation) = (node.handle.ino, node.handle.generation);
                    let written =
                        engine.write_stable(ino, generation, &cred, client, offset, data, once).await;
                    written.map(Into::into)
                };
                self.settled(written?)?
            }
        };
        match &response.result {
            Ok(Outcome::Written { verifier }) => {
                self.engine.stats.written(u64::from(count));
                let committed = match stable {
                    StableHow4::Unstable => StableHow4::Unstable,
                    StableHow4::DataSync | StableHow4::FileSync => StableHow4::FileSync,
                };
                Ok(Write4Ok { count, committed, writeverf: verifier.to_be_bytes() })
            }
            Ok(other) => unreachable!("a write ended as {other:?}"),
            Err(e) => Err(status::of(*e).into()),
        }
    }

    pub(crate) async fn commit(&mut self, args: &Commit4Args) -> Done<Commit4Ok> {
        let node = self.node(NfsStat4::IsDir)?;
        let attr = self.node_attr(&node).await?;
        self.require_file(&attr)?;
        let verifier = self.engine.commit_file(node.handle.ino, args.offset, args.count).await?;
        Ok(Commit4Ok { writeverf: verifier.to_be_bytes() })
    }
}
