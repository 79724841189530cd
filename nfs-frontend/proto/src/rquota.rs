//! Remote quota versions 1 and 2 (`rquota.x`; version 2 is the extension for group quotas of Linux and BSD).
//!
//! Only the questions are declared. Setting quotas from a client (procedures 3 and 4) is not served.

use atoll_xdr::{Opaque, xdr_enum, xdr_struct, xdr_union};

/// Program number of RQUOTA.
pub const PROGRAM: u32 = 100_011;

/// Longest path in bytes (`RQ_PATHLEN`).
pub const MAX_PATH: usize = 1024;

xdr_enum! {
    /// Whose quota (`gqa_type`).
    pub enum QuotaType {
        /// A user's.
        User = 0,
        /// A group's.
        Group = 1,
    }
}

xdr_struct! {
    /// Arguments in version 1 (`getquota_args`).
    pub struct GetQuotaArgs {
        /// Path of the file system on the server.
        pub path: Opaque<MAX_PATH>,
        /// The user.
        pub uid: u32,
    }

    /// Arguments in version 2 (`ext_getquota_args`).
    pub struct ExtGetQuotaArgs {
        /// Path of the file system on the server.
        pub path: Opaque<MAX_PATH>,
        /// Of [`QuotaType`]; any number decodes, an unknown one has no quota.
        pub kind: u32,
        /// The user or group.
        pub id: u32,
    }

    /// A quota (`rquota`).
    #[derive(Copy)]
    pub struct RQuota {
        /// Bytes of a block, in which blocks are counted.
        pub block_size: u32,
        /// Whether it is enforced.
        pub active: bool,
        /// Blocks that cannot be exceeded.
        pub block_hard_limit: u32,
        /// Blocks that can be exceeded for a while.
        pub block_soft_limit: u32,
        /// Blocks used.
        pub blocks: u32,
        /// Files that cannot be exceeded.
        pub file_hard_limit: u32,
        /// Files that can be exceeded for a while.
        pub file_soft_limit: u32,
        /// Files used.
        pub files: u32,
        /// Seconds left above the soft limit of blocks.
        pub block_seconds_left: u32,
        /// Seconds left above the soft limit of files.
        pub file_seconds_left: u32,
    }
}

xdr_union! {
    /// Results (`getquota_rslt`).
    #[derive(Copy)]
    pub enum GetQuotaRes {
        /// The quota.
        1 => Ok(quota: RQuota),
        /// There is none.
        2 => NoQuota,
        /// The caller may not know.
        3 => Perm,
    }
}

/// RQUOTA version 1.
pub mod v1 {
    use super::{GetQuotaArgs, GetQuotaRes, PROGRAM};
    use crate::rpc::rpc_program;

    /// This version.
    pub const VERSION: u32 = 1;

    rpc_program! {
        /// Procedures of RQUOTA version 1.
        program PROGRAM, version VERSION;
        /// Does nothing.
        Null(()) -> () = 0;
        /// The quota of a user.
        GetQuota(GetQuotaArgs) -> GetQuotaRes = 1;
        /// The same, if it is enforced.
        GetActiveQuota(GetQuotaArgs) -> GetQuotaRes = 2;
    }
}

/// RQUOTA version 2.
pub mod v2 {
    use super::{ExtGetQuotaArgs, GetQuotaRes, PROGRAM};
    use crate::rpc::rpc_program;

    /// This version.
    pub const VERSION: u32 = 2;

    rpc_program! {
        /// Procedures of RQUOTA version 2.
        program PROGRAM, version VERSION;
        /// Does nothing.
        Null(()) -> () = 0;
        /// The quota of a user or group.
        GetQuota(ExtGetQuotaArgs) -> GetQuotaRes = 1;
        /// The same, if it is enforced.
        GetActiveQuota(ExtGetQuotaArgs) -> GetQuotaRes = 2;
    }
}
