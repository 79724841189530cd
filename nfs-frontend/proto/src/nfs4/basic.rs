//! Basic types: stateids, owners, times, addresses (RFC 7531, RFC 8881 §3.3, RFC 7863).
//!
//! The arrays of at most one element that the sources use for what may be absent (`x<1>`) are `Option`s: count and
//! element are the same bytes as optional data.

use atoll_xdr::{Array, Opaque, xdr_enum, xdr_struct, xdr_union};

use super::Bitmap;
use super::limits::{
    MAX_COMPONENTS, MAX_HANDLE, MAX_NETADDR, MAX_OPAQUE, MAX_PRINCIPAL, MAX_TAG, MAX_WIRE_NAME,
    MAX_WIRE_PATH, MAX_WIRE_PAYLOAD,
};
use crate::handle::Handle;

/// `nfs_fh4`.
pub type FileHandle = Handle<MAX_HANDLE>;

/// `verifier4`.
pub type Verifier4 = [u8; 8];

/// `sessionid4`.
pub type SessionId4 = [u8; 16];

/// A name in a directory (`component4`): any bytes; whether they are UTF-8 and permitted is the engine's to say.
pub type Name4 = Opaque<MAX_WIRE_NAME>;

/// The text of a symbolic link (`linktext4`).
pub type LinkText4 = Opaque<MAX_WIRE_PATH>;

/// A path as its components (`pathname4`).
pub type Path4 = Array<Name4, MAX_COMPONENTS>;

/// Data of READ and WRITE.
pub type Payload = Opaque<MAX_WIRE_PAYLOAD>;

/// The name of a user or group (`utf8str_mixed`): `name@domain`, or digits.
pub type Principal4 = Opaque<MAX_PRINCIPAL>;

/// The tag of a COMPOUND (`utf8str_cs`).
pub type Tag = Opaque<MAX_TAG>;

/// Opaque data up to `NFS4_OPAQUE_LIMIT`.
pub type Identity = Opaque<MAX_OPAQUE>;

/// A server's name, a domain, a URL (`utf8str_cis`, `utf8str_cs`).
pub type Text4 = Opaque<MAX_NETADDR>;

xdr_enum! {
    /// Type of an object (`nfs_ftype4`).
    pub enum FileType4 {
        /// Regular file.
        Regular = 1,
        /// Directory.
        Directory = 2,
        /// Block device.
        Block = 3,
        /// Character device.
        Character = 4,
        /// Symbolic link.
        SymLink = 5,
        /// Socket.
        Socket = 6,
        /// Named pipe.
        Fifo = 7,
        /// Directory of named attributes.
        AttrDir = 8,
        /// Named attribute.
        NamedAttr = 9,
    }

    /// Durability of a write (`stable_how4`).
    #[derive(Default)]
    pub enum StableHow4 {
        /// May be lost until COMMIT.
        #[default]
        Unstable = 0,
        /// Data, and what is needed to find it again, are durable.
        DataSync = 1,
        /// Everything is durable.
        FileSync = 2,
    }
}

xdr_struct! {
    /// `stateid4`: a state of a client at the server, and its version.
    #[derive(Copy, Default, Hash, PartialOrd, Ord)]
    pub struct StateId4 {
        /// Version of the state; 0 stands for the present one, since 4.1.
        pub seqid: u32,
        /// Which state.
        pub other: [u8; 12],
    }

    /// `nfstime4`: time since 1970-01-01 00:00 UTC.
    #[derive(Copy, Default, Hash, PartialOrd, Ord)]
    pub struct NfsTime4 {
        /// Seconds; before 1970 negative.
        pub seconds: i64,
        /// Nanoseconds after `seconds`; a peer may send any number, only those below 10^9 are a time.
        pub nseconds: u32,
    }

    /// `fsid4`: identifies the file system on this server.
    #[derive(Copy, Default, Hash, PartialOrd, Ord)]
    pub struct FsId4 {
        /// Major part.
        pub major: u64,
        /// Minor part.
        pub minor: u64,
    }

    /// `specdata4`: device numbers.
    #[derive(Copy, Default, Hash)]
    pub struct SpecData4 {
        /// Major number.
        pub major: u32,
        /// Minor number.
        pub minor: u32,
    }

    /// `change_info4`: the change attribute of a directory around an operation.
    #[derive(Copy, Default)]
    pub struct ChangeInfo4 {
        /// Whether nothing else changed the directory between `before` and `after`.
        pub atomic: bool,
        /// Before.
        pub before: u64,
        /// After.
        pub after: u64,
    }

    /// `netaddr4`: an address in universal form (RFC 5665).
    pub struct NetAddr4 {
        /// Transport, such as `tcp` or `tcp6`.
        pub netid: Text4,
        /// Universal address.
        pub addr: Text4,
    }

    /// `nfs_impl_id4`: who made an implementation.
    pub struct ImplId4 {
        /// DNS name of the maker.
        pub domain: Text4,
        /// Product and version.
        pub name: Text4,
        /// When it was built.
        pub date: NfsTime4,
    }

    /// `state_owner4`, as `open_owner4` and `lock_owner4`. From 4.1 on the client id is ignored: the session has it.
    #[derive(Hash)]
    pub struct StateOwner4 {
        /// The client.
        pub clientid: u64,
        /// The owner, unique within the client.
        pub owner: Identity,
    }

    /// `state_protect_ops4`: operations, as bits of their numbers.
    pub struct StateProtectOps4 {
        /// Which the server refuses from others than the protected principal.
        pub must_enforce: Bitmap,
        /// Which the server permits to the protected principal beside the owner of the state.
        pub must_allow: Bitmap,
    }
}

xdr_union! {
    /// `settime4`: how a time is set.
    #[derive(Copy)]
    pub enum SetTime4 {
        /// The server's present time.
        0 => ServerTime,
        /// The time given.
        1 => ClientTime(time: NfsTime4),
    }

    /// `netloc4`: where a copy's partner is (RFC 7862 §4.7).
    pub enum NetLoc4 {
        /// By name.
        1 => Name(name: Text4),
        /// By URL.
        2 => Url(url: Text4),
        /// By address.
        3 => Addr(addr: NetAddr4),
    }
}

impl StateId4 {
    /// No state: the anonymous stateid (RFC 8881 §8.2.3).
    pub const ANONYMOUS: Self = Self { seqid: 0, other: [0; 12] };
    /// READ past locks: the READ bypass stateid.
    pub const READ_BYPASS: Self = Self { seqid: u32::MAX, other: [0xff; 12] };
    /// The stateid that an operation before left as the current one. Since 4.1.
    pub const CURRENT: Self = Self { seqid: 1, other: [0; 12] };
    /// Never valid. Since 4.1.
    pub const INVALID: Self = Self { seqid: u32::MAX, other: [0; 12] };

    /// Whether `other` is all zeros or all ones: such stateids name no state, whether they are defined or not.
    pub fn is_special(&self) -> bool {
        self.other == [0; 12] || self.other == [0xff; 12]
    }
}
