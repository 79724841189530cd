//! NFSACL version 3: POSIX access control lists.
//!
//! What SETACL sets GETACL shows again. Of an inode without a list the mode bits are shown as one, of one with a list of NFSv4
//! the nearest ([`atoll_base::acl::map`]). SETACL changes the lists that it brings; a list that is mode bits is a chmod.

use super::v3::{Result3, answer, attempt, fail_with, interrupted, patiently};
use super::{Engine, Interrupt, attrs, once, status};
use crate::engine::once::Begun;
use crate::engine::shield::shield;
use crate::rpc::{Answer, RpcCall};
use atoll_base::access::may_read_posix_acl;
use atoll_base::acl::posix::PosixTag;
use atoll_base::acl::{AclError, PosixList, SetAcl, map};
use atoll_base::attr::{Attr, FileKind, SetAttr};
use atoll_base::block::BlockService;
use atoll_meta::{MetadataService, OnceKey, Op, Response};
use atoll_proto::nfs3::{Failure, NfsStat3, PostOpAttr};
use atoll_proto::nfsacl::{
    AclEntry, GetAcl3Args, GetAcl3Ok, Proc, SecAttr, SetAcl3Args, SetAcl3Ok, SetAcl3Res, VERSION, mask, tag,
};
use atoll_xdr::{Array, Encoder};
use std::sync::Arc;

type Entries = Array<AclEntry, { atoll_proto::nfsacl::MAX_ENTRIES }>;

/// A list on the wire. One of three entries is sent as four, with a mask that takes nothing away, as Solaris and Linux send and
/// expect it.
fn wire(list: &PosixList, attr: &Attr, flag: u32) -> Entries {
    let mut entries = Vec::new();
    for (tag, perm) in list.entries() {
        let (tag, id) = match tag {
            PosixTag::Owner => (tag::USER_OBJ, attr.uid),
            PosixTag::User(uid) => (tag::USER, uid),
            PosixTag::Group => (tag::GROUP_OBJ, attr.gid),
            PosixTag::Members(gid) => (tag::GROUP, gid),
            PosixTag::Mask => (tag::MASK, 0),
            PosixTag::Other => (tag::OTHER, 0),
        };
        if tag == tag::OTHER && list.is_minimal() {
            entries.push(AclEntry { tag: tag::MASK | flag, id: 0, perm: list.mode() >> 3 & 7 });
        }
        entries.push(AclEntry { tag: tag | flag, id, perm });
    }
    Array::new(entries).expect("a stored list has fewer entries than the wire's bound")
}

/// A list that a client sent; `None` if it is empty.
fn parse(entries: &[AclEntry], flag: u32) -> Result<Option<PosixList>, NfsStat3> {
    if entries.is_empty() {
        return Ok(None);
    }
    let mut list = Vec::with_capacity(entries.len());
    for entry in entries {
        let tag = match entry.tag & !flag {
            tag::USER_OBJ => PosixTag::Owner,
            tag::USER => PosixTag::User(entry.id),
            tag::GROUP_OBJ => PosixTag::Group,
            tag::GROUP => PosixTag::Members(entry.id),
            tag::MASK => PosixTag::Mask,
            tag::OTHER => PosixTag::Other,
            _ => return Err(NfsStat3::Inval),
        };
        list.push((tag, entry.perm));
    }
    // The mask of a list that had none: see `wire`.
    let perm = |wanted| list.iter().find(|(tag, _)| *tag == wanted).map(|(_, perm)| *perm);
    if list.len() == 4 && perm(PosixTag::Mask) == perm(PosixTag::Group) {
        list.retain(|(tag, _)| *tag != PosixTag::Mask);
    }
    match PosixList::new(list) {
        Ok(list) => Ok(Some(list)),
        Err(AclError::Invalid) => Err(NfsStat3::Inval),
        // As file systems say whose lists have a bound.
        Err(AclError::TooLong) => Err(NfsStat3::NoSpc),
    }
}

/// What a client wants set.
fn wanted(sent: &SecAttr, kind: FileKind) -> Result<SetAcl, NfsStat3> {
    if sent.mask & !mask::ALL != 0 {
        return Err(NfsStat3::Inval);
    }
    if kind == FileKind::Symlink {
        return Err(NfsStat3::NotSupp);
    }
    let of = |bit, entries: &Entries, flag| (sent.mask & bit != 0).then(|| parse(entries, flag)).transpose();
    let access = of(mask::ACL, &sent.acl, 0)?;
    let default = of(mask::DEFAULT_ACL, &sent.default_acl, tag::DEFAULT)?;
    if kind != FileKind::Directory && matches!(default, Some(Some(_))) {
        return Err(NfsStat3::Acces);
    }
    Ok(SetAcl::Posix { access, default })
}

fn setacl_reply(ino: atoll_base::id::Ino, response: &Response) -> SetAcl3Res {
    let obj_attributes = response.change_of(ino).map(|c| attrs::fattr(&c.after));
    match response.result {
        Ok(_) => Ok(SetAcl3Ok { obj_attributes }),
        Err(e) => Err(Failure { status: status::of(e), detail: obj_attributes }),
    }
}

impl<M: MetadataService, B: BlockService> Engine<M, B> {
    /// Answers a call of NFSACL.
    pub async fn nfsacl(&self, mut call: RpcCall, reply: Encoder) -> Answer {
        if call.version != VERSION {
            return Answer::ProgramMismatch(VERSION, VERSION);
        }
        match Proc::from_u32(call.procedure) {
            Some(Proc::Null) => Answer::Success(reply),
            Some(Proc::GetAcl) => match call.args.decode() {
                Ok(args) => answer(reply, self.getacl(&call, &args).await).0,
                Err(_) => Answer::GarbageArgs,
            },
            Some(Proc::SetAcl) => {
                let key = once::key(&call);
                let Ok(args) = call.args.decode::<SetAcl3Args>() else { return Answer::GarbageArgs };
                let Some(this) = self.this.upgrade() else { return interrupted(Interrupt::Drop) };
                let call = call.without_args();
                let attempts = async move { patiently!(this, this.setacl(&call, key, args.clone())) };
                answer(reply, shield(attempts).await).0
            }
            None => Answer::ProcedureUnavailable,
        }
    }

    async fn getacl(&self, call: &RpcCall, args: &GetAcl3Args) -> Result3<GetAcl3Ok, PostOpAttr> {
        let node = attempt!(self.admit(&args.object, call).await);
        let attr = attempt!(self.node_attr(&node).await);
        if args.mask & !mask::ALL != 0 {
            return fail_with(NfsStat3::Inval, Some(&attr));
        }
        if attr.acl.is_some() {
            let cred = self.cred(&node.export, &call.credential).await;
            if !may_read_posix_acl(&cred, &attr) {
                return fail_with(NfsStat3::Acces, Some(&attr));
            }
        }
        let mut acl = SecAttr { mask: args.mask, ..SecAttr::default() };
        if attr.kind != FileKind::Symlink {
            let (access, default) = map::as_posix(attr.acl.as_deref(), attr.mode);
            let access = wire(&access, &attr, 0);
            let default = default.map(|list| wire(&list, &attr, tag::DEFAULT)).unwrap_or_default();
            if args.mask & (mask::ACL | mask::ACL_COUNT) != 0 {
                acl.acl_count = access.len() as u32;
            }
            if args.mask & (mask::DEFAULT_ACL | mask::DEFAULT_ACL_COUNT) != 0 {
                acl.default_acl_count = default.len() as u32;
            }
            if args.mask & mask::ACL != 0 {
                acl.acl = access;
            }
            if args.mask & mask::DEFAULT_ACL != 0 {
                acl.default_acl = default;
            }
        }
        Ok(Ok(GetAcl3Ok { obj_attributes: Some(attrs::fattr(&attr)), acl }))
    }

    async fn setacl(
        self: &Arc<Self>,
        call: &RpcCall,
        key: OnceKey,
        args: SetAcl3Args,
    ) -> Result3<SetAcl3Ok, PostOpAttr> {
        let _running = match self.begin(key).await? {
            Begun::Fresh(running) => running,
            Begun::Known(response) => {
                let handle =
                    attempt!(self.handle_key.open(args.object.as_slice()).map_err(|_| NfsStat3::BadHandle));
                return Ok(setacl_reply(handle.ino, &response));
            }
        };
        let node = attempt!(self.admit(&args.object, call).await);
        let attr = attempt!(self.node_attr(&node).await);
        let checked = Self::check_writable(&node.export).and_then(|()| wanted(&args.acl, attr.kind));
        let acl = match checked {
            Ok(SetAcl::Posix { access: None, default: None }) => {
                return Ok(Ok(SetAcl3Ok { obj_attributes: Some(attrs::fattr(&attr)) }));
            }
            Ok(acl) => acl,
            Err(status) => return fail_with(status, Some(&attr)),
        };
        let cred = self.cred(&node.export, &call.credential).await;
        let (ino, generation) = (node.handle.ino, node.handle.generation);
        let _settled = self.settle(ino).await;
        let set = SetAttr { acl: Some(Box::new(acl)), ..SetAttr::default() };
        let op = Op::SetAttr { ino, generation, set, guard: None };
        let response = attempt!(self.execute_request(key, cred, op).await);
        Ok(setacl_reply(ino, &response))
    }
}

#[cfg(test)]
mod unit_tests {
    use super::*;

    const U: u32 = tag::USER_OBJ;
    const G: u32 = tag::GROUP_OBJ;
    const M: u32 = tag::MASK;
    const O: u32 = tag::OTHER;

    fn list(entries: &[(u32, u32, u32)]) -> Result<Option<PosixList>, NfsStat3> {
        let entries: Vec<AclEntry> =
            entries.iter().map(|(tag, id, perm)| AclEntry { tag: *tag, id: *id, perm: *perm }).collect();
        parse(&entries, 0)
    }

    fn mode(entries: &[(u32, u32, u32)]) -> Option<(u32, bool)> {
        list(entries).ok().flatten().map(|list| (list.mode(), list.is_minimal()))
    }

    #[test]
    fn lists_of_clients() {
        assert_eq!(list(&[]), Ok(None));
        assert_eq!(mode(&[(U, 0, 6), (G, 0, 5), (O, 0, 4)]), Some((0o654, true)));
        // A mask that takes nothing away from the group, where nobody is named, is none.
        assert_eq!(mode(&[(U, 0, 6), (G, 0, 5), (M, 0, 5), (O, 0, 4)]), Some((0o654, true)));
        assert_eq!(mode(&[(U, 0, 6), (G, 0, 5), (M, 0, 4), (O, 0, 4)]), Some((0o644, false)));
        let named = [(O, 0, 4), (U, 0, 6), (tag::USER, 9, 7), (G, 0, 5), (M, 0, 5)];
        assert_eq!(mode(&named), Some((0o654, false)));
        for broken in [
            &[(U, 0, 6), (G, 0, 5)][..],
            &[(U, 0, 6), (G, 0, 5), (O, 0, 4), (O, 0, 4)],
            &[(U, 0, 6), (G, 0, 5), (O, 0, 8)],
            // A name without a mask, a name twice, no such entry.
            &[(U, 0, 6), (G, 0, 5), (O, 0, 4), (tag::USER, 9, 7)],
            &[(U, 0, 6), (G, 0, 5), (M, 0, 7), (O, 0, 4), (tag::USER, 9, 7), (tag::USER, 9, 6)],
            &[(U, 0, 6), (G, 0, 5), (O, 0, 4), (0x40, 9, 7)],
        ] {
            assert_eq!(list(broken), Err(NfsStat3::Inval), "{broken:?}");
        }
    }
}
