//! Calls per second and server CPU per call of the sockets alone: a handler that answers like GETATTR from memory.
//!
//! `cargo run --release -p atoll-nfs --example rpc_rate`

#![allow(clippy::unwrap_used)]

use atoll_nfs::rpc::{Answer, RpcCall, RpcHandler};
use atoll_nfs::server::{Limits, Server};
use atoll_proto::rpc::{AuthSys, CallHeader, Gids, OpaqueAuth};
use atoll_xdr::{Encoder, Opaque};
use bytes::Bytes;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::mpsc;
use std::time::{Duration, Instant};
use tokio_util::sync::CancellationToken;

/// Length of the results of GETATTR: status and `fattr3`.
const GETATTR_RESULTS: usize = 88;

struct Getattr {
    payload: Bytes,
}

impl RpcHandler for Getattr {
    async fn handle(&self, call: RpcCall, mut reply: Encoder) -> Answer {
        let mut args = call.args;
        match call.procedure {
            1 => {
                let Ok(handle) = args.opaque_ref(64) else { return Answer::GarbageArgs };
                std::hint::black_box(handle);
                reply.raw(&[0; GETATTR_RESULTS]);
            }
            6 => reply.opaque_bytes(self.payload.clone()),
            7 => reply.u32(args.remaining() as u32),
            _ => {}
        }
        Answer::Success(reply)
    }
}

fn record(procedure: u32, args: &[u8]) -> Vec<u8> {
    let sys = AuthSys {
        stamp: 0,
        machine_name: Opaque::from_static(b"client"),
        uid: 1000,
        gid: 1000,
        gids: Gids::new(&[1000, 4, 24, 27]).unwrap(),
    };
    let credential = OpaqueAuth::sys(&sys);
    let header = CallHeader {
        xid: 1,
        program: 100_003,
        version: 3,
        procedure,
        credential,
        verifier: OpaqueAuth::NONE,
    };
    let mut e = Encoder::new();
    e.put(&header);
    e.raw(args);
    let message = e.into_bytes();
    let mut record = (message.len() as u32 | 1 << 31).to_be_bytes().to_vec();
    record.extend_from_slice(&message);
    record
}

/// CPU time of the calling thread.
fn cpu() -> Duration {
    let line = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap();
    Duration::from_nanos(line.split_whitespace().next().unwrap().parse().unwrap())
}

fn run(
    name: &str,
    address: SocketAddr,
    call: &[u8],
    reply: usize,
    in_flight: usize,
) -> (String, u64, Duration) {
    let mut socket = TcpStream::connect(address).unwrap();
    socket.set_nodelay(true).unwrap();
    let batch = call.repeat(in_flight);
    let mut replies = vec![0; reply * in_flight];
    let begin = Instant::now();
    let mut calls = 0;
    while begin.elapsed() < Duration::from_secs(2) {
        let (head, tail) = replies.split_at_mut(reply);
        if call.len() * in_flight > 1 << 18 {
            // Large batches would fill both socket buffers: one at a time.
            for _ in 0..in_flight {
                socket.write_all(call).unwrap();
            }
        } else {
            socket.write_all(&batch).unwrap();
        }
        socket.read_exact(head).unwrap();
        socket.read_exact(tail).unwrap();
        calls += in_flight as u64;
    }
    (format!("{name}, {in_flight} in flight"), calls, begin.elapsed())
}

fn main() {
    let (ready, address) = mpsc::channel();
    let (ask, asked) = mpsc::channel::<mpsc::Sender<Duration>>();
    let stop = CancellationToken::new();
    let server_stop = stop.clone();
    let server = std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let server = Server::bind("127.0.0.1:0".parse().unwrap(), Limits::default(), &[]).unwrap();
            ready.send(server.tcp_addresses()[0]).unwrap();
            let handler = Arc::new(Getattr { payload: vec![1; 4096].into() });
            let serving = tokio::spawn(server.run(handler, server_stop));
            // The server's only thread tells its own CPU time now and then.
            let telling = async {
                loop {
                    tokio::time::sleep(Duration::from_millis(5)).await;
                    while let Ok(who) = asked.try_recv() {
                        let _ = who.send(cpu());
                    }
                }
            };
            tokio::select! { _ = serving => {}, () = telling => {} }
        });
    });
    let address = address.recv().unwrap();
    let server_cpu = || {
        let (tell, told) = mpsc::channel();
        ask.send(tell).unwrap();
        told.recv().unwrap()
    };
    let getattr = record(1, &[&32u32.to_be_bytes()[..], &[7; 32]].concat());
    let write = record(7, &vec![3; 1 << 20]);
    let reply = 4 + 24 + GETATTR_RESULTS;
    for (name, call, reply, in_flight) in [
        ("NULL", record(0, &[]), 28, 64),
        ("GETATTR", getattr.clone(), reply, 1),
        ("GETATTR", getattr.clone(), reply, 16),
        ("GETATTR", getattr.clone(), reply, 64),
        ("GETATTR", getattr, reply, 256),
        ("READ 4 KiB", record(6, &[]), 4 + 24 + 4 + 4096, 16),
        ("WRITE 1 MiB", write, 4 + 24 + 4, 4),
    ] {
        let before = server_cpu();
        let (name, calls, time) = run(name, address, &call, reply, in_flight);
        let cpu = server_cpu() - before;
        println!(
            "{name:24} {:>9.0} calls/s  {:>7.2} µs of server CPU per call",
            calls as f64 / time.as_secs_f64(),
            cpu.as_secs_f64() * 1e6 / calls as f64
        );
    }
    stop.cancel();
    server.join().unwrap();
}
