//! NFSv4 clients and sessions (RFC 7530 §9.1; RFC 8881 §2.4, §2.10): what changes them, and what is known of them.

use super::{ClientId, SessionId};
use bytes::Bytes;
use serde::{Deserialize, Serialize};

/// Who set a client up, for the rules that compare principals (RFC 8881 §2.4, RFC 7530 §9.1.2).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Principal {
    /// AUTH_NONE.
    Nobody,
    /// AUTH_SYS with this uid.
    Sys(u32),
}

/// How a v4.0 client is called back (RFC 7530 §3.3.9 `cb_client4`), with the identifier it wants to see in each callback.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Callback40 {
    /// RPC program.
    pub program: u32,
    /// `tcp`, `tcp6` …
    pub netid: Bytes,
    /// Universal address.
    pub address: Bytes,
    /// `callback_ident`.
    pub ident: u32,
}

/// What a client says of itself (`nfs_impl_id4`, and its address), for those who administrate the server.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClientAbout {
    /// Address that it called from.
    pub address: Option<std::net::IpAddr>,
    /// Implementation's name, any bytes.
    pub implementation: Bytes,
}

/// Limits of one direction of a session, as agreed (RFC 8881 §18.36 `channel_attrs4`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ChannelLimits {
    /// Bytes of padding before data.
    pub header_pad: u32,
    /// Longest request, bytes.
    pub max_request: u32,
    /// Longest reply, bytes.
    pub max_response: u32,
    /// Longest reply that is kept for a retransmission, bytes.
    pub max_response_cached: u32,
    /// Most operations of one COMPOUND.
    pub max_operations: u32,
    /// Slots.
    pub max_requests: u32,
}

/// A session's terms, as the frontend agreed to them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SessionTerms {
    /// From client to server.
    pub fore: ChannelLimits,
    /// From server to client.
    pub back: ChannelLimits,
    /// CREATE_SESSION4_FLAG_PERSIST: asked for and granted.
    pub persist: bool,
    /// CREATE_SESSION4_FLAG_CONN_BACK_CHAN: the connection that made the session is a backchannel.
    pub backchannel: bool,
    /// RPC program of callbacks.
    pub callback_program: u32,
    /// How to authenticate callbacks, as the client wrote it (`callback_sec_parms4<>`).
    pub callback_security: Bytes,
}

/// A change of clients and sessions. Changes of the response: none. Outcome: `Client`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum ClientOp {
    /// SETCLIENTID (RFC 7530 §16.33). Outcome: `Set`, or `InUse`.
    SetClientId {
        /// `nfs_client_id4.id`.
        owner: Bytes,
        /// Which boot of the client.
        verifier: [u8; 8],
        /// Caller.
        principal: Principal,
        /// How to call it back.
        callback: Callback40,
        /// For administrators.
        about: ClientAbout,
    },
    /// SETCLIENTID_CONFIRM (RFC 7530 §16.34). Outcome: `Done`.
    Confirm {
        /// Client id of `Set`.
        client: ClientId,
        /// Verifier of `Set`.
        confirm: [u8; 8],
        /// Caller.
        principal: Principal,
    },
    /// EXCHANGE_ID (RFC 8881 §18.35) with SP4_NONE, all cases of §18.35.4. Outcome: `Exchanged`.
    ExchangeId {
        /// `co_ownerid`.
        owner: Bytes,
        /// Which boot of the client.
        verifier: [u8; 8],
        /// EXCHGID4_FLAG_UPD_CONFIRMED_REC_A.
        update: bool,
        /// Caller.
        principal: Principal,
        /// For administrators.
        about: ClientAbout,
    },
    /// CREATE_SESSION (RFC 8881 §18.36); confirms the client and ends its former boot. The same `sequence` as the last one gets the
    /// stored outcome. Outcome: `Session`.
    CreateSession {
        /// Client.
        client: ClientId,
        /// `csa_sequence`.
        sequence: u32,
        /// Caller.
        principal: Principal,
        /// Terms.
        terms: SessionTerms,
    },
    /// BIND_CONN_TO_SESSION and BACKCHANNEL_CTL: new terms for callbacks. Outcome: `Done`.
    SetCallback {
        /// Session.
        session: SessionId,
        /// RPC program of callbacks.
        program: u32,
        /// How to authenticate them.
        security: Bytes,
    },
    /// DESTROY_SESSION (RFC 8881 §18.37). Outcome: `Done`.
    DestroySession(SessionId),
    /// DESTROY_CLIENTID (RFC 8881 §18.50): refused with `ClientBusy` while it has sessions, opens, locks or delegations. Outcome: `Done`.
    DestroyClient(ClientId),
    /// RECLAIM_COMPLETE (RFC 8881 §18.51) for all file systems: once per client. Outcome: `Done`.
    ReclaimComplete(ClientId),
    /// The lease ran out and its state is in the way or too old, or an administrator evicts it: the client is forgotten with all it has. Outcome: `Done`.
    Expire(ClientId),
    /// A client has let go of the slots of a session from `keep` on (RFC 8881 §2.10.6.1): what is kept of them is removed, and each begins anew with any number. Outcome: `Done`.
    RetireSlots {
        /// Session.
        session: SessionId,
        /// The first slot of which nothing is kept.
        keep: u32,
    },
}

/// What came of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum ClientOutcome {
    /// Nothing more to say.
    Done,
    /// Of SETCLIENTID.
    Set {
        /// Client id.
        client: ClientId,
        /// To be repeated in SETCLIENTID_CONFIRM.
        confirm: [u8; 8],
    },
    /// Of SETCLIENTID: another principal has this name, from here (NFS4ERR_CLID_INUSE).
    InUse(Callback40),
    /// Of EXCHANGE_ID.
    Exchanged {
        /// Client id.
        client: ClientId,
        /// `eir_sequenceid`: what the next CREATE_SESSION must carry.
        sequence: u32,
        /// EXCHGID4_FLAG_CONFIRMED_R.
        confirmed: bool,
    },
    /// Of CREATE_SESSION.
    Session {
        /// Its number.
        session: SessionId,
        /// `csr_sequence`.
        sequence: u32,
        /// Terms.
        terms: SessionTerms,
    },
}

/// A client.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Client {
    /// Its id.
    pub id: ClientId,
    /// Its name for itself.
    pub owner: Bytes,
    /// Which boot.
    pub verifier: [u8; 8],
    /// Who set it up.
    pub principal: Principal,
    /// 0 or 1: by SETCLIENTID or by EXCHANGE_ID.
    pub minor: u32,
    /// Whether it is confirmed.
    pub confirmed: bool,
    /// Whether it has sent RECLAIM_COMPLETE.
    pub reclaimed: bool,
    /// How to call back a v4.0 client.
    pub callback: Option<Callback40>,
    /// For administrators.
    pub about: ClientAbout,
    /// Sessions, opens and lock states that it has.
    pub sessions: u32,
    /// Opens, lock states and delegations.
    pub states: u64,
    /// Delegations among them that were revoked and not freed yet.
    pub revoked: u32,
}

/// A session.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Session {
    /// Its number.
    pub id: SessionId,
    /// Whose.
    pub client: ClientId,
    /// Terms.
    pub terms: SessionTerms,
}
