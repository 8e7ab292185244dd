# SPDX-License-Identifier: Apache-2.0
"""The proxy's own settings: flags, read once by main. Everything about policy arrives on the wire instead."""

from __future__ import annotations

import argparse
import dataclasses
import enum
import ipaddress
import pathlib
import urllib.parse
from collections.abc import Sequence


class Way(enum.Enum):
    """How the proxy knows its agent."""

    OPEN = "open"
    TOKEN = "token"  # noqa: S105 - a way, not a secret
    SOCKET = "socket"


@dataclasses.dataclass(frozen=True, slots=True)
class LocalAuth:
    """`uid` is whose processes are let in on a socket."""

    way: Way
    uid: int = 0


@dataclasses.dataclass(frozen=True, slots=True)
class Settings:
    """`operator` is a base URL; ports 0 are chosen by the kernel and written to `address_file`.

    `ca_file` None: the system's authorities. `memory` holds what must not outlive the pod; `state` holds the journal.
    The role `prober` has no agent: whatever is about calls is not looked at. None of `vault_token_file`, `exchange_token_file` and
    `secrets_dir` is needed before a configuration names credentials that need it.
    """

    operator: str
    token_file: pathlib.Path
    ca_file: pathlib.Path | None
    state: pathlib.Path
    memory: pathlib.Path
    role: str
    port: int
    admin_host: str
    admin_port: int
    address_file: pathlib.Path | None
    local_auth: LocalAuth
    agent_dir: pathlib.Path | None
    agent_token_file: pathlib.Path
    allowed_hosts: frozenset[bytes]
    calls_max: int
    body_bytes_max: int
    journal_bytes_max: int
    log_level: str
    vault_token_file: pathlib.Path | None = None
    exchange_token_file: pathlib.Path | None = None
    secrets_dir: pathlib.Path | None = None


def parser() -> argparse.ArgumentParser:
    """The flags, each with its line of help."""
    made = argparse.ArgumentParser(
        prog="outrider-sidecar",
        description="The proxy beside an agent: decides, lends, charges and records MCP calls.",
    )
    add = made.add_argument
    add("--operator", required=True, help="base URL of the control plane; plain http is for loopback only")
    add(
        "--token-file",
        required=True,
        type=pathlib.Path,
        help="file with the bootstrap token for the control plane",
    )
    add(
        "--ca-file",
        type=pathlib.Path,
        help="authorities of the control plane's certificate, as PEM; read again when changed (default: the system's)",
    )
    add("--state", required=True, type=pathlib.Path, help="folder for the journal")
    add(
        "--memory",
        type=pathlib.Path,
        help="folder for keys, the last good configuration and newer authorities, best in memory (default STATE)",
    )
    add(
        "--role",
        choices=["sidecar", "prober"],
        default="sidecar",
        help="beside an agent, or listing every server's tools for the catalogue (default sidecar)",
    )
    add("--port", type=_port, default=15100, help="where the agent calls (default 15100; 0: any)")
    add(
        "--admin-host",
        type=_address,
        default="127.0.0.1",
        help="address for health and metrics (default 127.0.0.1)",
    )
    add("--admin-port", type=_port, default=15101, help="health and metrics (default 15101; 0: any)")
    add("--address-file", type=pathlib.Path, help="file that gets {port, adminPort} as JSON once both listen")
    _agents(made)
    _secrets(made)
    add(
        "--calls-max",
        type=_positive,
        default=2048,
        help="calls in flight at once; more are refused as Overloaded",
    )
    add("--body-bytes-max", type=_positive, default=4_194_304, help="largest request body in bytes")
    add("--journal-bytes-max", type=_positive, default=1_073_741_824, help="largest journal in bytes")
    add("--log-level", choices=["debug", "info", "warning", "error"], default="info")
    return made


def _agents(made: argparse.ArgumentParser) -> None:
    """The flags about who may call."""
    add = made.add_argument
    add(
        "--local-auth",
        type=_local_auth,
        default=LocalAuth(Way.TOKEN),
        metavar="open|token|socket:UID",
        help="how the agent is known: loopback is its alone, by a token, or by the uid at a Unix socket (default token)",
    )
    add(
        "--agent-dir",
        type=pathlib.Path,
        help="folder that agents can read: gets mcp.json, token and mcp.sock before readyz says yes",
    )
    add(
        "--agent-token-file",
        type=pathlib.Path,
        help="local-auth token, made if absent (default MEMORY/agent-token)",
    )
    add(
        "--allowed-host",
        action="append",
        default=[],
        help="a further Host this proxy may be called by (repeatable)",
    )


def _secrets(made: argparse.ArgumentParser) -> None:
    """The flags about where credentials come from. Each names a place: a secret is never on a command line."""
    add = made.add_argument
    add(
        "--vault-token-file",
        type=pathlib.Path,
        help="file with the token that logs in to Vault; read again for each login",
    )
    add(
        "--exchange-token-file",
        type=pathlib.Path,
        help="file with the token that says which workload acts for a user in a token exchange (RFC 8693); read again each time",
    )
    add(
        "--secrets-dir",
        type=pathlib.Path,
        help="folder with the Secrets that the pod's author chose, as NAMESPACE.SERVER/KEY",
    )


def parse(arguments: Sequence[str] | None = None) -> Settings:
    """Reads the command line. Exits 2 with one sentence when a value cannot be used."""
    reader = parser()
    given = reader.parse_args(arguments)
    try:
        operator = urllib.parse.urlsplit(given.operator)
        usable = operator.scheme in ("http", "https") and operator.hostname and operator.port != 0
    except ValueError:  # a bracket without its partner, a port beyond 65535
        usable = False
    if not usable:
        reader.error("--operator: not an http(s) URL of a host")
    if operator.username is not None or operator.query or operator.fragment:
        reader.error("--operator: only scheme, host, port and path; the token belongs into --token-file")
    if operator.scheme == "http" and operator.hostname not in ("127.0.0.1", "localhost", "::1"):
        reader.error("--operator: plain http is for loopback only; use https")
    if given.ca_file is not None and operator.scheme != "https":
        reader.error("--ca-file: only goes with an https --operator")
    if given.local_auth.way is Way.SOCKET and given.agent_dir is None:
        reader.error("--local-auth: a socket needs --agent-dir, where it is made")
    memory = given.memory or given.state
    return Settings(
        operator=given.operator.rstrip("/"),
        token_file=given.token_file,
        ca_file=given.ca_file,
        state=given.state,
        memory=memory,
        role=given.role,
        port=given.port,
        admin_host=given.admin_host,
        admin_port=given.admin_port,
        address_file=given.address_file,
        local_auth=given.local_auth,
        agent_dir=given.agent_dir,
        agent_token_file=given.agent_token_file or memory / "agent-token",
        allowed_hosts=frozenset(host.lower().encode() for host in given.allowed_host),
        calls_max=given.calls_max,
        body_bytes_max=given.body_bytes_max,
        journal_bytes_max=given.journal_bytes_max,
        log_level=given.log_level,
        vault_token_file=given.vault_token_file,
        exchange_token_file=given.exchange_token_file,
        secrets_dir=given.secrets_dir,
    )


def _port(text: str) -> int:
    number = int(text)
    if not 0 <= number <= 65535:
        raise argparse.ArgumentTypeError("a port is 0 to 65535")
    return number


def _local_auth(text: str) -> LocalAuth:
    way, colon, uid = text.partition(":")
    if text in (Way.OPEN.value, Way.TOKEN.value):
        return LocalAuth(Way(text))
    if way == Way.SOCKET.value and colon and uid.isascii() and uid.isdigit() and len(uid) <= 10:
        return LocalAuth(Way.SOCKET, int(uid))
    raise argparse.ArgumentTypeError("open, token, or socket: with the agent's uid, such as socket:1000")


def _address(text: str) -> str:
    try:
        return str(ipaddress.ip_address(text))
    except ValueError:
        raise argparse.ArgumentTypeError("an IP address is needed, such as the pod's") from None


def _positive(text: str) -> int:
    number = int(text)
    if number <= 0:
        raise argparse.ArgumentTypeError("must be above zero")
    return number
