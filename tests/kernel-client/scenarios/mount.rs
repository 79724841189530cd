//! Mounting with MOUNT over TCP and over UDP, and what administrators look at: `df`, `showmount`.

use std::sync::Arc;
use std::time::Duration;

use crate::lab::Lab;
use crate::lab::client::{Client, MNT};
use crate::lab::server::{Kind, Server};

#[test]
fn mounts_and_serves_files() {
    let lab = Arc::new(Lab::new("mount"));
    let mut client = Client::boot(&lab, 'a');
    let mut server = Server::start(&lab);
    for options in ["mountproto=tcp,nolock", "mountproto=udp,nolock"] {
        client.mount(&server, options);
        let source = server.mount_source();
        let mounts = client.sh("cat /proc/mounts");
        let line = mounts.lines().find(|l| l.contains(MNT)).expect("is mounted");
        for part in [source.as_str(), " nfs ", "vers=3", "proto=tcp", options.split(',').next().unwrap()] {
            assert!(line.contains(part), "no {part} in {line}");
        }
        client.sh(&format!("umount {MNT}"));
    }

    // The client asks the server's portmapper for all ports, as a plain `mount` does.
    let source = server.mount_source();
    client.sh(&format!("mount -t nfs -o vers=3 {source} {MNT}"));
    client.sh(
        "cd /mnt/nfs; echo hello > greeting; mkdir folder; ln -s ../greeting folder/link; ln greeting folder/hard
         seq 200000 > folder/numbers; chmod 640 greeting; touch -d '2001-02-03 04:05:06.789' greeting",
    );
    client.sh(&format!("umount {MNT}"));
    client.mount(&server, "mountproto=tcp,nolock");
    let seen = client.sh("cd /mnt/nfs; ls -A; ls -A folder; cat folder/link; readlink folder/link
         seq 200000 | cmp - folder/numbers && echo same
         stat -c '%A %h %s %n' greeting folder; stat -c %y greeting | cut -c1-23");
    let expected = "folder\ngreeting\nhard\nlink\nnumbers\nhello\n../greeting\nsame\n\
                    -rw-r----- 2 6 greeting\ndrwxr-xr-x 2 ";
    let without_lost_found = seen.replace("lost+found\n", "");
    assert!(without_lost_found.starts_with(expected), "{seen}");
    assert!(seen.ends_with("2001-02-03 04:05:06.789\n"), "{seen}");

    let df = client
        .sh("df -B1 --output=size,used,avail /mnt/nfs | tail -1; df --output=itotal /mnt/nfs | tail -1");
    let numbers: Vec<u64> = df.split_whitespace().map(|n| n.parse().unwrap()).collect();
    let [size, used, available, inodes] = numbers[..] else { panic!("{df}") };
    assert!(size > 0 && used + available <= size && available > 0 && inodes > 0, "{df}");

    showmount(&lab, &server, &client.addr());

    // A graceful stop and a start do not disturb the mounted client.
    server.stop();
    server.start_again();
    let again = client.sh("cat /mnt/nfs/greeting; echo more >> /mnt/nfs/greeting; cat /mnt/nfs/folder/hard");
    assert_eq!(again, "hello\nhello\nmore\n");
    client.no_complaints();
}

/// `showmount` finds MOUNT through the portmapper; old ones speak version 1, which today's does not.
fn showmount(lab: &Lab, server: &Server, client: &str) {
    let addr = server.addr();
    let run = |flag: &str| {
        let done = lab.run(&["showmount", "--no-headers", flag, addr], Duration::from_secs(30));
        assert_eq!(done.status, 0, "showmount {flag}: {}", done.err);
        done.out
    };
    let path = if server.kind() == Kind::Ganesha { "export" } else { server.export() };
    let exports = run("-e");
    assert!(
        exports.lines().any(|l| l.split_whitespace().next().is_some_and(|p| p.ends_with(path))),
        "{exports}"
    );
    if server.kind() == Kind::Ganesha {
        return; // It keeps no list of its mounts.
    }
    let all = run("-a");
    let named = |host: &str| all.lines().any(|l| l == format!("{host}:{path}"));
    assert!(named(client) || named("clienta"), "{all}");
    let directories = run("-d");
    assert!(directories.lines().any(|l| l == path), "{directories}");
    for transport in ["tcp", "udp"] {
        let port = server.mount_port().to_string();
        let argv = ["python3", "-c", include_str!("../guest/mount_v1.py"), addr, &port, transport];
        let done = lab.run(&argv, Duration::from_secs(30));
        assert_eq!(done.status, 0, "MOUNT v1 over {transport}: {}", done.err);
        let has = |line: String| done.out.lines().any(|l| l == line);
        assert!(has(format!("export {path}")), "{transport}: {}", done.out);
        let mounted = [client, "clienta"].map(|host| format!("mount {host}:{path}"));
        assert!(mounted.into_iter().any(has), "{transport}: {}", done.out);
    }
}
