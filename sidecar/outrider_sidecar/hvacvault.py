# SPDX-License-Identifier: Apache-2.0
"""Speaks to Vault with hvac, and waits: the only module that imports hvac, called by `vaultline` in threads of its own.

Each thread has its own connection. It refuses what a client library would do by itself: variables of the environment (addresses,
tokens, proxies, netrc), redirects, cookies, compressed answers, answers that are too long or too late, and texts of exceptions, which
quote what was sent. A request is repeated in one case: a kept connection that turned out to be closed.
"""

from __future__ import annotations

import contextlib
import dataclasses
import http.cookiejar
import pathlib
import socket
import ssl
import threading
import time
from collections.abc import Callable, Mapping
from typing import Any

import hvac.adapters
import hvac.api.auth_methods
import hvac.api.secrets_engines
import hvac.api.system_backend
import hvac.exceptions
import requests
import requests.adapters
import requests.exceptions
import urllib3
import urllib3.exceptions

from outrider import snapshot
from outrider_sidecar import vault, vaultwords

ANSWER_BYTES_MAX = 1_048_576
"""As long as Vault lets a KV secret be."""

TOKEN_FILE_BYTES_MAX = 65_536
_CONNECT_SECONDS = 3.0
_SILENCE_SECONDS = 5.0
_TOTAL_SECONDS = 10.0
_CHUNK_BYTES = 65_536
_T = vault.Trouble
_D = vaultwords.Deed
_Asked = vaultwords.Asked


class _Unfit(Exception):
    """An answer that is not taken; the text is ours."""

    def __init__(self, trouble: vault.Trouble, text: str) -> None:
        super().__init__(text)
        self.trouble = trouble


class _Clock:
    """Hangs up on an answer that is not whole in time. The library's limits are of each read: a byte now and then keeps to them all,
    in a status line, a header or the length of a chunk, and would hold a thread for days.
    """

    def __init__(self) -> None:
        self.until = time.monotonic() + _TOTAL_SECONDS
        self.over = False
        self._socket: socket.socket | None = None
        self._timer = threading.Timer(_TOTAL_SECONDS, self._hang_up)
        self._timer.daemon = True
        self._timer.start()

    def watch(self, connection: socket.socket | None) -> None:
        self._socket = connection

    def stop(self) -> None:
        self._timer.cancel()

    def _hang_up(self) -> None:
        self.over = True
        if self._socket is not None:
            with contextlib.suppress(OSError):
                # The plain one's: that of TLS would take apart what the other thread is reading with.
                socket.socket.shutdown(self._socket, socket.SHUT_RDWR)


class _Way(requests.adapters.HTTPAdapter):
    """One connection: whom it trusts is the context's business alone, and what comes back is bounded."""

    def __init__(self, context: ssl.SSLContext) -> None:
        self._context = context
        self._clock: _Clock | None = None
        self.status = 0
        super().__init__(pool_connections=1, pool_maxsize=1)

    def init_poolmanager(self, *args: Any, **more: Any) -> None:
        super().init_poolmanager(*args, ssl_context=self._context, **more)
        self.poolmanager.pool_classes_by_scheme = {
            "http": _watched(urllib3.HTTPConnectionPool, self._watch),
            "https": _watched(urllib3.HTTPSConnectionPool, self._watch),
        }

    def _watch(self, connection: socket.socket | None) -> None:
        if self._clock is not None:
            self._clock.watch(connection)

    def cert_verify(self, *_: Any) -> None:
        """Nothing to add: requests would add the roots that it comes with."""

    def send(self, request: requests.PreparedRequest, *args: Any, **more: Any) -> requests.Response:
        self.status = 0
        clock = self._clock = _Clock()
        try:
            answer = self._sent(request, clock, *args, **more)
        except (requests.exceptions.RequestException, urllib3.exceptions.HTTPError, OSError):
            if clock.over:
                raise _late() from None
            raise
        finally:
            clock.stop()
        if clock.over:
            raise _late()  # hung up on among its headers, it looks like an answer
        return answer

    def _sent(
        self, request: requests.PreparedRequest, clock: _Clock, *args: Any, **more: Any
    ) -> requests.Response:
        more["stream"] = True
        answer = super().send(request, *args, **more)
        self.status = answer.status_code
        try:
            answer._content = _whole(answer, clock.until)  # noqa: SLF001 -- as `content` would, but bounded
        except BaseException:
            answer.close()
            raise
        answer._content_consumed = True  # noqa: SLF001
        answer.encoding = (
            "utf-8"  # or it is guessed from the bytes, which takes long and holds the interpreter
        )
        answer.raw.release_conn()
        return answer


def _whole(answer: requests.Response, until: float) -> bytes:
    if 300 <= answer.status_code < 400:
        raise _Unfit(_T.REDIRECTED, "redirects to another address, which is not followed")
    if answer.headers.get("content-encoding", "identity") != "identity":
        raise _Unfit(_T.BROKEN, "compresses its answers though it was asked not to")
    chunks, size = [], 0
    while chunk := answer.raw.read1(_CHUNK_BYTES):
        size += len(chunk)
        if size > ANSWER_BYTES_MAX:
            raise _Unfit(_T.BROKEN, f"answers with more than {ANSWER_BYTES_MAX} bytes")
        if time.monotonic() > until:
            raise _late()
        chunks.append(chunk)
    return b"".join(chunks)


def _late() -> _Unfit:
    return _Unfit(_T.SLOW, f"did not finish its answer within {_TOTAL_SECONDS:g} s")


def _watched(
    pool: type[urllib3.HTTPConnectionPool], watch: Callable[[socket.socket | None], None]
) -> type[urllib3.HTTPConnectionPool]:
    """Its connections tell of their socket whenever an answer begins to be read."""
    kind: Any = pool.ConnectionCls

    class Connection(kind):  # type: ignore[misc]
        def getresponse(self) -> Any:
            watch(self.sock)
            return super().getresponse()

    return type(pool.__name__, (pool,), {"ConnectionCls": Connection})


@dataclasses.dataclass(slots=True)
class _Mine:
    """A thread's own session, and the way below it."""

    session: requests.Session
    way: _Way


class HvacVault:
    """One site, blocking. Every method raises `vault.Failed` and nothing else."""

    def __init__(self, site: snapshot.Vault, token_file: pathlib.Path | None) -> None:
        self._site = site
        self._words = vaultwords.Words(site)
        self._token_file = token_file
        self._local = threading.local()
        self._sessions: list[requests.Session] = []

    def login(self, role: str) -> vault.Token:
        pod = self._pod_token()
        at = self._site.auth_path

        def call(adapter: hvac.adapters.JSONAdapter) -> Any:
            if self._site.method == "JWT":
                return hvac.api.auth_methods.JWT(adapter).jwt_login(role, pod, use_token=False, path=at)
            methods = hvac.api.auth_methods.Kubernetes(adapter)
            return methods.login(role, pod, use_token=False, mount_point=at)

        return self._token(self._ask(_Asked(_D.LOGIN, role, f"auth/{at}"), pod, call), role)

    def alive(self, token: vault.Token) -> bool:
        asked = _Asked(_D.LOOKUP, "", "auth/token/lookup-self")
        try:
            self._ask(asked, token.value, lambda by: hvac.api.auth_methods.Token(by).lookup_self())
        except vault.Failed as error:
            return not error.final
        return True

    def renew(self, token: vault.Token, role: str) -> vault.Token:
        asked = _Asked(_D.RENEW, role, "auth/token/renew-self")
        answer = self._ask(asked, token.value, lambda by: hvac.api.auth_methods.Token(by).renew_self())
        return self._token(answer, role)

    def revoke(self, token: vault.Token, role: str) -> None:
        asked = _Asked(_D.REVOKE, role, "auth/token/revoke-self")
        self._ask(asked, token.value, lambda by: hvac.api.auth_methods.Token(by).revoke_self())

    def secret(self, token: vault.Token, role: str, path: str) -> vault.Secret:
        mount = self._site.mount
        asked = _Asked(_D.READ, role, f"{mount}/{path}")
        answer = self._ask(
            asked,
            token.value,
            lambda by: hvac.api.secrets_engines.KvV2(by).read_secret_version(
                path, mount_point=mount, raise_on_deleted_version=True
            ),
        )
        outer = _mapping(answer, "data")
        values, metadata = outer.get("data"), outer.get("metadata")
        if not isinstance(values, dict) or not isinstance(metadata, dict):
            raise self._words.odd(asked.place, "no secret of a KV engine of version 2")
        return vault.Secret(values, _version(metadata.get("version"), metadata))

    def version(self, token: vault.Token, role: str, path: str) -> str:
        mount = self._site.mount
        answer = self._ask(
            _Asked(_D.READ, role, f"{mount}/{path}"),
            token.value,
            lambda by: hvac.api.secrets_engines.KvV2(by).read_secret_metadata(path, mount_point=mount),
        )
        data = _mapping(answer, "data")
        latest = data.get("current_version")
        held = _mapping(_mapping(data, "versions"), str(latest))
        if not held or held.get("deletion_time") or held.get("destroyed"):
            return ""
        return _version(latest, held)

    def make(
        self, token: vault.Token, role: str, path: str, wish: Mapping[str, str] | None = None
    ) -> vault.Lease:
        def call(by: hvac.adapters.JSONAdapter) -> Any:
            return by.get(f"/v1/{path}") if wish is None else by.post(f"/v1/{path}", json=dict(wish))

        answer = self._ask(_Asked(_D.MAKE, role, path), token.value, call)
        values, lease = answer.get("data"), answer.get("lease_id")
        if not isinstance(values, dict):
            raise self._words.odd(path, "nothing that an engine made")
        lives = answer.get("lease_duration")
        return vault.Lease(
            values,
            lease if isinstance(lease, str) else "",
            float(lives) if isinstance(lives, int | float) and not isinstance(lives, bool) else 0.0,
            answer.get("renewable") is True,
        )

    def renew_lease(self, token: vault.Token, role: str, lease: str) -> float:
        asked = _Asked(_D.RENEW_LEASE, role, lease.rpartition("/")[0])
        answer = self._ask(
            asked, token.value, lambda by: by.put("/v1/sys/leases/renew", json={"lease_id": lease})
        )
        return vault.seconds(answer.get("lease_duration"))

    def revoke_lease(self, token: vault.Token, role: str, lease: str) -> None:
        asked = _Asked(_D.REVOKE_LEASE, role, lease.rpartition("/")[0])
        self._ask(asked, token.value, lambda by: hvac.api.system_backend.Lease(by).revoke_lease(lease))

    def close(self) -> None:
        """Closes the connections; a thread that still waits for an answer gets none."""
        for session in tuple(self._sessions):
            session.close()

    # Inside ---------------------------------------------------------------------------------------------------------

    def _pod_token(self) -> str:
        file = self._token_file
        if file is None:
            raise self._words.unprepared(
                "the proxy has no token to log in with: it was given no --vault-token-file"
            )
        try:
            with file.open("rb") as opened:
                content = opened.read(TOKEN_FILE_BYTES_MAX + 1)
        except OSError as error:
            raise self._words.unprepared(f"cannot read the pod's token for Vault: {error.strerror}") from None
        token = content.strip()
        if not token or len(token) > TOKEN_FILE_BYTES_MAX or not token.isascii():
            raise self._words.unprepared("the file of the pod's token for Vault holds no token")
        return token.decode()

    def _mine(self) -> _Mine:
        held: _Mine | None = getattr(self._local, "mine", None)
        if held is None:
            try:
                context = ssl.create_default_context(cadata=self._site.ca_bundle or None)
            except (ssl.SSLError, ValueError):
                raise self._words.unprepared(
                    "the CA bundle of the settings' vault is none that can be read"
                ) from None
            session = requests.Session()
            session.trust_env = False
            session.headers["Accept-Encoding"] = "identity"
            session.cookies.set_policy(http.cookiejar.DefaultCookiePolicy(allowed_domains=[]))
            way = _Way(context)
            session.mount("https://", way)
            session.mount("http://", way)
            held = self._local.mine = _Mine(session, way)
            self._sessions.append(session)
        return held

    def _ask(
        self, asked: vaultwords.Asked, secret: str, call: Callable[[hvac.adapters.JSONAdapter], Any]
    ) -> dict[str, Any]:
        """One request with a token of Vault's, or for one. An empty mapping where Vault has nothing to say."""
        mine = self._mine()
        adapter = hvac.adapters.JSONAdapter(
            base_uri=self._site.address.rstrip("/"),
            token=None if asked.deed is _D.LOGIN else secret,
            session=mine.session,
            namespace=self._site.namespace or None,
            timeout=(_CONNECT_SECONDS, _SILENCE_SECONDS),
            allow_redirects=False,
        )
        answer, failure = self._answered(asked, secret, lambda: call(adapter))
        if failure is not None:
            # Here, where the library's exception, which holds what was sent, is no longer at hand to be a context.
            raise failure
        if isinstance(answer, dict):
            return answer
        if mine.way.status == 204:
            return {}
        raise self._words.odd(asked.place, f"HTTP {mine.way.status} and no JSON object")

    def _answered(
        self, asked: vaultwords.Asked, secret: str, call: Callable[[], Any]
    ) -> tuple[Any, vault.Failed | None]:
        words = self._words
        try:
            try:
                return call(), None
            except requests.exceptions.ConnectionError as error:
                if not vaultwords.cut_off(error):
                    raise
                return call(), None  # the kept connection was closed: a new one
        except _Unfit as error:
            return None, words.unfit(error.trouble, asked.place, str(error))
        except hvac.exceptions.VaultError as error:
            body = error.json if isinstance(error.json, dict) else {}
            said = vault.said(body.get("errors"), but=secret)
            gone = bool(_mapping(_mapping(body, "data"), "metadata"))
            return None, words.refused(asked, self._mine().way.status, said, deleted=gone)
        except (requests.exceptions.RequestException, urllib3.exceptions.HTTPError, OSError) as error:
            return None, words.unreached(error)
        except (ValueError, RecursionError, LookupError, TypeError, AttributeError):
            return None, words.odd(asked.place, "nothing that can be read")

    def _token(self, answer: dict[str, Any], role: str) -> vault.Token:
        auth = _mapping(answer, "auth")
        value = auth.get("client_token")
        if not isinstance(value, str) or not value or not value.isascii() or not value.isprintable():
            raise self._words.odd(f"a login of role {role}", "no token")
        return vault.Token(value, vault.seconds(auth.get("lease_duration")), auth.get("renewable") is True)


def _mapping(outer: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    found = outer.get(name)
    return found if isinstance(found, dict) else {}


def _version(number: object, metadata: Mapping[str, Any]) -> str:
    """A number alone is used again when a secret is removed whole and made anew."""
    return f"{number}/{metadata.get('created_time')}"
