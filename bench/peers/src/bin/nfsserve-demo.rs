//! A small in-memory file system behind `nfsserve`, on the address given. One lock around plain maps: what is measured
//! is the crate, so the store does as little as it can.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use nfsserve::nfs::{fattr3, fileid3, filename3, ftype3, nfspath3, nfsstat3, sattr3, set_mode3, set_size3};
use nfsserve::tcp::{NFSTcp, NFSTcpListener};
use nfsserve::vfs::{DirEntry, NFSFileSystem, ReadDirResult, VFSCapabilities};

const ROOT: fileid3 = 1;

enum Kind {
    File(Vec<u8>),
    /// Names, and ids in order for listing.
    Directory(HashMap<Vec<u8>, fileid3>, BTreeMap<fileid3, Vec<u8>>),
}

struct Node {
    attributes: fattr3,
    kind: Kind,
}

struct Store {
    nodes: HashMap<fileid3, Node>,
    next: fileid3,
}

type Result<T> = std::result::Result<T, nfsstat3>;

impl Store {
    fn new() -> Self {
        let mut store = Self { nodes: HashMap::new(), next: ROOT };
        store.insert(Kind::Directory(HashMap::new(), BTreeMap::new()), 0o777);
        store
    }

    fn insert(&mut self, kind: Kind, mode: u32) -> fileid3 {
        let fileid = self.next;
        self.next += 1;
        let ftype = match kind {
            Kind::File(_) => ftype3::NF3REG,
            Kind::Directory(..) => ftype3::NF3DIR,
        };
        let attributes = fattr3 { ftype, mode, nlink: 1, fileid, ..fattr3::default() };
        self.nodes.insert(fileid, Node { attributes, kind });
        fileid
    }

    fn node(&mut self, id: fileid3) -> Result<&mut Node> {
        self.nodes.get_mut(&id).ok_or(nfsstat3::NFS3ERR_STALE)
    }

    fn directory(
        &mut self,
        id: fileid3,
    ) -> Result<(&mut HashMap<Vec<u8>, fileid3>, &mut BTreeMap<fileid3, Vec<u8>>)> {
        match &mut self.node(id)?.kind {
            Kind::Directory(names, ids) => Ok((names, ids)),
            Kind::File(_) => Err(nfsstat3::NFS3ERR_NOTDIR),
        }
    }

    fn lookup(&mut self, dir: fileid3, name: &[u8]) -> Result<fileid3> {
        self.directory(dir)?.0.get(name).copied().ok_or(nfsstat3::NFS3ERR_NOENT)
    }

    fn link(&mut self, dir: fileid3, name: &[u8], id: fileid3) -> Result<()> {
        let (names, ids) = self.directory(dir)?;
        names.insert(name.to_vec(), id);
        ids.insert(id, name.to_vec());
        Ok(())
    }

    fn unlink(&mut self, dir: fileid3, name: &[u8]) -> Result<fileid3> {
        let (names, ids) = self.directory(dir)?;
        let id = names.remove(name).ok_or(nfsstat3::NFS3ERR_NOENT)?;
        ids.remove(&id);
        Ok(id)
    }

    fn make(&mut self, dir: fileid3, name: &[u8], kind: Kind, mode: u32) -> Result<(fileid3, fattr3)> {
        if self.lookup(dir, name).is_ok() {
            return Err(nfsstat3::NFS3ERR_EXIST);
        }
        let id = self.insert(kind, mode);
        self.link(dir, name, id)?;
        Ok((id, self.node(id)?.attributes))
    }
}

struct Demo(Mutex<Store>);

impl Demo {
    fn store(&self) -> MutexGuard<'_, Store> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn mode(attributes: &sattr3, otherwise: u32) -> u32 {
    match attributes.mode {
        set_mode3::mode(mode) => mode,
        set_mode3::Void => otherwise,
    }
}

#[async_trait]
impl NFSFileSystem for Demo {
    fn capabilities(&self) -> VFSCapabilities {
        VFSCapabilities::ReadWrite
    }

    fn root_dir(&self) -> fileid3 {
        ROOT
    }

    async fn lookup(&self, dir: fileid3, name: &filename3) -> Result<fileid3> {
        self.store().lookup(dir, name)
    }

    async fn getattr(&self, id: fileid3) -> Result<fattr3> {
        Ok(self.store().node(id)?.attributes)
    }

    async fn setattr(&self, id: fileid3, attributes: sattr3) -> Result<fattr3> {
        let mut store = self.store();
        let node = store.node(id)?;
        node.attributes.mode = mode(&attributes, node.attributes.mode);
        if let (set_size3::size(size), Kind::File(data)) = (attributes.size, &mut node.kind) {
            data.resize(usize::try_from(size).map_err(|_| nfsstat3::NFS3ERR_FBIG)?, 0);
            node.attributes.size = size;
            node.attributes.used = size;
        }
        Ok(node.attributes)
    }

    async fn read(&self, id: fileid3, offset: u64, count: u32) -> Result<(Vec<u8>, bool)> {
        let mut store = self.store();
        let Kind::File(data) = &store.node(id)?.kind else { return Err(nfsstat3::NFS3ERR_ISDIR) };
        let start = usize::try_from(offset).map_or(data.len(), |offset| offset.min(data.len()));
        let end = (start + count as usize).min(data.len());
        Ok((data[start..end].to_vec(), end == data.len()))
    }

    async fn write(&self, id: fileid3, offset: u64, bytes: &[u8]) -> Result<fattr3> {
        let mut store = self.store();
        let node = store.node(id)?;
        let Kind::File(data) = &mut node.kind else { return Err(nfsstat3::NFS3ERR_ISDIR) };
        let start = usize::try_from(offset).map_err(|_| nfsstat3::NFS3ERR_FBIG)?;
        let end = start + bytes.len();
        if data.len() < end {
            data.resize(end, 0);
        }
        data[start..end].copy_from_slice(bytes);
        node.attributes.size = data.len() as u64;
        node.attributes.used = node.attributes.size;
        Ok(node.attributes)
    }

    async fn create(&self, dir: fileid3, name: &filename3, attributes: sattr3) -> Result<(fileid3, fattr3)> {
        self.store().make(dir, name, Kind::File(Vec::new()), mode(&attributes, 0o644))
    }

    async fn create_exclusive(&self, dir: fileid3, name: &filename3) -> Result<fileid3> {
        Ok(self.store().make(dir, name, Kind::File(Vec::new()), 0o644)?.0)
    }

    async fn mkdir(&self, dir: fileid3, name: &filename3) -> Result<(fileid3, fattr3)> {
        self.store().make(dir, name, Kind::Directory(HashMap::new(), BTreeMap::new()), 0o755)
    }

    async fn remove(&self, dir: fileid3, name: &filename3) -> Result<()> {
        let mut store = self.store();
        let id = store.unlink(dir, name)?;
        store.nodes.remove(&id);
        Ok(())
    }

    async fn rename(
        &self,
        from: fileid3,
        from_name: &filename3,
        to: fileid3,
        to_name: &filename3,
    ) -> Result<()> {
        let mut store = self.store();
        let id = store.unlink(from, from_name)?;
        if let Ok(replaced) = store.unlink(to, to_name) {
            store.nodes.remove(&replaced);
        }
        store.link(to, to_name, id)
    }

    async fn readdir(&self, dir: fileid3, after: fileid3, most: usize) -> Result<ReadDirResult> {
        let mut store = self.store();
        let (_, ids) = store.directory(dir)?;
        let behind = (std::ops::Bound::Excluded(after), std::ops::Bound::Unbounded);
        let mut page: Vec<_> =
            ids.range(behind).take(most + 1).map(|(id, name)| (*id, name.clone())).collect();
        let end = page.len() <= most;
        page.truncate(most);
        let mut entries = Vec::with_capacity(page.len());
        for (fileid, name) in page {
            entries.push(DirEntry { fileid, name: name.into(), attr: store.node(fileid)?.attributes });
        }
        Ok(ReadDirResult { entries, end })
    }

    async fn symlink(
        &self,
        _: fileid3,
        _: &filename3,
        _: &nfspath3,
        _: &sattr3,
    ) -> Result<(fileid3, fattr3)> {
        Err(nfsstat3::NFS3ERR_NOTSUPP)
    }

    async fn readlink(&self, _: fileid3) -> Result<nfspath3> {
        Err(nfsstat3::NFS3ERR_NOTSUPP)
    }
}

#[tokio::main]
async fn main() -> std::result::Result<(), Box<dyn std::error::Error>> {
    let address = std::env::args().nth(1).ok_or("usage: nfsserve-demo ADDR:PORT")?;
    let listener = NFSTcpListener::bind(&address, Demo(Mutex::new(Store::new()))).await?;
    println!("ready nfs={address}");
    listener.handle_forever().await?;
    Ok(())
}
