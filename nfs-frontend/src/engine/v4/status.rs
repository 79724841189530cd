//! From refusals to `nfsstat4` (RFC 8881 §15.1, RFC 7530 §13.1), in one place.

use crate::engine::{Interrupt, Refused};
use atoll_meta::FsError;
use atoll_meta::nfs4::StateError;
use atoll_proto::nfs3::NfsStat3;
use atoll_proto::nfs4::NfsStat4;

/// The status that tells a client of this refusal.
pub(crate) fn of(error: FsError) -> NfsStat4 {
    match error {
        FsError::NotOwner => NfsStat4::Perm,
        FsError::NotFound => NfsStat4::NoEnt,
        FsError::Io => NfsStat4::Io,
        FsError::AccessDenied => NfsStat4::Access,
        FsError::Exists => NfsStat4::Exist,
        FsError::CrossVolume => NfsStat4::XDev,
        FsError::NotDirectory => NfsStat4::NotDir,
        FsError::IsDirectory => NfsStat4::IsDir,
        FsError::Invalid | FsError::WrongType | FsError::NotSync => NfsStat4::Inval,
        FsError::TooLarge => NfsStat4::FBig,
        FsError::NoSpace => NfsStat4::NoSpc,
        FsError::ReadOnly => NfsStat4::RoFs,
        FsError::TooManyLinks => NfsStat4::MLink,
        FsError::NameTooLong => NfsStat4::NameTooLong,
        FsError::NotEmpty => NfsStat4::NotEmpty,
        FsError::QuotaExceeded => NfsStat4::DQuot,
        FsError::Stale => NfsStat4::Stale,
        FsError::NotSupported => NfsStat4::NotSupp,
        FsError::Delay | FsError::Fenced | FsError::TableFull | FsError::Conflict => NfsStat4::Delay,
        FsError::Deadlock => NfsStat4::Deadlock,
        FsError::NoXattr => NfsStat4::NoXattr,
        FsError::State(error) => of_state(error),
    }
}

fn of_state(error: StateError) -> NfsStat4 {
    match error {
        StateError::StaleClient => NfsStat4::StaleClientId,
        StateError::ClientInUse => NfsStat4::ClidInuse,
        StateError::NotSame => NfsStat4::NotSame,
        StateError::ClientBusy => NfsStat4::ClientIdBusy,
        StateError::Misordered => NfsStat4::SeqMisordered,
        StateError::FalseRetry => NfsStat4::SeqFalseRetry,
        StateError::BadSession => NfsStat4::BadSession,
        StateError::CompleteAlready => NfsStat4::CompleteAlready,
        StateError::BadSeqid => NfsStat4::BadSeqId,
        StateError::BadStateid => NfsStat4::BadStateId,
        StateError::OldStateid => NfsStat4::OldStateId,
        StateError::Expired => NfsStat4::Expired,
        StateError::ShareDenied => NfsStat4::ShareDenied,
        StateError::OpenMode => NfsStat4::OpenMode,
        StateError::LocksHeld => NfsStat4::LocksHeld,
        StateError::Delegated => NfsStat4::Delay,
        StateError::DelegationRevoked => NfsStat4::DelegRevoked,
        StateError::Wire(status) => NfsStat4::from_u32(status).unwrap_or(NfsStat4::ServerFault),
    }
}

/// What the parts that both versions use have refused. Such statuses have the same number in both.
pub(crate) fn of_refused(refused: Refused) -> NfsStat4 {
    match refused {
        Refused::Status(NfsStat3::Jukebox) => NfsStat4::Delay,
        Refused::Status(status) => NfsStat4::from_u32(status.to_u32()).unwrap_or(NfsStat4::ServerFault),
        Refused::Interrupt(Interrupt::Auth(_)) => NfsStat4::WrongSec,
        Refused::Interrupt(Interrupt::Garbage) => NfsStat4::BadXdr,
        // The outcome is unknown: the client is to ask again.
        Refused::Interrupt(Interrupt::Drop | Interrupt::Delegated(_)) => NfsStat4::Delay,
    }
}
