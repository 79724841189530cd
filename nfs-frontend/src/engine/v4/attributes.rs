//! Attributes between file system and wire (RFC 8881 §5, RFC 7530 §5, RFC 7862 §12.2).

use super::acls;
use super::labels::{self, LABEL};
use crate::engine::attrs::free_files;
use crate::engine::idmap::{Kind, Principals, Shown};
use atoll_base::access::Cred;
use atoll_base::attr::{Attr, FileKind, SetAttr, SetTime};
use atoll_base::block::BlockSpace;
use atoll_base::id::ExportId;
use atoll_base::limits::{FILE_SIZE_MAX, IO_MAX, LINK_MAX, NAME_MAX};
use atoll_base::time::{NANOS_PER_SEC, Timestamp};
use atoll_meta::export::Volume;
use atoll_proto::nfs3::MODE_BITS;
use atoll_proto::nfs4::{
    Attr4, AttrValue4, Bitmap, ChangeAttrType4, Fattr4, FattrWriter, FileHandle, FileType4, FsId4,
    FsLocations4, NfsStat4, NfsTime4, OpenArguments4, SetAttrs4, SetTime4, SpecData4, charset, fh_expire,
    open_args_want as want,
};
use atoll_xdr::Array;

macro_rules! attributes {
    ($($name:ident),+ $(,)?) => { Bitmap::of(&[$(Attr4::$name as u32),+]) };
}

/// What is supported since 4.0.
const SINCE_0: Bitmap = attributes![
    SupportedAttrs,
    Type,
    FhExpireType,
    Change,
    Size,
    LinkSupport,
    SymlinkSupport,
    NamedAttr,
    FsId,
    UniqueHandles,
    LeaseTime,
    RdAttrError,
    Acl,
    AclSupport,
    CanSetTime,
    CaseInsensitive,
    CasePreserving,
    ChownRestricted,
    FileHandle,
    FileId,
    FilesAvail,
    FilesFree,
    FilesTotal,
    FsLocations,
    Homogeneous,
    MaxFileSize,
    MaxLink,
    MaxName,
    MaxRead,
    MaxWrite,
    Mode,
    NoTrunc,
    NumLinks,
    Owner,
    OwnerGroup,
    RawDev,
    SpaceAvail,
    SpaceFree,
    SpaceTotal,
    SpaceUsed,
    TimeAccess,
    TimeAccessSet,
    TimeCreate,
    TimeDelta,
    TimeMetadata,
    TimeModify,
    TimeModifySet,
    MountedOnFileId,
];
/// What 4.1 adds. What OPEN understands of delegations is told there, too: who does not know the attribute does not ask.
const SINCE_1: Bitmap = attributes![Dacl, SuppAttrExclCreat, FsCharsetCap, ModeSetMasked, OpenArguments];
/// What 4.2 adds.
const SINCE_2: Bitmap = attributes![
    SpaceFreed,
    CloneBlkSize,
    ChangeAttrType,
    ModeUmask,
    XattrSupport,
    TimeDelegAccess,
    TimeDelegModify
];

/// What can be set with an exclusive creation, whose verifier has a place of its own (RFC 8881 §5.8.1.14).
const EXCLUSIVE: Bitmap =
    attributes![Acl, Dacl, Mode, Size, Owner, OwnerGroup, TimeAccessSet, TimeCreate, TimeModifySet];
const EXCLUSIVE_2: Bitmap = attributes![ModeUmask];

/// What is told of the whole file system.
const OF_FILE_SYSTEM: Bitmap =
    attributes![FilesAvail, FilesFree, FilesTotal, SpaceAvail, SpaceFree, SpaceTotal];

/// What can only be set.
const WRITE_ONLY: Bitmap =
    attributes![TimeAccessSet, TimeModifySet, ModeSetMasked, ModeUmask, TimeDelegAccess, TimeDelegModify];

/// What is supported in a minor version. `labelled`: under an export with security labels, of which 4.2 knows.
pub(crate) fn supported(minor: u32, labelled: bool) -> Bitmap {
    match minor {
        0 => SINCE_0,
        1 => SINCE_0.or(&SINCE_1),
        _ if labelled => SINCE_0.or(&SINCE_1).or(&SINCE_2).or(&LABEL),
        _ => SINCE_0.or(&SINCE_1).or(&SINCE_2),
    }
}

fn exclusive(minor: u32, labelled: bool) -> Bitmap {
    match minor {
        0 | 1 => EXCLUSIVE,
        _ if labelled => EXCLUSIVE.or(&EXCLUSIVE_2).or(&LABEL),
        _ => EXCLUSIVE.or(&EXCLUSIVE_2),
    }
}

/// Whether a request for attributes is one of those that can only be set (NFS4ERR_INVAL, RFC 8881 §5.5).
pub(crate) fn asks_write_only(asked: &Bitmap) -> bool {
    !asked.and(&WRITE_ONLY).is_empty()
}

/// What the holder of a write delegation may have changed.
pub(crate) const HELD: Bitmap = attributes![Change, Size, SpaceUsed, TimeAccess, TimeMetadata, TimeModify];

/// Whether the answer takes what the holder of a write delegation knows.
pub(crate) fn asks_held(asked: &Bitmap) -> bool {
    !asked.and(&HELD).is_empty()
}

/// Whether the answer takes what is known of the file system.
pub(crate) fn asks_file_system(asked: &Bitmap) -> bool {
    !asked.and(&OF_FILE_SYSTEM).is_empty()
}

/// The file system around an object.
#[derive(Clone, Debug)]
pub(crate) struct FileSystem {
    pub(crate) space: BlockSpace,
    pub(crate) volume: Option<Volume>,
}

/// The names that are shown with these attributes of an object.
pub(crate) async fn names_shown(attr: &Attr, asked: &Bitmap, principals: &Principals) -> Shown {
    let is_asked = |one: Bitmap| !asked.and(&one).is_empty();
    let user = is_asked(attributes![Owner]).then_some((Kind::User, attr.uid));
    let group = is_asked(attributes![OwnerGroup]).then_some((Kind::Group, attr.gid));
    let listed = attr.acl.as_ref().filter(|_| is_asked(acls::LISTS));
    let listed = listed.into_iter().flat_map(|_| acls::principals(attr));
    principals.show(user.into_iter().chain(group).chain(listed)).await
}

/// An object as GETATTR shows it.
pub(crate) struct View<'a> {
    pub(crate) minor: u32,
    /// Whether security labels are supported there.
    pub(crate) labelled: bool,
    pub(crate) attr: &'a Attr,
    pub(crate) handle: &'a FileHandle,
    /// The export that it is seen through: each is a file system of its own, for rules and handles are its own.
    pub(crate) export: ExportId,
    /// The object's number in the directory above, should another file system begin here.
    pub(crate) mounted_on: u64,
    /// Seconds.
    pub(crate) lease: u32,
    /// See [`names_shown`].
    pub(crate) names: Shown,
    /// Given if something of it is asked.
    pub(crate) file_system: Option<&'a FileSystem>,
    /// What `rdattr_error` says.
    pub(crate) error: Option<NfsStat4>,
}

fn time(t: Timestamp) -> NfsTime4 {
    NfsTime4 { seconds: t.secs, nseconds: t.nanos }
}

fn timestamp(t: NfsTime4) -> Result<Timestamp, NfsStat4> {
    if t.nseconds < NANOS_PER_SEC {
        Ok(Timestamp { secs: t.seconds, nanos: t.nseconds })
    } else {
        Err(NfsStat4::Inval)
    }
}

/// What OPEN understands (RFC 9754 §3). Signals and pushes of delegations are not sent.
fn open_arguments(minor: u32) -> OpenArguments4 {
    let mut wants = vec![want::ANY_DELEG, want::NO_DELEG, want::CANCEL];
    if minor >= 2 {
        wants.extend([want::DELEG_TIMESTAMPS, want::OPEN_XOR_DELEGATION]);
    }
    OpenArguments4 {
        share_access: Bitmap::of(&[1, 2, 3]),
        share_deny: Bitmap::of(&[0, 1, 2, 3]),
        share_access_want: Bitmap::of(&wants),
        // All but those of delegations from before the client's restart.
        open_claim: Bitmap::of(&[0, 1, 2, 4, 5]),
        create_mode: Bitmap::of(&[0, 1, 2, 3]),
    }
}

/// The type of an object.
pub(crate) fn file_type(kind: FileKind) -> FileType4 {
    match kind {
        FileKind::Regular => FileType4::Regular,
        FileKind::Directory => FileType4::Directory,
        FileKind::Symlink => FileType4::SymLink,
        FileKind::BlockDevice => FileType4::Block,
        FileKind::CharDevice => FileType4::Character,
        FileKind::Fifo => FileType4::Fifo,
        FileKind::Socket => FileType4::Socket,
    }
}

impl View<'_> {
    /// Those of the attributes asked for that are told.
    pub(crate) fn mask(&self, asked: &Bitmap) -> Bitmap {
        let known = self.known(asked);
        if self.attr.label.is_none() && labels::left_out(asked) { known.without(&LABEL) } else { known }
    }

    fn known(&self, asked: &Bitmap) -> Bitmap {
        asked.and(&supported(self.minor, self.labelled)).without(&WRITE_ONLY)
    }

    /// Puts the values of a mask.
    pub(crate) fn put(&self, writer: &mut FattrWriter<'_>) {
        while let Some(attr) = writer.next() {
            writer.put(&self.value(attr));
        }
    }

    /// All attributes asked for, as a value to be compared.
    pub(crate) fn fattr(&self, asked: &Bitmap) -> Fattr4 {
        let mask = self.known(asked);
        let values: Vec<AttrValue4> =
            mask.iter().filter_map(Attr4::from_u32).map(|attr| self.value(attr)).collect();
        Fattr4::build(&values).expect("the values of one object are below the bound, and in order")
    }

    fn value(&self, attr: Attr4) -> AttrValue4 {
        use AttrValue4 as V;
        let a = self.attr;
        let files =
            |f: fn(&FileSystem, u64) -> u64| self.file_system.map_or(0, |fs| f(fs, free_files(&fs.space)));
        let space = |f: fn(&BlockSpace) -> u64| self.file_system.map_or(0, |fs| f(&fs.space));
        match attr {
            Attr4::SupportedAttrs => V::SupportedAttrs(supported(self.minor, self.labelled)),
            Attr4::Type => V::Type(file_type(a.kind)),
            Attr4::FhExpireType => V::FhExpireType(fh_expire::PERSISTENT),
            Attr4::Change => V::Change(a.change),
            Attr4::Size => V::Size(a.size),
            Attr4::LinkSupport => V::LinkSupport(true),
            Attr4::SymlinkSupport => V::SymlinkSupport(true),
            Attr4::NamedAttr => V::NamedAttr(false),
            Attr4::FsId => V::FsId(FsId4 { major: u64::from(a.volume.0), minor: u64::from(self.export.0) }),
            Attr4::UniqueHandles => V::UniqueHandles(true),
            Attr4::LeaseTime => V::LeaseTime(self.lease),
            Attr4::RdAttrError => V::RdAttrError(self.error.map_or(Ok(()), Err)),
            Attr4::AclSupport => V::AclSupport(acls::SUPPORT),
            Attr4::Acl => V::Acl(acls::acl(a, &self.names)),
            Attr4::Dacl => V::Dacl(acls::dacl(a, &self.names)),
            Attr4::CanSetTime => V::CanSetTime(true),
            Attr4::CaseInsensitive => V::CaseInsensitive(false),
            Attr4::CasePreserving => V::CasePreserving(true),
            Attr4::ChownRestricted => V::ChownRestricted(true),
            Attr4::FileHandle => V::FileHandle(*self.handle),
            Attr4::FileId => V::FileId(a.ino.0),
            Attr4::FilesAvail => V::FilesAvail(files(|_, free| free)),
            Attr4::FilesFree => V::FilesFree(files(|_, free| free)),
            Attr4::FilesTotal => V::FilesTotal(files(|fs, free| {
                fs.volume.as_ref().map_or(0, |v| v.inodes).saturating_add(free)
            })),
            Attr4::FsLocations => {
                V::FsLocations(FsLocations4 { fs_root: Array::default(), locations: Array::default() })
            }
            Attr4::Homogeneous => V::Homogeneous(true),
            Attr4::MaxFileSize => V::MaxFileSize(FILE_SIZE_MAX),
            Attr4::MaxLink => V::MaxLink(LINK_MAX),
            Attr4::MaxName => V::MaxName(NAME_MAX as u32),
            Attr4::MaxRead => V::MaxRead(u64::from(IO_MAX)),
            Attr4::MaxWrite => V::MaxWrite(u64::from(IO_MAX)),
            Attr4::Mode => V::Mode(a.mode & MODE_BITS),
            Attr4::NoTrunc => V::NoTrunc(true),
            Attr4::NumLinks => V::NumLinks(a.nlink),
            Attr4::Owner => V::Owner(self.names.name(Kind::User, a.uid)),
            Attr4::OwnerGroup => V::OwnerGroup(self.names.name(Kind::Group, a.gid)),
            Attr4::RawDev => V::RawDev(SpecData4 { major: a.device.major, minor: a.device.minor }),
            Attr4::SpaceAvail => V::SpaceAvail(space(|s| s.available)),
            Attr4::SpaceFree => V::SpaceFree(space(|s| s.available)),
            Attr4::SpaceTotal => V::SpaceTotal(space(|s| s.total)),
            Attr4::SpaceUsed => V::SpaceUsed(a.used),
            Attr4::TimeAccess => V::TimeAccess(time(a.atime)),
            Attr4::TimeCreate => V::TimeCreate(time(a.btime)),
            Attr4::TimeDelta => V::TimeDelta(NfsTime4 { seconds: 0, nseconds: 1 }),
            Attr4::TimeMetadata => V::TimeMetadata(time(a.ctime)),
            Attr4::TimeModify => V::TimeModify(time(a.mtime)),
            Attr4::MountedOnFileId => V::MountedOnFileId(self.mounted_on),
            Attr4::SuppAttrExclCreat => V::SuppAttrExclCreat(exclusive(self.minor, self.labelled)),
            Attr4::FsCharsetCap => V::FsCharsetCap(charset::CONTAINS_NON_UTF8),
            Attr4::SpaceFreed => V::SpaceFreed(if a.nlink <= 1 { a.used } else { 0 }),
            // Extents begin and end anywhere.
            Attr4::CloneBlkSize => V::CloneBlkSize(1),
            Attr4::ChangeAttrType => V::ChangeAttrType(ChangeAttrType4::MonotonicIncr),
            Attr4::OpenArguments => V::OpenArguments(open_arguments(self.minor)),
            Attr4::SecLabel => V::SecLabel(labels::shown(a.label.as_deref())),
            Attr4::XattrSupport => V::XattrSupport(a.volume != super::pseudo::VOLUME),
            other => unreachable!("{other:?} is not among the supported attributes"),
        }
    }
}

/// Reads what a client wants set. `labelled`: as of [`supported`]. `creating`: with the creation of an object.
pub(crate) async fn wanted(
    fattr: &Fattr4,
    minor: u32,
    labelled: bool,
    creating: bool,
    principals: &Principals,
) -> Result<SetAttr, NfsStat4> {
    let set = SetAttrs4::read(fattr, &supported(minor, labelled)).map_err(|e| e.status())?;
    // The holder's times stand alone.
    let held = set.deleg_atime.is_some() || set.deleg_mtime.is_some();
    if held || set.mode_umask.is_some() && (!creating || set.mode.is_some()) {
        return Err(NfsStat4::Inval);
    }
    if set.size.is_some_and(|size| size > FILE_SIZE_MAX) {
        return Err(NfsStat4::FBig);
    }
    // Some bits of a mode are not set in a creation, nor beside all of them (RFC 8881 §6.2.5).
    if set.mode_masked.is_some() && (creating || set.mode.is_some()) {
        return Err(NfsStat4::Inval);
    }
    let (mode, mode_mask, umask) = match (set.mode, &set.mode_umask, &set.mode_masked) {
        (Some(mode), ..) => (Some(mode), None, 0),
        (None, Some(both), _) => (Some(both.mode), None, both.umask),
        (None, None, Some(both)) => (Some(both.value), Some(both.mask), 0),
        (None, None, None) => (None, None, 0),
    };
    // Bits that no mode has are no mode (RFC 8881 §6.2.4).
    let bits = mode.unwrap_or(0) | mode_mask.unwrap_or(0) | umask;
    if bits & !MODE_BITS != 0 {
        return Err(NfsStat4::Inval);
    }
    let set_time = |t: Option<SetTime4>| {
        Ok::<_, NfsStat4>(match t {
            None => SetTime::Keep,
            Some(SetTime4::ServerTime) => SetTime::Server,
            Some(SetTime4::ClientTime(t)) => SetTime::Client(timestamp(t)?),
        })
    };
    let owner = set.owner.iter().map(|name| (Kind::User, name));
    let group = set.group.iter().map(|name| (Kind::Group, name));
    let meant = principals.read(owner.chain(group).chain(acls::named(&set))).await;
    Ok(SetAttr {
        mode,
        mode_mask,
        umask,
        acl: acls::wanted(&set, &meant)?,
        label: set.sec_label.as_ref().map(labels::wanted).transpose()?.map(Box::new),
        uid: set.owner.as_ref().map(|name| meant.id(Kind::User, name)).transpose()?,
        gid: set.group.as_ref().map(|name| meant.id(Kind::Group, name)).transpose()?,
        size: set.size,
        atime: set_time(set.atime)?,
        mtime: set_time(set.mtime)?,
        btime: set.time_create.map(timestamp).transpose()?,
    })
}

/// Owner and group that a creation by somebody else than the superuser cannot give away (EPERM, chown(2)).
pub(crate) fn check_owner(cred: &Cred, set: &SetAttr) -> Result<(), NfsStat4> {
    let foreign =
        set.uid.is_some_and(|uid| uid != cred.uid) || set.gid.is_some_and(|gid| !cred.in_group(gid));
    if foreign && !cred.is_superuser() { Err(NfsStat4::Perm) } else { Ok(()) }
}
