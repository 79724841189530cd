//! NFS-Ganesha with its VFS back end: configuration, and an ext4 of its own that gives Atoll's guarantee.

use std::io;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::machine::run;

/// Ports and places of one instance.
#[derive(Debug, Clone)]
pub struct Config {
    /// Port of NFS.
    pub nfs_port: u16,
    /// Port of MOUNT.
    pub mount_port: u16,
    /// The exported directory.
    pub export: PathBuf,
}

impl Config {
    /// The text of the configuration: version 3 (4 costs nothing while nobody uses it, and is how it is installed), TCP
    /// on loopback, no lock manager.
    pub fn render(&self) -> String {
        let Self { nfs_port, mount_port, export } = self;
        let export = export.display();
        format!(
            "NFS_CORE_PARAM {{\n  Protocols = 3, 4;\n  NFS_Port = {nfs_port};\n  MNT_Port = {mount_port};\n  \
             Bind_addr = 127.0.0.1;\n  Enable_NLM = false;\n  Enable_RQUOTA = false;\n  Enable_UDP = false;\n}}\n\
             NFS_KRB5 {{\n  Active_krb5 = false;\n}}\n\
             NFSv4 {{\n  Graceless = true;\n}}\n\
             EXPORT {{\n  Export_Id = 1;\n  Path = \"{export}\";\n  Pseudo = \"/bench\";\n  Protocols = 3, 4;\n  \
             Transports = TCP;\n  Access_Type = RW;\n  Squash = No_Root_Squash;\n  SecType = sys;\n  \
             PrivilegedPort = false;\n  FSAL {{\n    Name = VFS;\n  }}\n}}\n\
             LOG {{\n  Default_Log_Level = EVENT;\n}}\n"
        )
    }
}

/// The command that runs an instance in the foreground.
pub fn command(config: &Path, log: &Path, pid: &Path) -> Command {
    let mut command = Command::new("ganesha.nfsd");
    command.arg("-F").arg("-f").arg(config).arg("-L").arg(log).arg("-p").arg(pid);
    command
}

/// An ext4 in a file, mounted so that every write and every change of a directory is durable before the call returns.
/// Dropping it unmounts it.
#[derive(Debug)]
pub struct SyncFileSystem {
    point: PathBuf,
}

impl SyncFileSystem {
    /// Options of the mount.
    pub const OPTIONS: &str = "loop,sync,dirsync";

    /// Makes and mounts one of `bytes` below `dir`. Needs root.
    pub fn mount(dir: &Path, bytes: u64) -> io::Result<Self> {
        let (image, point) = (dir.join("sync.ext4"), dir.join("sync"));
        std::fs::File::create(&image)?.set_len(bytes)?;
        std::fs::create_dir_all(&point)?;
        let mut mkfs = Command::new("mkfs.ext4");
        // Tables initialised now and not in the background, while something is measured.
        mkfs.args(["-q", "-F", "-E", "lazy_itable_init=0,lazy_journal_init=0"]).arg(&image);
        run(mkfs)?;
        let mut mount = Command::new("mount");
        mount.args(["-o", Self::OPTIONS]).arg(&image).arg(&point);
        run(mount)?;
        Ok(Self { point })
    }

    /// Where it is mounted.
    pub fn path(&self) -> &Path {
        &self.point
    }
}

impl Drop for SyncFileSystem {
    fn drop(&mut self) {
        let mut umount = Command::new("umount");
        umount.arg(&self.point);
        if let Err(error) = run(umount) {
            eprintln!("{error}");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_configuration_names_ports_and_directory_and_its_braces_match() {
        let config = Config { nfs_port: 20491, mount_port: 20492, export: "/data/x y".into() };
        let text = config.render();
        for line in ["NFS_Port = 20491;", "MNT_Port = 20492;", "Path = \"/data/x y\";", "Protocols = 3, 4;"] {
            assert!(text.contains(line), "{line} in\n{text}");
        }
        assert!(text.contains("Bind_addr = 127.0.0.1;"), "never reachable from outside");
        assert_eq!(text.matches('{').count(), text.matches('}').count());
        assert!(text.lines().all(|l| l.is_empty() || l.ends_with(['{', '}', ';'])), "{text}");
    }
}
