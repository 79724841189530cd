//! Opens and what is had of them: OPEN, CLOSE, OPEN_DOWNGRADE, delegations, and what is asked about stateids.

use super::{Asking, Note, attrs, common};
use crate::dice::Dice;
use crate::known::{Held, Kind, OWNERS};
use atoll_proto::nfs4::{
    ArgOp4, Bitmap, Close4Args, CreateHow4, CreateVerfAttr4, DelegClaim4, DelegReturn4Args, FreeStateId4Args,
    GetAttr4Args, GetDirDelegation4Args, NfsTime4, Open4Args, OpenClaim4, OpenDowngrade4Args, OpenFlag4,
    StateId4, TestStateId4Args, WantDelegation4Args,
};
use atoll_xdr::Array;

impl Asking<'_> {
    pub(super) fn open(&mut self, d: &mut Dice<'_>) {
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
    pub(super) fn held(&mut self, d: &mut Dice<'_>, locks: bool) -> Option<Held> {
        let held = self.stateids.pick(d, locks);
        if held.is_none() {
            self.open(d);
        }
        held
    }

    pub(super) fn close(&mut self, d: &mut Dice<'_>) {
        let Some(held) = self.held(d, false) else { return };
        self.handle_of(d, &held);
        let (seqid, steps) = self.step(d, held.kind);
        let args = Close4Args { seqid, open_stateid: held.stateid };
        self.push_noted(ArgOp4::Close(args), Note::Nothing, steps);
    }

    pub(super) fn downgrade(&mut self, d: &mut Dice<'_>) {
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

    pub(super) fn about_stateids(&mut self, d: &mut Dice<'_>) {
        let locks = d.once_in(2);
        let Some(held) = self.held(d, locks) else { return };
        if d.once_in(2) {
            let stateids = Array::new(vec![held.stateid, StateId4::ANONYMOUS]).unwrap();
            self.push(ArgOp4::TestStateId(TestStateId4Args { stateids }));
        } else {
            self.push(ArgOp4::FreeStateId(FreeStateId4Args { stateid: held.stateid }));
        }
    }

    pub(super) fn delegation(&mut self, d: &mut Dice<'_>) {
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
}
