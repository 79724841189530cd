//! All operations of COMPOUND (RFC 7531, RFC 8881 §18, RFC 7862 §15, RFC 8276 §8.4).

use super::Status4;
use super::client::*;
use super::copy::*;
use super::deleg::*;
use super::dir::*;
use super::io::*;
use super::lock::*;
use super::object::*;
use super::open::*;
use super::operations::operations;
use super::pnfs::*;
use super::secinfo::*;
use super::session::*;
use super::xattr::*;

operations! {
    /// Operations of COMPOUND (`nfs_opnum4`).
    number OpNum4, arguments ArgOp4, results ResOp4;
    /// What the caller may do.
    Access(args: Access4Args) -> Access4Res = 3, since 0;
    /// Ends an open.
    Close(args: Close4Args) -> StateId4Res = 4, since 0;
    /// Makes unstable writes durable.
    Commit(args: Commit4Args) -> Commit4Res = 5, since 0;
    /// Creates an object that is not a regular file.
    Create(args: Create4Args) -> Create4Res = 6, since 0;
    /// Gives up delegations from before the client's restart.
    DelegPurge(args: DelegPurge4Args) -> Status4 = 7, since 0;
    /// Returns a delegation.
    DelegReturn(args: DelegReturn4Args) -> Status4 = 8, since 0;
    /// Reads attributes.
    GetAttr(args: GetAttr4Args) -> GetAttr4Res = 9, since 0;
    /// Tells the current handle.
    GetFh -> GetFh4Res = 10, since 0;
    /// Adds a name.
    Link(args: Link4Args) -> Changed4Res = 11, since 0;
    /// Requests a lock.
    Lock(args: Lock4Args) -> Lock4Res = 12, since 0;
    /// Whether a lock would be granted.
    LockT(args: LockT4Args) -> LockT4Res = 13, since 0;
    /// Releases a lock.
    LockU(args: LockU4Args) -> StateId4Res = 14, since 0;
    /// The object of a name becomes the current one.
    Lookup(args: Lookup4Args) -> Status4 = 15, since 0;
    /// The parent becomes the current one.
    LookupP -> Status4 = 16, since 0;
    /// Goes on if attributes differ.
    NVerify(args: Verify4Args) -> Status4 = 17, since 0;
    /// Opens a file.
    Open(args: Box<Open4Args>) -> Open4Res = 18, since 0;
    /// The directory of named attributes becomes the current object.
    OpenAttr(args: OpenAttr4Args) -> Status4 = 19, since 0;
    /// Confirms an open-owner. 4.0 only.
    OpenConfirm(args: OpenConfirm4Args) -> StateId4Res = 20, since 0;
    /// Gives up some of an open's access.
    OpenDowngrade(args: OpenDowngrade4Args) -> StateId4Res = 21, since 0;
    /// Sets the current handle.
    PutFh(args: PutFh4Args) -> Status4 = 22, since 0;
    /// The public root becomes the current object.
    PutPubFh -> Status4 = 23, since 0;
    /// The root becomes the current object.
    PutRootFh -> Status4 = 24, since 0;
    /// Reads data.
    Read(args: Read4Args) -> Read4Res = 25, since 0;
    /// Lists a directory.
    ReadDir(args: ReadDir4Args) -> ReadDir4Res = 26, since 0;
    /// Reads the text of a symbolic link.
    ReadLink -> ReadLink4Res = 27, since 0;
    /// Removes a name.
    Remove(args: Remove4Args) -> Changed4Res = 28, since 0;
    /// Moves a name.
    Rename(args: Rename4Args) -> Rename4Res = 29, since 0;
    /// Renews a lease. 4.0 only.
    Renew(args: ClientId4Args) -> Status4 = 30, since 0;
    /// The saved handle becomes the current one.
    RestoreFh -> Status4 = 31, since 0;
    /// Saves the current handle.
    SaveFh -> Status4 = 32, since 0;
    /// Security flavors of a name.
    SecInfo(args: SecInfo4Args) -> SecInfo4Res = 33, since 0;
    /// Changes attributes.
    SetAttr(args: SetAttr4Args) -> SetAttr4Res = 34, since 0;
    /// Introduces a client. 4.0 only.
    SetClientId(args: SetClientId4Args) -> SetClientId4Res = 35, since 0;
    /// Confirms a client. 4.0 only.
    SetClientIdConfirm(args: SetClientIdConfirm4Args) -> Status4 = 36, since 0;
    /// Goes on if attributes are the same.
    Verify(args: Verify4Args) -> Status4 = 37, since 0;
    /// Writes data.
    Write(args: Write4Args) -> Write4Res = 38, since 0;
    /// A lock-owner is gone. 4.0 only.
    ReleaseLockOwner(args: ReleaseLockOwner4Args) -> Status4 = 39, since 0;
    /// Changes the parameters of callbacks.
    BackchannelCtl(args: BackchannelCtl4Args) -> Status4 = 40, since 1;
    /// Binds a connection to a session.
    BindConnToSession(args: BindConnToSession4Args) -> BindConnToSession4Res = 41, since 1;
    /// Introduces a client.
    ExchangeId(args: Box<ExchangeId4Args>) -> ExchangeId4Res = 42, since 1;
    /// Makes a session.
    CreateSession(args: CreateSession4Args) -> CreateSession4Res = 43, since 1;
    /// Ends a session.
    DestroySession(args: DestroySession4Args) -> Status4 = 44, since 1;
    /// Frees a stateid whose locks are gone.
    FreeStateId(args: FreeStateId4Args) -> Status4 = 45, since 1;
    /// Asks for a directory delegation.
    GetDirDelegation(args: GetDirDelegation4Args) -> GetDirDelegation4Res = 46, since 1;
    /// Addresses of a device.
    GetDeviceInfo(args: GetDeviceInfo4Args) -> GetDeviceInfo4Res = 47, since 1;
    /// Devices of a file system.
    GetDeviceList(args: GetDeviceList4Args) -> GetDeviceList4Res = 48, since 1;
    /// Publishes what was written through a layout.
    LayoutCommit(args: LayoutCommit4Args) -> LayoutCommit4Res = 49, since 1;
    /// Asks for a layout.
    LayoutGet(args: LayoutGet4Args) -> LayoutGet4Res = 50, since 1;
    /// Returns a layout.
    LayoutReturn(args: LayoutReturn4Args) -> LayoutReturn4Res = 51, since 1;
    /// Security flavors of the current object or its parent.
    SecInfoNoName(args: SecInfoStyle4) -> SecInfo4Res = 52, since 1;
    /// Takes a slot of a session.
    Sequence(args: Sequence4Args) -> Sequence4Res = 53, since 1;
    /// Changes the secret of SP4_SSV.
    SetSsv(args: SetSsv4Args) -> SetSsv4Res = 54, since 1;
    /// Whether stateids are valid.
    TestStateId(args: TestStateId4Args) -> TestStateId4Res = 55, since 1;
    /// Asks for a delegation.
    WantDelegation(args: WantDelegation4Args) -> WantDelegation4Res = 56, since 1;
    /// Ends a client id.
    DestroyClientId(args: ClientId4Args) -> Status4 = 57, since 1;
    /// Reclaims are complete.
    ReclaimComplete(args: ReclaimComplete4Args) -> Status4 = 58, since 1;
    /// Reserves room.
    Allocate(args: Allocate4Args) -> Status4 = 59, since 2;
    /// Copies at the server.
    Copy(args: Copy4Args) -> Copy4Res = 60, since 2;
    /// Announces a copy to another server.
    CopyNotify(args: CopyNotify4Args) -> CopyNotify4Res = 61, since 2;
    /// Makes a hole.
    Deallocate(args: Allocate4Args) -> Status4 = 62, since 2;
    /// Tells how a file will be used.
    IoAdvise(args: IoAdvise4Args) -> IoAdvise4Res = 63, since 2;
    /// Tells errors of a layout.
    LayoutError(args: LayoutError4Args) -> Status4 = 64, since 2;
    /// Tells how a layout was used.
    LayoutStats(args: LayoutStats4Args) -> Status4 = 65, since 2;
    /// Ends a copy early.
    OffloadCancel(args: Offload4Args) -> Status4 = 66, since 2;
    /// How far a copy is.
    OffloadStatus(args: Offload4Args) -> OffloadStatus4Res = 67, since 2;
    /// Reads data and holes.
    ReadPlus(args: Read4Args) -> ReadPlus4Res = 68, since 2;
    /// Finds data or a hole.
    Seek(args: Seek4Args) -> Seek4Res = 69, since 2;
    /// Writes a pattern.
    WriteSame(args: WriteSame4Args) -> WriteSame4Res = 70, since 2;
    /// Shares a range of another file.
    Clone(args: Clone4Args) -> Status4 = 71, since 2;
    /// Reads an extended attribute.
    GetXattr(args: Xattr4Args) -> GetXattr4Res = 72, since 2;
    /// Writes an extended attribute.
    SetXattr(args: SetXattr4Args) -> ChangedXattr4Res = 73, since 2;
    /// Lists extended attributes.
    ListXattrs(args: ListXattrs4Args) -> ListXattrs4Res = 74, since 2;
    /// Removes an extended attribute.
    RemoveXattr(args: Xattr4Args) -> ChangedXattr4Res = 75, since 2;
    /// No operation: what an unknown one is answered as (RFC 8881 §18.52).
    Illegal -> Status4 = 10044, since 0;
}

/// What a minor version makes of an operation number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Defined {
    /// It has the operation.
    Yes,
    /// It must not implement it (RFC 8881 §17, "MNI"): `NFS4ERR_NOTSUPP`, its arguments decode as before.
    Obsolete,
    /// It has no such operation: `NFS4ERR_OP_ILLEGAL`.
    No,
}

impl OpNum4 {
    /// What `minor` makes of the operation. `OP_ILLEGAL` is an operation in no version.
    pub const fn defined_in(self, minor: u32) -> Defined {
        match self {
            Self::Illegal => Defined::No,
            Self::OpenConfirm
            | Self::Renew
            | Self::SetClientId
            | Self::SetClientIdConfirm
            | Self::ReleaseLockOwner
                if minor > 0 =>
            {
                Defined::Obsolete
            }
            _ if minor < self.since() => Defined::No,
            _ => Defined::Yes,
        }
    }
}
