//! The lock manager over the real state machine, with clients that are called back over loopback.
#![allow(clippy::unwrap_used)]

mod client;
mod granted;
mod requests;
mod store;

use super::{Config, LockManager};
use crate::dispatch::LockService;
use crate::rpc::{Answer, Credential, Gids, RpcCall, Transport};
use atoll_proto::nlm::{self, CancelArgs, Lock, LockArgs, NetObj, NlmStat, StatRes, UnlockArgs};
use atoll_xdr::{Decode, Decoder, Encode, Encoder, Opaque};
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;
use store::{Files, Store};

type Manager = LockManager<Store, Files>;

/// Longer than anything here takes.
const PATIENCE: Duration = Duration::from_secs(30);

fn manager(store: &Arc<Store>, config: Config) -> Arc<Manager> {
    LockManager::new(store.clone(), Arc::new(Files(store.clone())), config)
}

/// A client machine as the server sees it.
#[derive(Clone)]
struct Host {
    name: &'static str,
    address: IpAddr,
    uid: u32,
    transport: Transport,
}

static XID: AtomicU32 = AtomicU32::new(1);

impl Host {
    fn new(name: &'static str) -> Self {
        Self { name, address: "127.0.0.1".parse().unwrap(), uid: 1000, transport: Transport::Tcp }
    }

    fn call(&self, program: u32, version: u32, procedure: u32, args: &impl Encode) -> RpcCall {
        let mut e = Encoder::new();
        e.put(args);
        RpcCall {
            peer: (self.address, 800).into(),
            local: "127.0.0.1:2049".parse().unwrap(),
            transport: self.transport,
            xid: XID.fetch_add(1, Ordering::Relaxed),
            program,
            version,
            procedure,
            credential: Credential::Sys { uid: self.uid, gid: self.uid, gids: Gids::new(&[]).unwrap() },
            connection: None,
            args: Decoder::new(e.into_bytes()),
        }
    }

    fn lock_of(&self, fh: &[u8], process: u32, offset: u64, len: u64) -> Lock<u64> {
        Lock {
            caller_name: Opaque::copy_from(self.name.as_bytes()).unwrap(),
            fh: NetObj::copy_from(fh).unwrap(),
            oh: NetObj::copy_from(format!("{process}@{}", self.name).as_bytes()).unwrap(),
            svid: process,
            offset,
            len,
        }
    }

    fn lock_args(&self, fh: &[u8], process: u32, block: bool) -> LockArgs<u64> {
        LockArgs {
            cookie: cookie(process),
            block,
            exclusive: true,
            lock: self.lock_of(fh, process, 0, 100),
            reclaim: false,
            state: 0,
        }
    }

    /// LOCK of the first 100 bytes, exclusively.
    async fn lock(&self, manager: &Manager, fh: &[u8], process: u32, block: bool) -> NlmStat {
        let args = self.lock_args(fh, process, block);
        stat(manager, self.call(nlm::PROGRAM, 4, 2, &args), process).await
    }

    async fn unlock(&self, manager: &Manager, fh: &[u8], process: u32) -> NlmStat {
        let args = UnlockArgs { cookie: cookie(process), lock: self.lock_of(fh, process, 0, 100) };
        stat(manager, self.call(nlm::PROGRAM, 4, 4, &args), process).await
    }

    async fn cancel(&self, manager: &Manager, fh: &[u8], process: u32) -> NlmStat {
        let args = CancelArgs {
            cookie: cookie(process),
            block: true,
            exclusive: true,
            lock: self.lock_of(fh, process, 0, 100),
        };
        stat(manager, self.call(nlm::PROGRAM, 4, 3, &args), process).await
    }
}

fn cookie(process: u32) -> NetObj {
    NetObj::copy_from(&[process as u8, 1, 2, 3, 4]).unwrap()
}

/// The results of a call that succeeds.
async fn results<T: Decode>(manager: &Manager, call: RpcCall) -> T {
    let answer = if call.program == nlm::PROGRAM {
        manager.nlm(call, Encoder::new()).await
    } else {
        manager.nsm(call, Encoder::new()).await
    };
    let Answer::Success(reply) = answer else { panic!("{answer:?}") };
    let mut d = Decoder::new(reply.into_bytes());
    let results = d.decode().unwrap();
    d.finish().unwrap();
    results
}

async fn stat(manager: &Manager, call: RpcCall, process: u32) -> NlmStat {
    let res: StatRes = results(manager, call).await;
    assert_eq!(res.cookie, cookie(process), "the cookie comes back");
    res.stat
}
