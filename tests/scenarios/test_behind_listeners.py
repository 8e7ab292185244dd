# SPDX-License-Identifier: Apache-2.0
"""What users behind an agent hear without asking: what they subscribed to, as long as they may and their token lives."""

from __future__ import annotations

import asyncio
import contextlib
import pathlib
import tempfile
from collections.abc import AsyncIterator
from typing import Any

from tests import hearing_agents as hearing
from tests import proxies
from tests.scenarios.test_behind_agents import of
from tests.servers import idp, stages

from outrider import decision, snapshot, testing
from outrider_sidecar import loans, users

UPDATED = "notifications/resources/updated"
TOOLS = "notifications/tools/list_changed"
FILES = testing.allow(name="files", resources=("file:///*",), callers=of("sales"))
WANTED = {"resourceSubscriptions": ["file:///a"], "toolsListChanged": True}


def test_a_subscription_is_its_users_and_ends_when_policy_does_not_let_that_user_hear_it() -> None:
    async def scenario(world: proxies.World) -> None:
        async with idp.running() as provider:
            world.providers = (provider.settings(),)
            world.apply(hearing.a_view(stage, FILES, testing.allow("t", name="t")))
            alice, bob = provider.token("alice", groups=["sales"]), provider.token("bob")
            mine, honoured = await hearing.listen(world, WANTED, outrider_user=alice)
            assert honoured == WANTED
            for options in ({"outrider_user": bob}, {}):
                stream, honoured = await hearing.listen(world, WANTED, **options)
                assert honoured == {"toolsListChanged": True}
                stream.leave()
            await stage.until(lambda: len(stage.listeners) == 1)
            await stage.push(UPDATED, {"uri": "file:///a"})
            assert (await mine.next())["params"]["uri"] == "file:///a"
            world.apply(
                hearing.a_view(
                    stage, testing.allow(name="files", resources=("file:///*",), callers=of("support"))
                )
            )
            assert (await mine.next())["result"]["resultType"] == "complete"

    stage = hearing.a_stage("modern")
    hearing.run(scenario, stage)


def test_a_list_that_changed_for_one_user_is_told_to_that_user() -> None:
    async def scenario(world: proxies.World) -> None:
        async with idp.running() as provider:
            world.providers = (provider.settings(),)
            world.apply(hearing.a_view(stage, testing.allow("t", callers=of("sales"))))
            await world.ask(proxies.request("tools/list"))
            wanted = {"toolsListChanged": True}
            alice = (
                await hearing.listen(world, wanted, outrider_user=provider.token("alice", groups=["sales"]))
            )[0]
            bob = (await hearing.listen(world, wanted, outrider_user=provider.token("bob")))[0]
            world.apply(
                hearing.a_view(stage, testing.allow("t", callers=of("support")), testing.allow("x", name="x"))
            )
            assert (await alice.next())["method"] == TOOLS
            assert await bob.quiet()
            alice.leave()
            bob.leave()

    stage = hearing.a_stage("modern")
    hearing.run(scenario, stage)


def test_a_user_whose_token_has_expired_hears_what_nobody_may_hear_and_no_more(monkeypatch: Any) -> None:
    gone: set[str] = set()
    present = users.present
    monkeypatch.setattr(
        users, "present", lambda user, now: None if user and user.id in gone else present(user, now)
    )

    async def scenario(world: proxies.World) -> None:
        async with idp.running() as provider:
            world.providers = (provider.settings(),)
            open_to_all = testing.allow(name="open", resources=("file:///b",))
            world.apply(hearing.a_view(stage, FILES, open_to_all))
            wanted = {"resourceSubscriptions": ["file:///a", "file:///b"]}
            stream, honoured = await hearing.listen(
                world, wanted, outrider_user=provider.token("alice", groups=["sales"])
            )
            assert honoured == wanted
            await stage.until(lambda: len(stage.listeners) == 1)
            gone.add("okta:alice")
            await stage.push(UPDATED, {"uri": "file:///a"})
            await stage.push(UPDATED, {"uri": "file:///b"})
            assert (await stream.next())["params"]["uri"] == "file:///b"
            world.apply(hearing.a_view(stage, FILES, open_to_all, title="changed"))
            assert (await stream.next())["result"]["resultType"] == "complete"

    stage = hearing.a_stage("modern")
    hearing.run(scenario, stage)


def test_a_legacy_session_hears_what_any_of_its_users_subscribed_to_and_loses_what_none_may() -> None:
    async def scenario(world: proxies.World) -> None:
        async with idp.running() as provider:
            world.providers = (provider.settings(),)
            world.apply(hearing.a_view(stage, FILES))
            session = await world.open_session()
            alice = {
                "modern": False,
                "session": session,
                "outrider_user": provider.token("alice", groups=["sales"]),
            }
            bob = {**alice, "outrider_user": provider.token("bob")}
            body = proxies.request("resources/subscribe", {"uri": "file:///a"})
            assert (await world.ask(body, **bob)).reason == "ResourceUnknown"
            assert (await world.ask(body, **alice)).result == {}
            stream = await hearing.get(world, session)
            await stage.until(lambda: sum(len(each) for each in stage.sessions.values()) == 1)
            await stage.push(UPDATED, {"uri": "file:///a"})
            assert (await stream.next())["params"]["uri"] == "file:///a"
            world.apply(
                hearing.a_view(
                    stage, testing.allow(name="files", resources=("file:///*",), callers=of("support"))
                )
            )
            await stage.push(UPDATED, {"uri": "file:///a"})
            with contextlib.suppress(TimeoutError):
                while True:
                    assert (await stream.next(0.5))["method"] != UPDATED
            stream.leave()

    stage = hearing.a_stage("legacy")
    hearing.run(scenario, stage)


class Own:
    """A `loans.Source` that lends each user a token of their own."""

    def at_hand(self, wanted: loans.Wanted) -> loans.Loan | None:
        return (
            None if wanted.user is None else loans.Loan(f"token-of-{wanted.user.id}".encode(), wanted.user.id)
        )

    async def fetch(self, wanted: loans.Wanted, *, refused: str | None = None) -> loans.Loan:
        raise loans.Unavailable(decision.Reason.USER_REQUIRED, "nobody's")

    def keep(self, wanted: frozenset[snapshot.Source]) -> None:
        pass

    def standing(self) -> tuple[()]:
        return ()

    async def close(self) -> None:
        pass


EXCHANGE = snapshot.TokenExchange(
    token_url="https://as.example/token", client=snapshot.OAuthClient(id="outrider")
)
OWN = snapshot.Credential(name="own", tools=("*",), source=EXCHANGE, prefix="Bearer ")


@contextlib.asynccontextmanager
async def lending_each_their_own(stage: stages.Stage) -> AsyncIterator[tuple[proxies.World, idp.Provider]]:
    with tempfile.TemporaryDirectory() as folder:
        async with (
            stages.playing(stage), idp.running() as provider,
            proxies.running(pathlib.Path(folder), sources={snapshot.TokenExchange: Own()}) as world,
        ):  # fmt: skip
            world.providers = (provider.settings(),)
            rule = testing.allow(resources=("*",))
            world.apply(hearing.a_view(stage, rule, credentials=(OWN,), credential_required=True))
            yield world, provider


def test_a_server_is_heard_with_each_users_own_credential_and_tells_nobody_elses_news() -> None:
    stage = hearing.a_stage("modern")

    async def main() -> None:
        async with lending_each_their_own(stage) as (world, provider):
            wanted = {"resourceSubscriptions": ["file:///a"]}
            assert (await world.call("t")).reason == "UserRequired"
            streams = {}
            for name in ("alice", "bob"):
                token = provider.token(name)
                assert (await world.call("t", outrider_user=token)).reason is None
                streams[name], honoured = await hearing.listen(world, wanted, outrider_user=token)
                assert honoured == wanted
            await stage.until(lambda: len(stage.listeners) == 2)
            opened = [each.headers["authorization"] for each in stage.of("subscriptions/listen")]
            assert sorted(opened) == ["Bearer token-of-okta:alice", "Bearer token-of-okta:bob"]
            await stage.push(UPDATED, {"uri": "file:///a"})
            for stream in streams.values():  # each from their own stream, so once
                assert (await stream.next())["params"]["uri"] == "file:///a"
                assert await stream.quiet()
                stream.leave()
            lent = {each.headers.get("authorization") for each in stage.of("tools/call")}
            assert lent == {"Bearer token-of-okta:alice", "Bearer token-of-okta:bob"}

    asyncio.run(asyncio.wait_for(main(), 60))


def test_users_of_one_legacy_session_have_sessions_of_their_own_at_a_server_that_each_has_a_credential_for() -> (
    None
):
    stage = hearing.a_stage("legacy")

    async def main() -> None:
        async with lending_each_their_own(stage) as (world, provider):
            session = await world.open_session()
            for name in ("alice", "bob", "alice"):
                told = await world.call(
                    "t", modern=False, session=session, outrider_user=provider.token(name)
                )
                assert told.reason is None
            body = proxies.request("resources/subscribe", {"uri": "file:///a"})
            way = {"modern": False, "session": session, "outrider_user": provider.token("bob")}
            assert (await world.ask(body, **way)).result == {}
            used: dict[str, set[str]] = {}
            for each in (*stage.of("tools/call"), *stage.of("resources/subscribe")):
                used.setdefault(each.headers["authorization"], set()).add(each.headers["mcp-session-id"])
            assert set(used) == {"Bearer token-of-okta:alice", "Bearer token-of-okta:bob"}
            assert [len(each) for each in used.values()] == [1, 1]
            assert len(set.union(*used.values())) == 2
            stream = await hearing.get(world, session)
            await stage.until(lambda: sum(len(each) for each in stage.sessions.values()) == 2)
            await stage.push(UPDATED, {"uri": "file:///a"})
            assert (await stream.next())["params"]["uri"] == "file:///a"
            assert await stream.quiet()
            stream.leave()

    asyncio.run(asyncio.wait_for(main(), 60))


def test_a_server_that_only_users_have_credentials_for_is_listed_in_the_name_of_the_user_who_asks() -> None:
    stage = hearing.a_stage("modern")

    async def main() -> None:
        async with lending_each_their_own(stage) as (world, provider):
            listing = proxies.request("tools/list")
            assert (await world.ask(listing)).reason == "UserRequired"
            assert (await world.ask(listing, path="/mcp")).result["tools"] == []
            assert stage.of("tools/list") == []
            alice = provider.token("alice")
            told = await world.ask(listing, outrider_user=alice)
            assert [tool["name"] for tool in told.result["tools"]] == ["t"]
            [asked] = stage.of("tools/list")
            assert asked.headers["authorization"] == "Bearer token-of-okta:alice"
            # One catalogue for all: what each may see of it is policy's matter.
            assert len((await world.ask(listing)).result["tools"]) == 1
            assert len(stage.of("tools/list")) == 1

    asyncio.run(asyncio.wait_for(main(), 60))
