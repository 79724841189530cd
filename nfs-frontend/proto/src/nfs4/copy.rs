//! Copies at the server: CLONE, COPY, COPY_NOTIFY, OFFLOAD_CANCEL, OFFLOAD_STATUS (RFC 7862 §15.2, §15.3, §15.8, §15.9,
//! §15.13).

use atoll_xdr::{Array, xdr_struct};

use super::limits::MAX_CHOICES;
use super::{Detail, Failure, NetLoc4, NfsStat4, NfsTime4, StateId4, Status4, WriteResponse4};

xdr_struct! {
    /// Arguments of CLONE: from the saved to the current file.
    #[derive(Copy)]
    pub struct Clone4Args {
        /// State of the source.
        pub src_stateid: StateId4,
        /// State of the destination.
        pub dst_stateid: StateId4,
        /// First byte at the source.
        pub src_offset: u64,
        /// First byte at the destination.
        pub dst_offset: u64,
        /// Bytes; 0 is to the end of the source.
        pub count: u64,
    }

    /// Arguments of COPY: from the saved to the current file.
    pub struct Copy4Args {
        /// State of the source.
        pub src_stateid: StateId4,
        /// State of the destination.
        pub dst_stateid: StateId4,
        /// First byte at the source.
        pub src_offset: u64,
        /// First byte at the destination.
        pub dst_offset: u64,
        /// Bytes; 0 is to the end of the source.
        pub count: u64,
        /// Whether bytes have to be copied in order.
        pub consecutive: bool,
        /// Whether the reply waits for the copy.
        pub synchronous: bool,
        /// Where the source is; none for this server.
        pub source_server: Array<NetLoc4, MAX_CHOICES>,
    }

    /// How a copy is done (`copy_requirements4`); beside `NFS4ERR_OFFLOAD_NO_REQS`, how it can be done.
    #[derive(Copy)]
    pub struct CopyRequirements4 {
        /// Whether bytes are copied in order.
        pub consecutive: bool,
        /// Whether the reply waits for the copy.
        pub synchronous: bool,
    }

    /// Results of COPY.
    #[derive(Copy)]
    pub struct Copy4Ok {
        /// What was written, or by which stateid its end will be told.
        pub response: WriteResponse4,
        /// How.
        pub requirements: CopyRequirements4,
    }

    /// Arguments of COPY_NOTIFY.
    pub struct CopyNotify4Args {
        /// State of the source.
        pub src_stateid: StateId4,
        /// The server that will read.
        pub destination_server: NetLoc4,
    }

    /// Results of COPY_NOTIFY.
    pub struct CopyNotify4Ok {
        /// How long the other server may take to begin.
        pub lease_time: NfsTime4,
        /// The stateid it reads by.
        pub stateid: StateId4,
        /// Where it reads.
        pub source_server: Array<NetLoc4, MAX_CHOICES>,
    }

    /// Arguments of OFFLOAD_CANCEL and OFFLOAD_STATUS.
    #[derive(Copy)]
    pub struct Offload4Args {
        /// The copy.
        pub stateid: StateId4,
    }

    /// Results of OFFLOAD_STATUS.
    #[derive(Copy)]
    pub struct OffloadStatus4Ok {
        /// Bytes copied.
        pub count: u64,
        /// Its outcome, if it has ended.
        pub complete: Option<Status4>,
    }
}

impl Detail for CopyRequirements4 {
    const STATUS: NfsStat4 = NfsStat4::OffloadNoReqs;
}

/// Results of COPY.
pub type Copy4Res = Result<Copy4Ok, Failure<CopyRequirements4>>;
/// Results of COPY_NOTIFY.
pub type CopyNotify4Res = Result<CopyNotify4Ok, NfsStat4>;
/// Results of OFFLOAD_STATUS.
pub type OffloadStatus4Res = Result<OffloadStatus4Ok, NfsStat4>;
