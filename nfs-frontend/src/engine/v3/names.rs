//! Rules for names (RFC 1813 §3.2).

use atoll_base::limits::NAME_MAX;
use atoll_proto::nfs3::NfsStat3;

/// A name that can be stored or looked up: 1 to 255 bytes, none of them `/` or NUL. `.` and `..` pass.
pub(crate) fn check(name: &[u8]) -> Result<(), NfsStat3> {
    if name.len() > NAME_MAX {
        return Err(NfsStat3::NameTooLong);
    }
    // §3.2.1 and §3.2.5: both an empty name and one with bytes that cannot be stored are ACCES.
    if name.is_empty() || name.iter().any(|b| matches!(b, b'/' | 0)) {
        return Err(NfsStat3::Acces);
    }
    Ok(())
}

/// Whether it is an alias of the directory or of its parent.
pub(crate) fn is_dot(name: &[u8]) -> bool {
    matches!(name, b"." | b"..")
}

/// A name for something new: the aliases exist.
pub(crate) fn check_new(name: &[u8]) -> Result<(), NfsStat3> {
    check(name)?;
    if is_dot(name) { Err(NfsStat3::Exist) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names() {
        assert_eq!(check(b""), Err(NfsStat3::Acces));
        assert_eq!(check(b"a/b"), Err(NfsStat3::Acces));
        assert_eq!(check(b"a\0"), Err(NfsStat3::Acces));
        assert_eq!(check(&[b'x'; 255]), Ok(()));
        assert_eq!(check(&[b'x'; 256]), Err(NfsStat3::NameTooLong));
        assert_eq!(check(&[b'/'; 256]), Err(NfsStat3::NameTooLong));
        assert_eq!(check(&[0xff, 0xfe, b'\n']), Ok(()));
        assert_eq!(check(b".."), Ok(()));
        assert_eq!(check_new(b".."), Err(NfsStat3::Exist));
        assert_eq!(check_new(b"..."), Ok(()));
    }
}
