//! The tree to be imported, as this machine's file system shows it.

use atoll_base::attr::{Device, FileKind};
use atoll_base::label::Label;
use atoll_base::limits::XATTR_VALUE_MAX;
use atoll_base::time::Timestamp;
use bytes::Bytes;
use rustix::fs::{OFlags, SeekFrom, major, minor};
use std::ffi::OsString;
use std::fs::{File, Metadata};
use std::io;
use std::os::unix::ffi::OsStringExt;
use std::os::unix::fs::{FileExt, FileTypeExt, MetadataExt, OpenOptionsExt};
use std::path::Path;

/// One entry with what `lstat` and `listxattr` say of it.
#[derive(Clone, Debug)]
pub(super) struct Entry {
    pub(super) kind: FileKind,
    pub(super) mode: u32,
    pub(super) uid: u32,
    pub(super) gid: u32,
    pub(super) size: u64,
    pub(super) device: Device,
    pub(super) atime: Timestamp,
    pub(super) mtime: Timestamp,
    /// Device and inode.
    pub(super) inode: (u64, u64),
    /// Whether the inode has more than one name and is no directory.
    pub(super) is_linked: bool,
}

impl Entry {
    pub(super) fn is_dir(&self) -> bool {
        self.kind == FileKind::Directory
    }
}

pub(super) fn entry(path: &Path) -> io::Result<Entry> {
    let meta = std::fs::symlink_metadata(path)?;
    let kind = kind(&meta);
    let rdev = meta.rdev();
    Ok(Entry {
        kind,
        mode: meta.mode() & 0o7777,
        uid: meta.uid(),
        gid: meta.gid(),
        size: meta.size(),
        device: Device { major: major(rdev), minor: minor(rdev) },
        atime: Timestamp { secs: meta.atime(), nanos: meta.atime_nsec() as u32 },
        mtime: Timestamp { secs: meta.mtime(), nanos: meta.mtime_nsec() as u32 },
        inode: (meta.dev(), meta.ino()),
        is_linked: meta.nlink() > 1 && !meta.is_dir(),
    })
}

fn kind(meta: &Metadata) -> FileKind {
    let kind = meta.file_type();
    if kind.is_dir() {
        FileKind::Directory
    } else if kind.is_symlink() {
        FileKind::Symlink
    } else if kind.is_block_device() {
        FileKind::BlockDevice
    } else if kind.is_char_device() {
        FileKind::CharDevice
    } else if kind.is_fifo() {
        FileKind::Fifo
    } else if kind.is_socket() {
        FileKind::Socket
    } else {
        FileKind::Regular
    }
}

/// Names in a directory.
pub(super) fn list(path: &Path) -> io::Result<Vec<Bytes>> {
    std::fs::read_dir(path)?.map(|entry| Ok(Bytes::from(entry?.file_name().into_vec()))).collect()
}

/// A name as this machine's paths take it.
pub(super) fn os_name(name: &Bytes) -> OsString {
    OsString::from_vec(name.to_vec())
}

/// Entries below a directory, for the progress bar: what cannot be listed is met again, and told, when it is copied.
pub(super) fn count(root: &Path) -> u64 {
    let mut total = 0;
    let mut todo = vec![root.to_owned()];
    while let Some(dir) = todo.pop() {
        let Ok(entries) = std::fs::read_dir(&dir) else { continue };
        for entry in entries.flatten() {
            total += 1;
            if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                todo.push(entry.path());
            }
        }
    }
    total
}

/// Target of a symbolic link.
pub(super) fn target(path: &Path) -> io::Result<Bytes> {
    Ok(Bytes::from(std::fs::read_link(path)?.into_os_string().into_vec()))
}

/// The namespace that NFS carries, without its prefix.
const NAMESPACE: &[u8] = b"user.";

/// Extended attributes of an entry.
#[derive(Debug, Default)]
pub(super) struct Xattrs {
    /// Names without the namespace, and values.
    pub(super) kept: Vec<(Bytes, Bytes)>,
    /// Whether there are others.
    pub(super) others: bool,
}

/// The attribute that SELinux keeps an object's context in.
const SELINUX: &str = "security.selinux";

/// The security label of an entry, as Linux shows it over NFS: format 0, the terminating zero among the bytes.
pub(super) fn label(path: &Path) -> io::Result<Option<Label>> {
    let mut value = vec![0; XATTR_VALUE_MAX];
    match rustix::fs::lgetxattr(path, SELINUX, value.as_mut_slice()) {
        Ok(len) => value.truncate(len),
        Err(rustix::io::Errno::NODATA | rustix::io::Errno::NOTSUP) => return Ok(None),
        Err(e) => return Err(e.into()),
    }
    Ok(Some(Label { format: 0, policy: 0, data: value.into() }))
}

pub(super) fn xattrs(path: &Path) -> io::Result<Xattrs> {
    let mut found = Xattrs::default();
    // The largest list that Linux gives (XATTR_LIST_MAX): one call, also if names come in meanwhile.
    let mut names = vec![0; 1 << 16];
    let used = match rustix::fs::llistxattr(path, names.as_mut_slice()) {
        Ok(used) => used,
        Err(rustix::io::Errno::NOTSUP) => return Ok(found),
        Err(e) => return Err(e.into()),
    };
    for name in names[..used].split(|b| *b == 0).filter(|n| !n.is_empty()) {
        let Some(short) = name.strip_prefix(NAMESPACE) else {
            // What the machine's security modules put on every file is nobody's work; access control lists are kept elsewhere.
            found.others |= !name.starts_with(b"security.") && !super::acl::NAMES.contains(&name);
            continue;
        };
        let mut value = vec![0; XATTR_VALUE_MAX];
        match rustix::fs::lgetxattr(path, name, value.as_mut_slice()) {
            Ok(len) => value.truncate(len),
            // Removed since it was listed.
            Err(rustix::io::Errno::NODATA) => continue,
            Err(e) => return Err(e.into()),
        }
        found.kept.push((Bytes::copy_from_slice(short), Bytes::from(value)));
    }
    Ok(found)
}

/// The data of a regular file, hole by hole.
pub(super) struct DataReader {
    file: File,
    at: u64,
    end: u64,
}

impl DataReader {
    pub(super) fn open(path: &Path) -> io::Result<Self> {
        // Never through a link, and never waiting at a fifo, that took the place of the file that was looked at.
        let flags = (OFlags::NOFOLLOW | OFlags::NONBLOCK).bits();
        let file = File::options().read(true).custom_flags(flags as i32).open(path)?;
        let end = file.metadata()?.len();
        Ok(Self { file, at: 0, end })
    }

    /// The next stretch of data: its offset and at most `max` bytes; `None` at the end. A file that shrinks meanwhile
    /// just ends earlier.
    pub(super) fn next(&mut self, max: usize) -> io::Result<Option<(u64, Bytes)>> {
        if self.at >= self.end {
            return Ok(None);
        }
        let start = match rustix::fs::seek(&self.file, SeekFrom::Data(self.at)) {
            Ok(start) => start,
            Err(rustix::io::Errno::NXIO) => return Ok(None),
            Err(rustix::io::Errno::INVAL) => self.at,
            Err(e) => return Err(e.into()),
        };
        let hole = match rustix::fs::seek(&self.file, SeekFrom::Hole(start)) {
            Ok(hole) => hole,
            Err(rustix::io::Errno::NXIO | rustix::io::Errno::INVAL) => self.end,
            Err(e) => return Err(e.into()),
        };
        // Pieces end at multiples of their largest size, so that blocks of a large file are aligned.
        let aligned_end = (start / max as u64 + 1) * max as u64;
        let mut data = vec![0; (hole.min(aligned_end).min(self.end).saturating_sub(start)) as usize];
        let mut done = 0;
        while done < data.len() {
            match self.file.read_at(&mut data[done..], start + done as u64)? {
                0 => break,
                n => done += n,
            }
        }
        data.truncate(done);
        if data.is_empty() {
            return Ok(None);
        }
        self.at = start + done as u64;
        Ok(Some((start, Bytes::from(data))))
    }
}
