# SPDX-License-Identifier: Apache-2.0
"""`python -m bench.fleet`: from `kubectl apply` to enforced on every proxy, a push to a thousand streams, and what they cost in memory.

A real API server, one real operator as the chart installs it, and real ends of the config stream in a few processes; pods are objects
that nobody runs. Everything shares this machine, so the figures hold the clients' own work too. Goals are printed, never enforced.
Exit codes: 0 measured; 3 something is missing or did not come about in time.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import dataclasses
import json
import pathlib
import random
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from tests.kube import apiserver, installation

from bench import compiled, processes
from outrider_operator import access

NAMESPACE = "fleet"
SERVER = f"{NAMESPACE}/recorder"
TOOL = "query"
API = "outrider.dev/v1alpha1"
ENFORCED_GOAL_SECONDS = 2.0
PUSH_GOAL_SECONDS = 0.3
MEMORY_GOAL_MIB = 150
PATIENCE_SECONDS = 180.0
_AT_ONCE = 16
_VERBS = ("get", "list", "create", "update", "delete", "search", "export", "sync")
_THINGS = (
    "account",
    "invoice",
    "customer",
    "order",
    "ticket",
    "contract",
    "payment",
    "shipment",
    "report",
    "campaign",
    "employee",
    "calendar",
)
_LINE = "{:<58}{:>10}{:>10}{:>10}   {}"


@dataclasses.dataclass(frozen=True, slots=True)
class Agents:
    """Pods that exist as objects, and a token of each."""

    tokens: list[str]


def obj(kind: str, name: str, spec: dict[str, Any]) -> dict[str, Any]:
    return {"apiVersion": API, "kind": kind, "metadata": {"name": name, "namespace": NAMESPACE}, "spec": spec}


def server() -> dict[str, Any]:
    credentials = [{"name": "open", "from": [{"anyone": True}], "none": True}]
    endpoint = {"url": "https://recorder.fleet.example/mcp"}
    return obj(
        "MCPServer", "recorder", {"description": "Bench.", "endpoint": endpoint, "credentials": credentials}
    )


def policy(*, denied: bool) -> dict[str, Any]:
    rules: list[dict[str, Any]] = [
        {"name": "allow", "effect": "Allow", "from": [{"anyone": True}], "tools": ["*"]}
    ]
    if denied:
        rules.append({"name": "deny", "effect": "Deny", "tools": [TOOL]})
    return obj("MCPToolPolicy", "access", {"targetRefs": [{"name": "recorder"}], "rules": rules})


def padding(kib: int) -> list[dict[str, Any]]:
    """Policies that make each snapshot about so much larger."""
    dice, made = random.Random(1), []
    for number in range(kib // 5):
        rules = [
            {"name": f"r{rule}", "effect": "Deny", "tools": [_tool(dice) for _ in range(10)]}
            for rule in range(10)
        ]
        made.append(
            obj("MCPToolPolicy", f"padding-{number}", {"targetRefs": [{"name": "recorder"}], "rules": rules})
        )
    return made


def _tool(dice: random.Random) -> str:
    """A name as tools have it: what a snapshot deflates to depends on that."""
    verb, what = dice.choice(_VERBS), dice.choice(_THINGS)
    return f"{verb}_{dice.choice(_THINGS)}_{what}_by_{dice.choice(_THINGS)}_{dice.randrange(1000)}"


async def agents(cluster: apiserver.Cluster, count: int, accounts: int) -> Agents:
    """Pods with the label of injected ones, made before the chart's admission policy looks at such."""
    reached = access.load(cluster.kubeconfig)
    core = f"/api/v1/namespaces/{NAMESPACE}"
    turn = asyncio.Semaphore(_AT_ONCE)
    async with reached.session() as session:

        async def made(path: str, body: dict[str, Any]) -> dict[str, Any]:
            async with turn, session.post(reached.url(path), json=body, **reached.request()) as answer:
                found: dict[str, Any] = await answer.json()
                if answer.status >= 300:
                    raise compiled.Unable(f"{path}: {found.get('message')}")
                return found

        async def agent(number: int) -> str:
            account = f"bot-{number % accounts}"
            metadata = {"name": f"agent-{number}", "labels": {"outrider.dev/injected": "true"}}
            spec = {"serviceAccountName": account, "containers": [{"name": "agent", "image": "agent:1"}]}
            pod = await made(f"{core}/pods", {"metadata": metadata, "spec": spec})
            bound = {
                "kind": "Pod",
                "apiVersion": "v1",
                "name": pod["metadata"]["name"],
                "uid": pod["metadata"]["uid"],
            }
            asked = {"audiences": ["config.outrider.dev"], "expirationSeconds": 7200, "boundObjectRef": bound}
            token = await made(f"{core}/serviceaccounts/{account}/token", {"spec": asked})
            return str(token["status"]["token"])

        await asyncio.gather(
            *(
                made(f"{core}/serviceaccounts", {"metadata": {"name": f"bot-{each}"}})
                for each in range(accounts)
            )
        )
        return Agents(list(await asyncio.gather(*(agent(number) for number in range(count)))))


class Clients:
    """Processes full of streams, and what they said."""

    def __init__(self, home: installation.Installation, folder: pathlib.Path) -> None:
        self._operator = home.operators[0]
        self._folder = folder
        self._running: list[subprocess.Popen[str]] = []
        self._lock = threading.Lock()
        self.events: list[dict[str, Any]] = []

    def start(self, name: str, tokens: Sequence[str], *, readers: bool, count: int) -> None:
        for part in range(count):
            given = {
                "url": f"https://127.0.0.1:{self._operator.ports['stream']}", "readers": readers, "server": SERVER, "tool": TOOL,
                "ca_file": str(self._operator.folder / "certs" / "ca.crt"), "folder": str(self._folder / f"{name}-{part}"),
                "tokens": list(tokens[part::count]),
            }  # fmt: skip
            file = self._folder / f"{name}-{part}.json"
            file.write_text(json.dumps(given))
            line = [sys.executable, "-m", "bench.fleet_clients", str(file)]
            log = (self._folder / f"{name}-{part}.log").open("w")
            process = subprocess.Popen(line, stdout=subprocess.PIPE, stderr=log, text=True)
            self._running.append(process)
            threading.Thread(target=self._hear, args=(process, part), daemon=True).start()

    def _hear(self, process: subprocess.Popen[str], part: int) -> None:
        assert process.stdout is not None
        for line in process.stdout:
            with self._lock:
                self.events.append({**json.loads(line), "part": part})

    def since(self, moment: float, **wanted: Any) -> list[dict[str, Any]]:
        """What was said after that moment, with these values; the newest of each client."""
        with self._lock:
            found = [
                each for each in self.events if each.get("at", 0) >= moment and wanted.items() <= each.items()
            ]
        return list({(each["part"], each.get("proxy", each.get("reader"))): each for each in found}.values())

    def all_said(self, count: int, moment: float, **wanted: Any) -> list[dict[str, Any]]:
        """The same once so many have. Raises Unable when they do not."""
        until(
            lambda: len(self.since(moment, **wanted)) == count,
            f"{count} streams say {wanted or 'it arrived'}",
        )
        return self.since(moment, **wanted)

    def stop(self) -> None:
        for process in self._running:
            process.kill()
            process.wait()
        self._running.clear()
        with self._lock:
            self.events.clear()


def until(condition: Callable[[], bool], what: str) -> None:
    end = time.monotonic() + PATIENCE_SECONDS
    while not condition():
        if time.monotonic() > end:
            raise compiled.Unable(f"not in {PATIENCE_SECONDS:g} s: {what}")
        time.sleep(0.02)


def streams(home: installation.Installation) -> int:
    _, text = home.operators[0].desk("/metrics")
    found = [line for line in text.splitlines() if line.startswith("outrider_streams ")]
    return int(float(found[0].split()[1])) if found else 0


def enforced(home: installation.Installation, clients: Clients, count: int, rounds: int) -> list[list[float]]:
    """Per round: seconds from the start of `kubectl apply` until each proxy decides otherwise."""
    found = []
    for number in range(rounds):
        denied = number % 2 == 0
        began = time.monotonic()
        home.cluster.apply(policy(denied=denied))
        heard = clients.all_said(count, began, allowed=not denied)
        found.append([each["at"] - began for each in heard])
        time.sleep(1.0)
    return found


def pushed(
    home: installation.Installation, clients: Clients, count: int, rounds: int
) -> list[tuple[float, float, int]]:
    """Per round: seconds from the first byte at anybody to the last at everybody, from the apply to the last, bytes of a line."""
    found = []
    for number in range(rounds):
        began = time.monotonic()
        home.cluster.apply(policy(denied=number % 2 == 0))
        heard = clients.all_said(count, began)
        first, last = min(each["began"] for each in heard), max(each["at"] for each in heard)
        found.append((last - first, last - began, max(each["bytes"] for each in heard)))
        time.sleep(1.0)
    return found


@contextlib.contextmanager
def place(folder: pathlib.Path) -> Iterator[apiserver.Cluster]:
    cluster = apiserver.Cluster(folder / "cluster")
    try:
        yield cluster.start()
    finally:
        cluster.close()


def measured(given: argparse.Namespace, folder: pathlib.Path) -> dict[str, Any]:
    """Everything, as numbers."""
    (folder / "cluster").mkdir()
    with place(folder) as cluster:
        cluster.namespace(NAMESPACE)
        tokens = asyncio.run(agents(cluster, max(given.proxies, given.streams), given.accounts)).tokens
        with installation.installed(cluster, folder / "home", replicas=1) as home:
            operator = home.operators[0].process
            assert operator is not None
            cluster.apply(server(), policy(denied=False))
            clients = Clients(home, folder)
            bare = processes.resident(operator.pid)
            try:
                clients.start("proxies", tokens[: given.proxies], readers=False, count=given.clients)
                clients.all_said(given.proxies, 0.0, allowed=True)
                flips = enforced(home, clients, given.proxies, given.rounds)
                clients.stop()
                until(lambda: streams(home) == 0, "the operator has noticed")
                cluster.apply(*padding(given.kib), policy(denied=False))
                clients.start("readers", tokens[: given.streams], readers=True, count=given.clients)
                clients.all_said(given.streams, 0.0)
                pushes = pushed(home, clients, given.streams, given.rounds)
                return {
                    "enforced": flips, "pushed": pushes, "bare_mib": bare,
                    "streams_mib": processes.resident(operator.pid), "streams": streams(home),
                }  # fmt: skip
            finally:
                clients.stop()


def shown(given: argparse.Namespace, found: dict[str, Any]) -> None:
    """A table."""
    print(_LINE.format("", "p50", "p99", "most", "goal"))
    seconds = sorted(each for one in found["enforced"] for each in one)
    cut = statistics.quantiles(seconds, n=100)
    row = (f"{cut[49]:.2f} s", f"{cut[98]:.2f} s", f"{seconds[-1]:.2f} s")
    what = f"kubectl apply started -> enforced, {given.proxies} proxies"
    print(_LINE.format(what, *row, f"p99 < {ENFORCED_GOAL_SECONDS:g} s"))
    pushes = sorted(each[0] for each in found["pushed"])
    sent = found["pushed"][0][2] // 1024
    what = f"push of {given.kib} KiB ({sent} deflated) to {given.streams} streams"
    middle = statistics.median(pushes)
    print(_LINE.format(what, f"{middle:.2f} s", "", f"{pushes[-1]:.2f} s", f"<= {PUSH_GOAL_SECONDS:g} s"))
    whole = sorted(each[1] for each in found["pushed"])
    print(
        _LINE.format(
            "  the same from kubectl apply started",
            f"{statistics.median(whole):.2f} s",
            "",
            f"{whole[-1]:.2f} s",
            "",
        )
    )
    memory = f"{found['streams_mib']:.0f} MiB"
    what = f"operator's RSS at {found['streams']} streams (without: {found['bare_mib']:.0f} MiB)"
    print(_LINE.format(what, memory, "", "", f"<= {MEMORY_GOAL_MIB} MiB"))


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs and prints. Returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m bench.fleet", description=__doc__, allow_abbrev=False)
    add = parser.add_argument
    add("--proxies", type=int, default=300, help="real ends that decide (300)")
    add("--streams", type=int, default=1000, help="streams that the push goes to (1000)")
    add("--accounts", type=int, default=10, help="different workloads among them (10)")
    add("--kib", type=int, default=100, help="size of a pushed snapshot, about (100)")
    add("--rounds", type=int, default=6, help="changes of each kind (6)")
    add("--clients", type=int, default=2, help="processes that the streams end in (2)")
    add("--json", type=pathlib.Path, metavar="FILE", help="everything measured, as JSON")
    given = parser.parse_args(arguments)
    try:
        with (
            tempfile.TemporaryDirectory(prefix="outrider-fleet-") as folder,
            contextlib.redirect_stdout(sys.stderr),  # the logs of what ran
        ):
            found = measured(given, pathlib.Path(folder))
    except (compiled.Unable, AssertionError) as unable:
        print(f"cannot measure: {unable}", file=sys.stderr)
        return 3
    shown(given, found)
    if given.json is not None:
        given.json.write_text(json.dumps(found))
    return 0


if __name__ == "__main__":
    sys.exit(main())
