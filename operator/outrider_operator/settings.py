# SPDX-License-Identifier: Apache-2.0
"""The operator's flags, parsed once.

Called by main. One of two sources of resources is chosen, a folder of files or the Kubernetes API, and a flag of the other
is refused. Refuses, with a sentence and exit code 2, whatever it could only guess at.
"""

from __future__ import annotations

import argparse
import dataclasses
import enum
import os
import pathlib
import re
import socket
from collections.abc import Mapping, Sequence

from outrider import names
from outrider.resources import urls


@dataclasses.dataclass(frozen=True, slots=True)
class Flags:
    """Where the files are, where what must survive is kept, and where to listen (always 127.0.0.1).

    `port` 0 lets the kernel choose. `bridges` are the URLs of servers that are commands.
    """

    files: pathlib.Path
    state: pathlib.Path
    token_file: pathlib.Path
    port: int = 0
    address_file: pathlib.Path | None = None
    bridges: Mapping[names.ServerId, str] = dataclasses.field(default_factory=dict)
    log_level: str = "info"


class Certs(enum.Enum):
    """Who makes the certificates of webhook and config stream."""

    OPERATOR = "operator"
    PROVIDED = "provided"


@dataclasses.dataclass(frozen=True, slots=True)
class Controller:
    """One replica of the control plane in a cluster.

    `kubeconfig` None means the pod's own ServiceAccount. `identity` names this replica, `advertise` is host:port of its
    stream port as other replicas reach it. `names` are further names in the serving certificate.
    """

    kubeconfig: pathlib.Path | None
    namespace: str
    name: str
    identity: str
    advertise: str
    listen: str
    webhook_port: int
    stream_port: int
    metrics_port: int
    certs: Certs
    cert_dir: pathlib.Path
    certificate_names: tuple[str, ...]
    api_token_file: pathlib.Path
    address_file: pathlib.Path | None
    log_level: str


_FILES_ONLY = ("port", "state", "token_file", "bridge")
_CLUSTER_ONLY = (
    "kubeconfig",
    "namespace",
    "name",
    "identity",
    "advertise",
    "listen",
    "webhook_port",
    "stream_port",
    "metrics_port",
    "certs",
    "cert_dir",
    "certificate_name",
    "api_token_file",
)


def parser() -> argparse.ArgumentParser:
    """The flags, each with its line of help. What belongs to one source has no default before the source is known."""
    made = argparse.ArgumentParser(
        prog="outrider-operator",
        description="The control plane: in a cluster over the Kubernetes API, or on a laptop over a folder of YAML files.",
        allow_abbrev=False,
    )
    source = made.add_mutually_exclusive_group(required=True)
    source.add_argument("--files", metavar="DIR", type=_folder, help="folder of *.yaml files; watched")
    source.add_argument(
        "--role", choices=["controller"], help="one replica of the control plane in a cluster"
    )
    made.add_argument(
        "--address-file", metavar="FILE", type=_path, help="written when listening: the ports as JSON"
    )
    made.add_argument(
        "--log-level", choices=["debug", "info", "warning", "error"], default="info", help="(info)"
    )
    _files(made.add_argument_group("with --files"))
    _cluster(made.add_argument_group("with --role controller"))
    return made


def _files(made: argparse._ArgumentGroup) -> None:
    made.add_argument("--port", metavar="N", type=_port, help="port on 127.0.0.1; 0 (default): any")
    made.add_argument(
        "--state", metavar="DIR", type=_path, help="what survives restarts (DIR of --files/.outrider)"
    )
    made.add_argument(
        "--token-file",
        metavar="FILE",
        type=_path,
        help="shared token, mode 0600; made if absent (STATE/operator-token)",
    )
    made.add_argument(
        "--bridge",
        action="append",
        metavar="NS/NAME=URL",
        type=_bridge,
        help="where the bridge of an MCPServer with endpoint.command listens; repeatable",
    )


def _cluster(made: argparse._ArgumentGroup) -> None:
    add = made.add_argument
    add("--kubeconfig", metavar="FILE", type=_path, help="outside a cluster; else the pod's ServiceAccount")
    add(
        "--namespace",
        metavar="NS",
        type=_label,
        help="the operator's namespace (POD_NAMESPACE, outrider-system)",
    )
    add("--name", metavar="NAME", type=_label, help="name of Service, Lease, Secret and webhooks (outrider)")
    add("--identity", metavar="NAME", help="this replica's name (POD_NAME, the host's name)")
    add("--advertise", metavar="HOST:PORT", help="how other replicas reach this one's stream port (POD_IP)")
    add("--listen", metavar="HOST", help="address to listen on (0.0.0.0)")
    add("--webhook-port", metavar="N", type=_port, help="admission over TLS (9443; 0: any)")
    add("--stream-port", metavar="N", type=_port, help="config streams and API over TLS (8443; 0: any)")
    add("--metrics-port", metavar="N", type=_port, help="healthz, readyz and metrics, plain (8080; 0: any)")
    add(
        "--certs",
        type=Certs,
        choices=list(Certs),
        metavar="operator|provided",
        help="who makes the certificates: the operator, or whoever fills --cert-dir (operator)",
    )
    add("--cert-dir", metavar="DIR", type=_path, help="tls.crt, tls.key, ca.crt (/var/run/outrider/certs)")
    add(
        "--certificate-name",
        action="append",
        metavar="NAME",
        help="a further name in the certificate; repeatable",
    )
    add(
        "--api-token-file",
        metavar="FILE",
        type=_path,
        help="token of audience api.outrider.dev that proves us to other replicas (/var/run/outrider/api/token)",
    )


def parse(arguments: Sequence[str] | None = None) -> Flags | Controller:
    """The flags of a command line. Raises SystemExit(2) after saying what is wrong on stderr."""
    reader = parser()
    given = reader.parse_args(arguments)
    strange = _CLUSTER_ONLY if given.files else _FILES_ONLY
    for flag in (each for each in strange if getattr(given, each) is not None):
        source = "--role controller" if given.files else "--files"
        reader.error(f"argument --{flag.replace('_', '-')}: only goes with {source}")
    return _for_files(reader, given) if given.files else _for_cluster(reader, given)


def _for_files(reader: argparse.ArgumentParser, given: argparse.Namespace) -> Flags:
    bridges: dict[names.ServerId, str] = {}
    for server, url in given.bridge or ():
        if server in bridges:
            reader.error(f"argument --bridge: {server} is given twice; keep one")
        bridges[server] = url
    state = given.state or given.files / ".outrider"
    return Flags(
        files=given.files,
        state=state,
        token_file=given.token_file or state / "operator-token",
        port=given.port or 0,
        address_file=given.address_file,
        bridges=bridges,
        log_level=given.log_level,
    )


def _for_cluster(reader: argparse.ArgumentParser, given: argparse.Namespace) -> Controller:
    identity = given.identity or os.environ.get("POD_NAME") or socket.gethostname()
    stream_port = _or(given.stream_port, 8443)
    advertise = given.advertise or f"{_bracketed(os.environ.get('POD_IP', '127.0.0.1'))}:{stream_port}"
    if not re.fullmatch(r"(\[[0-9a-fA-F:.]+\]|[A-Za-z0-9.-]+):[0-9]{1,5}", advertise):
        reader.error(f"argument --advertise: {advertise!r} is not HOST:PORT, such as 10.0.0.7:8443")
    if not re.fullmatch(r"[A-Za-z0-9.-]{1,253}", identity):
        reader.error(
            f"argument --identity: {identity!r} is not a name of letters, digits, points and hyphens"
        )
    return Controller(
        kubeconfig=given.kubeconfig,
        namespace=given.namespace or os.environ.get("POD_NAMESPACE") or "outrider-system",
        name=given.name or "outrider",
        identity=identity,
        advertise=advertise,
        listen=given.listen or "0.0.0.0",  # noqa: S104 - a pod's address is not known before it runs
        webhook_port=_or(given.webhook_port, 9443),
        stream_port=stream_port,
        metrics_port=_or(given.metrics_port, 8080),
        certs=given.certs or Certs.OPERATOR,
        cert_dir=given.cert_dir or pathlib.Path("/var/run/outrider/certs"),
        certificate_names=tuple(given.certificate_name or ()),
        api_token_file=given.api_token_file or pathlib.Path("/var/run/outrider/api/token"),
        address_file=given.address_file,
        log_level=given.log_level,
    )


def _or(given: int | None, default: int) -> int:
    return default if given is None else given


def _bracketed(host: str) -> str:
    return f"[{host}]" if ":" in host else host


def _label(text: str) -> str:
    if not re.fullmatch(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?", text):
        raise argparse.ArgumentTypeError(f"{text!r} is not a name of lower-case letters, digits and hyphens")
    return text


def _path(text: str) -> pathlib.Path:
    if not text:
        raise argparse.ArgumentTypeError("is empty; give a path")
    return pathlib.Path(text).absolute()


def _folder(text: str) -> pathlib.Path:
    path = _path(text)
    if not path.is_dir():
        raise argparse.ArgumentTypeError(
            f"there is no folder {path}; create it and put your *.yaml files there"
        )
    return path


def _port(text: str) -> int:
    if not re.fullmatch(r"[0-9]{1,5}", text) or int(text) > 65535:
        raise argparse.ArgumentTypeError(f"{text!r} is not a port: a number from 0 to 65535")
    return int(text)


def _bridge(text: str) -> tuple[names.ServerId, str]:
    name, equals, url = text.partition("=")
    server = names.server_id(name)
    if not equals or server is None:
        raise argparse.ArgumentTypeError(
            f"{text!r} is not of the form namespace/name=http://127.0.0.1:PORT/mcp"
        )
    if not re.fullmatch(urls.PATTERN[1:-1], url) or urls.problem(url):
        raise argparse.ArgumentTypeError(
            f"the URL for {server} is not an http URL such as http://127.0.0.1:8000/mcp"
        )
    if not urls.loopback(url):
        raise argparse.ArgumentTypeError(f"the bridge of {server} must be on this machine (127.0.0.1)")
    return server, url
