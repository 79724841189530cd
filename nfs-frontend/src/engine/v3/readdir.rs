//! READDIR and READDIRPLUS (RFC 1813 §3.3.16, §3.3.17).
//!
//! Cookies 1 and 2 stand behind `.` and `..`, real entries follow in order of their own cookies, which are never reused
//! and stay good while others come and go. So the verifier need not change in a directory's life: it is
//! made of what tells this directory from any other. A non-zero verifier that is not the directory's own is refused.

use super::{Result3, attempt, fail_with};
use crate::engine::dirty::Seen;
use crate::engine::resolve::{Node, same_object};
use crate::engine::{Engine, Handle, Interrupt, attrs, status};
use crate::rpc::RpcCall;
use atoll_base::access::{Perm, permits};
use atoll_base::attr::{Attr, Delegated};
use atoll_base::block::BlockService;
use atoll_base::id::{Cookie, Ino};
use atoll_base::limits::IO_MAX;
use atoll_meta::service::DirPage;
use atoll_meta::{FsError, MetadataService};
use atoll_proto::nfs3::{
    CookieVerf3, DirPlusEntry, Failure, FileHandle, NfsStat3, PostOpAttr, ReadDir3Args, ReadDirPlus3Args,
    ReadDirPlusWriter, ReadDirWriter, TooSmall,
};
use atoll_xdr::Encoder;

/// Cookies of the entries that every directory has.
const DOT: u64 = 1;
const DOTDOT: u64 = 2;

/// Least bytes of an entry in READDIR: TRUE, fileid, a name of up to four bytes, cookie.
const ENTRY_MIN: usize = 28;

/// Least bytes of an entry in READDIRPLUS, with attributes and one of our handles.
const ENTRY_PLUS_MIN: usize = ENTRY_MIN + 4 + 84 + 4 + 4 + 40;

/// Entries asked of the metadata service at a time: bounds what one call holds in memory.
const PAGE_ENTRIES: usize = 2048;

/// The verifier of a directory. Never zero: that is what a client sends that has none.
pub(crate) fn cookie_verifier(dir: &Handle) -> CookieVerf3 {
    (dir.ino.0 ^ u64::from(dir.generation).rotate_left(32) ^ 1 << 63).to_be_bytes()
}

/// Where a listing goes on, and by what.
struct Position<'a> {
    dir: &'a FileHandle,
    cookie: u64,
    verf: CookieVerf3,
    /// Entries and bytes of names worth asking for.
    entries: usize,
    bytes: usize,
    with_attrs: bool,
}

/// A directory that may be listed, and the first of its entries wanted.
struct Listing {
    node: Node,
    page: DirPage,
    /// Inode of `..`, as the export shows it.
    parent: Ino,
    /// Whether the caller may search: without that, names and numbers are shown, but no attributes and handles.
    searchable: bool,
    /// The leases that had ended when the page was read.
    seen: Seen,
}

fn failure<T>(e: FsError, dir: Option<&Attr>) -> Result<Result<T, Failure<PostOpAttr>>, Interrupt> {
    Ok(Err(Failure { status: status::of(e), detail: dir.map(attrs::fattr) }))
}

impl<M: MetadataService, B: BlockService> Engine<M, B> {
    async fn begin_listing(&self, call: &RpcCall, at: &Position<'_>) -> Result3<Listing, PostOpAttr> {
        let node = attempt!(self.admit(at.dir, call).await);
        let wanted = cookie_verifier(&node.handle);
        if at.cookie != 0 && at.verf != [0; 8] && at.verf != wanted {
            return fail_with(NfsStat3::BadCookie, self.node_attr(&node).await.ok().as_ref());
        }
        let seen = self.dirty.look();
        let after = Cookie(at.cookie.max(DOTDOT));
        let read = self.meta.readdir(node.handle.ino, after, at.entries, at.bytes, at.with_attrs).await;
        let mut page = match read {
            Ok(page) => page,
            Err(FsError::NotDirectory) => {
                return failure(FsError::NotDirectory, self.node_attr(&node).await.ok().as_ref());
            }
            Err(e) => return failure(e, None),
        };
        attempt!(same_object(&node.handle, &page.dir));
        self.touches.overlay(&mut page.dir);
        let cred = self.cred(&node.export, &call.credential).await;
        if !permits(&cred, &page.dir, Perm::READ) {
            return failure(FsError::AccessDenied, Some(&page.dir));
        }
        self.accessed(&node.export, &mut page.dir);
        let searchable = permits(&cred, &page.dir, Perm::EXEC);
        let root = attempt!(self.export_root(&node.export).await);
        let parent = if page.dir.ino == root { root } else { page.parent };
        Ok(Ok(Listing { node, page, parent, searchable, seen }))
    }

    pub(super) async fn readdir(
        &self,
        call: &RpcCall,
        args: &ReadDir3Args,
        reply: &mut Encoder,
    ) -> Result<bool, Interrupt> {
        let count = args.count.min(IO_MAX);
        let at = Position {
            dir: &args.dir,
            cookie: args.cookie,
            verf: args.cookieverf,
            entries: (count as usize / ENTRY_MIN + 1).min(PAGE_ENTRIES),
            bytes: count as usize,
            with_attrs: false,
        };
        let listing = match self.begin_listing(call, &at).await? {
            Ok(listing) => listing,
            Err(failure) => {
                reply.put(&failure);
                return Ok(true);
            }
        };
        let Listing { node, mut page, parent, .. } = listing;
        let dir = node.handle.ino;
        let dir_attributes = Some(attrs::fattr(&page.dir));
        let mut writer = ReadDirWriter::begin(reply, &dir_attributes, cookie_verifier(&node.handle), count);
        let aliases = [(DOT, &b"."[..], dir), (DOTDOT, b"..", parent)];
        let mut room = aliases
            .iter()
            .filter(|(cookie, ..)| at.cookie < *cookie)
            .all(|(cookie, name, ino)| writer.push(ino.0, name, *cookie));
        let mut end = false;
        while room && !end {
            let mut last = None;
            for entry in &page.entries {
                room = room && writer.push(entry.ino.0, &entry.name, entry.cookie.0);
                last = Some(entry.cookie);
            }
            end = page.end;
            let Some(after) = last.filter(|_| room && !end) else { break };
            // An error behind what was read is met by the next call.
            let Ok(next) = self.meta.readdir(dir, after, PAGE_ENTRIES, count as usize, false).await else {
                break;
            };
            page = next;
        }
        Ok(match writer.finish(end && room) {
            Ok(_) => false,
            Err(TooSmall) => {
                reply.put(&Failure { status: NfsStat3::TooSmall, detail: dir_attributes });
                true
            }
        })
    }

    pub(super) async fn readdirplus(
        &self,
        call: &RpcCall,
        args: &ReadDirPlus3Args,
        reply: &mut Encoder,
    ) -> Result<bool, Interrupt> {
        let (dircount, maxcount) = (args.dircount, args.maxcount.min(IO_MAX));
        let at = Position {
            dir: &args.dir,
            cookie: args.cookie,
            verf: args.cookieverf,
            entries: (maxcount as usize / ENTRY_PLUS_MIN + 1)
                .min(dircount as usize / ENTRY_MIN + 1)
                .min(PAGE_ENTRIES),
            bytes: maxcount.min(dircount) as usize,
            with_attrs: true,
        };
        let listing = match self.begin_listing(call, &at).await? {
            Ok(listing) => listing,
            Err(failure) => {
                reply.put(&failure);
                return Ok(true);
            }
        };
        let Listing { node, mut page, parent, searchable, mut seen } = listing;
        let dir = node.handle.ino;
        let dir_attributes = Some(attrs::fattr(&page.dir));
        let parent_attr = if at.cookie < DOTDOT && searchable { self.attr(parent).await.ok() } else { None };
        let mut writer = ReadDirPlusWriter::begin(
            reply,
            &dir_attributes,
            cookie_verifier(&node.handle),
            dircount,
            maxcount,
        );
        let own_attr = searchable.then(|| page.dir.clone());
        let aliases = [(DOT, &b"."[..], dir, own_attr), (DOTDOT, b"..", parent, parent_attr)];
        let mut room =
            aliases.iter().filter(|(cookie, ..)| at.cookie < *cookie).all(|(cookie, name, ino, attr)| {
                self.push_plus(&mut writer, &node, *ino, name, *cookie, attr.as_ref())
            });
        let mut end = false;
        while room && !end {
            let mut last = None;
            for entry in &mut page.entries {
                if !writer.may_fit(entry.name.len()) {
                    // Offered all the same: the writer says then that the listing is not complete.
                    room = self.push_plus(&mut writer, &node, entry.ino, &entry.name, entry.cookie.0, None);
                    break;
                }
                if !searchable {
                    entry.attr = None;
                } else if let Some(attr) = &mut entry.attr {
                    if !self.dirty.overlay(seen, attr) {
                        entry.attr = self.attr(entry.ino).await.ok();
                    } else {
                        self.touches.overlay(attr);
                    }
                }
                let attr = entry.attr.as_ref();
                room = self.push_plus(&mut writer, &node, entry.ino, &entry.name, entry.cookie.0, attr);
                if !room {
                    break;
                }
                last = Some(entry.cookie);
            }
            end = page.end;
            let Some(after) = last.filter(|_| room && !end) else { break };
            seen = self.dirty.look();
            let Ok(next) = self.meta.readdir(dir, after, at.entries, at.bytes.max(1), true).await else {
                break;
            };
            page = next;
        }
        Ok(match writer.finish(end && room) {
            Ok(_) => false,
            Err(TooSmall) => {
                reply.put(&Failure { status: NfsStat3::TooSmall, detail: dir_attributes });
                true
            }
        })
    }

    fn push_plus(
        &self,
        writer: &mut ReadDirPlusWriter<'_>,
        node: &Node,
        ino: Ino,
        name: &[u8],
        cookie: u64,
        attr: Option<&Attr>,
    ) -> bool {
        // What another client holds, it may have changed. Attributes that are left out are asked for, and then the holder is (RFC 8881 §10.4.3).
        let here = |attr: &&Attr| attr.delegated != Delegated::Write;
        let attributes = attr.filter(here).map(attrs::fattr);
        let handle = attr.map(|attr| self.handle_of(&node.handle, attr));
        writer.push(&DirPlusEntry {
            fileid: ino.0,
            name,
            cookie,
            attributes: attributes.as_ref(),
            handle: handle.as_ref(),
        })
    }
}
