# SPDX-License-Identifier: Apache-2.0
"""The authorization server as a process would be: a real port, TLS if wanted, and ways to pause, stop and restore it."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import pathlib
import socket
import threading
import time
import urllib.parse
import uuid
from typing import Any

import uvicorn
from joserfc import errors as jose_errors
from joserfc import jwk, jwt
from starlette import applications, requests, responses, routing
from tests.authserver import exchange, protocol
from tests.kube import certs

WAIT_SECONDS = 30.0
AUDIENCE = "outrider"
CLUSTER = "https://kubernetes.default.svc"


@functools.cache
def _first_key() -> jwk.Key:
    """RSA keys take their time: the tests of one process share the first one."""
    return protocol.new_key()


class AuthServer:
    """One issuer. `start` it, `close` it at the end; `oauth` is Authlib's side of it: clients, lifetime, what was issued."""

    def __init__(
        self, *, host: str = "127.0.0.1", tls: pathlib.Path | None = None, name: str | None = None
    ) -> None:
        """`tls`: a folder for an authority of its own; `ca_pem` is then what to trust. `name`: what `host` is called, if it is."""
        self._socket = socket.create_server((host, 0))
        self.port = self._socket.getsockname()[1]
        name = name or host
        self._keys = certs.Authority.make(tls, [name]) if tls is not None else None
        self.ca_pem = self._keys.ca_file.read_text() if self._keys is not None else None
        self.issuer = f"{'https' if tls else 'http'}://{name}:{self.port}"
        self.oauth = protocol.Server(self.issuer)
        self.oauth.keys = jwk.KeySet([_first_key()])
        self.oauth.subject_audience = AUDIENCE
        self.oauth.subject_types = (exchange.TYPE + "access_token",)
        self._cluster = protocol.new_key("EC")
        self.oauth.trusted = {CLUSTER: jwk.KeySet([self._cluster])}
        self.oauth.register_grant(exchange.TokenExchange)
        self._address = (host, self.port)
        self._open = threading.Event()
        self._open.set()
        self._running: tuple[uvicorn.Server, threading.Thread] | None = None
        self.requests = 0
        self.keys_asked = 0

    @property
    def token_url(self) -> str:
        return self.oauth.token_url

    @property
    def jwks_uri(self) -> str:
        return f"{self.issuer}/jwks"

    # What it knows --------------------------------------------------------------------------------------------------

    def register(self, client_id: str, **options: Any) -> protocol.Client:
        """A client; give it a `secret`, or `method="private_key_jwt"` and its public `key` (PEM)."""
        client = self.oauth.clients[client_id] = protocol.Client(client_id, **options)
        return client

    def rotate_keys(self, kind: str = "RSA", *, keep: bool = False) -> None:
        """Signs with a new key from now on; without `keep` the old one is gone from the JWKS."""
        old = list(self.oauth.keys.keys) if keep else []
        self.oauth.keys = jwk.KeySet([protocol.new_key(kind), *old])

    def user_token(
        self, subject: str, *, seconds: float = 600, header: dict[str, Any] | None = None, **claims: Any
    ) -> str:
        """What a user got of this provider for Outrider; a claim given as None is left out."""
        now = int(time.time())
        made = {
            "iss": self.issuer, "sub": subject, "aud": AUDIENCE, "azp": "agent", "iat": now, "exp": now + int(seconds),
            "jti": str(uuid.uuid4()), **claims,
        }  # fmt: skip
        key = self.oauth.keys.keys[0]
        head = {"alg": key.alg, "typ": "JWT", "kid": key.kid, **(header or {})}
        return jwt.encode(head, {name: value for name, value in made.items() if value is not None}, key)

    def actor_token(self, namespace: str = "agents", account: str = "bot", *, seconds: float = 600) -> str:
        """What the cluster projects into a pod for exchanges."""
        now = int(time.time())
        claims = {
            "iss": CLUSTER, "sub": f"system:serviceaccount:{namespace}:{account}", "aud": [exchange.ACTOR_AUDIENCE],
            "iat": now, "exp": now + int(seconds),
        }  # fmt: skip
        return jwt.encode({"alg": "ES256", "kid": self._cluster.kid}, claims, self._cluster)

    def active(self, token: str) -> dict[str, Any] | None:
        """The claims of an access token of this server that is good now, as a resource server would see it."""
        try:
            claims = jwt.decode(token, self.oauth.keys, algorithms=["RS256", "ES256"]).claims
            jwt.JWTClaimsRegistry(exp={"essential": True}).validate(claims)
        except (jose_errors.JoseError, ValueError):
            return None
        return None if claims.get("jti") in self.oauth.revoked else claims

    def revoke_all(self) -> None:
        """No access token that was handed out so far is good any more."""
        self.oauth.revoked.update(each.claims["jti"] for each in self.oauth.issued)

    # The process ----------------------------------------------------------------------------------------------------

    def start(self) -> AuthServer:
        if self._socket.fileno() < 0:
            self._socket = socket.create_server(self._address)
        app = applications.Starlette(
            routes=[
                routing.Route("/token", self._token, methods=["POST"]),
                routing.Route("/jwks", self._jwks),
                routing.Route("/.well-known/openid-configuration", self._metadata),
                routing.Route("/.well-known/oauth-authorization-server", self._metadata),
            ]
        )
        tls = {} if self._keys is None else {
            "ssl_certfile": str(self._keys.server_cert), "ssl_keyfile": str(self._keys.server_key),
        }  # fmt: skip
        config = uvicorn.Config(app, log_level="error", lifespan="off", timeout_graceful_shutdown=1, **tls)
        server = uvicorn.Server(config)
        thread = threading.Thread(
            target=lambda: asyncio.run(server.serve(sockets=[self._socket])), name=f"authserver-{self.port}"
        )
        thread.start()
        deadline = time.monotonic() + WAIT_SECONDS
        while not server.started:
            assert thread.is_alive()
            assert time.monotonic() < deadline
            time.sleep(0.005)
        self._running = (server, thread)
        return self

    def stop(self) -> None:
        """Gone: connections are refused, until `start`."""
        if self._running is not None:
            server, thread = self._running
            self._running = None
            server.should_exit = True
            self._open.set()
            thread.join(WAIT_SECONDS)
            assert not thread.is_alive()
        self._socket.close()

    close = stop

    @contextlib.contextmanager
    def paused(self):
        """Takes requests and answers none until the block ends."""
        self._open.clear()
        try:
            yield
        finally:
            self._open.set()

    # Its routes -----------------------------------------------------------------------------------------------------

    async def _token(self, request: requests.Request) -> responses.Response:
        self.requests += 1
        body = await request.body()
        while not self._open.is_set():
            await asyncio.sleep(0.01)
        pairs = urllib.parse.parse_qsl(body.decode(), keep_blank_values=True)
        asked = protocol.Request(self.token_url, request.headers, pairs)
        status, content, headers = self.oauth.create_token_response(asked)
        return responses.Response(content, status, headers)

    async def _jwks(self, request: requests.Request) -> responses.Response:
        self.keys_asked += 1
        while not self._open.is_set():
            await asyncio.sleep(0.01)
        return responses.JSONResponse(self.oauth.keys.as_dict(private=False))

    async def _metadata(self, request: requests.Request) -> responses.Response:
        return responses.JSONResponse(
            {
                "issuer": self.issuer, "token_endpoint": self.token_url, "jwks_uri": self.jwks_uri,
                "grant_types_supported": ["client_credentials", exchange.GRANT],
                "token_endpoint_auth_methods_supported": list(protocol.METHODS),
            }
        )  # fmt: skip
