//! The side protocols NFSACL and RQUOTA.
#![no_main]

atoll_fuzz::program_target! {
    nfsacl { Null GetAcl SetAcl }
    rquota::v1 { Null GetQuota GetActiveQuota }
    rquota::v2 { Null GetQuota GetActiveQuota }
}
