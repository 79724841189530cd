//! Clients of NFSv3 and NLM among the others.

use crate::dice::Dice;
use crate::known::NAMES;
use crate::world::{Failed, MACHINES, World};
use atoll_proto::mount;
use atoll_proto::nfs3::{
    Commit3Args, Create3Args, CreateHow3, DirOpArgs3, FileHandle, GetAttr3Args, Lookup3Args, Name3, Payload,
    Read3Args, Remove3Args, Rename3Args, Sattr3, SetAttr3Args, StableHow, Write3Args, call,
};
use atoll_proto::nlm::{self, ShareAccess, ShareMode};
use atoll_xdr::Opaque;

/// What the clients of old protocols know.
#[derive(Default)]
pub(crate) struct Old {
    root: Option<FileHandle>,
}

impl Old {
    async fn root(&mut self, w: &mut World) -> Result<FileHandle, Failed> {
        if let Some(root) = self.root {
            return Ok(root);
        }
        let path = mount::DirPath::copy_from(b"/").unwrap();
        let mounted = w.call::<mount::v3::call::Mnt>(&path, false).await?;
        let root = mounted.map_err(|e| Failed(format!("MOUNT is refused | {e:?}")))?.handle;
        self.root = Some(root);
        Ok(root)
    }

    fn handle(&self, w: &World, d: &mut Dice<'_>, root: FileHandle) -> FileHandle {
        d.latest(&w.handles).and_then(|fh| FileHandle::new(fh.as_slice()).ok()).unwrap_or(root)
    }

    /// One call of NFSv3.
    pub(crate) async fn nfs3(&mut self, w: &mut World, d: &mut Dice<'_>) -> Result<(), Failed> {
        let root = self.root(w).await?;
        let again = d.once_in(4);
        let at = |d: &mut Dice<'_>| DirOpArgs3 {
            dir: root,
            name: Name3::copy_from(NAMES[d.below(NAMES.len())].as_bytes()).unwrap(),
        };
        let file = self.handle(w, d, root);
        match d.below(10) {
            0 | 1 => {
                let how = match d.below(3) {
                    0 => CreateHow3::Unchecked(Sattr3 { size: Some(0), ..Sattr3::default() }),
                    1 => CreateHow3::Guarded(Sattr3::default()),
                    _ => CreateHow3::Exclusive([3; 8]),
                };
                let made = w.call::<call::Create>(&Create3Args { at: at(d), how }, again).await?;
                let made = made.ok().and_then(|ok| ok.object);
                if let Some(fh) = made.and_then(|fh| atoll_proto::nfs4::FileHandle::new(fh.as_slice()).ok()) {
                    w.learn(fh);
                }
            }
            2 => drop(w.call::<call::Remove>(&Remove3Args { object: at(d) }, again).await?),
            3 => drop(w.call::<call::Rename>(&Rename3Args { from: at(d), to: at(d) }, again).await?),
            4 => {
                let set = Sattr3 { size: Some(d.pick(&[0, 10, 5000])), ..Sattr3::default() };
                let args = SetAttr3Args { object: file, new_attributes: set, guard: None };
                let _answered = w.call::<call::SetAttr>(&args, again).await?;
            }
            5 | 6 => {
                let data = Payload::copy_from(&vec![b'y'; d.pick(&[1, 100, 5000])]).unwrap();
                let stable = d.pick(&[StableHow::Unstable, StableHow::FileSync]);
                let offset = d.pick(&[0, 100, 4096]);
                let args = Write3Args { file, offset, count: data.len() as u32, stable, data };
                let _answered = w.call::<call::Write>(&args, again).await?;
            }
            7 => drop(w.call::<call::Commit>(&Commit3Args { file, offset: 0, count: 0 }, again).await?),
            8 => drop(w.call::<call::Read>(&Read3Args { file, offset: 0, count: 8192 }, again).await?),
            9 => drop(w.call::<call::Lookup>(&Lookup3Args { what: at(d) }, again).await?),
            _ => drop(w.call::<call::GetAttr>(&GetAttr3Args { object: file }, again).await?),
        }
        Ok(())
    }

    /// One call of NLM version 4.
    pub(crate) async fn nlm(&mut self, w: &mut World, d: &mut Dice<'_>) -> Result<(), Failed> {
        let root = self.root(w).await?;
        let again = d.once_in(4);
        let fh = Opaque::copy_from(self.handle(w, d, root).as_slice()).unwrap();
        let machine = MACHINES[d.below(MACHINES.len())];
        let caller_name = Opaque::copy_from(machine.as_bytes()).unwrap();
        let (oh, svid) = (Opaque::from_static(b"oh"), d.below(2) as u32);
        let cookie = Opaque::from_static(b"cookie");
        let (offset, len) = (d.pick(&[0, 5, 100]), d.pick(&[10, 0, 1]));
        let exclusive = !d.once_in(3);
        let block = d.once_in(2);
        let lock =
            nlm::Lock { caller_name: caller_name.clone(), fh: fh.clone(), oh: oh.clone(), svid, offset, len };
        let mode = d.pick(&[ShareMode::DenyNone, ShareMode::DenyWrite, ShareMode::DenyReadWrite]);
        let access = d.pick(&[ShareAccess::Read, ShareAccess::ReadWrite]);
        let share = nlm::Share { caller_name, fh, oh, mode, access };
        match d.below(9) {
            0..=2 => {
                let args = nlm::LockArgs { cookie, block, exclusive, lock, reclaim: false, state: 1 };
                drop(w.call::<nlm::v4::call::Lock>(&args, again).await?);
            }
            3 | 4 => drop(w.call::<nlm::v4::call::Unlock>(&nlm::UnlockArgs { cookie, lock }, again).await?),
            5 => {
                let args = nlm::CancelArgs { cookie, block, exclusive, lock };
                drop(w.call::<nlm::v4::call::Cancel>(&args, again).await?);
            }
            6 => {
                let args = nlm::ShareArgs { cookie, share, reclaim: false };
                drop(w.call::<nlm::v4::call::Share>(&args, again).await?);
            }
            7 => {
                let args = nlm::ShareArgs { cookie, share, reclaim: false };
                drop(w.call::<nlm::v4::call::Unshare>(&args, again).await?);
            }
            _ => {
                let args = nlm::TestArgs { cookie, exclusive, lock };
                drop(w.call::<nlm::v4::call::Test>(&args, false).await?);
            }
        }
        Ok(())
    }
}
