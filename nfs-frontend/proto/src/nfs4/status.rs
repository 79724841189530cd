//! Failure of an operation (RFC 7530 §13.1, RFC 8881 §15.1, RFC 7862 §11.1, RFC 8276 §8.3).

use atoll_xdr::{Decode, Decoder, Encode, Encoder, Result as XdrResult, xdr_enum};

xdr_enum! {
    /// `nfsstat4` of all minor versions without `NFS4_OK`, which is the `Ok` of a result.
    pub enum NfsStat4 {
        /// Not owner.
        Perm = 1,
        /// No such file or directory.
        NoEnt = 2,
        /// A hard error of the storage.
        Io = 5,
        /// No such device.
        Nxio = 6,
        /// Permission denied.
        Access = 13,
        /// The name exists.
        Exist = 17,
        /// A hard link or rename across file systems.
        XDev = 18,
        /// Not a directory.
        NotDir = 20,
        /// Is a directory.
        IsDir = 21,
        /// Invalid argument.
        Inval = 22,
        /// The file would be too large.
        FBig = 27,
        /// No space left.
        NoSpc = 28,
        /// Read-only file system.
        RoFs = 30,
        /// Too many hard links.
        MLink = 31,
        /// The name is too long.
        NameTooLong = 63,
        /// The directory is not empty.
        NotEmpty = 66,
        /// Quota exceeded.
        DQuot = 69,
        /// The object of the handle does not exist any more.
        Stale = 70,
        /// The handle fails its checks.
        BadHandle = 10001,
        /// The cookie of a listing is stale.
        BadCookie = 10003,
        /// The operation is not supported.
        NotSupp = 10004,
        /// The limit given leaves no room for a result.
        TooSmall = 10005,
        /// An error that has no other number.
        ServerFault = 10006,
        /// CREATE does not make this type.
        BadType = 10007,
        /// Not now; the client is to ask again.
        Delay = 10008,
        /// NVERIFY: the attributes are the same.
        Same = 10009,
        /// A conflicting lock is held.
        Denied = 10010,
        /// The lease of the state ran out.
        Expired = 10011,
        /// A lock forbids the I/O.
        Locked = 10012,
        /// The server is in its grace period.
        Grace = 10013,
        /// The volatile handle expired.
        FhExpired = 10014,
        /// A share reservation forbids it.
        ShareDenied = 10015,
        /// Another security flavor is wanted.
        WrongSec = 10016,
        /// The client id is in use by another principal.
        ClidInuse = 10017,
        /// The server lacks resources. 4.0 only.
        Resource = 10018,
        /// The file system is elsewhere.
        Moved = 10019,
        /// There is no current (or saved) handle.
        NoFileHandle = 10020,
        /// The minor version is not supported.
        MinorVersMismatch = 10021,
        /// The client id is from before a restart, or unknown.
        StaleClientId = 10022,
        /// The stateid is from before a restart.
        StaleStateId = 10023,
        /// The seqid of the stateid is old.
        OldStateId = 10024,
        /// The stateid is none of the server's.
        BadStateId = 10025,
        /// The seqid of the owner is out of order. 4.0 only.
        BadSeqId = 10026,
        /// VERIFY: the attributes differ; a cookie verifier is not valid any more.
        NotSame = 10027,
        /// The range overlaps held ranges in a way that is not supported.
        LockRange = 10028,
        /// A symbolic link where a file or directory is expected.
        Symlink = 10029,
        /// There is no saved handle. 4.0 only.
        RestoreFh = 10030,
        /// The lease moved with a file system. 4.0 only.
        LeaseMoved = 10031,
        /// An attribute is not supported.
        AttrNotSupp = 10032,
        /// A reclaim outside of the grace period.
        NoGrace = 10033,
        /// The reclaim cannot be granted.
        ReclaimBad = 10034,
        /// The reclaim conflicts with other state.
        ReclaimConflict = 10035,
        /// The arguments do not decode.
        BadXdr = 10036,
        /// Locks are held.
        LocksHeld = 10037,
        /// The open mode does not permit the I/O.
        OpenMode = 10038,
        /// The owner cannot be translated.
        BadOwner = 10039,
        /// A character that is not supported, or not UTF-8.
        BadChar = 10040,
        /// The name is not supported.
        BadName = 10041,
        /// The range of a lock is not supported.
        BadRange = 10042,
        /// No atomic up- or downgrade of a lock.
        LockNotSupp = 10043,
        /// No operation has this number.
        OpIllegal = 10044,
        /// Waiting would be a deadlock.
        Deadlock = 10045,
        /// The object is open.
        FileOpen = 10046,
        /// An administrator revoked the state.
        AdminRevoked = 10047,
        /// The callback path is down.
        CbPathDown = 10048,
        /// The I/O mode of the layout is wrong.
        BadIoMode = 10049,
        /// The layout is invalid.
        BadLayout = 10050,
        /// The digest of SET_SSV is wrong.
        BadSessionDigest = 10051,
        /// The session is unknown.
        BadSession = 10052,
        /// The slot is out of range.
        BadSlot = 10053,
        /// RECLAIM_COMPLETE was already done.
        CompleteAlready = 10054,
        /// The connection is not bound to the session.
        ConnNotBoundToSession = 10055,
        /// The delegation is already asked for.
        DelegAlreadyWanted = 10056,
        /// Requests on the backchannel are outstanding.
        BackChanBusy = 10057,
        /// No layout for now.
        LayoutTryLater = 10058,
        /// No layout for this file.
        LayoutUnavailable = 10059,
        /// The client has no such layout.
        NoMatchingLayout = 10060,
        /// A layout is being recalled.
        RecallConflict = 10061,
        /// The layout type is unknown.
        UnknownLayoutType = 10062,
        /// The sequence id of the slot is out of order.
        SeqMisordered = 10063,
        /// SEQUENCE is not the first operation.
        SequencePos = 10064,
        /// The request exceeds the limit of the channel.
        ReqTooBig = 10065,
        /// The reply would exceed the limit of the channel.
        RepTooBig = 10066,
        /// The reply would exceed what the slot keeps.
        RepTooBigToCache = 10067,
        /// A retry of a request whose reply was not kept.
        RetryUncachedRep = 10068,
        /// The request cannot be recovered when retried.
        UnsafeCompound = 10069,
        /// More operations than the channel permits.
        TooManyOps = 10070,
        /// The operation needs SEQUENCE before it.
        OpNotInSession = 10071,
        /// The hash algorithm is not supported.
        HashAlgUnsupp = 10072,
        /// The client id has state.
        ClientIdBusy = 10074,
        /// I/O to a hole of a sparse layout.
        PnfsIoHole = 10075,
        /// A retry that is not the request it repeats.
        SeqFalseRetry = 10076,
        /// The highest slot is out of range.
        BadHighSlot = 10077,
        /// The session is dead.
        DeadSession = 10078,
        /// The encryption algorithm is not supported.
        EncrAlgUnsupp = 10079,
        /// I/O without a layout.
        PnfsNoLayout = 10080,
        /// The operation must stand alone.
        NotOnlyOp = 10081,
        /// The credential does not match the state protection.
        WrongCred = 10082,
        /// The object has the wrong type.
        WrongType = 10083,
        /// No directory delegation.
        DirDelegUnavail = 10084,
        /// The client rejects the delegation.
        RejectDeleg = 10085,
        /// The layout is being returned.
        ReturnConflict = 10086,
        /// The delegation or layout was revoked.
        DelegRevoked = 10087,
        /// Copies between servers are not supported.
        PartnerNotSupp = 10088,
        /// The copy between servers is not authorized.
        PartnerNoAuth = 10089,
        /// The arm of the union is not supported.
        UnionNotSupp = 10090,
        /// The destination does not permit the copy.
        OffloadDenied = 10091,
        /// The label format is not supported.
        WrongLfs = 10092,
        /// The label is wrong.
        BadLabel = 10093,
        /// The destination cannot meet the requirements of the copy.
        OffloadNoReqs = 10094,
        /// The extended attribute does not exist (RFC 8276).
        NoXattr = 10095,
        /// The extended attribute is too big (RFC 8276).
        Xattr2Big = 10096,
    }
}

/// The status of an operation or of a COMPOUND (`nfsstat4`).
pub type Status4 = Result<(), NfsStat4>;

/// The data that one status other than `NFS4_OK` carries in the results of an operation.
pub trait Detail {
    /// The status whose arm holds the data.
    const STATUS: NfsStat4;
}

/// The failure arms of an operation of which one carries data.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Failure<D> {
    /// A failure without data. `D::STATUS` without its data has no form on the wire: it is written as
    /// `NFS4ERR_SERVERFAULT`.
    Plain(NfsStat4),
    /// `D::STATUS` with its data.
    With(D),
}

impl<D: Detail> Failure<D> {
    /// The status.
    pub fn status(&self) -> NfsStat4 {
        match self {
            Self::Plain(status) if *status == D::STATUS => NfsStat4::ServerFault,
            Self::Plain(status) => *status,
            Self::With(_) => D::STATUS,
        }
    }
}

impl<D> From<NfsStat4> for Failure<D> {
    fn from(status: NfsStat4) -> Self {
        Self::Plain(status)
    }
}

impl<D: Detail + Encode> Encode for Failure<D> {
    fn encode(&self, e: &mut Encoder) {
        e.put(&self.status());
        if let Self::With(detail) = self {
            e.put(detail);
        }
    }
}

impl<D: Detail + Decode> Decode for Failure<D> {
    const MIN_LEN: usize = 4;

    fn decode(d: &mut Decoder) -> XdrResult<Self> {
        let status: NfsStat4 = d.decode()?;
        Ok(if status == D::STATUS { Self::With(d.decode()?) } else { Self::Plain(status) })
    }
}

#[cfg(test)]
impl<D: Detail + atoll_xdr::Sample> atoll_xdr::Sample for Failure<D> {
    fn sample(s: &mut atoll_xdr::Entropy<'_>) -> Self {
        match NfsStat4::sample(s) {
            status if status == D::STATUS || bool::sample(s) => Self::With(D::sample(s)),
            status => Self::Plain(status),
        }
    }
}

/// The results of an operation: what a COMPOUND needs to know of any of them.
pub trait Outcome: Sized {
    /// The status that stands in the result, and that ends the COMPOUND unless it is `Ok`.
    fn status(&self) -> Status4;
    /// A failure without data.
    fn failed(status: NfsStat4) -> Self;
}

impl<T> Outcome for Result<T, NfsStat4> {
    fn status(&self) -> Status4 {
        self.as_ref().map(|_| ()).map_err(|status| *status)
    }

    fn failed(status: NfsStat4) -> Self {
        Err(status)
    }
}

impl<T, D: Detail> Outcome for Result<T, Failure<D>> {
    fn status(&self) -> Status4 {
        self.as_ref().map(|_| ()).map_err(Failure::status)
    }

    fn failed(status: NfsStat4) -> Self {
        Err(status.into())
    }
}
