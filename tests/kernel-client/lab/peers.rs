//! Other servers in the place of Atoll, to tell a wrong test or a trait of the Linux client from a fault of ours.
//! They need the packages `nfs-ganesha nfs-ganesha-vfs nfs-kernel-server rpcbind`.

use std::fs::{self, File};
use std::path::Path;
use std::process::Stdio;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::client::Client;
use super::process::Process;
use super::{GUEST_SERVER, HOST_ADDR, LOG, Lab};

/// Where their mount daemons listen.
pub(crate) const MOUNT_PORT: u16 = 20048;
/// Size of the file behind the kernel server's ext4; sparse.
const DISK_BYTES: u64 = 8 << 30;
const START_LIMIT: Duration = Duration::from_secs(60);

/// NFS-Ganesha, with the portmapper and the status monitor it wants, in a mount namespace of their own.
pub(crate) fn start_ganesha(lab: &Lab, data: &Path) -> Process {
    let config = lab.dir().join("ganesha.conf");
    fs::create_dir_all(data.join("export")).unwrap();
    let text = format!(
        "NFS_CORE_PARAM {{ Protocols = 3, 4; NFS_Port = 2049; MNT_Port = {MOUNT_PORT}; NLM_Port = 32803;\n\
           Enable_NLM = true; Nsm_Use_Caller_Name = true; Enable_UDP = true; mount_path_pseudo = true; }}\n\
         NFSv4 {{ Graceless = true; Lease_Lifetime = 10; Grace_Period = 10; RecoveryRoot = {data}/ganesha; }}\n\
         EXPORT {{ Export_Id = 1; Path = {data}/export; Pseudo = /export; Tag = export; Access_Type = RW;\n\
           Squash = No_Root_Squash; SecType = sys; Protocols = 3, 4; Transports = TCP, UDP;\n\
           FSAL {{ Name = VFS; }} }}\n\
         LOG {{ Default_Log_Level = EVENT; }}\n",
        data = data.display(),
    );
    fs::write(&config, text).unwrap();
    // The export is bound to the path that all peers have.
    let script = format!(
        "mount -t tmpfs tmpfs /run; mkdir -p /run/rpcbind /run/dbus /run/ganesha; chown _rpc /run/rpcbind; \
         mount -t tmpfs tmpfs /var/lib/nfs; mkdir -p /var/lib/nfs/sm /var/lib/nfs/sm.bak /var/lib/nfs/ganesha; \
         mount --bind {dir}/hosts /etc/hosts; hostname server; rpcbind -w -h {HOST_ADDR}; rpc.statd --no-notify; \
         exec ganesha.nfsd -F -L {dir}/{LOG} -f {dir}/ganesha.conf -p /run/ganesha.pid",
        dir = lab.dir().display()
    );
    let mut cmd = lab.command("unshare");
    cmd.args(["--mount", "--pid", "--uts", "--fork", "--kill-child=KILL", "--mount-proc"]);
    cmd.args(["--", "sh", "-euc", &script]);
    let log = File::options().create(true).append(true).open(lab.dir().join("server-start.log")).unwrap();
    cmd.stdin(Stdio::null()).stdout(log.try_clone().unwrap()).stderr(log);
    let mut process = Process::spawn(cmd);
    let end = Instant::now() + START_LIMIT;
    let probe = format!("rpcinfo -n 2049 -t {HOST_ADDR} nfs 3");
    while lab.run(&["sh", "-c", &probe], Duration::from_secs(20)).status != 0 {
        assert!(process.ended().is_none() && Instant::now() < end, "ganesha does not start");
        std::thread::sleep(Duration::from_millis(100));
    }
    process
}

/// The kernel's own server, exporting an ext4 on a file of ours with `sync`.
pub(crate) fn start_knfsd(lab: &Arc<Lab>, data: &Path) -> Client {
    let disk = data.join("disk");
    if !disk.exists() {
        File::create(&disk).unwrap().set_len(DISK_BYTES).unwrap();
    }
    let mut guest = Client::boot_server(lab, GUEST_SERVER, &[format!("ubd0={}", disk.display())]);
    guest.sh(include_str!("../guest/knfsd.sh"));
    guest
}
