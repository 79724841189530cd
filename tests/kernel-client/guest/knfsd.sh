# Makes a guest the kernel's NFS server: /export on the guest's disk.
mkdir -p /export /run/sendsigs.omit.d
blkid /dev/ubda > /dev/null || mkfs.ext4 -q -E lazy_itable_init=0,lazy_journal_init=0,nodiscard /dev/ubda
modprobe -a ext4 nfsd lockd 2> /dev/null || true
mount -t ext4 /dev/ubda /export
chmod 755 /export
mount -t nfsd nfsd /proc/fs/nfsd
# Short grace periods: a restart of this server has one, and the scenarios should not wait for it.
echo 1 > /proc/sys/fs/nfs/nlm_grace_period || true
echo 10 > /proc/fs/nfsd/nfsv4leasetime || true
echo 10 > /proc/fs/nfsd/nfsv4gracetime || true
touch /var/lib/nfs/etab /var/lib/nfs/rmtab
echo '/export *(rw,sync,no_root_squash,insecure,no_subtree_check)' > /etc/exports
rpcbind -w
rpc.statd
exportfs -ra
rpc.mountd --port 20048
mkdir -p /var/lib/nfs/v4recovery
rpc.nfsd 4
