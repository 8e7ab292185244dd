# SPDX-License-Identifier: Apache-2.0
"""Proves to an authorization server which OAuth client the proxy is: with the client's secret, or with what its key signs.

Called by the OAuth sources for each request. Secret and key are values like any other, lent by whoever lends their kind: a new one
is used as soon as it is there. Refuses to show a secret that says it is for another place than this token endpoint.
"""

from __future__ import annotations

import asyncio
import base64
import dataclasses
import urllib.parse
import uuid
from collections.abc import Callable, Mapping

import yarl

from outrider import decision, names, snapshot
from outrider_sidecar import loans

ASSERTION_TYPE = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"
SECRET_BYTES_MAX = 4096

_R = decision.Reason

Values = Mapping[type, loans.Source]
"""Who lends a value, by the type of where it is: `credentials.Credentials` has the same."""


@dataclasses.dataclass(frozen=True, slots=True, repr=False)
class Proof:
    """What goes into one request. `version` is the secret's or key's; `secrets` must be quoted nowhere. No repr (N4)."""

    version: str
    headers: tuple[tuple[str, str], ...] = ()
    form: tuple[tuple[str, str], ...] = ()
    secrets: tuple[str, ...] = ()


@dataclasses.dataclass(frozen=True, slots=True)
class Asking:
    """Which client, at which token endpoint, for which server's sake; `deadline` in loop time."""

    client: snapshot.OAuthClient
    url: str
    server: names.ServerId
    deadline: float


class Clients:
    """`wall` is epoch seconds."""

    def __init__(self, values: Values, *, wall: Callable[[], float]) -> None:
        self._values = values
        self._wall = wall

    async def proof(self, asking: Asking, *, refused: str | None = None) -> Proof:
        """Raises Unavailable. `refused` is the version that the authorization server did not take: a newer one if there is any."""
        loan = await self._loan(asking, refused)
        client = asking.client
        if loan.origin and _origin(loan.origin) != _origin(asking.url):
            raise loans.Unavailable(
                _R.CREDENTIAL_MISPLACED,
                f"the secret of OAuth client {client.id!a} is for {loan.origin[:200]!a} alone, and its token endpoint is at "
                f"{_shown(asking.url)}: correct the one that is wrong",
            )
        if client.key is not None:
            return await self._signed(asking, loan)
        secret = _text(client, loan.value)
        if client.post:
            form = (("client_id", client.id), ("client_secret", secret))
            return Proof(loan.version, form=form, secrets=(secret,))
        pair = f"{urllib.parse.quote(client.id, safe='')}:{urllib.parse.quote(secret, safe='')}"
        basic = base64.b64encode(pair.encode()).decode()
        return Proof(loan.version, headers=(("authorization", f"Basic {basic}"),), secrets=(secret, basic))

    async def version(self, asking: Asking) -> str:
        """Which secret or key there is now, for whoever wants to know whether it is another one. Raises Unavailable."""
        return (await self._loan(asking, None)).version

    async def _loan(self, asking: Asking, refused: str | None) -> loans.Loan:
        where = asking.client.secret or asking.client.key
        source = self._values.get(type(where))
        if where is None or source is None:
            text = f"OAuth client {asking.client.id!a} has a secret that this proxy cannot get"
            raise loans.Unavailable(_R.CREDENTIAL_UNAVAILABLE, text)
        wanted = loans.Wanted(where, asking.server, deadline=asking.deadline)
        try:
            held = source.at_hand(wanted) if refused is None else None
            return held if held is not None else await source.fetch(wanted, refused=refused)
        except loans.Unavailable as failure:
            what = "key" if asking.client.key is not None else "secret"
            raise loans.Unavailable(
                failure.reason,
                f"the {what} of OAuth client {asking.client.id!a} is not to be had: {failure}",
                retry_after_seconds=failure.retry_after_seconds,
            ) from None

    async def _signed(self, asking: Asking, loan: loans.Loan) -> Proof:
        client = asking.client
        assertion = await asyncio.to_thread(_assertion, client, asking.url, loan.value, self._wall())
        form = (
            ("client_id", client.id),
            ("client_assertion_type", ASSERTION_TYPE),
            ("client_assertion", assertion),
        )
        return Proof(loan.version, form=form, secrets=(assertion,))


def _assertion(client: snapshot.OAuthClient, url: str, pem: bytes, now: float) -> str:
    from outrider_sidecar import assertions

    try:
        return assertions.assertion(
            pem, client=client.id, audience=url, algorithm=client.algorithm, key_id=client.key_id, now=now,
            jti=str(uuid.uuid4()),
        )  # fmt: skip
    except assertions.BadKey as bad:
        text = f"the private key of OAuth client {client.id!a} {bad}"
        raise loans.Unavailable(_R.CREDENTIAL_MALFORMED, text) from None


def _text(client: snapshot.OAuthClient, value: bytes) -> str:
    """One trailing newline is an editor's; anything else odd is refused, never repaired."""
    try:
        secret = value.removesuffix(b"\n").removesuffix(b"\r").decode()
    except UnicodeDecodeError:
        secret = ""
    if not secret or len(secret) > SECRET_BYTES_MAX or not secret.isprintable():
        text = f"the secret of OAuth client {client.id!a} is empty, too long or not one line of text"
        raise loans.Unavailable(_R.CREDENTIAL_MALFORMED, text)
    return secret


def _origin(url: str) -> tuple[str, str, int] | None:
    """Scheme, host and port, comparable; None for what has none."""
    try:
        parts = yarl.URL(url)
    except ValueError:
        return None
    return (parts.scheme, parts.host, parts.port) if parts.host and parts.port else None


def _shown(url: str) -> str:
    parts = _origin(url)
    return f"{parts[0]}://{parts[1]}:{parts[2]}" if parts else "no origin"
