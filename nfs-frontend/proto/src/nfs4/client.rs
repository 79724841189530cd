//! Clients: SETCLIENTID, SETCLIENTID_CONFIRM, RENEW (RFC 7530 §16.28, §16.33, §16.34), EXCHANGE_ID, DESTROY_CLIENTID,
//! RECLAIM_COMPLETE (RFC 8881 §18.35, §18.50, §18.51).

use atoll_xdr::{Array, Opaque, xdr_struct, xdr_union};

use super::limits::{MAX_CHOICES, MAX_GSS};
use super::{Detail, Failure, Identity, ImplId4, NetAddr4, NfsStat4, StateProtectOps4, Verifier4};

/// Bits of the flags of EXCHANGE_ID.
pub mod exchange_id {
    /// The client follows NFS4ERR_MOVED to a referral.
    pub const SUPP_MOVED_REFER: u32 = 0x0000_0001;
    /// The client follows NFS4ERR_MOVED to a migrated file system.
    pub const SUPP_MOVED_MIGR: u32 = 0x0000_0002;
    /// Stateids are bound to the principal.
    pub const BIND_PRINC_STATEID: u32 = 0x0000_0100;
    /// Not a pNFS server.
    pub const USE_NON_PNFS: u32 = 0x0001_0000;
    /// A metadata server.
    pub const USE_PNFS_MDS: u32 = 0x0002_0000;
    /// A data server.
    pub const USE_PNFS_DS: u32 = 0x0004_0000;
    /// The three above.
    pub const MASK_PNFS: u32 = 0x0007_0000;
    /// The client updates a confirmed record. Arguments only.
    pub const UPD_CONFIRMED_REC_A: u32 = 0x4000_0000;
    /// The record is confirmed. Results only.
    pub const CONFIRMED_R: u32 = 0x8000_0000;
}

/// Mechanism ids of SP4_SSV algorithms (`sec_oid4<>`).
pub type SecOids4 = Array<Opaque<MAX_GSS>, MAX_CHOICES>;

xdr_struct! {
    /// Who a client is (`nfs_client_id4`, `client_owner4`).
    pub struct ClientOwner4 {
        /// Changes when the client restarts.
        pub verifier: Verifier4,
        /// Stays the same.
        pub ownerid: Identity,
    }

    /// Who a server is (`server_owner4`, RFC 8881 §2.10.5).
    pub struct ServerOwner4 {
        /// Equal for connections that can share a session, given an equal major id.
        pub minor_id: u64,
        /// Equal for connections that can share client ids.
        pub major_id: Identity,
    }

    /// Where a client takes callbacks (`cb_client4`). 4.0 only.
    pub struct CbClient4 {
        /// Program number.
        pub cb_program: u32,
        /// Address.
        pub cb_location: NetAddr4,
    }

    /// Arguments of SETCLIENTID.
    pub struct SetClientId4Args {
        /// Who.
        pub client: ClientOwner4,
        /// Where callbacks go.
        pub callback: CbClient4,
        /// Repeated in callbacks.
        pub callback_ident: u32,
    }

    /// Results of SETCLIENTID.
    #[derive(Copy)]
    pub struct SetClientId4Ok {
        /// The client id.
        pub clientid: u64,
        /// What confirms it.
        pub setclientid_confirm: Verifier4,
    }

    /// The client that uses the id already (arm `NFS4ERR_CLID_INUSE` of SETCLIENTID).
    pub struct ClientUsing4 {
        /// Its address.
        pub client_using: NetAddr4,
    }

    /// Arguments of SETCLIENTID_CONFIRM.
    #[derive(Copy)]
    pub struct SetClientIdConfirm4Args {
        /// The client id.
        pub clientid: u64,
        /// What SETCLIENTID answered.
        pub setclientid_confirm: Verifier4,
    }

    /// Arguments of RENEW and DESTROY_CLIENTID.
    #[derive(Copy)]
    pub struct ClientId4Args {
        /// The client id.
        pub clientid: u64,
    }

    /// A wish for SP4_SSV (`ssv_sp_parms4`).
    pub struct SsvParms4 {
        /// Operations.
        pub ops: StateProtectOps4,
        /// Hash algorithms.
        pub hash_algs: SecOids4,
        /// Encryption algorithms.
        pub encr_algs: SecOids4,
        /// Versions of the secret to keep.
        pub window: u32,
        /// GSS handles wanted.
        pub num_gss_handles: u32,
    }

    /// SP4_SSV as granted (`ssv_prot_info4`).
    pub struct SsvProtInfo4 {
        /// Operations.
        pub ops: StateProtectOps4,
        /// Index of the hash algorithm.
        pub hash_alg: u32,
        /// Index of the encryption algorithm.
        pub encr_alg: u32,
        /// Bytes of the secret.
        pub ssv_len: u32,
        /// Versions of the secret kept.
        pub window: u32,
        /// GSS handles.
        pub handles: SecOids4,
    }

    /// Arguments of EXCHANGE_ID.
    pub struct ExchangeId4Args {
        /// Who.
        pub clientowner: ClientOwner4,
        /// Of [`exchange_id`].
        pub flags: u32,
        /// How state is protected.
        pub state_protect: StateProtect4Args,
        /// Implementation.
        pub client_impl_id: Option<ImplId4>,
    }

    /// Results of EXCHANGE_ID.
    pub struct ExchangeId4Ok {
        /// The client id.
        pub clientid: u64,
        /// For CREATE_SESSION.
        pub sequenceid: u32,
        /// Of [`exchange_id`].
        pub flags: u32,
        /// How state is protected.
        pub state_protect: StateProtect4Ok,
        /// The server.
        pub server_owner: ServerOwner4,
        /// Within which client ids and states mean the same.
        pub server_scope: Identity,
        /// Implementation.
        pub server_impl_id: Option<ImplId4>,
    }

    /// Arguments of RECLAIM_COMPLETE.
    #[derive(Copy)]
    pub struct ReclaimComplete4Args {
        /// Whether it is about the current file system only.
        pub one_fs: bool,
    }
}

xdr_union! {
    /// A wish how state is protected (`state_protect4_a`).
    pub enum StateProtect4Args {
        /// Not.
        0 => None,
        /// By the machine's credential.
        1 => MachCred(ops: StateProtectOps4),
        /// By a shared secret.
        2 => Ssv(parms: SsvParms4),
    }

    /// How state is protected (`state_protect4_r`).
    pub enum StateProtect4Ok {
        /// Not.
        0 => None,
        /// By the machine's credential.
        1 => MachCred(ops: StateProtectOps4),
        /// By a shared secret.
        2 => Ssv(info: SsvProtInfo4),
    }
}

impl Detail for ClientUsing4 {
    const STATUS: NfsStat4 = NfsStat4::ClidInuse;
}

/// Results of SETCLIENTID.
pub type SetClientId4Res = Result<SetClientId4Ok, Failure<ClientUsing4>>;
/// Results of EXCHANGE_ID.
pub type ExchangeId4Res = Result<ExchangeId4Ok, NfsStat4>;
