//! OPEN, CLOSE, OPEN_CONFIRM, OPEN_DOWNGRADE (RFC 8881 §18.2, §18.16, §18.18; RFC 7530 §16.18; RFC 9754).

use atoll_xdr::{xdr_struct, xdr_union};

use super::deleg::{DelegationType4, OpenDelegation4};
use super::{Bitmap, ChangeInfo4, Fattr4, Name4, NfsStat4, StateId4, StateOwner4, Verifier4};

/// Bits of [`Open4Args::share_access`].
pub mod share_access {
    /// Read.
    pub const READ: u32 = 1;
    /// Write.
    pub const WRITE: u32 = 2;
    /// Both.
    pub const BOTH: u32 = 3;
    /// What kind of delegation is wanted, as one of the values below. Since 4.1.
    pub const WANT_DELEG_MASK: u32 = 0xff00;
    /// Any or none.
    pub const WANT_NO_PREFERENCE: u32 = 0x0000;
    /// For reading.
    pub const WANT_READ_DELEG: u32 = 0x0100;
    /// For writing.
    pub const WANT_WRITE_DELEG: u32 = 0x0200;
    /// Any.
    pub const WANT_ANY_DELEG: u32 = 0x0300;
    /// None.
    pub const WANT_NO_DELEG: u32 = 0x0400;
    /// A want is withdrawn.
    pub const WANT_CANCEL: u32 = 0x0500;
    /// A signal once there are resources for a delegation.
    pub const WANT_SIGNAL_DELEG_WHEN_RESRC_AVAIL: u32 = 0x1_0000;
    /// A delegation pushed once there is no contention.
    pub const WANT_PUSH_DELEG_WHEN_UNCONTENDED: u32 = 0x2_0000;
    /// A delegation that covers times (RFC 9754 §5).
    pub const WANT_DELEG_TIMESTAMPS: u32 = 0x10_0000;
    /// No open stateid beside a delegation (RFC 9754 §4).
    pub const WANT_OPEN_XOR_DELEGATION: u32 = 0x20_0000;
}

/// Values of [`Open4Args::share_deny`].
pub mod share_deny {
    /// Nothing.
    pub const NONE: u32 = 0;
    /// Reading.
    pub const READ: u32 = 1;
    /// Writing.
    pub const WRITE: u32 = 2;
    /// Both.
    pub const BOTH: u32 = 3;
}

/// Bits of [`Open4Ok::rflags`].
pub mod open_result {
    /// OPEN_CONFIRM is needed. 4.0 only.
    pub const CONFIRM: u32 = 0x02;
    /// Locks are POSIX locks.
    pub const LOCKTYPE_POSIX: u32 = 0x04;
    /// A file that is removed while open stays until it is closed.
    pub const PRESERVE_UNLINKED: u32 = 0x08;
    /// There is a delegation and no open stateid (RFC 9754 §4).
    pub const NO_OPEN_STATEID: u32 = 0x10;
    /// CB_NOTIFY_LOCK may come.
    pub const MAY_NOTIFY_LOCK: u32 = 0x20;
}

xdr_struct! {
    /// Arguments of OPEN.
    pub struct Open4Args {
        /// Sequence of the open-owner; 4.0 only.
        pub seqid: u32,
        /// Bits of [`share_access`].
        pub share_access: u32,
        /// Of [`share_deny`].
        pub share_deny: u32,
        /// The open-owner.
        pub owner: StateOwner4,
        /// Whether and how to create.
        pub openhow: OpenFlag4,
        /// By what right.
        pub claim: OpenClaim4,
    }

    /// Attributes of an EXCLUSIVE4_1 creation (`creatverfattr`).
    pub struct CreateVerfAttr4 {
        /// Identifies the creation.
        pub verf: Verifier4,
        /// First attributes.
        pub attrs: Fattr4,
    }

    /// A name under a delegation (`open_claim_delegate_cur4`).
    pub struct ClaimDelegateCur4 {
        /// The delegation.
        pub delegate_stateid: StateId4,
        /// The name.
        pub file: Name4,
    }

    /// Results of OPEN.
    pub struct Open4Ok {
        /// The open.
        pub stateid: StateId4,
        /// The directory.
        pub cinfo: ChangeInfo4,
        /// Bits of [`open_result`].
        pub rflags: u32,
        /// The attributes that were set.
        pub attrset: Bitmap,
        /// The delegation.
        pub delegation: OpenDelegation4,
    }

    /// Arguments of CLOSE.
    #[derive(Copy)]
    pub struct Close4Args {
        /// Sequence of the open-owner; 4.0 only.
        pub seqid: u32,
        /// The open.
        pub open_stateid: StateId4,
    }

    /// Arguments of OPEN_CONFIRM.
    #[derive(Copy)]
    pub struct OpenConfirm4Args {
        /// The open.
        pub open_stateid: StateId4,
        /// Sequence of the open-owner.
        pub seqid: u32,
    }

    /// Arguments of OPEN_DOWNGRADE.
    #[derive(Copy)]
    pub struct OpenDowngrade4Args {
        /// The open.
        pub open_stateid: StateId4,
        /// Sequence of the open-owner; 4.0 only.
        pub seqid: u32,
        /// What remains.
        pub share_access: u32,
        /// What remains.
        pub share_deny: u32,
    }
}

xdr_union! {
    /// Whether and how to create (`openflag4`).
    pub enum OpenFlag4 {
        /// The file exists.
        0 => NoCreate,
        /// It is created.
        1 => Create(how: CreateHow4),
    }

    /// How to create (`createhow4`).
    pub enum CreateHow4 {
        /// A file that exists is opened; of the attributes only a size of 0 is then set.
        0 => Unchecked(attrs: Fattr4),
        /// A file that exists is an error.
        1 => Guarded(attrs: Fattr4),
        /// A file that exists is an error, unless it was created with this verifier.
        2 => Exclusive(verf: Verifier4),
        /// The same with attributes. Since 4.1.
        3 => Exclusive41(both: CreateVerfAttr4),
    }

    /// By what right (`open_claim4`).
    pub enum OpenClaim4 {
        /// None but permission, by name.
        0 => Null(file: Name4),
        /// An open from before the server's restart, by handle, with the delegation that was held.
        1 => Previous(delegate_type: DelegationType4),
        /// A delegation, by name.
        2 => DelegateCur(info: ClaimDelegateCur4),
        /// A delegation from before the client's restart, by name.
        3 => DelegatePrev(file: Name4),
        /// None but permission, by handle. Since 4.1.
        4 => Fh,
        /// A delegation, by handle. Since 4.1.
        5 => DelegCurFh(delegate_stateid: StateId4),
        /// A delegation from before the client's restart, by handle. Since 4.1.
        6 => DelegPrevFh,
    }
}

impl Open4Args {
    /// Whether minor version 0 has all of it: RFC 7531 knows neither EXCLUSIVE4_1 nor claims by handle.
    pub fn is_in_minor_0(&self) -> bool {
        !matches!(self.openhow, OpenFlag4::Create(CreateHow4::Exclusive41(_)))
            && !matches!(self.claim, OpenClaim4::Fh | OpenClaim4::DelegCurFh(_) | OpenClaim4::DelegPrevFh)
    }
}

/// Results of OPEN.
pub type Open4Res = Result<Open4Ok, NfsStat4>;
