//! Random operations of a COMPOUND, valid-looking most of the time.

use crate::dice::Dice;
use crate::known::{Held, Kind, NAMES, OWNERS, Stateids};
use atoll_proto::nfs4::{
    Access4Args, Allocate4Args, ArgOp4, Attr4, AttrValue4, Bitmap, ClientId4Args, Clone4Args, Close4Args,
    Commit4Args, Content4, Copy4Args, Create4Args, CreateHow4, CreateType4, CreateVerfAttr4, DelegClaim4,
    DelegReturn4Args, ExistLockOwner4, Fattr4, FileHandle, FreeStateId4Args, GetAttr4Args,
    GetDirDelegation4Args, Identity, IoAdvise4Args, Link4Args, LinkText4, ListXattrs4Args, Lock4Args,
    LockT4Args, LockType4, LockU4Args, Locker4, Lookup4Args, Name4, NfsTime4, Offload4Args, Open4Args,
    OpenAttr4Args, OpenClaim4, OpenConfirm4Args, OpenDowngrade4Args, OpenFlag4, OpenToLockOwner4, Payload,
    PutFh4Args, Read4Args, ReadDir4Args, ReclaimComplete4Args, ReleaseLockOwner4Args, Remove4Args,
    Rename4Args, SecInfo4Args, SecInfoStyle4, SecLabel4, Seek4Args, SetAttr4Args, SetXattr4Args,
    SetXattrOption4, StableHow4, StateId4, StateOwner4, TestStateId4Args, Verify4Args, WantDelegation4Args,
    Write4Args, Xattr4Args, XattrValue4,
};
use atoll_xdr::{Array, Opaque};

/// What an operation means for what its client knows.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Note {
    Nothing,
    /// OPEN of this owner; its handle follows by GETFH.
    Open(usize),
    /// LOCK of this lock owner in this file.
    Lock(usize, FileHandle),
    /// Another version of a stateid.
    Again(Held),
}

/// An operation, what it means, and of which v4.0 owners it is which step.
pub(crate) struct Asked {
    pub(crate) op: ArgOp4,
    pub(crate) note: Note,
    pub(crate) steps: Vec<(Kind, u32)>,
}

/// Sequences of v4.0 owners: the next number of each.
#[derive(Clone, Debug, Default)]
pub(crate) struct Seqids {
    pub(crate) open: [u32; OWNERS.len()],
    pub(crate) lock: [u32; OWNERS.len()],
}

impl Seqids {
    pub(crate) fn of(&mut self, kind: Kind) -> &mut u32 {
        match kind {
            Kind::Open(owner) => &mut self.open[owner],
            Kind::Lock(owner) => &mut self.lock[owner],
            Kind::Delegation => unreachable!("delegations have no sequence"),
        }
    }
}

/// Who asks.
pub(crate) struct Asking<'c> {
    pub(crate) minor: u32,
    pub(crate) client: u64,
    pub(crate) stateids: &'c Stateids,
    /// Copies that go on, or did, with their targets.
    pub(crate) copies: &'c [(FileHandle, StateId4)],
    pub(crate) handles: &'c [FileHandle],
    /// As they will be when what is asked so far has succeeded.
    pub(crate) seqids: Seqids,
    pub(crate) asked: Vec<Asked>,
}

pub(crate) fn name(text: &str) -> Name4 {
    Name4::copy_from(text.as_bytes()).unwrap()
}

pub(crate) fn identity(text: &str) -> Identity {
    Identity::copy_from(text.as_bytes()).unwrap()
}

fn attrs(values: &[AttrValue4]) -> Fattr4 {
    Fattr4::build(values).unwrap()
}

fn offset(d: &mut Dice<'_>) -> u64 {
    d.pick(&[0, 1, 10, 100, 4096, 70_000, 1 << 20, 1 << 40, (1 << 63) - 1, u64::MAX - 1, u64::MAX])
}

fn small_offset(d: &mut Dice<'_>) -> u64 {
    d.pick(&[0, 1, 10, 100, 4096, 70_000])
}

fn length(d: &mut Dice<'_>) -> u64 {
    d.pick(&[1, 10, 100, u64::MAX, 4096, 0, 1 << 62, u64::MAX - 5])
}

impl Asking<'_> {
    fn push(&mut self, op: ArgOp4) {
        self.asked.push(Asked { op, note: Note::Nothing, steps: Vec::new() });
    }

    fn push_noted(&mut self, op: ArgOp4, note: Note, steps: Vec<(Kind, u32)>) {
        self.asked.push(Asked { op, note, steps });
    }

    /// The next number of an owner of v4.0, or a wrong one.
    fn step(&mut self, d: &mut Dice<'_>, kind: Kind) -> (u32, Vec<(Kind, u32)>) {
        if self.minor > 0 {
            return (0, Vec::new());
        }
        let next = self.seqids.of(kind);
        match d.below(24) {
            23 => (next.wrapping_add(7), Vec::new()),
            22 => (next.wrapping_sub(1), Vec::new()),
            _ => {
                let seqid = *next;
                *next = next.wrapping_add(1);
                (seqid, vec![(kind, seqid)])
            }
        }
    }

    fn directory(&mut self, d: &mut Dice<'_>) {
        match d.below(8) {
            7 => self.any_handle(d),
            6 => {
                self.push(ArgOp4::PutRootFh);
                self.push(ArgOp4::Lookup(Lookup4Args { objname: name("dir") }));
            }
            _ => self.push(ArgOp4::PutRootFh),
        }
    }

    fn any_handle(&mut self, d: &mut Dice<'_>) {
        match d.latest(self.handles) {
            Some(fh) => self.push(ArgOp4::PutFh(PutFh4Args { object: *fh })),
            None => self.push(ArgOp4::PutRootFh),
        }
    }

    /// The handle that a stateid is for; now and then another one.
    fn handle_of(&mut self, d: &mut Dice<'_>, held: &Held) {
        if d.once_in(16) {
            self.any_handle(d);
        } else {
            self.push(ArgOp4::PutFh(PutFh4Args { object: held.fh }));
        }
    }

    fn name(&mut self, d: &mut Dice<'_>) -> Name4 {
        match d.below(32) {
            31 => name(""),
            30 => name(".."),
            29 => name(&"n".repeat(300)),
            n => name(NAMES[n % NAMES.len()]),
        }
    }

    fn settable(&self, d: &mut Dice<'_>) -> Fattr4 {
        let label = |data: &[u8]| {
            AttrValue4::SecLabel(SecLabel4 { lfs: 0, policy: 0, data: Opaque::copy_from(data).unwrap() })
        };
        match d.below(8) {
            4 if self.minor >= 2 => attrs(&[label(b"label")]),
            5 if self.minor >= 2 => attrs(&[AttrValue4::Mode(0o640), label(b"")]),
            0 | 1 => attrs(&[AttrValue4::Mode(d.pick(&[0o644, 0o600, 0, 0o777]))]),
            2 | 3 => attrs(&[AttrValue4::Size(small_offset(d))]),
            4 => attrs(&[]),
            5 => attrs(&[AttrValue4::Size(small_offset(d)), AttrValue4::Mode(0o640)]),
            6 => attrs(&[AttrValue4::Size(offset(d))]),
            _ => Fattr4 { mask: Bitmap::of(&[Attr4::Size as u32]), values: Default::default() },
        }
    }

    fn owner(&self, d: &mut Dice<'_>, which: usize) -> StateOwner4 {
        let clientid = if d.once_in(32) { self.client ^ 1 } else { self.client };
        StateOwner4 { clientid, owner: identity(OWNERS[which]) }
    }

    /// One more thing to do, of one or some operations.
    pub(crate) fn add(&mut self, d: &mut Dice<'_>) {
        if self.minor > 0 && d.once_in(6) {
            return self.delegation(d);
        }
        if self.minor > 1 && d.once_in(8) {
            let begins = self.copies.is_empty() || d.once_in(3);
            return if begins { self.copy_in_parts(d) } else { self.about_a_copy(d) };
        }
        match d.below(34) {
            0..=5 => self.open(d),
            6 | 7 => self.close(d),
            8 => self.downgrade(d),
            9..=11 => self.lock_new(d),
            12 => self.lock_more(d),
            13 => self.unlock(d),
            14 => self.lock_test(d),
            15 => self.read(d),
            16 | 17 => self.write(d),
            18 | 19 => self.set_attr(d),
            20 => self.remove(d),
            21 | 22 => self.move_or_link(d),
            23 => self.create(d),
            24 | 25 => self.look(d),
            26 => self.about_stateids(d),
            27 => {
                self.any_handle(d);
                self.push(ArgOp4::Commit(Commit4Args { offset: small_offset(d), count: 0 }));
            }
            28 | 29 => self.of_42(d),
            30 => self.xattr(d),
            31 => self.odd(d),
            _ => self.of_the_minor_version(d),
        }
    }

    fn open(&mut self, d: &mut Dice<'_>) {
        let owner = d.below(OWNERS.len());
        let by_handle = self.minor > 0 && d.once_in(8);
        if by_handle {
            self.any_handle(d);
        } else {
            self.directory(d);
        }
        let share_access = match d.below(24) {
            23 => 0,
            22 => 4,
            21 => 0x0100 | 1,
            n => [3, 1, 2][n % 3],
        };
        let wants = [0, 0, 0x100, 0x200, 0x300, 0x400, 0x500, 0x10_0000 | 0x300, 0x20_0000 | 0x300];
        let wants = if self.minor > 1 { d.pick(&wants) } else { d.pick(&wants[..7]) };
        let share_access = if self.minor > 0 { share_access | wants } else { share_access };
        let share_deny = match d.below(16) {
            15 => 7,
            14 => 3,
            13 => 2,
            12 => 1,
            _ => 0,
        };
        let openhow = match d.below(12) {
            0..=4 => OpenFlag4::Create(CreateHow4::Unchecked(attrs(&[]))),
            5 => OpenFlag4::Create(CreateHow4::Unchecked(self.settable(d))),
            6 => OpenFlag4::Create(CreateHow4::Guarded(self.settable(d))),
            7 => OpenFlag4::Create(CreateHow4::Exclusive([d.below(2) as u8; 8])),
            8 if self.minor > 0 => {
                let both = CreateVerfAttr4 { verf: [d.below(2) as u8; 8], attrs: self.settable(d) };
                OpenFlag4::Create(CreateHow4::Exclusive41(both))
            }
            _ => OpenFlag4::NoCreate,
        };
        let claim = match d.below(32) {
            n if by_handle => match self.stateids.delegation(d).filter(|_| n < 12) {
                Some(held) => OpenClaim4::DelegCurFh(held.stateid),
                None => OpenClaim4::Fh,
            },
            31 => OpenClaim4::DelegatePrev(self.name(d)),
            30 => OpenClaim4::Previous(atoll_proto::nfs4::DelegationType4::None),
            _ => OpenClaim4::Null(self.name(d)),
        };
        let openhow = if by_handle && !d.once_in(8) { OpenFlag4::NoCreate } else { openhow };
        let (seqid, steps) = self.step(d, Kind::Open(owner));
        let owner_args = self.owner(d, owner);
        let args = Open4Args { seqid, share_access, share_deny, owner: owner_args, openhow, claim };
        self.push_noted(ArgOp4::Open(Box::new(args)), Note::Open(owner), steps);
        self.push(ArgOp4::GetFh);
        if d.once_in(2) {
            self.push(ArgOp4::GetAttr(GetAttr4Args { attr_request: common() }));
        }
    }

    /// An open of this client; without one, something else is done.
    fn held(&mut self, d: &mut Dice<'_>, locks: bool) -> Option<Held> {
        let held = self.stateids.pick(d, locks);
        if held.is_none() {
            self.open(d);
        }
        held
    }

    fn close(&mut self, d: &mut Dice<'_>) {
        let Some(held) = self.held(d, false) else { return };
        self.handle_of(d, &held);
        let (seqid, steps) = self.step(d, held.kind);
        let args = Close4Args { seqid, open_stateid: held.stateid };
        self.push_noted(ArgOp4::Close(args), Note::Nothing, steps);
    }

    fn downgrade(&mut self, d: &mut Dice<'_>) {
        let Some(held) = self.held(d, false) else { return };
        self.handle_of(d, &held);
        let (seqid, steps) = self.step(d, held.kind);
        let args = OpenDowngrade4Args {
            open_stateid: held.stateid,
            seqid,
            share_access: d.pick(&[1, 2, 3, 0]),
            share_deny: d.pick(&[0, 0, 0, 1, 2, 9]),
        };
        self.push_noted(ArgOp4::OpenDowngrade(args), Note::Again(held), steps);
    }

    fn lock_type(&self, d: &mut Dice<'_>) -> LockType4 {
        d.pick(&[LockType4::Write, LockType4::Read, LockType4::WriteBlocking, LockType4::ReadBlocking])
    }

    fn lock_new(&mut self, d: &mut Dice<'_>) {
        let Some(held) = self.held(d, false) else { return };
        let owner = d.below(OWNERS.len());
        self.handle_of(d, &held);
        let (open_seqid, mut steps) = self.step(d, held.kind);
        let (lock_seqid, more) = self.step(d, Kind::Lock(owner));
        steps.extend(more);
        let lock_owner = self.owner(d, owner);
        let new = OpenToLockOwner4 { open_seqid, open_stateid: held.stateid, lock_seqid, lock_owner };
        let args = Lock4Args {
            locktype: self.lock_type(d),
            reclaim: d.once_in(32),
            offset: offset(d),
            length: length(d),
            locker: Locker4::New(new),
        };
        self.push_noted(ArgOp4::Lock(args), Note::Lock(owner, held.fh), steps);
    }

    fn lock_more(&mut self, d: &mut Dice<'_>) {
        let Some(held) = self.held(d, true) else { return };
        self.handle_of(d, &held);
        let (lock_seqid, steps) = self.step(d, held.kind);
        let locker = Locker4::Exist(ExistLockOwner4 { lock_stateid: held.stateid, lock_seqid });
        let (offset, length) = (offset(d), length(d));
        let args = Lock4Args { locktype: self.lock_type(d), reclaim: false, offset, length, locker };
        self.push_noted(ArgOp4::Lock(args), Note::Again(held), steps);
    }

    fn unlock(&mut self, d: &mut Dice<'_>) {
        let Some(held) = self.held(d, true) else { return };
        self.handle_of(d, &held);
        let (seqid, steps) = self.step(d, held.kind);
        let args = LockU4Args {
            locktype: LockType4::Write,
            seqid,
            lock_stateid: held.stateid,
            offset: offset(d),
            length: length(d),
        };
        self.push_noted(ArgOp4::LockU(args), Note::Again(held), steps);
    }

    fn lock_test(&mut self, d: &mut Dice<'_>) {
        self.any_handle(d);
        let which = d.below(OWNERS.len());
        let owner = self.owner(d, which);
        let args = LockT4Args { locktype: self.lock_type(d), offset: offset(d), length: length(d), owner };
        self.push(ArgOp4::LockT(args));
    }

    /// A handle with a stateid for data: an open's, or a special one.
    fn for_data(&mut self, d: &mut Dice<'_>) -> StateId4 {
        match self.stateids.for_data(d) {
            Some(held) if !d.once_in(4) => {
                self.handle_of(d, &held);
                held.stateid
            }
            _ => {
                self.any_handle(d);
                d.pick(&[StateId4::ANONYMOUS, StateId4::ANONYMOUS, StateId4::READ_BYPASS])
            }
        }
    }

    fn read(&mut self, d: &mut Dice<'_>) {
        let stateid = self.for_data(d);
        let count = d.pick(&[100, 0, 5000, u32::MAX]);
        self.push(ArgOp4::Read(Read4Args { stateid, offset: offset(d), count }));
    }

    fn write(&mut self, d: &mut Dice<'_>) {
        let stateid = self.for_data(d);
        let stable = d.pick(&[StableHow4::FileSync, StableHow4::Unstable, StableHow4::DataSync]);
        let len = d.pick(&[1, 0, 100, 5000]);
        let offset = if d.once_in(8) { offset(d) } else { small_offset(d) };
        let data = Payload::copy_from(&vec![b'x'; len]).unwrap();
        self.push(ArgOp4::Write(Write4Args { stateid, offset, stable, data }));
        if d.once_in(3) {
            self.push(ArgOp4::GetAttr(GetAttr4Args { attr_request: common() }));
        }
    }

    fn set_attr(&mut self, d: &mut Dice<'_>) {
        let stateid = self.for_data(d);
        let obj_attributes = self.settable(d);
        self.push(ArgOp4::SetAttr(SetAttr4Args { stateid, obj_attributes }));
    }

    fn remove(&mut self, d: &mut Dice<'_>) {
        self.directory(d);
        let target = self.name(d);
        self.push(ArgOp4::Remove(Remove4Args { target }));
    }

    fn move_or_link(&mut self, d: &mut Dice<'_>) {
        let link = d.once_in(3);
        if link {
            self.any_handle(d);
        } else {
            self.directory(d);
        }
        self.push(ArgOp4::SaveFh);
        self.directory(d);
        let (oldname, newname) = (self.name(d), self.name(d));
        self.push(if link {
            ArgOp4::Link(Link4Args { newname })
        } else {
            ArgOp4::Rename(Rename4Args { oldname, newname })
        });
    }

    fn create(&mut self, d: &mut Dice<'_>) {
        self.directory(d);
        let objtype = match d.below(6) {
            5 => CreateType4::Other(1),
            4 => CreateType4::Fifo,
            3 => CreateType4::SymLink(LinkText4::copy_from(b"a").unwrap()),
            _ => CreateType4::Directory,
        };
        let objname = if d.once_in(3) { self.name(d) } else { name("dir") };
        let createattrs = if d.once_in(4) { self.settable(d) } else { attrs(&[]) };
        self.push(ArgOp4::Create(Create4Args { objtype, objname, createattrs }));
        self.push(ArgOp4::GetFh);
    }

    fn look(&mut self, d: &mut Dice<'_>) {
        match d.below(12) {
            0 | 1 => self.any_handle(d),
            2 => self.push(ArgOp4::SaveFh),
            3 => self.push(ArgOp4::RestoreFh),
            4 => {
                self.any_handle(d);
                self.push(ArgOp4::LookupP);
                return;
            }
            _ => self.directory(d),
        }
        match d.below(10) {
            0 => self.push(ArgOp4::GetAttr(GetAttr4Args { attr_request: common() })),
            1 => self.push(ArgOp4::Access(Access4Args { access: 0x1ff })),
            2 => {
                let args = ReadDir4Args {
                    cookie: d.pick(&[0, 0, 3, 1, u64::MAX]),
                    cookieverf: [0; 8],
                    dircount: d.pick(&[0, 100]),
                    maxcount: d.pick(&[4096, 10, 100]),
                    attr_request: common(),
                };
                self.push(ArgOp4::ReadDir(args));
            }
            3 => self.push(ArgOp4::ReadLink),
            4 => {
                let obj_attributes = attrs(&[AttrValue4::Size(small_offset(d))]);
                let args = Verify4Args { obj_attributes };
                self.push(if d.once_in(2) { ArgOp4::Verify(args) } else { ArgOp4::NVerify(args) });
            }
            5 => {
                let name = self.name(d);
                self.push(ArgOp4::SecInfo(SecInfo4Args { name }));
            }
            6 => self.push(ArgOp4::GetAttr(GetAttr4Args { attr_request: all_of(self.minor) })),
            _ => {
                let objname = self.name(d);
                self.push(ArgOp4::Lookup(Lookup4Args { objname }));
                self.push(ArgOp4::GetFh);
            }
        }
    }

    fn about_stateids(&mut self, d: &mut Dice<'_>) {
        let locks = d.once_in(2);
        let Some(held) = self.held(d, locks) else { return };
        if d.once_in(2) {
            let stateids = Array::new(vec![held.stateid, StateId4::ANONYMOUS]).unwrap();
            self.push(ArgOp4::TestStateId(TestStateId4Args { stateids }));
        } else {
            self.push(ArgOp4::FreeStateId(FreeStateId4Args { stateid: held.stateid }));
        }
    }

    /// A copy of more than the server does in one command (by its setting here).
    fn copy_in_parts(&mut self, d: &mut Dice<'_>) {
        let first = d.below(3);
        let names = [first, (first + 1) % 3];
        for (n, which) in names.into_iter().enumerate() {
            self.push(ArgOp4::PutRootFh);
            let owner = d.below(OWNERS.len());
            let open = Open4Args {
                seqid: 0,
                share_access: 3,
                share_deny: 0,
                owner: self.owner(d, owner),
                openhow: OpenFlag4::Create(CreateHow4::Unchecked(attrs(&[]))),
                claim: OpenClaim4::Null(name(NAMES[which])),
            };
            self.push_noted(ArgOp4::Open(Box::new(open)), Note::Open(owner), Vec::new());
            self.push(ArgOp4::GetFh);
            if n == 0 {
                for offset in [0, 70_000, 140_000] {
                    let (stateid, stable) = (StateId4::CURRENT, StableHow4::FileSync);
                    let data = Payload::copy_from(b"part").unwrap();
                    self.push(ArgOp4::Write(Write4Args { stateid, offset, stable, data }));
                }
                self.push(ArgOp4::SaveFh);
            }
        }
        let copy = Copy4Args {
            src_stateid: StateId4::CURRENT,
            dst_stateid: StateId4::CURRENT,
            src_offset: 0,
            dst_offset: d.pick(&[0, 50_000]),
            count: 0,
            consecutive: true,
            synchronous: d.once_in(8),
            source_server: Array::new(Vec::new()).unwrap(),
        };
        self.push(ArgOp4::Copy(copy));
        self.push(ArgOp4::GetFh);
    }

    fn about_a_copy(&mut self, d: &mut Dice<'_>) {
        let Some((fh, stateid)) = d.latest(self.copies).copied() else { return };
        if d.once_in(8) {
            self.any_handle(d);
        } else {
            self.push(ArgOp4::PutFh(PutFh4Args { object: fh }));
        }
        let stateid = if d.once_in(8) { StateId4 { seqid: d.pick(&[0, 2]), ..stateid } } else { stateid };
        self.push(match d.below(8) {
            0..=2 => ArgOp4::OffloadCancel(Offload4Args { stateid }),
            3 => ArgOp4::FreeStateId(FreeStateId4Args { stateid }),
            4 => ArgOp4::Read(Read4Args { stateid, offset: 0, count: 10 }),
            _ => ArgOp4::OffloadStatus(Offload4Args { stateid }),
        });
    }

    fn of_42(&mut self, d: &mut Dice<'_>) {
        let what = d.below(8);
        if what >= 6 {
            let src_stateid = self.for_data(d);
            self.push(ArgOp4::SaveFh);
            let dst_stateid = self.for_data(d);
            let (src_offset, dst_offset) = (small_offset(d), small_offset(d));
            let count = d.pick(&[0, 100, 4096, 1 << 40]);
            self.push(if what == 6 {
                ArgOp4::Clone(Clone4Args { src_stateid, dst_stateid, src_offset, dst_offset, count })
            } else {
                ArgOp4::Copy(Copy4Args {
                    src_stateid,
                    dst_stateid,
                    src_offset,
                    dst_offset,
                    count,
                    consecutive: true,
                    synchronous: d.once_in(3),
                    source_server: Array::new(Vec::new()).unwrap(),
                })
            });
            self.push(ArgOp4::GetFh);
            return;
        }
        let stateid = self.for_data(d);
        let offset = if d.once_in(4) { offset(d) } else { small_offset(d) };
        let length = length(d);
        self.push(match what {
            0 => ArgOp4::Allocate(Allocate4Args { stateid, offset, length }),
            1 => ArgOp4::Deallocate(Allocate4Args { stateid, offset, length }),
            2 => ArgOp4::Seek(Seek4Args { stateid, offset, what: d.pick(&[Content4::Data, Content4::Hole]) }),
            3 => ArgOp4::ReadPlus(Read4Args { stateid, offset, count: 5000 }),
            _ => ArgOp4::IoAdvise(IoAdvise4Args { stateid, offset, count: length, hints: Bitmap::of(&[1]) }),
        });
    }

    fn xattr(&mut self, d: &mut Dice<'_>) {
        self.any_handle(d);
        let key = d.pick(&[name("user"), name("x"), name("")]);
        self.push(match d.below(4) {
            0 => ArgOp4::SetXattr(SetXattr4Args {
                option: d.pick(&[SetXattrOption4::Either, SetXattrOption4::Create, SetXattrOption4::Replace]),
                key,
                value: XattrValue4::copy_from(b"v").unwrap(),
            }),
            1 => ArgOp4::GetXattr(Xattr4Args { name: key }),
            2 => ArgOp4::ListXattrs(ListXattrs4Args {
                cookie: d.pick(&[0, 1, 99]),
                maxcount: d.pick(&[1000, 3]),
            }),
            _ => ArgOp4::RemoveXattr(Xattr4Args { name: key }),
        });
    }

    fn odd(&mut self, d: &mut Dice<'_>) {
        self.any_handle(d);
        self.push(match d.below(5) {
            0 => {
                ArgOp4::DelegReturn(DelegReturn4Args { deleg_stateid: StateId4 { seqid: 1, other: [7; 12] } })
            }
            1 => ArgOp4::OpenAttr(OpenAttr4Args { create_dir: true }),
            2 => ArgOp4::PutPubFh,
            3 if self.minor > 0 => ArgOp4::SecInfoNoName(SecInfoStyle4::CurrentFh),
            _ => ArgOp4::ReadLink,
        });
    }

    fn delegation(&mut self, d: &mut Dice<'_>) {
        match d.below(4) {
            0 => {
                self.directory(d);
                let never = NfsTime4 { seconds: 0, nseconds: 0 };
                let kinds: Vec<u32> = (0..6).filter(|_| !d.once_in(4)).collect();
                self.push(ArgOp4::GetDirDelegation(GetDirDelegation4Args {
                    signal_deleg_avail: d.once_in(2),
                    notification_types: Bitmap::of(&kinds),
                    child_attr_delay: never,
                    dir_attr_delay: never,
                    child_attributes: Bitmap::EMPTY,
                    dir_attributes: Bitmap::EMPTY,
                }));
                self.push(ArgOp4::GetFh);
            }
            1 => {
                self.any_handle(d);
                let want = d.pick(&[0x100, 0x200, 0x300, 0x400, 0x500, 0]);
                self.push(ArgOp4::WantDelegation(WantDelegation4Args { want, claim: DelegClaim4::Fh }));
                self.push(ArgOp4::GetFh);
            }
            _ => {
                let Some(held) = self.stateids.delegation(d) else { return self.open(d) };
                self.handle_of(d, &held);
                self.push(ArgOp4::DelegReturn(DelegReturn4Args { deleg_stateid: held.stateid }));
            }
        }
    }

    fn of_the_minor_version(&mut self, d: &mut Dice<'_>) {
        if self.minor > 0 {
            self.push(ArgOp4::ReclaimComplete(ReclaimComplete4Args { one_fs: d.once_in(4) }));
            return;
        }
        match d.below(4) {
            3 => self.push(ArgOp4::Renew(ClientId4Args { clientid: self.client })),
            2 => {
                let which = d.below(OWNERS.len());
                let lock_owner = self.owner(d, which);
                self.push(ArgOp4::ReleaseLockOwner(ReleaseLockOwner4Args { lock_owner }));
            }
            _ => {
                let Some(held) = self.held(d, false) else { return };
                self.handle_of(d, &held);
                let (seqid, steps) = self.step(d, held.kind);
                let args = OpenConfirm4Args { open_stateid: held.stateid, seqid };
                self.push_noted(ArgOp4::OpenConfirm(args), Note::Again(held), steps);
            }
        }
    }
}

/// Attributes that clients ask for.
fn common() -> Bitmap {
    Bitmap::of(&[
        Attr4::Type as u32,
        Attr4::Change as u32,
        Attr4::Size as u32,
        Attr4::FileId as u32,
        Attr4::Mode as u32,
        Attr4::NumLinks as u32,
        Attr4::SpaceUsed as u32,
        Attr4::TimeModify as u32,
        Attr4::SecLabel as u32,
    ])
}

/// What the server says that it has.
fn all_of(minor: u32) -> Bitmap {
    let mut all = Bitmap::EMPTY;
    for number in 0..88 {
        let known = Attr4::from_u32(number).filter(|a| a.since() <= minor);
        if known.is_some_and(|a| a.direction() != atoll_proto::nfs4::Direction::Write) {
            all.insert(number).unwrap();
        }
    }
    all
}
