//! Byte-range locks: LOCK, LOCKT, LOCKU, RELEASE_LOCKOWNER (RFC 8881 §18.10–§18.12, RFC 7530 §16.37).

use atoll_xdr::{xdr_enum, xdr_struct, xdr_union};

use super::{Detail, Failure, NfsStat4, StateId4, StateOwner4};

xdr_enum! {
    /// Type of a lock (`nfs_lock_type4`).
    pub enum LockType4 {
        /// Shared.
        Read = 1,
        /// Exclusive.
        Write = 2,
        /// Shared, and the client will ask again.
        ReadBlocking = 3,
        /// Exclusive, and the client will ask again.
        WriteBlocking = 4,
    }
}

impl LockType4 {
    /// Whether it is exclusive.
    pub const fn exclusive(self) -> bool {
        matches!(self, Self::Write | Self::WriteBlocking)
    }

    /// Whether the client will ask again.
    pub const fn blocking(self) -> bool {
        matches!(self, Self::ReadBlocking | Self::WriteBlocking)
    }
}

xdr_struct! {
    /// A lock-owner's first lock on a file (`open_to_lock_owner4`).
    pub struct OpenToLockOwner4 {
        /// Sequence of the open-owner; 4.0 only.
        pub open_seqid: u32,
        /// The open.
        pub open_stateid: StateId4,
        /// Sequence of the lock-owner; 4.0 only.
        pub lock_seqid: u32,
        /// The lock-owner.
        pub lock_owner: StateOwner4,
    }

    /// A lock-owner's further lock on a file (`exist_lock_owner4`).
    #[derive(Copy)]
    pub struct ExistLockOwner4 {
        /// The locks it has.
        pub lock_stateid: StateId4,
        /// Sequence of the lock-owner; 4.0 only.
        pub lock_seqid: u32,
    }

    /// Arguments of LOCK.
    pub struct Lock4Args {
        /// Type.
        pub locktype: LockType4,
        /// Whether a lock from before the server's restart is claimed again.
        pub reclaim: bool,
        /// First byte.
        pub offset: u64,
        /// Bytes; all ones is to the end of the file.
        pub length: u64,
        /// Whose it is.
        pub locker: Locker4,
    }

    /// The lock that is in the way (`LOCK4denied`).
    pub struct LockDenied4 {
        /// First byte.
        pub offset: u64,
        /// Bytes; all ones is to the end of the file.
        pub length: u64,
        /// Type.
        pub locktype: LockType4,
        /// Whose it is.
        pub owner: StateOwner4,
    }

    /// Results of LOCK.
    #[derive(Copy)]
    pub struct Lock4Ok {
        /// The owner's locks on the file.
        pub lock_stateid: StateId4,
    }

    /// Arguments of LOCKT.
    pub struct LockT4Args {
        /// Type.
        pub locktype: LockType4,
        /// First byte.
        pub offset: u64,
        /// Bytes; all ones is to the end of the file.
        pub length: u64,
        /// Who asks.
        pub owner: StateOwner4,
    }

    /// Arguments of LOCKU.
    #[derive(Copy)]
    pub struct LockU4Args {
        /// Type; not looked at.
        pub locktype: LockType4,
        /// Sequence of the lock-owner; 4.0 only.
        pub seqid: u32,
        /// The owner's locks on the file.
        pub lock_stateid: StateId4,
        /// First byte.
        pub offset: u64,
        /// Bytes; all ones is to the end of the file.
        pub length: u64,
    }

    /// Arguments of RELEASE_LOCKOWNER.
    pub struct ReleaseLockOwner4Args {
        /// The owner that is gone.
        pub lock_owner: StateOwner4,
    }
}

xdr_union! {
    /// Whose lock it is (`locker4`; the discriminant is a boolean).
    pub enum Locker4 {
        /// An owner with locks on the file.
        0 => Exist(owner: ExistLockOwner4),
        /// An owner without.
        1 => New(owner: OpenToLockOwner4),
    }
}

impl Detail for LockDenied4 {
    const STATUS: NfsStat4 = NfsStat4::Denied;
}

/// Results of LOCK.
pub type Lock4Res = Result<Lock4Ok, Failure<LockDenied4>>;
/// Results of LOCKT.
pub type LockT4Res = Result<(), Failure<LockDenied4>>;
/// Results of CLOSE, LOCKU, OPEN_CONFIRM, OPEN_DOWNGRADE: the state after.
pub type StateId4Res = Result<StateId4, NfsStat4>;
