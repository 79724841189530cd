//! Which program is answered by whom, in which versions.

use crate::portmap::{Portmap, Service};
use crate::rpc::{Answer, RpcCall, RpcHandler};
use atoll_proto::{mount, nfs3, nfs4, nfsacl, nlm, nsm, portmap, rquota};
use atoll_xdr::Encoder;
use std::future::Future;
use std::sync::Arc;

/// The programs of the file system engine.
pub trait FileService: Send + Sync + 'static {
    /// NFS version 3 (RFC 1813 §3).
    fn nfs3(&self, call: RpcCall, reply: Encoder) -> impl Future<Output = Answer> + Send;
    /// NFS version 4, minor versions 0 to 2 (RFC 7530, RFC 8881, RFC 7862).
    fn nfs4(&self, call: RpcCall, reply: Encoder) -> impl Future<Output = Answer> + Send;
    /// MOUNT versions 1 and 3 (RFC 1813 §5).
    fn mount(&self, call: RpcCall, reply: Encoder) -> impl Future<Output = Answer> + Send;
    /// NFSACL version 3.
    fn nfsacl(&self, call: RpcCall, reply: Encoder) -> impl Future<Output = Answer> + Send;
    /// RQUOTA versions 1 and 2.
    fn rquota(&self, call: RpcCall, reply: Encoder) -> impl Future<Output = Answer> + Send;
}

/// The programs of the lock manager.
pub trait LockService: Send + Sync + 'static {
    /// NLM versions 1, 3 and 4 (RFC 1813 §6).
    fn nlm(&self, call: RpcCall, reply: Encoder) -> impl Future<Output = Answer> + Send;
    /// NSM version 1.
    fn nsm(&self, call: RpcCall, reply: Encoder) -> impl Future<Output = Answer> + Send;
}

/// Versions of a program, in rising order, and whether it is also served in datagrams.
struct Program {
    number: u32,
    versions: &'static [u32],
    datagrams: bool,
}

/// NFS itself is not among those served in datagrams: a lost fragment loses a whole READ or WRITE, and IP identifiers wrap so fast on
/// today's networks that fragments of different datagrams are put together (nfs(5)).
const PROGRAMS: [Program; 7] = [
    Program { number: portmap::PROGRAM, versions: &[2, 3, 4], datagrams: true },
    Program { number: nfs3::PROGRAM, versions: &[nfs3::VERSION, nfs4::VERSION], datagrams: false },
    Program { number: mount::PROGRAM, versions: &[1, 3], datagrams: true },
    Program { number: nlm::PROGRAM, versions: &[1, 3, 4], datagrams: true },
    Program { number: nsm::PROGRAM, versions: &[1], datagrams: true },
    Program { number: rquota::PROGRAM, versions: &[1, 2], datagrams: true },
    Program { number: nfsacl::PROGRAM, versions: &[3], datagrams: false },
];

/// Programs that are served in datagrams.
pub fn datagram_programs() -> Vec<u32> {
    PROGRAMS.iter().filter(|p| p.datagrams).map(|p| p.number).collect()
}

/// What a portmapper is to know when the programs are served on these ports; without the portmapper itself.
pub fn services(tcp: u16, udp: Option<u16>) -> Vec<Service> {
    let programs = PROGRAMS.iter().filter(|p| p.number != portmap::PROGRAM);
    let each = programs.flat_map(|p| p.versions.iter().map(move |version| (p, *version)));
    each.map(|(p, version)| Service {
        program: p.number,
        version,
        tcp: Some(tcp),
        udp: udp.filter(|_| p.datagrams),
    })
    .collect()
}

/// All programs, as one handler.
#[derive(Debug)]
pub struct Programs<F, L> {
    files: Arc<F>,
    locks: Arc<L>,
    portmap: Portmap,
}

impl<F: FileService, L: LockService> Programs<F, L> {
    /// Composes them.
    pub fn new(files: Arc<F>, locks: Arc<L>, portmap: Portmap) -> Self {
        Self { files, locks, portmap }
    }
}

/// The answer to a call of a program or version that is not served.
fn unserved(program: u32, version: u32) -> Option<Answer> {
    let Some(Program { versions, .. }) = PROGRAMS.iter().find(|p| p.number == program) else {
        return Some(Answer::ProgramUnavailable);
    };
    match (versions.first(), versions.last()) {
        _ if versions.contains(&version) => None,
        (Some(low), Some(high)) => Some(Answer::ProgramMismatch(*low, *high)),
        _ => Some(Answer::ProgramUnavailable),
    }
}

impl<F: FileService, L: LockService> RpcHandler for Programs<F, L> {
    async fn handle(&self, call: RpcCall, reply: Encoder) -> Answer {
        if call.program == nfs3::PROGRAM && call.version == nfs3::VERSION {
            return self.files.nfs3(call, reply).await;
        }
        if let Some(answer) = unserved(call.program, call.version) {
            return answer;
        }
        if call.program == nfs4::PROGRAM {
            return self.files.nfs4(call, reply).await;
        }
        // Boxed, so that the future of the common cases above is no larger than it must be.
        match call.program {
            nfsacl::PROGRAM => Box::pin(self.files.nfsacl(call, reply)).await,
            mount::PROGRAM => Box::pin(self.files.mount(call, reply)).await,
            rquota::PROGRAM => Box::pin(self.files.rquota(call, reply)).await,
            nlm::PROGRAM => Box::pin(self.locks.nlm(call, reply)).await,
            nsm::PROGRAM => Box::pin(self.locks.nsm(call, reply)).await,
            _ => self.portmap.answer(&call, reply),
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::rpc::{Credential, Transport};
    use atoll_xdr::Decoder;
    use bytes::Bytes;

    struct Names;

    fn name(mut reply: Encoder, name: &[u8]) -> Answer {
        reply.opaque(name);
        Answer::Success(reply)
    }

    impl FileService for Names {
        async fn nfs3(&self, _: RpcCall, reply: Encoder) -> Answer {
            name(reply, b"nfs3")
        }
        async fn nfs4(&self, _: RpcCall, reply: Encoder) -> Answer {
            name(reply, b"nfs4")
        }
        async fn mount(&self, _: RpcCall, reply: Encoder) -> Answer {
            name(reply, b"mount")
        }
        async fn nfsacl(&self, _: RpcCall, reply: Encoder) -> Answer {
            name(reply, b"nfsacl")
        }
        async fn rquota(&self, _: RpcCall, reply: Encoder) -> Answer {
            name(reply, b"rquota")
        }
    }

    impl LockService for Names {
        async fn nlm(&self, _: RpcCall, reply: Encoder) -> Answer {
            name(reply, b"nlm")
        }
        async fn nsm(&self, _: RpcCall, reply: Encoder) -> Answer {
            name(reply, b"nsm")
        }
    }

    async fn ask(program: u32, version: u32) -> Answer {
        let services = services(2049, Some(2049));
        let programs = Programs::new(Arc::new(Names), Arc::new(Names), Portmap::new(services, 2049));
        let call = RpcCall {
            peer: "127.0.0.1:800".parse().unwrap(),
            local: "127.0.0.1:2049".parse().unwrap(),
            transport: Transport::Tcp,
            xid: 1,
            program,
            version,
            procedure: 0,
            credential: Credential::None,
            connection: None,
            args: Decoder::new(Bytes::new()),
        };
        programs.handle(call, Encoder::new()).await
    }

    #[tokio::test]
    async fn each_program_has_its_engine() {
        let expected: [(u32, &[u32], &[u8]); 7] = [
            (100_003, &[3], b"nfs3"),
            (100_003, &[4], b"nfs4"),
            (100_005, &[1, 3], b"mount"),
            (100_021, &[1, 3, 4], b"nlm"),
            (100_024, &[1], b"nsm"),
            (100_011, &[1, 2], b"rquota"),
            (100_227, &[3], b"nfsacl"),
        ];
        for (program, versions, name) in expected {
            for version in versions {
                let Answer::Success(reply) = ask(program, *version).await else {
                    panic!("{program} {version}")
                };
                assert_eq!(Decoder::new(reply.into_bytes()).opaque_ref(20).unwrap(), name);
            }
        }
        for version in [2, 3, 4] {
            assert!(matches!(ask(100_000, version).await, Answer::Success(_)));
        }
    }

    #[tokio::test]
    async fn what_is_not_served() {
        assert!(matches!(ask(100_001, 1).await, Answer::ProgramUnavailable));
        for (program, version, low, high) in [
            (100_003, 2, 3, 4),
            (100_003, 5, 3, 4),
            (100_005, 2, 1, 3),
            (100_021, 2, 1, 4),
            (100_000, 1, 2, 4),
            (100_227, 2, 3, 3),
        ] {
            let Answer::ProgramMismatch(l, h) = ask(program, version).await else { panic!("{program}") };
            assert_eq!((l, h), (low, high));
        }
    }

    #[test]
    fn nfs_is_not_offered_in_datagrams() {
        let services = services(2049, Some(2050));
        let nfs = services.iter().find(|s| s.program == 100_003).unwrap();
        assert_eq!((nfs.tcp, nfs.udp), (Some(2049), None));
        let mount = services.iter().find(|s| s.program == 100_005).unwrap();
        assert_eq!((mount.tcp, mount.udp), (Some(2049), Some(2050)));
        assert!(!datagram_programs().contains(&100_003));
    }
}
