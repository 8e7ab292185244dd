# SPDX-License-Identifier: Apache-2.0
"""An API server with the pod policy of the chart and no webhook, for the tests of that policy.

The policy is narrowed to namespaces of its own, since other tests share the API server.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator
from typing import Any

from tests import pods
from tests.kube import apiserver, helm

Pod = dict[str, Any]
OLD_IMAGE = "outrider-sidecar:older"
VALUES = {
    "images": {"sidecar": {"repository": "outrider-sidecar", "tag": "test"}},
    "settings": {"injection": {"allowedImages": [OLD_IMAGE]}},
}
NAME = "pod-policy-under-test"
_NUMBERS = itertools.count()


class Place:
    """A namespace that opted in, and one that says nothing, on an API server with the policy and no webhook."""

    def __init__(self, cluster: apiserver.Cluster) -> None:
        self.cluster = cluster
        mark = {"outrider-test": "pod-policy"}
        self.enabled = cluster.namespace("policy-on", **{"outrider.dev__injection": "enabled"}, **mark)
        self.silent = cluster.namespace("policy-silent", **mark)
        self.disabled = cluster.namespace("policy-off", **{"outrider.dev__injection": "disabled"}, **mark)

    def create(self, pod: Pod, namespace: str = "", *, dry_run: bool = True, who: Any = None) -> str:
        """What the API server says against it; "" when it takes the pod."""
        metadata = {**pod["metadata"], "namespace": namespace or self.enabled}
        dry = ["--dry-run=server"] if dry_run else []
        whole = json.dumps({**pod, "metadata": metadata})
        ran = self.cluster.kubectl("create", *dry, "-f", "-", input=whole, check=False, kubeconfig=who)
        return "" if ran.returncode == 0 else ran.stderr

    def running(self, pod: Pod, namespace: str = "") -> str:
        """The name of a pod that is really there."""
        name = f"agent-{next(_NUMBERS)}"
        said = self.create({**pod, "metadata": {**pod["metadata"], "name": name}}, namespace, dry_run=False)
        assert said == ""
        return name

    def elsewhere(self, pod: Pod) -> str:
        """The name of a pod that came into the enabled namespace while there was no policy."""
        binding = self.cluster.get("validatingadmissionpolicybinding", NAME)
        self.cluster.kubectl("delete", "validatingadmissionpolicybinding", NAME)
        try:
            for _ in range(100):
                if not self.create(pod):
                    break
            return self.running(pod)
        finally:
            self.bind(binding)

    def bind(self, *objects: Pod) -> None:
        """The API server's own watch takes a moment to bring a policy into force."""
        for each in objects:
            each["metadata"] = {"name": each["metadata"]["name"]}
        self.cluster.apply(*objects)
        for _ in range(100):
            if self.create(pods.pod()):
                return
        raise AssertionError("the policy did not come into force")

    def patch(self, name: str, change: Any, *more: str, namespace: str = "") -> str:
        where = ["-n", namespace or self.enabled]
        ran = self.cluster.kubectl("patch", "pod", name, *where, "-p", json.dumps(change), *more, check=False)
        return "" if ran.returncode == 0 else ran.stderr


def place(cluster: apiserver.Cluster) -> Iterator[Place]:
    rendered = helm.documents(helm.template(values=VALUES)["outrider/templates/pod-policy.yaml"])
    for each in rendered:
        each["metadata"]["name"] = NAME
        if each["kind"].endswith("Binding"):
            each["spec"]["policyName"] = NAME
        else:  # other tests of this API server have pods of their own
            selector = each["spec"]["matchConstraints"]["namespaceSelector"]["matchExpressions"]
            selector.append({"key": "outrider-test", "operator": "In", "values": ["pod-policy"]})
    made = Place(cluster)
    made.bind(*rendered)
    yield made
    cluster.kubectl("delete", "validatingadmissionpolicybinding", NAME)
    cluster.kubectl("delete", "validatingadmissionpolicy", NAME)
    for _ in range(100):  # the next module's policy has the same name
        if not made.create(pods.pod()):
            return
