//! Delegations: DELEGPURGE, DELEGRETURN, GET_DIR_DELEGATION, WANT_DELEGATION (RFC 8881 §18.5, §18.6, §18.39, §18.49;
//! RFC 9754 §5).

use atoll_xdr::{xdr_enum, xdr_struct, xdr_union};

use super::{Ace4, Bitmap, NfsStat4, NfsTime4, StateId4, Verifier4};

xdr_enum! {
    /// Kind of a delegation (`open_delegation_type4`).
    pub enum DelegationType4 {
        /// None.
        None = 0,
        /// For reading.
        Read = 1,
        /// For writing.
        Write = 2,
        /// None, and why. Since 4.1.
        NoneExt = 3,
        /// For reading, times included (RFC 9754).
        ReadAttrs = 4,
        /// For writing, times included (RFC 9754).
        WriteAttrs = 5,
    }
}

xdr_struct! {
    /// A limit by blocks (`nfs_modified_limit4`).
    #[derive(Copy)]
    pub struct ModifiedLimit4 {
        /// Blocks.
        pub num_blocks: u32,
        /// Bytes of a block.
        pub bytes_per_block: u32,
    }

    /// A delegation for reading (`open_read_delegation4`).
    pub struct ReadDelegation4 {
        /// The delegation.
        pub stateid: StateId4,
        /// Whether it is to be returned at once, as after a reclaim.
        pub recall: bool,
        /// Who may open without asking by ACCESS.
        pub permissions: Ace4,
    }

    /// A delegation for writing (`open_write_delegation4`).
    pub struct WriteDelegation4 {
        /// The delegation.
        pub stateid: StateId4,
        /// Whether it is to be returned at once, as after a reclaim.
        pub recall: bool,
        /// Up to where data may wait at the client beyond CLOSE.
        pub space_limit: SpaceLimit4,
        /// Who may open without asking by ACCESS.
        pub permissions: Ace4,
    }

    /// Arguments of DELEGPURGE.
    #[derive(Copy)]
    pub struct DelegPurge4Args {
        /// The client.
        pub clientid: u64,
    }

    /// Arguments of DELEGRETURN.
    #[derive(Copy)]
    pub struct DelegReturn4Args {
        /// The delegation.
        pub deleg_stateid: StateId4,
    }

    /// Arguments of GET_DIR_DELEGATION.
    pub struct GetDirDelegation4Args {
        /// Whether a signal is wanted once one is available.
        pub signal_deleg_avail: bool,
        /// Kinds of notifications wanted.
        pub notification_types: Bitmap,
        /// Longest delay of notifications about attributes of entries.
        pub child_attr_delay: NfsTime4,
        /// Longest delay of notifications about attributes of the directory.
        pub dir_attr_delay: NfsTime4,
        /// Attributes of entries wanted.
        pub child_attributes: Bitmap,
        /// Attributes of the directory wanted.
        pub dir_attributes: Bitmap,
    }

    /// A directory delegation (`GET_DIR_DELEGATION4resok`).
    pub struct DirDelegation4 {
        /// Verifier for the cookies.
        pub cookieverf: Verifier4,
        /// The delegation.
        pub stateid: StateId4,
        /// Kinds of notifications that will come.
        pub notification: Bitmap,
        /// Attributes of entries that will come.
        pub child_attributes: Bitmap,
        /// Attributes of the directory that will come.
        pub dir_attributes: Bitmap,
    }

    /// Arguments of WANT_DELEGATION.
    #[derive(Copy)]
    pub struct WantDelegation4Args {
        /// The wants of [`share_access`](super::share_access).
        pub want: u32,
        /// By what right.
        pub claim: DelegClaim4,
    }
}

xdr_union! {
    /// Up to where data may wait (`nfs_space_limit4`).
    #[derive(Copy)]
    pub enum SpaceLimit4 {
        /// To this size of the file.
        1 => Size(filesize: u64),
        /// This many blocks.
        2 => Blocks(limit: ModifiedLimit4),
    }

    /// Why there is no delegation (`open_none_delegation4`).
    #[derive(Copy)]
    pub enum WhyNoDelegation4 {
        /// It was not wanted.
        0 => NotWanted,
        /// Others use the file. Whether one will be pushed later.
        1 => Contention(will_push: bool),
        /// Resources lack. Whether a signal will come.
        2 => Resource(will_signal: bool),
        /// Not for this type of file.
        3 => NotSuppFtype,
        /// Not for writing for this type of file.
        4 => WriteDelegNotSuppFtype,
        /// No upgrade.
        5 => NotSuppUpgrade,
        /// No downgrade.
        6 => NotSuppDowngrade,
        /// The want was withdrawn.
        7 => Cancelled,
        /// It is a directory.
        8 => IsDir,
    }

    /// A delegation (`open_delegation4`).
    pub enum OpenDelegation4 {
        /// None.
        0 => None,
        /// For reading.
        1 => Read(delegation: ReadDelegation4),
        /// For writing.
        2 => Write(delegation: WriteDelegation4),
        /// None, and why. Since 4.1.
        3 => NoneExt(why: WhyNoDelegation4),
        /// For reading, times included (RFC 9754).
        4 => ReadAttrs(delegation: ReadDelegation4),
        /// For writing, times included (RFC 9754).
        5 => WriteAttrs(delegation: WriteDelegation4),
    }

    /// By what right a delegation is wanted (`deleg_claim4`), always by handle.
    #[derive(Copy)]
    pub enum DelegClaim4 {
        /// A delegation from before the server's restart.
        1 => Previous(delegate_type: DelegationType4),
        /// None but permission.
        4 => Fh,
        /// A delegation from before the client's restart.
        6 => DelegPrevFh,
    }

    /// Results of GET_DIR_DELEGATION that are no error (`GET_DIR_DELEGATION4res_non_fatal`).
    pub enum GetDirDelegation4Ok {
        /// The delegation.
        0 => Granted(delegation: DirDelegation4),
        /// None; whether a signal will come.
        1 => Unavailable(will_signal: bool),
    }
}

/// Results of GET_DIR_DELEGATION.
pub type GetDirDelegation4Res = Result<GetDirDelegation4Ok, NfsStat4>;
/// Results of WANT_DELEGATION.
pub type WantDelegation4Res = Result<OpenDelegation4, NfsStat4>;
