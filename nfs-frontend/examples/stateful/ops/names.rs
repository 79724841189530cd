//! The tree of names and what hangs on its nodes: names made, moved and removed, looking around, extended attributes.

use super::{Asking, all_of, attrs, common, name, small_offset};
use crate::dice::Dice;
use atoll_proto::nfs4::{
    Access4Args, ArgOp4, AttrValue4, Create4Args, CreateType4, GetAttr4Args, Link4Args, LinkText4,
    ListXattrs4Args, Lookup4Args, ReadDir4Args, Remove4Args, Rename4Args, SecInfo4Args, SetXattr4Args,
    SetXattrOption4, Verify4Args, Xattr4Args, XattrValue4,
};

impl Asking<'_> {
    pub(super) fn remove(&mut self, d: &mut Dice<'_>) {
        self.directory(d);
        let target = self.name(d);
        self.push(ArgOp4::Remove(Remove4Args { target }));
    }

    pub(super) fn move_or_link(&mut self, d: &mut Dice<'_>) {
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

    pub(super) fn create(&mut self, d: &mut Dice<'_>) {
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

    pub(super) fn look(&mut self, d: &mut Dice<'_>) {
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

    pub(super) fn xattr(&mut self, d: &mut Dice<'_>) {
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
}
