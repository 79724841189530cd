//! Attributes between file system and wire (RFC 1813 §2.5, §2.6).

use atoll_base::attr::{Attr, Before, FileKind, SetAttr, SetTime};
use atoll_base::block::BlockSpace;
use atoll_base::time::{NANOS_PER_SEC, Timestamp};
use atoll_meta::Change;
use atoll_proto::nfs3::{
    Fattr3, FileType3, MODE_BITS, NfsStat3, NfsTime3, Sattr3, SetTime as WireSetTime, SpecData3, WccAttr,
    WccData,
};

/// Bytes that an inode with its name takes in the metadata store, roughly.
const INODE_COST: u64 = 512;

/// File slots: as many as there is room for.
pub(crate) fn free_files(space: &BlockSpace) -> u64 {
    space.available / INODE_COST
}

/// A time on the wire: 32 unsigned bits of seconds. What lies outside is shown as the nearest that can be told.
pub(crate) fn time(t: Timestamp) -> NfsTime3 {
    match u32::try_from(t.secs) {
        Ok(seconds) => NfsTime3 { seconds, nseconds: t.nanos },
        Err(_) if t.secs < 0 => NfsTime3 { seconds: 0, nseconds: 0 },
        Err(_) => NfsTime3 { seconds: u32::MAX, nseconds: NANOS_PER_SEC - 1 },
    }
}

/// A time that a client sent; nanoseconds of a second and more are no time.
pub(crate) fn timestamp(t: NfsTime3) -> Result<Timestamp, NfsStat3> {
    if t.nseconds < NANOS_PER_SEC {
        Ok(Timestamp { secs: i64::from(t.seconds), nanos: t.nseconds })
    } else {
        Err(NfsStat3::Inval)
    }
}

fn file_type(kind: FileKind) -> FileType3 {
    match kind {
        FileKind::Regular => FileType3::Regular,
        FileKind::Directory => FileType3::Directory,
        FileKind::Symlink => FileType3::SymLink,
        FileKind::BlockDevice => FileType3::Block,
        FileKind::CharDevice => FileType3::Character,
        FileKind::Fifo => FileType3::Fifo,
        FileKind::Socket => FileType3::Socket,
    }
}

/// `fattr3`. The file system id is the volume's number: the same at each frontend and after each restart.
pub(crate) fn fattr(a: &Attr) -> Fattr3 {
    Fattr3 {
        file_type: file_type(a.kind),
        mode: a.mode & MODE_BITS,
        nlink: a.nlink,
        uid: a.uid,
        gid: a.gid,
        size: a.size,
        used: a.used,
        rdev: SpecData3 { major: a.device.major, minor: a.device.minor },
        fsid: u64::from(a.volume.0),
        fileid: a.ino.0,
        atime: time(a.atime),
        mtime: time(a.mtime),
        ctime: time(a.ctime),
    }
}

/// `wcc_attr`.
pub(crate) fn wcc_attr(b: &Before) -> WccAttr {
    WccAttr { size: b.size, mtime: time(b.mtime), ctime: time(b.ctime) }
}

/// `wcc_data` of one change; empty if the call did not come as far as the object.
pub(crate) fn wcc(change: Option<&Change>) -> WccData {
    match change {
        Some(c) => WccData { before: Some(wcc_attr(&c.before)), after: Some(fattr(&c.after)) },
        None => WccData::default(),
    }
}

/// `wcc_data` of an object that the call left as it was: one state is both before and after.
pub(crate) fn wcc_unchanged(a: &Attr) -> WccData {
    WccData { before: Some(wcc_attr(&a.before())), after: Some(fattr(a)) }
}

/// `sattr3`. Bits of the mode without a meaning are dropped, as RFC 1813 §2.6 lets a server do.
pub(crate) fn set_attr(s: &Sattr3) -> Result<SetAttr, NfsStat3> {
    let set_time = |t: WireSetTime| {
        Ok(match t {
            WireSetTime::DontChange => SetTime::Keep,
            WireSetTime::ServerTime => SetTime::Server,
            WireSetTime::ClientTime(t) => SetTime::Client(timestamp(t)?),
        })
    };
    Ok(SetAttr {
        mode: s.mode.map(|m| m & MODE_BITS),
        uid: s.uid,
        gid: s.gid,
        size: s.size,
        atime: set_time(s.atime)?,
        mtime: set_time(s.mtime)?,
        ..SetAttr::default()
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn times_outside_of_the_wires_range_are_shown_as_its_ends() {
        assert_eq!(time(Timestamp { secs: -1, nanos: 5 }), NfsTime3 { seconds: 0, nseconds: 0 });
        let far = time(Timestamp { secs: 1 << 40, nanos: 5 });
        assert_eq!(far, NfsTime3 { seconds: u32::MAX, nseconds: 999_999_999 });
        let last = Timestamp { secs: i64::from(u32::MAX), nanos: 999_999_999 };
        assert_eq!(timestamp(time(last)), Ok(last));
    }

    #[test]
    fn a_second_of_nanoseconds_is_no_time() {
        assert_eq!(timestamp(NfsTime3 { seconds: 1, nseconds: 1_000_000_000 }), Err(NfsStat3::Inval));
    }
}
