# SPDX-License-Identifier: Apache-2.0
"""Where the API server is, and what proves us to it: a pod's ServiceAccount, or a kubeconfig's current context.

Made by controller; used by reflector, cluster and admission. What kubelet or an administrator renews (token, CA, client certificate)
is read again when its file changes. Refuses an API server that cannot be proven (http, insecure-skip-tls-verify), and a kubeconfig
that wants a command run, a person impersonated or a proxy asked: no such thing happens behind anybody's back.
"""

from __future__ import annotations

import base64
import binascii
import dataclasses
import os
import pathlib
import socket
import ssl
import tempfile
import urllib.parse
from collections.abc import Mapping
from typing import Any

import aiohttp
import yaml

POD_FOLDER = pathlib.Path("/var/run/secrets/kubernetes.io/serviceaccount")
FILE_BYTES_MAX = 1_048_576
"""Of a kubeconfig, a token or a certificate."""

CONNECTIONS_MAX = 32
"""To the API server, of one session."""

_CONNECT_SECONDS_MAX = 10.0
_KEEPALIVE = {"TCP_KEEPIDLE": 20, "TCP_KEEPINTVL": 5, "TCP_KEEPCNT": 3}
"""A peer that is gone is noticed within 35 s."""

_REFUSED_OF_USERS = {
    "exec": "it runs a command, which Outrider never does; use a ServiceAccount's token or a client certificate",
    "auth-provider": "Kubernetes no longer knows it; use a ServiceAccount's token or a client certificate",
    "username": "the API server no longer accepts passwords; use a ServiceAccount's token or a client certificate",
    "as": "impersonation is not used; give the rights to the user itself",
    "as-groups": "impersonation is not used; give the rights to the user itself",
    "as-uid": "impersonation is not used; give the rights to the user itself",
    "as-user-extra": "impersonation is not used; give the rights to the user itself",
}


class AccessError(Exception):
    """The API server cannot be reached this way; the text says why and what to do."""


@dataclasses.dataclass(frozen=True, slots=True)
class Proof:
    """One reading of what proves both sides: the API server's CA, and our token or client certificate."""

    ca_pem: str | None
    token: str | None
    certificate_pem: str | None
    key_pem: str | None


@dataclasses.dataclass(frozen=True, slots=True)
class _Part:
    """Something that is given (`text`), or is in a file that may change."""

    text: str | None = None
    file: pathlib.Path | None = None

    def read(self) -> str | None:
        return self.text if self.file is None else _file(self.file)

    def mark(self) -> tuple[int, int, int] | None:
        """Changes when the file does. Kubelet renews files by moving a link, which stat follows."""
        if self.file is None:
            return None
        try:
            found = self.file.stat()
        except OSError:
            return None
        return found.st_mtime_ns, found.st_ino, found.st_size


_NOTHING = _Part()


@dataclasses.dataclass(frozen=True, slots=True)
class _Parts:
    """Where each part of the proof comes from."""

    ca: _Part = _NOTHING
    token: _Part = _NOTHING
    certificate: _Part = _NOTHING
    key: _Part = _NOTHING


class Access:
    """One API server. `server` is its URL; `namespace` what the pod or the context is in, "" when that is not said."""

    def __init__(self, server: str, parts: _Parts, *, server_name: str = "", namespace: str = "") -> None:
        self.server = server.rstrip("/")
        self.server_name = server_name
        self.namespace = namespace
        self._parts = parts
        self._context: ssl.SSLContext | None = None
        self._context_marks: tuple[object, ...] = ()
        self._bearer: str | None = None
        self._bearer_mark: object = None

    def proof(self) -> Proof:
        """What is in force now. Raises AccessError when a file cannot be read."""
        return Proof(
            self._parts.ca.read(), self.token(), self._parts.certificate.read(), self._parts.key.read()
        )

    def token(self) -> str | None:
        """The bearer token, None for who has a client certificate. A file that cannot be read just now changes nothing."""
        mark = self._parts.token.mark()
        if self._bearer is None or mark != self._bearer_mark:
            try:
                found = (self._parts.token.read() or "").strip()
            except AccessError:
                if self._bearer is None:
                    raise
            else:
                # A file that is being written may be empty for a moment.
                if found:
                    self._bearer, self._bearer_mark = found, mark
        return self._bearer

    def headers(self) -> dict[str, str]:
        """For each request anew: tokens are renewed."""
        token = self.token()
        return {} if token is None else {"Authorization": f"Bearer {token}"}

    def context(self) -> ssl.SSLContext:
        """Whom to trust and who we are. Another one when a file changed, unless what is new cannot be used."""
        marks = (self._parts.ca.mark(), self._parts.certificate.mark(), self._parts.key.mark())
        if self._context is None or marks != self._context_marks:
            try:
                self._context, self._context_marks = self.fresh_context(), marks
            except AccessError:
                if self._context is None:
                    raise
        return self._context

    def fresh_context(self) -> ssl.SSLContext:
        """One that nobody shares."""
        proof = self.proof()
        if proof.ca_pem is not None and not proof.ca_pem.strip():
            # An empty one would mean every authority that the system trusts.
            raise AccessError("the API server's CA is empty; it must be a PEM certificate")
        try:
            made = ssl.create_default_context(cadata=proof.ca_pem)
        except (ssl.SSLError, ValueError) as error:
            raise AccessError(f"the API server's CA is not a PEM certificate: {error}") from None
        if proof.certificate_pem is not None and proof.key_pem is not None:
            _load_client(made, proof.certificate_pem, proof.key_pem)
        return made

    def url(self, path: str) -> str:
        return f"{self.server}{path}"

    def session(self) -> aiohttp.ClientSession:
        """For the running loop. Give each request `headers=headers()` and `ssl=context()`, as `request` does."""
        timeout = aiohttp.ClientTimeout(total=None, sock_connect=_CONNECT_SECONDS_MAX, connect=None)
        connector = aiohttp.TCPConnector(
            limit=CONNECTIONS_MAX, keepalive_timeout=60, socket_factory=_attentive_socket
        )
        return aiohttp.ClientSession(
            connector=connector, timeout=timeout, trust_env=False, cookie_jar=aiohttp.DummyCookieJar()
        )

    def request(self, **more: Any) -> dict[str, Any]:
        """Arguments of a request on a `session`: who we are and whom we trust. Follows no redirect."""
        given = more.pop("headers", {})
        name = {"server_hostname": self.server_name} if self.server_name else {}
        headers = {**self.headers(), **given}
        return {"headers": headers, "ssl": self.context(), "allow_redirects": False, **name, **more}


def load(kubeconfig: pathlib.Path | None) -> Access:
    """From a kubeconfig, or from where a pod has it. Everything is read once, so that what is wrong is said now."""
    made = in_cluster(POD_FOLDER, os.environ) if kubeconfig is None else from_kubeconfig(kubeconfig)
    made.token()
    made.context()
    return made


def in_cluster(folder: pathlib.Path, environment: Mapping[str, str]) -> Access:
    """As a pod: the address from its environment, token, CA and namespace from files that kubelet renews."""
    host, port = (
        environment.get("KUBERNETES_SERVICE_HOST", ""),
        environment.get("KUBERNETES_SERVICE_PORT", ""),
    )
    if not host or not port.isdigit():
        text = (
            "not in a cluster: KUBERNETES_SERVICE_HOST and KUBERNETES_SERVICE_PORT are not set; "
            "outside one, give --kubeconfig FILE"
        )
        raise AccessError(text)
    if not (folder / "token").exists():
        text = (
            f"the pod has no ServiceAccount token in {folder}; do not set automountServiceAccountToken: false"
        )
        raise AccessError(text)
    address = f"[{host}]" if ":" in host else host
    namespace = folder / "namespace"
    return Access(
        f"https://{address}:{port}",
        _Parts(ca=_Part(file=folder / "ca.crt"), token=_Part(file=folder / "token")),
        namespace=_file(namespace).strip() if namespace.exists() else "",
    )


def from_kubeconfig(file: pathlib.Path) -> Access:
    """The current context of a kubeconfig. Paths in it are relative to its folder."""
    whole = _parsed(file)
    name = whole.get("current-context") or ""
    if not name:
        raise AccessError(f"{file}: current-context is not set; run kubectl config use-context NAME")
    context = _named(file, whole, "contexts", "context", name)
    cluster = _named(file, whole, "clusters", "cluster", str(context.get("cluster", "")))
    user = _named(file, whole, "users", "user", str(context.get("user", "")))
    _refuse(file, cluster, user)
    part = _Reader(file).part
    token = part(user, "token", "tokenFile", plain=True)
    certificate = part(user, "client-certificate-data", "client-certificate")
    key = part(user, "client-key-data", "client-key")
    if (certificate == _NOTHING) != (key == _NOTHING):
        raise AccessError(f"{file}: a client certificate needs its key, and a key its certificate")
    if token == certificate == _NOTHING:
        raise AccessError(
            f"{file}: user {context.get('user')} has neither a token nor a client certificate, "
            "so the API server would not know who asks"
        )
    return Access(
        _server(file, str(cluster.get("server") or "")),
        _Parts(part(cluster, "certificate-authority-data", "certificate-authority"), token, certificate, key),
        server_name=str(cluster.get("tls-server-name") or ""),
        namespace=str(context.get("namespace") or ""),
    )


@dataclasses.dataclass(frozen=True, slots=True)
class _Reader:
    """Finds a part of a kubeconfig that is either in it or in a file beside it."""

    file: pathlib.Path

    def part(self, given: Mapping[str, Any], inline: str, path: str, *, plain: bool = False) -> _Part:
        """What is inline wins over a file, as for kubectl; `plain` is not base64."""
        if text := given.get(inline):
            if plain:
                return _Part(text=str(text))
            try:
                return _Part(text=base64.b64decode("".join(str(text).split()), validate=True).decode())
            except (binascii.Error, UnicodeDecodeError) as error:
                raise AccessError(f"{self.file}: {inline} is not base64 of a PEM: {error}") from None
        if name := given.get(path):
            return _Part(file=self.file.parent / str(name))
        return _NOTHING


def _refuse(file: pathlib.Path, cluster: Mapping[str, Any], user: Mapping[str, Any]) -> None:
    for field, why in _REFUSED_OF_USERS.items():
        if user.get(field):
            raise AccessError(f"{file}: the user's {field} is refused: {why}")
    if cluster.get("insecure-skip-tls-verify"):
        raise AccessError(
            f"{file}: insecure-skip-tls-verify is refused: whoever is in between could grant anything; "
            "give certificate-authority-data"
        )
    if cluster.get("proxy-url"):
        raise AccessError(f"{file}: proxy-url is not supported; let the operator reach the API server itself")


def _server(file: pathlib.Path, server: str) -> str:
    try:
        parts = urllib.parse.urlsplit(server)
        usable = parts.scheme == "https" and bool(parts.hostname) and parts.port != 0
    except ValueError:
        usable = False
    if not usable:
        raise AccessError(f"{file}: server must be https://HOST[:PORT], not {server[:200]!r}")
    return server


def _parsed(file: pathlib.Path) -> dict[str, Any]:
    try:
        whole = yaml.safe_load(_file(file))
    except yaml.YAMLError as error:
        raise AccessError(f"{file} is not YAML: {' '.join(str(error).split())}") from None
    if not isinstance(whole, dict) or whole.get("kind", "Config") != "Config":
        raise AccessError(f"{file} is not a kubeconfig (kind: Config)")
    return whole


def _named(file: pathlib.Path, whole: Mapping[str, Any], listed: str, inner: str, name: str) -> Mapping[str, Any]:  # fmt: skip
    entries = whole.get(listed)
    for entry in entries if isinstance(entries, list) else ():
        if isinstance(entry, Mapping) and entry.get("name") == name and isinstance(entry.get(inner), Mapping):
            found: Mapping[str, Any] = entry[inner]
            return found
    raise AccessError(f"{file}: there is no {inner} {name!r}, which the current context needs")


def _file(file: pathlib.Path) -> str:
    try:
        with file.open("rb") as opened:
            content = opened.read(FILE_BYTES_MAX + 1)
        text = content.decode()
    except OSError as error:
        raise AccessError(f"{file} cannot be read: {error.strerror or error}") from None
    except UnicodeDecodeError:
        raise AccessError(f"{file} is not text") from None
    if len(content) > FILE_BYTES_MAX:
        raise AccessError(f"{file} is larger than {FILE_BYTES_MAX} bytes")
    return text


def _attentive_socket(address: aiohttp.AddrInfoType) -> socket.socket:
    """One whose kernel asks whether the other side is still there: on a watch, silence is the rule, and a lost peer is as silent."""
    family, kind, protocol = address[:3]
    made = socket.socket(family, kind, protocol)
    made.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for name, value in _KEEPALIVE.items():
        if (option := getattr(socket, name, None)) is not None:
            made.setsockopt(socket.IPPROTO_TCP, option, value)
    return made


def _load_client(context: ssl.SSLContext, certificate: str, key: str) -> None:
    """The standard library takes a client certificate from a file only: one that is ours alone and gone at once."""
    with tempfile.NamedTemporaryFile(prefix="outrider-", suffix=".pem") as both:
        both.write(f"{certificate}\n{key}\n".encode())
        both.flush()
        try:
            context.load_cert_chain(both.name, password=_no_password)
        except (ssl.SSLError, ValueError) as error:
            raise AccessError(f"the client certificate and its key cannot be used: {error}") from None


def _no_password() -> str:
    """Instead of the prompt on the terminal that an encrypted key would cause."""
    return ""
