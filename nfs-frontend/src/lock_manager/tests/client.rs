//! A client machine: its port mapper and its lock manager, on one loopback port.

use crate::portmap::{Portmap, Service};
use crate::rpc::{Answer, RpcCall, RpcHandler, Transport};
use crate::server::{Limits, Server};
use atoll_proto::nlm::{self, NlmStat, StatRes, TestArgs};
use atoll_xdr::Encoder;
use std::collections::VecDeque;
use std::sync::{Arc, Mutex};
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio_util::sync::{CancellationToken, DropGuard};

/// What the client does with a GRANTED.
#[derive(Clone, Copy, Debug)]
pub(super) enum Does {
    Answer(NlmStat),
    /// Takes it (or not) and the answer is lost.
    Nothing,
}

/// A call that came.
#[derive(Debug)]
pub(super) enum Came {
    Granted { version: u32, transport: Transport, reserved: bool, args: TestArgs<u64> },
    Results { procedure: u32, res: StatRes },
}

struct Handler {
    portmap: Portmap,
    script: Mutex<VecDeque<Does>>,
    came: UnboundedSender<Came>,
}

impl RpcHandler for Handler {
    async fn handle(&self, call: RpcCall, mut reply: Encoder) -> Answer {
        if call.program != nlm::PROGRAM {
            return self.portmap.answer(&call, reply);
        }
        let mut args = call.args.clone();
        if call.procedure != 5 {
            let res = args.decode().unwrap();
            let _ = self.came.send(Came::Results { procedure: call.procedure, res });
            return Answer::Success(reply);
        }
        let args: TestArgs<u64> = match call.version {
            4 => args.decode().unwrap(),
            _ => args.decode::<TestArgs<u32>>().unwrap().widen(),
        };
        let cookie = args.cookie.clone();
        let came = Came::Granted {
            version: call.version,
            transport: call.transport,
            reserved: call.peer.port() < 1024,
            args,
        };
        let _ = self.came.send(came);
        match self.script.lock().unwrap().pop_front() {
            Some(Does::Answer(stat)) => {
                reply.put(&StatRes { cookie, stat });
                Answer::Success(reply)
            }
            Some(Does::Nothing) | None => Answer::Drop,
        }
    }
}

pub(super) struct Machine {
    pub(super) port: u16,
    pub(super) came: UnboundedReceiver<Came>,
    handler: Arc<Handler>,
    _stop: DropGuard,
}

impl Machine {
    pub(super) fn start(does: &[Does]) -> Self {
        Self::start_on("127.0.0.1:0", does)
    }

    pub(super) fn start_on(address: &str, does: &[Does]) -> Self {
        let limits = Limits::default();
        let server = Server::bind(address.parse().unwrap(), limits, &[100_000, nlm::PROGRAM]).unwrap();
        let port = server.tcp_addresses()[0].port();
        let service = |version| Service { program: nlm::PROGRAM, version, tcp: Some(port), udp: Some(port) };
        let (tell, came) = unbounded_channel();
        let handler = Arc::new(Handler {
            portmap: Portmap::new([1, 3, 4].map(service).to_vec(), port),
            script: Mutex::new(does.iter().copied().collect()),
            came: tell,
        });
        let stop = CancellationToken::new();
        tokio::spawn(server.run(handler.clone(), stop.clone()));
        Self { port, came, handler, _stop: stop.drop_guard() }
    }

    pub(super) fn will(&self, does: Does) {
        self.handler.script.lock().unwrap().push_back(does);
    }
}
