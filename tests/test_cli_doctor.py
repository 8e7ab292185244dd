# SPDX-License-Identifier: Apache-2.0
"""`outrider doctor`: its exit codes and forms, and what was hidden from an agent."""

from __future__ import annotations

import json
import pathlib
import socket
from collections.abc import Iterator

import pytest
from tests.kube import apiserver, asked, kubelet


@pytest.fixture(autouse=True)
def node(tmp_path: pathlib.Path) -> Iterator[kubelet.Node]:
    with asked.kubectl_on_path(tmp_path / "bin") as made:
        yield made


def hidden(tool: str, reason: str, request: str, **more: str) -> str:
    said = {
        "time": "2026-01-01T00:00:00+00:00",
        "level": "info",
        "message": "hidden",
        "request": request,
        "server": "crm/s",
    }
    return json.dumps({**said, "tool": tool, "reason": reason, "rule": "", "why": "", **more})


@pytest.fixture
def log(tmp_path: pathlib.Path, node: kubelet.Node) -> pathlib.Path:
    file = tmp_path / "log"
    lines = [
        hidden("drop", "NotAllowed", "R1", why="no Allow of crm (provider) or the platform"),
        "not JSON", "7", json.dumps({"message": "listening"}),
        hidden("drop", "NotAllowed", "R2", why="no Allow of crm (provider) or the platform"),
        hidden("x", "DeniedHidden", "R3", rule="crm/p/d"),
        hidden("que\u202ery", "ToolUnknown", "R4"),
    ]  # fmt: skip
    file.write_text("\n".join(lines))
    node.does(logs={"agents/bot-0": str(file)})
    return file


def test_what_was_hidden_from_an_agent_is_counted_with_its_reason(log: pathlib.Path) -> None:
    ran = asked.outrider("doctor", "bot-0", "-n", "agents")
    assert ran.exit_code == 0, ran.output
    rows = ran.stdout.splitlines()
    assert rows[0].split() == ["SERVER", "TOOL", "COUNT", "REASON", "WHY", "LAST", "REQUEST"]
    assert rows[1].split()[:4] == ["crm/s", "drop", "2", "NotAllowed"]
    assert "no Allow of crm (provider) or the platform" in rows[1]
    assert rows[1].endswith("R2")
    assert "crm/p/d" in rows[2]
    assert "que\\u202ery" in rows[3]
    assert "outrider explain REQUEST --pod agents/bot-0" in ran.stderr
    found = json.loads(asked.outrider("doctor", "bot-0", "-n", "agents", "-o", "json").stdout)
    assert [(each["tool"], each["count"], each["request"]) for each in found][:2] == [
        ("drop", 2, "R2"),
        ("x", 1, "R3"),
    ]


def test_a_log_without_anything_hidden_says_so(log: pathlib.Path) -> None:
    log.write_text("{}")
    ran = asked.outrider("doctor", "bot-0", "-n", "agents")
    assert (ran.exit_code, ran.stdout) == (0, "")
    assert "Nothing was hidden from the agent of agents/bot-0" in ran.stderr


def test_a_pod_that_is_not_there_is_exit_4(log: pathlib.Path) -> None:
    ran = asked.outrider("doctor", "other", "-n", "agents")
    assert ran.exit_code == 4
    assert "the log of pod agents/other cannot be read" in ran.stderr


@pytest.mark.parametrize(
    "line", [["bot-0", "--pre"], ["-n", "x"], ["BAD", "-n", "x"], ["--values", __file__]]
)
def test_what_cannot_be_meant_is_a_usage_error(line: list[str]) -> None:
    assert asked.outrider("doctor", *line).exit_code == 2


def test_a_cluster_that_does_not_answer_is_exit_4_and_said_once(cluster: apiserver.Cluster) -> None:
    with socket.socket() as reserved:
        reserved.bind(("127.0.0.1", 0))
        nowhere = cluster.kubeconfig_token("x", url=f"https://127.0.0.1:{reserved.getsockname()[1]}")
    for option in ([], ["--pre"]):
        ran = asked.outrider("doctor", *option, "--kubeconfig", nowhere)
        assert ran.exit_code == 4
        assert ran.stdout == ""
        assert ran.stderr.startswith("Error: the API server cannot be asked for its version")
        assert "Next: check `kubectl cluster-info`" in ran.stderr


def test_a_finding_that_is_bad_is_exit_1_in_every_form(cluster: apiserver.Cluster) -> None:
    where = ("--kubeconfig", cluster.kubeconfig, "--system-namespace", "dr-none", "--release", "dr-none")
    ran = asked.outrider("doctor", *where)
    assert ran.exit_code == 1
    assert "bad     settings   ConfigMap dr-none/dr-none-settings is not there" in ran.stdout
    assert " bad" in ran.stderr
    found = json.loads(asked.outrider("doctor", *where, "-o", "json").stdout)
    assert {"level", "check", "what", "why", "next"} == set(found[0])
    assert any(each["level"] == "bad" and each["check"] == "leader" and each["next"] for each in found)
