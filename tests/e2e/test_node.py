# SPDX-License-Identifier: Apache-2.0
"""That the node is one: pods run, Services have addresses and names, Jobs complete, logs and exec work, the outside is not there."""

from __future__ import annotations

import json

from tests.e2e import node

AGENT = "outrider.test/agent:e2e"


def pod(name: str, namespace: str, program: str, **more: object) -> dict[str, object]:
    return {
        "apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "namespace": namespace, "labels": {"app": name}},
        "spec": {
            "restartPolicy": "Never",
            "containers": [{"name": "main", "image": AGENT, "command": ["python", "-c", program]}], **more,
        },
    }  # fmt: skip


def test_the_node_is_ready_within_a_minute(running: node.Node) -> None:
    print(f"Ready after {running.ready_seconds:.1f} s; MiB: {json.dumps(running.memory())}")
    assert running.ready_seconds < 60


def test_a_pod_reaches_another_by_the_name_of_its_service_and_nothing_outside(running: node.Node) -> None:
    running.namespace("plain")
    serving = "import http.server as h; h.test(h.SimpleHTTPRequestHandler, port=8000, bind='0.0.0.0')"
    service = {
        "apiVersion": "v1", "kind": "Service", "metadata": {"name": "server", "namespace": "plain"},
        "spec": {"selector": {"app": "server"}, "ports": [{"port": 80, "targetPort": 8000}]},
    }  # fmt: skip
    running.apply(pod("server", "plain", serving), service)
    running.kubectl("wait", "-n", "plain", "--for=condition=Ready", "pod/server", "--timeout=60s")
    asking = (
        "import socket, time, urllib.request\n"
        "for host in ('server', 'server.plain.svc', 'server.plain.svc.cluster.local'):\n"
        "    for _ in range(50):\n"
        "        try:\n"
        "            print(host, urllib.request.urlopen(f'http://{host}/', timeout=5).status); break\n"
        "        except OSError as error:\n"
        "            last = error; time.sleep(.2)\n"
        "    else:\n"
        "        raise SystemExit(f'{host}: {last}')\n"
        "try:\n"
        "    socket.create_connection(('203.0.113.1', 80), 1)\n"
        "except OSError:\n"
        "    print('nothing outside')\n"
    )
    job = {
        "apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": "asks", "namespace": "plain"},
        "spec": {"backoffLimit": 0, "template": {"spec": pod("x", "plain", asking)["spec"]}},
    }  # fmt: skip
    running.apply(job)
    waited = running.kubectl(
        "wait", "-n", "plain", "--for=condition=Complete", "job/asks", "--timeout=60s", check=False
    )
    said = running.kubectl("logs", "-n", "plain", "job/asks").stdout
    assert waited.returncode == 0, said
    assert said.splitlines() == [
        "server 200", "server.plain.svc 200", "server.plain.svc.cluster.local 200", "nothing outside",
    ]  # fmt: skip


def test_a_command_runs_in_a_container(running: node.Node) -> None:
    running.namespace("exec")
    running.apply(pod("sleeps", "exec", "import time; time.sleep(600)"))
    running.kubectl("wait", "-n", "exec", "--for=condition=Ready", "pod/sleeps", "--timeout=60s")
    assert "uid=1000" in running.kubectl("exec", "-n", "exec", "sleeps", "--", "id").stdout


def test_a_namespace_goes_away_whole(running: node.Node) -> None:
    running.namespace("leaving")
    running.apply(
        {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "any", "namespace": "leaving"}}
    )
    running.kubectl("delete", "namespace", "leaving", "--timeout=60s")
