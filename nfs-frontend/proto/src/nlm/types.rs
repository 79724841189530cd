//! Arguments and results of all versions of NLM.

use atoll_xdr::{Opaque, xdr_enum, xdr_struct, xdr_union};

/// Longest opaque object in bytes (`MAXNETOBJ_SZ`).
pub const MAX_NETOBJ: usize = 1024;
/// Longest caller name in bytes (`LM_MAXSTRLEN`).
pub const MAX_CALLER_NAME: usize = 1024;

/// `netobj`: a cookie, an owner, or a file handle.
pub type NetObj = Opaque<MAX_NETOBJ>;

/// The name in FREE_ALL (`MAXNAMELEN`, one more than a caller name).
pub type NotifyName = Opaque<{ MAX_CALLER_NAME + 1 }>;

/// Highest offset of versions 1 and 3: clients there hold it in a signed integer.
const NARROW_MAX: u32 = i32::MAX as u32;

xdr_enum! {
    /// Outcome of a lock request (`nlm_stats`, `nlm4_stats`).
    pub enum NlmStat {
        /// Done.
        Granted = 0,
        /// A conflicting lock is held.
        Denied = 1,
        /// The server has no room for the lock.
        DeniedNoLocks = 2,
        /// The request waits; GRANTED follows.
        Blocked = 3,
        /// The server is in its grace period.
        DeniedGracePeriod = 4,
        /// Waiting would be a deadlock. Since version 3.
        Deadlock = 5,
        /// Read-only file system. Version 4.
        RoFs = 6,
        /// The handle is stale. Version 4.
        StaleFh = 7,
        /// Offset or length out of range. Version 4.
        FBig = 8,
        /// Any other failure; not to be tried again. Version 4.
        Failed = 9,
    }

    /// What others may not do (`fsh_mode`); the bits of DOS.
    pub enum ShareMode {
        /// Denies nothing.
        DenyNone = 0,
        /// Denies reading.
        DenyRead = 1,
        /// Denies writing.
        DenyWrite = 2,
        /// Denies both.
        DenyReadWrite = 3,
    }

    /// What the opener wants (`fsh_access`).
    pub enum ShareAccess {
        /// Nothing.
        None = 0,
        /// Reading.
        Read = 1,
        /// Writing.
        Write = 2,
        /// Both.
        ReadWrite = 3,
    }
}

impl NlmStat {
    /// The nearest outcome that clients of versions 1 and 3 know, as Linux maps them. A deadlock becomes `Denied`: X/Open
    /// has a number for it in version 3, `nlm_prot.x` has not, and the lock may be free later. What version 4 added
    /// becomes `DeniedNoLocks`, on which clients give up, as asking again would not help.
    pub const fn narrow(self) -> Self {
        match self {
            Self::Deadlock => Self::Denied,
            Self::RoFs | Self::StaleFh | Self::FBig | Self::Failed => Self::DeniedNoLocks,
            other => other,
        }
    }
}

xdr_struct! {
    /// Who holds a conflicting lock (`nlm_holder`).
    pub struct Holder<O> {
        /// Whether the lock is exclusive.
        pub exclusive: bool,
        /// Process on the holder's machine.
        pub svid: u32,
        /// The holder.
        pub oh: NetObj,
        /// First byte.
        pub offset: O,
        /// Bytes; 0 is to the end of the file.
        pub len: O,
    }

    /// A lock (`nlm_lock`).
    pub struct Lock<O> {
        /// The client's machine. The name under which it is monitored and told of grants.
        pub caller_name: Opaque<MAX_CALLER_NAME>,
        /// The file: the bytes of its handle.
        pub fh: NetObj,
        /// The owner, unique on the client's machine together with `svid`.
        pub oh: NetObj,
        /// Process on the client's machine (an `int` in the source; nothing but equality is asked of it).
        pub svid: u32,
        /// First byte.
        pub offset: O,
        /// Bytes; 0 is to the end of the file.
        pub len: O,
    }

    /// Arguments of TEST and GRANTED (`nlm_testargs`).
    pub struct TestArgs<O> {
        /// Repeated in the answer.
        pub cookie: NetObj,
        /// Whether the lock is exclusive.
        pub exclusive: bool,
        /// The lock.
        pub lock: Lock<O>,
    }

    /// Arguments of LOCK and NM_LOCK (`nlm_lockargs`).
    pub struct LockArgs<O> {
        /// Repeated in the answer.
        pub cookie: NetObj,
        /// Whether the client waits for a grant.
        pub block: bool,
        /// Whether the lock is exclusive.
        pub exclusive: bool,
        /// The lock.
        pub lock: Lock<O>,
        /// Whether a lock from before the server's restart is claimed again.
        pub reclaim: bool,
        /// State number of the client's status monitor.
        pub state: i32,
    }

    /// Arguments of CANCEL (`nlm_cancargs`).
    pub struct CancelArgs<O> {
        /// Repeated in the answer.
        pub cookie: NetObj,
        /// As in the request that is withdrawn.
        pub block: bool,
        /// As in the request that is withdrawn.
        pub exclusive: bool,
        /// As in the request that is withdrawn.
        pub lock: Lock<O>,
    }

    /// Arguments of UNLOCK (`nlm_unlockargs`).
    pub struct UnlockArgs<O> {
        /// Repeated in the answer.
        pub cookie: NetObj,
        /// What is released.
        pub lock: Lock<O>,
    }

    /// Results of all but TEST and SHARE (`nlm_res`).
    pub struct StatRes {
        /// Cookie of the request.
        pub cookie: NetObj,
        /// Outcome.
        pub stat: NlmStat,
    }

    /// Results of TEST (`nlm_testres`).
    pub struct TestAnswer<O> {
        /// Cookie of the request.
        pub cookie: NetObj,
        /// Outcome.
        pub reply: TestReply<O>,
    }

    /// A share reservation (`nlm_share`).
    pub struct Share {
        /// The client's machine.
        pub caller_name: Opaque<MAX_CALLER_NAME>,
        /// The file: the bytes of its handle.
        pub fh: NetObj,
        /// The owner.
        pub oh: NetObj,
        /// What others may not do.
        pub mode: ShareMode,
        /// What the owner wants.
        pub access: ShareAccess,
    }

    /// Arguments of SHARE and UNSHARE (`nlm_shareargs`).
    pub struct ShareArgs {
        /// Repeated in the answer.
        pub cookie: NetObj,
        /// The reservation.
        pub share: Share,
        /// Whether a reservation from before the server's restart is claimed again.
        pub reclaim: bool,
    }

    /// Results of SHARE and UNSHARE (`nlm_shareres`).
    pub struct ShareRes {
        /// Cookie of the request.
        pub cookie: NetObj,
        /// Outcome.
        pub stat: NlmStat,
        /// Unused.
        pub sequence: i32,
    }

    /// Arguments of FREE_ALL (`nlm_notify`).
    pub struct Notify {
        /// The client's machine.
        pub name: NotifyName,
        /// Its new state number (a `long` in the source: one word on the wire).
        pub state: i32,
    }
}

xdr_union! {
    /// Outcome of TEST (`nlm_testrply`): only a conflict carries data.
    pub enum TestReply<O> {
        /// The lock would be granted.
        0 => Granted,
        /// A conflicting lock is held.
        1 => Denied(holder: Holder<O>),
        /// The server has no room.
        2 => DeniedNoLocks,
        /// The request would wait.
        3 => Blocked,
        /// The server is in its grace period.
        4 => DeniedGracePeriod,
        /// Waiting would be a deadlock.
        5 => Deadlock,
        /// Read-only file system. Version 4.
        6 => RoFs,
        /// The handle is stale. Version 4.
        7 => StaleFh,
        /// Offset or length out of range. Version 4.
        8 => FBig,
        /// Any other failure. Version 4.
        9 => Failed,
    }
}

impl<O> TestReply<O> {
    /// A reply without a holder; `None` for `Denied`, which needs one.
    pub const fn from_stat(stat: NlmStat) -> Option<Self> {
        Some(match stat {
            NlmStat::Granted => Self::Granted,
            NlmStat::Denied => return None,
            NlmStat::DeniedNoLocks => Self::DeniedNoLocks,
            NlmStat::Blocked => Self::Blocked,
            NlmStat::DeniedGracePeriod => Self::DeniedGracePeriod,
            NlmStat::Deadlock => Self::Deadlock,
            NlmStat::RoFs => Self::RoFs,
            NlmStat::StaleFh => Self::StaleFh,
            NlmStat::FBig => Self::FBig,
            NlmStat::Failed => Self::Failed,
        })
    }
}

impl TestReply<u64> {
    /// The same answer for versions 1 and 3.
    pub fn narrow(self) -> TestReply<u32> {
        match self {
            Self::Denied(holder) => TestReply::Denied(holder.narrow()),
            Self::Granted => TestReply::Granted,
            Self::Blocked => TestReply::Blocked,
            Self::DeniedGracePeriod => TestReply::DeniedGracePeriod,
            // TEST waits for nothing, so it has no deadlock to tell; without a holder it cannot become `Denied`.
            Self::DeniedNoLocks | Self::Deadlock | Self::RoFs | Self::StaleFh | Self::FBig | Self::Failed => {
                TestReply::DeniedNoLocks
            }
        }
    }
}

impl Lock<u32> {
    /// The same lock with the offsets of version 4.
    pub fn widen(self) -> Lock<u64> {
        Lock {
            caller_name: self.caller_name,
            fh: self.fh,
            oh: self.oh,
            svid: self.svid,
            offset: self.offset.into(),
            len: self.len.into(),
        }
    }
}

impl TestArgs<u32> {
    /// The same request with the offsets of version 4.
    pub fn widen(self) -> TestArgs<u64> {
        TestArgs { cookie: self.cookie, exclusive: self.exclusive, lock: self.lock.widen() }
    }
}

impl LockArgs<u32> {
    /// The same request with the offsets of version 4.
    pub fn widen(self) -> LockArgs<u64> {
        LockArgs {
            cookie: self.cookie,
            block: self.block,
            exclusive: self.exclusive,
            lock: self.lock.widen(),
            reclaim: self.reclaim,
            state: self.state,
        }
    }
}

impl CancelArgs<u32> {
    /// The same request with the offsets of version 4.
    pub fn widen(self) -> CancelArgs<u64> {
        CancelArgs {
            cookie: self.cookie,
            block: self.block,
            exclusive: self.exclusive,
            lock: self.lock.widen(),
        }
    }
}

impl UnlockArgs<u32> {
    /// The same request with the offsets of version 4.
    pub fn widen(self) -> UnlockArgs<u64> {
        UnlockArgs { cookie: self.cookie, lock: self.lock.widen() }
    }
}

impl Lock<u64> {
    /// The same lock for versions 1 and 3: the GRANTED of a lock that was requested there. `None` if the range does
    /// not fit, which the range of such a request always does.
    pub fn narrow(self) -> Option<Lock<u32>> {
        Some(Lock {
            offset: self.offset.try_into().ok()?,
            len: self.len.try_into().ok()?,
            caller_name: self.caller_name,
            fh: self.fh,
            oh: self.oh,
            svid: self.svid,
        })
    }
}

impl Holder<u64> {
    /// The same holder for versions 1 and 3. A range that 31 bits cannot tell is cut, as the client only shows it; one
    /// that lies above, or reaches above, becomes "to the end of the file".
    pub fn narrow(self) -> Holder<u32> {
        let max = u64::from(NARROW_MAX);
        let offset = self.offset.min(max);
        let fits = self.offset <= max && self.offset.saturating_add(self.len) <= max;
        let len = if fits { self.len } else { 0 };
        let narrow = |v: u64| u32::try_from(v).expect("at most 2^31 - 1");
        Holder {
            exclusive: self.exclusive,
            svid: self.svid,
            oh: self.oh,
            offset: narrow(offset),
            len: narrow(len),
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn holder(offset: u64, len: u64) -> (u32, u32) {
        let holder = Holder { exclusive: true, svid: 7, oh: NetObj::default(), offset, len }.narrow();
        (holder.offset, holder.len)
    }

    #[test]
    fn a_holder_above_31_bits_reaches_to_the_end() {
        assert_eq!(holder(10, 20), (10, 20));
        assert_eq!(holder(10, 0), (10, 0));
        assert_eq!(holder(10, u64::MAX), (10, 0));
        assert_eq!(holder(10, 0x7fff_ffff - 10), (10, 0x7fff_ffff - 10));
        assert_eq!(holder(10, 0x7fff_ffff - 9), (10, 0));
        assert_eq!(holder(u64::MAX, 1), (0x7fff_ffff, 0));
    }

    #[test]
    fn a_request_of_version_3_narrows_back() {
        let lock = Lock::<u32> {
            caller_name: Opaque::from_static(b"client"),
            fh: NetObj::from_static(b"handle"),
            oh: NetObj::from_static(b"owner"),
            svid: 1,
            offset: u32::MAX,
            len: 0,
        };
        assert_eq!(lock.clone().widen().narrow(), Some(lock.clone()));
        assert_eq!(Lock::<u64> { len: 1 << 32, ..lock.widen() }.narrow(), None);
    }

    #[test]
    fn only_a_conflict_needs_a_holder() {
        for &stat in NlmStat::ALL {
            let reply = TestReply::<u64>::from_stat(stat);
            assert_eq!(reply.is_none(), stat == NlmStat::Denied);
            if stat != NlmStat::Deadlock
                && let Some(reply) = reply
            {
                assert_eq!(Some(reply.narrow()), TestReply::<u32>::from_stat(stat.narrow()));
            }
            assert!(stat.narrow() <= NlmStat::DeniedGracePeriod, "nlm_prot.x knows it");
        }
    }
}
