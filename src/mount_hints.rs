//! The exact words with which clients mount what is served.

use std::net::SocketAddr;

/// The port clients try by themselves.
const NFS_PORT: u16 = 2049;

/// Whether clients can ask a portmapper on port 111 for our ports.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PortMapper {
    /// They can: our own or the machine's.
    Reachable,
    /// They cannot, for this reason.
    Missing(String),
}

/// Lines for the terminal: how to mount `path` of `host` from each system.
pub fn lines(host: &str, nfs: SocketAddr, path: &str, mapper: &PortMapper) -> Vec<String> {
    let port = nfs.port();
    let mut out = vec![
        format!("Linux    mount -t nfs -o {} {host}:{path} /mnt", linux_options(port, mapper)),
        format!("macOS    mount -t nfs -o {} {host}:{path} /private/nfs", macos_options(port, mapper)),
    ];
    out.push(match mapper {
        PortMapper::Reachable => {
            format!("Windows  mount -o anon,mtype=hard \\\\{host}{} N:", path.replace('/', "\\"))
        }
        PortMapper::Missing(_) => {
            "Windows  cannot mount: its client needs a portmapper on port 111 (see the line above)".to_owned()
        }
    });
    out
}

/// What a Linux client mounts with.
pub fn linux_options(port: u16, mapper: &PortMapper) -> String {
    match mapper {
        PortMapper::Reachable if port == NFS_PORT => "vers=3".to_owned(),
        PortMapper::Reachable => format!("vers=3,port={port}"),
        // Without `proto` the client would ask a portmapper which transports there are, and wait a minute for none; the
        // lock manager it finds only through one.
        PortMapper::Missing(_) => format!("vers=3,proto=tcp,port={port},mountport={port},nolock"),
    }
}

fn macos_options(port: u16, mapper: &PortMapper) -> String {
    match mapper {
        PortMapper::Reachable if port == NFS_PORT => "vers=3,resvport".to_owned(),
        PortMapper::Reachable => format!("vers=3,resvport,port={port}"),
        PortMapper::Missing(_) => format!("vers=3,resvport,port={port},mountport={port},nolocks"),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn with_a_portmapper_the_line_is_short() {
        let lines = lines("fs", "0.0.0.0:2049".parse().unwrap(), "/", &PortMapper::Reachable);
        assert_eq!(lines[0], "Linux    mount -t nfs -o vers=3 fs:/ /mnt");
        assert_eq!(lines[2], "Windows  mount -o anon,mtype=hard \\\\fs\\ N:");
    }

    #[test]
    fn without_one_the_line_names_all_ports() {
        let missing = PortMapper::Missing("port 111 is taken".into());
        let lines = lines("fs", "127.0.0.1:12049".parse().unwrap(), "/media", &missing);
        assert_eq!(
            lines[0],
            "Linux    mount -t nfs -o vers=3,proto=tcp,port=12049,mountport=12049,nolock fs:/media /mnt"
        );
        assert!(lines[2].contains("cannot mount"));
    }
}
