//! From changes to calls, and from replies to what they say.

use crate::client::{Call, Client, decode};
use crate::model::{Model, NodeId, Op, Told};
use atoll_proto::nfs3::{
    Commit3Args, Create3Args, CreateHow3, CreatedRes, DirOpArgs3, Failure, FileHandle, Link3Args, MkDir3Args,
    Name3, NfsStat3, Path3, Payload, Remove3Args, Rename3Args, RmDir3Args, Sattr3, SetAttr3Args, StableHow,
    SymLink3Args, SymLinkData3, WccData, Write3Args, call,
};
use bytes::Bytes;

/// A reply: a success, or the status of a failure.
pub(crate) type Reply = Result<Told, NfsStat3>;

pub(crate) fn name(name: &str) -> Name3 {
    Name3::copy_from(name.as_bytes()).expect("names are short")
}

fn handle(model: &Model, node: NodeId) -> FileHandle {
    model.nodes[&node].handle.expect("only objects are used whose handle is known")
}

fn mode(mode: u32) -> Sattr3 {
    Sattr3 { mode: Some(mode), ..Sattr3::default() }
}

/// Makes the call that asks for `op`.
pub(crate) fn encode(client: &mut Client, model: &Model, op: &Op) -> Call {
    let h = |node: &NodeId| handle(model, *node);
    let at = |dir: &NodeId, n: &str| DirOpArgs3 { dir: h(dir), name: name(n) };
    match op {
        Op::Create { dir, name, node, exclusive } => {
            let how = match exclusive {
                true => CreateHow3::Exclusive(node.to_be_bytes()),
                false => CreateHow3::Guarded(mode(0o640)),
            };
            client.encode::<call::Create>(&Create3Args { at: at(dir, name), how })
        }
        Op::MakeDir { dir, name, .. } => {
            client.encode::<call::MkDir>(&MkDir3Args { at: at(dir, name), attributes: mode(0o755) })
        }
        Op::SymLink { dir, name, text, .. } => {
            let data = Path3::copy_from(text.as_bytes()).expect("texts are short");
            let symlink = SymLinkData3 { attributes: mode(0o777), data };
            client.encode::<call::SymLink>(&SymLink3Args { at: at(dir, name), symlink })
        }
        Op::Link { node, dir, name } => {
            client.encode::<call::Link>(&Link3Args { file: h(node), link: at(dir, name) })
        }
        Op::Remove { dir, name } => client.encode::<call::Remove>(&Remove3Args { object: at(dir, name) }),
        Op::RemoveDir { dir, name } => client.encode::<call::RmDir>(&RmDir3Args { object: at(dir, name) }),
        Op::Rename { from, to } => {
            client.encode::<call::Rename>(&Rename3Args { from: at(&from.0, &from.1), to: at(&to.0, &to.1) })
        }
        Op::SetMode { node, mode: bits } => client.encode::<call::SetAttr>(&SetAttr3Args {
            object: h(node),
            new_attributes: mode(*bits),
            guard: None,
        }),
        Op::Truncate { node, size } => client.encode::<call::SetAttr>(&SetAttr3Args {
            object: h(node),
            new_attributes: Sattr3 { size: Some(*size), ..Sattr3::default() },
            guard: None,
        }),
        Op::Write { node, offset, data, stable } => client.encode::<call::Write>(&Write3Args {
            file: h(node),
            offset: *offset,
            count: data.len() as u32,
            stable: if *stable { StableHow::FileSync } else { StableHow::Unstable },
            data: Payload::new(data.clone()).expect("writes are short"),
        }),
        Op::Commit { node } => {
            client.encode::<call::Commit>(&Commit3Args { file: h(node), offset: 0, count: 0 })
        }
    }
}

fn status<T, F>(res: Result<T, Failure<F>>) -> Result<T, NfsStat3> {
    res.map_err(|failure| failure.status)
}

fn after(told: &mut Told, node: NodeId, wcc: &WccData) {
    told.after.extend(wcc.after.map(|attr| (node, attr)));
}

fn created(res: CreatedRes, dir: NodeId, node: NodeId) -> Reply {
    let ok = status(res)?;
    let mut told = Told { handle: ok.object, ..Told::default() };
    told.after.extend(ok.obj_attributes.map(|attr| (node, attr)));
    after(&mut told, dir, &ok.dir_wcc);
    Ok(told)
}

/// Reads the reply to `op`; `Err` if the call was not executed at all.
pub(crate) fn read(op: &Op, reply: Bytes) -> Result<Reply, String> {
    let mut told = Told::default();
    Ok(match op {
        Op::Create { dir, node, .. } => created(decode::<call::Create>(reply)?, *dir, *node),
        Op::MakeDir { dir, node, .. } => created(decode::<call::MkDir>(reply)?, *dir, *node),
        Op::SymLink { dir, node, .. } => created(decode::<call::SymLink>(reply)?, *dir, *node),
        Op::Link { node, dir, .. } => status(decode::<call::Link>(reply)?).map(|ok| {
            told.after.extend(ok.file_attributes.map(|attr| (*node, attr)));
            after(&mut told, *dir, &ok.link_dir_wcc);
            told
        }),
        Op::Remove { dir, .. } => status(decode::<call::Remove>(reply)?).map(|ok| {
            after(&mut told, *dir, &ok.dir_wcc);
            told
        }),
        Op::RemoveDir { dir, .. } => status(decode::<call::RmDir>(reply)?).map(|ok| {
            after(&mut told, *dir, &ok.dir_wcc);
            told
        }),
        Op::Rename { from, to } => status(decode::<call::Rename>(reply)?).map(|ok| {
            after(&mut told, from.0, &ok.from_dir_wcc);
            after(&mut told, to.0, &ok.to_dir_wcc);
            told
        }),
        Op::SetMode { node, .. } | Op::Truncate { node, .. } => {
            status(decode::<call::SetAttr>(reply)?).map(|ok| {
                after(&mut told, *node, &ok.obj_wcc);
                told
            })
        }
        Op::Write { node, data, stable, .. } => match status(decode::<call::Write>(reply)?) {
            Ok(ok) if ok.count as usize != data.len() => return Err("a short WRITE".to_owned()),
            Ok(ok) if *stable && ok.committed != StableHow::FileSync => {
                return Err("a FILE_SYNC WRITE was answered as less".to_owned());
            }
            Ok(ok) => {
                after(&mut told, *node, &ok.file_wcc);
                told.verifier = Some(u64::from_be_bytes(ok.verf));
                told.stable = ok.committed != StableHow::Unstable;
                Ok(told)
            }
            Err(status) => Err(status),
        },
        Op::Commit { node } => status(decode::<call::Commit>(reply)?).map(|ok| {
            after(&mut told, *node, &ok.file_wcc);
            told.verifier = Some(u64::from_be_bytes(ok.verf));
            told
        }),
    })
}
