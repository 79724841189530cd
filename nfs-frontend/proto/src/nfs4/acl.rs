//! Access control lists (RFC 8881 §6.2).

use atoll_xdr::{Array, xdr_struct};

use super::Principal4;
use super::limits::MAX_ACES;

/// Values of [`Ace4::ace_type`] (RFC 8881 §6.2.1.1). Kept raw: one that is unknown is for the engine to refuse.
pub mod ace_type {
    /// Allows.
    pub const ALLOWED: u32 = 0;
    /// Denies.
    pub const DENIED: u32 = 1;
    /// Is logged.
    pub const AUDIT: u32 = 2;
    /// Raises an alarm.
    pub const ALARM: u32 = 3;
}

/// Bits of `aclsupport` (RFC 8881 §6.2.1.2).
pub mod acl_support {
    /// Entries that allow.
    pub const ALLOW: u32 = 0x1;
    /// Entries that deny.
    pub const DENY: u32 = 0x2;
    /// Entries that are logged.
    pub const AUDIT: u32 = 0x4;
    /// Entries that raise an alarm.
    pub const ALARM: u32 = 0x8;
}

/// Bits of [`Ace4::flag`] (RFC 8881 §6.2.1.4).
pub mod ace_flag {
    /// New files inherit it.
    pub const FILE_INHERIT: u32 = 0x01;
    /// New directories inherit it.
    pub const DIRECTORY_INHERIT: u32 = 0x02;
    /// Inherited once only.
    pub const NO_PROPAGATE_INHERIT: u32 = 0x04;
    /// Does not apply to the directory itself.
    pub const INHERIT_ONLY: u32 = 0x08;
    /// AUDIT, ALARM: on success.
    pub const SUCCESSFUL_ACCESS: u32 = 0x10;
    /// AUDIT, ALARM: on failure.
    pub const FAILED_ACCESS: u32 = 0x20;
    /// `who` is a group.
    pub const IDENTIFIER_GROUP: u32 = 0x40;
    /// Came by inheritance. Since 4.1.
    pub const INHERITED: u32 = 0x80;
}

/// Bits of [`Ace4::access_mask`] (RFC 8881 §6.2.1.3). Those of files and of directories share numbers.
pub mod ace_mask {
    /// Read a file's data.
    pub const READ_DATA: u32 = 0x1;
    /// List a directory.
    pub const LIST_DIRECTORY: u32 = 0x1;
    /// Write a file's data.
    pub const WRITE_DATA: u32 = 0x2;
    /// Add a file to a directory.
    pub const ADD_FILE: u32 = 0x2;
    /// Append to a file.
    pub const APPEND_DATA: u32 = 0x4;
    /// Add a directory to a directory.
    pub const ADD_SUBDIRECTORY: u32 = 0x4;
    /// Read named attributes.
    pub const READ_NAMED_ATTRS: u32 = 0x8;
    /// Write named attributes.
    pub const WRITE_NAMED_ATTRS: u32 = 0x10;
    /// Execute a file, traverse a directory.
    pub const EXECUTE: u32 = 0x20;
    /// Delete within a directory.
    pub const DELETE_CHILD: u32 = 0x40;
    /// Read attributes.
    pub const READ_ATTRIBUTES: u32 = 0x80;
    /// Write times.
    pub const WRITE_ATTRIBUTES: u32 = 0x100;
    /// Set a retention time.
    pub const WRITE_RETENTION: u32 = 0x200;
    /// Set a retention hold.
    pub const WRITE_RETENTION_HOLD: u32 = 0x400;
    /// Delete the object.
    pub const DELETE: u32 = 0x1_0000;
    /// Read the ACL.
    pub const READ_ACL: u32 = 0x2_0000;
    /// Write mode and ACL.
    pub const WRITE_ACL: u32 = 0x4_0000;
    /// Write owner and group.
    pub const WRITE_OWNER: u32 = 0x8_0000;
    /// Synchronous access of a local process.
    pub const SYNCHRONIZE: u32 = 0x10_0000;
    /// READ_ACL, READ_DATA, READ_ATTRIBUTES, SYNCHRONIZE.
    pub const GENERIC_READ: u32 = 0x12_0081;
    /// READ_ACL, WRITE_DATA, WRITE_ATTRIBUTES, WRITE_ACL, APPEND_DATA, SYNCHRONIZE.
    pub const GENERIC_WRITE: u32 = 0x16_0106;
    /// READ_ACL, READ_ATTRIBUTES, EXECUTE, SYNCHRONIZE.
    pub const GENERIC_EXECUTE: u32 = 0x12_00a0;
}

/// Bits of [`Acl41::flag`] (RFC 8881 §6.4.3.2).
pub mod acl_flag {
    /// Inherited automatically.
    pub const AUTO_INHERIT: u32 = 0x1;
    /// Protected from automatic inheritance.
    pub const PROTECTED: u32 = 0x2;
    /// Made by default.
    pub const DEFAULTED: u32 = 0x4;
}

/// `who` of entries that are not about a name (RFC 8881 §6.2.1.5).
pub mod who {
    /// The owner.
    pub const OWNER: &[u8] = b"OWNER@";
    /// The group.
    pub const GROUP: &[u8] = b"GROUP@";
    /// Everybody, owner and group included.
    pub const EVERYONE: &[u8] = b"EVERYONE@";
}

xdr_struct! {
    /// An entry (`nfsace4`).
    pub struct Ace4 {
        /// Of [`ace_type`].
        pub ace_type: u32,
        /// Of [`ace_flag`].
        pub flag: u32,
        /// Of [`ace_mask`].
        pub access_mask: u32,
        /// Whom it is about: a principal, or of [`who`].
        pub who: Principal4,
    }

    /// An ACL with flags (`nfsacl41`), the attributes `dacl` and `sacl`.
    pub struct Acl41 {
        /// Of [`acl_flag`].
        pub flag: u32,
        /// Entries, in the order in which they are evaluated.
        pub aces: Acl4,
    }
}

/// The attribute `acl`: entries in the order in which they are evaluated.
pub type Acl4 = Array<Ace4, MAX_ACES>;
