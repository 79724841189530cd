//! From refusals of the file system to `nfsstat3` (RFC 1813 §2.6), in one place.

use atoll_base::block::BlockError;
use atoll_meta::FsError;
use atoll_meta::nfs4::StateError;
use atoll_proto::nfs3::NfsStat3;

/// The status that tells a client of this refusal.
///
/// `Fenced` says that this life of the frontend is over; the call had no effect and can be repeated as soon as the
/// frontend has registered again, hence JUKEBOX.
pub(crate) fn of(error: FsError) -> NfsStat3 {
    match error {
        // REMOVE of a directory is ISDIR, which §3.3.12 does not list: it is what servers say and what POSIX wants.
        FsError::NotOwner => NfsStat3::Perm,
        FsError::NotFound => NfsStat3::NoEnt,
        FsError::Io => NfsStat3::Io,
        FsError::AccessDenied => NfsStat3::Acces,
        FsError::Exists => NfsStat3::Exist,
        FsError::CrossVolume => NfsStat3::XDev,
        FsError::NotDirectory => NfsStat3::NotDir,
        FsError::IsDirectory => NfsStat3::IsDir,
        FsError::Invalid | FsError::WrongType => NfsStat3::Inval,
        FsError::TooLarge => NfsStat3::FBig,
        FsError::NoSpace => NfsStat3::NoSpc,
        FsError::ReadOnly => NfsStat3::RoFs,
        FsError::TooManyLinks => NfsStat3::MLink,
        FsError::NameTooLong => NfsStat3::NameTooLong,
        FsError::NotEmpty => NfsStat3::NotEmpty,
        FsError::QuotaExceeded => NfsStat3::DQuot,
        FsError::Stale => NfsStat3::Stale,
        FsError::NotSync => NfsStat3::NotSync,
        FsError::NotSupported => NfsStat3::NotSupp,
        FsError::Delay | FsError::Fenced | FsError::TableFull | FsError::Conflict => NfsStat3::Jukebox,
        FsError::State(StateError::Delegated) => NfsStat3::Jukebox,
        // Not refusals of anything that version 3 asks for.
        FsError::Deadlock | FsError::NoXattr | FsError::State(_) => NfsStat3::ServerFault,
    }
}

/// What a failure of the block store is to the file whose data it concerns.
pub(crate) fn of_blocks(error: &BlockError) -> FsError {
    match error {
        BlockError::NoSpace => FsError::NoSpace,
        BlockError::Missing(_)
        | BlockError::Damaged { .. }
        | BlockError::Failed(_)
        | BlockError::Io { .. } => FsError::Io,
    }
}

/// SETATTR lists no FBIG (RFC 1813 §3.3.2); a size that no file can have is an invalid argument.
pub(crate) fn for_setattr(error: FsError) -> NfsStat3 {
    match of(error) {
        NfsStat3::FBig => NfsStat3::Inval,
        other => other,
    }
}

/// COMMIT lists IO, STALE, BADHANDLE and SERVERFAULT only (RFC 1813 §3.3.21). NOSPC and DQUOT are let through: clients
/// show them to the program, which is the truth.
pub(crate) fn for_commit(error: FsError) -> NfsStat3 {
    match of(error) {
        kept @ (NfsStat3::Io
        | NfsStat3::NoSpc
        | NfsStat3::DQuot
        | NfsStat3::Stale
        | NfsStat3::Jukebox
        | NfsStat3::Inval) => kept,
        _ => NfsStat3::Io,
    }
}
