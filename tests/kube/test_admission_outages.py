# SPDX-License-Identifier: Apache-2.0
"""Admission outlives the API server, and kinds that are taken away and come back."""

from __future__ import annotations

import pathlib
import time

from tests.kube import admitted, apiserver


def test_admission_goes_on_after_the_api_server_was_away(
    own_cluster: apiserver.Cluster, tmp_path: pathlib.Path
) -> None:
    own_cluster.install_crds()
    inside = admitted.Admitted(own_cluster, tmp_path, "outages").start()
    try:
        own_cluster.stop_api()
        time.sleep(25)  # longer than kopf tries any one request
        own_cluster.start_api()
        assert inside.thread.alive, inside.thread.problem
        admitted.until(inside.injects, lambda: f"{inside.said} {inside.thread.problem}")
        nudges(inside)
        own_cluster.kubectl("delete", "crd", "mcpservers.outrider.dev")
        ends(inside)
        own_cluster._installed = False
        own_cluster.install_crds()
        inside.again()
        nudges(inside)
    finally:
        inside.close()


def ends(inside: admitted.Admitted) -> None:
    """Once a kind is gone. An API server does not always end a watch of what is gone, and kopf then waits: its owner stops it."""
    soon = time.monotonic() + 10
    while inside.thread.alive and time.monotonic() < soon:
        time.sleep(0.05)
    if not inside.thread.alive:
        assert inside.thread.problem.startswith("admission has ended: 404")
    inside.on_loop(inside.thread.stop(40))
    assert not inside.thread.alive


def nudges(inside: admitted.Admitted) -> None:
    """Until a change is a nudge again: kopf's own watch comes back in its own time, and what a list shows it is none."""
    server = {
        "apiVersion": "outrider.dev/v1alpha1", "kind": "MCPServer", "metadata": {"name": "crm", "namespace": inside.space},
        "spec": {"description": "Records", "endpoint": {"url": "https://crm.example/mcp"}},
    }  # fmt: skip
    inside.nudged.clear()

    def changed() -> bool:
        server["metadata"]["labels"] = {"at": str(time.monotonic_ns())}  # type: ignore[index]
        inside.cluster.apply(server)
        time.sleep(0.3)
        return ("MCPServer", inside.space, "crm") in inside.nudged

    admitted.until(changed, lambda: inside.thread.problem)
