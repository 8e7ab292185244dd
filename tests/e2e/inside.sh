#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# The first process of the namespaces that run.sh made: lays the machine out as a node sees it, then runs the tests.
set -euo pipefail
here=$OUTRIDER_E2E_FOLDER

# The network: one device whose address is the node's, a pair, as any kernel that can have pods has those. What is addressed to
# nobody we know goes there and ends.
ip link set lo up
ip link add node0 type veth peer name nowhere
ip addr add 10.213.78.1/24 dev node0
ip link set nowhere up
ip link set node0 up
ip route add default dev node0
echo 1 >/proc/sys/net/ipv4/ip_forward

# Whatever containerd, CNI and kubelet write at places that nothing can change stays in our folder: /run is new, /var is a layer.
mount -t tmpfs run /run
mkdir -p "$here"/layer/upper "$here"/layer/work /run/lock
mount -t overlay -o "lowerdir=/var,upperdir=$here/layer/upper,workdir=$here/layer/work" var /var
[ -d /var/run/netns ] || mkdir -p /run/netns

# kubelet sets these of the whole machine; it finds them set.
mkdir /run/settings
while read -r name value; do
  [ -e "/proc/sys/$name" ] || continue
  echo "$value" >"/run/settings/${name//\//.}"
  mount --bind "/run/settings/${name//\//.}" "/proc/sys/$name"
done <<END
vm/overcommit_memory 1
vm/panic_on_oom 0
kernel/panic 10
kernel/panic_on_oops 1
kernel/keys/root_maxkeys 1000000
kernel/keys/root_maxbytes 25000000
END

if [ -f /sys/fs/cgroup/cgroup.controllers ]; then # version 2: one hierarchy, whose controllers are handed down
  mkdir "/sys/fs/cgroup/$OUTRIDER_E2E_CGROUP"
  for each in $(cat /sys/fs/cgroup/cgroup.controllers); do
    for above in "" "/$OUTRIDER_E2E_CGROUP"; do echo "+$each" >"/sys/fs/cgroup$above/cgroup.subtree_control" 2>/dev/null || true; done
  done
else
  for hierarchy in /sys/fs/cgroup/*/; do
    [ ! -e "$hierarchy/cgroup.procs" ] || mkdir -p "$hierarchy$OUTRIDER_E2E_CGROUP"
  done
  # cpuset has neither until it is said.
  for each in cpus mems; do
    cat "/sys/fs/cgroup/cpuset/cpuset.$each" >"/sys/fs/cgroup/cpuset/$OUTRIDER_E2E_CGROUP/cpuset.$each"
  done
fi

status=0
if [ "${1:-}" = shell ]; then bash || true; else
  [[ " $* " == *" tests/e2e"* ]] || set -- tests/e2e "$@"
  .venv/bin/python -m pytest -q -x -p no:cacheprovider "$@" || status=$?
fi
exit "$status"
