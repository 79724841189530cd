//! Callbacks of v4.0: the server connects to the address that the client gave with SETCLIENTID (RFC 7530 §10.2.1, §15.2, §16.33).
//!
//! A path is tried by CB_NULL in the background once the client is confirmed, or when it first asks for something that needs one; until that was answered there are no
//! delegations. Each callback is a connection of its own, from the address that the client knows the server by. Only the address that a client calls from is called
//! back: else anybody could have the server connect to anywhere.

use crate::engine::Engine;
use crate::engine::v4::back::BackError;
use crate::rpc::Transport;
use crate::server::client::{Route, Target, call_target};
use atoll_base::block::BlockService;
use atoll_meta::MetadataService;
use atoll_meta::nfs4::{Callback40, ClientId};
use atoll_proto::nfs4::callback::{CbArgOp4, CbCompound4Args, CbCompound4Res, CbResOp4, VERSION};
use atoll_proto::nfs4::{NfsStat4, Tag};
use atoll_proto::portmap::parse_uaddr;
use atoll_xdr::Array;
use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::time::Instant;

/// Time for the answer to CB_NULL.
const PROBE: Duration = Duration::from_secs(3);

/// How long a path that failed is left alone.
const REST: Duration = Duration::from_secs(60);

/// Clients whose paths are known; of more, those that rest are forgotten first.
const PATHS_MAX: usize = 1 << 14;

const CB_NULL: u32 = 0;
const CB_COMPOUND: u32 = 1;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Standing {
    /// CB_NULL is on its way.
    Tried,
    Up,
    /// Since then. `holding`: a recall did not reach the client.
    Down {
        since: Instant,
        holding: bool,
    },
}

#[derive(Clone, Copy, Debug)]
struct Path {
    /// Our address that the client called.
    local: Option<IpAddr>,
    standing: Standing,
}

/// What is known of the clients' callback services.
#[derive(Debug, Default)]
pub(crate) struct Paths(Mutex<HashMap<ClientId, Path>>);

impl Paths {
    fn lock(&self) -> MutexGuard<'_, HashMap<ClientId, Path>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether a client can be called; and whether it is to be tried now.
    fn look(&self, client: ClientId, local: Option<IpAddr>) -> (bool, bool) {
        let mut paths = self.lock();
        match paths.get(&client).map(|path| path.standing) {
            Some(Standing::Up) => return (true, false),
            Some(Standing::Tried) => return (false, false),
            Some(Standing::Down { since, .. }) if since.elapsed() < REST => return (false, false),
            Some(Standing::Down { .. }) | None => {}
        }
        if paths.len() >= PATHS_MAX {
            paths.retain(|_, path| !matches!(path.standing, Standing::Down { .. }));
            if paths.len() >= PATHS_MAX {
                return (false, false);
            }
        }
        paths.insert(client, Path { local, standing: Standing::Tried });
        (false, true)
    }

    fn set(&self, client: ClientId, standing: Standing) {
        if let Some(path) = self.lock().get_mut(&client) {
            path.standing = standing;
        }
    }

    fn local(&self, client: ClientId) -> Option<IpAddr> {
        self.lock().get(&client)?.local
    }

    /// Whether a delegation could not be recalled from the client (RENEW says NFS4ERR_CB_PATH_DOWN, RFC 7530 §16.28.4).
    pub(crate) fn is_missed(&self, client: ClientId) -> bool {
        let down = |path: &Path| matches!(path.standing, Standing::Down { holding: true, .. });
        self.lock().get(&client).is_some_and(down)
    }

    /// The client is gone, or gave another address.
    pub(crate) fn forget(&self, client: ClientId) {
        self.lock().remove(&client);
    }
}

/// Where a client is to be called; `None` where it must not be.
fn address(callback: &Callback40, caller: Option<IpAddr>) -> Option<SocketAddr> {
    let fits = |addr: &SocketAddr| match &callback.netid[..] {
        b"tcp" => addr.is_ipv4(),
        b"tcp6" => addr.is_ipv6(),
        _ => false,
    };
    let addr = parse_uaddr(&callback.address).filter(fits)?;
    (Some(addr.ip().to_canonical()) == caller && addr.port() != 0).then_some(addr)
}

impl<M: MetadataService, B: BlockService> Engine<M, B> {
    /// Whether a client of v4.0 can be called. If that is not known it is found out in the background.
    pub(crate) fn has_path_40(&self, client: ClientId, local: IpAddr) -> bool {
        let (up, to_try) = self.v4.delegations.paths40.look(client, Some(local));
        if to_try && let Some(engine) = self.this.upgrade() {
            tokio::spawn(async move { engine.probe_40(client).await });
        }
        up
    }

    async fn probe_40(&self, client: ClientId) {
        let known = self.meta.client(client).await.ok().flatten();
        let target = known.as_ref().and_then(|known| {
            let callback = known.callback.as_ref()?;
            Some((callback.program, address(callback, known.about.address)?))
        });
        let paths = &self.v4.delegations.paths40;
        let answered = match target {
            Some((program, to)) => {
                let route = Route { to, transport: Transport::Tcp, from: paths.local(client) };
                let target = Target { program, version: VERSION, procedure: CB_NULL };
                let answer = call_target::<()>(route, PROBE, target, &()).await;
                answer.inspect_err(|error| tracing::debug!(%to, %error, "no path for callbacks")).is_ok()
            }
            None => false,
        };
        let down = Standing::Down { since: Instant::now(), holding: false };
        paths.set(client, if answered { Standing::Up } else { down });
        if answered {
            self.v4.delegations.paths.wake(client);
        }
    }

    /// Sends one operation to a client of v4.0.
    pub(crate) async fn call_back_40(
        &self,
        client: ClientId,
        callback: &Callback40,
        caller: Option<IpAddr>,
        op: CbArgOp4,
        patience: Duration,
    ) -> Result<CbResOp4, BackError> {
        let to = address(callback, caller).ok_or(BackError::NoPath)?;
        let number = op.op();
        let args = CbCompound4Args {
            tag: Tag::default(),
            minorversion: 0,
            callback_ident: callback.ident,
            ops: Array::new(vec![op]).map_err(|_| BackError::Refused)?,
        };
        let paths = &self.v4.delegations.paths40;
        let route = Route { to, transport: Transport::Tcp, from: paths.local(client) };
        let target = Target { program: callback.program, version: VERSION, procedure: CB_COMPOUND };
        match call_target::<CbCompound4Res>(route, patience, target, &args).await {
            Ok(res) => {
                paths.set(client, Standing::Up);
                match (res.ops.into_vec().pop(), res.status) {
                    (Some(result), _) => Ok(result),
                    (None, status) => Ok(number.failed(status.err().unwrap_or(NfsStat4::ServerFault))),
                }
            }
            Err(error) => {
                tracing::debug!(%to, %error, "a callback was not answered");
                paths.set(client, Standing::Down { since: Instant::now(), holding: true });
                Err(if error.may_have_been_executed() { BackError::Unanswered } else { BackError::NoPath })
            }
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use bytes::Bytes;

    #[test]
    fn only_the_callers_own_address_is_called() {
        let callback = |netid: &'static str, address: &'static str| Callback40 {
            program: 1,
            netid: Bytes::from_static(netid.as_bytes()),
            address: Bytes::from_static(address.as_bytes()),
            ident: 1,
        };
        let caller: Option<IpAddr> = Some("192.0.2.1".parse().unwrap());
        let known = address(&callback("tcp", "192.0.2.1.3.232"), caller);
        assert_eq!(known, Some("192.0.2.1:1000".parse().unwrap()));
        assert_eq!(address(&callback("tcp", "192.0.2.2.3.232"), caller), None);
        assert_eq!(address(&callback("tcp", "192.0.2.1.0.0"), caller), None);
        assert_eq!(address(&callback("udp", "192.0.2.1.3.232"), caller), None);
        assert_eq!(address(&callback("tcp6", "192.0.2.1.3.232"), caller), None);
        assert_eq!(address(&callback("tcp", ""), caller), None);
        assert_eq!(address(&callback("tcp", "192.0.2.1.3.232"), None), None);
    }

    #[tokio::test(start_paused = true)]
    async fn a_path_is_tried_once_and_again_after_a_rest() {
        let paths = Paths::default();
        let client = ClientId(1);
        assert_eq!(paths.look(client, None), (false, true));
        assert_eq!(paths.look(client, None), (false, false));
        paths.set(client, Standing::Up);
        assert_eq!(paths.look(client, None), (true, false));
        paths.set(client, Standing::Down { since: Instant::now(), holding: true });
        assert_eq!(paths.look(client, None), (false, false));
        assert!(paths.is_missed(client));
        tokio::time::advance(REST).await;
        assert_eq!(paths.look(client, None), (false, true));
        assert!(!paths.is_missed(client));
    }
}
