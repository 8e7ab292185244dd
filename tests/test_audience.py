# SPDX-License-Identifier: Apache-2.0
"""For whom news of a resource are, and how they are written; who hears what is in test_subscriptions and test_speaking."""

from __future__ import annotations

import dataclasses
import json
import time

import pytest

from outrider import bind, budgets, call, decide, identity, names, rules, snapshot, testing
from outrider_sidecar import audience, current


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


def test_who_may_hear_of_a_resource_is_exact_and_not_what_some_user_could():
    sales = (rules.UserTest(groups=("okta:sales",)),)
    alice = identity.User(
        id="okta:alice", names=frozenset(), groups=frozenset({"okta:sales"}), expires_at=1e12
    )
    late = dataclasses.replace(alice, expires_at=1.0)
    bob = dataclasses.replace(alice, id="okta:bob", groups=frozenset())
    everything, files = {"resources": ("file:///*",)}, ("file:///a",)

    def may(user, *chosen, **view):
        held = audience.Audience.__new__(audience.Audience)
        held._wall = time.time
        server = testing.a_server(*chosen, **view)
        held._current = current.Current(bind.bound(testing.a_snapshot(server), {}))
        return held.may_hear(server.id, "file:///a", user)

    for_all, for_sales = testing.allow(**everything), testing.allow(**everything, callers=sales)
    assert [may(user, for_all) for user in (alice, bob, late, None)] == [True] * 4
    assert [may(user, for_sales) for user in (alice, bob, late, None)] == [True, False, False, False]
    for more in ({}, {"message": "no"}):
        deny = testing.deny(resources=files, callers=sales, **more)
        assert [may(user, for_all, deny) for user in (alice, bob, late, None)] == [False, True, False, False]
    assert [may(user, for_all, require_user=True) for user in (alice, late, None)] == [True, False, False]


def test_where_a_resource_is_heard_is_ones_own_only_with_a_credential_of_ones_own():
    alice = identity.User(id="okta:alice", names=frozenset())
    exchange = snapshot.TokenExchange(
        token_url="https://as.example/token", client=snapshot.OAuthClient(id="x")
    )
    shared = snapshot.FileSecret(path="/a")
    for source, whose in ((exchange, "okta:alice"), (shared, "")):
        entry = snapshot.Credential(name="c", tools=("*",), source=source)
        view = testing.a_server(
            testing.allow(resources=("*",)), credentials=(entry,), credential_required=True
        )
        bound = bind.bound(testing.a_snapshot(view), {})
        subject = call.Call(view.id, "file:///a", None, call.Kind.RESOURCE, call.Method.SUBSCRIBE, alice)
        permit = decide.decide(bound, subject, budgets.UNLIMITED, now=0.0)
        assert audience.origin_of(permit) == (view.id, "c", whose)
