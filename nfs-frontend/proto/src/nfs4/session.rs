//! Sessions: BACKCHANNEL_CTL, BIND_CONN_TO_SESSION, CREATE_SESSION, DESTROY_SESSION, SEQUENCE, SET_SSV, and the
//! stateids they look after: FREE_STATEID, TEST_STATEID (RFC 8881 §18.33, §18.34, §18.36–§18.38, §18.46–§18.48).

use atoll_xdr::{Array, Opaque, xdr_enum, xdr_struct, xdr_union};

use super::limits::{MAX_CHOICES, MAX_GSS, MAX_STATEIDS};
use super::secinfo::GssService4;
use super::{NfsStat4, SessionId4, StateId4, Status4};
use crate::rpc::AuthSys;

/// Bits of the flags of CREATE_SESSION.
pub mod create_session {
    /// Replies survive a restart.
    pub const PERSIST: u32 = 1;
    /// This connection is the backchannel too.
    pub const CONN_BACK_CHAN: u32 = 2;
    /// This connection goes over to RDMA.
    pub const CONN_RDMA: u32 = 4;
}

/// Bits of [`Sequence4Ok::status_flags`] (`SEQ4_STATUS_*`).
pub mod seq_status {
    /// No connection for callbacks of any session.
    pub const CB_PATH_DOWN: u32 = 0x0001;
    /// GSS contexts for callbacks expire soon.
    pub const CB_GSS_CONTEXTS_EXPIRING: u32 = 0x0002;
    /// GSS contexts for callbacks expired.
    pub const CB_GSS_CONTEXTS_EXPIRED: u32 = 0x0004;
    /// The lease ran out, all state is revoked.
    pub const EXPIRED_ALL_STATE_REVOKED: u32 = 0x0008;
    /// The lease ran out, some state is revoked.
    pub const EXPIRED_SOME_STATE_REVOKED: u32 = 0x0010;
    /// An administrator revoked state.
    pub const ADMIN_STATE_REVOKED: u32 = 0x0020;
    /// Delegations or layouts were revoked.
    pub const RECALLABLE_STATE_REVOKED: u32 = 0x0040;
    /// State moved with a file system.
    pub const LEASE_MOVED: u32 = 0x0080;
    /// State is to be reclaimed.
    pub const RESTART_RECLAIM_NEEDED: u32 = 0x0100;
    /// No connection for callbacks of this session.
    pub const CB_PATH_DOWN_SESSION: u32 = 0x0200;
    /// Something unrecoverable on the backchannel.
    pub const BACKCHANNEL_FAULT: u32 = 0x0400;
    /// Device ids changed.
    pub const DEVID_CHANGED: u32 = 0x0800;
    /// Device ids were deleted.
    pub const DEVID_DELETED: u32 = 0x1000;
}

xdr_enum! {
    /// Channels that a client wants a connection for (`channel_dir_from_client4`).
    pub enum DirFromClient4 {
        /// The fore channel.
        Fore = 1,
        /// The backchannel.
        Back = 2,
        /// The fore channel, and the backchannel if the server will.
        ForeOrBoth = 3,
        /// The backchannel, and the fore channel if the server will.
        BackOrBoth = 7,
    }

    /// Channels that a connection is for (`channel_dir_from_server4`).
    pub enum DirFromServer4 {
        /// The fore channel.
        Fore = 1,
        /// The backchannel.
        Back = 2,
        /// Both.
        Both = 3,
    }
}

xdr_struct! {
    /// GSS contexts of a callback (`gss_cb_handles4`).
    pub struct GssCbHandles4 {
        /// Service.
        pub service: GssService4,
        /// The server's handle.
        pub handle_from_server: Opaque<MAX_GSS>,
        /// The client's handle.
        pub handle_from_client: Opaque<MAX_GSS>,
    }

    /// Arguments of BACKCHANNEL_CTL.
    pub struct BackchannelCtl4Args {
        /// Program number of callbacks.
        pub cb_program: u32,
        /// Credentials the client accepts in callbacks.
        pub sec_parms: CbSecParms,
    }

    /// Arguments of BIND_CONN_TO_SESSION.
    #[derive(Copy)]
    pub struct BindConnToSession4Args {
        /// The session.
        pub sessionid: SessionId4,
        /// Channels wanted.
        pub dir: DirFromClient4,
        /// Whether RDMA is wanted.
        pub use_conn_in_rdma_mode: bool,
    }

    /// Results of BIND_CONN_TO_SESSION.
    #[derive(Copy)]
    pub struct BindConnToSession4Ok {
        /// The session.
        pub sessionid: SessionId4,
        /// Channels.
        pub dir: DirFromServer4,
        /// Whether RDMA is used.
        pub use_conn_in_rdma_mode: bool,
    }

    /// Limits of a channel (`channel_attrs4`).
    #[derive(Copy)]
    pub struct ChannelAttrs4 {
        /// Padding before headers of WRITE; RDMA only.
        pub headerpadsize: u32,
        /// Largest request in bytes.
        pub maxrequestsize: u32,
        /// Largest reply in bytes.
        pub maxresponsesize: u32,
        /// Largest reply that a slot keeps, in bytes.
        pub maxresponsesize_cached: u32,
        /// Most operations of a COMPOUND.
        pub maxoperations: u32,
        /// Slots.
        pub maxrequests: u32,
        /// RDMA reads in flight.
        pub rdma_ird: Option<u32>,
    }

    /// Arguments of CREATE_SESSION.
    pub struct CreateSession4Args {
        /// The client id.
        pub clientid: u64,
        /// As EXCHANGE_ID answered, and one more each time.
        pub sequence: u32,
        /// Of [`create_session`].
        pub flags: u32,
        /// Wishes for the fore channel.
        pub fore_chan_attrs: ChannelAttrs4,
        /// Wishes for the backchannel.
        pub back_chan_attrs: ChannelAttrs4,
        /// Program number of callbacks.
        pub cb_program: u32,
        /// Credentials the client accepts in callbacks.
        pub sec_parms: CbSecParms,
    }

    /// Results of CREATE_SESSION.
    #[derive(Copy)]
    pub struct CreateSession4Ok {
        /// The session.
        pub sessionid: SessionId4,
        /// As in the arguments.
        pub sequence: u32,
        /// Of [`create_session`].
        pub flags: u32,
        /// The fore channel.
        pub fore_chan_attrs: ChannelAttrs4,
        /// The backchannel.
        pub back_chan_attrs: ChannelAttrs4,
    }

    /// Arguments of DESTROY_SESSION.
    #[derive(Copy)]
    pub struct DestroySession4Args {
        /// The session.
        pub sessionid: SessionId4,
    }

    /// Arguments of FREE_STATEID.
    #[derive(Copy)]
    pub struct FreeStateId4Args {
        /// The state that is gone.
        pub stateid: StateId4,
    }

    /// Arguments of SEQUENCE.
    #[derive(Copy)]
    pub struct Sequence4Args {
        /// The session.
        pub sessionid: SessionId4,
        /// One more than the slot's last.
        pub sequenceid: u32,
        /// The slot.
        pub slotid: u32,
        /// Highest slot the client uses.
        pub highest_slotid: u32,
        /// Whether the reply is to be kept.
        pub cachethis: bool,
    }

    /// Results of SEQUENCE.
    #[derive(Copy)]
    pub struct Sequence4Ok {
        /// The session.
        pub sessionid: SessionId4,
        /// As in the arguments.
        pub sequenceid: u32,
        /// As in the arguments.
        pub slotid: u32,
        /// Highest slot the server accepts.
        pub highest_slotid: u32,
        /// Highest slot the server wants used.
        pub target_highest_slotid: u32,
        /// Of [`seq_status`].
        pub status_flags: u32,
    }

    /// Arguments of SET_SSV.
    pub struct SetSsv4Args {
        /// What the secret is combined with.
        pub ssv: Opaque<MAX_GSS>,
        /// Digest of the SEQUENCE.
        pub digest: Opaque<MAX_GSS>,
    }

    /// Results of SET_SSV.
    pub struct SetSsv4Ok {
        /// Digest of the SEQUENCE's results.
        pub digest: Opaque<MAX_GSS>,
    }

    /// Arguments of TEST_STATEID.
    pub struct TestStateId4Args {
        /// The states.
        pub stateids: Array<StateId4, MAX_STATEIDS>,
    }

    /// Results of TEST_STATEID.
    pub struct TestStateId4Ok {
        /// What using each would say.
        pub status_codes: Array<Status4, MAX_STATEIDS>,
    }
}

xdr_union! {
    /// A credential for callbacks (`callback_sec_parms4`; the discriminant is the flavor).
    pub enum CbSecParms4 {
        /// AUTH_NONE.
        0 => None,
        /// AUTH_SYS.
        1 => Sys(cred: AuthSys),
        /// RPCSEC_GSS.
        6 => Gss(handles: GssCbHandles4),
    }
}

/// Credentials for callbacks.
pub type CbSecParms = Array<CbSecParms4, MAX_CHOICES>;

/// Results of BIND_CONN_TO_SESSION.
pub type BindConnToSession4Res = Result<BindConnToSession4Ok, NfsStat4>;
/// Results of CREATE_SESSION.
pub type CreateSession4Res = Result<CreateSession4Ok, NfsStat4>;
/// Results of SEQUENCE.
pub type Sequence4Res = Result<Sequence4Ok, NfsStat4>;
/// Results of SET_SSV.
pub type SetSsv4Res = Result<SetSsv4Ok, NfsStat4>;
/// Results of TEST_STATEID.
pub type TestStateId4Res = Result<TestStateId4Ok, NfsStat4>;
