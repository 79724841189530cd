//! Changes of directories: CREATE, LINK, REMOVE, RENAME (RFC 8881 §18.4, §18.9, §18.25, §18.26).

use crate::engine::resolve::Node;
use crate::engine::v4::acls;
use crate::engine::v4::attributes::{check_owner, wanted};
use crate::engine::v4::compound::{Compound, Done, change_info};
use atoll_base::access::{Cred, Unlink, may_unlink};
use atoll_base::attr::{Device, FileKind, SetAttr};
use atoll_base::block::BlockService;
use atoll_base::limits::{NAME_MAX, SYMLINK_MAX};
use atoll_lockd::ShareBits;
use atoll_meta::{CreateHow, FsError, MetadataService, NewNode, Op, Outcome, RemoveKind};
use atoll_proto::nfs4::{Attr4, Bitmap};
use atoll_proto::nfs4::{
    Changed4Ok, Create4Args, Create4Ok, CreateType4, Name4, NfsStat4, Rename4Args, Rename4Ok, SpecData4,
};

/// A name that can be looked up or stored: 1 to 255 bytes, none of them `/` or NUL, and not an alias (RFC 8881 §14.5, §18.13).
pub(crate) fn check(name: &Name4) -> Result<(), NfsStat4> {
    let name: &[u8] = name.as_bytes();
    match name {
        _ if name.len() > NAME_MAX => Err(NfsStat4::NameTooLong),
        b"" => Err(NfsStat4::Inval),
        b"." | b".." => Err(NfsStat4::BadName),
        _ if name.iter().any(|b| matches!(b, b'/' | 0)) => Err(NfsStat4::BadChar),
        _ => Ok(()),
    }
}

/// What of the attributes was set with a creation: what has a place in the state machine's command.
pub(crate) fn attributes_set(asked: &Bitmap, kind: FileKind) -> Bitmap {
    match kind {
        // The mode of a symbolic link is what it is.
        FileKind::Symlink => asked.without(&Bitmap::of(&[Attr4::Mode as u32, Attr4::Size as u32])),
        FileKind::Regular => asked.clone(),
        _ => asked.without(&Bitmap::of(&[Attr4::Size as u32])),
    }
}

fn kind_of(node: &NewNode) -> FileKind {
    match node {
        NewNode::Regular => FileKind::Regular,
        NewNode::Directory => FileKind::Directory,
        NewNode::Symlink(_) => FileKind::Symlink,
        NewNode::Special(kind, _) => *kind,
    }
}

fn new_node(what: &CreateType4) -> Result<NewNode, NfsStat4> {
    let device = |kind, d: &SpecData4| NewNode::Special(kind, Device { major: d.major, minor: d.minor });
    Ok(match what {
        CreateType4::Directory => NewNode::Directory,
        CreateType4::SymLink(target) => {
            let target = target.as_bytes();
            if target.len() > SYMLINK_MAX {
                return Err(NfsStat4::NameTooLong);
            }
            if target.is_empty() || target.contains(&0) {
                return Err(NfsStat4::Inval);
            }
            NewNode::Symlink(target.clone())
        }
        CreateType4::Block(d) => device(FileKind::BlockDevice, d),
        CreateType4::Character(d) => device(FileKind::CharDevice, d),
        CreateType4::Socket => NewNode::Special(FileKind::Socket, Device::default()),
        CreateType4::Fifo => NewNode::Special(FileKind::Fifo, Device::default()),
        CreateType4::Other(_) => return Err(NfsStat4::BadType),
    })
}

impl<M: MetadataService, B: BlockService> Compound<M, B> {
    pub(crate) async fn create(&mut self, args: Create4Args) -> Done<Create4Ok> {
        let dir = self.node(NfsStat4::RoFs)?;
        let response = match self.known().await? {
            Some(response) => response,
            None => {
                let new = new_node(&args.objtype)?;
                check(&args.objname)?;
                Self::check_writable(&dir)?;
                let cred = self.cred(&dir.export).await;
                let attrs = match self.creation(&args.createattrs, kind_of(&new), &dir, &cred).await {
                    // What has no data has no size that could be too large (RFC 8881 §15.2 lists no FBIG here).
                    Err(NfsStat4::FBig) => return Err(NfsStat4::Inval.into()),
                    attrs => SetAttr { size: None, ..attrs? },
                };
                let op = Op::Create {
                    dir: dir.handle.ino,
                    name: args.objname.into_bytes(),
                    node: new,
                    how: CreateHow::Guarded,
                    attrs,
                };
                self.change(cred, op).await?
            }
        };
        let cinfo = change_info(&response, dir.handle.ino);
        match &response.result {
            Ok(Outcome::Created { attr, .. }) => {
                let object = Self::beside(&dir, attr);
                self.remember(attr);
                self.enter(object);
                Ok(Create4Ok { cinfo, attrset: attributes_set(&args.createattrs.mask, attr.kind) })
            }
            Ok(other) => unreachable!("a creation ended as {other:?}"),
            Err(e) => Err(crate::engine::v4::status::of(*e).into()),
        }
    }

    pub(crate) async fn remove(&mut self, name: Name4) -> Done<Changed4Ok> {
        let dir = self.node(NfsStat4::RoFs)?;
        let response = match self.known().await? {
            Some(response) => response,
            None => {
                check(&name)?;
                Self::check_writable(&dir)?;
                let cred = self.cred(&dir.export).await;
                self.check_removable(&dir, &name, &cred).await?;
                let engine = self.engine.clone();
                // A file that goes with this name takes its dirty data along; one with other names must have them first.
                let _settled = engine.settle_linked(dir.handle.ino, name.as_bytes()).await;
                let op = Op::Remove { dir: dir.handle.ino, name: name.into_bytes(), kind: RemoveKind::Any };
                self.change(cred, op).await?
            }
        };
        match response.result {
            Ok(_) => Ok(Changed4Ok { cinfo: change_info(&response, dir.handle.ino) }),
            Err(e) => Err(crate::engine::v4::status::of(e).into()),
        }
    }

    pub(crate) async fn rename(&mut self, args: Rename4Args) -> Done<Rename4Ok> {
        self.object()?;
        let from = self.saved_node(NfsStat4::RoFs)?;
        let to = self.node(NfsStat4::RoFs)?;
        let (from_dir, to_dir) = (from.handle.ino, to.handle.ino);
        let response = match self.known().await? {
            Some(response) => response,
            None => {
                check(&args.oldname)?;
                check(&args.newname)?;
                Self::check_writable(&from)?;
                Self::check_writable(&to)?;
                // Two exports of one volume may have different rules; clients see two file systems.
                if from.export.id != to.export.id {
                    return Err(NfsStat4::XDev.into());
                }
                let cred = self.cred(&from.export).await;
                // Nobody makes way for who may not take the source, either; the store says so.
                if self.minor > 0 && self.may_take(&from, &args.oldname, &cred).await? {
                    self.check_removable(&to, &args.newname, &cred).await?;
                }
                let engine = self.engine.clone();
                let _settled = engine
                    .settle_rename((from_dir, args.oldname.as_bytes()), (to_dir, args.newname.as_bytes()))
                    .await;
                let op = Op::Rename {
                    from_dir,
                    from_name: args.oldname.into_bytes(),
                    to_dir,
                    to_name: args.newname.into_bytes(),
                };
                self.change(cred, op).await?
            }
        };
        match response.result {
            Ok(_) => Ok(Rename4Ok {
                source_cinfo: change_info(&response, from_dir),
                target_cinfo: change_info(&response, to_dir),
            }),
            // §18.26.3: what cannot be replaced is EXIST.
            Err(FsError::IsDirectory) => Err(NfsStat4::Exist.into()),
            Err(FsError::NotDirectory) => {
                // Either directory may be none, or the target cannot be replaced by a directory.
                for dir in [&from, &to] {
                    if self.node_attr(dir).await?.kind != FileKind::Directory {
                        return Err(NfsStat4::NotDir.into());
                    }
                }
                Err(NfsStat4::Exist.into())
            }
            Err(e) => Err(e.into()),
        }
    }

    /// Whether a name is there and the caller may remove it.
    async fn may_take(&self, dir: &Node, name: &Name4, cred: &Cred) -> Done<bool> {
        let Ok(attr) = self.look_up_in(dir, name).await else { return Ok(false) };
        Ok(may_unlink(cred, &self.node_attr(dir).await?, &attr) == Unlink::Allowed)
    }

    /// A file that somebody has open and denies writing keeps its name (RFC 8881 §18.25.4, §18.26.4): who asked that nobody else changes it does not
    /// want to lose it. Lapsed clients make way. Programs on Linux never deny anything.
    ///
    /// Not in v4.0, whose clients are used to servers that remove it (RFC 7530 §16.25.4 asks for the same, but those of Windows speak v4.1, and the
    /// public test suite has it removed). NFSv3 has no such opens and does not ask.
    async fn check_removable(&self, dir: &Node, name: &Name4, cred: &Cred) -> Done<()> {
        if self.minor == 0 {
            return Ok(());
        }
        // What is not there, or not the caller's to see, is refused by the store.
        let Ok(attr) = self.look_up_in(dir, name).await else { return Ok(()) };
        // Nobody makes way for who may not remove it.
        let allowed = may_unlink(cred, &self.node_attr(dir).await?, &attr) == Unlink::Allowed;
        if allowed
            && attr.kind == FileKind::Regular
            && self.is_denied_to_all(attr.ino, ShareBits::Write).await?
        {
            return Err(NfsStat4::FileOpen.into());
        }
        Ok(())
    }

    pub(crate) async fn link(&mut self, name: Name4) -> Done<Changed4Ok> {
        self.object()?;
        let file = self.saved_node(NfsStat4::IsDir)?;
        let dir = self.node(NfsStat4::RoFs)?;
        let response = match self.known().await? {
            Some(response) => response,
            None => {
                check(&name)?;
                Self::check_writable(&file)?;
                Self::check_writable(&dir)?;
                if file.export.id != dir.export.id {
                    return Err(NfsStat4::XDev.into());
                }
                let cred = self.cred(&file.export).await;
                let (ino, generation) = (file.handle.ino, file.handle.generation);
                let engine = self.engine.clone();
                let _settled = engine.settle(ino).await;
                let op = Op::Link { ino, generation, dir: dir.handle.ino, name: name.into_bytes() };
                self.change(cred, op).await?
            }
        };
        match response.result {
            Ok(_) => Ok(Changed4Ok { cinfo: change_info(&response, dir.handle.ino) }),
            Err(e) => Err(crate::engine::v4::status::of(e).into()),
        }
    }

    /// Whether a creation asks for nothing that needs to be the superuser; attributes for the command.
    pub(crate) async fn creation(
        &self,
        fattr: &atoll_proto::nfs4::Fattr4,
        kind: FileKind,
        dir: &Node,
        cred: &Cred,
    ) -> Result<SetAttr, NfsStat4> {
        let labelled = dir.export.spec.security_label;
        let set = wanted(fattr, self.minor, labelled, true, &self.engine.principals).await?;
        check_owner(cred, &set)?;
        acls::check_kind(&set, kind)?;
        Ok(set)
    }
}
