//! Exports: which subtree of which volume is offered to whom, and how.

use atoll_base::id::{ExportId, Ino, VolumeId};
use serde::{Deserialize, Serialize};
use std::net::IpAddr;

/// Most exports of a cluster.
pub const EXPORTS_MAX: usize = 4096;

/// A set of client addresses.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum ClientMatch {
    /// `*`
    Any,
    /// A network, or a single host with the full prefix length.
    Network {
        /// Network address, host bits zero.
        addr: IpAddr,
        /// Prefix length in bits.
        prefix: u8,
    },
    /// A host name, looked up by the frontend (forward, cached with a bound on age).
    Host(String),
}

/// Identity mapping of AUTH_SYS callers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Squash {
    /// Everybody is who they say.
    None,
    /// uid and gid 0 become the anonymous ones.
    Root,
    /// Everybody becomes anonymous.
    All,
}

/// RPC security flavours an export accepts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum SecFlavor {
    /// AUTH_SYS (1).
    Sys,
    /// AUTH_NONE (0): everybody is anonymous.
    None,
    /// Kerberos authentication.
    Krb5,
    /// Kerberos with integrity.
    Krb5i,
    /// Kerberos with privacy.
    Krb5p,
}

/// When READ updates the access time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum AtimePolicy {
    /// If it is not later than mtime or ctime, or older than a day.
    Relative,
    /// Never.
    Never,
    /// Always.
    Strict,
}

/// One export as an administrator states it: `PATH=CLIENTS,OPTION,…`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExportSpec {
    /// Path that clients mount, absolute, no trailing slash but for `/`.
    pub path: String,
    /// The volume the path is in.
    pub volume: VolumeId,
    /// Path of the export's root inside the volume; equals `path` unless the volume is not the root volume.
    pub volume_path: String,
    /// Who may mount: any of these.
    pub clients: Vec<ClientMatch>,
    /// Whether changes are refused.
    pub read_only: bool,
    /// Identity mapping.
    pub squash: Squash,
    /// Anonymous user.
    pub anon_uid: u32,
    /// Anonymous group.
    pub anon_gid: u32,
    /// Flavours in order of preference; never empty.
    pub sec: Vec<SecFlavor>,
    /// Whether the client's source port must be below 1024.
    pub secure: bool,
    /// Whether supplementary groups are looked up on the server (`manage_gids`), which lifts AUTH_SYS's bound of 16.
    pub manage_gids: bool,
    /// Access time policy.
    pub atime: AtimePolicy,
    /// Whether NFSv4.2 clients see and set security labels (`security_label`, RFC 7862 §9).
    pub security_label: bool,
}

/// An export in force.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Export {
    /// Its number, part of each file handle given out under it; kept as long as the path stays exported.
    pub id: ExportId,
    /// The administrator's words.
    pub spec: ExportSpec,
}

/// All exports, with a version that grows with each change.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Exports {
    /// Grows with each change.
    pub version: u64,
    /// In order of id.
    pub list: Vec<Export>,
}

impl Exports {
    /// The export with this id.
    pub fn get(&self, id: ExportId) -> Option<&Export> {
        self.list.binary_search_by_key(&id, |e| e.id).ok().map(|i| &self.list[i])
    }
}

/// A volume as `atoll status` shows it and exports refer to it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Volume {
    /// Its number.
    pub id: VolumeId,
    /// Its name: 1 to 64 of `[A-Za-z0-9_.-]`.
    pub name: String,
    /// Its root directory.
    pub root: Ino,
    /// Inodes in use.
    pub inodes: u64,
    /// Bytes of data, as GETATTR's `used` adds them up.
    pub bytes: u64,
}
