#!/bin/sh
# Installs what `cargo test --test kernel_client` needs on Debian 12 and later: packages, and the test programs
# pjdfstest and fsx in target/tools. Does nothing for what is already there. Needs root for the packages.
#   --peers  also the other servers the same scenarios can be run against (ATOLL_TEST_SERVER=ganesha|knfsd)
set -eu
cd "$(dirname "$0")/.."

packages="acl nfs4-acl-tools nfs-common rpcbind iproute2 kmod util-linux procps python3 gcc libc6-dev make tar checkpolicy"
command -v git > /dev/null || packages="$packages git"
# A kernel with an NFS client of its own is used directly; others boot User-Mode Linux.
grep -qw nfs /proc/filesystems || modprobe nfs 2> /dev/null || packages="$packages user-mode-linux"
[ "${1:-}" != --peers ] || packages="$packages user-mode-linux nfs-kernel-server nfs-ganesha nfs-ganesha-vfs"

missing=
for p in $packages; do
    dpkg-query -W -f '${Status}' "$p" 2> /dev/null | grep -q 'ok installed' || missing="$missing $p"
done
if [ -n "$missing" ]; then
    apt-get update -qq
    # Their servers are started by the tests in networks of their own, and should not run on this machine.
    [ -e /usr/sbin/policy-rc.d ] || { printf '#!/bin/sh\nexit 101\n' > /usr/sbin/policy-rc.d &&
        chmod 755 /usr/sbin/policy-rc.d && trap 'rm -f /usr/sbin/policy-rc.d' EXIT; }
    # shellcheck disable=SC2086  # a list of words
    DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends $missing > /dev/null
fi

# Built small and quickly: what takes time in these tests is not these programs.
install_tool() {
    [ "$(target/tools/bin/"$1" --version 2> /dev/null)" = "$1 $2" ] ||
        CARGO_PROFILE_RELEASE_OPT_LEVEL=1 CARGO_PROFILE_RELEASE_LTO=off CARGO_PROFILE_RELEASE_DEBUG=0 \
            CARGO_TARGET_DIR=target/tools/build cargo install --quiet --locked --root target/tools --version "=$2" "$1"
}
install_tool pjdfstest 0.2.2
install_tool fsx 0.3.2
rm -rf target/tools/build
