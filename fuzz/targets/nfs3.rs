//! NFSv3 (RFC 1813 §3).
#![no_main]

atoll_fuzz::program_target! {
    nfs3 {
        Null GetAttr SetAttr Lookup Access ReadLink Read Write Create MkDir SymLink MkNod Remove RmDir Rename Link
        ReadDir ReadDirPlus FsStat FsInfo PathConf Commit
    }
}
