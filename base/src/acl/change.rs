//! How a list comes to an object, and how it and the mode keep in step (RFC 8881 §6.4; acl(5)).

use super::map::{as_nfs4, as_posix, trivial};
use super::nfs4::{ace_flag, acl_flag};
use super::{Ace, Acl, AclError, Nfs4Acl, PosixAcl, PosixList};
use serde::{Deserialize, Serialize};

/// A list to set.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum SetAcl {
    /// As the attribute `acl` sets it: whoever does so does not know of automatic inheritance, from which the object is
    /// protected therefore (RFC 8881 §6.4.3.2).
    Aces(Vec<Ace>),
    /// As the attribute `dacl` sets it.
    Nfs4(Nfs4Acl),
    /// POSIX lists; `None` leaves one as it is, `Some(None)` takes it away. Without an access list of its own an object keeps
    /// its mode.
    Posix {
        /// Its own.
        access: Option<Option<PosixList>>,
        /// That of what is made in it.
        default: Option<Option<PosixList>>,
    },
}

/// A mode to set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SetMode {
    /// The bits.
    pub mode: u32,
    /// Which of them are set.
    pub mask: u32,
}

/// Mode (12 bits) and list of an object after a change of either or both: first the mode, then the list, which decides about the nine
/// low bits (RFC 8881 §6.4.1).
pub fn changed(
    acl: Option<&Acl>,
    mode: u32,
    is_dir: bool,
    set_mode: Option<SetMode>,
    set_acl: Option<&SetAcl>,
) -> Result<(u32, Option<Acl>), AclError> {
    let mut mode = mode;
    let mut acl = acl.cloned();
    if let Some(set) = set_mode {
        mode = mode & !set.mask | set.mode & set.mask;
        // §6.2.5: other bits alone leave the list as it is.
        if set.mask & 0o777 != 0 {
            acl = with_mode(acl, mode, is_dir);
        }
    }
    if let Some(set) = set_acl {
        acl = with_list(acl, mode, is_dir, set)?;
        if let Some(own) = acl.as_ref().and_then(Acl::mode) {
            mode = mode & !0o777 | own;
        } else if let Some(own) = plain_mode(set) {
            mode = mode & !0o777 | own;
        }
    }
    Ok((mode, acl))
}

/// The mode that a list is that need not be stored.
fn plain_mode(set: &SetAcl) -> Option<u32> {
    match set {
        SetAcl::Aces(aces) => Some(Nfs4Acl { flags: 0, aces: aces.clone() }.mode()),
        SetAcl::Nfs4(acl) => Some(acl.mode()),
        SetAcl::Posix { access, .. } => access.iter().flatten().next().map(PosixList::mode),
    }
}

fn with_mode(acl: Option<Acl>, mode: u32, is_dir: bool) -> Option<Acl> {
    match acl {
        None => None,
        Some(Acl::Posix(mut acl)) => {
            if let Some(list) = &mut acl.access {
                list.set_mode(mode);
            }
            Some(Acl::Posix(acl))
        }
        Some(Acl::Nfs4(mut acl)) => {
            acl.set_mode(mode, is_dir);
            stored_nfs4(acl, is_dir)
        }
    }
}

/// A list as it is stored: not at all if the mode says the same.
fn stored_nfs4(acl: Nfs4Acl, is_dir: bool) -> Option<Acl> {
    let plain = acl.flags == 0 && acl == trivial(acl.mode(), is_dir);
    (!plain).then_some(Acl::Nfs4(acl))
}

fn stored_posix(acl: PosixAcl) -> Option<Acl> {
    (acl.access.is_some() || acl.default.is_some()).then_some(Acl::Posix(acl))
}

fn with_list(acl: Option<Acl>, mode: u32, is_dir: bool, set: &SetAcl) -> Result<Option<Acl>, AclError> {
    match set {
        SetAcl::Aces(aces) => {
            let mut list = Nfs4Acl { flags: 0, aces: aces.clone() };
            for ace in &mut list.aces {
                ace.flags &= !ace_flag::INHERITED;
            }
            list.check(is_dir)?;
            // What the object shows, set again, does not make a POSIX list one of NFSv4.
            if matches!(acl, None | Some(Acl::Posix(_))) && list == as_nfs4(acl.as_ref(), mode, is_dir) {
                return Ok(acl);
            }
            Ok(stored_nfs4(list, is_dir).map(|acl| match acl {
                Acl::Nfs4(list) => Acl::Nfs4(Nfs4Acl { flags: acl_flag::PROTECTED, ..list }),
                other => other,
            }))
        }
        SetAcl::Nfs4(list) => {
            list.check(is_dir)?;
            if matches!(acl, None | Some(Acl::Posix(_))) && *list == as_nfs4(acl.as_ref(), mode, is_dir) {
                return Ok(acl);
            }
            Ok(stored_nfs4(list.clone(), is_dir))
        }
        SetAcl::Posix { access, default } => {
            if !is_dir && matches!(default, Some(Some(_))) {
                return Err(AclError::Invalid);
            }
            let mut lists = match acl {
                Some(Acl::Posix(acl)) => acl,
                // What is not set stays as it is shown.
                other => {
                    let (own, default) = as_posix(other.as_ref(), mode);
                    let access = (!own.is_minimal()).then_some(own);
                    PosixAcl { access, default: default.filter(|_| is_dir) }
                }
            };
            if let Some(access) = access {
                lists.access = access.clone().filter(|list| !list.is_minimal());
            }
            if let Some(default) = default {
                lists.default.clone_from(default);
            }
            Ok(stored_posix(lists))
        }
    }
}

/// How an object is to be made.
#[derive(Clone, Copy, Debug)]
pub struct Creation<'a> {
    /// Whether it is a directory.
    pub is_dir: bool,
    /// The mode asked for, 12 bits.
    pub mode: Option<u32>,
    /// The mode if none is asked for and none inherited.
    pub default_mode: u32,
    /// What the caller wants taken from the mode, unless a list is inherited (RFC 8275 §5).
    pub umask: u32,
    /// The list asked for.
    pub acl: Option<&'a SetAcl>,
    /// Whether an exclusive creation is to be followed by a SETATTR with what belongs to the object.
    pub exclusive: bool,
}

/// Mode (12 bits) and list of a new object in a directory with this list (RFC 8881 §6.4.3; acl(5), "object creation and default
/// ACLs"). Not for symbolic links, which have neither.
pub fn created(parent: Option<&Acl>, new: Creation<'_>) -> Result<(u32, Option<Acl>), AclError> {
    let plain = new.mode.unwrap_or(new.default_mode) & !new.umask;
    if new.acl.is_some() {
        return changed(None, plain, new.is_dir, None, new.acl);
    }
    let unknown = new.exclusive && new.mode.is_none();
    match parent {
        Some(Acl::Posix(PosixAcl { default: Some(default), .. })) => {
            let asked = if unknown { new.default_mode } else { new.mode.unwrap_or(0o777) };
            let list = default.limited(asked);
            let mode = asked & 0o7000 | list.mode();
            let access = Some(list).filter(|list| !list.is_minimal());
            let default = new.is_dir.then(|| default.clone());
            Ok((mode, stored_posix(PosixAcl { access, default })))
        }
        // §6.4.3 (4): nothing is inherited, for the mode is still to come.
        Some(Acl::Nfs4(parent)) if !unknown => {
            let mut acl = parent.inherited(new.is_dir);
            if acl.aces.is_empty() {
                if acl.flags == 0 {
                    return Ok((plain, None));
                }
                acl.aces = trivial(plain, new.is_dir).aces;
                if new.mode.is_none() {
                    acl.flags |= acl_flag::DEFAULTED;
                }
                return Ok((plain, Some(Acl::Nfs4(acl))));
            }
            let mode = match new.mode {
                Some(mode) => {
                    let flags = acl.flags;
                    acl.set_mode(mode, new.is_dir);
                    acl.flags = flags;
                    mode
                }
                None => acl.mode(),
            };
            Ok((mode, stored_nfs4(acl, new.is_dir)))
        }
        _ => Ok((plain, None)),
    }
}
