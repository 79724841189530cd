//! NFSACL version 3 without lists of its own: every list is the minimal one that the mode bits are.
//!
//! GETACL shows the mode bits as a list, so that `getfacl` and `ls` work. SETACL of a list that is mode bits is a chmod;
//! anything more is refused with NOTSUPP, which clients show as "operation not supported".

use super::v3::{Result3, answer, attempt, fail_with, interrupted, patiently};
use super::{Engine, Interrupt, attrs, once, status};
use crate::engine::once::Begun;
use crate::engine::shield::shield;
use crate::rpc::{Answer, RpcCall};
use atoll_base::attr::{Attr, FileKind, SetAttr};
use atoll_base::block::BlockService;
use atoll_meta::{Call, MetadataService, OnceKey, Op, Response};
use atoll_proto::nfs3::{Failure, NfsStat3, PostOpAttr};
use atoll_proto::nfsacl::{
    AclEntry, GetAcl3Args, GetAcl3Ok, Proc, SecAttr, SetAcl3Args, SetAcl3Ok, SetAcl3Res, VERSION, mask, tag,
};
use atoll_xdr::{Array, Encoder};
use std::sync::Arc;

/// The list that the mode bits are: owner, group, mask, others. Four entries, as Solaris and Linux send it.
fn minimal(attr: &Attr) -> Array<AclEntry, { atoll_proto::nfsacl::MAX_ENTRIES }> {
    let bits = |shift: u32| attr.mode >> shift & 7;
    let entry = |tag, id, perm| AclEntry { tag, id, perm };
    let entries = vec![
        entry(tag::USER_OBJ, attr.uid, bits(6)),
        entry(tag::GROUP_OBJ, attr.gid, bits(3)),
        entry(tag::MASK, 0, bits(3)),
        entry(tag::OTHER, 0, bits(0)),
    ];
    Array::new(entries).unwrap_or_default()
}

/// The permission bits of a list, if it says no more than mode bits can.
fn as_mode(entries: &[AclEntry]) -> Option<u32> {
    let mut found = [None; 4];
    for entry in entries {
        let place = match entry.tag {
            tag::USER_OBJ => 0,
            tag::GROUP_OBJ => 1,
            tag::OTHER => 2,
            tag::MASK => 3,
            _ => return None,
        };
        if entry.perm > 7 || found[place].replace(entry.perm).is_some() {
            return None;
        }
    }
    let [Some(user), Some(group), Some(other), list_mask] = found else { return None };
    // A mask that takes nothing away says nothing; one that does is what the group is left with.
    let group = list_mask.map_or(group, |m| group & m);
    Some(user << 6 | group << 3 | other)
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
        let mut acl = SecAttr { mask: args.mask, ..SecAttr::default() };
        if args.mask & (mask::ACL | mask::ACL_COUNT) != 0 && attr.kind != FileKind::Symlink {
            let list = minimal(&attr);
            acl.acl_count = list.len() as u32;
            if args.mask & mask::ACL != 0 {
                acl.acl = list;
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
        let checked = Self::check_writable(&node.export).and_then(|()| {
            if args.acl.mask & !mask::ALL != 0 {
                return Err(NfsStat3::Inval);
            }
            // Removing a default list that there is not succeeds.
            if args.acl.mask & mask::DEFAULT_ACL != 0 && !args.acl.default_acl.is_empty() {
                return Err(NfsStat3::NotSupp);
            }
            if args.acl.mask & mask::ACL == 0 {
                return Ok(None);
            }
            as_mode(&args.acl.acl).map(Some).ok_or(NfsStat3::NotSupp)
        });
        let mode = match checked {
            Ok(Some(mode)) => mode,
            Ok(None) => return Ok(Ok(SetAcl3Ok { obj_attributes: Some(attrs::fattr(&attr)) })),
            Err(status) => return fail_with(status, Some(&attr)),
        };
        let cred = self.cred(&node.export, &call.credential).await;
        let (ino, generation) = (node.handle.ino, node.handle.generation);
        let _settled = self.settle(ino).await;
        // A list has no set-id and sticky bits: they stay.
        let set = SetAttr { mode: Some(attr.mode & 0o7000 | mode), ..SetAttr::default() };
        let op = Op::SetAttr { ino, generation, set, guard: None };
        let call = Call { origin: Some(self.origin().await), once: Some(key.into()), cred, client: None, op };
        let response = attempt!(self.execute_known(call).await);
        Ok(setacl_reply(ino, &response))
    }
}

#[cfg(test)]
mod unit_tests {
    use super::*;

    fn entry(tag: u32, perm: u32) -> AclEntry {
        AclEntry { tag, id: 0, perm }
    }

    #[test]
    fn lists_that_are_mode_bits() {
        let (u, g, o) = (entry(tag::USER_OBJ, 6), entry(tag::GROUP_OBJ, 5), entry(tag::OTHER, 4));
        assert_eq!(as_mode(&[u, g, o]), Some(0o654));
        assert_eq!(as_mode(&[u, g, entry(tag::MASK, 7), o]), Some(0o654));
        assert_eq!(as_mode(&[u, g, entry(tag::MASK, 4), o]), Some(0o644));
        assert_eq!(as_mode(&[u, g]), None);
        assert_eq!(as_mode(&[u, g, o, o]), None);
        assert_eq!(as_mode(&[u, g, o, entry(tag::USER, 7)]), None);
        assert_eq!(as_mode(&[u, g, entry(tag::OTHER, 8)]), None);
    }
}
