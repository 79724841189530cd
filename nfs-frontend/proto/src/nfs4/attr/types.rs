//! Values of attributes that are structures (RFC 8881 §5.8–§5.13, §11.16–§11.18; RFC 7862 §12.2; RFC 8275 §5;
//! RFC 9754).

use atoll_xdr::{Array, Opaque, xdr_enum, xdr_struct};

use crate::nfs4::limits::{
    MAX_CHOICES, MAX_LAYOUT_BODY, MAX_LAYOUTS, MAX_LOCATIONS, MAX_NETADDR, MAX_WIRE_XATTR,
};
use crate::nfs4::{Bitmap, NfsTime4, Path4, Text4};

/// Values of `fh_expire_type` (RFC 8881 §4.2.3).
pub mod fh_expire {
    /// Handles do not expire.
    pub const PERSISTENT: u32 = 0;
    /// Not while the file is open.
    pub const NOEXPIRE_WITH_OPEN: u32 = 1;
    /// At any time.
    pub const VOLATILE_ANY: u32 = 2;
    /// On migration.
    pub const VOL_MIGRATION: u32 = 4;
    /// On rename.
    pub const VOL_RENAME: u32 = 8;
}

/// Bits of `fs_charset_cap` (RFC 8881 §14.4).
pub mod charset {
    /// Names may not be UTF-8.
    pub const CONTAINS_NON_UTF8: u32 = 1;
    /// Only UTF-8 is permitted.
    pub const ALLOWS_ONLY_UTF8: u32 = 2;
}

/// A list of layout types, whose numbers are kept raw.
pub type LayoutTypes4 = Array<u32, MAX_CHOICES>;

xdr_enum! {
    /// How the change attribute changes (`change_attr_type4`, RFC 7862 §12.2.3).
    pub enum ChangeAttrType4 {
        /// It grows.
        MonotonicIncr = 0,
        /// It counts versions.
        VersionCounter = 1,
        /// It counts versions, except under pNFS.
        VersionCounterNoPnfs = 2,
        /// It is made from `time_metadata`.
        TimeMetadata = 3,
        /// Nothing is promised.
        Undefined = 4,
    }

    /// What a file system at this place is (`fs4_status_type`, RFC 8881 §11.18).
    pub enum FsStatusType4 {
        /// Never changes.
        Fixed = 1,
        /// Replaced as a whole from time to time.
        Updated = 2,
        /// A version of many.
        Versioned = 3,
        /// Can be written.
        Writable = 4,
        /// A referral.
        Referral = 5,
    }
}

xdr_struct! {
    /// `fs_location4`: servers that have the file system at a path.
    pub struct FsLocation4 {
        /// Names or addresses.
        pub servers: Array<Text4, MAX_LOCATIONS>,
        /// Path there.
        pub root_path: Path4,
    }

    /// `fs_locations4`: where else the file system is (RFC 8881 §11.16).
    pub struct FsLocations4 {
        /// Path of the file system here.
        pub fs_root: Path4,
        /// The places.
        pub locations: Array<FsLocation4, MAX_LOCATIONS>,
    }

    /// `fs_locations_server4`: a replica (RFC 8881 §11.17.1).
    pub struct FsLocationsServer4 {
        /// How current its data are, in seconds.
        pub currency: i32,
        /// Flags, classes, ranks: a byte each.
        pub info: Opaque<MAX_NETADDR>,
        /// Name or address.
        pub server: Text4,
    }

    /// `fs_locations_item4`: replicas with a common path.
    pub struct FsLocationsItem4 {
        /// The replicas.
        pub entries: Array<FsLocationsServer4, MAX_LOCATIONS>,
        /// Path there.
        pub root_path: Path4,
    }

    /// `fs_locations_info4` (RFC 8881 §11.17).
    pub struct FsLocationsInfo4 {
        /// Bit 0: the path contains variables.
        pub flags: u32,
        /// Seconds for which this is valid.
        pub valid_for: i32,
        /// Path of the file system here.
        pub fs_root: Path4,
        /// The places.
        pub items: Array<FsLocationsItem4, MAX_LOCATIONS>,
    }

    /// `fs4_status` (RFC 8881 §11.18).
    pub struct FsStatus4 {
        /// Whether the file system is absent here.
        pub absent: bool,
        /// What it is.
        pub status_type: FsStatusType4,
        /// Where it comes from.
        pub source: Text4,
        /// Its version as text.
        pub current: Text4,
        /// Seconds by which it may lag.
        pub age: i32,
        /// Its version as a time.
        pub version: NfsTime4,
    }

    /// `change_policy4`: changes with the server's policies for the file system (RFC 8881 §5.8.2.5).
    #[derive(Copy, Default)]
    pub struct ChangePolicy4 {
        /// Major part.
        pub major: u64,
        /// Minor part.
        pub minor: u64,
    }

    /// `layouthint4`.
    pub struct LayoutHint4 {
        /// Layout type.
        pub layout_type: u32,
        /// Its hint.
        pub body: Opaque<MAX_LAYOUT_BODY>,
    }

    /// `threshold_item4` (RFC 8881 §3.3.22).
    pub struct ThresholdItem4 {
        /// Layout type.
        pub layout_type: u32,
        /// Which thresholds follow.
        pub hint_set: Bitmap,
        /// The thresholds.
        pub hints: Opaque<MAX_LAYOUT_BODY>,
    }

    /// `mdsthreshold4`: from which sizes on a layout is worth it.
    pub struct MdsThreshold4 {
        /// Per layout type.
        pub hints: Array<ThresholdItem4, MAX_LAYOUTS>,
    }

    /// `retention_get4` (RFC 8881 §5.13).
    #[derive(Copy)]
    pub struct RetentionGet4 {
        /// Seconds.
        pub duration: u64,
        /// Since when.
        pub begin: Option<NfsTime4>,
    }

    /// `retention_set4`.
    #[derive(Copy)]
    pub struct RetentionSet4 {
        /// Whether retention begins.
        pub enable: bool,
        /// Seconds.
        pub duration: Option<u64>,
    }

    /// `mode_masked4`: bits of the mode to set and to clear (RFC 8881 §6.2.5).
    #[derive(Copy)]
    pub struct ModeMasked4 {
        /// Values of the bits.
        pub value: u32,
        /// The bits that are meant.
        pub mask: u32,
    }

    /// `mode_umask4`: mode and umask of a creation, for directories that may have a default ACL (RFC 8275 §5).
    #[derive(Copy)]
    pub struct ModeUmask4 {
        /// The mode asked for, before the umask.
        pub mode: u32,
        /// The creator's umask.
        pub umask: u32,
    }

    /// `sec_label4`: a label of mandatory access control (RFC 7862 §9).
    pub struct SecLabel4 {
        /// Format.
        pub lfs: u32,
        /// Policy.
        pub policy: u32,
        /// The label.
        pub data: Opaque<MAX_WIRE_XATTR>,
    }

    /// `open_arguments4`: what OPEN understands (RFC 9754 §3). Each a set of the numbers in `open_args_*4`.
    #[derive(Default)]
    pub struct OpenArguments4 {
        /// Share access: the values 1 to 3.
        pub share_access: Bitmap,
        /// Share deny: the values 0 to 3.
        pub share_deny: Bitmap,
        /// Wants, of [`open_args_want`].
        pub share_access_want: Bitmap,
        /// Claims, by the numbers of `open_claim_type4`.
        pub open_claim: Bitmap,
        /// Ways of creating, by the numbers of `createmode4`.
        pub create_mode: Bitmap,
    }
}

/// Numbers in [`OpenArguments4::share_access_want`] (`open_args_share_access_want4`).
pub mod open_args_want {
    /// Any delegation.
    pub const ANY_DELEG: u32 = 3;
    /// No delegation.
    pub const NO_DELEG: u32 = 4;
    /// Withdraws a want.
    pub const CANCEL: u32 = 5;
    /// A signal once there are resources for a delegation.
    pub const SIGNAL_DELEG_WHEN_RESRC_AVAIL: u32 = 17;
    /// A delegation pushed once there is no contention.
    pub const PUSH_DELEG_WHEN_UNCONTENDED: u32 = 18;
    /// A delegation that covers times.
    pub const DELEG_TIMESTAMPS: u32 = 20;
    /// No open stateid beside a delegation.
    pub const OPEN_XOR_DELEGATION: u32 = 21;
}
