//! Network Status Monitor version 1 (`sm_inter.x`, X/Open XNFS chapter 11).
//!
//! Hosts tell each other of a restart by NOTIFY; the number of their state is odd while they are up. The local lock
//! manager is told by a call of the procedure it named in MON ([`Status`]).

use atoll_xdr::{Opaque, xdr_enum, xdr_struct};

use crate::rpc::rpc_program;

/// Program number of NSM.
pub const PROGRAM: u32 = 100_024;
/// This version.
pub const VERSION: u32 = 1;

/// Longest host name in bytes (`SM_MAXSTRLEN`).
pub const MAX_NAME: usize = 1024;

/// Bytes a caller of MON gets back in the callback.
pub const PRIVATE_LEN: usize = 16;

/// Name of a host.
pub type HostName = Opaque<MAX_NAME>;

xdr_enum! {
    /// Whether a host is monitored (`res`).
    pub enum MonitorResult {
        /// It is.
        Succeeded = 0,
        /// It cannot be.
        Failed = 1,
    }
}

xdr_struct! {
    /// Arguments of STAT (`sm_name`).
    pub struct SmName {
        /// The host asked about.
        pub mon_name: HostName,
    }

    /// Whom to call back (`my_id`).
    pub struct MyId {
        /// The host that asks for monitoring.
        pub my_name: HostName,
        /// Its program.
        pub my_prog: i32,
        /// Version of that program.
        pub my_vers: i32,
        /// Procedure of that version.
        pub my_proc: i32,
    }

    /// Arguments of UNMON (`mon_id`).
    pub struct MonId {
        /// The host monitored.
        pub mon_name: HostName,
        /// Who asked for it.
        pub my_id: MyId,
    }

    /// Arguments of MON (`mon`).
    pub struct MonArgs {
        /// The host to monitor and who asks for it.
        pub mon_id: MonId,
        /// Returned in the callback.
        pub private: [u8; PRIVATE_LEN],
    }

    /// Results of UNMON and UNMON_ALL (`sm_stat`).
    #[derive(Copy)]
    pub struct SmStat {
        /// State number of this host.
        pub state: i32,
    }

    /// Results of STAT and MON (`sm_stat_res`).
    #[derive(Copy)]
    pub struct SmStatRes {
        /// Whether the host is monitored.
        pub result: MonitorResult,
        /// State number: of the host asked about in STAT, of this host in MON.
        pub state: i32,
    }

    /// Arguments of NOTIFY (`stat_chge`).
    pub struct StateChange {
        /// The host that restarted.
        pub mon_name: HostName,
        /// Its new state number.
        pub state: i32,
    }

    /// Arguments of the callback to the lock manager (`status`).
    pub struct Status {
        /// The host that restarted.
        pub mon_name: HostName,
        /// Its new state number.
        pub state: i32,
        /// What MON gave.
        pub private: [u8; PRIVATE_LEN],
    }
}

rpc_program! {
    /// Procedures of NSM.
    program PROGRAM, version VERSION;
    /// Does nothing.
    Null(()) -> () = 0;
    /// Whether a host could be monitored.
    Stat(SmName) -> SmStatRes = 1;
    /// Monitors a host.
    Mon(MonArgs) -> SmStatRes = 2;
    /// Stops monitoring a host.
    Unmon(MonId) -> SmStat = 3;
    /// Stops monitoring all hosts for a caller.
    UnmonAll(MyId) -> SmStat = 4;
    /// Behaves as after a crash; for tests.
    SimuCrash(()) -> () = 5;
    /// A host tells that it restarted.
    Notify(StateChange) -> () = 6;
}
