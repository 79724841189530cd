//! What is in files: READ, WRITE, SETATTR, and of v4.2 ranges and copies, also such as go on in the background.

use super::{Asking, Note, attrs, common, length, name, offset, small_offset};
use crate::dice::Dice;
use crate::known::{NAMES, OWNERS};
use atoll_proto::nfs4::{
    Allocate4Args, ArgOp4, Bitmap, Clone4Args, Content4, Copy4Args, CreateHow4, FreeStateId4Args,
    GetAttr4Args, IoAdvise4Args, Offload4Args, Open4Args, OpenClaim4, OpenFlag4, Payload, PutFh4Args,
    Read4Args, Seek4Args, SetAttr4Args, StableHow4, StateId4, Write4Args,
};
use atoll_xdr::Array;

impl Asking<'_> {
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

    pub(super) fn read(&mut self, d: &mut Dice<'_>) {
        let stateid = self.for_data(d);
        let count = d.pick(&[100, 0, 5000, u32::MAX]);
        self.push(ArgOp4::Read(Read4Args { stateid, offset: offset(d), count }));
    }

    pub(super) fn write(&mut self, d: &mut Dice<'_>) {
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

    pub(super) fn set_attr(&mut self, d: &mut Dice<'_>) {
        let stateid = self.for_data(d);
        let obj_attributes = self.settable(d);
        self.push(ArgOp4::SetAttr(SetAttr4Args { stateid, obj_attributes }));
    }

    pub(super) fn of_42(&mut self, d: &mut Dice<'_>) {
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

    /// A copy of more than the server does in one command (by its setting here).
    pub(super) fn copy_in_parts(&mut self, d: &mut Dice<'_>) {
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

    pub(super) fn about_a_copy(&mut self, d: &mut Dice<'_>) {
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
}
