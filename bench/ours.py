# SPDX-License-Identifier: Apache-2.0
"""Outrider as a way: the real operator over real files, the real sidecar, and what both say about the calls they saw.

Called by the run. `plain` is one policy that allows everything; `full` has every feature that costs something per call.
It starts commands and reads their files and ports; it imports nothing of the proxy.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import pathlib
import re
import subprocess
from collections.abc import Iterator
from typing import Any

from bench import compiled, paths, processes, validity

JOURNAL_BYTES_MAX = 8 << 30
_SAMPLE = re.compile(r"^(\w+)(?:\{(.*)\})? (\S+)$")
_LABEL = re.compile(r'(\w+)="((?:[^"\\]|\\.)*)"')
_MODERN = "2026-07-28"

_SETTINGS = """\
apiVersion: outrider.dev/v1alpha1
kind: Settings
platformNamespace: outrider-system
workload: {namespace: agents, serviceAccount: bot}
teams:
- {name: sales, namespaces: [agents]}
- {name: others, namespaces: [elsewhere]}
"""

_PLAIN = """\
apiVersion: outrider.dev/v1alpha1
kind: MCPServer
metadata: {name: echo, namespace: agents}
spec:
  title: Echo
  description: Echoes
  version: 1.0.0
  endpoint: {url: "http://127.0.0.1:@PORT@/mcp", timeouts: @TIMEOUTS@}
  tools: {validateArguments: false}
  audit: {level: Metadata}
---
apiVersion: outrider.dev/v1alpha1
kind: MCPToolPolicy
metadata: {name: everything, namespace: agents}
spec:
  targetRefs: [{name: echo}]
  rules:
  - {name: all, effect: Allow, from: [{anyone: true}], tools: ["*"]}
"""

_FULL = """\
apiVersion: outrider.dev/v1alpha1
kind: MCPServer
metadata: {name: echo, namespace: tools}
spec:
  title: Echo
  description: Echoes
  version: 1.0.0
  endpoint: {url: "http://127.0.0.1:@PORT@/mcp"}
  credentials:
  - {name: others, from: [{teams: [others]}], none: true}
  - {name: lent, from: [{teams: [sales]}], file: {path: "@CREDENTIAL@"}}
  tools:
    validateArguments: true
    cost:
      default: {perCall: "0.002"}
      perTool:
      - {name: echo, perCall: "0.000100", perThousandResultTokens: "0.000500", maxResultBytes: 65536}
  audit: {level: Arguments}
---
apiVersion: outrider.dev/v1alpha1
kind: MCPToolPolicy
metadata: {name: provider, namespace: tools}
spec:
  targetRefs: [{name: echo}]
  rules:
  - {name: sales, effect: Allow, from: [{teams: [sales]}], tools: [echo, "e*", forbidden]}
  - {name: others, effect: Allow, from: [{teams: [others]}], tools: ["*"]}
  - {name: no-forbidden, effect: Deny, tools: [forbidden], message: Nobody calls this one.}
---
apiVersion: outrider.dev/v1alpha1
kind: MCPToolPolicy
metadata: {name: consumer, namespace: agents}
spec:
  targetRefs: [{namespace: tools, name: echo}]
  rules:
  - {name: bot, effect: Allow, from: [{serviceAccounts: [bot]}], tools: ["*"]}
---
apiVersion: outrider.dev/v1alpha1
kind: MCPToolPolicy
metadata: {name: platform, namespace: outrider-system}
spec:
  targetRefs: [{namespace: "*", name: "*"}]
  rules:
  - {name: no-debug, effect: Deny, tools: ["debug_*"]}
---
apiVersion: outrider.dev/v1alpha1
kind: MCPToolPolicy
metadata: {name: trial, namespace: tools}
spec:
  targetRefs: [{name: echo}]
  mode: Audit
  rules:
  - {name: would-deny, effect: Deny, tools: ["ech*"]}
---
apiVersion: outrider.dev/v1alpha1
kind: MCPBudget
metadata: {name: quotas, namespace: tools}
spec:
  targetRefs: [{name: echo}]
  tools: [echo]
  limits:
  - {name: calls, unit: Calls, quota: {amount: "100000000", period: Month}}
  - {name: spend, unit: Cost, quota: {amount: "1000000", period: Month}}
---
apiVersion: outrider.dev/v1alpha1
kind: MCPBudget
metadata: {name: pace, namespace: agents}
spec:
  targetRefs: [{namespace: tools, name: echo}]
  tools: [echo]
  limits:
  - {name: rate, unit: Calls, rate: {perSecond: "500000", burst: 1000000}}
---
apiVersion: outrider.dev/v1alpha1
kind: MCPBudget
metadata: {name: nothing-left, namespace: tools}
spec:
  targetRefs: [{name: echo}]
  tools: [exhausted]
  limits:
  - {name: calls, unit: Calls, quota: {amount: "0", period: Month}}
"""


@contextlib.contextmanager
def start(place: paths.Place, kind: str, *, timeouts: str = "{}") -> Iterator[paths.Way]:
    """Starts operator and sidecar for `plain` or `full` and waits until the tool is listed.

    `timeouts` are those of the entry of `plain`, as YAML.
    """
    folder = place.folder
    files, state = folder / "files", folder / "state"
    files.mkdir()
    _resources(files, folder, place.upstream, kind, timeouts)
    address, agent = folder / "sidecar.json", folder / "agent-token"
    with _operator(place, files) as (operator_url, operator_pid):
        command = [paths.program("outrider-sidecar"), "--operator", operator_url]
        command += ["--token-file", str(folder / "operator-token"), "--state", str(state), "--port", "0"]
        command += ["--admin-port", "0", "--address-file", str(address), "--agent-token-file", str(agent)]
        command += ["--journal-bytes-max", str(JOURNAL_BYTES_MAX)]
        log = folder / "sidecar.log"
        with processes.running(command, core=place.cores.path, log=log) as process:
            processes.wait_for(address.exists, what="outrider-sidecar", process=process, log=log)
            ports = json.loads(address.read_text())
            way = paths.Way(
                name=kind,
                port=ports["port"],
                path="/agents/echo/mcp" if kind == "plain" else "/tools/echo/mcp",
                canaries=("unlisted",) if kind == "plain" else ("forbidden", "exhausted"),
                expect="refusal",
                credential="anonymous" if kind == "plain" else "credential",
                authorization=agent.read_text().strip(),
                process=process.pid,
                beside=operator_pid,
                admin_port=ports["adminPort"],
                folder=folder,
                version=_version(),
            )
            processes.wait_for(lambda: _lists(way), what="outrider-sidecar", process=process, log=log)
            yield way


@contextlib.contextmanager
def _operator(place: paths.Place, files: pathlib.Path) -> Iterator[tuple[str, int]]:
    """On the core of load and upstream: in a cluster it is not beside the agent either."""
    folder = place.folder
    address, log = folder / "operator.json", folder / "operator.log"
    command = [paths.program("outrider-operator"), "--files", str(files), "--state", str(folder / "operator")]
    command += ["--token-file", str(folder / "operator-token"), "--address-file", str(address)]
    with processes.running(command, core=place.cores.load, log=log) as process:
        processes.wait_for(address.exists, what="outrider-operator", process=process, log=log)
        yield json.loads(address.read_text())["url"], process.pid


def _resources(files: pathlib.Path, folder: pathlib.Path, upstream: int, kind: str, timeouts: str) -> None:
    credential = folder / "credential"
    credential.write_text(paths.CREDENTIAL)
    credential.chmod(0o600)
    (files / "outrider.yaml").write_text(_SETTINGS)
    text = _PLAIN if kind == "plain" else _FULL
    text = text.replace("@PORT@", str(upstream)).replace("@CREDENTIAL@", str(credential))
    text = text.replace("@TIMEOUTS@", timeouts)
    (files / "resources.yaml").write_text(text)


def _version() -> str:
    said = subprocess.run(
        [paths.program("outrider"), "version"], capture_output=True, text=True, check=False
    ).stdout
    return "outrider " + said.partition("\n")[0].removeprefix("version").strip()


def _lists(way: paths.Way) -> bool:
    """Whether the agent is shown `echo`: configuration in force and upstream met. Makes no call."""
    meta = {
        "io.modelcontextprotocol/protocolVersion": _MODERN,
        "io.modelcontextprotocol/clientInfo": {"name": "bench", "version": "1.0.0"},
        "io.modelcontextprotocol/clientCapabilities": {},
    }
    body = json.dumps({"jsonrpc": "2.0", "id": 1, "method": "tools/list", "params": {"_meta": meta}})
    headers = {
        "content-type": "application/json",
        "accept": "application/json, text/event-stream",
        "mcp-protocol-version": _MODERN,
        "mcp-method": "tools/list",
        "authorization": f"Bearer {way.authorization}",
    }
    connection = http.client.HTTPConnection("127.0.0.1", way.port, timeout=10)
    try:
        connection.request("POST", way.path, body, headers)
        answer = connection.getresponse()
        text = answer.read()
        if answer.status != 200:
            return False
        listed = json.loads(text).get("result", {}).get("tools", [])
        return any(tool["name"] == "echo" for tool in listed)
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()


def samples(page: str) -> list[tuple[str, dict[str, str], float]]:
    """The samples of a Prometheus text page."""
    lines = (_SAMPLE.match(line) for line in page.splitlines())
    return [(line[1], dict(_LABEL.findall(line[2] or "")), float(line[3])) for line in lines if line]


def metrics(way: paths.Way) -> list[tuple[str, dict[str, str], float]]:
    """A scrape of the sidecar. Raises Unable when it is not answered."""
    assert way.admin_port is not None
    status, page = paths.get(way.admin_port, "/metrics")
    if status != 200:
        raise compiled.Unable(f"/metrics of {way.name} answers {status}")
    return samples(page.decode())


def kept(way: paths.Way) -> validity.Kept:
    """What metrics and journal say at the end. Reads the journal with the commands a user has."""
    decided = {"allow": 0.0, "deny": 0.0}
    for name, labels, value in metrics(way):
        if name == "outrider_policy_decisions_total":
            decided[labels["decision"]] = decided.get(labels["decision"], 0.0) + value
    assert way.folder is not None
    journal = way.folder / "state" / "journal"
    rows = _rows(journal)
    verified = subprocess.run(
        [paths.program("outrider"), "audit", "verify", "--journal", str(journal)],
        capture_output=True,
        check=False,
    )
    return validity.Kept(
        metric_allowed=round(decided["allow"]),
        metric_refused=round(decided["deny"]),
        chain_whole=verified.returncode == 0,
        **rows,
    )


def _rows(journal: pathlib.Path) -> dict[str, Any]:
    """Counts of `outrider audit search -o jsonl`, read as a stream: a run can leave a million rows."""
    command = [paths.program("outrider"), "audit", "search", "-o", "jsonl", "--journal", str(journal)]
    allowed = refused = unanswered = bodies = 0
    ids: set[str] = set()
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as reader:
        assert reader.stdout is not None
        for line in reader.stdout:
            row = json.loads(line)
            ids.add(row.get("requestId", ""))
            unanswered += row.get("status") in ("Open", "Unknown")
            bodies += bool((row.get("arguments") or {}).get("content"))
            if row["decision"] == "Allowed":
                allowed += 1
            else:
                refused += row.get("count", 1)
    return {
        "audit_allowed": allowed,
        "audit_refused": refused,
        "audit_unanswered": unanswered,
        "audit_ids": len(ids),
        "audit_bodies": bodies,
    }


def budgets_differ(way: paths.Way, sent: validity.Sent) -> list[str]:
    """Whether the budgets of `full` counted what passed; nothing to say of `plain`."""
    if way.name != "full":
        return []
    spent = {labels["pool"]: value for name, labels, value in metrics(way) if name == "outrider_budget_spent"}
    return validity.of_budgets(sent, spent, calls_pool="tools/quotas/calls", cost_pool="tools/quotas/spend")
