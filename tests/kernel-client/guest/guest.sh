# Sets up a client (run as root by sh, in its own mount, network, UTS and PID namespaces, or as a UML guest) and
# becomes the job runner. $1: "uml" or "direct". Settings come in the environment as kc_*:
#   kc_share  host directory for jobs and their output    kc_tools  host directory of installed test programs
#   kc_name   host name       kc_addr  ADDRESS/PREFIX of this client
#   kc_modules  the UML kernel's module directory, or empty
set -eu
mode=$1

# Shows a host directory here, live.
expose() {
    mkdir -p "$2"
    case $mode in
        uml) mount -t hostfs -o "$1" none "$2" ;;
        direct) mount --bind "$1" "$2" ;;
    esac
}

mount -t tmpfs -o mode=755 tmpfs /mnt
expose "$kc_share" /mnt/share
expose "$kc_tools" /mnt/tools
# statd's notes must outlive a crash of this client: they are what makes it tell the server that it rebooted.
mkdir -p /mnt/share/statd/sm /mnt/share/statd/sm.bak /var/lib/nfs
expose "$kc_share/statd" /var/lib/nfs
for d in /run /tmp /dev/shm; do
    mkdir -p "$d"
    mount -t tmpfs -o mode=1777 tmpfs "$d"
done
mkdir -p /run/rpcbind /run/lock /mnt/nfs
chown _rpc /run/rpcbind
[ -e /dev/fd ] || ln -s /proc/self/fd /dev/fd
mount --bind /mnt/share/hosts /etc/hosts
hostname "$kc_name"

ip link set lo up
case $mode in
    uml)
        if [ -n "${kc_modules:-}" ]; then
            release=$(uname -r)
            mkdir -p "/lib/modules/$release"
            mount -t hostfs -o "$kc_modules" none "/lib/modules/$release"
            modprobe -a nfs nfsv3 nfsv4
        fi
        ;;
    direct)
        # The other end of the link is made by the test, once this network namespace exists.
        echo link
        read -r _
        ;;
esac
echo 1 > /proc/sys/net/ipv6/conf/vec0/disable_ipv6 2>/dev/null || true
ip addr add "$kc_addr" dev vec0
ip link set vec0 up

if [ -z "${kc_server:-}" ]; then
    rpcbind -w
    # Also sends the reboot notices, if the notes say that a server was in use before.
    rpc.statd
fi
cd /
case $mode in
    uml)
        stty -F /dev/ttyS0 raw -echo
        exec python3 /mnt/share/runner.py < /dev/ttyS0 > /dev/ttyS0
        ;;
    direct) exec python3 /mnt/share/runner.py ;;
esac
