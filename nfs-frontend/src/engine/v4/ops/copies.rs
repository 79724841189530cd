//! CLONE, COPY within this server, OFFLOAD_STATUS, OFFLOAD_CANCEL (RFC 7862 §15.13, §15.2, §15.9, §15.8).
//!
//! CLONE and COPY are one command each, in which the target comes to share the blocks of the source: what is dirty of both is flushed first, and
//! nothing becomes dirty until it is through. CLONE is all or nothing. A COPY that fits into its command is answered when it is done, whatever the client allows. Of one that does not, the rest
//! goes on in the background if the client allows it and can be called ([`crate::engine::v4::offloads`]); else it is answered with the bytes that did, and clients go on from there.

use super::ranges::require_regular;
use super::stateids::Use;
use crate::engine::Handle;
use crate::engine::resolve::Node;
use crate::engine::v4::compound::{Compound, Done};
use crate::engine::v4::ops::io::may_read;
use crate::engine::v4::status;
use atoll_base::block::BlockService;
use atoll_meta::nfs4::{ClientId, Stateid};
use atoll_meta::offload::{CopyPlace, OffloadOp};
use atoll_meta::{FsError, MetadataService, Op, Outcome};
use atoll_proto::nfs4::{
    Clone4Args, Copy4Args, Copy4Ok, CopyRequirements4, NfsStat4, Offload4Args, OffloadStatus4Ok, StableHow4,
    StateId4, WriteResponse4,
};

/// How a range is shared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Way {
    /// All or nothing.
    Clone,
    /// Between two files; a part is enough.
    Copy,
    /// The same; the rest goes on, and this client is told.
    Offload(ClientId),
}

/// What came of it.
enum Shared {
    Done { count: u64, verifier: u64 },
    GoesOn { stateid: Stateid, verifier: u64 },
}

impl<M: MetadataService, B: BlockService> Compound<M, B> {
    pub(crate) async fn clone_range(&mut self, args: &Clone4Args) -> Done<()> {
        self.share(args, Way::Clone).await.map(|_| ())
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
        let way = match self.client {
            Some(client) if !args.synchronous && self.has_path(client) => Way::Offload(client),
            _ => Way::Copy,
        };
        let (callback_id, count, verifier) = match self.share(&range, way).await? {
            Shared::Done { count, verifier } => (None, count, verifier),
            Shared::GoesOn { stateid, verifier } => (Some(self.wire_stateid(stateid)), 0, verifier),
        };
        let response = WriteResponse4 {
            callback_id,
            count,
            committed: StableHow4::FileSync,
            writeverf: verifier.to_be_bytes(),
        };
        let synchronous = callback_id.is_none();
        Ok(Copy4Ok { response, requirements: CopyRequirements4 { consecutive: true, synchronous } })
    }

    pub(crate) async fn offload_status(&self, args: &Offload4Args) -> Done<OffloadStatus4Ok> {
        let node = self.copied_node()?;
        let stateid = self.offload_stateid(&args.stateid)?;
        let found = self.engine.meta().offload(stateid.id).await?;
        let found = found.filter(|its| {
            its.stateid == stateid && Some(its.client) == self.client && its.to.ino == node.handle.ino
        });
        let offload = found.ok_or(NfsStat4::BadStateId)?;
        let complete = offload.ended.map(|ended| ended.map_err(status::of));
        Ok(OffloadStatus4Ok { count: offload.count, complete })
    }

    pub(crate) async fn offload_cancel(&mut self, args: &Offload4Args) -> Done<()> {
        let node = self.copied_node()?;
        let response = match self.known().await? {
            Some(response) => response,
            None => {
                let offload = self.offload_stateid(&args.stateid)?;
                let client = self.client.ok_or(NfsStat4::BadStateId)?;
                let cred = self.cred(&node.export).await;
                let op = OffloadOp::Cancel { client, ino: node.handle.ino, offload };
                self.change(cred, Op::Offload(op)).await?
            }
        };
        match response.result {
            Ok(_) => Ok(()),
            Err(e) => Err(status::of(e).into()),
        }
    }

    /// The file that is copied to. File and stateid name a copy together (§15.8.3, §15.9.3), and for any other file the operations have one word (§11.2).
    fn copied_node(&self) -> Result<Node, NfsStat4> {
        self.node(NfsStat4::BadStateId).map_err(|_| NfsStat4::BadStateId)
    }

    /// A stateid that names a copy: "the newest version" does not (RFC 7862 §4.8).
    fn offload_stateid(&self, wire: &StateId4) -> Result<Stateid, NfsStat4> {
        self.stateid_of(wire).ok().filter(|stateid| stateid.seqid != 0).ok_or(NfsStat4::BadStateId)
    }

    /// The stateid of the saved file: the current one beside it was saved with it (RFC 8881 §16.2.3.1.2).
    fn source_stateid(&self, wire: &StateId4) -> Result<StateId4, NfsStat4> {
        if *wire == StateId4::CURRENT { self.saved_stateid.ok_or(NfsStat4::BadStateId) } else { Ok(*wire) }
    }

    /// Shares a range of the saved file with the current one.
    async fn share(&mut self, args: &Clone4Args, way: Way) -> Done<Shared> {
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
                Self::check_writable(&to)?;
                // As with RENAME.
                if from.export.id != to.export.id {
                    return Err(NfsStat4::XDev.into());
                }
                if way != Way::Clone && from.handle.ino == to.handle.ino {
                    return Err(NfsStat4::Inval.into());
                }
                let cred = self.cred(&to.export).await;
                if !may_read(&cred, &source) {
                    return Err(NfsStat4::Access.into());
                }
                let engine = self.engine.clone();
                let _settled = engine.settle_both(from.handle.ino, to.handle.ino).await;
                let op = match way {
                    Way::Offload(client) => {
                        let place = |handle: Handle, offset| CopyPlace {
                            ino: handle.ino,
                            generation: handle.generation,
                            offset,
                        };
                        Op::Offload(OffloadOp::Copy {
                            client,
                            export: to.handle.export,
                            from: place(from.handle, args.src_offset),
                            to: place(to.handle, args.dst_offset),
                            len: args.count,
                            most: engine.config.copy_extents,
                        })
                    }
                    Way::Clone | Way::Copy => Op::Clone {
                        from: from.handle.ino,
                        from_generation: from.handle.generation,
                        from_offset: args.src_offset,
                        to: to.handle.ino,
                        to_generation: to.handle.generation,
                        to_offset: args.dst_offset,
                        len: args.count,
                        partial: way == Way::Copy,
                    },
                };
                self.change(cred, op).await?
            }
        };
        match &response.result {
            Ok(Outcome::Cloned { count, verifier }) => {
                Ok(Shared::Done { count: *count, verifier: *verifier })
            }
            Ok(Outcome::Offloaded { stateid, verifier }) => {
                Ok(Shared::GoesOn { stateid: *stateid, verifier: *verifier })
            }
            Ok(other) => unreachable!("a clone ended as {other:?}"),
            // In too many pieces for one command. NOTSUPP would tell the client never to try again, with any file; after this one
            // it copies.
            Err(FsError::NotSupported) => Err(NfsStat4::Inval.into()),
            Err(e) => Err(status::of(*e).into()),
        }
    }
}
