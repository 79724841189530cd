//! FSSTAT, FSINFO, PATHCONF (RFC 1813 §3.3.18–20).

use super::{Result3, attempt};
use crate::engine::{Engine, attrs};
use crate::rpc::RpcCall;
use atoll_base::block::BlockService;
use atoll_base::limits::{FILE_SIZE_MAX, IO_MAX, LINK_MAX, NAME_MAX};
use atoll_meta::MetadataService;
use atoll_proto::nfs3::{
    FsInfo3Args, FsInfo3Ok, FsStat3Args, FsStat3Ok, NfsTime3, PathConf3Args, PathConf3Ok, PostOpAttr,
    properties,
};

/// Suggested multiple of READ and WRITE sizes: a page of client caches.
const MULTIPLE: u32 = 4096;

/// Preferred size of READDIR.
const DIRECTORY_PREFERRED: u32 = 64 << 10;

impl<M: MetadataService, B: BlockService> Engine<M, B> {
    pub(super) async fn fsstat(&self, call: &RpcCall, args: &FsStat3Args) -> Result3<FsStat3Ok, PostOpAttr> {
        let node = attempt!(self.admit(&args.fsroot, call).await);
        let attr = attempt!(self.node_attr(&node).await);
        let volume = attempt!(self.meta.volume(node.handle.volume).await);
        let space = self.blocks.space();
        let free_files = attrs::free_files(&space);
        Ok(Ok(FsStat3Ok {
            obj_attributes: Some(attrs::fattr(&attr)),
            total_bytes: space.total,
            free_bytes: space.available,
            available_bytes: space.available,
            total_files: volume.inodes.saturating_add(free_files),
            free_files,
            available_files: free_files,
            invarsec: 0,
        }))
    }

    pub(super) async fn fsinfo(&self, call: &RpcCall, args: &FsInfo3Args) -> Result3<FsInfo3Ok, PostOpAttr> {
        let node = attempt!(self.admit(&args.fsroot, call).await);
        let attr = attempt!(self.node_attr(&node).await);
        Ok(Ok(FsInfo3Ok {
            obj_attributes: Some(attrs::fattr(&attr)),
            rtmax: IO_MAX,
            rtpref: IO_MAX,
            rtmult: MULTIPLE,
            wtmax: IO_MAX,
            wtpref: IO_MAX,
            wtmult: MULTIPLE,
            dtpref: DIRECTORY_PREFERRED,
            max_file_size: FILE_SIZE_MAX,
            time_delta: NfsTime3 { seconds: 0, nseconds: 1 },
            properties: properties::LINK
                | properties::SYMLINK
                | properties::HOMOGENEOUS
                | properties::CAN_SET_TIME,
        }))
    }

    pub(super) async fn pathconf(
        &self,
        call: &RpcCall,
        args: &PathConf3Args,
    ) -> Result3<PathConf3Ok, PostOpAttr> {
        let node = attempt!(self.admit(&args.object, call).await);
        let attr = attempt!(self.node_attr(&node).await);
        Ok(Ok(PathConf3Ok {
            obj_attributes: Some(attrs::fattr(&attr)),
            link_max: LINK_MAX,
            name_max: NAME_MAX as u32,
            no_trunc: true,
            chown_restricted: true,
            case_insensitive: false,
            case_preserving: true,
        }))
    }
}
