//! All attributes: number, type, direction, minor version (RFC 8881 §5.6, §5.7; RFC 7862 §12.1; RFC 8275 §5;
//! RFC 8276 §8.2; RFC 9754 §2, §3, §5).

use atoll_xdr::{Decode, Decoder, Encode, Encoder, Result, xdr_enum};

use super::{
    ChangeAttrType4, ChangePolicy4, FsLocations4, FsLocationsInfo4, FsStatus4, LayoutHint4, LayoutTypes4,
    MdsThreshold4, ModeMasked4, ModeUmask4, OpenArguments4, RetentionGet4, RetentionSet4, SecLabel4,
};
use crate::nfs4::{
    Acl4, Acl41, Bitmap, FileHandle, FileType4, FsId4, NfsTime4, Principal4, SetTime4, SpecData4, Status4,
    Text4,
};

/// Which way an attribute goes (RFC 8881 §5.5).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Direction {
    /// Only read: setting it is `NFS4ERR_INVAL`.
    Read,
    /// Only set: asking for it by GETATTR is `NFS4ERR_INVAL`. CB_GETATTR asks a delegate for its times.
    Write,
    /// Both.
    Both,
}

macro_rules! attributes {
    ($( $(#[$m:meta])* $name:ident($t:ty) = $number:literal, $direction:ident, $minor:literal; )+) => {
        xdr_enum! {
            /// The number of an attribute (`FATTR4_*`).
            pub enum Attr4 {
                $( $(#[$m])* $name = $number ),+
            }
        }

        impl Attr4 {
            /// Which way it goes.
            pub const fn direction(self) -> Direction {
                match self { $( Self::$name => Direction::$direction ),+ }
            }

            /// The first minor version that has it. Extensions of 4.2 count as 4.2.
            pub const fn since(self) -> u32 {
                match self { $( Self::$name => $minor ),+ }
            }

            /// Reads a value of this attribute.
            pub fn decode_value(self, d: &mut Decoder) -> Result<AttrValue4> {
                Ok(match self { $( Self::$name => AttrValue4::$name(<$t>::decode(d)?) ),+ })
            }

            /// A value of this attribute chosen by `s`.
            #[cfg(test)]
            pub(crate) fn sample_value(self, s: &mut atoll_xdr::Entropy<'_>) -> AttrValue4 {
                match self { $( Self::$name => AttrValue4::$name(<$t as atoll_xdr::Sample>::sample(s)) ),+ }
            }
        }

        /// An attribute with its value (`fattr4_*`). It is written as the value alone.
        #[derive(Debug, Clone, PartialEq, Eq)]
        pub enum AttrValue4 {
            $( $(#[$m])* $name($t) ),+
        }

        impl AttrValue4 {
            /// Which attribute.
            pub const fn attr(&self) -> Attr4 {
                match self { $( Self::$name(_) => Attr4::$name ),+ }
            }
        }

        impl Encode for AttrValue4 {
            fn encode(&self, e: &mut Encoder) {
                match self { $( Self::$name(value) => e.put(value) ),+ }
            }
        }
    };
}

attributes! {
    /// Attributes the file system supports.
    SupportedAttrs(Bitmap) = 0, Read, 0;
    /// Type.
    Type(FileType4) = 1, Read, 0;
    /// When handles expire, of [`fh_expire`](super::fh_expire).
    FhExpireType(u32) = 2, Read, 0;
    /// Change attribute.
    Change(u64) = 3, Read, 0;
    /// Size in bytes.
    Size(u64) = 4, Both, 0;
    /// Whether there are hard links.
    LinkSupport(bool) = 5, Read, 0;
    /// Whether there are symbolic links.
    SymlinkSupport(bool) = 6, Read, 0;
    /// Whether the object has named attributes.
    NamedAttr(bool) = 7, Read, 0;
    /// The file system.
    FsId(FsId4) = 8, Read, 0;
    /// Whether two handles are two objects.
    UniqueHandles(bool) = 9, Read, 0;
    /// Lease in seconds.
    LeaseTime(u32) = 10, Read, 0;
    /// Why READDIR has no attributes of an entry.
    RdAttrError(Status4) = 11, Read, 0;
    /// Access control list.
    Acl(Acl4) = 12, Both, 0;
    /// Kinds of entries, of [`acl_support`](crate::nfs4::acl_support).
    AclSupport(u32) = 13, Read, 0;
    /// Whether it was archived since the last change.
    Archive(bool) = 14, Both, 0;
    /// Whether times can be set.
    CanSetTime(bool) = 15, Read, 0;
    /// Whether names that differ in case only are the same.
    CaseInsensitive(bool) = 16, Read, 0;
    /// Whether names keep their case.
    CasePreserving(bool) = 17, Read, 0;
    /// Whether only the superuser gives files away.
    ChownRestricted(bool) = 18, Read, 0;
    /// Handle.
    FileHandle(FileHandle) = 19, Read, 0;
    /// Id within the file system.
    FileId(u64) = 20, Read, 0;
    /// Files the caller may still make.
    FilesAvail(u64) = 21, Read, 0;
    /// Free files.
    FilesFree(u64) = 22, Read, 0;
    /// Files in all.
    FilesTotal(u64) = 23, Read, 0;
    /// Where else the file system is.
    FsLocations(FsLocations4) = 24, Read, 0;
    /// Whether it is hidden, as Windows has it.
    Hidden(bool) = 25, Both, 0;
    /// Whether all objects of the file system support the same attributes.
    Homogeneous(bool) = 26, Read, 0;
    /// Largest size in bytes.
    MaxFileSize(u64) = 27, Read, 0;
    /// Most hard links.
    MaxLink(u32) = 28, Read, 0;
    /// Longest name in bytes.
    MaxName(u32) = 29, Read, 0;
    /// Largest READ in bytes.
    MaxRead(u64) = 30, Read, 0;
    /// Largest WRITE in bytes.
    MaxWrite(u64) = 31, Read, 0;
    /// MIME type.
    MimeType(Text4) = 32, Both, 0;
    /// Permission bits, `0o7777`.
    Mode(u32) = 33, Both, 0;
    /// Whether names that are too long are refused.
    NoTrunc(bool) = 34, Read, 0;
    /// Number of names.
    NumLinks(u32) = 35, Read, 0;
    /// Owner.
    Owner(Principal4) = 36, Both, 0;
    /// Group.
    OwnerGroup(Principal4) = 37, Both, 0;
    /// Bytes left to the hard limit.
    QuotaAvailHard(u64) = 38, Read, 0;
    /// Bytes left to the soft limit.
    QuotaAvailSoft(u64) = 39, Read, 0;
    /// Bytes used.
    QuotaUsed(u64) = 40, Read, 0;
    /// Device numbers.
    RawDev(SpecData4) = 41, Read, 0;
    /// Bytes the caller may still use.
    SpaceAvail(u64) = 42, Read, 0;
    /// Free bytes.
    SpaceFree(u64) = 43, Read, 0;
    /// Bytes in all.
    SpaceTotal(u64) = 44, Read, 0;
    /// Bytes of storage used.
    SpaceUsed(u64) = 45, Read, 0;
    /// Whether it is a system file, as Windows has it.
    System(bool) = 46, Both, 0;
    /// Time of the last access.
    TimeAccess(NfsTime4) = 47, Read, 0;
    /// Sets the time of the last access.
    TimeAccessSet(SetTime4) = 48, Write, 0;
    /// Time of the last backup.
    TimeBackup(NfsTime4) = 49, Both, 0;
    /// Time of creation.
    TimeCreate(NfsTime4) = 50, Both, 0;
    /// Granularity of times.
    TimeDelta(NfsTime4) = 51, Read, 0;
    /// Time of the last change of attributes.
    TimeMetadata(NfsTime4) = 52, Read, 0;
    /// Time of the last change of data.
    TimeModify(NfsTime4) = 53, Read, 0;
    /// Sets the time of the last change of data.
    TimeModifySet(SetTime4) = 54, Write, 0;
    /// Id of the object a file system is mounted on.
    MountedOnFileId(u64) = 55, Read, 0;
    /// Least delay of notifications about a directory.
    DirNotifDelay(NfsTime4) = 56, Read, 1;
    /// Least delay of notifications about entries.
    DirentNotifDelay(NfsTime4) = 57, Read, 1;
    /// Entries that allow and deny, with flags.
    Dacl(Acl41) = 58, Both, 1;
    /// Entries that log and alarm, with flags.
    Sacl(Acl41) = 59, Both, 1;
    /// Changes with the policies of the file system.
    ChangePolicy(ChangePolicy4) = 60, Read, 1;
    /// What the file system is.
    FsStatus(FsStatus4) = 61, Read, 1;
    /// Layout types of the file system.
    FsLayoutTypes(LayoutTypes4) = 62, Read, 1;
    /// A hint for layouts.
    LayoutHint(LayoutHint4) = 63, Write, 1;
    /// Layout types of the object.
    LayoutTypes(LayoutTypes4) = 64, Read, 1;
    /// Preferred block size of layouts.
    LayoutBlkSize(u32) = 65, Read, 1;
    /// Preferred alignment of layouts.
    LayoutAlignment(u32) = 66, Read, 1;
    /// Where else the file system is, at length.
    FsLocationsInfo(FsLocationsInfo4) = 67, Read, 1;
    /// From which sizes on a layout is worth it.
    MdsThreshold(MdsThreshold4) = 68, Read, 1;
    /// Retention.
    RetentionGet(RetentionGet4) = 69, Read, 1;
    /// Sets retention.
    RetentionSet(RetentionSet4) = 70, Write, 1;
    /// Retention by event.
    RetentEvtGet(RetentionGet4) = 71, Read, 1;
    /// Sets retention by event.
    RetentEvtSet(RetentionSet4) = 72, Write, 1;
    /// Administrative holds.
    RetentionHold(u64) = 73, Both, 1;
    /// Sets some bits of the mode.
    ModeSetMasked(ModeMasked4) = 74, Write, 1;
    /// Attributes that EXCLUSIVE4_1 can set.
    SuppAttrExclCreat(Bitmap) = 75, Read, 1;
    /// What names can be, of [`charset`](super::charset).
    FsCharsetCap(u32) = 76, Read, 1;
    /// Granularity of CLONE in bytes.
    CloneBlkSize(u32) = 77, Read, 2;
    /// Bytes that removing the file sets free.
    SpaceFreed(u64) = 78, Read, 2;
    /// How the change attribute changes.
    ChangeAttrType(ChangeAttrType4) = 79, Read, 2;
    /// Label of mandatory access control.
    SecLabel(SecLabel4) = 80, Both, 2;
    /// Mode and umask of a creation (RFC 8275).
    ModeUmask(ModeUmask4) = 81, Write, 2;
    /// Whether there are extended attributes (RFC 8276).
    XattrSupport(bool) = 82, Read, 2;
    /// Whether the data are offline (RFC 9754).
    Offline(bool) = 83, Read, 2;
    /// A delegate's time of the last access (RFC 9754).
    TimeDelegAccess(NfsTime4) = 84, Write, 2;
    /// A delegate's time of the last change of data (RFC 9754).
    TimeDelegModify(NfsTime4) = 85, Write, 2;
    /// What OPEN understands (RFC 9754).
    OpenArguments(OpenArguments4) = 86, Read, 2;
}
