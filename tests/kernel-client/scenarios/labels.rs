//! Security labels, as a client with SELinux sends and reads them. Its policy knows two types and enforces nothing.

use std::sync::Arc;
use std::time::Duration;

use crate::lab::Lab;
use crate::lab::client::{Client, MNT};
use crate::lab::server::{Kind, Server};

/// Loads a policy where that is nobody else's business: in a kernel of its own.
const LOAD_POLICY: &str = concat!(
    "grep -q 'User Mode Linux' /proc/cpuinfo && command -v checkpolicy > /dev/null || exit 0; ",
    "checkpolicy -U allow -o /tmp/policy ",
    env!("CARGO_MANIFEST_DIR"),
    "/tests/kernel-client/guest/selinux.conf; ",
    "mount -t selinuxfs none /sys/fs/selinux && cat /tmp/policy > /sys/fs/selinux/load && echo loaded"
);

/// A line of Python about a file and its label.
fn python(line: &str) -> String {
    let names = "import os; new = '/mnt/nfs/dir/new'; label = 'security.selinux'";
    format!("python3 -c \"{names}; {line}\"")
}

#[test]
fn labels_are_kept_by_the_server() {
    let lab = Arc::new(Lab::new("labels"));
    let mut client = Client::boot(&lab, 'a');
    let mut server = Server::start(&lab);
    if server.kind() != Kind::Atoll {
        return; // The exports of the peers are configured otherwise.
    }
    let admin = |server: &Server, words: &[&str]| {
        let data = server.data().to_string_lossy().into_owned();
        let argv = [&[env!("CARGO_BIN_EXE_atoll"), words[0], "--dir", &data], &words[1..]].concat();
        let done = lab.run(&argv, Duration::from_secs(60));
        assert_eq!(done.status, 0, "{words:?}: {}{}", done.out, done.err);
    };
    client.mount4(&server, "4.2", MNT);
    client.sh("cd /mnt/nfs; mkdir dir; echo old > dir/old");
    client.sh(&format!("umount -R {MNT}"));
    admin(&server, &["export", "add", "/dir=*,rw,no_root_squash,security_label"]);

    let has_selinux = client.sh(LOAD_POLICY) == "loaded\n";
    client.mount4(&server, "4.2", MNT);
    // Some have no label; those that are made now get the one of their maker's choice.
    client.sh(
        "cd /mnt/nfs; ls -lR; cat dir/old; echo new > dir/new; mkdir dir/sub; ln -s new dir/link; ls -lR",
    );
    if has_selinux {
        let made = "print(os.getxattr(new, label).decode().rstrip(chr(0)), end='')";
        assert_eq!(client.sh(&python(made)), "here_u:object_r:here_t");
        client.sh(&python("os.setxattr(new, label, b'here_u:object_r:there_t')"));
        let label = &python(made);
        assert_eq!(client.sh(label), "here_u:object_r:there_t");
        server.kill();
        server.start_again();
        assert_eq!(client.sh(label), "here_u:object_r:there_t");
        client.sh(&format!("umount -R {MNT}"));
        client.mount4(&server, "4.2", MNT);
        assert_eq!(client.sh(label), "here_u:object_r:there_t");
    }
    client.sh(&format!("umount -R {MNT}"));
    client.mount4(&server, "4.1", MNT);
    client.sh("cd /mnt/nfs; ls -lR; grep old dir/old; grep new dir/new || test ! -e dir/new");
    client.no_complaints();
}
