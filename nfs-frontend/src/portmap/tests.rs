//! What the port mapper tells, and how rpcbind is told.
#![allow(clippy::unwrap_used)]

use super::{Announcement, Config, Portmap, Registration, Service, announce};
use crate::dispatch::services;
use crate::rpc::{Answer, Credential, RpcCall, RpcHandler, Transport};
use crate::server::client::{Route, call};
use crate::server::{Limits, Server};
use atoll_proto::portmap::v2::{IPPROTO_TCP, IPPROTO_UDP, Mapping};
use atoll_proto::portmap::v4::Rpcb;
use atoll_proto::portmap::{MAX_MAPPINGS, NetId, RpcbString, parse_uaddr, v2, v3, v4};
use atoll_proto::rpc::Procedure;
use atoll_xdr::{Decode, Decoder, Encode, Encoder, List, Opaque};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio_util::sync::{CancellationToken, DropGuard};

const PATIENCE: Duration = Duration::from_secs(5);

fn portmap() -> Portmap {
    Portmap::new(services(2049, Some(2050)), 111)
}

fn a_call(version: u32, procedure: u32, args: &impl Encode) -> RpcCall {
    let mut e = Encoder::new();
    e.put(args);
    RpcCall {
        peer: "10.0.0.9:800".parse().unwrap(),
        local: "10.0.0.1:111".parse().unwrap(),
        transport: Transport::Udp,
        xid: 1,
        program: 100_000,
        version,
        procedure,
        credential: Credential::None,
        connection: None,
        args: Decoder::new(e.into_bytes()),
    }
}

fn results<T: Decode>(answer: Answer) -> T {
    let Answer::Success(reply) = answer else { panic!("{answer:?}") };
    let mut d = Decoder::new(reply.into_bytes());
    let results = d.decode().unwrap();
    d.finish().unwrap();
    results
}

fn ask<P: Procedure>(args: &P::Args) -> P::Res {
    results(portmap().answer(&a_call(P::VERSION, P::PROCEDURE, args), Encoder::new()))
}

fn rpcb(program: u32, version: u32, netid: &str) -> Rpcb {
    let text = |s: &str| RpcbString::copy_from(s.as_bytes()).unwrap();
    Rpcb { program, version, netid: text(netid), addr: text(""), owner: text("") }
}

#[test]
fn version_2() {
    let port = |program, version, protocol| {
        ask::<v2::call::GetPort>(&Mapping { program, version, protocol, port: 0 })
    };
    assert_eq!(port(100_003, 3, IPPROTO_TCP), 2049);
    assert_eq!(port(100_003, 3, IPPROTO_UDP), 0, "NFS is not served in datagrams");
    assert_eq!(port(100_005, 3, IPPROTO_UDP), 2050);
    assert_eq!(port(100_005, 2, IPPROTO_TCP), 2049, "another version of it is there");
    assert_eq!(port(100_000, 2, IPPROTO_UDP), 111);
    assert_eq!(port(100_001, 1, IPPROTO_TCP), 0);
    assert_eq!(port(100_003, 3, 99), 0);
    let all = ask::<v2::call::Dump>(&());
    let nlm = Mapping { program: 100_021, version: 4, protocol: IPPROTO_TCP, port: 2049 };
    assert!(all.contains(&nlm));
    assert!(all.len() > 20 && all.len() < MAX_MAPPINGS);
    assert!(!ask::<v2::call::Set>(&nlm));
    assert!(!ask::<v2::call::Unset>(&nlm));
    ask::<v2::call::Null>(&());
}

#[test]
fn versions_3_and_4() {
    let addr = |version, netid| ask::<v4::call::GetAddr>(&rpcb(100_005, version, netid));
    assert_eq!(&addr(3, "tcp")[..], b"10.0.0.1.8.1");
    assert_eq!(&addr(3, "udp")[..], b"10.0.0.1.8.2");
    assert_eq!(&addr(3, "tcp6")[..], b"::.8.1", "not the family by which the caller came");
    assert_eq!(&addr(3, "local")[..], b"10.0.0.1.8.2", "the transport by which it came");
    assert_eq!(&addr(2, "tcp")[..], b"10.0.0.1.8.1");
    assert_eq!(&ask::<v4::call::GetVersAddr>(&rpcb(100_005, 2, "tcp"))[..], b"");
    assert_eq!(&ask::<v3::call::GetAddr>(&rpcb(100_005, 1, "tcp"))[..], b"10.0.0.1.8.1");
    assert_eq!(&ask::<v3::call::GetAddr>(&rpcb(1, 1, "tcp"))[..], b"");
    for all in [ask::<v3::call::Dump>(&()), ask::<v4::call::Dump>(&())] {
        let tcp6 = all.iter().find(|r| r.program == 100_003 && &r.netid[..] == b"tcp6").unwrap();
        assert_eq!((&tcp6.addr[..], &tcp6.owner[..]), (&b"::.8.1"[..], &b"superuser"[..]));
        assert!(all.iter().all(|r| parse_uaddr(&r.addr).is_some()));
    }
    let list = ask::<v4::call::GetAddrList>(&rpcb(100_021, 4, "tcp"));
    let seen: Vec<(&[u8], u32, &[u8])> =
        list.iter().map(|e| (&e.netid[..], e.semantics, &e.addr[..])).collect();
    assert_eq!(seen, [(&b"tcp"[..], 3, &b"10.0.0.1.8.1"[..]), (b"udp", 1, b"10.0.0.1.8.2")]);
    assert!(ask::<v4::call::GetTime>(&()) > 1_700_000_000);
    assert!(!ask::<v4::call::Set>(&rpcb(1, 1, "tcp")));
    for address in ["192.0.2.7.3.9", "2001:db8::7.3.9"] {
        let uaddr = Opaque::copy_from(address.as_bytes()).unwrap();
        let taddr = ask::<v3::call::Uaddr2Taddr>(&uaddr);
        assert_eq!(ask::<v3::call::Taddr2Uaddr>(&taddr), uaddr);
    }
    let nothing = ask::<v4::call::Uaddr2Taddr>(&Opaque::from_static(b"nonsense"));
    assert_eq!((nothing.maxlen, nothing.buf.len()), (0, 0));
}

#[test]
fn nothing_is_done_on_behalf_of_others() {
    let indirect = v2::CallItArgs { program: 100_005, version: 1, procedure: 0, args: Opaque::default() };
    for version in [2, 3, 4] {
        let answer = portmap().answer(&a_call(version, 5, &indirect), Encoder::new());
        assert!(matches!(answer, Answer::Drop));
    }
    let answer = portmap().answer(&a_call(4, 10, &indirect), Encoder::new());
    assert!(matches!(answer, Answer::ProcedureUnavailable));
    for (version, procedure) in [(2, 6), (3, 9), (3, 12), (4, 13)] {
        let answer = portmap().answer(&a_call(version, procedure, &()), Encoder::new());
        assert!(matches!(answer, Answer::ProcedureUnavailable));
    }
    for (version, procedure) in [(2, 3), (3, 3), (4, 9), (4, 11), (3, 7), (4, 8)] {
        let answer = portmap().answer(&a_call(version, procedure, &7u32), Encoder::new());
        assert!(matches!(answer, Answer::GarbageArgs), "{version} {procedure}");
    }
}

#[test]
fn statistics_count_calls() {
    let portmap = portmap();
    for _ in 0..3 {
        portmap.answer(&a_call(2, 4, &()), Encoder::new());
    }
    let Answer::Success(reply) = portmap.answer(&a_call(4, 12, &()), Encoder::new()) else { panic!() };
    let mut d = Decoder::new(reply.into_bytes());
    let words: Vec<u32> = std::iter::from_fn(|| d.u32().ok()).collect();
    assert_eq!(words.len(), 3 * 17);
    assert_eq!((words[4], words[2 * 17 + 12]), (3, 1));
}

/// An rpcbind: a table that anyone may change.
#[derive(Default)]
struct Rpcbind {
    table: Mutex<Vec<Rpcb>>,
    /// Answers version 2 only.
    old: bool,
    /// Lets nobody register.
    closed: bool,
}

impl RpcHandler for Rpcbind {
    async fn handle(&self, call: RpcCall, mut reply: Encoder) -> Answer {
        if self.old && call.version > 2 {
            return Answer::ProgramMismatch(2, 2);
        }
        let mut table = self.table.lock().unwrap();
        let same = |a: &Rpcb, b: &Rpcb| (a.program, a.version, &a.netid) == (b.program, b.version, &b.netid);
        if call.procedure == 0 {
            return Answer::Success(reply);
        }
        if call.procedure == 4 {
            reply.put(&List::<Rpcb, MAX_MAPPINGS>::new(table.clone()).unwrap());
            return Answer::Success(reply);
        }
        let entry: Rpcb = if call.version == 2 {
            let m: Mapping = call.args.clone().decode().unwrap();
            let netid = if m.protocol == IPPROTO_TCP { "tcp" } else { "udp" };
            let mut entry = rpcb(m.program, m.version, netid);
            let addr = format!("0.0.0.0.{}.{}", m.port >> 8, m.port & 255);
            entry.addr = Opaque::copy_from(addr.as_bytes()).unwrap();
            entry
        } else {
            call.args.clone().decode().unwrap()
        };
        let at = table.iter().position(|r| same(r, &entry));
        match call.procedure {
            1 => {
                let stands = at.is_none_or(|at| table[at].addr == entry.addr) && !self.closed;
                if stands && at.is_none() {
                    table.push(entry);
                }
                reply.bool(stands);
            }
            2 => {
                reply.bool(at.is_some());
                at.map(|at| table.remove(at));
            }
            3 => {
                let port = at.map_or(0, |at| parse_uaddr(&table[at].addr).unwrap().port());
                reply.u32(port.into());
            }
            other => panic!("procedure {other}"),
        }
        Answer::Success(reply)
    }
}

struct Running {
    rpcbind: Arc<Rpcbind>,
    address: SocketAddr,
    _stop: DropGuard,
}

fn run(rpcbind: Rpcbind) -> Running {
    let server = Server::bind("127.0.0.1:0".parse().unwrap(), Limits::default(), &[100_000]).unwrap();
    let address = server.tcp_addresses()[0];
    let rpcbind = Arc::new(rpcbind);
    let stop = CancellationToken::new();
    tokio::spawn(server.run(rpcbind.clone(), stop.clone()));
    Running { rpcbind, address, _stop: stop.drop_guard() }
}

fn config(port: u16) -> Config {
    Config {
        port,
        socket: PathBuf::from("/nonexistent/rpcbind.sock"),
        patience: PATIENCE,
        ..Config::default()
    }
}

async fn announce_to(running: &Running, services: &[Service], address: &str) -> Announcement {
    let mut server = Server::new(Limits::default());
    announce(&mut server, address.parse().unwrap(), services, &config(running.address.port())).await
}

fn entry(program: u32, version: u32, netid: NetId, port: u16) -> Registration {
    Registration { program, version, netid, port }
}

#[tokio::test]
async fn the_well_known_port_itself_if_it_is_free() {
    let mut server = Server::new(Limits::default());
    // A port that was free a moment ago.
    let free = Server::bind("127.0.0.1:0".parse().unwrap(), Limits::default(), &[]).unwrap();
    let address = free.tcp_addresses()[0];
    drop(free);
    let services = services(2049, Some(2049));
    let announced = announce(&mut server, address.ip(), &services, &config(address.port())).await;
    assert!(matches!(announced, Announcement::OwnPort111), "{announced:?}");
    struct Mapper(Portmap);
    impl RpcHandler for Mapper {
        async fn handle(&self, call: RpcCall, reply: Encoder) -> Answer {
            self.0.answer(&call, reply)
        }
    }
    let stop = CancellationToken::new();
    let running = tokio::spawn(server.run(Arc::new(Mapper(Portmap::new(services, 111))), stop.clone()));
    for transport in [Transport::Tcp, Transport::Udp] {
        let route = Route { to: address, transport, from: None };
        let mapping = Mapping { program: 100_005, version: 3, protocol: IPPROTO_UDP, port: 0 };
        assert_eq!(call::<v2::call::GetPort>(route, PATIENCE, &mapping).await.unwrap(), 2049);
    }
    stop.cancel();
    running.await.unwrap();
}

#[tokio::test]
async fn a_running_rpcbind_is_told_and_untold() {
    let running = run(Rpcbind::default());
    let announced = announce_to(&running, &services(2049, Some(2049)), "::").await;
    let Announcement::Registered(registered) = announced else { panic!("{announced:?}") };
    assert!(registered.held_by_others.is_empty());
    for netid in NetId::ALL {
        assert!(registered.entries.contains(&entry(100_005, 3, netid, 2049)));
        assert_eq!(registered.entries.contains(&entry(100_003, 3, netid, 2049)), netid.is_stream());
    }
    assert_eq!(running.rpcbind.table.lock().unwrap().len(), registered.entries.len());
    Announcement::Registered(registered).withdraw().await;
    assert!(running.rpcbind.table.lock().unwrap().is_empty());
    // A server of one family.
    let announced = announce_to(&running, &services(2049, None), "127.0.0.1").await;
    let Announcement::Registered(registered) = announced else { panic!("{announced:?}") };
    assert!(registered.entries.iter().all(|e| e.netid == NetId::Tcp));
}

#[tokio::test]
async fn by_the_local_socket_first() {
    let running = run(Rpcbind::default());
    let dir = std::env::temp_dir().join(format!("atoll-rpcbind-{}", std::process::id()));
    std::fs::create_dir_all(&dir).unwrap();
    let socket = dir.join("rpcbind.sock");
    let _ = std::fs::remove_file(&socket);
    let listener = tokio::net::UnixListener::bind(&socket).unwrap();
    let to = running.address;
    let relay = tokio::spawn(async move {
        let mut connections = 0;
        while let Ok((mut from, _)) = listener.accept().await {
            connections += 1;
            let mut to = tokio::net::TcpStream::connect(to).await.unwrap();
            let _ = tokio::io::copy_bidirectional(&mut from, &mut to).await;
            if connections == 1 {
                break;
            }
        }
    });
    let mut server = Server::new(Limits::default());
    let config = Config { socket: socket.clone(), ..config(running.address.port()) };
    let one = [Service { program: 100_003, version: 3, tcp: Some(2049), udp: None }];
    let announced = announce(&mut server, "127.0.0.1".parse().unwrap(), &one, &config).await;
    assert!(matches!(announced, Announcement::Registered(_)), "{announced:?}");
    relay.await.unwrap();
    std::fs::remove_dir_all(dir).unwrap();
}

#[tokio::test]
async fn what_is_left_of_a_former_life_is_replaced_and_the_living_are_left_alone() {
    let running = run(Rpcbind::default());
    let living = run(Rpcbind::default());
    let dead = Server::bind("127.0.0.1:0".parse().unwrap(), Limits::default(), &[]).unwrap();
    let dead_port = dead.tcp_addresses()[0].port();
    drop(dead);
    let with_port = |program, version, port: u16| {
        let addr = format!("0.0.0.0.{}.{}", port >> 8, port & 255);
        Rpcb { addr: Opaque::copy_from(addr.as_bytes()).unwrap(), ..rpcb(program, version, "tcp") }
    };
    let table = vec![
        with_port(100_003, 3, dead_port),
        with_port(100_024, 1, living.address.port()),
        with_port(100_021, 4, 2049),
    ];
    *running.rpcbind.table.lock().unwrap() = table;
    let announced = announce_to(&running, &services(2049, None), "127.0.0.1").await;
    let Announcement::Registered(registered) = announced else { panic!("{announced:?}") };
    assert_eq!(registered.held_by_others, [entry(100_024, 1, NetId::Tcp, 2049)]);
    let port_of = |program| {
        let table = running.rpcbind.table.lock().unwrap();
        parse_uaddr(&table.iter().find(|r| r.program == program).unwrap().addr).unwrap().port()
    };
    assert_eq!((port_of(100_003), port_of(100_021)), (2049, 2049));
    registered.withdraw().await;
    assert_eq!(running.rpcbind.table.lock().unwrap().len(), 1, "the other's is left");
}

#[tokio::test]
async fn an_old_port_mapper_is_told_what_it_understands() {
    let running = run(Rpcbind { old: true, ..Rpcbind::default() });
    let announced = announce_to(&running, &services(2049, Some(2049)), "::").await;
    let Announcement::Registered(registered) = announced else { panic!("{announced:?}") };
    assert!(registered.entries.contains(&entry(100_005, 3, NetId::Udp, 2049)));
    assert!(registered.entries.iter().all(|e| !e.netid.is_ipv6()));
}

#[tokio::test]
async fn otherwise_the_reason_is_told() {
    let running = run(Rpcbind { closed: true, ..Rpcbind::default() });
    let announced = announce_to(&running, &services(2049, None), "127.0.0.1").await;
    let Announcement::None { reason } = announced else { panic!("{announced:?}") };
    assert!(reason.contains("in use") && reason.contains("refuses"), "{reason}");
    let mut server = Server::new(Limits::default());
    let config = Config { listen: false, register: false, ..config(1) };
    let announced = announce(&mut server, "127.0.0.1".parse().unwrap(), &[], &config).await;
    assert!(matches!(announced, Announcement::None { .. }));
}
