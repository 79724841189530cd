//! What frontends say to the metadata store: [`Call`]s that change it, reads of it, and what comes back.
//!
//! One call is one transaction: checked and applied in one deterministic step on the replicated state machine,
//! so a rename is atomic and no lock is held across calls. Permission checks that decide about a change are part
//! of that step; a frontend may check earlier to answer sooner, never instead.

pub mod call;
pub mod data;
pub mod delegation;
pub mod error;
pub mod export;
pub mod lock;
pub mod nfs4;
pub mod offload;
pub mod once;
pub mod response;
pub mod service;
pub mod shared;

pub use call::{Call, CreateHow, NewNode, Op, Origin, RemoveKind, XattrHow};
pub use data::{Extent, Flush, Piece, Source};
pub use error::FsError;
pub use export::{ExportSpec, Exports};
pub use once::{Once, OnceKey, OwnerKey, SlotKey};
pub use response::{Change, Outcome, Response};
pub use service::MetadataService;
