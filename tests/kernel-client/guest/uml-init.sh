#!/bin/sh
# First process of a User-Mode Linux client. Its root is the host's root, read-only; this puts a throw-away
# overlay above it, so nothing the tests do can reach the host's files, and goes on with guest.sh.
# kc_share and kc_modules come from the kernel command line.
# "-n": there is no writable place for a table of mounts yet.
set -eu
export PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
mount -n -t proc proc /proc
mount -n -t sysfs sysfs /sys
[ -c /dev/ttyS0 ] || mount -n -t devtmpfs devtmpfs /dev
grep -q overlay /proc/filesystems || insmod "$kc_modules/kernel/fs/overlayfs/overlay.ko"
mount -n -t tmpfs scratch "$kc_share/scratch"
mkdir "$kc_share/scratch/upper" "$kc_share/scratch/work"
mount -n -t overlay root -o "lowerdir=/,upperdir=$kc_share/scratch/upper,workdir=$kc_share/scratch/work" "$kc_share/root"
cd "$kc_share/root"
for d in proc sys dev; do
    mkdir -p "$d"
    mount -n --move "/$d" "$d"
done
mount -n --move . /
exec chroot . /bin/sh "$kc_share/guest.sh" uml
