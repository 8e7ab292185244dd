#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Makes one layer of an image without Docker: what a command changes in a root made of layers is the new layer.
#   layer.sh OUT.tar BELOW.tar... -- COMMAND WORD...       FILES (environment) is seen by the command as /files
#   layer.sh OUT.tar -- debootstrap WORD...                the first layer
# Run in a mount namespace of its own (unshare --mount), so that no mount stays, however it ends.
set -euo pipefail
out=$1
shift
below=()
while [ "$1" != -- ]; do
  below+=("$1")
  shift
done
shift
scratch=$(mktemp -d "$(dirname "$out")/.layer.XXXXXX")
trap 'cd /; umount -R "$scratch/root" 2>/dev/null || true; rm -rf --one-file-system "$scratch"' EXIT

# What a layer does not need: caches, and what only this machine knows.
pack() {
  tar --create --file "$out.part" --directory "$1" --sort=name --numeric-owner \
    --exclude='./dev/*' --exclude='./proc/*' --exclude='./sys/*' --exclude='./tmp/*' --exclude='./run/*' --exclude=./files \
    --exclude='./var/cache/*' --exclude='./var/lib/apt/lists/*' --exclude='./var/log/*' --exclude='./usr/share/doc/*' \
    --exclude='./usr/share/man/*' --exclude='./usr/share/locale/*' --exclude=./etc/resolv.conf --exclude=./root .
  mv "$out.part" "$out"
}

if [ "${#below[@]}" = 0 ]; then
  "$@" "$scratch/root" >"$scratch/log" 2>&1 || {
    tail -20 "$scratch/log" >&2
    exit 1
  }
  pack "$scratch/root"
  exit
fi

mkdir -p "$scratch"/{below,upper,work,root}
for each in "${below[@]}"; do tar --extract --file "$each" --directory "$scratch/below" --numeric-owner; done
mkdir -p "$scratch"/below/{dev,proc,sys,tmp,run,files,root/.cache/pip}
: >"$scratch/below/etc/resolv.conf"
mount -t overlay -o "lowerdir=$scratch/below,upperdir=$scratch/upper,workdir=$scratch/work" layer "$scratch/root"
cd "$scratch/root"
mount --bind /dev dev
mount -t proc proc proc
mount -t tmpfs tmp tmp
mount --bind "$FILES" files
# The registries as this machine reaches them.
mount --bind /etc/resolv.conf etc/resolv.conf
mount --bind /etc/ssl/certs etc/ssl/certs
mkdir -p "${PIP_CACHE_DIR:=${XDG_CACHE_HOME:-$HOME/.cache}/pip}"
mount --bind "$PIP_CACHE_DIR" root/.cache/pip
HOME=/root PIP_CACHE_DIR=/root/.cache/pip TMPDIR=/tmp PATH=/usr/sbin:/usr/bin:/sbin:/bin PIP_FIND_LINKS='' \
  PIP_ROOT_USER_ACTION=ignore chroot . "$@"
cd "$scratch"
umount -R root
find upper -type c | grep . && {
  echo "a layer may not delete what is below it" >&2
  exit 1
}
pack "$scratch/upper"
