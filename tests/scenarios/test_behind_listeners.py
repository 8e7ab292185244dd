# SPDX-License-Identifier: Apache-2.0
"""What users behind an agent hear without asking: what they subscribed to, as long as they may and their token lives."""

from __future__ import annotations

import contextlib
from typing import Any

from tests import hearing_agents as hearing
from tests import proxies
from tests.scenarios.test_behind_agents import of
from tests.servers import idp

from outrider import testing
from outrider_sidecar import users

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
