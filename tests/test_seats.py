# SPDX-License-Identifier: Apache-2.0
"""What an agent's seat hears, and from when on; more of it is in test_speaking."""

from __future__ import annotations

import json

import pytest
from tests import hearing_agents as hearing
from tests.test_speaking import opened, session_of, streams_of

from outrider import audit
from outrider_sidecar import conventions, jsonrpc, seats, speaking


def message(level):
    params = {"level": level, "data": "x"}
    return jsonrpc.answer(
        json.dumps({"jsonrpc": "2.0", "method": "notifications/message", "params": params}).encode()
    )


@pytest.mark.parametrize("level", conventions.LOG_LEVELS)
def test_a_level_lets_through_what_is_as_severe_and_nothing_less(level):
    at = conventions.LOG_LEVELS.index(level)
    heard = [each for each in conventions.LOG_LEVELS if seats.loud_enough(message(each), level)]
    assert heard == list(conventions.LOG_LEVELS[at:])


@pytest.mark.parametrize("odd", ["loud", None, 3, {}])
def test_a_level_nobody_knows_is_never_loud_enough_for_one_that_was_asked_for(odd):
    assert not seats.loud_enough(message(odd), "debug")
    assert seats.loud_enough(message(odd), None)


def test_a_session_is_listened_to_before_the_first_request_goes_through_it():
    stage = hearing.a_stage("legacy")

    async def scenario(world):
        session, stream = await opened(world)
        await world.call("t", modern=False, session=session)
        own = session_of(stage, 1)
        mine = [each for each in stage.heard if each.headers.get("mcp-session-id") == own]
        verbs = [each.method or each.verb for each in mine]
        assert verbs.index("GET") < verbs.index("tools/call")
        assert stream.status == 200

    hearing.run(scenario, stage)


def test_a_server_that_opens_no_stream_delays_the_first_request_a_little_only(monkeypatch):
    monkeypatch.setattr(speaking, "LIVE_SECONDS", 0.1)
    stage = hearing.a_stage("legacy")

    async def act(line, heard):
        if heard.verb == "GET":
            await line.until_gone()
            raise ConnectionResetError
        return False

    stage.act = act

    async def scenario(world):
        session, stream = await opened(world)
        assert (await world.call("t", modern=False, session=session)).reason is None
        assert stream.status == 200

    hearing.run(scenario, stage)


def test_what_a_server_asks_on_its_own_stream_is_recorded_as_about_the_server_and_no_tool():
    stage = hearing.a_stage("legacy")

    async def scenario(world):
        session, _ = await opened(world)
        await world.call("t", modern=False, session=session)
        await stage.until(lambda: streams_of(stage) == 2)
        (line,) = stage.sessions[session_of(stage, 1)]
        for id_, method in (("r", "roots/list"), ("s", "sampling/createMessage")):
            await line.event({"jsonrpc": "2.0", "id": id_, "method": method, "params": {}})
            await stage.until(lambda id_=id_: [each for each in stage.heard if each.id == id_])
        called, asked = world.intents
        (refused,) = world.refusals
        assert (called.method, called.tool) == ("tools/call", "t")
        for record, method in ((asked, "roots/list"), (refused, "sampling/createMessage")):
            assert (record.server, record.method, record.tool) == ("crm/api", method, "")
            assert record.request_id != called.request_id
        assert isinstance(asked, audit.Intent)
        assert (asked.rules, refused.rule) == ((), None)

    hearing.run(scenario, stage)
