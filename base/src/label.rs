//! Security labels of mandatory access control (RFC 7862 §9), stored and shown, never interpreted or enforced: the "limited server mode"
//! of §9.5.2.

use bytes::Bytes;
use serde::{Deserialize, Serialize};

/// A label of an object (RFC 7862 §12.2.4 `sec_label4`).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Label {
    /// Label format specifier (RFC 7569): how to read `data`. 0 of SELinux contexts, as Linux has them.
    pub format: u32,
    /// Policy identifier, whose meaning is the format's.
    pub policy: u32,
    /// The label, 1 to [`LABEL_MAX`](crate::limits::LABEL_MAX) bytes when it is stored. To set an empty one is to remove it.
    pub data: Bytes,
}
