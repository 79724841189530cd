//! Random operations of a COMPOUND, valid-looking most of the time: here who asks, what all operations share, and the choice among them; below, by subject, how each is made.

mod data;
mod locks;
mod names;
mod opens;

use crate::dice::Dice;
use crate::known::{Held, Kind, NAMES, OWNERS, Stateids};
use atoll_proto::nfs4::{
    ArgOp4, Attr4, AttrValue4, Bitmap, ClientId4Args, Commit4Args, DelegReturn4Args, Fattr4, FileHandle,
    Identity, Lookup4Args, Name4, OpenAttr4Args, OpenConfirm4Args, PutFh4Args, ReclaimComplete4Args,
    ReleaseLockOwner4Args, SecInfoStyle4, SecLabel4, StateId4, StateOwner4,
};
use atoll_xdr::Opaque;

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
