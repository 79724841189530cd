//! Access control lists as programs set and read them: POSIX lists over version 3, NFSv4 lists over version 4; both over the same
//! files, kept by a server that is killed.

use std::sync::Arc;

use crate::lab::Lab;
use crate::lab::client::{Client, MNT};
use crate::lab::server::{Kind, Server};

/// Runs a command as a user.
const AS: &str = "as() { setpriv --reuid=$1 --regid=$2 --clear-groups sh -c \"$3\"; };\n";

#[test]
fn posix_lists_over_v3_and_nfs4_lists_over_v4() {
    let lab = Arc::new(Lab::new("acls"));
    let mut client = Client::boot(&lab, 'a');
    let mut server = Server::start(&lab);
    if server.kind() != Kind::Atoll {
        return; // The kernel's server keeps one kind, Ganesha's VFS none.
    }
    client.mount(&server, "mountproto=tcp,nolock");
    posix(&mut client);
    client.sh(&format!("umount {MNT}"));

    for version in ["4.0", "4.1", "4.2"] {
        client.mount4(&server, version, MNT);
        nfs4(&mut client, version);
        client.sh(&format!("umount {MNT}"));
    }

    server.kill();
    server.start_again();
    client.mount4(&server, "4.2", MNT);
    let kept = client.sh("cd /mnt/nfs; nfs4_getfacl v4.2/list");
    assert!(kept.contains("A::1001:rwx"), "{kept}");
    client.sh(&format!("umount {MNT}"));
    client.mount(&server, "mountproto=tcp,nolock");
    client.sh("cd /mnt/nfs/v3; getfacl -R . > /tmp/again; cmp /tmp/again /mnt/share/before");
    client.no_complaints();
}

fn posix(client: &mut Client) {
    let seen = client.sh("mkdir /mnt/nfs/v3; cd /mnt/nfs/v3; umask 077
         echo text > file; setfacl -m u:1001:rw,g:1002:r,m::rwx file
         mkdir dir; setfacl -m u:1001:rwx,d:u:1001:rwx,d:g:1002:rx,d:o::- dir
         getfacl -cn file dir; stat -c %A file");
    let file = "user::rw-\nuser:1001:rw-\ngroup::---\ngroup:1002:r--\nmask::rwx\nother::---\n\n";
    let default = "default:user::rwx\ndefault:user:1001:rwx\ndefault:group::---\ndefault:group:1002:r-x\n\
                   default:mask::rwx\ndefault:other::---\n\n";
    let dir = format!("user::rwx\nuser:1001:rwx\ngroup::---\nmask::rwx\nother::---\n{default}");
    assert_eq!(seen, format!("{file}{dir}-rw-rwx---\n"));
    // What is made below has the default list, whatever the umask.
    let seen =
        client.sh("cd /mnt/nfs/v3; umask 077; touch dir/new; mkdir dir/sub; getfacl -cn dir/new dir/sub");
    let new = "user::rw-\nuser:1001:rwx\t#effective:rw-\ngroup::---\n\
               group:1002:r-x\t#effective:r--\nmask::rw-\nother::---\n\n";
    let own = "user::rwx\nuser:1001:rwx\ngroup::---\ngroup:1002:r-x\nmask::rwx\nother::---\n";
    assert_eq!(seen, format!("{new}{own}{default}"));
    // They decide.
    client.sh(&format!(
        "{AS} cd /mnt/nfs; chmod 755 . v3; cd v3
         as 1001 1001 'echo more >> file && cat file && touch dir/his && rm dir/his'
         as 1003 1002 'cat file' ; ! as 1003 1002 'echo x >> file'; ! as 1003 1003 'cat file'
         setfacl -m m::r file; ! as 1001 1001 'echo x >> file'; chmod g+w file; as 1001 1001 'echo y >> file'
         setfacl -b -k dir; test \"$(getfacl -cn dir)\" = \"$(printf 'user::rwx\\ngroup::---\\nother::---')\"
         setfacl -b dir/new; test $(stat -c %a dir/new) = 600
         setfacl -m d:u:7:r dir; getfacl -R . > /mnt/share/before"
    ));
    // A whole tree's lists, saved and restored.
    client.sh(
        "cd /mnt/nfs/v3; cp -a dir copy; getfacl -R dir | sed s,dir,copy, > /tmp/a; getfacl -R copy > /tmp/b; cmp /tmp/a /tmp/b
         rm -r copy",
    );
}

fn nfs4(client: &mut Client, version: &str) {
    let list = "A::OWNER@:rwatTnNcCy\nD::1003:rwx\nA::1001:rwx\nA:g:1002:rtc\nA::EVERYONE@:tcy";
    let seen = client.sh(&format!(
        "mkdir /mnt/nfs/v{version}; cd /mnt/nfs/v{version}; echo text > list; umask 022; touch plain
         nfs4_getfacl plain | grep '^[AD]:'
         printf '%s' '{list}' > /tmp/spec; nfs4_setfacl -S /tmp/spec list; nfs4_getfacl list | grep '^[AD]:'
         stat -c %a list"
    ));
    let plain = "A::OWNER@:rwatTcCy\nA::GROUP@:rtcy\nA::EVERYONE@:rtcy\n";
    assert_eq!(seen, format!("{plain}{list}\n600\n"), "{version}");
    client.sh(&format!(
        "{AS} cd /mnt/nfs/v{version}
         as 1001 1001 'echo more >> list'; as 1004 1002 'cat list'; ! as 1004 1004 'cat list'; ! as 1003 1002 'cat list'
         ! as 1004 1002 'echo x >> list'
         nfs4_setfacl -a A::1004:C list; as 1004 1004 'chmod 644 list'; test $(stat -c %a list) = 644
         nfs4_setfacl -S /tmp/spec list"
    ));
    // Inheritance, and directories that let add but not remove.
    let seen = client.sh(&format!(
        "{AS} cd /mnt/nfs/v{version}; mkdir dir
         printf 'A:fd:1001:rxtc\\nA:fd:OWNER@:rwaDxtTcCy\\nD:d:1005:D\\nA:d:1005:wxtc' > /tmp/dir; nfs4_setfacl -S /tmp/dir dir
         nfs4_getfacl dir | grep '^[AD]:'
         umask 077; touch dir/file; mkdir dir/sub; nfs4_getfacl dir/file | grep 1001; nfs4_getfacl dir/sub | grep fdi*:1001
         as 1005 1005 'touch dir/mine; rm dir/mine 2>/dev/null || echo stays'"
    ));
    let dir = "A:fd:1001:rxtc\nA:fd:OWNER@:rwaDxtTcCy\nD:d:1005:D\nA:d:1005:wxtc\n";
    assert!(seen.starts_with(dir) && seen.ends_with("stays\n"), "{version}: {seen}");
    if version == "4.2" {
        // The umask is the server's to apply, and not where something is inherited (RFC 8275).
        assert!(seen.contains("A::1001:rtc\n"), "{seen}");
    }
    // POSIX lists set over version 3 are shown and decide.
    let seen = client.sh(&format!(
        "{AS} cd /mnt/nfs/v3; as 1001 1001 'cat file' > /dev/null; ! as 1003 1003 'cat file'; nfs4_getfacl file | grep -c 1001"
    ));
    assert_eq!(seen, "1\n", "{version}");
}
