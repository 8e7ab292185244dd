# SPDX-License-Identifier: Apache-2.0
"""The way of one call to one server: ids of its own, the agent's progress and nobody else's, and doubts about the era."""

from __future__ import annotations

import json
from typing import Any

import pytest
from tests import asking

from outrider import snapshot
from outrider_sidecar import asked, introductions, jsonrpc, legs

MODERN, LEGACY = "2026-07-28", "2025-11-25"


def subject(token: Any = None) -> asked.Asked:
    meta = {} if token is None else {"progressToken": token}
    return asking.subject(params={"name": "query", "arguments": {"a": 1}, "_meta": meta})


def a_leg(session: bytes | None = None, *, modern: bool = False) -> legs.Leg:
    server = legs.Server(snapshot.Endpoint(url="http://127.0.0.1:9/mcp"))
    server.found(modern, speaks=True)
    return legs.Leg(server, None if modern else legs.Session("k", session, LEGACY), server.mint())


def note(params: Any, method: str = "notifications/progress") -> jsonrpc.Answer:
    return jsonrpc.answer(json.dumps({"jsonrpc": "2.0", "method": method, "params": params}).encode())


def test_every_request_to_a_server_has_an_id_of_its_own() -> None:
    server = legs.Server(snapshot.Endpoint(url="http://127.0.0.1:9/mcp"))
    assert len({server.mint() for _ in range(1000)}) == 1000


@pytest.mark.parametrize("token", [None, 5, "5"])
def test_a_call_in_the_stateless_era_says_all_there_is_to_say(token: Any) -> None:
    leg = a_leg(modern=True)
    headers, body = leg.request(asking.permit(subject(token)), subject(token))
    assert dict(headers)[b"mcp-name"] == b"query"
    assert b"mcp-session-id" not in dict(headers)
    sent = json.loads(body)
    assert (sent["id"], sent["params"]["name"], sent["params"]["arguments"]) == (
        leg.call_id,
        "query",
        {"a": 1},
    )
    assert sent["params"]["_meta"].get("progressToken") == (None if token is None else leg.call_id)


@pytest.mark.parametrize("session", [b"s1", None])
@pytest.mark.parametrize("token", [None, 5, "5"])
def test_a_call_in_the_handshake_era_names_its_session_if_there_is_one(
    session: bytes | None, token: Any
) -> None:
    leg = a_leg(session)
    headers, body = leg.request(asking.permit(subject(token)), subject(token))
    assert dict(headers).get(b"mcp-session-id") == session
    assert dict(headers)[b"mcp-protocol-version"] == LEGACY.encode()
    sent = json.loads(body)
    assert sent["id"] == leg.call_id
    assert sent["params"].get("_meta", {}).get("progressToken") == (None if token is None else leg.call_id)


@pytest.mark.parametrize("token", [7, "7", "", 0])
def test_progress_of_this_call_goes_to_the_agent_under_its_token_as_it_came(token: Any) -> None:
    leg = a_leg(modern=True)
    told = leg.progress(note({"progress": 1.5, "progressToken": leg.call_id, "x": [1]}), subject(token))
    assert told is not None
    assert json.loads(told)["params"] == {"progress": 1.5, "progressToken": token, "x": [1]}
    assert "id" not in json.loads(told)


@pytest.mark.parametrize(
    "message",
    [
        note({"progress": 1, "progressToken": 99}), note({"progress": 1, "progressToken": "1"}), note({"progress": 1}),
        note({"progress": 1, "progressToken": 1.0}), note({"progress": 1, "progressToken": True}), note([1]), note("x"),
        note({"progressToken": 1}, "notifications/message"), note({"progressToken": 1}, "notifications/cancelled"),
    ],
    ids=range(9),
)  # fmt: skip
def test_anything_else_is_nobodys_progress(message: jsonrpc.Answer) -> None:
    leg = a_leg(modern=True)
    assert leg.call_id == 1
    assert leg.progress(message, subject("mine")) is None


def test_an_agent_that_asked_for_none_gets_none() -> None:
    leg = a_leg(modern=True)
    assert leg.progress(note({"progress": 1, "progressToken": leg.call_id}), subject()) is None


@pytest.mark.parametrize(
    ("session", "status", "id_", "expired"),
    [
        (b"s", 404, None, True), (b"s", 404, 99, True), (b"s", 404, 1, False), (b"s", 400, None, False), (b"s", 200, None, False),
        (b"s", None, None, False), (None, 404, None, False),
    ],
)  # fmt: skip
def test_only_a_404_that_answers_nothing_says_that_a_session_is_unknown(
    session: bytes | None, status: int | None, id_: int | None, expired: bool
) -> None:
    answer = None if id_ is None else jsonrpc.answer(b'{"id":%d,"error":{}}' % id_)
    assert a_leg(session).expired(status, answer) is expired
    assert not a_leg(modern=True).expired(status, answer)


@pytest.mark.parametrize(
    ("status", "doubted"),
    [(400, True), (404, True), (405, True), (415, True), (200, False), (401, False), (429, False), (503, False), (None, False)],
)  # fmt: skip
def test_a_stateless_call_that_gets_the_other_eras_status_makes_us_ask_again(
    status: int | None, doubted: bool
) -> None:
    leg = a_leg(modern=True)
    leg.doubt(status, None)
    assert leg.server.speaks_modern is (None if doubted else True)
    answered = a_leg(modern=True)
    answered.doubt(status, jsonrpc.answer(b'{"id":1,"error":{"code":-32602,"message":"m"}}'))
    assert answered.server.speaks_modern is True
    stateful = a_leg(b"s")
    stateful.server.sessions["k"] = stateful.session
    stateful.doubt(status, None)
    assert (stateful.server.speaks_legacy, list(stateful.server.sessions)) == (True, ["k"])


@pytest.mark.parametrize("modern", [True, False])
def test_a_server_that_does_not_speak_the_version_is_met_again_whatever_it_held(modern: bool) -> None:
    leg = a_leg(b"s", modern=modern)
    if leg.session is not None:
        leg.server.sessions["k"] = leg.session
    leg.doubt(400, jsonrpc.answer(b'{"id":1,"error":{"code":-32022,"message":"m"}}'))
    assert (leg.server.speaks(True), leg.server.speaks(False), list(leg.server.sessions)) == (None, None, [])


def test_a_404_that_says_session_not_found_says_so_under_any_id() -> None:
    leg = a_leg(b"s")
    told = jsonrpc.answer(b'{"id":%d,"error":{"code":-32001,"message":"Session not found"}}' % leg.call_id)
    assert leg.expired(404, told)
    assert not leg.expired(200, told)


@pytest.mark.parametrize(
    ("modern", "legacy", "client", "era"),
    [
        (True, True, True, True), (True, True, False, False), (True, None, True, True), (True, None, False, None),
        (None, True, True, None), (None, True, False, False), (True, False, False, True), (False, True, True, False),
        (None, None, True, None), (False, None, True, None),
    ],
)  # fmt: skip
def test_a_server_is_met_in_the_era_of_its_client_whenever_it_speaks_it(
    modern: bool | None, legacy: bool | None, client: bool, era: bool | None
) -> None:
    """True: in the stateless era; None: nobody knows yet."""
    server = legs.Server(snapshot.Endpoint(url="http://127.0.0.1:9/mcp"))
    server.speaks_modern, server.speaks_legacy = modern, legacy
    assert server.era(client) is era


@pytest.mark.parametrize(("protocol", "modern", "legacy"), [("Auto", None, None), (MODERN, None, False), (LEGACY, False, None)])  # fmt: skip
def test_an_entry_that_fixes_the_revision_leaves_one_era_to_find_out(
    protocol: str, modern: bool | None, legacy: bool | None
) -> None:
    server = legs.Server(snapshot.Endpoint(url="http://127.0.0.1:9/mcp", protocol=protocol))
    assert (server.speaks_modern, server.speaks_legacy) == (modern, legacy)


def test_what_a_server_says_in_one_era_leaves_alone_what_it_said_in_the_other() -> None:
    server = legs.Server(snapshot.Endpoint(url="http://127.0.0.1:9/mcp"))
    assert server.introduced(modern=True).capabilities is None
    stateless, greeted, newer = (
        introductions.Introduction(name) for name in ("stateless", "greeted", "newer")
    )
    server.found(True, speaks=True, introduction=stateless)
    assert server.introduced(modern=False) is stateless  # not met in that era yet
    server.found(False, speaks=True, introduction=greeted)
    assert (server.introduced(modern=True), server.introduced(modern=False)) == (stateless, greeted)
    server.found(True, speaks=True, introduction=newer)
    assert (server.introduced(modern=True), server.introduced(modern=False)) == (newer, greeted)
    server.found(False, speaks=False)
    assert server.introduced(modern=False) is newer
