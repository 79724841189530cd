//! READDIR (RFC 8881 §18.23). There are no entries for `.` and `..`; cookies are those of version 3.
//!
//! Where another export begins at a name that the directory itself does not have, the name is listed behind its own.
//!
//! Of a file that another client has delegated for writing, size, change and times are known to that client alone. A listing does not ask it, but says so
//! of the entry (`rdattr_error`); who wants to know asks for the file's attributes (§10.4.3). Only for who does not want to hear of errors holders are asked, and a page ends
//! before an entry whose holder does not answer.

use crate::engine::resolve::{Node, same_object};
use crate::engine::v3::cookie_verifier;
use crate::engine::v4::attributes::{
    FileSystem, HELD, View, asks_held, asks_write_only, names_shown, supported,
};
use crate::engine::v4::compound::{Compound, Done, Halt, Object};
use crate::engine::v4::pseudo::Joints;
use atoll_base::access::{Perm, permits};
use atoll_base::attr::{Attr, Delegated};
use atoll_base::block::BlockService;
use atoll_base::id::Cookie;
use atoll_base::limits::IO_MAX;
use atoll_meta::{FsError, MetadataService};
use atoll_proto::nfs4::{Attr4, Bitmap, NfsStat4, ReadDir4Args, ReadDirWriter};
use atoll_xdr::Encoder;
use bytes::Bytes;
use std::sync::Arc;

/// Entries read in one step.
const PAGE_ENTRIES: usize = 1024;

/// Bytes of the smallest entry: the flag that one follows, cookie, name with its length, no attributes.
const ENTRY_MIN: usize = 4 + 8 + 8 + 8;

/// The first cookie of an entry; 1 and 2 are reserved (§18.23.3).
const FIRST: u64 = Cookie::FIRST_ENTRY.0;

/// Cookies from here on are of names at which other exports begin; a directory's own do not come so far.
const JOINED: u64 = 1 << 62;

/// What every entry is shown with.
struct Shown {
    minor: u32,
    asked: Bitmap,
    file_system: Option<FileSystem>,
    lease: u32,
    only_errors: bool,
}

impl<M: MetadataService, B: BlockService> Compound<M, B> {
    /// Writes the whole result.
    pub(crate) async fn read_dir(&mut self, args: &ReadDir4Args) -> Done<()> {
        let object = self.object()?.clone();
        if asks_write_only(&args.attr_request) {
            return Err(NfsStat4::Inval.into());
        }
        if matches!(args.cookie, 1 | 2) {
            return Err(NfsStat4::BadCookie.into());
        }
        let asked = args.attr_request.and(&supported(self.minor, true));
        let shown = Shown {
            minor: self.minor,
            file_system: self.file_system_asked(&object, &asked).await?,
            lease: self.engine.lease_seconds(),
            only_errors: asked.contains(Attr4::RdAttrError as u32),
            asked,
        };
        let mut reply = std::mem::take(&mut self.reply);
        let listed = match &object {
            Object::Pseudo(joints, index) => {
                self.list_pseudo(&mut reply, joints.clone(), *index, args, &shown).await
            }
            Object::Real(node) => self.list_real(&mut reply, node, args, &shown).await,
        };
        self.reply = reply;
        listed
    }

    async fn list_pseudo(
        &self,
        reply: &mut Encoder,
        joints: Arc<Joints>,
        index: usize,
        args: &ReadDir4Args,
        shown: &Shown,
    ) -> Done<()> {
        let verifier = [0; 8];
        let children: Vec<(Bytes, usize)> =
            joints.node(index).children.iter().map(|(name, child)| (name.clone(), *child)).collect();
        let mut entries = Vec::new();
        for (at, (name, child)) in children.iter().enumerate() {
            let cookie = FIRST + at as u64;
            if cookie <= args.cookie {
                continue;
            }
            let name4 = atoll_proto::nfs4::Name4::new(name.clone()).map_err(|_| NfsStat4::ServerFault)?;
            let there = Object::Pseudo(joints.clone(), index);
            let object = match self.look_up(&there, &name4).await {
                Ok(object) => object,
                // What this client may not use shows as the node.
                Err(_) => Object::Pseudo(joints.clone(), *child),
            };
            let attr = self.attr(&object).await?;
            entries.push((cookie, name.clone(), object, attr));
        }
        let mut writer = ReadDirWriter::begin(reply, verifier, args.dircount, args.maxcount);
        for (cookie, name, object, attr) in &entries {
            if !self.push(&mut writer, shown, *cookie, name, object, attr).await? {
                break;
            }
        }
        writer.finish(true).map(|_| ()).map_err(|_| NfsStat4::TooSmall.into())
    }

    async fn list_real(
        &self,
        reply: &mut Encoder,
        node: &Node,
        args: &ReadDir4Args,
        shown: &Shown,
    ) -> Done<()> {
        let dir = node.handle.ino;
        let verifier = cookie_verifier(&node.handle);
        if args.cookie != 0 && args.cookieverf != [0; 8] && args.cookieverf != verifier {
            return Err(NfsStat4::NotSame.into());
        }
        let maxcount = args.maxcount.min(IO_MAX);
        let entries = (maxcount as usize / ENTRY_MIN + 1).min(PAGE_ENTRIES);
        let mut seen = self.engine.dirty.look();
        let after = Cookie(args.cookie.max(FIRST - 1));
        let mut page = match self.engine.meta().readdir(dir, after, entries, maxcount as usize, true).await {
            Ok(page) => page,
            Err(FsError::NotDirectory) => return Err(NfsStat4::NotDir.into()),
            Err(e) => return Err(e.into()),
        };
        same_object(&node.handle, &page.dir)?;
        let cred = self.cred(&node.export).await;
        if !permits(&cred, &page.dir, Perm::READ) {
            return Err(NfsStat4::Access.into());
        }
        self.engine.accessed(&node.export, &mut page.dir);
        let joints = self.engine.joints().await?;
        let mut writer = ReadDirWriter::begin(reply, verifier, args.dircount, maxcount);
        let (mut room, mut end, mut any) = (true, false, false);
        while room && !end {
            let mut last = None;
            for entry in page.entries {
                let attr = match entry.attr {
                    Some(mut attr) => {
                        if self.engine.dirty.overlay(seen, &mut attr) {
                            self.engine.touches.overlay(&mut attr);
                            Ok(attr)
                        } else {
                            self.engine.attr(entry.ino).await
                        }
                    }
                    None => self.engine.attr(entry.ino).await,
                };
                room = match attr {
                    Ok(attr) => {
                        let object = self.entry_object(node, &joints, &entry.name, &attr).await;
                        let attr = match &object {
                            Object::Real(other) if other.handle.ino != attr.ino => {
                                self.attr(&object).await.unwrap_or(attr)
                            }
                            _ => attr,
                        };
                        let pushed =
                            self.push(&mut writer, shown, entry.cookie.0, &entry.name, &object, &attr);
                        match pushed.await {
                            Err(Halt::Delegated(_)) if any => false,
                            done => done?,
                        }
                    }
                    // Removed since the page was read.
                    Err(FsError::Stale) => continue,
                    Err(_) if shown.only_errors => {
                        writer.push_error(entry.cookie.0, &entry.name, NfsStat4::Io)
                    }
                    Err(_) => false,
                };
                if !room {
                    break;
                }
                last = Some(entry.cookie);
                any = true;
            }
            end = page.end;
            let Some(after) = last.filter(|_| room && !end) else { break };
            seen = self.engine.dirty.look();
            // An error behind what was read is met by the next call.
            match self.engine.meta().readdir(dir, after, entries, maxcount as usize, true).await {
                Ok(next) => page = next,
                Err(_) => break,
            }
        }
        if end && room {
            room = self.list_joined(node, &joints, args.cookie, &mut writer, shown).await?;
        }
        writer.finish(end && room).map(|_| ()).map_err(|_| NfsStat4::TooSmall.into())
    }

    /// Adds the exports that begin in a directory at names which it does not have itself. Says whether all found room.
    async fn list_joined(
        &self,
        node: &Node,
        joints: &Joints,
        after: u64,
        writer: &mut ReadDirWriter<'_>,
        shown: &Shown,
    ) -> Done<bool> {
        let dir = node.handle.ino;
        for (index, name) in joints.names_in(dir).into_iter().enumerate() {
            let cookie = JOINED + index as u64;
            let own = self.engine.find(dir, &name).await.is_ok_and(|found| found.child.is_ok());
            if cookie <= after || own {
                continue;
            }
            let Ok(wire) = atoll_proto::nfs4::Name4::new(name.clone()) else { continue };
            // What this client may not use is not there for it.
            let Ok(object) = self.look_up(&Object::Real(node.clone()), &wire).await else { continue };
            let Ok(attr) = self.attr(&object).await else { continue };
            if !self.push(writer, shown, cookie, &name, &object, &attr).await? {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// What an entry stands for: where another export begins, its root.
    async fn entry_object(&self, node: &Node, joints: &Joints, name: &Bytes, attr: &Attr) -> Object {
        if joints.below(node.handle.ino, name).is_some()
            && let Ok(name) = atoll_proto::nfs4::Name4::new(name.clone())
            && let Ok(object) = self.look_up(&Object::Real(node.clone()), &name).await
        {
            return object;
        }
        Self::beside(node, attr)
    }

    /// Writes an entry, if there is room.
    async fn push(
        &self,
        writer: &mut ReadDirWriter<'_>,
        shown: &Shown,
        cookie: u64,
        name: &[u8],
        object: &Object,
        attr: &Attr,
    ) -> Done<bool> {
        let elsewhere = attr.delegated == Delegated::Write
            && asks_held(&shown.asked)
            && self.engine.may_be_elsewhere(attr, self.asking()).await.unwrap_or(true);
        let asked_of_holder;
        let attr = if elsewhere && !shown.only_errors {
            let asked = Box::pin(self.engine.as_held(attr.clone(), self.asking()));
            asked_of_holder = asked.await.map_err(Halt::Delegated)?;
            &asked_of_holder
        } else {
            attr
        };
        let kept_back = self.kept_back(object, attr, &shown.asked).await;
        if !kept_back.is_empty() && shown.only_errors {
            return Ok(writer.push_error(cookie, name, NfsStat4::Access));
        }
        let unknown = elsewhere && shown.only_errors;
        let handle = self.wire_handle(object);
        let view = View {
            minor: shown.minor,
            labelled: object.labelled(),
            attr,
            handle: &handle,
            export: object.handle().export,
            mounted_on: self.mounted_on(object, attr).await.unwrap_or(attr.ino.0),
            lease: shown.lease,
            names: names_shown(attr, &shown.asked, &self.engine.principals).await,
            file_system: shown.file_system.as_ref(),
            error: unknown.then_some(NfsStat4::Delay),
        };
        let mut mask = view.mask(&shown.asked).without(&kept_back);
        if unknown {
            mask = mask.without(&HELD);
        }
        Ok(writer.push(cookie, name, mask, |fattr| view.put(fattr)))
    }
}
