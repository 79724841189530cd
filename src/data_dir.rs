//! The directory that holds everything a node owns: its identity, its lock, its secrets.
//!
//! ```text
//! DIR/atoll.json    format version, cluster and node identity; written first, so a first start cut short is
//!                   recognised and continued
//! DIR/lock          held with flock(2) while a process uses DIR
//! DIR/secret.key    32 random bytes, 0600: keys of file handles are derived from it
//! DIR/admin.token   0600: what admin calls over TCP must present
//! DIR/admin.sock    admin API
//! DIR/meta/     state machine, Raft log
//! DIR/blocks/   data
//! ```
//!
//! Nobody but the owner may look into it: it holds the files of all users, whatever their modes.

use anyhow::{Context, Result, bail};
use atoll_base::disk::{Disk, Open, RealDisk, read_exact_at};
use rustix::fs::{FlockOperation, Mode, OFlags};
use serde::{Deserialize, Serialize};
use std::io::{ErrorKind, IoSlice};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Format of the directory as a whole. Others are refused: a newer one, and those before it, which no release has written. Version 3 came with
/// delegations and access control lists, which inodes and clients speak of.
const FORMAT: u32 = 4;

const IDENTITY: &str = "atoll.json";
const SECRET: &str = "secret.key";
const TOKEN: &str = "admin.token";
const SOCKET: &str = "admin.sock";
/// What is made after the secrets: where one of these is, a secret was.
const MADE_AFTER: [&str; 2] = ["meta", "blocks"];
/// Entries that a fresh file system or a crash during the first start may leave and that are nobody's data.
const IGNORED: [&str; 4] = ["lost+found", "lock", "atoll.json.new", SOCKET];

/// Who the node is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Identity {
    /// Format version of the directory.
    pub format: u32,
    /// 128 random bits, in hexadecimal.
    pub cluster_id: String,
    /// Raft node id, also the frontend id; 1 for the first node.
    pub node_id: u64,
}

impl Identity {
    /// The cluster id as bytes.
    pub fn cluster_id(&self) -> Result<[u8; 16]> {
        Ok(u128::from_str_radix(&self.cluster_id, 16).context("cluster_id is not hexadecimal")?.to_be_bytes())
    }
}

/// An open data directory; the lock is held until it is dropped.
pub struct DataDir {
    /// Where it is.
    pub path: PathBuf,
    /// Files below it.
    pub disk: Arc<dyn Disk>,
    /// Who this node is.
    pub identity: Identity,
    /// Secret of the cluster.
    pub secret: [u8; 32],
    /// Token for the admin API over TCP.
    pub token: String,
    _lock: std::fs::File,
}

impl DataDir {
    /// Opens the directory; makes it, or fills an empty one.
    pub fn open_or_create(path: &Path) -> Result<Self> {
        make_directory(path).with_context(|| format!("cannot make the directory {}", path.display()))?;
        Self::open_locked(path, true)
    }

    /// Opens a directory that lost its `secret.key`, with a new one: no handle that a client holds is good any more. Fails if
    /// there is one.
    pub fn open_with_new_secret(path: &Path) -> Result<Self> {
        let secret = path.join(SECRET);
        match std::fs::symlink_metadata(&secret) {
            Ok(_) => bail!(
                "{} is there: without --new-secret it is used. (The option is for the one start after the file was lost, not for \
                 every start.)",
                secret.display()
            ),
            Err(e) if e.kind() == ErrorKind::NotFound => {}
            Err(e) => return Err(e).with_context(|| format!("cannot look for {}", secret.display())),
        }
        if !path.join(IDENTITY).exists() {
            bail!("{} is not an Atoll data directory ({IDENTITY} is missing)", path.display());
        }
        let disk: Arc<dyn Disk> = Arc::new(RealDisk::new(path));
        {
            let _lock = lock(path)?;
            secret_file::<32>(disk.as_ref(), SECRET, &protect_below(path))
                .map_err(|e| anyhow::anyhow!("{}: {e:#}", path.display()))?;
        }
        tracing::warn!("{} is new: every client must unmount and mount again", secret.display());
        Self::open_locked(path, false)
    }

    /// Opens a directory that Atoll made before.
    pub fn open(path: &Path) -> Result<Self> {
        if !path.join(IDENTITY).exists() {
            bail!("{} is not an Atoll data directory ({IDENTITY} is missing)", path.display());
        }
        Self::open_locked(path, false)
    }

    fn open_locked(path: &Path, create: bool) -> Result<Self> {
        let disk: Arc<dyn Disk> = Arc::new(RealDisk::new(path));
        if create {
            refuse_foreign(path, disk.as_ref())?;
        }
        let lock = lock(path)?;
        let exists = disk.list(Path::new(""))?.iter().any(|e| e.name == IDENTITY);
        if !exists && !create {
            bail!("{} is not an Atoll data directory", path.display());
        }
        let Keys { identity, secret, token } = Keys::read_or_make(disk.as_ref(), &protect_below(path))
            .map_err(|e| anyhow::anyhow!("{}: {e:#}", path.display()))?;
        Ok(Self { path: path.to_owned(), disk, identity, secret, token, _lock: lock })
    }

    /// Where the admin API listens.
    pub fn admin_socket(&self) -> PathBuf {
        admin_socket(&self.path)
    }
}

/// Makes the empty file of a name below `path`, for the owner alone: the mode must be right before the bytes are there.
fn protect_below(path: &Path) -> impl Fn(&str) -> Result<()> {
    |name| {
        let file = std::fs::File::create(path.join(name))?;
        Ok(rustix::fs::fchmod(&file, Mode::RUSR | Mode::WUSR)?)
    }
}

/// Makes a directory and those above it, durably: what is synced below it later must not vanish with its name.
fn make_directory(path: &Path) -> std::io::Result<()> {
    let missing: Vec<&Path> =
        path.ancestors().take_while(|p| !p.as_os_str().is_empty() && !p.exists()).collect();
    std::fs::DirBuilder::new().recursive(true).mode(0o700).create(path)?;
    for made in missing {
        let parent = made.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
        std::fs::File::open(parent)?.sync_all()?;
    }
    Ok(())
}

/// What a data directory says about its node, and its secrets.
pub struct Keys {
    /// Who the node is.
    pub identity: Identity,
    /// Secret of the cluster.
    pub secret: [u8; 32],
    /// Token for the admin API over TCP.
    pub token: String,
}

impl Keys {
    /// Reads them; makes what is missing, durably, but for the secret of a directory that was in use: all handles that clients
    /// hold were made with it. `protect` makes the empty file of this name, readable by nobody else.
    pub fn read_or_make(disk: &dyn Disk, protect: &dyn Fn(&str) -> Result<()>) -> Result<Self> {
        let identity = match read_identity(disk)? {
            Some(identity) => identity,
            None => write_identity(disk)?,
        };
        if identity.format > FORMAT {
            bail!(
                "the directory has format {}, this program knows formats up to {FORMAT}: use the newer program that wrote it",
                identity.format
            );
        }
        if identity.format < FORMAT {
            bail!(
                "the directory has format {}, from before the first release; this program knows format {FORMAT} only, and none converts it. \
                 To keep what is in it, copy it over NFS from the program that wrote it into a new directory",
                identity.format
            );
        }
        let entries = disk.list(Path::new("")).context("cannot list the data directory")?;
        let has = |name: &str| entries.iter().any(|e| e.name == name);
        if !has(SECRET) && MADE_AFTER.iter().any(|name| has(name)) {
            bail!(
                "{SECRET} is missing, and clients know files by handles that were made with it. Restore it from a copy of the \
                 directory. If there is none, `atoll serve DIR --new-secret` makes a new one, and every client must then unmount \
                 and mount again: all its handles are stale"
            );
        }
        let secret = secret_file::<32>(disk, SECRET, protect)?;
        let token = secret_file::<24>(disk, TOKEN, protect)?;
        Ok(Self { identity, secret, token: hex(&token) })
    }
}

/// Where the admin API of the node that uses `dir` listens.
pub fn admin_socket(dir: &Path) -> PathBuf {
    dir.join(SOCKET)
}

/// The path of a Unix socket in a directory, in a form that fits into a socket address (107 bytes) however long the
/// directory's own path is.
pub struct SocketPath {
    path: PathBuf,
    _dir: Option<OwnedFd>,
}

/// Longest path in a `sockaddr_un`, less its NUL.
const SOCKET_PATH_MAX: usize = 107;

impl SocketPath {
    /// The path for binding or connecting to the socket; good as long as `self` lives.
    pub fn of(socket: &Path) -> std::io::Result<Self> {
        let (Some(dir), Some(name)) = (socket.parent(), socket.file_name()) else {
            return Err(ErrorKind::InvalidInput.into());
        };
        if socket.as_os_str().len() <= SOCKET_PATH_MAX {
            return Ok(Self { path: socket.to_owned(), _dir: None });
        }
        // Through the directory, already open, the rest of the path is short.
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let dir = rustix::fs::open(dir, flags, Mode::empty())?;
        let path = Path::new("/proc/self/fd").join(dir.as_raw_fd().to_string()).join(name);
        Ok(Self { path, _dir: Some(dir) })
    }

    /// As above.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

/// Refuses a directory (called `path` in what it says) that has files and is not Atoll's.
pub fn refuse_foreign(path: &Path, disk: &dyn Disk) -> Result<()> {
    let entries = disk.list(Path::new("")).with_context(|| format!("cannot list {}", path.display()))?;
    if entries.iter().any(|e| e.name == IDENTITY) {
        return Ok(());
    }
    if let Some(foreign) = entries.iter().find(|e| !IGNORED.contains(&e.name.as_str())) {
        bail!(
            "{dir} holds files that are not Atoll's (such as {name:?}), and Atoll does not serve a directory in place.\n\
             Choose an empty directory, say DATA, and copy the tree in:\n\n    atoll import {dir} --into DATA\n",
            dir = path.display(),
            name = foreign.name,
        );
    }
    Ok(())
}

fn lock(path: &Path) -> Result<std::fs::File> {
    let file = std::fs::OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(false)
        .open(path.join("lock"))
        .with_context(|| format!("cannot open {}/lock", path.display()))?;
    match rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok(file),
        Err(rustix::io::Errno::WOULDBLOCK) => {
            bail!(
                "{} is in use by another atoll process; stop it first (`atoll status` asks it)",
                path.display()
            )
        }
        Err(e) => Err(e).context("cannot lock the data directory"),
    }
}

fn read_identity(disk: &dyn Disk) -> Result<Option<Identity>> {
    let file = match disk.open(Path::new(IDENTITY), Open::Read) {
        Ok(file) => file,
        Err(e) if e.kind() == ErrorKind::NotFound => return Ok(None),
        Err(e) => return Err(e).context("cannot read atoll.json"),
    };
    let mut text = vec![0; file.len()?.min(1 << 16) as usize];
    read_exact_at(file.as_ref(), &mut text, 0)?;
    Ok(Some(serde_json::from_slice(&text).context("atoll.json is damaged")?))
}

fn write_identity(disk: &dyn Disk) -> Result<Identity> {
    let mut cluster = [0; 16];
    random(&mut cluster)?;
    let identity = Identity { format: FORMAT, cluster_id: hex(&cluster), node_id: 1 };
    let text = serde_json::to_vec_pretty(&identity)?;
    replace(disk, IDENTITY, &text)?;
    Ok(identity)
}

/// Writes a whole file so that a crash leaves the old one or the new one.
fn replace(disk: &dyn Disk, name: &str, content: &[u8]) -> Result<()> {
    let temporary = format!("{name}.new");
    let file = disk.open(Path::new(&temporary), Open::Create)?;
    file.set_len(0)?;
    file.write_at(&[IoSlice::new(content)], 0)?;
    file.sync("dir.identity.file")?;
    disk.rename(Path::new(&temporary), Path::new(name))?;
    disk.sync_dir(Path::new(""), "dir.identity.entry")?;
    Ok(())
}

fn secret_file<const N: usize>(
    disk: &dyn Disk,
    name: &str,
    protect: &dyn Fn(&str) -> Result<()>,
) -> Result<[u8; N]> {
    let mut bytes = [0; N];
    match disk.open(Path::new(name), Open::Read) {
        Ok(file) => {
            read_exact_at(file.as_ref(), &mut bytes, 0).with_context(|| format!("{name} is damaged"))?;
        }
        Err(e) if e.kind() == ErrorKind::NotFound => {
            random(&mut bytes)?;
            protect(&format!("{name}.new"))?;
            replace(disk, name, &bytes)?;
        }
        Err(e) => return Err(e).with_context(|| format!("cannot read {name}")),
    }
    Ok(bytes)
}

fn random(bytes: &mut [u8]) -> Result<()> {
    getrandom::fill(bytes).map_err(|e| anyhow::anyhow!("the system gives no random bytes: {e}"))
}

/// Two lower-case digits for each byte.
pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_foreign_directory_is_refused_with_the_way_in() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("thesis.tex"), "x").unwrap();
        let error = DataDir::open_or_create(dir.path()).err().unwrap().to_string();
        assert!(error.contains("thesis.tex") && error.contains("atoll import"), "{error}");
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1, "nothing was left behind");
    }

    #[test]
    fn identity_and_secrets_survive_and_a_second_process_is_kept_out() {
        let dir = tempfile::tempdir().unwrap();
        let first = DataDir::open_or_create(dir.path()).unwrap();
        assert!(DataDir::open(dir.path()).err().unwrap().to_string().contains("in use"));
        let (identity, secret, token) = (first.identity.clone(), first.secret, first.token.clone());
        drop(first);
        let again = DataDir::open_or_create(dir.path()).unwrap();
        assert_eq!((again.identity, again.secret, again.token), (identity, secret, token));
        use std::os::unix::fs::PermissionsExt;
        for name in [SECRET, TOKEN] {
            assert_eq!(std::fs::metadata(dir.path().join(name)).unwrap().permissions().mode() & 0o777, 0o600);
        }
    }

    #[test]
    fn a_lost_secret_is_not_replaced_unless_that_is_asked_for() {
        let dir = tempfile::tempdir().unwrap();
        assert!(DataDir::open_with_new_secret(dir.path()).is_err(), "there is nothing to open");
        let first = DataDir::open_or_create(dir.path()).unwrap().secret;
        // The first start was cut short before it made the secret: nobody has a handle yet.
        std::fs::remove_file(dir.path().join(SECRET)).unwrap();
        let second = DataDir::open_or_create(dir.path()).unwrap().secret;
        assert_ne!(first, second);
        for made in MADE_AFTER {
            let there = DataDir::open_with_new_secret(dir.path()).err().unwrap().to_string();
            assert!(there.contains("secret.key is there"), "{there}");
            std::fs::create_dir(dir.path().join(made)).unwrap();
            std::fs::remove_file(dir.path().join(SECRET)).unwrap();
            for refused in [DataDir::open_or_create(dir.path()), DataDir::open(dir.path())] {
                let words = refused.err().unwrap().to_string();
                assert!(words.contains(dir.path().to_str().unwrap()), "{words}");
                assert!(words.contains("secret.key is missing") && words.contains("--new-secret"), "{words}");
            }
            assert!(!dir.path().join(SECRET).exists(), "nothing was made");
            let third = DataDir::open_with_new_secret(dir.path()).unwrap().secret;
            assert_eq!(DataDir::open(dir.path()).unwrap().secret, third);
            std::fs::remove_dir(dir.path().join(made)).unwrap();
        }
        // Half of one is none either.
        std::fs::write(dir.path().join(SECRET), "short").unwrap();
        let damaged = DataDir::open(dir.path()).err().unwrap().to_string();
        assert!(damaged.contains("secret.key is damaged"), "{damaged}");
    }

    #[test]
    fn another_format_is_refused() {
        for other in [FORMAT - 1, 99] {
            let dir = tempfile::tempdir().unwrap();
            drop(DataDir::open_or_create(dir.path()).unwrap());
            let path = dir.path().join(IDENTITY);
            let text = std::fs::read_to_string(&path).unwrap();
            let text = text.replace(&format!("\"format\": {FORMAT}"), &format!("\"format\": {other}"));
            std::fs::write(&path, text).unwrap();
            let error = DataDir::open(dir.path()).err().unwrap();
            assert!(format!("{error:#}").contains(&format!("has format {other}")), "{error:#}");
        }
    }

    #[test]
    fn what_atoll_did_not_make_is_not_opened() {
        let dir = tempfile::tempdir().unwrap();
        assert!(DataDir::open(dir.path()).is_err());
    }
}
