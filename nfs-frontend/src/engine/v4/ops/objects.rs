//! Attributes of the current object: ACCESS, GETATTR, READLINK, SETATTR, VERIFY, NVERIFY (RFC 8881 §18.1, §18.7, §18.15,
//! §18.24, §18.30, §18.31).

use super::io::has_data;
use super::stateids::Use;
use super::xattrs;
use crate::engine::resolve::same_object;
use crate::engine::v3::access_granted;
use crate::engine::v4::acls;
use crate::engine::v4::attributes::{
    self, FileSystem, View, asks_file_system, asks_write_only, names_shown, wanted,
};
use crate::engine::v4::compound::{Compound, Done, Halt, Object};
use crate::engine::v4::status;
use atoll_base::attr::{Attr, Delegated, FileKind, SetTime};
use atoll_base::block::BlockService;
use atoll_meta::{FsError, MetadataService, Op};
use atoll_proto::nfs4::access as bits;
use atoll_proto::nfs4::{
    Access4Ok, Bitmap, Fattr4, FileHandle, LinkText4, NfsStat4, ReadLink4Ok, SetAttr4Args, SetAttr4Res,
    begin_getattr_ok,
};

/// The bits of ACCESS that are known.
const ACCESS_BITS: u32 =
    bits::READ | bits::LOOKUP | bits::MODIFY | bits::EXTEND | bits::DELETE | bits::EXECUTE;

/// Those that 4.2 adds (RFC 8276 §8.5).
const XATTR_BITS: u32 = bits::XAREAD | bits::XAWRITE | bits::XALIST;

impl<M: MetadataService, B: BlockService> Compound<M, B> {
    pub(crate) async fn access(&self, asked: u32) -> Done<Access4Ok> {
        let object = self.object()?;
        let attr = self.attr(object).await?;
        let xattrs = if self.minor < 2 { 0 } else { asked & XATTR_BITS };
        let meaningful = xattrs
            | match attr.kind {
                FileKind::Directory => ACCESS_BITS & !bits::EXECUTE,
                _ => ACCESS_BITS & !(bits::LOOKUP | bits::DELETE),
            };
        let access = match object {
            Object::Pseudo(..) => asked & (bits::READ | bits::LOOKUP),
            Object::Real(node) => {
                let cred = self.cred(&node.export).await;
                let read_only = node.export.spec.read_only;
                access_granted(&cred, &attr, read_only, asked & ACCESS_BITS)
                    | xattrs::access_granted(&cred, &attr, read_only, xattrs)
            }
        };
        Ok(Access4Ok { supported: asked & meaningful, access: access & meaningful })
    }

    pub(crate) async fn read_link(&self) -> Done<ReadLink4Ok> {
        let node = self.node(NfsStat4::Inval)?;
        let wrong = if self.minor == 0 { NfsStat4::Inval } else { NfsStat4::WrongType };
        match self.engine.meta().readlink(node.handle.ino).await {
            Ok((mut attr, target)) => {
                same_object(&node.handle, &attr)?;
                self.engine.accessed(&node.export, &mut attr);
                Ok(ReadLink4Ok { link: LinkText4::new(target).map_err(|_| NfsStat4::Io)? })
            }
            Err(FsError::WrongType | FsError::Invalid) => Err(wrong.into()),
            Err(e) => Err(e.into()),
        }
    }

    /// What is told of the file system around an object.
    pub(crate) async fn file_system(&self, object: &Object) -> Done<FileSystem> {
        let volume = match object {
            Object::Pseudo(..) => None,
            Object::Real(node) => Some(self.engine.meta().volume(node.handle.volume).await?),
        };
        Ok(FileSystem { space: self.engine.blocks().space(), volume })
    }

    /// Attributes of an object, asked of the holder of a write delegation if they are among those that it may have changed (RFC 8881 §10.4.3).
    async fn attr_with_holder(&self, object: &Object, asked: &Bitmap) -> Done<Attr> {
        let attr = self.attr(object).await?;
        if attr.delegated != Delegated::Write || !attributes::asks_held(asked) {
            return Ok(attr);
        }
        Box::pin(self.engine.as_held(attr, self.asking())).await.map_err(Halt::Delegated)
    }

    /// Writes the whole result.
    pub(crate) async fn get_attr(&mut self, asked: &Bitmap) -> Done<()> {
        let object = self.object()?.clone();
        if asks_write_only(asked) {
            return Err(NfsStat4::Inval.into());
        }
        let attr = self.attr_with_holder(&object, asked).await?;
        self.check_readable(&object, &attr, asked).await?;
        let file_system = self.file_system_asked(&object, asked).await?;
        let handle = self.wire_handle(&object);
        let view = self.view(&object, &attr, &handle, asked, file_system.as_ref()).await?;
        let mut writer = begin_getattr_ok(&mut self.reply, view.mask(asked));
        view.put(&mut writer);
        writer.finish();
        Ok(())
    }

    /// Refuses attributes that the object's access control list keeps from the caller.
    async fn check_readable(&self, object: &Object, attr: &Attr, asked: &Bitmap) -> Done<()> {
        if self.kept_back(object, attr, asked).await.is_empty() {
            Ok(())
        } else {
            Err(NfsStat4::Access.into())
        }
    }

    /// Those attributes.
    pub(crate) async fn kept_back(&self, object: &Object, attr: &Attr, asked: &Bitmap) -> Bitmap {
        match object {
            Object::Real(node) if attr.acl.is_some() => {
                acls::unreadable(&self.cred(&node.export).await, attr, asked)
            }
            _ => Bitmap::EMPTY,
        }
    }

    /// What is told of the file system, if any of it is asked.
    pub(crate) async fn file_system_asked(
        &self,
        object: &Object,
        asked: &Bitmap,
    ) -> Done<Option<FileSystem>> {
        if asks_file_system(asked) { self.file_system(object).await.map(Some) } else { Ok(None) }
    }

    /// An object as its attributes show it.
    pub(crate) async fn view<'a>(
        &self,
        object: &Object,
        attr: &'a Attr,
        handle: &'a FileHandle,
        asked: &Bitmap,
        file_system: Option<&'a FileSystem>,
    ) -> Done<View<'a>> {
        Ok(View {
            minor: self.minor,
            labelled: object.labelled(),
            attr,
            handle,
            export: object.handle().export,
            mounted_on: self.mounted_on(object, attr).await?,
            lease: self.engine.lease_seconds(),
            names: names_shown(attr, asked, &self.engine.principals).await,
            file_system,
            error: None,
        })
    }

    /// VERIFY (`equal`) and NVERIFY: whether the object's attributes are those given.
    pub(crate) async fn verify(&mut self, given: &Fattr4, equal: bool) -> Done<()> {
        let object = self.object()?.clone();
        if asks_write_only(&given.mask) {
            return Err(NfsStat4::Inval.into());
        }
        let attr_error = Bitmap::of(&[atoll_proto::nfs4::Attr4::RdAttrError as u32]);
        if !given.mask.and(&attr_error).is_empty() {
            return Err(NfsStat4::Inval.into());
        }
        if !given.mask.without(&attributes::supported(self.minor, object.labelled())).is_empty() {
            return Err(NfsStat4::AttrNotSupp.into());
        }
        given.read().map_err(|e| e.status())?;
        let attr = self.attr_with_holder(&object, &given.mask).await?;
        self.check_readable(&object, &attr, &given.mask).await?;
        let file_system = self.file_system_asked(&object, &given.mask).await?;
        let handle = self.wire_handle(&object);
        let view = self.view(&object, &attr, &handle, &given.mask, file_system.as_ref()).await?;
        let own = view.fattr(&given.mask);
        match (own.values == given.values, equal) {
            (true, false) => Err(NfsStat4::Same.into()),
            (false, true) => Err(NfsStat4::NotSame.into()),
            _ => Ok(()),
        }
    }

    pub(crate) async fn set_attr(&mut self, args: SetAttr4Args) -> Result<SetAttr4Res, Halt> {
        match self.try_set_attr(args).await {
            Ok(attrsset) => Ok(SetAttr4Res { status: Ok(()), attrsset }),
            Err(Halt::Status(status)) => Ok(SetAttr4Res { status: Err(status), attrsset: Bitmap::EMPTY }),
            Err(halt) => Err(halt),
        }
    }

    async fn try_set_attr(&mut self, args: SetAttr4Args) -> Done<Bitmap> {
        let node = self.node(NfsStat4::RoFs)?;
        let response = match self.known().await? {
            Some(response) => response,
            None => {
                if let Some(response) = self.set_delegated_times(&node, &args).await? {
                    return match response.result {
                        Ok(_) => Ok(args.obj_attributes.mask),
                        Err(e) => Err(status::of(e).into()),
                    };
                }
                let principals = &self.engine.principals;
                let labelled = node.export.spec.security_label;
                let set = wanted(&args.obj_attributes, self.minor, labelled, false, principals).await?;
                Self::check_writable(&node)?;
                let cred = self.cred(&node.export).await;
                if set.acl.is_some() {
                    acls::check_kind(&set, self.node_attr(&node).await?.kind)?;
                }
                if set.size.is_some() {
                    // Truncation is a write: the stateid says by which open (RFC 8881 §18.30.3).
                    let attr = self.node_attr(&node).await?;
                    // Of IS_DIR only v4.0 knows (RFC 7530 §13.2, RFC 8881 §15.2).
                    let no_data = |status| if self.minor > 0 { NfsStat4::Inval } else { status };
                    has_data(attr.kind).map_err(no_data)?;
                    self.check_use(&args.stateid, &node, Use::Write).await?;
                }
                let (ino, generation) = (node.handle.ino, node.handle.generation);
                let engine = self.engine.clone();
                let _settled = engine.settle(ino).await;
                if set.atime != SetTime::Keep {
                    engine.touches.forget(ino).await;
                }
                self.change(cred, Op::SetAttr { ino, generation, set, guard: None }).await?
            }
        };
        match response.result {
            Ok(_) => Ok(args.obj_attributes.mask),
            Err(e) => Err(status::of(e).into()),
        }
    }
}
