//! MOUNT versions 1 and 3 (RFC 1813 §5).
#![no_main]

atoll_fuzz::program_target! {
    mount::v1 { Null Mnt Dump Umnt UmntAll Export ExportAll }
    mount::v3 { Null Mnt Dump Umnt UmntAll Export }
}
