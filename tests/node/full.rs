//! A disk that is full, and what random small writes through NFS leave behind.

use crate::nfs::Client;
use crate::process::{Server, atoll};
use crate::rig::pattern;
use atoll_proto::nfs3::{FileHandle, NfsStat3, StableHow};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

const MIB: usize = 1 << 20;

/// An ext4 file system of its own size; unmounted when dropped.
struct SmallDisk {
    dir: tempfile::TempDir,
}

impl SmallDisk {
    fn new(bytes: u64) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let image = dir.path().join("image");
        std::fs::File::create(&image).unwrap().set_len(bytes).unwrap();
        let disk = Self { dir };
        std::fs::create_dir(disk.root()).unwrap();
        run(Command::new("mkfs.ext4").args(["-q", "-F"]).arg(&image));
        run(Command::new("mount").args(["-o", "loop"]).arg(&image).arg(disk.root()));
        disk
    }

    fn root(&self) -> PathBuf {
        self.dir.path().join("mounted")
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        run(Command::new("umount").arg("-l").arg(self.root()));
    }
}

fn run(command: &mut Command) {
    let done = command.output().unwrap_or_else(|e| panic!("{command:?}: {e}"));
    assert!(
        done.status.success(),
        "{command:?} (this test must be root): {}",
        String::from_utf8_lossy(&done.stderr)
    );
}

/// A file that was written, and how far it was acknowledged.
struct Written {
    name: String,
    handle: FileHandle,
    seed: u64,
    chunks: u64,
    chunk: usize,
}

impl Written {
    fn verify(&self, client: &mut Client) {
        for n in 0..self.chunks {
            let at = n * self.chunk as u64;
            let found = client.read(self.handle, at, self.chunk as u32);
            assert!(found == pattern(self.seed + n, self.chunk), "{} at {at}", self.name);
        }
    }
}

/// Makes files of `chunks` chunks until there is no room; UNSTABLE ones are committed.
fn fill(client: &mut Client, name: &str, chunk: usize, chunks: u64, stable: StableHow) -> Vec<Written> {
    let mut files = Vec::new();
    loop {
        let (seed, name) = (files.len() as u64 * 1000, format!("{name} {}", files.len()));
        let handle = match client.create(&name) {
            Ok(handle) => handle,
            Err(NfsStat3::NoSpc) => return files,
            Err(other) => panic!("{other:?}"),
        };
        let mut file = Written { name, handle, seed, chunks: 0, chunk };
        let mut full = false;
        while file.chunks < chunks && !full {
            let data = pattern(seed + file.chunks, chunk);
            match client.write(handle, file.chunks * chunk as u64, &data, stable) {
                Ok(()) => file.chunks += 1,
                Err(NfsStat3::NoSpc) => full = true,
                Err(other) => panic!("{other:?}"),
            }
        }
        if stable == StableHow::Unstable {
            assert_eq!(client.commit(handle), Ok(()), "what was accepted has its room");
        }
        files.push(file);
        if full {
            return files;
        }
    }
}

/// Tries until there is room again, which maintenance has to make first.
fn until_it_fits(client: &mut Client, file: FileHandle, data: &[u8]) {
    let until = Instant::now() + Duration::from_secs(90);
    loop {
        match client.write(file, 0, data, StableHow::FileSync) {
            Ok(()) => return,
            Err(NfsStat3::NoSpc) if Instant::now() < until => std::thread::sleep(Duration::from_millis(200)),
            Err(other) => panic!("{other:?}"),
        }
    }
}

/// Waits for maintenance to give so much room back.
fn until_available(dir: &Path, bytes: u64) {
    let until = Instant::now() + Duration::from_secs(90);
    loop {
        let status = atoll(&["status", dir.to_str().unwrap(), "--json"]);
        let report: serde_json::Value = serde_json::from_str(&status.stdout).unwrap();
        let available = report["blocks"]["available_bytes"].as_u64().unwrap();
        if available >= bytes {
            return;
        }
        assert!(Instant::now() < until, "{available} of {bytes} bytes available");
        std::thread::sleep(Duration::from_millis(200));
    }
}

fn fsck_is_clean(dir: &Path) {
    let fsck = atoll(&["fsck", dir.to_str().unwrap()]);
    assert_eq!(fsck.status, Some(0), "{}{}", fsck.stdout, fsck.stderr);
}

#[test]
fn a_full_disk_refuses_new_data_and_loses_none() {
    let disk = SmallDisk::new(600 * MIB as u64);
    let data = disk.root().join("data");
    let export = ["--export", "/=127.0.0.1,rw,no_root_squash,insecure"];
    let server = Server::start(&data, &export);
    let mut client = Client::mount(server.nfs);
    let mut files = fill(&mut client, "unstable", MIB, 16, StableHow::Unstable);
    let bytes: u64 = files.iter().map(|f| f.chunks * f.chunk as u64).sum();
    println!("{} MiB of 600 in large writes", bytes >> 20);
    assert!(bytes >= 300 << 20, "{} MiB", bytes >> 20);
    files.iter().for_each(|f| f.verify(&mut client));

    // Removing works, and gives room.
    for file in files.drain(..files.len() / 2) {
        client.remove(&file.name);
    }
    let again = files[0].handle;
    until_it_fits(&mut client, again, &pattern(files[0].seed, MIB));
    until_available(&data, 150 << 20);
    let small = fill(&mut client, "small", 32 << 10, 256, StableHow::FileSync);
    let bytes: u64 = small.iter().map(|f| f.chunks * f.chunk as u64).sum();
    println!("{} MiB more in small writes", bytes >> 20);
    assert!(bytes >= 50 << 20, "{} MiB", bytes >> 20);
    files.extend(small);
    files.iter().for_each(|f| f.verify(&mut client));
    server.kill();
    fsck_is_clean(&data);

    let server = Server::start(&data, &export);
    let mut client = Client::mount(server.nfs);
    files.iter().for_each(|f| f.verify(&mut client));
    for file in &files {
        client.remove(&file.name);
    }
    let until = Instant::now() + Duration::from_secs(25);
    let handle = loop {
        match client.create("after") {
            Ok(handle) => break handle,
            Err(NfsStat3::NoSpc) if Instant::now() < until => std::thread::sleep(Duration::from_millis(200)),
            Err(other) => {
                let left = Command::new("du").arg("-ab").arg(&data).output().unwrap();
                let status = atoll(&["status", data.to_str().unwrap()]).stdout;
                panic!("{other:?}: {}{status}", String::from_utf8_lossy(&left.stdout));
            }
        }
    };
    until_it_fits(&mut client, handle, &pattern(9, MIB));
    until_available(&data, 100 << 20);
    assert!(server.stop() < Duration::from_secs(10));
    fsck_is_clean(&data);
}

/// Small random writes of both kinds through the server, whose own repacker then has to put things right.
#[test]
fn small_random_writes_are_repacked_behind_the_clients_back() {
    const SIZE: usize = 8 * MIB;
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(dir.path(), &["--export", "/=127.0.0.1,rw,no_root_squash,insecure"]);
    let mut client = Client::mount(server.nfs);
    for (name, stable) in [("stable", StableHow::FileSync), ("unstable", StableHow::Unstable)] {
        let file = client.create(name).unwrap();
        let mut model = vec![0; SIZE];
        // Every page once, in no order: 1009 has no factor in common with the number of pages.
        for n in 0..SIZE / 4096 {
            let at = n * 1009 % (SIZE / 4096) * 4096;
            let page = pattern(n as u64, 4096);
            model[at..at + 4096].copy_from_slice(&page);
            client.write(file, at as u64, &page, stable).unwrap();
            if n % 100 == 99 {
                client.commit(file).unwrap();
            }
        }
        client.commit(file).unwrap();
        for (n, part) in model.chunks(MIB).enumerate() {
            assert!(client.read(file, (n * MIB) as u64, MIB as u32) == part, "{name} {n}");
        }
    }
    let until = Instant::now() + Duration::from_secs(90);
    loop {
        let status = atoll(&["status", dir.path().to_str().unwrap(), "--json"]);
        let report: serde_json::Value = serde_json::from_str(&status.stdout).unwrap();
        let live = report["blocks"]["live_bytes"].as_u64().unwrap();
        let blocks = report["blocks"]["blocks"].as_u64().unwrap();
        if (live, blocks) == (2 * SIZE as u64, 4) {
            break;
        }
        assert!(Instant::now() < until, "{live} bytes in {blocks} blocks");
        std::thread::sleep(Duration::from_millis(200));
    }
    assert!(server.stop() < Duration::from_secs(10));
    fsck_is_clean(dir.path());
}
