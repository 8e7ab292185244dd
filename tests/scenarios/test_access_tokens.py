# SPDX-License-Identifier: Apache-2.0
"""Access tokens through a whole proxy: a server that takes the authorization server's tokens and nothing else, and users at once (N5)."""

from __future__ import annotations

import asyncio
import collections
import contextlib
import pathlib
import tempfile
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from tests import granting, proxies
from tests.authserver import server as authservers
from tests.servers import mcp

from outrider import snapshot

ERAS = pytest.mark.parametrize("era", ["modern", "legacy"])


class Good:
    """What the resource server takes in Authorization: a token of the issuer that is good now, for this server."""

    def __init__(self, issuer: authservers.AuthServer) -> None:
        self._issuer = issuer

    def __contains__(self, value: str | None) -> bool:
        return self.claims(value) is not None

    def claims(self, value: str | None) -> dict[str, Any] | None:
        kind, _, token = (value or "").partition(" ")
        claims = self._issuer.active(token) if kind == "Bearer" else None
        return claims if claims is not None and claims["aud"] == [granting.RESOURCE] else None


Scenario = Callable[[proxies.World, mcp.Peer, Good], Awaitable[None]]


def run(
    issuer: authservers.AuthServer, source: snapshot.Source, scenario: Scenario, *, era: str, **view: Any
) -> None:
    """A proxy whose one entry lends `source`, before a server of an era that demands it."""
    entry = snapshot.Credential(name="token", source=source, header="authorization", prefix="Bearer ")
    provider = snapshot.IdentityProvider(
        name="idp", issuer=issuer.issuer, audience=authservers.AUDIENCE, jwks_uri=issuer.jwks_uri
    )

    async def main() -> None:
        async with contextlib.AsyncExitStack() as stack:
            folder = pathlib.Path(stack.enter_context(tempfile.TemporaryDirectory()))
            (folder / "actor").write_text(issuer.actor_token("crm", "bot"))
            made = await stack.enter_async_context(granting.sources(folder, actor_file=folder / "actor"))
            lent = {snapshot.ClientCredentials: made.own, snapshot.TokenExchange: made.exchanged}
            good = Good(issuer)
            peer = await stack.enter_async_context(mcp.serving(mcp.Peer(era, accepts=good)))
            world = await stack.enter_async_context(proxies.running(folder / "proxy", sources=lent))
            world.providers = (provider,)
            world.apply(proxies.a_view(peer, credential_required=True, credentials=(entry,), **view))
            await scenario(world, peer, good)

    asyncio.run(asyncio.wait_for(main(), 120))


@pytest.fixture
def client(authserver, tmp_path):
    authserver.register("outrider", secret="s3cret")
    return granting.client(tmp_path)


@ERAS
def test_calls_carry_a_token_for_the_server_and_a_revoked_one_is_replaced_once(authserver, client, era):
    where = snapshot.ClientCredentials(
        token_url=authserver.token_url, client=client, resource=granting.RESOURCE
    )

    async def scenario(world, peer, good):
        session = None if era == "modern" else await world.open_session()
        way = {"modern": era == "modern", "session": session}
        assert (await world.call("echo", **way)).reason is None
        authserver.revoke_all()
        told = await asyncio.gather(*(world.call("echo", {"n": n}, id_=n, **way) for n in range(20)))
        assert {each.reason for each in told} == {None}
        assert [each.text for each in told] == [f'{{"n": {n}}}' for n in range(20)]
        assert authserver.requests == 2
        assert {good.claims(each.headers["authorization"])["sub"] for each in peer.calls[-20:]} == {
            "outrider"
        }
        assert not any("s3cret" in str(each.headers) + each.raw.decode("latin-1") for each in peer.seen)

    run(authserver, where, scenario, era=era, idempotent=("echo",))


@ERAS
def test_users_at_once_are_each_lent_their_own_and_hear_their_own(authserver, client, era):
    where = snapshot.TokenExchange(token_url=authserver.token_url, client=client, resource=granting.RESOURCE)
    names = [f"user-{number}" for number in range(8)]
    tokens = {name: authserver.user_token(name) for name in names}

    async def scenario(world, peer, good):
        async def one(name: str) -> None:
            way: dict[str, Any] = {"modern": era == "modern", "outrider_user": tokens[name]}
            for turn in range(5):
                told = await world.call(
                    "echo", {"who": name, "turn": turn}, id_=1, **way, session=sessions[name]
                )
                assert told.reason is None, told
                assert told.text == f'{{"who": "{name}", "turn": {turn}}}'

        # Of a handshake era two users share each session of the agent's: the server's may be shared by none.
        shared = [None] * 8 if era == "modern" else [await world.open_session() for _ in range(4)] * 2
        sessions = dict(zip(names, shared, strict=True))
        await asyncio.gather(*(one(name) for name in names))
        assert len(peer.calls) == 40
        at_server = collections.defaultdict(set)
        for seen in peer.calls:
            claims = good.claims(seen.headers["authorization"])
            assert claims["sub"] == seen.body["params"]["arguments"]["who"]
            assert claims["act"]["sub"] == "system:serviceaccount:crm:bot"
            at_server[seen.headers.get("mcp-session-id")].add(claims["sub"])
        if era == "legacy":
            assert all(len(users) == 1 for users in at_server.values())
        assert collections.Counter(each.claims["sub"] for each in authserver.oauth.issued) == dict.fromkeys(
            names, 1
        )
        for seen in peer.seen:
            assert "outrider-user" not in {name.lower() for name in seen.headers}
            assert not any(token in str(seen.headers) for token in tokens.values())

    run(authserver, where, scenario, era=era)


def test_without_a_user_or_without_the_authorization_server_nothing_leaves(authserver, client):
    where = snapshot.TokenExchange(token_url=authserver.token_url, client=client, resource=granting.RESOURCE)
    alice, bob = authserver.user_token("alice"), authserver.user_token("bob")

    async def scenario(world, peer, good):
        assert (await world.call("echo")).reason == "UserRequired"
        assert (await world.call("echo", outrider_user=alice)).reason is None
        await asyncio.to_thread(authserver.stop)
        sent = len(peer.calls)
        refused = await world.call("echo", outrider_user=bob)
        assert refused.reason == "CredentialUnavailable"
        assert len(peer.calls) == sent
        assert (await world.call("echo", outrider_user=alice)).reason is None  # hers is held
        assert [each.principal.user for each in world.intents] == ["idp:alice", "idp:bob", "idp:alice"]
        assert [each.reason for each in world.outcomes] == ["Allowed", "CredentialUnavailable", "Allowed"]

    run(authserver, where, scenario, era="modern")
