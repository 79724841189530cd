//! The workloads of the benchmark.

pub mod attributes;
pub mod data;
pub mod listing;
pub mod names;
pub mod raw;
pub mod small_files;
mod template;
pub mod v4;

use serde::Serialize;

use crate::peer::Peer;

/// A workload, in the order of the report.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, clap::ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum Work {
    /// GETATTR of 1000 files in turn.
    Getattr,
    /// LOOKUP of 1000 names in turn.
    Lookup,
    /// ACCESS of 1000 files in turn.
    Access,
    /// READ of random 4 KiB from cache.
    #[value(name = "read-4k")]
    Read4k,
    /// READ of 1 MiB from cache.
    #[value(name = "read-1m")]
    Read1m,
    /// READ of 1 MiB in order, nothing cached.
    ReadCold,
    /// WRITE of random 4 KiB FILE_SYNC.
    WriteSync4k,
    /// WRITE of random 4 KiB UNSTABLE with COMMITs.
    #[value(name = "write-4k")]
    Write4k,
    /// WRITE of 1 MiB UNSTABLE in order with COMMITs.
    #[value(name = "write-1m")]
    Write1m,
    /// CREATE of files in one directory.
    Create,
    /// RENAME within one directory.
    Rename,
    /// REMOVE of the files.
    Remove,
    /// MKDIR in one directory.
    Mkdir,
    /// READDIRPLUS of a large directory.
    Readdirplus,
    /// CREATE, WRITE 4 KiB, COMMIT.
    SmallFiles,
    /// NFSv4.1: GETATTR of 1000 files in turn.
    #[value(name = "v41-getattr")]
    V41Getattr,
    /// NFSv4.1: OPEN and CLOSE of 1000 files in turn.
    #[value(name = "v41-open-close")]
    V41OpenClose,
    /// NFSv4.1: READ of random 4 KiB from cache.
    #[value(name = "v41-read-4k")]
    V41Read4k,
    /// NFSv4.1: READ of 1 MiB from cache.
    #[value(name = "v41-read-1m")]
    V41Read1m,
    /// NFSv4.1: WRITE of random 4 KiB FILE_SYNC.
    #[value(name = "v41-write-sync4k")]
    V41WriteSync4k,
    /// NFSv4.1: WRITE of random 4 KiB UNSTABLE with COMMITs.
    #[value(name = "v41-write-4k")]
    V41Write4k,
    /// NFSv4.1: OPEN that creates, WRITE 4 KiB FILE_SYNC, CLOSE.
    #[value(name = "v41-small-files")]
    V41SmallFiles,
    /// NFSv4.1: LOCK and LOCKU.
    #[value(name = "v41-lock")]
    V41Lock,
    /// Sequential READ of a fresh file, nothing cached.
    ReadFresh,
    /// Every 4 KiB of that file overwritten once in random order.
    Overwrite,
    /// Sequential READ of the overwritten file, nothing cached.
    ReadOverwritten,
}

impl Work {
    /// All, in the order of the report.
    pub fn all() -> &'static [Self] {
        <Self as clap::ValueEnum>::value_variants()
    }

    /// As it is called in tables.
    pub fn name(self) -> &'static str {
        match self {
            Self::Getattr => "GETATTR",
            Self::Lookup => "LOOKUP",
            Self::Access => "ACCESS",
            Self::Read4k => "READ 4 KiB, cached",
            Self::Read1m => "READ 1 MiB, cached",
            Self::ReadCold => "READ 1 MiB, cold",
            Self::WriteSync4k => "WRITE 4 KiB FILE_SYNC",
            Self::Write4k => "WRITE 4 KiB UNSTABLE",
            Self::Write1m => "WRITE 1 MiB UNSTABLE",
            Self::Create => "CREATE",
            Self::Rename => "RENAME",
            Self::Remove => "REMOVE",
            Self::Mkdir => "MKDIR",
            Self::Readdirplus => "READDIRPLUS (entries)",
            Self::SmallFiles => "small files (CREATE+WRITE+COMMIT)",
            Self::V41Getattr => "4.1 GETATTR",
            Self::V41OpenClose => "4.1 OPEN+CLOSE",
            Self::V41Read4k => "4.1 READ 4 KiB, cached",
            Self::V41Read1m => "4.1 READ 1 MiB, cached",
            Self::V41WriteSync4k => "4.1 WRITE 4 KiB FILE_SYNC",
            Self::V41Write4k => "4.1 WRITE 4 KiB UNSTABLE",
            Self::V41SmallFiles => "4.1 small files (OPEN+WRITE+CLOSE)",
            Self::V41Lock => "4.1 LOCK+LOCKU",
            Self::ReadFresh => "sequential READ of a fresh file, cold",
            Self::Overwrite => "random 4 KiB overwrite of it",
            Self::ReadOverwritten => "sequential READ after that, cold",
        }
    }

    /// Bytes that an operation moves, where that is the point.
    pub fn bytes(self) -> Option<u64> {
        match self {
            Self::Read1m
            | Self::V41Read1m
            | Self::ReadCold
            | Self::Write1m
            | Self::ReadFresh
            | Self::ReadOverwritten => Some(1024 * 1024),
            _ => None,
        }
    }

    /// Whether it changes something that a server may have to make durable.
    pub fn writes(self) -> bool {
        matches!(
            self,
            Self::WriteSync4k
                | Self::Write4k
                | Self::Write1m
                | Self::Create
                | Self::Rename
                | Self::Remove
                | Self::Mkdir
                | Self::SmallFiles
                | Self::V41WriteSync4k
                | Self::V41Write4k
                | Self::V41SmallFiles
                | Self::Overwrite
        )
    }

    /// Whether each call is durable when Atoll answers it.
    pub fn durable_calls(self) -> bool {
        matches!(self, Self::WriteSync4k | Self::Create | Self::Rename | Self::Remove | Self::Mkdir)
    }

    /// Whether it is a part of the overwriting trial, which is run as a whole and in one shape.
    pub fn of_overwriting(self) -> bool {
        matches!(self, Self::ReadFresh | Self::Overwrite | Self::ReadOverwritten)
    }

    /// Whether it is of NFSv4.1.
    pub fn of_v41(self) -> bool {
        matches!(
            self,
            Self::V41Getattr
                | Self::V41OpenClose
                | Self::V41Read4k
                | Self::V41Read1m
                | Self::V41WriteSync4k
                | Self::V41Write4k
                | Self::V41SmallFiles
                | Self::V41Lock
        )
    }

    /// Whether the server's cache and the page cache must be empty.
    pub fn cold(self) -> bool {
        matches!(self, Self::ReadCold | Self::ReadFresh | Self::ReadOverwritten)
    }

    /// Whether the peer takes part.
    pub fn suits(self, peer: Peer) -> bool {
        match peer {
            Peer::Atoll | Peer::Ganesha => true,
            // What only reads is the same as on the file system beside it.
            Peer::GaneshaSync => self.writes() && !self.of_overwriting(),
            _ if self.of_v41() => false,
            // Restarted they are empty.
            Peer::Nfsserve | Peer::Nfs3Server => !self.cold() && !self.of_overwriting(),
            Peer::TcpEcho => !matches!(self, Self::Readdirplus | Self::SmallFiles) && !self.of_overwriting(),
            Peer::TcpAppend => self.durable_calls(),
        }
    }
}

#[cfg(test)]
mod tests;
