# SPDX-License-Identifier: Apache-2.0
"""Servers that refuse the credential (401): one refresh for all, one second try where that is safe, and never a loop.

The server is a real one that demands a token, of either era; the place of secrets rotates it.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from tests import lending, proxies
from tests.servers import mcp

from outrider import audit, decision, snapshot
from outrider_sidecar import credentials, loans, renewals

R = decision.Reason
Scenario = Callable[[proxies.World, mcp.Peer, lending.Place], Awaitable[None]]
ERAS = pytest.mark.parametrize("era", ["modern", "legacy", "sessionless"])


def run(scenario: Scenario, *, era: str = "modern", idempotent: tuple[str, ...] = (), **more: Any) -> None:
    """A proxy before a server that accepts the first version of a secret, for now."""
    place = lending.Place(b"canary-1")
    peer = mcp.Peer(era, accepts={"Bearer canary-1"})
    entry = snapshot.Credential(name="org", source=lending.SECRET, header="authorization", prefix="Bearer ")

    async def act(world: proxies.World, served: mcp.Peer) -> None:
        await scenario(world, served, place)

    proxies.run(
        act, era=era, peer=peer, sources={snapshot.VaultSecret: place},
        credential_required=True, credentials=(entry,), idempotent=idempotent, **more,
    )  # fmt: skip


def rotate(peer: mcp.Peer, place: lending.Place, value: str = "canary-2") -> None:
    """The server takes the new secret only, and the place of secrets has it; the proxy does not know yet."""
    place.rotate(value.encode())
    peer.accepts = {f"Bearer {value}"}


@ERAS
def test_a_rotated_secret_ends_one_call_of_a_tool_and_the_next_one_goes_well(era: str) -> None:
    async def scenario(world: proxies.World, peer: mcp.Peer, place: lending.Place) -> None:
        assert (await world.call("echo")).reason is None
        rotate(peer, place)
        refused = await world.call("echo")
        assert (refused.reason, refused.refusal["retryAfterSeconds"]) == ("UpstreamUnauthorized", 0)
        assert "did not make the call. Try again." in refused.text
        assert (await world.call("echo")).reason is None
        assert [each.headers["authorization"] for each in peer.calls] == [
            "Bearer canary-1", "Bearer canary-1", "Bearer canary-2",
        ]  # fmt: skip
        assert [(each.reason, each.sends, each.http_status) for each in world.outcomes] == [
            ("Allowed", 1, 200), ("UpstreamUnauthorized", 1, 401), ("Allowed", 1, 200),
        ]  # fmt: skip

    run(scenario, era=era)


@ERAS
def test_a_tool_that_its_entry_calls_idempotent_is_sent_once_more(era: str) -> None:
    async def scenario(world: proxies.World, peer: mcp.Peer, place: lending.Place) -> None:
        await world.call("echo")
        rotate(peer, place)
        assert (await world.call("echo", {"x": 1})).text == '{"x": 1}'
        assert [each.headers["authorization"] for each in peer.calls[1:]] == [
            "Bearer canary-1", "Bearer canary-2",
        ]  # fmt: skip
        assert len(world.intents) == len(world.outcomes) == 2
        assert (world.outcomes[-1].sends, world.outcomes[-1].http_status) == (2, 200)

    run(scenario, era=era, idempotent=("ech*",))


def test_idempotent_is_byte_exact() -> None:
    async def scenario(world: proxies.World, peer: mcp.Peer, place: lending.Place) -> None:
        await world.call("echo")
        rotate(peer, place)
        assert (await world.call("echo")).reason == "UpstreamUnauthorized"
        assert len(peer.calls) == 2

    run(scenario, idempotent=("ECHO", "ech", "echo?"))


def test_what_is_refused_with_the_newest_there_is_is_not_sent_again() -> None:
    async def scenario(world: proxies.World, peer: mcp.Peer, place: lending.Place) -> None:
        await world.call("echo")
        peer.accepts = set()
        told = await world.call("echo")
        assert told.reason == "UpstreamUnauthorized"
        assert "retryAfterSeconds" not in told.refusal
        assert "Do not try again." in told.text
        assert len(peer.calls) == 2
        assert world.outcomes[-1].sends == 1

    run(scenario, idempotent=("*",))


def test_a_second_refusal_ends_the_call() -> None:
    async def scenario(world: proxies.World, peer: mcp.Peer, place: lending.Place) -> None:
        await world.call("echo")
        place.rotate(b"canary-2")
        peer.accepts = set()
        assert (await world.call("echo")).reason == "UpstreamUnauthorized"
        assert [each.headers["authorization"] for each in peer.calls[1:]] == [
            "Bearer canary-1", "Bearer canary-2",
        ]  # fmt: skip
        assert (world.outcomes[-1].sends, world.outcomes[-1].status) == (2, audit.Status.FAILED)

    run(scenario, idempotent=("*",))


def test_403_is_an_answer_to_who_we_are_and_renews_nothing() -> None:
    async def scenario(world: proxies.World, peer: mcp.Peer, place: lending.Place) -> None:
        await world.call("echo")
        peer.broken = 403
        assert (await world.call("echo")).reason == "UpstreamUnauthorized"
        assert place.fetched == [None]

    run(scenario, idempotent=("*",))


def test_a_storm_of_refusals_makes_one_refresh() -> None:
    async def scenario(world: proxies.World, peer: mcp.Peer, place: lending.Place) -> None:
        await world.call("echo")
        rotate(peer, place)
        place.open.clear()
        calls = [asyncio.ensure_future(world.call("echo", id_=number)) for number in range(60)]
        while len(peer.refused) < 60:
            await asyncio.sleep(0)
        place.open.set()
        assert {told.reason for told in await asyncio.gather(*calls)} == {None}
        assert place.fetched == [None, "1"]
        assert {each.sends for each in world.outcomes[1:]} == {2}

    run(scenario, idempotent=("*",))


def test_a_server_that_refuses_everything_is_no_reason_to_fetch_for_every_call(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(renewals, "PAUSE_SECONDS", 600.0)

    async def scenario(world: proxies.World, peer: mcp.Peer, place: lending.Place) -> None:
        await world.call("echo")
        peer.accepts = set()
        for _ in range(30):
            assert (await world.call("echo")).reason == "UpstreamUnauthorized"
        assert place.fetched == [None, "1"]

    run(scenario)


@ERAS
def test_a_server_that_refuses_to_be_met_is_met_with_what_is_newer(era: str) -> None:
    async def scenario(world: proxies.World, peer: mcp.Peer, place: lending.Place) -> None:
        await world.parts.credentials.warm(lambda: 0.0)
        rotate(peer, place)
        assert (await world.call("echo")).reason is None
        assert place.fetched == [None, "1"]
        assert [each.headers["authorization"] for each in peer.calls] == ["Bearer canary-2"]

    run(scenario, era=era)


@ERAS
def test_a_list_that_is_refused_is_asked_for_once_more(era: str) -> None:
    async def scenario(world: proxies.World, peer: mcp.Peer, place: lending.Place) -> None:
        assert (await world.parts.servers.listing(proxies.API)).definitions.tools
        rotate(peer, place)
        assert (await world.parts.servers.listing(proxies.API)).definitions.tools
        assert [each.headers["authorization"] for each in peer.of("tools/list")] == [
            "Bearer canary-1", "Bearer canary-1", "Bearer canary-2",
        ]  # fmt: skip

    run(scenario, era=era)


def test_a_session_goes_on_with_a_newer_secret() -> None:
    async def scenario(world: proxies.World, peer: mcp.Peer, place: lending.Place) -> None:
        session = await world.open_session()
        await world.call("echo", modern=False, session=session)
        rotate(peer, place)
        await world.call("echo", modern=False, session=session)
        await world.call("echo", modern=False, session=session)
        assert len({each.headers["mcp-session-id"] for each in peer.calls}) == 1

    run(scenario, era="legacy")


def test_a_session_that_refuses_the_newest_secret_is_opened_anew_by_the_next_call() -> None:
    async def scenario(world: proxies.World, peer: mcp.Peer, place: lending.Place) -> None:
        session = await world.open_session()
        await world.call("echo", modern=False, session=session)
        peer.accepts = set()
        await world.call("echo", modern=False, session=session)
        peer.accepts = {"Bearer canary-1"}
        assert (await world.call("echo", modern=False, session=session)).reason is None
        assert peer.calls[0].headers["mcp-session-id"] != peer.calls[-1].headers["mcp-session-id"]

    run(scenario, era="legacy")


def test_a_call_that_is_cancelled_while_its_credential_is_renewed_is_not_sent_again() -> None:
    async def scenario(world: proxies.World, peer: mcp.Peer, place: lending.Place) -> None:
        await world.call("echo")
        rotate(peer, place)
        place.open.clear()
        call = await world.calling("echo")
        while not peer.refused:
            await asyncio.sleep(0)
        call.leave()
        while not any(each._cancelled for each in world.pipeline.calls._all()):
            await asyncio.sleep(0)
        place.open.set()
        await world.settled()
        assert len(peer.calls) == 2
        assert world.outcomes[-1].sends == 1

    run(scenario, idempotent=("*",))


# When there is nothing to lend ----------------------------------------------------------------------------------------


def test_a_call_without_a_credential_is_refused_and_told_when_to_come_again(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def scenario(world: proxies.World, peer: mcp.Peer, place: lending.Place) -> None:
        await world.call("echo")
        place.seen = None
        place.away = loans.Unavailable(R.CREDENTIAL_UNAVAILABLE, "Vault is sealed", retry_after_seconds=2.5)
        told = await world.call("echo")
        assert told.refusal["reason"] == "CredentialUnavailable"
        assert told.refusal["retryAfterSeconds"] == 3
        assert "sealed" not in str(told.messages)
        assert (world.outcomes[-1].status, world.outcomes[-1].detail) == (
            audit.Status.NOT_SENT, "Vault is sealed",
        )  # fmt: skip
        assert len(peer.calls) == 1
        for _ in range(20):
            assert (await world.call("echo")).reason == "CredentialUnavailable"

    with caplog.at_level(logging.ERROR, "outrider"):
        run(scenario)
    (line, *more) = [each.fields for each in caplog.records if "credential" in getattr(each, "fields", {})]
    assert (line["why"], line["server"], line["credential"]) == ("Vault is sealed", "crm/api", "org")
    assert line["request"]
    assert len(more) < 20  # an outage is not a flood of lines


def test_a_call_waits_for_its_credential_and_no_longer_than_it_has_time(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(credentials, "_GRACE_SECONDS", 0.0)

    async def scenario(world: proxies.World, peer: mcp.Peer, place: lending.Place) -> None:
        await world.call("echo")
        place.seen = None
        place.open.clear()
        waiting = asyncio.ensure_future(world.call("echo"))
        while len(place.fetched) < 2:
            await asyncio.sleep(0)
        place.open.set()
        assert (await waiting).reason is None
        place.seen = None
        place.open.clear()
        assert (await world.call("echo")).reason == "CredentialUnavailable"

    run(scenario, endpoint={"call_seconds": 2.0})


def test_the_secret_is_in_no_record_and_no_log_after_all_of_this(caplog: pytest.LogCaptureFixture) -> None:
    async def scenario(world: proxies.World, peer: mcp.Peer, place: lending.Place) -> None:
        await world.call("echo")
        rotate(peer, place)
        await world.call("echo")
        peer.accepts = set()
        await world.call("echo")
        assert b"canary" not in b"".join(
            each.read_bytes() for each in world.folder.rglob("*") if each.is_file()
        )
        assert b"canary" not in world.parts.telemetry.render()

    with caplog.at_level(logging.DEBUG, "outrider"):
        run(scenario, idempotent=("*",))
    assert "canary" not in " ".join(str(each.__dict__) for each in caplog.records)
