//! Callbacks: CB_COMPOUND and its operations, from the server to the client (RFC 8881 §19, §20; RFC 7530 §17;
//! RFC 7862 §16).

use atoll_xdr::{Array, Encoder, Opaque, xdr_struct, xdr_union};

use super::limits::{MAX_ATTR_VALUES, MAX_NOTIFICATIONS, MAX_OPS, MAX_REFERRING};
use super::operations::operations;
use super::pnfs::LayoutIoMode4;
use super::{
    Bitmap, Fattr4, FileHandle, FsId4, GetAttr4Res, Name4, NfsStat4, OpenDelegation4, SessionId4, StateId4,
    StateOwner4, Status4, Tag, Verifier4, WriteResponse4,
};
use crate::rpc::{CallHeader, OpaqueAuth, rpc_program};

/// The number RFC 7863 gives; the one in force is chosen by the client ([`encode_cb_call`]).
pub const PROGRAM: u32 = 0x4000_0000;
/// The version of callbacks (`NFS_CB`).
pub const VERSION: u32 = 1;

rpc_program! {
    /// Procedures of callbacks.
    program PROGRAM, version VERSION;
    /// Does nothing.
    Null(()) -> () = 0;
    /// Operations in order.
    Compound(CbCompound4Args) -> CbCompound4Res = 1;
}

/// Bits of [`CbRecallAny4Args::type_mask`] (`RCA4_TYPE_MASK_*`), as numbers.
pub mod recall_any {
    /// Delegations for reading.
    pub const RDATA_DLG: u32 = 0;
    /// Delegations for writing.
    pub const WDATA_DLG: u32 = 1;
    /// Directory delegations.
    pub const DIR_DLG: u32 = 2;
    /// Layouts of files.
    pub const FILE_LAYOUT: u32 = 3;
    /// Layouts of blocks.
    pub const BLK_LAYOUT: u32 = 4;
}

/// Numbers in [`Notify4::mask`] of CB_NOTIFY (`notify_type4`).
pub mod notify_type {
    /// Attributes of an entry.
    pub const CHANGE_CHILD_ATTRS: u32 = 0;
    /// Attributes of the directory.
    pub const CHANGE_DIR_ATTRS: u32 = 1;
    /// An entry is gone.
    pub const REMOVE_ENTRY: u32 = 2;
    /// An entry is new.
    pub const ADD_ENTRY: u32 = 3;
    /// An entry has a new name.
    pub const RENAME_ENTRY: u32 = 4;
    /// The cookie verifier changed.
    pub const CHANGE_COOKIE_VERIFIER: u32 = 5;
}

xdr_struct! {
    /// Arguments of CB_COMPOUND.
    pub struct CbCompound4Args {
        /// Repeated in the reply.
        pub tag: Tag,
        /// Minor version.
        pub minorversion: u32,
        /// What SETCLIENTID asked for. 4.0 only.
        pub callback_ident: u32,
        /// The operations.
        pub ops: Array<CbArgOp4, MAX_OPS>,
    }

    /// Results of CB_COMPOUND.
    pub struct CbCompound4Res {
        /// Status of the last operation executed.
        pub status: Status4,
        /// As in the call.
        pub tag: Tag,
        /// Results of the operations executed.
        pub ops: Array<CbResOp4, MAX_OPS>,
    }

    /// Arguments of CB_GETATTR.
    pub struct CbGetAttr4Args {
        /// The delegated file.
        pub fh: FileHandle,
        /// Attributes asked for.
        pub attr_request: Bitmap,
    }

    /// Arguments of CB_RECALL.
    #[derive(Copy)]
    pub struct CbRecall4Args {
        /// The delegation.
        pub stateid: StateId4,
        /// Whether the file is about to be truncated, so that dirty data need not be written.
        pub truncate: bool,
        /// The file.
        pub fh: FileHandle,
    }

    /// A stretch of a layout (`layoutrecall_file4`).
    #[derive(Copy)]
    pub struct LayoutRecallFile4 {
        /// The file.
        pub fh: FileHandle,
        /// First byte.
        pub offset: u64,
        /// Bytes.
        pub length: u64,
        /// The layout.
        pub stateid: StateId4,
    }

    /// Arguments of CB_LAYOUTRECALL.
    #[derive(Copy)]
    pub struct CbLayoutRecall4Args {
        /// Layout type.
        pub layout_type: u32,
        /// Of which kind.
        pub iomode: LayoutIoMode4,
        /// Whether the client must not write any more what it holds.
        pub changed: bool,
        /// What is recalled.
        pub recall: LayoutRecall4,
    }

    /// An entry that changed (`notify_entry4`).
    pub struct NotifyEntry4 {
        /// Name.
        pub file: Name4,
        /// Attributes.
        pub attrs: Fattr4,
    }

    /// The entry before (`prev_entry4`).
    pub struct PrevEntry4 {
        /// The entry.
        pub entry: NotifyEntry4,
        /// Its cookie.
        pub cookie: u64,
    }

    /// An entry is gone (`notify_remove4`).
    pub struct NotifyRemove4 {
        /// The entry.
        pub old_entry: NotifyEntry4,
        /// Its cookie.
        pub old_entry_cookie: u64,
    }

    /// An entry is new (`notify_add4`).
    pub struct NotifyAdd4 {
        /// What it replaced.
        pub old_entry: Option<NotifyRemove4>,
        /// The entry.
        pub new_entry: NotifyEntry4,
        /// Its cookie.
        pub new_entry_cookie: Option<u64>,
        /// The entry before.
        pub prev_entry: Option<PrevEntry4>,
        /// Whether it is the last.
        pub last_entry: bool,
    }

    /// Attributes changed (`notify_attr4`).
    pub struct NotifyAttr4 {
        /// The entry.
        pub changed_entry: NotifyEntry4,
    }

    /// An entry has a new name (`notify_rename4`).
    pub struct NotifyRename4 {
        /// Before.
        pub old_entry: NotifyRemove4,
        /// After.
        pub new_entry: NotifyAdd4,
    }

    /// The cookie verifier changed (`notify_verifier4`).
    #[derive(Copy)]
    pub struct NotifyVerifier4 {
        /// Before.
        pub old_cookieverf: Verifier4,
        /// After.
        pub new_cookieverf: Verifier4,
    }

    /// Changes (`notify4`): kinds, and for each kind its structure, in the order of their numbers.
    pub struct Notify4 {
        /// Kinds, of [`notify_type`].
        pub mask: Bitmap,
        /// Structures such as [`NotifyAdd4`].
        pub values: Opaque<MAX_ATTR_VALUES>,
    }

    /// Arguments of CB_NOTIFY.
    pub struct CbNotify4Args {
        /// The directory delegation.
        pub stateid: StateId4,
        /// The directory.
        pub fh: FileHandle,
        /// Changes.
        pub changes: Array<Notify4, MAX_NOTIFICATIONS>,
    }

    /// Arguments of CB_PUSH_DELEG.
    pub struct CbPushDeleg4Args {
        /// The file.
        pub fh: FileHandle,
        /// The delegation.
        pub delegation: OpenDelegation4,
    }

    /// Arguments of CB_RECALL_ANY and CB_RECALLABLE_OBJ_AVAIL.
    pub struct CbRecallAny4Args {
        /// How many the client may keep.
        pub objects_to_keep: u32,
        /// Kinds, of [`recall_any`].
        pub type_mask: Bitmap,
    }

    /// Arguments of CB_RECALL_SLOT.
    #[derive(Copy)]
    pub struct CbRecallSlot4Args {
        /// Highest slot of the fore channel that is still to be used.
        pub target_highest_slotid: u32,
    }

    /// A call that a callback has to do with (`referring_call4`).
    #[derive(Copy)]
    pub struct ReferringCall4 {
        /// Its sequence id.
        pub sequenceid: u32,
        /// Its slot.
        pub slotid: u32,
    }

    /// Calls of a session that a callback has to do with (`referring_call_list4`, RFC 8881 §2.10.6.3).
    pub struct ReferringCallList4 {
        /// The session.
        pub sessionid: SessionId4,
        /// The calls.
        pub calls: Array<ReferringCall4, MAX_REFERRING>,
    }

    /// Arguments of CB_SEQUENCE.
    pub struct CbSequence4Args {
        /// The session.
        pub sessionid: SessionId4,
        /// One more than the slot's last.
        pub sequenceid: u32,
        /// The slot of the backchannel.
        pub slotid: u32,
        /// Highest slot the server uses.
        pub highest_slotid: u32,
        /// Whether the reply is to be kept.
        pub cachethis: bool,
        /// Calls whose replies the client should have before it goes on.
        pub referring_call_lists: Array<ReferringCallList4, MAX_REFERRING>,
    }

    /// Results of CB_SEQUENCE.
    #[derive(Copy)]
    pub struct CbSequence4Ok {
        /// The session.
        pub sessionid: SessionId4,
        /// As in the arguments.
        pub sequenceid: u32,
        /// As in the arguments.
        pub slotid: u32,
        /// Highest slot the client accepts.
        pub highest_slotid: u32,
        /// Highest slot the client wants used.
        pub target_highest_slotid: u32,
    }

    /// Arguments of CB_WANTS_CANCELLED.
    #[derive(Copy)]
    pub struct CbWantsCancelled4Args {
        /// Wants that wait for contention to end.
        pub contended: bool,
        /// Wants that wait for resources.
        pub resourced: bool,
    }

    /// Arguments of CB_NOTIFY_LOCK.
    pub struct CbNotifyLock4Args {
        /// The file.
        pub fh: FileHandle,
        /// Who may now get the lock.
        pub lock_owner: StateOwner4,
    }

    /// Arguments of CB_NOTIFY_DEVICEID.
    pub struct CbNotifyDeviceId4Args {
        /// Changes.
        pub changes: Array<Notify4, MAX_NOTIFICATIONS>,
    }

    /// Arguments of CB_OFFLOAD.
    #[derive(Copy)]
    pub struct CbOffload4Args {
        /// The destination.
        pub fh: FileHandle,
        /// The copy.
        pub stateid: StateId4,
        /// How it ended.
        pub info: OffloadInfo4,
    }

    /// A copy that failed (default arm of `offload_info4`).
    #[derive(Copy)]
    pub struct OffloadFailed4 {
        /// Why.
        pub status: NfsStat4,
        /// Bytes copied before.
        pub bytes_copied: u64,
    }
}

xdr_union! {
    /// What is recalled (`layoutrecall4`).
    #[derive(Copy)]
    pub enum LayoutRecall4 {
        /// Of a file.
        1 => File(layout: LayoutRecallFile4),
        /// Of a file system.
        2 => FsId(fsid: FsId4),
        /// Everything.
        3 => All,
    }
}

/// How a copy ended (`offload_info4`).
pub type OffloadInfo4 = Result<WriteResponse4, OffloadFailed4>;

/// Results of CB_SEQUENCE.
pub type CbSequence4Res = Result<CbSequence4Ok, NfsStat4>;

operations! {
    /// Operations of CB_COMPOUND (`nfs_cb_opnum4`).
    number CbOpNum4, arguments CbArgOp4, results CbResOp4;
    /// Attributes that a delegate has changed.
    GetAttr(args: CbGetAttr4Args) -> GetAttr4Res = 3, since 0;
    /// Recalls a delegation.
    Recall(args: CbRecall4Args) -> Status4 = 4, since 0;
    /// Recalls layouts.
    LayoutRecall(args: CbLayoutRecall4Args) -> Status4 = 5, since 1;
    /// Changes in a delegated directory.
    Notify(args: CbNotify4Args) -> Status4 = 6, since 1;
    /// Hands out a delegation that was wanted.
    PushDeleg(args: Box<CbPushDeleg4Args>) -> Status4 = 7, since 1;
    /// Recalls some of many.
    RecallAny(args: CbRecallAny4Args) -> Status4 = 8, since 1;
    /// There are resources for what was wanted.
    RecallableObjAvail(args: CbRecallAny4Args) -> Status4 = 9, since 1;
    /// Fewer slots are to be used.
    RecallSlot(args: CbRecallSlot4Args) -> Status4 = 10, since 1;
    /// Takes a slot of the backchannel.
    Sequence(args: CbSequence4Args) -> CbSequence4Res = 11, since 1;
    /// Wants are forgotten.
    WantsCancelled(args: CbWantsCancelled4Args) -> Status4 = 12, since 1;
    /// A lock may be had.
    NotifyLock(args: CbNotifyLock4Args) -> Status4 = 13, since 1;
    /// Devices changed.
    NotifyDeviceId(args: CbNotifyDeviceId4Args) -> Status4 = 14, since 1;
    /// A copy ended.
    Offload(args: CbOffload4Args) -> Status4 = 15, since 2;
    /// No operation: what an unknown one is answered as.
    Illegal -> Status4 = 10044, since 0;
}

/// Writes a whole CB_COMPOUND call to the program number that the client gave.
pub fn encode_cb_call(
    e: &mut Encoder,
    xid: u32,
    program: u32,
    credential: OpaqueAuth,
    args: &CbCompound4Args,
) {
    e.put(&CallHeader {
        xid,
        program,
        version: VERSION,
        procedure: Proc::Compound.to_u32(),
        credential,
        verifier: OpaqueAuth::NONE,
    });
    e.put(args);
}
