//! Layouts: GETDEVICEINFO, GETDEVICELIST, LAYOUTCOMMIT, LAYOUTGET, LAYOUTRETURN (RFC 8881 §18.40–§18.44), LAYOUTERROR,
//! LAYOUTSTATS (RFC 7862 §15.6, §15.7).
//!
//! The server hands out no layouts. The arguments are here so that the operations are answered and what follows them
//! in a COMPOUND is read; layout types are raw numbers and their bodies opaque.

use atoll_xdr::{Array, Opaque, xdr_enum, xdr_struct, xdr_union};

use super::limits::{MAX_LAYOUT_BODY, MAX_LAYOUTS, MAX_LISTED};
use super::{Bitmap, Detail, Failure, NfsStat4, NfsTime4, StateId4, Status4, Verifier4};

/// `deviceid4`.
pub type DeviceId4 = [u8; 16];

/// What a layout type says in its own way.
pub type LayoutBody = Opaque<MAX_LAYOUT_BODY>;

xdr_enum! {
    /// What a layout is for (`layoutiomode4`).
    pub enum LayoutIoMode4 {
        /// Reading.
        Read = 1,
        /// Reading and writing.
        ReadWrite = 2,
        /// Either; not in LAYOUTGET.
        Any = 3,
    }
}

xdr_struct! {
    /// Something of a layout type (`layout_content4`, `device_addr4`, `layoutupdate4`).
    pub struct Typed4 {
        /// Layout type.
        pub layout_type: u32,
        /// Body.
        pub body: LayoutBody,
    }

    /// A layout (`layout4`).
    pub struct Layout4 {
        /// First byte.
        pub offset: u64,
        /// Bytes.
        pub length: u64,
        /// What it is for.
        pub iomode: LayoutIoMode4,
        /// The layout.
        pub content: Typed4,
    }

    /// Arguments of GETDEVICEINFO.
    pub struct GetDeviceInfo4Args {
        /// The device.
        pub device_id: DeviceId4,
        /// Layout type.
        pub layout_type: u32,
        /// Most bytes of the result.
        pub maxcount: u32,
        /// Notifications wanted.
        pub notify_types: Bitmap,
    }

    /// Results of GETDEVICEINFO.
    pub struct GetDeviceInfo4Ok {
        /// The device.
        pub device_addr: Typed4,
        /// Notifications that will come.
        pub notification: Bitmap,
    }

    /// Bytes that GETDEVICEINFO needs (arm `NFS4ERR_TOOSMALL`).
    #[derive(Copy)]
    pub struct MinCount4 {
        /// Bytes.
        pub mincount: u32,
    }

    /// Arguments of GETDEVICELIST.
    #[derive(Copy)]
    pub struct GetDeviceList4Args {
        /// Layout type.
        pub layout_type: u32,
        /// Most devices.
        pub maxdevices: u32,
        /// Where to go on; 0 at first.
        pub cookie: u64,
        /// Verifier of the cookie.
        pub cookieverf: Verifier4,
    }

    /// Results of GETDEVICELIST.
    pub struct GetDeviceList4Ok {
        /// Where to go on.
        pub cookie: u64,
        /// Verifier of the cookie.
        pub cookieverf: Verifier4,
        /// Devices.
        pub deviceids: Array<DeviceId4, MAX_LISTED>,
        /// Whether these are the last.
        pub eof: bool,
    }

    /// Arguments of LAYOUTCOMMIT.
    pub struct LayoutCommit4Args {
        /// First byte.
        pub offset: u64,
        /// Bytes.
        pub length: u64,
        /// Whether it is from before the server's restart.
        pub reclaim: bool,
        /// The layout.
        pub stateid: StateId4,
        /// Offset of the last byte written (`newoffset4`).
        pub last_write_offset: Option<u64>,
        /// Time of the last change of data (`newtime4`).
        pub time_modify: Option<NfsTime4>,
        /// Of the layout type.
        pub layoutupdate: Typed4,
    }

    /// Results of LAYOUTCOMMIT.
    #[derive(Copy)]
    pub struct LayoutCommit4Ok {
        /// The size, if it changed (`newsize4`).
        pub newsize: Option<u64>,
    }

    /// Arguments of LAYOUTGET.
    #[derive(Copy)]
    pub struct LayoutGet4Args {
        /// Whether a signal is wanted once one is available.
        pub signal_layout_avail: bool,
        /// Layout type.
        pub layout_type: u32,
        /// What for.
        pub iomode: LayoutIoMode4,
        /// First byte.
        pub offset: u64,
        /// Bytes.
        pub length: u64,
        /// Fewest bytes.
        pub minlength: u64,
        /// An open, lock, delegation or layout.
        pub stateid: StateId4,
        /// Most bytes of the result.
        pub maxcount: u32,
    }

    /// Results of LAYOUTGET.
    pub struct LayoutGet4Ok {
        /// Whether it is returned by CLOSE.
        pub return_on_close: bool,
        /// The layouts' state.
        pub stateid: StateId4,
        /// The layouts.
        pub layouts: Array<Layout4, MAX_LAYOUTS>,
    }

    /// Whether a signal will come (arm `NFS4ERR_LAYOUTTRYLATER` of LAYOUTGET).
    #[derive(Copy)]
    pub struct WillSignal4 {
        /// Whether.
        pub will_signal: bool,
    }

    /// A stretch of a layout that is returned (`layoutreturn_file4`).
    pub struct LayoutReturnFile4 {
        /// First byte.
        pub offset: u64,
        /// Bytes.
        pub length: u64,
        /// The layout.
        pub stateid: StateId4,
        /// Of the layout type.
        pub body: LayoutBody,
    }

    /// Arguments of LAYOUTRETURN.
    pub struct LayoutReturn4Args {
        /// Whether it is from before the server's restart.
        pub reclaim: bool,
        /// Layout type.
        pub layout_type: u32,
        /// Of which kind.
        pub iomode: LayoutIoMode4,
        /// What is returned.
        pub layoutreturn: LayoutReturn4,
    }

    /// Results of LAYOUTRETURN.
    #[derive(Copy)]
    pub struct LayoutReturn4Ok {
        /// The layouts' state, if any are left (`layoutreturn_stateid`).
        pub stateid: Option<StateId4>,
    }

    /// A device's failure (`device_error4`).
    #[derive(Copy)]
    pub struct DeviceError4 {
        /// The device.
        pub deviceid: DeviceId4,
        /// What it said.
        pub status: Status4,
        /// To which operation, by its number.
        pub opnum: u32,
    }

    /// Arguments of LAYOUTERROR.
    pub struct LayoutError4Args {
        /// First byte.
        pub offset: u64,
        /// Bytes.
        pub length: u64,
        /// The layout.
        pub stateid: StateId4,
        /// Failures.
        pub errors: Array<DeviceError4, MAX_LAYOUTS>,
    }

    /// How much I/O there was (`io_info4`).
    #[derive(Copy)]
    pub struct IoInfo4 {
        /// Operations.
        pub count: u64,
        /// Bytes.
        pub bytes: u64,
    }

    /// Arguments of LAYOUTSTATS.
    pub struct LayoutStats4Args {
        /// First byte.
        pub offset: u64,
        /// Bytes.
        pub length: u64,
        /// The layout.
        pub stateid: StateId4,
        /// Reads.
        pub read: IoInfo4,
        /// Writes.
        pub write: IoInfo4,
        /// The device.
        pub deviceid: DeviceId4,
        /// Of the layout type.
        pub layoutupdate: Typed4,
    }
}

xdr_union! {
    /// What is returned (`layoutreturn4`).
    pub enum LayoutReturn4 {
        /// Of a file.
        1 => File(layout: LayoutReturnFile4),
        /// Of a file system.
        2 => FsId,
        /// Everything.
        3 => All,
    }
}

impl Detail for MinCount4 {
    const STATUS: NfsStat4 = NfsStat4::TooSmall;
}

impl Detail for WillSignal4 {
    const STATUS: NfsStat4 = NfsStat4::LayoutTryLater;
}

/// Results of GETDEVICEINFO.
pub type GetDeviceInfo4Res = Result<GetDeviceInfo4Ok, Failure<MinCount4>>;
/// Results of GETDEVICELIST.
pub type GetDeviceList4Res = Result<GetDeviceList4Ok, NfsStat4>;
/// Results of LAYOUTCOMMIT.
pub type LayoutCommit4Res = Result<LayoutCommit4Ok, NfsStat4>;
/// Results of LAYOUTGET.
pub type LayoutGet4Res = Result<LayoutGet4Ok, Failure<WillSignal4>>;
/// Results of LAYOUTRETURN.
pub type LayoutReturn4Res = Result<LayoutReturn4Ok, NfsStat4>;
