#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# `make e2e`: a whole Kubernetes node on this machine, made of parts, and the product on it.
#   run.sh [pytest's arguments]
# Binaries and images are made first, with the registries. Then everything runs in a network, mount and process namespace of its
# own, with no way out: no packet leaves, no setting of this machine changes, and what was started ends with the namespace.
set -euo pipefail
cd "$(dirname "$0")/../.."

missing() {
  echo "make e2e cannot run on this machine: $1" >&2
  exit 1
}

[ "$(uname -s)" = Linux ] || missing "a node needs Linux; the rest of the tests (make test) does not"
[ "$(id -u)" = 0 ] || missing "a node needs root (containers, namespaces); run it as root or in a VM"
unshare --net --mount --pid --fork true 2>/dev/null || missing "namespaces may not be made here (unshare); a container needs --privileged"
grep -qw overlay /proc/filesystems || modprobe overlay 2>/dev/null || missing "the kernel has no overlay file system"

packages=$(grep -v '^#' tests/e2e/packages.txt | while read -r file package; do [ -e "$file" ] || echo "$package"; done)
if [ -n "$packages" ]; then
  command -v apt-get >/dev/null || missing "these Debian packages are needed: ${packages//$'\n'/ }"
  echo "installing Debian packages: ${packages//$'\n'/ }" >&2
  apt-get update -qq
  # shellcheck disable=SC2086 # a list of words
  DEBIAN_FRONTEND=noninteractive apt-get install -qq -y --no-install-recommends $packages >/dev/null ||
    missing "apt-get could not install them"
fi

export KUBEBUILDER_ASSETS
KUBEBUILDER_ASSETS=$(bash tests/kube/build.sh all)
export OUTRIDER_E2E_IMAGES
OUTRIDER_E2E_IMAGES=$(.venv/bin/python -m tests.e2e.images)

folder=$(mktemp -d "${TMPDIR:-/tmp}/outrider-e2e.XXXXXX")
export OUTRIDER_E2E_FOLDER=$folder
cp -R charts "$folder"/
export OUTRIDER_E2E_CGROUP=outrider-e2e-$$
each_hierarchy() { find /sys/fs/cgroup -maxdepth 2 -name "$OUTRIDER_E2E_CGROUP" -type d "$@" 2>/dev/null || true; }
after() {
  # Processes of the namespace have ended; their groups empty within moments.
  for _ in 1 2 3 4 5 6 7 8 9 10; do
    each_hierarchy | while read -r group; do find "$group" -depth -type d -exec rmdir {} + 2>/dev/null || true; done
    [ -z "$(each_hierarchy)" ] && break
    sleep 0.5
  done
  if [ -n "${KEEP:-}" ]; then echo "kept: $folder" >&2; else rm -rf "$folder"; fi
}
trap after EXIT
# Killed, even by -9, it takes the namespaces with it.
setpriv --pdeathsig KILL unshare --net --mount --pid --fork --kill-child=SIGKILL --mount-proc bash tests/e2e/inside.sh "$@"
