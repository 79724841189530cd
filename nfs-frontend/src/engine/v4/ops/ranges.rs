//! Ranges of files as a whole: ALLOCATE, DEALLOCATE, IO_ADVISE, READ_PLUS, SEEK (RFC 7862 §15.1, §15.4, §15.5, §15.10, §15.11).
//!
//! # What ALLOCATE promises
//!
//! Blocks are immutable: whatever is written takes new room, so none can be set aside in a file. ALLOCATE makes the file
//! as long as asked if there is room for all of the range at this moment, else it answers NFS4ERR_NOSPC. Writes
//! that come when others have filled the store since meet NFS4ERR_NOSPC all the same.

use super::io::may_read;
use super::stateids::Use;
use crate::engine::io::Looked;
use crate::engine::resolve::{Node, same_object};
use crate::engine::v4::compound::{Compound, Done};
use crate::engine::v4::status;
use atoll_base::attr::{Attr, FileKind};
use atoll_base::block::BlockService;
use atoll_base::limits::FILE_SIZE_MAX;
use atoll_meta::{FsError, MetadataService, Op};
use atoll_proto::nfs4::{
    Allocate4Args, Bitmap, Content4, IoAdvise4Args, IoAdvise4Ok, NfsStat4, Read4Args, Seek4Args, Seek4Ok,
    StateId4, encode_read_plus_ok, io_advise,
};

/// Holes below this are told as zeros: with each one told, the reply is shorter than the data, so it fits wherever they do.
const HOLE_MIN: u64 = 4096;

/// What is refused with WRONG_TYPE whatever it is.
pub(crate) fn require_regular(attr: &Attr) -> Result<(), NfsStat4> {
    if attr.kind == FileKind::Regular { Ok(()) } else { Err(NfsStat4::WrongType) }
}

impl<M: MetadataService, B: BlockService> Compound<M, B> {
    pub(crate) async fn allocate(&mut self, args: &Allocate4Args) -> Done<()> {
        let node = self.node(NfsStat4::WrongType)?;
        if args.length == 0 {
            return Err(NfsStat4::Inval.into());
        }
        let end = args.offset.checked_add(args.length).filter(|end| *end <= FILE_SIZE_MAX);
        let size = end.ok_or(NfsStat4::FBig)?;
        let (ino, generation) = (node.handle.ino, node.handle.generation);
        self.change_range(&node, &args.stateid, Op::Extend { ino, generation, size }, args.length).await
    }

    pub(crate) async fn deallocate(&mut self, args: &Allocate4Args) -> Done<()> {
        let node = self.node(NfsStat4::WrongType)?;
        if args.length == 0 {
            return Err(NfsStat4::Inval.into());
        }
        let (ino, generation) = (node.handle.ino, node.handle.generation);
        let op = Op::Punch { ino, generation, offset: args.offset, len: args.length };
        self.change_range(&node, &args.stateid, op, 0).await
    }

    /// Runs a change of a file that takes `room` bytes, once.
    async fn change_range(&mut self, node: &Node, stateid: &StateId4, op: Op, room: u64) -> Done<()> {
        let response = match self.known().await? {
            Some(response) => response,
            None => {
                let attr = self.node_attr(node).await?;
                require_regular(&attr)?;
                self.check_use(stateid, node, Use::Write).await?;
                Self::check_writable(node)?;
                if room > self.engine.blocks().space().available {
                    return Err(NfsStat4::NoSpc.into());
                }
                let cred = self.cred(&node.export).await;
                let engine = self.engine.clone();
                let _settled = engine.settle(node.handle.ino).await;
                self.change(cred, op).await?
            }
        };
        match response.result {
            Ok(_) => Ok(()),
            Err(e) => Err(status::of(e).into()),
        }
    }

    /// Hints are taken note of by nobody (RFC 7862 §15.5.3 allows that).
    pub(crate) async fn io_advise(&self, args: &IoAdvise4Args) -> Done<IoAdvise4Ok> {
        let node = self.node(NfsStat4::WrongType)?;
        require_regular(&self.node_attr(&node).await?)?;
        self.check_use(&args.stateid, &node, Use::Read).await?;
        Ok(IoAdvise4Ok { hints: Bitmap::of(&[io_advise::NORMAL]) })
    }

    pub(crate) async fn seek(&self, args: &Seek4Args) -> Done<Seek4Ok> {
        let node = self.node(NfsStat4::WrongType)?;
        require_regular(&self.node_attr(&node).await?)?;
        self.check_use(&args.stateid, &node, Use::Read).await?;
        let cred = self.cred(&node.export).await;
        let check = |attr: &Attr| {
            same_object(&node.handle, attr)?;
            if may_read(&cred, attr) { Ok(()) } else { Err(FsError::AccessDenied) }
        };
        let what = match args.what {
            Content4::Data => Looked::Data,
            Content4::Hole => Looked::Hole,
        };
        let found = self.engine.seek_file(node.handle.ino, args.offset, what, check).await?;
        if args.offset >= found.size {
            return Err(NfsStat4::Nxio.into());
        }
        Ok(Seek4Ok { eof: found.at == found.size, offset: found.at })
    }

    /// Writes the whole result.
    pub(crate) async fn read_plus(&mut self, args: &Read4Args) -> Done<()> {
        let contents = self.read_contents(args).await?;
        let holes = contents.holes.into_iter().filter(|hole| hole.end - hole.start >= HOLE_MIN);
        let read = encode_read_plus_ok(&mut self.reply, contents.eof, args.offset, contents.pieces, holes);
        self.engine.stats.read(read);
        Ok(())
    }
}
