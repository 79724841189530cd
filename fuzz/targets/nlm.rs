//! NLM versions 1, 3 and 4, and NSM (RFC 1813 §6).
#![no_main]

atoll_fuzz::program_target! {
    nlm::v1 {
        Null Test Lock Cancel Unlock Granted TestMsg LockMsg CancelMsg UnlockMsg GrantedMsg TestRes LockRes CancelRes
        UnlockRes GrantedRes
    }
    nlm::v3 { Share Unshare NmLock FreeAll }
    nlm::v4 {
        Null Test Lock Cancel Unlock Granted TestMsg LockMsg CancelMsg UnlockMsg GrantedMsg TestRes LockRes CancelRes
        UnlockRes GrantedRes Share Unshare NmLock FreeAll
    }
    nsm { Null Stat Mon Unmon UnmonAll SimuCrash Notify }
}
