//! Access control lists between file system and wire (RFC 8881 §6.2, RFC 7530 §6.2).
//!
//! Entries that allow and deny are supported, those that log and raise alarms are not (`aclsupport`), so there is no `sacl`. The flag that
//! an entry was inherited is `dacl`'s alone (§6.2.1.4.1).

use crate::engine::idmap::{Kind, Meant, Shown};
use atoll_base::access::{Cred, may_read_acl, may_read_attributes};
use atoll_base::acl::nfs4::{ace_flag as flag, acl_flag};
use atoll_base::acl::{Ace, AceKind, Nfs4Acl, SetAcl, Who, map, right};
use atoll_base::attr::{Attr, FileKind, SetAttr};
use atoll_proto::nfs4::{
    Ace4, Acl4, Acl41, Attr4, Bitmap, NfsStat4, Principal4, SetAttrs4, ace_flag, ace_type, acl_support, who,
};
use atoll_xdr::Array;

/// What `aclsupport` says.
pub(crate) const SUPPORT: u32 = acl_support::ALLOW | acl_support::DENY;

/// The attributes that are lists.
pub(crate) const LISTS: Bitmap = Bitmap::of(&[Attr4::Acl as u32, Attr4::Dacl as u32]);

/// What is told of an object whose attributes the caller may not read: what it is and where.
const OF_THE_NAME: Bitmap = Bitmap::of(&[
    Attr4::Type as u32,
    Attr4::FsId as u32,
    Attr4::RdAttrError as u32,
    Attr4::FileHandle as u32,
    Attr4::FileId as u32,
    Attr4::MountedOnFileId as u32,
]);

/// The attributes asked for that the object's list keeps from the caller.
pub(crate) fn unreadable(cred: &Cred, attr: &Attr, asked: &Bitmap) -> Bitmap {
    if !may_read_attributes(cred, attr) {
        asked.without(&OF_THE_NAME)
    } else if !may_read_acl(cred, attr) {
        asked.and(&LISTS)
    } else {
        Bitmap::EMPTY
    }
}

fn principal_of(who: Who, names: &Shown) -> (Principal4, u32) {
    let special = |name| Principal4::copy_from(name).expect("a special identifier is below the bound");
    match who {
        Who::Owner => (special(who::OWNER), 0),
        Who::Group => (special(who::GROUP), 0),
        Who::Everyone => (special(who::EVERYONE), 0),
        Who::User(uid) => (names.name(Kind::User, uid), 0),
        Who::Members(gid) => (names.name(Kind::Group, gid), ace_flag::IDENTIFIER_GROUP),
    }
}

fn shown(ace: &Ace, hidden: u8, names: &Shown) -> Ace4 {
    let ace_type = match ace.kind {
        AceKind::Allow => ace_type::ALLOWED,
        AceKind::Deny => ace_type::DENIED,
    };
    let (who, group) = principal_of(ace.who, names);
    Ace4 { ace_type, flag: u32::from(ace.flags & !hidden) | group, access_mask: ace.mask, who }
}

fn list(attr: &Attr) -> Nfs4Acl {
    map::as_nfs4(attr.acl.as_deref(), attr.mode, attr.kind == FileKind::Directory)
}

fn entries(list: &Nfs4Acl, hidden: u8, names: &Shown) -> Acl4 {
    let aces = list.aces.iter().map(|ace| shown(ace, hidden, names)).collect();
    Array::new(aces).expect("a stored list has fewer entries than the wire's bound")
}

/// Users and groups that the lists name.
pub(crate) fn principals(attr: &Attr) -> Vec<(Kind, u32)> {
    let who = |ace: &Ace| match ace.who {
        Who::User(uid) => Some((Kind::User, uid)),
        Who::Members(gid) => Some((Kind::Group, gid)),
        Who::Owner | Who::Group | Who::Everyone => None,
    };
    list(attr).aces.iter().filter_map(who).collect()
}

/// The attribute `acl`.
pub(crate) fn acl(attr: &Attr, names: &Shown) -> Acl4 {
    entries(&list(attr), flag::INHERITED, names)
}

/// The attribute `dacl`.
pub(crate) fn dacl(attr: &Attr, names: &Shown) -> Acl41 {
    let list = list(attr);
    Acl41 { flag: list.flags.into(), aces: entries(&list, 0, names) }
}

fn is_group(ace: &Ace4) -> bool {
    ace.flag & ace_flag::IDENTIFIER_GROUP != 0
}

/// Users and groups that a client names in the lists it wants set.
pub(crate) fn named(set: &SetAttrs4) -> impl Iterator<Item = (Kind, &Principal4)> {
    let acl = set.acl.iter().flat_map(|acl| acl.iter());
    let dacl = set.dacl.iter().flat_map(|dacl| dacl.aces.iter());
    acl.chain(dacl).map(|ace| (if is_group(ace) { Kind::Group } else { Kind::User }, &ace.who))
}

fn parse_ace(ace: &Ace4, meant: &Meant) -> Result<Ace, NfsStat4> {
    let kind = match ace.ace_type {
        ace_type::ALLOWED => AceKind::Allow,
        ace_type::DENIED => AceKind::Deny,
        ace_type::AUDIT | ace_type::ALARM => return Err(NfsStat4::AttrNotSupp),
        _ => return Err(NfsStat4::Inval),
    };
    let flags = u8::try_from(ace.flag & !ace_flag::IDENTIFIER_GROUP).map_err(|_| NfsStat4::Inval)?;
    // Those of success and failure are of entries that log (§6.2.1.4.1).
    if flags & !flag::ALL != 0 || ace.access_mask & !right::ALL != 0 {
        return Err(NfsStat4::Inval);
    }
    let name: &[u8] = ace.who.as_bytes();
    let who = match name {
        // The flag means nothing here (§6.2.1.5).
        who::OWNER => Who::Owner,
        who::GROUP => Who::Group,
        who::EVERYONE => Who::Everyone,
        _ if is_group(ace) => Who::Members(meant.id(Kind::Group, &ace.who)?),
        _ => Who::User(meant.id(Kind::User, &ace.who)?),
    };
    Ok(Ace { kind, flags, mask: ace.access_mask, who })
}

fn parse(aces: &[Ace4], meant: &Meant) -> Result<Vec<Ace>, NfsStat4> {
    aces.iter().map(|ace| parse_ace(ace, meant)).collect()
}

/// The list that a client wants set. Not two of them at once (§6.4.1).
pub(crate) fn wanted(set: &SetAttrs4, meant: &Meant) -> Result<Option<Box<SetAcl>>, NfsStat4> {
    Ok(match (&set.acl, &set.dacl) {
        (Some(_), Some(_)) => return Err(NfsStat4::AttrNotSupp),
        (Some(acl), None) => Some(Box::new(SetAcl::Aces(parse(acl, meant)?))),
        (None, Some(dacl)) => {
            let flags = u8::try_from(dacl.flag).ok().filter(|flags| flags & !acl_flag::ALL == 0);
            let flags = flags.ok_or(NfsStat4::Inval)?;
            Some(Box::new(SetAcl::Nfs4(Nfs4Acl { flags, aces: parse(&dacl.aces, meant)? })))
        }
        (None, None) => None,
    })
}

/// Whether an object of this type can have the list: symbolic links have none, inheritance is for directories
/// (§6.2.1.4.1).
pub(crate) fn check_kind(set: &SetAttr, kind: FileKind) -> Result<(), NfsStat4> {
    let (flags, aces) = match set.acl.as_deref() {
        None => return Ok(()),
        Some(SetAcl::Aces(aces)) => (0, aces.clone()),
        Some(SetAcl::Nfs4(acl)) => (acl.flags, acl.aces.clone()),
        Some(SetAcl::Posix { .. }) => return Ok(()),
    };
    let list = Nfs4Acl { flags, aces };
    match list.check(kind == FileKind::Directory) {
        _ if kind == FileKind::Symlink => Err(NfsStat4::AttrNotSupp),
        Ok(()) => Ok(()),
        Err(atoll_base::acl::AclError::TooLong) => Err(NfsStat4::NoSpc),
        Err(atoll_base::acl::AclError::Invalid) => Err(NfsStat4::AttrNotSupp),
    }
}
