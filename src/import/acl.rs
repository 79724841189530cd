//! POSIX access control lists of the source, as Linux shows them in extended attributes (`linux/posix_acl_xattr.h`): a version, 2, in four
//! bytes, then entries of tag 2, permissions 2, id 4; all little-endian.

use anyhow::{Context, Result, ensure};
use atoll_base::acl::posix::PosixTag;
use atoll_base::acl::{PosixList, SetAcl};
use atoll_base::limits::XATTR_VALUE_MAX;
use std::path::Path;

/// The attributes' names.
pub(super) const NAMES: [&[u8]; 2] = [b"system.posix_acl_access", b"system.posix_acl_default"];

/// The lists of an entry that is no symbolic link. What it does not have is to be taken away: a directory above may have passed something on.
pub(super) fn of(path: &Path) -> Result<SetAcl> {
    let [access, default] = NAMES.map(|name| read(path, name));
    Ok(SetAcl::Posix { access: Some(access?), default: Some(default?) })
}

fn read(path: &Path, name: &[u8]) -> Result<Option<PosixList>> {
    let mut value = vec![0; XATTR_VALUE_MAX];
    match rustix::fs::lgetxattr(path, name, value.as_mut_slice()) {
        Ok(len) => value.truncate(len),
        Err(rustix::io::Errno::NODATA | rustix::io::Errno::NOTSUP) => return Ok(None),
        Err(e) => return Err(e.into()),
    }
    parse(&value).with_context(|| format!("{} makes no sense", name.escape_ascii()))
}

fn parse(value: &[u8]) -> Result<Option<PosixList>> {
    let (version, entries) = value.split_first_chunk::<4>().context("it is cut short")?;
    ensure!(u32::from_le_bytes(*version) == 2, "its version is unknown");
    let (entries, rest) = entries.as_chunks::<8>();
    ensure!(rest.is_empty(), "it is cut short");
    if entries.is_empty() {
        return Ok(None);
    }
    let entry = |&[t0, t1, p0, p1, i0, i1, i2, i3]: &[u8; 8]| {
        let id = u32::from_le_bytes([i0, i1, i2, i3]);
        let tag = match u16::from_le_bytes([t0, t1]) {
            0x01 => PosixTag::Owner,
            0x02 => PosixTag::User(id),
            0x04 => PosixTag::Group,
            0x08 => PosixTag::Members(id),
            0x10 => PosixTag::Mask,
            0x20 => PosixTag::Other,
            other => anyhow::bail!("it has a tag {other:#x}"),
        };
        Ok((tag, u32::from(u16::from_le_bytes([p0, p1]))))
    };
    let entries: Vec<_> = entries.iter().map(entry).collect::<Result<_>>()?;
    Ok(Some(PosixList::new(entries)?))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn value(entries: &[(u16, u16, u32)]) -> Vec<u8> {
        let mut value = 2u32.to_le_bytes().to_vec();
        for (tag, perm, id) in entries {
            value.extend_from_slice(&tag.to_le_bytes());
            value.extend_from_slice(&perm.to_le_bytes());
            value.extend_from_slice(&id.to_le_bytes());
        }
        value
    }

    #[test]
    fn lists_as_linux_stores_them() {
        let none = u32::MAX;
        let entries =
            [(1, 7, none), (2, 6, 1001), (4, 5, none), (8, 4, 100), (0x10, 7, none), (0x20, 0, none)];
        let list = parse(&value(&entries)).unwrap().unwrap();
        let found: Vec<_> = list.entries().collect();
        assert_eq!(
            found,
            [
                (PosixTag::Owner, 7),
                (PosixTag::User(1001), 6),
                (PosixTag::Group, 5),
                (PosixTag::Members(100), 4),
                (PosixTag::Mask, 7),
                (PosixTag::Other, 0)
            ]
        );
        assert_eq!(parse(&value(&[])).unwrap(), None);
        assert!(parse(&[]).is_err() && parse(&[1, 0, 0, 0]).is_err() && parse(&[2, 0, 0, 0, 1]).is_err());
        assert!(parse(&value(&entries[..3])).is_err() && parse(&value(&[(3, 7, none)])).is_err());
    }
}
