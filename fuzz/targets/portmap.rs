//! The portmapper, versions 2 to 4 (RFC 1833).
#![no_main]

atoll_fuzz::program_target! {
    portmap::v2 { Null Set Unset GetPort Dump CallIt }
    portmap::v3 { Null Set Unset GetAddr Dump CallIt GetTime Uaddr2Taddr Taddr2Uaddr }
    portmap::v4 {
        Null Set Unset GetAddr Dump Bcast GetTime Uaddr2Taddr Taddr2Uaddr GetVersAddr Indirect GetAddrList
    }
}
