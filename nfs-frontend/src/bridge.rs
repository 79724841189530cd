//! The engine as the dispatcher and the lock manager see it.

use crate::dispatch::FileService;
use crate::engine::{Engine, HandleError, Met, Patience};
use crate::lock_manager::{LockTarget, Resolve, ResolveError};
use crate::rpc::{Answer, RpcCall};
use atoll_base::block::BlockService;
use atoll_base::id::Ino;
use atoll_meta::delegation::Intrusion;
use atoll_meta::lock::{Conflict, GrantedWaiter, LockTest};
use atoll_meta::{FsError, MetadataService, Origin};
use atoll_xdr::Encoder;

impl<M: MetadataService, B: BlockService> FileService for Engine<M, B> {
    async fn nfs3(&self, call: RpcCall, reply: Encoder) -> Answer {
        Self::nfs3(self, call, reply).await
    }

    fn nfs4(&self, call: RpcCall, reply: Encoder) -> impl Future<Output = Answer> + Send {
        Self::nfs4(self, call, reply)
    }

    async fn mount(&self, call: RpcCall, reply: Encoder) -> Answer {
        Self::mount(self, call, reply).await
    }

    async fn nfsacl(&self, call: RpcCall, reply: Encoder) -> Answer {
        Self::nfsacl(self, call, reply).await
    }

    async fn rquota(&self, call: RpcCall, reply: Encoder) -> Answer {
        Self::rquota(self, call, reply).await
    }
}

impl<M: MetadataService, B: BlockService> Resolve for Engine<M, B> {
    async fn resolve(&self, handle: &[u8], call: &RpcCall) -> Result<LockTarget, ResolveError> {
        let target = Self::resolve(self, handle, call).await.map_err(|error| match error {
            HandleError::Stale => ResolveError::Stale,
            HandleError::BadHandle | HandleError::Access | HandleError::Auth(_) => ResolveError::Refused,
            HandleError::Fs(error) => ResolveError::Fs(error),
        })?;
        Ok(LockTarget {
            ino: target.ino,
            generation: target.generation,
            read_only: target.export.spec.read_only,
            cred: target.cred,
            attr: target.attr,
        })
    }

    async fn origin(&self) -> Option<Origin> {
        Some(Self::origin(self).await)
    }

    async fn clear_way(&self, test: &LockTest) -> Result<Option<Conflict>, FsError> {
        Self::clear_way(self, test).await
    }

    async fn ask_back(&self, ino: Ino) -> bool {
        Self::ask_back(self, Met::new(ino, Intrusion::Change), None, &mut Patience::v3()).await
    }

    async fn offer_lock(&self, waiter: &GrantedWaiter) -> bool {
        Self::offer_lock(self, waiter).await
    }
}

#[cfg(test)]
mod tests {
    //! Everything together: a client's calls over loopback sockets, through the dispatcher, to the engine and the lock
    //! manager over one state machine.
    #![allow(clippy::unwrap_used)]

    use crate::dispatch::{Programs, datagram_programs, services};
    use crate::engine::tests::world::World;
    use crate::lock_manager::{Config, LockManager};
    use crate::portmap::Portmap;
    use crate::rpc::{Credential, RpcCall, Transport};
    use crate::server::client::{Route, call};
    use crate::server::{Limits, Server, Stopped};
    use atoll_proto::nlm::{self, LockArgs, NetObj, NlmStat, UnlockArgs};
    use atoll_proto::portmap::v2;
    use atoll_proto::{mount, nfs3, nfsacl, rquota};
    use atoll_xdr::{Decoder, Encoder, Opaque};
    use bytes::Bytes;
    use std::net::SocketAddr;
    use std::sync::Arc;
    use std::time::Duration;
    use tokio_util::sync::CancellationToken;

    const PATIENCE: Duration = Duration::from_secs(10);

    async fn ask<P: atoll_proto::rpc::Procedure>(
        to: SocketAddr,
        transport: Transport,
        args: P::Args,
    ) -> P::Res {
        call::<P>(Route { to, transport, from: None }, PATIENCE, &args).await.unwrap()
    }

    #[tokio::test]
    async fn a_client_finds_mounts_reads_and_locks() {
        let world = World::new().await;
        let file = world.create(world.root, "file").await;
        let mut server =
            Server::bind("127.0.0.1:0".parse().unwrap(), Limits::default(), &datagram_programs()).unwrap();
        let to = server.tcp_addresses()[0];
        let also = server.add_both("127.0.0.1:0".parse().unwrap(), &[100_000]).unwrap();
        let locks = LockManager::new(world.engine.meta().clone(), world.engine.clone(), Config::default());
        let portmap = Portmap::new(services(to.port(), Some(to.port())), also.port());
        let programs = Arc::new(Programs::new(world.engine.clone(), locks, portmap));
        let stop = CancellationToken::new();
        let running = tokio::spawn(server.run(programs, stop.clone()));

        for transport in [Transport::Tcp, Transport::Udp] {
            let protocol = if transport == Transport::Tcp { v2::IPPROTO_TCP } else { v2::IPPROTO_UDP };
            let mapping = v2::Mapping { program: mount::PROGRAM, version: 3, protocol, port: 0 };
            let port = ask::<v2::call::GetPort>(also, transport, mapping).await;
            assert_eq!(port, u32::from(to.port()));
            let path = mount::DirPath::copy_from(b"/").unwrap();
            let mounted = ask::<mount::v3::call::Mnt>(to, transport, path).await.unwrap();
            assert_eq!(mounted.handle, world.root);
            let lock = nlm::Lock {
                caller_name: Opaque::from_static(b"client"),
                fh: NetObj::copy_from(file.as_slice()).unwrap(),
                oh: NetObj::from_static(b"1@client"),
                svid: 1,
                offset: 0,
                len: 0,
            };
            let args = LockArgs {
                cookie: NetObj::from_static(b"c"),
                block: true,
                exclusive: true,
                lock: lock.clone(),
                reclaim: false,
                state: 1,
            };
            let taken = ask::<nlm::v4::call::Lock>(to, transport, args.clone()).await;
            assert_eq!(taken.stat, NlmStat::Granted);
            let mut other = args;
            other.lock.svid = 2;
            other.block = false;
            assert_eq!(ask::<nlm::v4::call::Lock>(to, transport, other).await.stat, NlmStat::Denied);
            let args = UnlockArgs { cookie: NetObj::default(), lock };
            assert_eq!(ask::<nlm::v4::call::Unlock>(to, transport, args).await.stat, NlmStat::Granted);
        }
        let attr = ask::<nfs3::call::GetAttr>(to, Transport::Tcp, nfs3::GetAttr3Args { object: file }).await;
        attr.unwrap();
        ask::<nfsacl::call::Null>(to, Transport::Tcp, ()).await;
        ask::<rquota::v1::call::Null>(to, Transport::Udp, ()).await;
        let nfs = Route { to, transport: Transport::Udp, from: None };
        assert!(
            call::<nfs3::call::Null>(nfs, PATIENCE, &()).await.is_err(),
            "NFS is not served in datagrams"
        );
        let mount = Route { to: also, transport: Transport::Tcp, from: None };
        assert!(
            call::<mount::v3::call::Null>(mount, PATIENCE, &()).await.is_err(),
            "only the port mapper there"
        );
        stop.cancel();
        assert_eq!(running.await.unwrap(), Stopped { cut_off: 0 });
    }

    /// A call's future is moved once when it begins: a large one costs each GETATTR the copy.
    #[tokio::test]
    async fn the_future_of_a_call_is_small() {
        let world = World::new().await;
        let call = RpcCall {
            peer: world.peer,
            local: world.peer,
            transport: Transport::Tcp,
            xid: 1,
            program: nfs3::PROGRAM,
            version: 3,
            procedure: 0,
            credential: Credential::None,
            connection: None,
            args: Decoder::new(Bytes::new()),
        };
        let call4 = RpcCall { version: 4, procedure: 1, ..call.without_args() };
        let size = size_of_val(&world.engine.nfs4(call4, Encoder::new()));
        println!("nfs4: {size} bytes");
        assert!(size < 512, "{size} bytes");
        let size = size_of_val(&world.engine.nfs3(call, Encoder::new()));
        println!("nfs3: {size} bytes");
        assert!(size < 4096, "{size} bytes");
    }
}
