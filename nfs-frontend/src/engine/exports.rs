//! Exports as the engine uses them: found by handle or by path, matched against clients, with their root directories.

use super::idmap::Cache;
use super::{Engine, Interrupt, Refused, status};
use crate::rpc::{AuthError, Credential, RpcCall};
use atoll_base::access::Cred;
use atoll_base::attr::{Attr, FileKind};
use atoll_base::block::BlockService;
use atoll_base::id::{ExportId, Ino};
use atoll_base::limits::NAME_MAX;
use atoll_meta::export::{ClientMatch, Export, SecFlavor, Squash};
use atoll_meta::{Exports, FsError, MetadataService};
use atoll_proto::nfs3::NfsStat3;
use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Ports below are for privileged programs (RFC 2623 §2.1 on `secure`).
const RESERVED_PORTS: u16 = 1024;

/// Most host names whose addresses are kept.
const HOSTS_MAX: usize = 4096;

/// Client lists up to this long are gone through for each call: faster than any table.
const SHORT_LIST: usize = 8;

/// Decisions kept in each shard about clients of longer lists, and of lists with host names.
const DECISIONS_MAX: usize = 1024;
const DECISION_SHARDS: usize = 16;

/// For how long a decision holds, as the addresses of a host name may change.
const DECISION_TTL: Duration = Duration::from_secs(10);

/// Most users whose groups are kept.
const USERS_MAX: usize = 16384;

/// An export in force, without a copy.
#[derive(Clone, Debug)]
pub struct ExportRef {
    all: Arc<Exports>,
    index: usize,
}

impl std::ops::Deref for ExportRef {
    type Target = Export;

    fn deref(&self) -> &Export {
        &self.all.list[self.index]
    }
}

impl ExportRef {
    /// By number.
    pub(crate) fn find(all: Arc<Exports>, id: ExportId) -> Option<Self> {
        let index = all.list.binary_search_by_key(&id, |e| e.id).ok()?;
        Some(Self { all, index })
    }

    /// All exports in force.
    pub(crate) fn all(all: &Arc<Exports>) -> impl Iterator<Item = Self> + '_ {
        (0..all.list.len()).map(|index| Self { all: all.clone(), index })
    }

    /// Number of the state of all exports.
    fn version(&self) -> u64 {
        self.all.version
    }
}

/// Look-ups outside of the cluster, which may take long: run on threads for blocking work, cached, bounded in time.
pub trait Resolver: Send + Sync + 'static {
    /// Supplementary groups of a user of this machine; `None` if there is no such user.
    fn groups(&self, uid: u32) -> Option<Vec<u32>>;
    /// Addresses of a host name.
    fn addresses(&self, host: &str) -> Option<Vec<IpAddr>>;
    /// Name of a user.
    fn user_name(&self, uid: u32) -> Option<String>;
    /// Name of a group.
    fn group_name(&self, gid: u32) -> Option<String>;
    /// A user by name.
    fn user_id(&self, name: &str) -> Option<u32>;
    /// A group by name.
    fn group_id(&self, name: &str) -> Option<u32>;
}

/// Whether an address is in an export's client list.
#[derive(Clone, Copy, Debug)]
struct Decision {
    /// Of the exports.
    version: u64,
    allowed: bool,
    at: Instant,
}

/// What the engine remembers about exports. All of it can be found out again.
#[derive(Debug)]
pub(crate) struct Access {
    /// Root directories, with the version of the exports at which they were found.
    roots: Mutex<HashMap<ExportId, (u64, Ino)>>,
    decisions: [Mutex<HashMap<(ExportId, IpAddr), Decision>>; DECISION_SHARDS],
    hosts: Arc<Cache<String, Arc<[IpAddr]>>>,
    groups: Arc<Cache<u32, Arc<[u32]>>>,
}

impl Access {
    pub(crate) fn new(config: &super::Config) -> Self {
        let timeout = config.lookup_timeout;
        Self {
            roots: Mutex::default(),
            decisions: Default::default(),
            hosts: Arc::new(Cache::new(HOSTS_MAX, config.host_ttl, timeout)),
            groups: Arc::new(Cache::new(USERS_MAX, config.groups_ttl, timeout)),
        }
    }
}

/// Whether `ip` (not an IPv4-mapped one) lies in the network.
fn in_network(ip: IpAddr, network: IpAddr, prefix: u8) -> bool {
    match (ip, network.to_canonical()) {
        (IpAddr::V4(ip), IpAddr::V4(net)) => {
            // A network written in its IPv4-mapped form counts 96 bits more.
            let bits = if network.is_ipv6() { prefix.saturating_sub(96) } else { prefix };
            let mask = u32::MAX.checked_shl(32 - u32::from(bits.min(32))).unwrap_or(0);
            (u32::from(ip) ^ u32::from(net)) & mask == 0
        }
        (IpAddr::V6(ip), IpAddr::V6(net)) => {
            let mask = u128::MAX.checked_shl(128 - u32::from(prefix.min(128))).unwrap_or(0);
            (u128::from(ip) ^ u128::from(net)) & mask == 0
        }
        // `::/0` means every address, also those of the other family.
        (IpAddr::V4(_), IpAddr::V6(net)) => prefix == 0 && net.is_unspecified(),
        (IpAddr::V6(_), IpAddr::V4(_)) => false,
    }
}

/// The part of an address in which clients differ most.
fn last_bits(ip: IpAddr) -> u64 {
    match ip {
        IpAddr::V4(v4) => u64::from(u32::from(v4)),
        IpAddr::V6(v6) => u128::from(v6) as u64,
    }
}

/// Which of the accepted flavours a credential is, and whether its ids count.
fn identified(sec: &[SecFlavor], credential: &Credential) -> Result<bool, AuthError> {
    let accepts = |flavor| sec.contains(&flavor);
    match credential {
        Credential::Sys { .. } if accepts(SecFlavor::Sys) => Ok(true),
        // `sec=none` takes anybody, and believes nobody.
        Credential::Sys { .. } | Credential::None if accepts(SecFlavor::None) => Ok(false),
        _ => Err(AuthError::TooWeak),
    }
}

impl<M: MetadataService, B: BlockService> Engine<M, B> {
    /// Whether the export's client list has the address.
    async fn is_client(&self, export: &ExportRef, ip: IpAddr) -> bool {
        let clients = &export.spec.clients;
        if clients.len() <= SHORT_LIST && !clients.iter().any(|c| matches!(c, ClientMatch::Host(_))) {
            return self.decide(clients, ip).await;
        }
        let hash = last_bits(ip) as usize ^ export.id.0 as usize;
        let shard = &self.access.decisions[hash % DECISION_SHARDS];
        let known = {
            let decisions = shard.lock().unwrap_or_else(PoisonError::into_inner);
            decisions.get(&(export.id, ip)).copied()
        };
        if let Some(decision) = known
            && decision.version == export.version()
            && decision.at.elapsed() < DECISION_TTL
        {
            return decision.allowed;
        }
        let allowed = self.decide(clients, ip).await;
        let mut decisions = shard.lock().unwrap_or_else(PoisonError::into_inner);
        if decisions.len() >= DECISIONS_MAX {
            decisions.clear();
        }
        decisions
            .insert((export.id, ip), Decision { version: export.version(), allowed, at: Instant::now() });
        allowed
    }

    async fn decide(&self, clients: &[ClientMatch], ip: IpAddr) -> bool {
        let at_once = clients.iter().any(|c| match c {
            ClientMatch::Any => true,
            ClientMatch::Network { addr, prefix } => in_network(ip, *addr, *prefix),
            ClientMatch::Host(_) => false,
        });
        if at_once {
            return true;
        }
        for client in clients {
            if let ClientMatch::Host(host) = client
                && self.addresses(host).await.is_some_and(|all| all.contains(&ip))
            {
                return true;
            }
        }
        false
    }

    async fn addresses(&self, host: &str) -> Option<Arc<[IpAddr]>> {
        let (resolver, name) = (self.resolver.clone(), host.to_owned());
        let look_up = move || {
            let all = resolver.addresses(&name)?;
            Some(all.into_iter().map(|ip| ip.to_canonical()).collect())
        };
        self.access.hosts.get(host.to_owned(), look_up).await
    }

    /// Whether the caller may use the export at all.
    pub(crate) async fn check_client(&self, export: &ExportRef, call: &RpcCall) -> Result<(), Refused> {
        if export.spec.secure && call.peer.port() >= RESERVED_PORTS {
            return Err(Refused::Status(NfsStat3::Acces));
        }
        if !self.is_client(export, call.peer.ip().to_canonical()).await {
            return Err(Refused::Status(NfsStat3::Acces));
        }
        match identified(&export.spec.sec, &call.credential) {
            Ok(_) => Ok(()),
            Err(e) => Err(Refused::Interrupt(Interrupt::Auth(e))),
        }
    }

    /// Who the caller is under the export's rules.
    pub(crate) async fn cred(&self, export: &Export, credential: &Credential) -> Cred {
        let spec = &export.spec;
        let anonymous = || Cred::new(spec.anon_uid, spec.anon_gid, Vec::new());
        let Credential::Sys { uid, gid, gids } = credential else { return anonymous() };
        if spec.squash == Squash::All || identified(&spec.sec, credential) != Ok(true) {
            return anonymous();
        }
        let groups = if spec.manage_gids {
            let (resolver, uid) = (self.resolver.clone(), *uid);
            let found = self.access.groups.get(uid, move || resolver.groups(uid).map(Into::into)).await;
            found.map_or_else(Vec::new, |all| all.to_vec())
        } else {
            gids.to_vec()
        };
        match spec.squash {
            Squash::Root => {
                let gid_of = |gid: u32| if gid == 0 { spec.anon_gid } else { gid };
                let uid = if *uid == 0 { spec.anon_uid } else { *uid };
                Cred::new(uid, gid_of(*gid), groups.into_iter().map(gid_of).collect())
            }
            Squash::None | Squash::All => Cred::new(*uid, *gid, groups),
        }
    }

    /// The inode of the export's root directory.
    pub(crate) async fn export_root(&self, export: &ExportRef) -> Result<Ino, FsError> {
        let known = {
            let roots = self.access.roots.lock().unwrap_or_else(PoisonError::into_inner);
            roots.get(&export.id).copied()
        };
        if let Some((version, ino)) = known
            && version == export.version()
        {
            return Ok(ino);
        }
        let volume = self.meta.volume(export.spec.volume).await?;
        let root = self.walk(volume.root, export.spec.volume_path.as_bytes()).await?;
        let mut roots = self.access.roots.lock().unwrap_or_else(PoisonError::into_inner);
        roots.retain(|id, _| export.all.get(*id).is_some());
        roots.insert(export.id, (export.version(), root.ino));
        Ok(root.ino)
    }

    /// The directory at a path below `from`, as the superuser sees it. Symbolic links are not followed.
    pub(crate) async fn walk(&self, from: Ino, path: &[u8]) -> Result<Attr, FsError> {
        let mut at = self.meta.getattr(from).await?;
        for name in path.split(|b| *b == b'/').filter(|name| !name.is_empty() && *name != b".") {
            if name == b".." || name.contains(&0) {
                return Err(FsError::AccessDenied);
            }
            if name.len() > NAME_MAX {
                return Err(FsError::NameTooLong);
            }
            at = self.meta.lookup(at.ino, name).await?.child?;
        }
        if at.kind == FileKind::Directory { Ok(at) } else { Err(FsError::NotDirectory) }
    }

    /// Refusal of a change under a read-only export.
    pub(crate) fn check_writable(export: &Export) -> Result<(), NfsStat3> {
        if export.spec.read_only { Err(status::of(FsError::ReadOnly)) } else { Ok(()) }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::rpc::Gids;

    #[test]
    fn networks_of_both_families() {
        let check =
            |ip: &str, net: &str, prefix| in_network(ip.parse().unwrap(), net.parse().unwrap(), prefix);
        assert!(check("10.1.2.3", "10.1.0.0", 16));
        assert!(!check("10.2.2.3", "10.1.0.0", 16));
        assert!(check("10.1.2.3", "10.1.2.3", 32));
        assert!(!check("10.1.2.4", "10.1.2.3", 32));
        assert!(check("1.2.3.4", "0.0.0.0", 0));
        assert!(check("10.1.2.3", "::ffff:10.1.0.0", 112));
        assert!(check("1.2.3.4", "::", 0));
        assert!(check("fe80::1", "fe80::", 10));
        assert!(!check("fec0::1", "fe80::", 10));
        assert!(check("2001:db8::7", "2001:db8::7", 128));
        assert!(!check("2001:db8::8", "2001:db8::7", 128));
        assert!(!check("2001:db8::8", "0.0.0.0", 0));
    }

    #[test]
    fn flavours() {
        let sys = Credential::Sys { uid: 1, gid: 1, gids: Gids::new(&[]).unwrap() };
        assert_eq!(identified(&[SecFlavor::Sys], &sys), Ok(true));
        assert_eq!(identified(&[SecFlavor::Sys], &Credential::None), Err(AuthError::TooWeak));
        assert_eq!(identified(&[SecFlavor::None], &Credential::None), Ok(false));
        assert_eq!(identified(&[SecFlavor::None], &sys), Ok(false));
        assert_eq!(identified(&[SecFlavor::Krb5, SecFlavor::Krb5p], &sys), Err(AuthError::TooWeak));
        assert_eq!(identified(&[SecFlavor::None, SecFlavor::Sys], &sys), Ok(true));
    }
}
