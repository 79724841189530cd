//! Extended attributes: GETXATTR, SETXATTR, LISTXATTRS, REMOVEXATTR (RFC 8276 §8.4).
//!
//! Names are opaque here and in the store: the client takes `user.` off and puts it back (RFC 8276 §5). As with Linux's own, regular
//! files and directories have them; who may read the file may read and list them, who may write it may change them.

use crate::engine::resolve::{Node, same_object};
use crate::engine::v4::compound::{Compound, Done, change_info};
use crate::engine::v4::status;
use atoll_base::access::{Cred, Perm, permits};
use atoll_base::attr::{Attr, FileKind};
use atoll_base::block::BlockService;
use atoll_base::limits::{XATTR_NAME_MAX, XATTR_VALUE_MAX};
use atoll_meta::{FsError, MetadataService, Op, XattrHow};
use atoll_proto::nfs4::access as bits;
use atoll_proto::nfs4::{
    ChangeInfo4, ListXattrs4Args, ListXattrs4Ok, Name4, NfsStat4, SetXattr4Args, SetXattrOption4, XattrValue4,
};
use atoll_xdr::Array;
use bytes::Bytes;
use xxhash_rust::xxh3::xxh3_64;

/// What LISTXATTRS4resok takes beside the names: cookie, number of names, `lxr_eof`.
const LIST_OVERHEAD: usize = 8 + 4 + 4;

/// A name that can be asked for: 1 to 255 bytes.
fn check(name: &Name4) -> Result<(), NfsStat4> {
    match name.as_bytes().len() {
        0 => Err(NfsStat4::Inval),
        len if len > XATTR_NAME_MAX => Err(NfsStat4::NameTooLong),
        _ if name.as_bytes().contains(&0) => Err(NfsStat4::BadChar),
        _ => Ok(()),
    }
}

/// The bits of ACCESS that are about extended attributes (RFC 8276 §8.5), of those asked for.
pub(crate) fn access_granted(cred: &Cred, attr: &Attr, read_only: bool, asked: u32) -> u32 {
    if !has_xattrs(attr) {
        return 0;
    }
    let read = if permits(cred, attr, Perm::READ) { bits::XAREAD | bits::XALIST } else { 0 };
    let write = if permits(cred, attr, Perm::WRITE) && !read_only { bits::XAWRITE } else { 0 };
    (read | write) & asked
}

fn has_xattrs(attr: &Attr) -> bool {
    matches!(attr.kind, FileKind::Regular | FileKind::Directory)
}

/// Where a name stands in the list. An order that does not move when others come and go, so that a cookie stays good;
/// 0 is the beginning.
fn place(name: &[u8]) -> u64 {
    xxh3_64(name).max(1)
}

/// The part of a list behind `cookie` that fits in `maxcount` bytes; `None` if there are names, but not one fits.
fn page(names: Vec<Bytes>, cookie: u64, maxcount: usize) -> Option<(u64, Vec<Bytes>, bool)> {
    let mut rest: Vec<(u64, Bytes)> =
        names.into_iter().map(|name| (place(&name), name)).filter(|(at, _)| *at > cookie).collect();
    rest.sort_unstable();
    let mut left = maxcount.checked_sub(LIST_OVERHEAD)?;
    let fitting = rest.iter().take_while(|(_, name)| {
        let fits = left.checked_sub(4 + name.len().next_multiple_of(4));
        left = fits.unwrap_or(0);
        fits.is_some()
    });
    let mut count = fitting.count();
    // Names in the same place are not parted: the next page begins behind it.
    while count > 0 && count < rest.len() && rest[count].0 == rest[count - 1].0 {
        count -= 1;
    }
    if count == 0 && !rest.is_empty() {
        return None;
    }
    let end = count == rest.len();
    rest.truncate(count);
    let next = rest.last().map_or(cookie, |(at, _)| *at);
    Some((next, rest.into_iter().map(|(_, name)| name).collect(), end))
}

impl<M: MetadataService, B: BlockService> Compound<M, B> {
    /// The object, which must have extended attributes, and to be read by the caller.
    async fn readable_xattrs(&self) -> Done<Node> {
        let node = self.node(NfsStat4::NotSupp)?;
        let attr = self.node_attr(&node).await?;
        same_object(&node.handle, &attr)?;
        if !has_xattrs(&attr) {
            return Err(NfsStat4::WrongType.into());
        }
        let cred = self.cred(&node.export).await;
        if permits(&cred, &attr, Perm::READ) { Ok(node) } else { Err(NfsStat4::Access.into()) }
    }

    pub(crate) async fn get_xattr(&self, name: &Name4) -> Done<XattrValue4> {
        check(name)?;
        let node = self.readable_xattrs().await?;
        let value = self.engine.meta().get_xattr(node.handle.ino, name.as_bytes()).await?;
        Ok(XattrValue4::new(value).map_err(|_| NfsStat4::Io)?)
    }

    pub(crate) async fn list_xattrs(&self, args: &ListXattrs4Args) -> Done<ListXattrs4Ok> {
        let node = self.readable_xattrs().await?;
        let names = self.engine.meta().list_xattrs(node.handle.ino).await?;
        let (cookie, names, eof) =
            page(names, args.cookie, args.maxcount as usize).ok_or(NfsStat4::TooSmall)?;
        let names = names.into_iter().map(Name4::new).collect::<Result<Vec<_>, _>>();
        let names = names.ok().and_then(|names| Array::new(names).ok()).ok_or(NfsStat4::Io)?;
        Ok(ListXattrs4Ok { cookie, names, eof })
    }

    pub(crate) async fn set_xattr(&mut self, args: SetXattr4Args) -> Done<ChangeInfo4> {
        let how = match args.option {
            SetXattrOption4::Either => XattrHow::Either,
            SetXattrOption4::Create => XattrHow::Create,
            SetXattrOption4::Replace => XattrHow::Replace,
        };
        let value = args.value.into_bytes();
        if value.len() > XATTR_VALUE_MAX {
            return Err(NfsStat4::Xattr2Big.into());
        }
        self.change_xattr(args.key, Some(value), how).await
    }

    pub(crate) async fn remove_xattr(&mut self, name: Name4) -> Done<ChangeInfo4> {
        self.change_xattr(name, None, XattrHow::Either).await
    }

    async fn change_xattr(&mut self, name: Name4, value: Option<Bytes>, how: XattrHow) -> Done<ChangeInfo4> {
        let node = self.node(NfsStat4::RoFs)?;
        let (ino, generation) = (node.handle.ino, node.handle.generation);
        let response = match self.known().await? {
            Some(response) => response,
            None => {
                check(&name)?;
                Self::check_writable(&node)?;
                if !has_xattrs(&self.node_attr(&node).await?) {
                    return Err(NfsStat4::WrongType.into());
                }
                let cred = self.cred(&node.export).await;
                let engine = self.engine.clone();
                let _settled = engine.settle(ino).await;
                let name = name.into_bytes();
                self.change(cred, Op::SetXattr { ino, generation, name, value, how }).await?
            }
        };
        match response.result {
            Ok(_) => Ok(change_info(&response, ino)),
            Err(FsError::TooLarge) => Err(NfsStat4::Xattr2Big.into()),
            Err(e) => Err(status::of(e).into()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(count: u8) -> Vec<Bytes> {
        (0..count).map(|n| Bytes::from(vec![b'a' + n; 1 + n as usize % 7])).collect()
    }

    #[test]
    fn pages_join_to_the_whole_list() {
        for maxcount in 28..200 {
            let (mut cookie, mut all) = (0, Vec::new());
            loop {
                let (next, page, end) = page(names(20), cookie, maxcount).expect("every name fits alone");
                let size: usize = page.iter().map(|n| 4 + n.len().next_multiple_of(4)).sum();
                assert!(LIST_OVERHEAD + size <= maxcount);
                all.extend(page);
                cookie = next;
                if end {
                    break;
                }
            }
            all.sort_unstable();
            assert_eq!(all, {
                let mut sorted = names(20);
                sorted.sort_unstable();
                sorted
            });
        }
    }

    #[test]
    fn a_page_too_small_for_a_name_is_told_from_an_empty_list() {
        assert_eq!(page(names(1), 0, 23), None);
        assert_eq!(page(Vec::new(), 0, LIST_OVERHEAD), Some((0, Vec::new(), true)));
        assert_eq!(page(Vec::new(), 0, LIST_OVERHEAD - 1), None);
    }

    #[test]
    fn a_cookie_stays_good_when_names_go() {
        let (cookie, first, end) = page(names(20), 0, 60).expect("some fit");
        assert!(!end);
        let left: Vec<Bytes> = names(20).into_iter().filter(|name| !first.contains(name)).collect();
        let (_, rest, end) = page(left.clone(), cookie, 4096).expect("all fit");
        assert!(end);
        assert_eq!(rest.len(), left.len());
    }
}
