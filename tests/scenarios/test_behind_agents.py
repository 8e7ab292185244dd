# SPDX-License-Identifier: Apache-2.0
"""Users behind an agent, through a whole proxy with a real issuer: what each sees, may do and hears, and nobody else's share."""

from __future__ import annotations

import asyncio
import contextlib
import json
import re
from collections.abc import AsyncIterator
from typing import Any

import pytest
from tests import hearing_agents as hearing
from tests import proxies
from tests.corpus import test_strangers as strangers
from tests.servers import idp, mcp, stages

from outrider import rules, testing
from outrider_sidecar import local

ERAS = pytest.mark.parametrize("era", ["modern", "legacy"])


def of(*groups: str) -> tuple[rules.UserTest, ...]:
    return (rules.UserTest(groups=tuple(f"okta:{group}" for group in groups)),)


SALES_ONLY = testing.allow("echo", name="sales", callers=of("sales"))
FOR_ALL = testing.allow("odd", name="all")


@contextlib.asynccontextmanager
async def known(
    world: proxies.World, peer: mcp.Peer | None = None, *chosen: rules.Rule, **view: Any
) -> AsyncIterator[idp.Provider]:
    """The proxy before a server, with an issuer that it knows."""
    async with idp.running() as provider:
        world.providers = (provider.settings(),)
        world.apply(proxies.a_view(peer, *chosen, **view))
        yield provider


async def names(world: proxies.World, **options: Any) -> list[str]:
    told = await world.ask(proxies.request("tools/list"), **options)
    return [tool["name"] for tool in told.result["tools"]]


@ERAS
def test_each_user_sees_and_may_what_the_rules_say_and_nobody_is_told_that_a_user_is_needed(era: str) -> None:
    async def scenario(world: proxies.World, peer: mcp.Peer) -> None:
        async with known(world, peer, SALES_ONLY, FOR_ALL) as provider:
            session = None if era == "modern" else await world.open_session()
            way: dict[str, Any] = {"modern": era == "modern", "session": session}
            alice = {**way, "outrider_user": provider.token("alice", groups=["sales", "x"])}
            bob = {**way, "outrider_user": provider.token("bob", groups=["support"])}
            assert set(await names(world, **alice)) == {"echo", "odd"}
            assert await names(world, **bob) == ["odd"]
            assert set(await names(world, **way)) == {"echo", "odd"}  # some user could
            assert (await world.call("echo", {"n": 1}, **alice)).text == '{"n": 1}'
            refused = await world.call("echo", **bob)
            unknown = await world.call("nowhere", **bob)
            assert (refused.text, unknown.text) == ("Unknown tool: echo", "Unknown tool: nowhere")
            nobody = await world.call("echo", **way)
            assert nobody.reason == "UserRequired"
            assert "Outrider-User" in nobody.text
            assert (await world.call("odd", **way)).reason is None
            [first, *_] = world.intents
            assert (first.principal.workload, first.principal.user) == ("crm/bot", "okta:alice")
            assert [(each.reason, each.principal.user) for each in world.refusals] == [
                ("NotAllowed", "okta:bob"), ("ToolUnknown", "okta:bob"), ("UserRequired", ""),
            ]  # fmt: skip
            assert len(peer.calls) == 2

    proxies.run(scenario, era=era)


def test_a_server_that_requires_users_serves_them_and_nobody_else() -> None:
    async def scenario(world: proxies.World, peer: mcp.Peer) -> None:
        async with known(world, peer, testing.allow(), require_user=True) as provider:
            assert "echo" in await names(world)
            for path, tool in ((proxies.PATH, "echo"), ("/mcp", "api__echo")):
                assert (await world.call(tool, path=path)).reason == "UserRequired"
                assert (await world.call(tool, path=path, outrider_user=provider.token())).reason is None
            assert len(peer.calls) == 2

    proxies.run(scenario)


@ERAS
def test_the_token_goes_no_further_and_stands_nowhere(era: str, caplog: Any) -> None:
    caplog.set_level(0)

    async def scenario(world: proxies.World, peer: mcp.Peer) -> None:
        async with known(world, peer) as provider:
            token = provider.token("alice", groups=["canary-group"])
            session = None if era == "modern" else await world.open_session()
            told = await world.call("echo", modern=era == "modern", session=session, outrider_user=token)
            assert told.reason is None
            secret = token.rpartition(".")[2]
            for seen in peer.seen:
                assert "outrider-user" not in {name.lower() for name in seen.headers}
                assert secret not in str(seen.headers) + seen.raw.decode("latin-1")
            await world.settled()
            kept = [path.read_bytes() for path in world.folder.rglob("*") if path.is_file()]
            said = caplog.text.encode() + world.parts.telemetry.render() + told.body
            assert not any(secret.encode() in each for each in [*kept, said])

    proxies.run(scenario, era=era)


def test_what_the_agent_says_of_a_user_anywhere_else_is_nothing() -> None:
    async def scenario(world: proxies.World, peer: mcp.Peer) -> None:
        async with known(world, peer, SALES_ONLY) as provider:
            token = provider.token("alice", groups=["sales"])
            for headers in (
                {"x_user": "okta:alice"},
                {"x_outrider_user": token},
                {"x_forwarded_user": token},
                {"cookie": f"outrider-user={token}"},
            ):
                assert (await world.call("echo", **headers)).reason == "UserRequired"
            for where in ("outrider-user", "Outrider-User", "dev.outrider/user"):
                params = {"name": "echo", "arguments": {}, "_meta": {where: token}}
                assert (await world.ask(proxies.request("tools/call", params))).reason == "UserRequired"
            assert (
                await world.call("echo", path=f"{proxies.PATH}?outrider-user={token}")
            ).reason == "UserRequired"
            assert peer.calls == []

    proxies.run(scenario)


def test_without_an_issuer_every_token_is_refused() -> None:
    async def scenario(world: proxies.World, peer: mcp.Peer) -> None:
        token = idp.Provider().token()
        told = await world.call("echo", outrider_user=token)
        assert told.reason == "UserTokenInvalid"
        assert "not of an issuer that is known here" in told.text
        assert (await world.call("echo")).reason is None

    proxies.run(scenario)


def test_an_issuer_that_is_away_refuses_its_users_and_nobody_else_and_serves_them_when_it_is_back() -> None:
    async def scenario(world: proxies.World, peer: mcp.Peer) -> None:
        async with known(world, peer) as provider:
            provider.how = "error"
            told = await world.call("echo", outrider_user=provider.token())
            assert told.reason == "UserTokenInvalid"
            assert "cannot be had" in told.text
            assert (await world.call("echo")).reason is None
            provider.how = "well"
            async with asyncio.timeout(20):
                while (await world.call("echo", outrider_user=provider.token())).reason is not None:
                    await asyncio.sleep(0.1)

    proxies.run(scenario)


def test_a_slow_issuer_keeps_only_its_own_users_waiting() -> None:
    async def scenario(world: proxies.World, peer: mcp.Peer) -> None:
        async with known(world, peer) as provider:
            provider.how = "slow"
            waiting = [
                await world.calling("echo", id_=number, outrider_user=provider.token()) for number in range(5)
            ]
            assert (await world.call("echo")).reason is None
            provider.go_on.set()
            assert [(await each.answer()).reason for each in waiting] == [None] * 5
            assert provider.fetches == 1

    proxies.run(scenario)


def test_a_bad_token_is_an_error_on_whatever_is_asked_and_in_the_way_of_nothing_else() -> None:
    async def scenario(world: proxies.World, peer: mcp.Peer) -> None:
        async with known(world, peer, testing.allow(prompts=("*",), resources=("*",))):
            session = await world.open_session()
            bad = {"modern": False, "session": session, "outrider_user": "nonsense"}
            for method, params in (
                ("initialize", {"protocolVersion": mcp.LEGACY, "capabilities": {}, "clientInfo": {"name": "t", "version": "1"}}),
                ("ping", {}), ("tools/list", {}), ("prompts/get", {"name": "x"}), ("resources/read", {"uri": "file:///a"}),
                ("completion/complete", {}), ("resources/subscribe", {"uri": "file:///a"}), ("no/such", {}),
            ):  # fmt: skip
                told = await world.ask(proxies.request(method, params), **bad)
                assert (told.status, told.reason) == (200, "UserTokenInvalid"), method
                assert told.last["error"]["code"] == 403
            assert (
                await world.ask(proxies.request("notifications/cancelled", {"requestId": 9}, id_=None), **bad)
            ).status == 202
            head = {**hearing.LEGACY_HEAD, "mcp-session-id": session, "outrider-user": "nonsense"}
            told = await (await world.send("GET", proxies.PATH, b"", head)).answer()
            assert (told.status, "www-authenticate" in told.headers) == (403, False)
            assert {(each.reason, each.detail[:16]) for each in world.refusals} == {
                ("UserTokenInvalid", "not a signed JWT")
            }
            assert len(world.refusals) == 9

    proxies.run(scenario, era="legacy")


def test_a_refused_token_is_told_by_the_request_id_of_its_record() -> None:
    async def scenario(world: proxies.World, peer: mcp.Peer) -> None:
        async with known(world, peer) as provider:
            told = await world.call("echo", outrider_user=provider.token(aud="billing"))
            [record] = world.refusals
            assert told.refusal["requestId"] == record.request_id
            assert record.detail.startswith(
                "for another audience (iss 'https://okta.idp.example', aud 'billing'); token "
            )

    proxies.run(scenario)


# Nobody else's share --------------------------------------------------------------------------------------------------


def test_two_users_of_one_session_with_equal_ids_never_get_each_others_answers() -> None:
    async def scenario(world: proxies.World, peer: mcp.Peer) -> None:
        async with known(world, peer) as provider:
            session = await world.open_session()
            who = {name: provider.token(name) for name in ("alice", "bob", "carol")}

            async def one(name: str, number: int) -> None:
                given = {"whose": f"{name}-{number}"}
                told = await world.call(
                    "echo", given, id_=1, modern=False, session=session, outrider_user=who[name]
                )
                assert told.last["id"] == 1
                assert json.loads(told.text) == given

            await asyncio.gather(*(one(name, number) for name in who for number in range(15)))
            asked = {each.event: each.principal.user for each in world.intents}
            assert sorted(asked.values()) == sorted(f"okta:{name}" for name in who for _ in range(15))

    proxies.run(scenario, era="legacy")


def test_a_requeststate_of_one_user_is_unknown_to_another_and_to_nobody() -> None:
    async def scenario(world: proxies.World) -> None:
        async with idp.running() as provider:
            world.providers = (provider.settings(),)
            world.apply(hearing.a_view(stage))
            alice, bob = provider.token("alice"), provider.token("bob")
            fresh = provider.token("alice", jti="another")
            state = (await world.ask(strangers.a_call(), outrider_user=alice)).result["requestState"]
            nobodys = (await world.ask(strangers.a_call())).result["requestState"]
            before = len(stage.of("tools/call"))
            for given, options in (
                (state, {"outrider_user": bob}),
                (state, {}),
                (nobodys, {"outrider_user": alice}),
            ):
                told = await world.ask(strangers.again(given), **options)
                assert "Unknown requestState" in told.last["error"]["message"]
            assert len(stage.of("tools/call")) == before
            told = await world.ask(
                strangers.again(state), outrider_user=fresh
            )  # the same user with a new token
            assert json.loads(told.text) == {"a": {"action": "accept"}}

    stage = strangers.asks()
    hearing.run(scenario, stage)


def test_a_cursor_of_one_user_is_unknown_to_another(monkeypatch: Any) -> None:
    monkeypatch.setattr(local, "PAGE_ENTRIES_MAX", 5)

    async def scenario(world: proxies.World, peer: mcp.Peer) -> None:
        async with known(world, peer) as provider:
            alice, bob = provider.token("alice"), provider.token("bob")
            cursor = (await world.ask(proxies.request("tools/list"), outrider_user=alice)).result[
                "nextCursor"
            ]
            body = proxies.request("tools/list", {"cursor": cursor})
            assert "result" in (await world.ask(body, outrider_user=alice)).last
            for options in ({"outrider_user": bob}, {}):
                assert (await world.ask(body, **options)).last["error"]["message"] == "unknown cursor"

    proxies.run(scenario)


def test_an_answer_in_instalments_is_taken_up_by_nobody_but_its_user() -> None:
    go_on = asyncio.Event()

    async def act(line: mcp.Line, heard: stages.Heard) -> bool:
        if heard.verb == "GET" and heard.headers.get("last-event-id") == "place":
            await go_on.wait()
            await line.events()
            await line.event(stages.answer(stage, stage.of("tools/call")[-1]))
            await line.over()
            return True
        if heard.method != "tools/call":
            return False
        await line.events()
        frame = b"id: place\nretry: 50\ndata:\n\n"
        line.writer.write(b"%x\r\n%b\r\n" % (len(frame), frame))
        await line.over()
        return True

    async def scenario(world: proxies.World) -> None:
        async with idp.running() as provider:
            world.providers = (provider.settings(),)
            world.apply(hearing.a_view(stage))
            session = await world.open_session(version="2025-11-25")
            alice, bob = provider.token("alice"), provider.token("bob")
            told = await world.call(
                "query", {"whose": "alice"}, modern=False, session=session, outrider_user=alice
            )
            last = re.findall(rb"^id: (\S+)", told.body, re.MULTILINE)[-1].decode()
            others = [
                await hearing.get(world, session, **{"last-event-id": last, **head})
                for head in ({}, {"outrider-user": bob})
            ]
            right = await hearing.get(world, session, **{"last-event-id": last, "outrider-user": alice})
            go_on.set()
            assert (await right.next())["result"]["content"]
            for each in others:
                with contextlib.suppress(TimeoutError):
                    assert await each.next(0.3) is None  # the newest stream of a session wins
                each.leave()
            right.leave()

    stage = stages.Stage("legacy", tools=[stages.tool("query")], act=act)
    hearing.run(scenario, stage)
