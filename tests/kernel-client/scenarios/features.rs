//! What NFSv4.2 adds, as programs use it: copies that the server makes, shared blocks, holes, room taken in advance, extended attributes.

use std::sync::Arc;
use std::time::Duration;

use crate::lab::Lab;
use crate::lab::client::{Client, MNT};
use crate::lab::server::Server;

const LIMIT: Duration = Duration::from_secs(120);

const PROGRAM: &str = r#"
import errno, os, subprocess
os.chdir("/mnt/nfs")
MIB = 1 << 20

def contents(path):
    with open(path, "rb") as file:
        return file.read()

data = os.urandom(3 * MIB + 123)
with open("f", "wb") as file:
    file.write(data)

# Shared blocks: a whole file, and a part of one over another.
subprocess.run(["cp", "--reflink=always", "f", "clone"], check=True)
assert contents("clone") == data
with open("clone", "r+b") as file:
    file.write(b"changed")
assert contents("f") == data and contents("clone") == b"changed" + data[7:]

# A copy by the server, of any bytes to any place.
with open("f", "rb") as source, open("copy", "w+b") as target:
    done = 0
    while done < 2 * MIB:
        done += os.copy_file_range(source.fileno(), target.fileno(), 2 * MIB - done, 1001 + done, 77 + done)
assert contents("copy") == bytes(77) + data[1001:1001 + 2 * MIB]

# Holes: found, and made.
with open("sparse", "w+b") as file:
    os.pwrite(file.fileno(), b"x" * MIB, 4 * MIB)
    os.ftruncate(file.fileno(), 16 * MIB)
    os.fsync(file.fileno())
    seek = lambda at, what: os.lseek(file.fileno(), at, what)
    assert seek(0, os.SEEK_DATA) == 4 * MIB
    assert seek(4 * MIB, os.SEEK_HOLE) == 5 * MIB
    try:
        seek(5 * MIB, os.SEEK_DATA)
        assert False
    except OSError as error:
        assert error.errno == errno.ENXIO
    subprocess.run(["fallocate", "-p", "-o", str(4 * MIB), "-l", str(MIB // 2), "sparse"], check=True)
    assert seek(0, os.SEEK_DATA) == 4 * MIB + MIB // 2
    # (ALLOCATE within the file changes neither size nor bytes; beyond its end it is longer.)
    subprocess.run(["fallocate", "-l", str(17 * MIB), "sparse"], check=True)
assert contents("sparse") == bytes(4 * MIB + MIB // 2) + b"x" * (MIB // 2) + bytes(12 * MIB)

# Extended attributes.
os.setxattr("f", "user.one", b"1")
os.setxattr("f", "user.two", bytes(range(256)) * 16)
os.setxattr("f", "user.one", b"uno", os.XATTR_REPLACE)
for flags, name, wrong in [(os.XATTR_CREATE, "user.one", errno.EEXIST), (os.XATTR_REPLACE, "user.three", errno.ENODATA)]:
    try:
        os.setxattr("f", name, b"", flags)
        assert False
    except OSError as error:
        assert error.errno == wrong
own = lambda: sorted(name for name in os.listxattr("f") if name.startswith("user."))
assert own() == ["user.one", "user.two"]
assert os.getxattr("f", "user.one") == b"uno" and os.getxattr("f", "user.two") == bytes(range(256)) * 16
os.removexattr("f", "user.one")
assert own() == ["user.two"]
"#;

/// Operations that the program must have come to: it would pass with what the client makes do with, too.
const USED: [&str; 8] =
    ["CLONE", "COPY", "SEEK", "ALLOCATE", "DEALLOCATE", "SETXATTR", "LISTXATTRS", "REMOVEXATTR"];

#[test]
fn what_v4_2_adds() {
    let lab = Arc::new(Lab::new("features"));
    let mut client = Client::boot(&lab, 'a');
    let server = Server::start(&lab);
    client.mount4(&server, "4.2", MNT);
    client.python(PROGRAM, LIMIT);
    let operations = client.operations(MNT);
    for name in USED {
        assert!(operations.get(name).is_some_and(|count| *count > 0), "no {name}: {operations:?}");
    }
    // With nothing in the client's cache.
    client.sh(&format!("umount {MNT}"));
    client.mount4(&server, "4.2", MNT);
    client.sh("cd /mnt/nfs; cmp -n 4718592 sparse /dev/zero; cmp -n 2097152 copy f 77 1001");
    client.python("import os\nassert os.getxattr('/mnt/nfs/f', 'user.two') == bytes(range(256)) * 16", LIMIT);
    assert!(client.operations(MNT)["GETXATTR"] > 0);
    client.no_complaints();
    // Before version 4.2 there is none of it, and programs hear so.
    for version in ["4.0", "4.1"] {
        client.sh(&format!("umount {MNT}"));
        client.mount4(&server, version, MNT);
        client.sh("! cp --reflink=always /mnt/nfs/f /mnt/nfs/g 2> /dev/null; cp --reflink=auto /mnt/nfs/f /mnt/nfs/g; cmp /mnt/nfs/f /mnt/nfs/g");
    }
}
