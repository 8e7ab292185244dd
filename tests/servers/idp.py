# SPDX-License-Identifier: Apache-2.0
"""An identity provider: real keys, tokens that are really signed, and a real HTTP server that publishes the keys.

It signs whatever it is told to, so that a token can be wrong in exactly one way. `how` is how it answers for its keys.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import dataclasses
import functools
import json
import time
from collections.abc import AsyncIterator
from typing import Any

import jwt
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from jwt import algorithms

from outrider import snapshot

AUDIENCE = "outrider"
NAME = "okta"


@functools.cache
def private(name: str) -> Any:
    """A key by its name, made once: `rs...` RSA, `es...` P-256, `es384...`, `es512...`, `ed...` Ed25519, `weak...` RSA of 1024 bits."""
    if name.startswith("weak"):
        return rsa.generate_private_key(65537, 1024)
    if name.startswith("rs"):
        return rsa.generate_private_key(65537, 2048)
    if name.startswith("ed"):
        return ed25519.Ed25519PrivateKey.generate()
    curves = {"es384": ec.SECP384R1(), "es512": ec.SECP521R1()}
    return ec.generate_private_key(curves.get(name[:5], ec.SECP256R1()))


def jwk(name: str, **members: Any) -> dict[str, Any]:
    """The public half as a JWK whose `kid` is the name; None removes a member."""
    public = private(name).public_key()
    reader = {"rs": algorithms.RSAAlgorithm, "we": algorithms.RSAAlgorithm, "es": algorithms.ECAlgorithm}.get(
        name[:2], algorithms.OKPAlgorithm
    )
    made = {**reader.to_jwk(public, as_dict=True), "kid": name, "use": "sig", **members}
    made.pop("key_ops", None)
    return {key: value for key, value in (made | members).items() if value is not None}


def encoded(part: Any) -> str:
    """One part of a token: of an object, or of text that stands for one."""
    raw = (
        part
        if isinstance(part, bytes)
        else part.encode()
        if isinstance(part, str)
        else json.dumps(part).encode()
    )
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()


def signed(header: Any, claims: Any, *, key: Any, algorithm: str) -> str:
    """A token of exactly these parts; `key` is a private key, or the bytes of a shared secret."""
    text = f"{encoded(header)}.{encoded(claims)}"
    signature = jwt.get_algorithm_by_name(algorithm).sign(text.encode(), key)
    return f"{text}.{encoded(signature)}"


def default_algorithm(name: str) -> str:
    return {"rs": "RS256", "we": "RS256", "ed": "EdDSA"}.get(
        name[:2], {"es384": "ES384", "es512": "ES512"}.get(name[:5], "ES256")
    )


@dataclasses.dataclass
class Provider:
    """`published` are the keys by name, or whole JWKs; `body` in place of them. `fetches` counts how often they were asked for."""

    published: list[Any] = dataclasses.field(default_factory=lambda: ["rs-1", "es-1"])
    how: str = "well"
    name: str = NAME
    audience: str = AUDIENCE
    port: int = 0
    fetches: int = 0
    body: bytes | None = None
    go_on: asyncio.Event = dataclasses.field(default_factory=asyncio.Event)
    requests: list[bytes] = dataclasses.field(default_factory=list)

    @property
    def issuer(self) -> str:
        return f"https://{self.name}.idp.example"

    def settings(self, **more: Any) -> snapshot.IdentityProvider:
        """As compile would write it into a snapshot."""
        given = {
            "name": self.name, "issuer": self.issuer, "audience": self.audience,
            "jwks_uri": f"http://127.0.0.1:{self.port}/keys", **more,
        }  # fmt: skip
        return snapshot.IdentityProvider(**given)

    def claims(self, sub: str = "alice", *, now: float | None = None, **more: Any) -> dict[str, Any]:
        """Good for five minutes; None removes a claim."""
        at = int(time.time() if now is None else now)
        made = {"iss": self.issuer, "aud": self.audience, "sub": sub, "iat": at, "exp": at + 300, **more}
        return {key: value for key, value in made.items() if value is not None}

    def token(self, sub: str = "alice", *, key: str = "es-1", **claims: Any) -> str:
        """A token of this provider, signed with one of its keys."""
        algorithm = default_algorithm(key)
        header = {"alg": algorithm, "typ": "JWT", "kid": key}
        return signed(header, self.claims(sub, **claims), key=private(key), algorithm=algorithm)

    def keys(self) -> bytes:
        if self.body is not None:
            return self.body
        listed = [jwk(each) if isinstance(each, str) else each for each in self.published]
        return json.dumps({"keys": listed}).encode()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.requests.append(await reader.readuntil(b"\r\n\r\n"))
        self.fetches += 1
        head, body = b"200 OK\r\ncontent-type: application/json", self.keys()
        if self.how == "slow":
            await self.go_on.wait()
        elif self.how == "away":
            return
        elif self.how == "redirect":
            head = b"302 Found\r\nlocation: http://127.0.0.1:%d/elsewhere" % self.port
        elif self.how == "error":
            head, body = b"503 Service Unavailable", b"try later"
        elif self.how == "garbage":
            body = b"<html>sign in</html>"
        elif self.how == "huge":
            body += b" " * 2_000_000
        writer.write(b"HTTP/1.1 %b\r\ncontent-length: %d\r\n\r\n%b" % (head, len(body), body))
        await writer.drain()


@contextlib.asynccontextmanager
async def running(**given: Any) -> AsyncIterator[Provider]:
    """Publishes its keys on loopback until the block ends."""
    made, tasks = Provider(**given), set()

    async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        tasks.add(asyncio.current_task())
        with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError, asyncio.CancelledError):
            await made.serve(reader, writer)
        writer.transport.abort() if made.how == "away" else writer.close()

    server = await asyncio.start_server(connected, "127.0.0.1", 0)
    made.port = server.sockets[0].getsockname()[1]
    try:
        yield made
    finally:
        server.close()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
