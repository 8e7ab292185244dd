# SPDX-License-Identifier: Apache-2.0
"""For whom news of a resource are, and how they are written; who hears what is in test_subscriptions and test_speaking."""

from __future__ import annotations

import json
import time

import pytest

from outrider import bind, call, names, testing
from outrider_sidecar import audience


@pytest.mark.parametrize(
    ("subscribed", "uri", "heard"),
    [
        ("file:///a", "file:///a", True),
        ("file:///a", "file:///a/b", True),
        ("file:///a", "file:///a#part", True),
        ("file:///a", "file:///a?q=1", True),
        ("file:///a/", "file:///a/b", True),
        ("file:///a", "file:///ab", False),
        ("file:///a", "file:///A", False),
        ("file:///a/b", "file:///a", False),
        ("file:///a", "", False),
    ],
)
def test_a_part_of_what_was_subscribed_to_is_heard_and_a_namesake_is_not(subscribed, uri, heard):
    assert audience.covers(subscribed, uri) is heard


def test_each_era_gets_its_own_form_and_the_params_as_they_came():
    params = {"uri": b'"a:b"', "n": b"1.50"}
    legacy = audience.notification("notifications/resources/updated", params)
    assert (
        legacy
        == b'{"jsonrpc":"2.0","method":"notifications/resources/updated","params":{"uri":"a:b","n":1.50}}'
    )
    for id_ in (7, "seven"):
        tagged = json.loads(audience.tagged("notifications/resources/updated", params, id_))
        assert tagged["params"]["_meta"] == {"io.modelcontextprotocol/subscriptionId": id_}
    assert audience.notification("notifications/tools/list_changed", {}) == (
        b'{"jsonrpc":"2.0","method":"notifications/tools/list_changed"}'
    )


def test_a_thousand_listeners_of_a_hundred_servers_are_arranged_in_no_time():
    servers = [testing.a_server(testing.allow(), server=names.ServerId("n", f"s{at}")) for at in range(100)]
    bound = bind.bound(testing.a_snapshot(*servers), {})
    held = audience.Audience.__new__(audience.Audience)
    held._wall = time.time
    everything = frozenset({call.Kind.TOOL, call.Kind.PROMPT})
    listeners = [audience.Listener(None, everything, lambda _m, _p: None) for _ in range(1_000)]
    began = time.perf_counter()
    wanted = held._wanted(bound, listeners)
    assert time.perf_counter() - began < 0.5
    assert len(wanted) == 100
    assert set(map(tuple, (kinds for kinds, _ in wanted.values()))) == {(call.Kind.TOOL,)}
