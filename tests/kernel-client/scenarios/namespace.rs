//! What a client of NFSv4 sees from the root: several exports of two volumes, with rules of their own, and the way to them
//! where nothing above is exported.

use std::sync::Arc;
use std::time::Duration;

use crate::lab::Lab;
use crate::lab::client::{Client, MNT};
use crate::lab::server::{Kind, Server};

#[test]
fn browses_all_exports_from_the_root() {
    let lab = Arc::new(Lab::new("namespace"));
    let mut client = Client::boot(&lab, 'a');
    let server = Server::start(&lab);
    if server.kind() != Kind::Atoll {
        return; // The exports of the peers are configured otherwise.
    }
    let admin = |words: &[&str]| {
        let data = server.data().to_string_lossy().into_owned();
        let argv = [&[env!("CARGO_BIN_EXE_atoll"), words[0], "--dir", &data], &words[1..]].concat();
        let done = lab.run(&argv, Duration::from_secs(60));
        assert_eq!(done.status, 0, "{words:?}: {}{}", done.out, done.err);
    };
    client.mount4(&server, "4.2", MNT);
    client.sh("cd /mnt/nfs; mkdir -p data/project public; echo own > data/project/file; chmod 777 public");
    admin(&["volume", "create", "second"]);
    admin(&["export", "add", "/media/second=*,rw,no_root_squash,volume=second"]);
    admin(&["export", "add", "/second=*,rw,no_root_squash,volume=second"]);
    admin(&["export", "add", "/data/project=*,ro"]);
    admin(&["export", "add", "/public=*,rw,all_squash"]);
    client.sh(&format!("umount {MNT}"));

    for version in ["4.0", "4.1", "4.2"] {
        client.mount4(&server, version, MNT);
        // A volume at a name that the root volume does not have is listed, and another file system.
        assert_eq!(client.sh("cd /mnt/nfs; ls"), "data\npublic\nsecond\n", "{version}");
        client.sh("cd /mnt/nfs; echo there > second/file; test $(stat -c %d .) != $(stat -c %d second)");
        rules(&mut client, version);
        client.sh(&format!("umount -R {MNT}"));
    }

    // Without an export of the root, the way leads through directories that only name the exports.
    admin(&["export", "remove", "/"]);
    for version in ["4.0", "4.1", "4.2"] {
        client.mount4(&server, version, MNT);
        let seen = client.sh("cd /mnt/nfs; find . -mindepth 1 | sort");
        let all = "./data\n./data/project\n./data/project/file\n./media\n./media/second\n./media/second/file\n\
                   ./public\n./public/new\n./second\n./second/file\n";
        assert_eq!(seen, all, "{version}");
        client.sh(
            "cd /mnt/nfs; ! touch new; ! mkdir media/new; ! rmdir media; cmp second/file media/second/file",
        );
        rules(&mut client, version);
        client.sh(&format!("umount -R {MNT}"));
    }
    // As `showmount` has them.
    let listed = lab.sh(&format!("showmount --no-headers -e {} | cut -d' ' -f1 | sort", server.addr()));
    assert_eq!(listed, "/data/project\n/media/second\n/public\n/second\n");
    client.no_complaints();
}

/// Each export keeps to its own rules.
fn rules(client: &mut Client, version: &str) {
    let seen = client
        .sh("cd /mnt/nfs; cat data/project/file; touch data/project/new 2>&1 | grep -o 'Read-only.*'
         rm -f public/new; echo squashed > public/new; stat -c %u public/new second/file");
    assert_eq!(seen, "own\nRead-only file system\n65534\n0\n", "{version}");
}
