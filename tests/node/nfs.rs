//! A small NFS client over one TCP connection, one call at a time.

use atoll_proto::mount;
use atoll_proto::nfs3::{self, call};
use atoll_proto::rpc::{Accepted, AuthSys, Gids, OpaqueAuth, Procedure, ReplyBody, ReplyHeader, encode_call};
use atoll_xdr::{Decoder, Encoder, Opaque};
use bytes::Bytes;
use nfs3::{
    Commit3Args, Create3Args, CreateHow3, DirOpArgs3, FileHandle, Link3Args, MkDir3Args, NfsStat3, Read3Args,
    Remove3Args, Sattr3, StableHow, Write3Args,
};
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

pub(crate) struct Client {
    socket: TcpStream,
    xid: u32,
    pub(crate) root: FileHandle,
}

impl Client {
    /// Mounts `/`.
    pub(crate) fn mount(server: SocketAddr) -> Self {
        let socket = TcpStream::connect(server).unwrap();
        socket.set_nodelay(true).unwrap();
        socket.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
        // Another start than another client's: the server tells retransmissions by it.
        let xid: u32 = socket.local_addr().unwrap().port().into();
        let mut client = Self { socket, xid: xid << 16, root: FileHandle::new(&[0; 32]).unwrap() };
        let path = mount::DirPath::copy_from(b"/").unwrap();
        client.root = client.call::<mount::v3::call::Mnt>(path).unwrap().handle;
        client
    }

    pub(crate) fn call<P: Procedure>(&mut self, args: P::Args) -> P::Res {
        let sys = AuthSys {
            stamp: 0,
            machine_name: Opaque::from_static(b"test"),
            uid: 0,
            gid: 0,
            gids: Gids::new(&[]).unwrap(),
        };
        self.xid += 1;
        let mut e = Encoder::new();
        encode_call::<P>(&mut e, self.xid, OpaqueAuth::sys(&sys), &args);
        let message = e.into_bytes();
        self.socket.write_all(&(message.len() as u32 | 1 << 31).to_be_bytes()).unwrap();
        self.socket.write_all(&message).unwrap();
        let mut head = [0; 4];
        self.socket.read_exact(&mut head).unwrap();
        let mut reply = vec![0; (u32::from_be_bytes(head) & !(1 << 31)) as usize];
        self.socket.read_exact(&mut reply).unwrap();
        let mut d = Decoder::new(Bytes::from(reply));
        let header: ReplyHeader = d.decode().unwrap();
        assert_eq!(header.xid, self.xid);
        match header.body {
            ReplyBody::Accepted { stat: Accepted::Success, .. } => d.decode().unwrap(),
            other => panic!("{other:?}"),
        }
    }

    fn at(&self, name: &str) -> DirOpArgs3 {
        DirOpArgs3 { dir: self.root, name: nfs3::Name3::copy_from(name.as_bytes()).unwrap() }
    }

    pub(crate) fn create(&mut self, name: &str) -> Result<FileHandle, NfsStat3> {
        self.create_in(self.root, name)
    }

    pub(crate) fn create_in(&mut self, dir: FileHandle, name: &str) -> Result<FileHandle, NfsStat3> {
        let how = CreateHow3::Guarded(Sattr3 { mode: Some(0o644), ..Sattr3::default() });
        let made = self.call::<call::Create>(Create3Args { at: DirOpArgs3 { dir, ..self.at(name) }, how });
        made.map(|ok| ok.object.unwrap()).map_err(|e| e.status)
    }

    pub(crate) fn mkdir(&mut self, dir: FileHandle, name: &str) -> FileHandle {
        let attributes = Sattr3 { mode: Some(0o755), ..Sattr3::default() };
        let args = MkDir3Args { at: DirOpArgs3 { dir, ..self.at(name) }, attributes };
        self.call::<call::MkDir>(args).map_err(|e| e.status).unwrap().object.unwrap()
    }

    pub(crate) fn link(&mut self, file: FileHandle, dir: FileHandle, name: &str) {
        let args = Link3Args { file, link: DirOpArgs3 { dir, ..self.at(name) } };
        self.call::<call::Link>(args).map_err(|e| e.status).unwrap();
    }

    pub(crate) fn write(
        &mut self,
        file: FileHandle,
        offset: u64,
        data: &[u8],
        stable: StableHow,
    ) -> Result<(), NfsStat3> {
        let bytes = Bytes::copy_from_slice(data);
        let args =
            Write3Args { file, offset, count: data.len() as u32, stable, data: Opaque::new(bytes).unwrap() };
        let done = self.call::<call::Write>(args).map_err(|e| e.status)?;
        assert_eq!(done.count as usize, data.len());
        Ok(())
    }

    pub(crate) fn commit(&mut self, file: FileHandle) -> Result<(), NfsStat3> {
        self.call::<call::Commit>(Commit3Args { file, offset: 0, count: 0 }).map(drop).map_err(|e| e.status)
    }

    pub(crate) fn read(&mut self, file: FileHandle, offset: u64, count: u32) -> Bytes {
        let read = self.call::<call::Read>(Read3Args { file, offset, count });
        read.map_err(|e| e.status).unwrap().data.into_bytes()
    }

    pub(crate) fn remove(&mut self, name: &str) {
        let args = Remove3Args { object: self.at(name) };
        self.call::<call::Remove>(args).map_err(|e| e.status).unwrap();
    }
}
