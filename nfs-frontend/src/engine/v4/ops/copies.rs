//! CLONE, and COPY within this server (RFC 7862 §15.13, §15.2).
//!
//! Either is one command, in which the target comes to share the blocks of the source: what is dirty of both is flushed first, and
//! nothing becomes dirty until it is through. CLONE is all or nothing. COPY is answered when it is done, with as many
//! bytes as one command could bring; clients go on from there.

use super::ranges::require_regular;
use super::stateids::Use;
use crate::engine::v4::compound::{Compound, Done};
use crate::engine::v4::ops::io::may_read;
use crate::engine::v4::status;
use atoll_base::block::BlockService;
use atoll_meta::{FsError, MetadataService, Op, Outcome};
use atoll_proto::nfs4::{
    Clone4Args, Copy4Args, Copy4Ok, CopyRequirements4, NfsStat4, StableHow4, StateId4, WriteResponse4,
};

impl<M: MetadataService, B: BlockService> Compound<M, B> {
    pub(crate) async fn clone_range(&mut self, args: &Clone4Args) -> Done<()> {
        self.share(args, false).await.map(|_| ())
    }

    pub(crate) async fn copy(&mut self, args: &Copy4Args) -> Done<Copy4Ok> {
        // From another server: not advertised by COPY_NOTIFY, either.
        if !args.source_server.is_empty() {
            return Err(NfsStat4::NotSupp.into());
        }
        let range = Clone4Args {
            src_stateid: args.src_stateid,
            dst_stateid: args.dst_stateid,
            src_offset: args.src_offset,
            dst_offset: args.dst_offset,
            count: args.count,
        };
        let (count, verifier) = self.share(&range, true).await?;
        let response = WriteResponse4 {
            callback_id: None,
            count,
            committed: StableHow4::FileSync,
            writeverf: verifier.to_be_bytes(),
        };
        Ok(Copy4Ok { response, requirements: CopyRequirements4 { consecutive: true, synchronous: true } })
    }

    /// The stateid of the saved file: the current one beside it was saved with it (RFC 8881 §16.2.3.1.2).
    fn source_stateid(&self, wire: &StateId4) -> Result<StateId4, NfsStat4> {
        if *wire == StateId4::CURRENT { self.saved_stateid.ok_or(NfsStat4::BadStateId) } else { Ok(*wire) }
    }

    /// Shares a range of the saved file with the current one. `copying`: the files must be two, and a part is enough.
    async fn share(&mut self, args: &Clone4Args, copying: bool) -> Done<(u64, u64)> {
        self.object()?;
        let from = self.saved_node(NfsStat4::WrongType)?;
        let to = self.node(NfsStat4::WrongType)?;
        let response = match self.known().await? {
            Some(response) => response,
            None => {
                let source = self.node_attr(&from).await?;
                let target = self.node_attr(&to).await?;
                require_regular(&source)?;
                require_regular(&target)?;
                let stateid = self.source_stateid(&args.src_stateid)?;
                self.check_use(&stateid, &from, Use::Read).await?;
                self.check_use(&args.dst_stateid, &to, Use::Write).await?;
                self.learn_client(&args.dst_stateid).await;
                Self::check_writable(&to)?;
                // As with RENAME.
                if from.export.id != to.export.id {
                    return Err(NfsStat4::XDev.into());
                }
                if copying && from.handle.ino == to.handle.ino {
                    return Err(NfsStat4::Inval.into());
                }
                let cred = self.cred(&to.export).await;
                if !may_read(&cred, &source) {
                    return Err(NfsStat4::Access.into());
                }
                let engine = self.engine.clone();
                let _settled = engine.settle_both(from.handle.ino, to.handle.ino).await;
                let op = Op::Clone {
                    from: from.handle.ino,
                    from_generation: from.handle.generation,
                    from_offset: args.src_offset,
                    to: to.handle.ino,
                    to_generation: to.handle.generation,
                    to_offset: args.dst_offset,
                    len: args.count,
                    partial: copying,
                };
                self.change(cred, op).await?
            }
        };
        match &response.result {
            Ok(Outcome::Cloned { count, verifier }) => Ok((*count, *verifier)),
            Ok(other) => unreachable!("a clone ended as {other:?}"),
            // In too many pieces for one command. NOTSUPP would tell the client never to try again, with any file; after this one
            // it copies.
            Err(FsError::NotSupported) => Err(NfsStat4::Inval.into()),
            Err(e) => Err(status::of(*e).into()),
        }
    }
}
