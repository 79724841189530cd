//! MOUNT version 3 (RFC 1813 §5), and what old `showmount` asks for in version 1 (RFC 1094 appendix A).
//!
//! A path below an export may be mounted: it gets a handle under the export with the longest path that covers it and
//! that the client may use. Who mounted what is advisory and bounded; clients that vanish are forgotten when
//! others need the room.

use super::v3::interrupted;
use super::{Engine, ExportRef, Handle, Interrupt, Refused};
use crate::rpc::{Answer, RpcCall};
use atoll_base::block::BlockService;
use atoll_meta::export::{ClientMatch, SecFlavor};
use atoll_meta::{FsError, MetadataService};
use atoll_proto::mount::{
    DirPath, ExportNode, Exports, MountBody, MountList, MountName, MountOk3, MountRes1, MountRes3,
    MountStat3, v1, v3,
};
use atoll_proto::nfs3::NfsStat3;
use atoll_xdr::{Array, Encoder, List};
use std::collections::BTreeSet;
use std::net::IpAddr;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// Most mounts remembered.
const MOUNTS_MAX: usize = 4096;

/// Numbers of the security flavours spoken (RFC 1813 §5.2.1 `auth_flavors`).
const AUTH_NONE: u32 = 0;
const AUTH_SYS: u32 = 1;

/// Who mounted what.
#[derive(Debug, Default)]
pub(crate) struct Mounts(Mutex<BTreeSet<(IpAddr, Vec<u8>)>>);

impl Mounts {
    fn lock(&self) -> MutexGuard<'_, BTreeSet<(IpAddr, Vec<u8>)>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn add(&self, client: IpAddr, path: &[u8]) {
        let mut mounts = self.lock();
        if mounts.len() >= MOUNTS_MAX {
            mounts.pop_first();
        }
        mounts.insert((client, path.to_vec()));
    }

    fn remove(&self, client: IpAddr, path: &[u8]) {
        self.lock().remove(&(client, path.to_vec()));
    }

    fn remove_all(&self, client: IpAddr) {
        self.lock().retain(|(other, _)| *other != client);
    }
}

/// The rest of `path` below `export`, if it lies there; empty for the export itself.
fn below<'p>(path: &'p str, export: &str) -> Option<&'p str> {
    let rest = path.strip_prefix(export.trim_end_matches('/'))?;
    (rest.is_empty() || rest.starts_with('/')).then_some(rest)
}

/// Without doubled and trailing slashes. `None` for what is not an absolute path.
fn normal(path: &[u8]) -> Option<String> {
    let path = std::str::from_utf8(path).ok()?;
    if !path.starts_with('/') {
        return None;
    }
    let names: Vec<&str> = path.split('/').filter(|name| !name.is_empty() && *name != ".").collect();
    Some(format!("/{}", names.join("/")))
}

fn mount_status(e: FsError) -> MountStat3 {
    match e {
        FsError::NotFound | FsError::Stale => MountStat3::NoEnt,
        FsError::NotDirectory | FsError::WrongType => MountStat3::NotDir,
        FsError::NameTooLong => MountStat3::NameTooLong,
        FsError::AccessDenied => MountStat3::Acces,
        FsError::Io => MountStat3::Io,
        _ => MountStat3::ServerFault,
    }
}

fn client_name(client: &ClientMatch) -> String {
    match client {
        ClientMatch::Any => "*".to_owned(),
        ClientMatch::Network { addr, prefix } => {
            let host = if addr.is_ipv4() { 32 } else { 128 };
            if *prefix == host { addr.to_string() } else { format!("{addr}/{prefix}") }
        }
        ClientMatch::Host(name) => name.clone(),
    }
}

impl<M: MetadataService, B: BlockService> Engine<M, B> {
    /// Answers a call of MOUNT.
    pub async fn mount(&self, mut call: RpcCall, mut reply: Encoder) -> Answer {
        /// Decodes the path that a procedure takes.
        macro_rules! path {
            () => {
                match call.args.decode::<DirPath>() {
                    Ok(path) => path,
                    Err(_) => return Answer::GarbageArgs,
                }
            };
        }
        let client = call.peer.ip().to_canonical();
        match call.version {
            v3::VERSION => match v3::Proc::from_u32(call.procedure) {
                Some(v3::Proc::Null) => {}
                Some(v3::Proc::Mnt) => {
                    let path = path!();
                    match self.mnt(&call, &path).await {
                        Ok(result) => reply.put(&result),
                        Err(interrupt) => return interrupted(interrupt),
                    }
                }
                Some(v3::Proc::Dump) => reply.put(&self.mounts()),
                Some(v3::Proc::Umnt) => self.mounts.remove(client, &path!()),
                Some(v3::Proc::UmntAll) => self.mounts.remove_all(client),
                Some(v3::Proc::Export) => reply.put(&self.export_list()),
                None => return Answer::ProcedureUnavailable,
            },
            v1::VERSION => match v1::Proc::from_u32(call.procedure) {
                Some(v1::Proc::Null) => {}
                // A handle of NFSv2, which is not served.
                Some(v1::Proc::Mnt) => {
                    let _path = path!();
                    reply.put(&MountRes1::Err(MountStat3::NotSupp.into()));
                }
                Some(v1::Proc::Dump) => reply.put(&self.mounts()),
                Some(v1::Proc::Umnt) => self.mounts.remove(client, &path!()),
                Some(v1::Proc::UmntAll) => self.mounts.remove_all(client),
                Some(v1::Proc::Export | v1::Proc::ExportAll) => reply.put(&self.export_list()),
                None => return Answer::ProcedureUnavailable,
            },
            _ => return Answer::ProgramMismatch(v1::VERSION, v3::VERSION),
        }
        Answer::Success(reply)
    }

    async fn mnt(&self, call: &RpcCall, path: &[u8]) -> Result<MountRes3, Interrupt> {
        let Some(path) = normal(path) else { return Ok(Err(MountStat3::Acces)) };
        let exports = self.meta.exports();
        let mut covering: Vec<ExportRef> =
            ExportRef::all(&exports).filter(|e| below(&path, &e.spec.path).is_some()).collect();
        covering.sort_by_key(|e| std::cmp::Reverse(e.spec.path.len()));
        let mut weak = None;
        for export in covering {
            // MNT itself needs no particular flavour: the client learns here which one to use.
            match self.check_client(&export, call).await {
                Ok(()) | Err(Refused::Interrupt(Interrupt::Auth(_))) => {}
                Err(Refused::Status(status)) => {
                    weak.get_or_insert(status);
                    continue;
                }
                Err(Refused::Interrupt(interrupt)) => return Err(interrupt),
            }
            return Ok(self.mount_below(&export, &path, call).await);
        }
        Ok(Err(match weak {
            Some(NfsStat3::Perm) => MountStat3::Perm,
            _ => MountStat3::Acces,
        }))
    }

    async fn mount_below(&self, export: &ExportRef, path: &str, call: &RpcCall) -> MountRes3 {
        let flavors: Vec<u32> = export
            .spec
            .sec
            .iter()
            .filter_map(|sec| match sec {
                SecFlavor::Sys => Some(AUTH_SYS),
                SecFlavor::None => Some(AUTH_NONE),
                // Not spoken: a client that was told so would try in vain.
                SecFlavor::Krb5 | SecFlavor::Krb5i | SecFlavor::Krb5p => None,
            })
            .collect();
        if flavors.is_empty() {
            return Err(MountStat3::Acces);
        }
        let rest = below(path, &export.spec.path).unwrap_or_default();
        let root = self.export_root(export).await.map_err(mount_status)?;
        let dir = self.walk(root, rest.as_bytes()).await.map_err(mount_status)?;
        self.mounts.add(call.peer.ip().to_canonical(), path.as_bytes());
        let handle = self.handle_key.seal(&Handle {
            export: export.id,
            volume: dir.volume,
            ino: dir.ino,
            generation: dir.generation,
        });
        Ok(MountOk3 { handle, auth_flavors: Array::new(flavors).unwrap_or_default() })
    }

    fn mounts(&self) -> MountList {
        let mounts = self.mounts.lock();
        let bodies = mounts.iter().filter_map(|(client, path)| {
            Some(MountBody {
                hostname: MountName::new(client.to_string().into_bytes()).ok()?,
                directory: DirPath::copy_from(path).ok()?,
            })
        });
        List::new(bodies.collect()).unwrap_or_default()
    }

    fn export_list(&self) -> Exports {
        let exports = self.meta.exports();
        let nodes = exports.list.iter().filter_map(|export| {
            let groups = export.spec.clients.iter();
            let groups = groups.filter_map(|c| MountName::new(client_name(c).into_bytes()).ok()).collect();
            Some(ExportNode {
                dir: DirPath::copy_from(export.spec.path.as_bytes()).ok()?,
                groups: List::new(groups).ok()?,
            })
        });
        List::new(nodes.collect()).unwrap_or_default()
    }
}

#[cfg(test)]
mod unit_tests {
    use super::*;

    #[test]
    fn paths_below_exports() {
        assert_eq!(below("/a/b", "/a"), Some("/b"));
        assert_eq!(below("/a", "/a"), Some(""));
        assert_eq!(below("/ab", "/a"), None);
        assert_eq!(below("/ab/c", "/"), Some("/ab/c"));
        assert_eq!(below("/", "/"), Some("/"));
        assert_eq!(below("/", "/a"), None);
    }

    #[test]
    fn paths_are_made_normal() {
        assert_eq!(normal(b"//a/./b//"), Some("/a/b".to_owned()));
        assert_eq!(normal(b"/"), Some("/".to_owned()));
        assert_eq!(normal(b"a/b"), None);
        assert_eq!(normal(b""), None);
    }

    #[test]
    fn the_table_of_mounts_is_bounded() {
        let mounts = Mounts::default();
        (0..MOUNTS_MAX as u32 + 10).for_each(|i| mounts.add(IpAddr::V4(i.into()), b"/"));
        assert_eq!(mounts.lock().len(), MOUNTS_MAX);
        mounts.remove(IpAddr::V4(100.into()), b"/");
        mounts.remove_all(IpAddr::V4(101.into()));
        assert_eq!(mounts.lock().len(), MOUNTS_MAX - 2);
    }
}
