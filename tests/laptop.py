# SPDX-License-Identifier: Apache-2.0
"""A laptop for scenarios: the real operator and the real proxy as processes of their own, over files in a temporary folder.

`running(folder, files)` starts both, waits until the proxy says that it is ready, and stops everything when the block ends,
however it ends, and prints the end of every log, which pytest shows with a failure. An `Agent` speaks the protocol as bytes over sockets, so
that nothing of our own code stands between a test and what an agent would get.
"""

from __future__ import annotations

import contextlib
import dataclasses
import http.client
import json
import os
import pathlib
import signal
import subprocess
import sys
import time
import urllib.parse
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

MODERN = "2026-07-28"
LEGACY = "2025-11-25"
PATIENCE_SECONDS = 30.0
_POLL_SECONDS = 0.01
_STOP_SECONDS = 10.0
_TAIL_LINES = 30
_BESIDE_US = pathlib.Path(sys.executable).parent
_REFUSAL = "dev.outrider/refusal"

SETTINGS = """\
apiVersion: outrider.dev/v1alpha1
kind: Settings
platformNamespace: outrider-system
workload: {namespace: agents, serviceAccount: bot}
"""


def until(condition: Callable[[], Any], what: str, seconds: float = PATIENCE_SECONDS) -> Any:
    """Waits for another process's doing: the first true value of `condition`."""
    deadline = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < deadline, f"waited {seconds:g} s until {what}"
        time.sleep(_POLL_SECONDS)
    return found


class Process:
    """A program with its output in a file. `stop` asks, then insists; `kill` is kill -9."""

    def __init__(
        self, name: str, line: Sequence[str | os.PathLike[str]], *, logs: pathlib.Path,
        env: Mapping[str, str] | None = None, pass_fds: Sequence[int] = (),
    ) -> None:  # fmt: skip
        logs.mkdir(parents=True, exist_ok=True)
        self.name = name
        self.log = logs / f"{name}.log"
        with self.log.open("ab") as out:
            self._process = subprocess.Popen(
                [os.fspath(word) for word in line], stdin=subprocess.DEVNULL, stdout=out, stderr=out,
                env={**os.environ, **(env or {})}, pass_fds=pass_fds, start_new_session=True,
            )  # fmt: skip

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def ended(self) -> int | None:
        return self._process.poll()

    def text(self) -> str:
        return self.log.read_text("utf-8", "replace") if self.log.exists() else ""

    def tail(self) -> str:
        return "\n".join(f"{self.name} | {line}" for line in self.text().splitlines()[-_TAIL_LINES:])

    def until(self, condition: Callable[[], Any], what: str, seconds: float = PATIENCE_SECONDS) -> Any:
        """As `until`, unless the process ends first."""

        def held() -> Any:
            found = condition()
            assert found or self.ended is None, f"{self.name} ended with {self.ended}\n{self.tail()}"
            return found

        return until(held, what, seconds)

    def kill(self) -> None:
        self._process.kill()
        self._process.wait()

    def signal(self, number: signal.Signals) -> None:
        self.signal_only(number)
        self._process.wait(_STOP_SECONDS)

    def signal_only(self, number: signal.Signals) -> None:
        """A signal that does not end it."""
        self._process.send_signal(number)

    def stop(self) -> int:
        """SIGTERM to it, then SIGKILL to all it started. Its exit code."""
        if self.ended is None:
            self._process.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(_STOP_SECONDS)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.pid, signal.SIGKILL)
        return self._process.wait()


@dataclasses.dataclass(frozen=True, slots=True)
class Reply:
    """One HTTP answer, whole."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def messages(self) -> list[dict[str, Any]]:
        """The JSON-RPC messages in it, whether it is one JSON body or an event stream."""
        if self.headers.get("content-type", "").startswith("text/event-stream"):
            lines = self.body.decode().splitlines()
            return [
                json.loads(line.removeprefix("data:"))
                for line in lines
                if line.removeprefix("data:").strip() and line.startswith("data:")
            ]
        return [json.loads(self.body)]

    @property
    def result(self) -> dict[str, Any]:
        return self.messages[-1]["result"]


@dataclasses.dataclass(frozen=True, slots=True)
class Agent:
    """A client of the stateless era. `server` is `namespace/name`, or "" for the merged endpoint."""

    port: int
    token: str

    def head(self, method: str, name: str | None = None) -> dict[str, str]:
        head = {
            "Content-Type": "application/json", "Accept": "application/json, text/event-stream",
            "Authorization": f"Bearer {self.token}", "MCP-Protocol-Version": MODERN, "Mcp-Method": method,
        }  # fmt: skip
        return head if name is None else {**head, "Mcp-Name": name}

    def body(self, method: str, params: Mapping[str, Any], id_: int | str = 1) -> bytes:
        meta = {
            "io.modelcontextprotocol/protocolVersion": MODERN,
            "io.modelcontextprotocol/clientCapabilities": {},
            "io.modelcontextprotocol/clientInfo": {"name": "laptop", "version": "1"},
            **params.get("_meta", {}),
        }
        return json.dumps(
            {"jsonrpc": "2.0", "id": id_, "method": method, "params": {**params, "_meta": meta}}
        ).encode()

    def request(
        self, server: str, tool: str, arguments: Any = None, id_: int | str = 1
    ) -> tuple[str, bytes, dict[str, str]]:
        """Path, body and headers of a call."""
        body = self.body("tools/call", {"name": tool, "arguments": arguments or {}}, id_)
        return path(server), body, self.head("tools/call", tool)

    def post(self, where: str, body: bytes, head: Mapping[str, str], *, seconds: float = 30) -> Reply:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=seconds)
        with contextlib.closing(connection):
            connection.request("POST", where, body=body, headers=dict(head))
            answer = connection.getresponse()
            headers = {name.lower(): value for name, value in answer.getheaders()}
            return Reply(answer.status, headers, answer.read())

    def call(self, server: str, tool: str, arguments: Any = None, id_: int | str = 1) -> dict[str, Any]:
        """The result of a call; it must have one."""
        reply = self.post(*self.request(server, tool, arguments, id_))
        assert reply.status == 200, reply
        return reply.result

    def tools(self, server: str) -> list[dict[str, Any]]:
        """What the agent sees; one page."""
        reply = self.post(path(server), self.body("tools/list", {}), self.head("tools/list"))
        assert reply.status == 200, reply
        return reply.result["tools"]


def path(server: str) -> str:
    return f"/{server}/mcp" if server else "/mcp"


def text(result: Mapping[str, Any]) -> str:
    return " ".join(part.get("text", "") for part in result.get("content", ()))


def reason(result: Mapping[str, Any]) -> str:
    """Why a call was refused; "" when it was not."""
    return str(result.get("_meta", {}).get(_REFUSAL, {}).get("reason", ""))


class Laptop:
    """Operator and proxy over one folder. Both can be stopped, killed and started again, at the same addresses or not."""

    def __init__(self, folder: pathlib.Path) -> None:
        self.folder = folder
        self.files = folder / "files"
        self.operator_state = folder / "operator"
        self.state = folder / "proxy"
        self.logs = folder / "logs"
        for each in (self.files, self.operator_state, self.logs):
            each.mkdir(parents=True, exist_ok=True)
        self.operator: Process | None = None
        self.proxy: Process | None = None
        self.operator_port = self.port = self.admin_port = 0
        self.started: list[Process] = []

    # Files ----------------------------------------------------------------------------------------------------------

    def write(self, name: str, content: str) -> None:
        (self.files / name).write_text(content)

    # Processes ------------------------------------------------------------------------------------------------------

    def start_operator(self) -> None:
        """At the port it had before, because that is what the proxy knows."""
        address = self.folder / "operator.json"

        def once() -> dict[str, Any] | None:
            address.unlink(missing_ok=True)
            line = [_BESIDE_US / "outrider-operator", "--files", self.files, "--state", self.operator_state]
            line += ["--address-file", address, "--port", str(self.operator_port)]
            self.operator = operator = self._start("operator", line)
            until(lambda: address.exists() or operator.ended is not None, "the operator listens")
            return json.loads(address.read_bytes()) if address.exists() else None

        # Somebody's outgoing connection may have had the port for a moment.
        found = until(once, f"the operator starts\n{self.operator.tail() if self.operator else ''}")
        self.operator_port = found["port"]

    def start_proxy(self, *more: str, ready: bool = True, interpreter: Sequence[str] = ()) -> None:
        """On new ports. `interpreter` replaces the installed script by a command that ends up in the same main."""
        address = self.folder / "proxy.json"
        address.unlink(missing_ok=True)
        line: list[Any] = [*(interpreter or [_BESIDE_US / "outrider-sidecar"])]
        line += ["--operator", f"http://127.0.0.1:{self.operator_port}", "--state", self.state]
        line += ["--token-file", self.operator_state / "operator-token", "--port", "0", "--admin-port", "0"]
        self.proxy = self._start("proxy", [*line, "--address-file", address, *more])
        self.proxy.until(address.exists, "the proxy listens")
        found = json.loads(address.read_bytes())
        self.port, self.admin_port = found["port"], found["adminPort"]
        if ready:
            self.proxy.until(self.is_ready, "the proxy is ready")

    def _start(self, name: str, line: Sequence[Any]) -> Process:
        made = Process(name, line, logs=self.logs)
        self.started.append(made)
        return made

    def close(self) -> None:
        """Ends everything, the proxy first."""
        for each in reversed(self.started):
            each.stop()

    # Asking ---------------------------------------------------------------------------------------------------------

    @property
    def agent(self) -> Agent:
        return Agent(self.port, (self.state / "agent-token").read_text().strip())

    @property
    def journal(self) -> pathlib.Path:
        return self.state / "journal"

    def admin(self, where: str) -> Reply:
        return _get(self.admin_port, where, {})

    def is_ready(self) -> bool:
        try:
            return self.admin("/readyz").status == 200
        except OSError:
            return False

    def status(self) -> dict[str, Any]:
        """What the operator says of itself."""
        token = (self.operator_state / "operator-token").read_text().strip()
        reply = _get(self.operator_port, "/v1/status", {"Authorization": f"Bearer {token}"})
        assert reply.status == 200, reply
        return json.loads(reply.body)

    def outrider(self, *words: str) -> subprocess.CompletedProcess[str]:
        """The command-line tool, as a person would run it."""
        return subprocess.run(
            [_BESIDE_US / "outrider", *words], capture_output=True, text=True, check=False, timeout=60
        )

    def verify(self) -> subprocess.CompletedProcess[str]:
        return self.outrider("audit", "verify", "--journal", str(self.journal))


def _get(port: int, where: str, head: Mapping[str, str]) -> Reply:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
    with contextlib.closing(connection):
        connection.request("GET", where, headers=dict(head))
        answer = connection.getresponse()
        headers = {name.lower(): value for name, value in answer.getheaders()}
        return Reply(answer.status, headers, answer.read())


@contextlib.contextmanager
def running(folder: pathlib.Path, files: Mapping[str, str]) -> Iterator[Laptop]:
    """A laptop whose proxy has its configuration; stopped when the block ends."""
    made = Laptop(folder)
    for name, content in {"outrider.yaml": SETTINGS, **files}.items():
        made.write(name, content)
    try:
        made.start_operator()
        made.start_proxy()
        yield made
    finally:
        made.close()
        # Shown with a failure only. A fixture is not told of its test's, so there is no telling which it is.
        print(*{each.log: each.tail() for each in made.started}.values(), sep="\n")


# Manifests ------------------------------------------------------------------------------------------------------------


def manifest(kind: str, name: str, spec: Mapping[str, Any]) -> str:
    """One object as JSON, which is YAML. `name` is `namespace/name`."""
    namespace, _, short = name.partition("/")
    metadata = {"name": short, "namespace": namespace}
    return json.dumps(
        {"apiVersion": "outrider.dev/v1alpha1", "kind": kind, "metadata": metadata, "spec": spec}
    )


def server(name: str, url: str, **spec: Any) -> str:
    endpoint = {"url": url, **spec.pop("endpoint", {})}
    return manifest("MCPServer", name, {"description": "For a test.", "endpoint": endpoint, **spec})


def policy(name: str, target: str, *rules: Mapping[str, Any]) -> str:
    """`name` in the platform namespace turns both keys: `outrider-system/...`."""
    namespace, _, short = target.partition("/")
    return manifest(
        "MCPToolPolicy", name, {"targetRefs": [{"namespace": namespace, "name": short}], "rules": rules}
    )


def allow(*tools: str) -> dict[str, Any]:
    return {"name": "allow", "effect": "Allow", "from": [{"anyone": True}], "tools": tools or ["*"]}


def deny(*tools: str, **more: Any) -> dict[str, Any]:
    return {"name": "deny", "effect": "Deny", "tools": tools, **more}


def budget(name: str, target: str, *limits: Mapping[str, Any]) -> str:
    namespace, _, short = target.partition("/")
    return manifest(
        "MCPBudget", name, {"targetRefs": [{"namespace": namespace, "name": short}], "limits": limits}
    )


def documents(*each: str) -> str:
    return "\n---\n".join(each) + "\n"


def port_of(url: str) -> int:
    found = urllib.parse.urlsplit(url).port
    assert found is not None
    return found
