# SPDX-License-Identifier: Apache-2.0
"""What the parts of a node are told: one function per file of settings. Reasons: research of what runs where cgroups are of version 1."""

from __future__ import annotations

import json
import pathlib
from typing import Any

NODE = "node-0"
DOMAIN = "cluster.local"
PODS = "10.244.0.0/24"


def containerd(folder: pathlib.Path, socket: pathlib.Path, pause: str) -> str:
    """TOML of containerd's CRI; everything it keeps is under `folder`."""
    return f"""\
version = 2
root = "{folder}/root"
state = "/run/outrider-containerd"
disabled_plugins = ["io.containerd.internal.v1.opt", "io.containerd.snapshotter.v1.btrfs", "io.containerd.snapshotter.v1.zfs"]
[grpc]
  address = "{socket}"
[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = "{pause}"
  # Root may lack CAP_SYS_RESOURCE: then no container could be given the score that kubelet wants for it.
  restrict_oom_score_adj = true
  [plugins."io.containerd.grpc.v1.cri".cni]
    bin_dir = "/usr/lib/cni"
    conf_dir = "{folder}/cni"
  [plugins."io.containerd.grpc.v1.cri".containerd]
    snapshotter = "overlayfs"
    default_runtime_name = "runc"
    [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
      runtime_type = "io.containerd.runc.v2"
      [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc.options]
        SystemdCgroup = false
"""


def cni(folder: pathlib.Path) -> str:
    """A point-to-point link per pod: everything is routed, so Services work between pods of one node, too."""
    ipam = {
        "type": "host-local", "dataDir": str(folder / "addresses"),
        "ranges": [[{"subnet": PODS}]], "routes": [{"dst": "0.0.0.0/0"}],
    }  # fmt: skip
    return json.dumps({"cniVersion": "0.4.0", "name": "pods", "plugins": [{"type": "ptp", "ipam": ipam}]})


def kubelet(
    folder: pathlib.Path, *, address: str, ca_file: pathlib.Path, socket: pathlib.Path, cgroup: str
) -> dict[str, Any]:
    """A KubeletConfiguration: cgroups of version 1, nothing of the machine changed, nothing evicted."""
    return {
        "apiVersion": "kubelet.config.k8s.io/v1beta1", "kind": "KubeletConfiguration",
        "address": address, "healthzBindAddress": "127.0.0.1", "readOnlyPort": 0,
        "authentication": {
            "anonymous": {"enabled": False}, "webhook": {"enabled": True}, "x509": {"clientCAFile": str(ca_file)},
        },
        "authorization": {"mode": "Webhook"},
        "containerRuntimeEndpoint": f"unix://{socket}",
        "failCgroupV1": False, "failSwapOn": False, "cgroupDriver": "cgroupfs", "cgroupRoot": f"/{cgroup}",
        "enforceNodeAllocatable": [], "makeIPTablesUtilChains": False, "localStorageCapacityIsolation": False,
        "evictionHard": {"memory.available": "50Mi"}, "imageGCHighThresholdPercent": 100, "imageMaximumGCAge": "0s",
        "podLogsDir": str(folder / "logs"), "resolvConf": "",
        "volumePluginDir": str(folder / "flex-volumes"),
        "clusterDNS": [address], "clusterDomain": DOMAIN,
        "syncFrequency": "10s", "nodeStatusUpdateFrequency": "5s", "fileCheckFrequency": "0s",
        "registerNode": True, "serializeImagePulls": False,
        # A rotated projected file is in a pod at most this much later.
        "configMapAndSecretChangeDetectionStrategy": "Watch",
    }  # fmt: skip


def kube_proxy(kubeconfig: pathlib.Path) -> dict[str, Any]:
    """A KubeProxyConfiguration: nftables; the machine's connection tracking is left as it is."""
    untouched = {"maxPerCore": 0, "min": 0, "tcpEstablishedTimeout": "0s", "tcpCloseWaitTimeout": "0s"}
    return {
        "apiVersion": "kubeproxy.config.k8s.io/v1alpha1", "kind": "KubeProxyConfiguration",
        "clientConnection": {"kubeconfig": str(kubeconfig)}, "hostnameOverride": NODE,
        "mode": "nftables", "clusterCIDR": PODS, "conntrack": untouched,
        "nftables": {"minSyncPeriod": "100ms"}, "healthzBindAddress": "127.0.0.1:10256",
        "metricsBindAddress": "127.0.0.1:10249",
    }  # fmt: skip
