//! Bounds of everything in NFSv4 whose length a peer chooses.
//!
//! The `.x` files leave most lengths open. Decoded opaque data are slices of the record and cost nothing, so their
//! bounds only have to be above what the engine refuses by its own status (`NFS4ERR_NAMETOOLONG`, …); what is decoded
//! into elements has bounds that keep the memory of a message in proportion to its length.

/// Longest owner, client id, server scope in bytes (`NFS4_OPAQUE_LIMIT`, RFC 8881 §3.1).
pub const MAX_OPAQUE: usize = 1024;

/// Longest file handle in bytes (`NFS4_FHSIZE`).
pub const MAX_HANDLE: usize = 128;

/// Longest tag of a COMPOUND in bytes: clients send a dozen; the reply repeats it.
pub const MAX_TAG: usize = 1024;

/// Most operations of a COMPOUND whose whole is one value, for clients and tests. A server gives its own bound to
/// [`CompoundCall::decode`](super::CompoundCall::decode). Clients in use stay below 20.
pub const MAX_OPS: usize = 256;

/// Longest name that decodes. Above what any file system stores, so that a name that is too long is answered with
/// `NFS4ERR_NAMETOOLONG` and not as garbage.
pub const MAX_WIRE_NAME: usize = 16 * 1024;

/// Longest text of a symbolic link that decodes, for the same reason above PATH_MAX.
pub const MAX_WIRE_PATH: usize = 64 * 1024;

/// Largest payload of READ, WRITE and their kin that the types admit. The bound in force is the one of the record.
pub const MAX_WIRE_PAYLOAD: usize = 16 * 1024 * 1024;

/// Most words of a bitmap that decodes: attribute numbers up to 2047. All that is defined fits in three, tests send
/// numbers of about 1000.
pub const MAX_BITMAP_WORDS: usize = 64;

/// Most bytes of attribute values. Holds an ACL of [`MAX_ACES`] entries with names of usual length.
pub const MAX_ATTR_VALUES: usize = 256 * 1024;

/// Most entries of an ACL that decodes. Clients and file systems in use stop at some hundreds.
pub const MAX_ACES: usize = 1024;

/// Longest user or group name in bytes, its domain included: two DNS names' worth and more.
pub const MAX_PRINCIPAL: usize = 1024;

/// Most components of a path in `fs_locations` and `fs_locations_info`.
pub const MAX_COMPONENTS: usize = 256;

/// Most locations, or servers of a location, in `fs_locations` and `fs_locations_info`.
pub const MAX_LOCATIONS: usize = 256;

/// Longest network address, netid or server name in bytes.
pub const MAX_NETADDR: usize = 1024;

/// Most alternatives in short lists: security parameters of a callback, algorithms of SP4_SSV, security flavors,
/// layout types, servers of a copy. No list in use has more than a handful.
pub const MAX_CHOICES: usize = 32;

/// Longest GSS mechanism id, GSS handle, verifier of SP4_SSV in bytes.
pub const MAX_GSS: usize = 4096;

/// Most stateids of one TEST_STATEID.
pub const MAX_STATEIDS: usize = 4096;

/// Most entries of one READDIR reply that a client decodes: more than the smallest entries in a 16 MiB reply.
pub const MAX_ENTRIES: usize = 1 << 20;

/// Most names of one LISTXATTRS reply, and most device ids of GETDEVICELIST, that a client decodes.
pub const MAX_LISTED: usize = 1 << 16;

/// Largest value of an extended attribute that decodes: above the 64 KiB of Linux, so that `NFS4ERR_XATTR2BIG` can be
/// answered.
pub const MAX_WIRE_XATTR: usize = 1024 * 1024;

/// Largest body of anything that belongs to a layout.
pub const MAX_LAYOUT_BODY: usize = 1024 * 1024;

/// Most layouts of LAYOUTGET, device errors of LAYOUTERROR, hints of `mdsthreshold`.
pub const MAX_LAYOUTS: usize = 256;

/// Most pieces of one READ_PLUS reply that a client decodes.
pub const MAX_SEGMENTS: usize = 4096;

/// Most changes of one CB_NOTIFY or CB_NOTIFY_DEVICEID.
pub const MAX_NOTIFICATIONS: usize = 1024;

/// Most sessions, and most calls of each, that a CB_SEQUENCE refers to.
pub const MAX_REFERRING: usize = 256;
