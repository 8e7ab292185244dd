# SPDX-License-Identifier: Apache-2.0
"""The configuration in force: swapped whole, and what has been observed of servers."""

from __future__ import annotations

import json

from outrider import bind, call, catalog, names, testing
from outrider_sidecar import current

A, B = names.ServerId("crm", "a"), names.ServerId("crm", "b")


def bound(definitions: dict[names.ServerId, catalog.Definitions], *servers: names.ServerId) -> bind.Bound:
    views = (testing.a_server(testing.allow(), server=server) for server in servers)
    return bind.bound(testing.a_snapshot(*views), definitions)


def test_a_list_that_arrives_is_in_the_next_decisions_and_not_in_one_under_way() -> None:
    held = current.Current(bound({}, A, B))
    before = held.bound
    held.observed(A, testing.tools("query"))
    assert before is not None
    assert held.bound is not None
    assert before.servers[A].targets is None
    assert [name for _, name in held.bound.servers[A].targets or ()] == ["query"]
    assert held.bound.servers[B].targets is None


def test_a_list_of_a_server_nobody_has_or_before_any_configuration_harms_nothing() -> None:
    held = current.Current()
    held.observed(A, testing.tools("query"))
    assert held.bound is None
    held.swap(bound({}, B))
    held.observed(A, testing.tools("query"))
    assert held.bound is not None
    assert set(held.bound.servers) == {B}


def test_a_swap_forgets_what_the_new_configuration_was_not_bound_with() -> None:
    """A server that moved must not get the old place's tools back with the configuration after the next."""
    held = current.Current(bound({}, A, B))
    for server in (A, B):
        held.observed(server, testing.tools("query"))
    held.swap(bound({B: held.definitions[B]}, A, B))
    assert set(held.definitions) == {B}
    held.swap(bound({}, A))
    assert held.definitions == {}


def part(kind: call.Kind, **found: catalog.Definition) -> catalog.Definitions:
    kept = {name: (definition,) for name, definition in found.items()}
    return catalog.Definitions(**kept, unobserved=frozenset(call.Kind) - {kind})


TOOLS = catalog.Definitions(
    testing.tools("query").tools, unobserved=frozenset({call.Kind.PROMPT, call.Kind.RESOURCE})
)
PROMPTS = part(call.Kind.PROMPT, prompts=catalog.Definition("greet", b'{"name":"greet"}', None))


def test_a_list_of_one_kind_joins_those_of_the_others() -> None:
    held = current.Current(bound({}, A))
    assert held.observed(A, TOOLS)
    assert held.observed(A, PROMPTS)
    assert held.bound is not None
    assert [server.observed(kind) for server in held.bound.servers.values() for kind in call.Kind] == [
        True,
        True,
        False,
    ]
    assert held.definitions[A].tools == TOOLS.tools


def test_a_list_that_says_what_is_known_already_changes_nothing() -> None:
    held = current.Current(bound({}, A))
    held.observed(A, TOOLS)
    held.observed(A, PROMPTS)
    before = held.bound
    assert not held.observed(A, TOOLS)
    assert not held.observed(A, PROMPTS)
    assert held.bound is before


def test_what_is_known_is_saved_as_it_came_without_kinds_that_nobody_has_asked_for() -> None:
    held = current.Current(bound({}, A, B))
    held.observed(A, TOOLS)
    held.observed(B, PROMPTS)
    assert json.loads(held.saved()) == {
        "crm/a": {"tools": [{"name": "query", "inputSchema": {"type": "object"}}]},
        "crm/b": {"prompts": [{"name": "greet"}]},
    }
