# SPDX-License-Identifier: Apache-2.0
"""N3: no call happens that an independent reading of the policies would deny, and none is denied that it would allow.

The reading (policy_reading) is written from the page, not from the code: plain dictionaries, no index, no compilation. It is asked
the same questions as compile, bind and decide, over thousands of random worlds, for workloads alone and with users behind them,
and lists are held against calls.
"""

from __future__ import annotations

import json
from typing import Any

import hypothesis
import pytest
from hypothesis import strategies as st
from tests.invariants import policy_reading, policy_worlds
from tests.invariants.policy_worlds import KINDS, NAMESPACES, PEOPLE, PROMPTS, RESOURCES, TOOLS

from outrider import bind, budgets, call, catalog, compile, decide, decision, identity, manifests, names  # noqa: A004 -- the module's name

WORDS = {
    "tools": (call.Kind.TOOL, call.Method.CALL),
    "prompts": (call.Kind.PROMPT, call.Method.GET),
    "resources": (call.Kind.RESOURCE, call.Method.READ),
}
LISTED = catalog.definitions(
    [json.dumps({"name": name, "inputSchema": {"type": "object"}}).encode() for name in TOOLS],
    prompts=[json.dumps({"name": name}).encode() for name in PROMPTS],
    resources=[json.dumps({"name": "x", "uri": name}).encode() for name in RESOURCES[::2]],
    templates=[
        json.dumps({"name": "x", "uriTemplate": name}).encode()
        for name in ("file:///pub/{name}", "db://{id}")
    ],
)
"""Every tool and prompt, every other resource: the rest can be read without being listed."""


OUTCOMES = {
    decision.Reason.NO_CREDENTIAL_FOR_CALLER: "uncredentialed", decision.Reason.USER_REQUIRED: "user",
    decision.Reason.SERVER_DISABLED: "disabled", decision.Reason.DENIED: "denied",
}  # fmt: skip
EVERYTHING = [(kind, name) for kind, (named, _) in KINDS.items() for name in named]


def person(said: dict[str, Any] | None) -> identity.User | None:
    """The same user as the verifier would make it."""
    if said is None:
        return None
    called = frozenset(filter(None, (said["id"], said.get("mail"))))
    return identity.User(
        id=said["id"], names=called, groups=frozenset(said["groups"]), client=said.get("client", "")
    )


def ours(
    bound: bind.Bound, server: tuple[str, str], kind: str, name: str, user: identity.User | None
) -> tuple[str, set[str]]:
    """The outcome as the reading calls it, and the budgets that count the call."""
    about, method = WORDS[kind]
    subject = call.Call(names.ServerId(*server), name, None, about, method, user)
    found = decide.decide(bound, subject, budgets.UNLIMITED, now=0.0)
    if isinstance(found, decision.Permit):
        lent = "allow" if found.credential is None else f"allow {found.credential.name}"
        return lent, {held.pool.limit.budget for held in found.reservations}
    assert isinstance(found, decision.Refusal)
    return (OUTCOMES[found.reason] if found.objection.visible else "hidden"), set()


def opened(documents: list[dict[str, Any]], namespace: str, account: str) -> tuple[Any, Any]:
    """The snapshot that compile makes, and the reading."""
    content = "\n---\n".join(json.dumps(document) for document in documents).encode()
    snapshot = compile.snapshot(manifests.load({"world.yaml": content}), namespace, account)
    return snapshot, policy_reading.Reading(documents, namespace, account)


@pytest.mark.slow
@hypothesis.settings(max_examples=1500, suppress_health_check=list(hypothesis.HealthCheck))
@hypothesis.given(
    documents=policy_worlds.worlds(), namespace=st.sampled_from(NAMESPACES),
    account=st.sampled_from(policy_worlds.ACCOUNTS), said=st.sampled_from(PEOPLE[1:]),
)  # fmt: skip
def test_decide_says_what_an_independent_reading_says(
    documents: list[dict[str, Any]], namespace: str, account: str, said: dict[str, Any]
) -> None:
    snapshot, reading = opened(documents, namespace, account)
    bound = bind.bound(snapshot, dict.fromkeys((view.id for view in snapshot.servers), LISTED))
    for asks in (None, said):
        _agree(bound, reading, asks)


def _agree(bound: bind.Bound, reading: policy_reading.Reading, said: dict[str, Any] | None) -> None:
    """On every name of every server and of one that is none, for one user or nobody."""
    user = person(said)
    for server in [*reading.servers, ("crm", "none")]:
        id_ = names.ServerId(*server)
        lists = {
            kind: {target.name for target in decide.listed(bound, id_, about, user)}
            for kind, (about, _) in WORDS.items()
        }
        for kind, name in EVERYTHING:
            place = (server, kind, name)
            expected = reading.verdict(server, kind, name, said)
            allowed = expected.startswith("allow")
            counted = reading.counted(server, kind, name, said) if allowed else set()
            assert ours(bound, server, kind, name, user) == (expected, counted), place
            seen = name in LISTED.names(WORDS[kind][0]) and reading.listed(server, kind, name, said)
            assert (name in lists[kind]) == seen, place
            # Lists against calls: what is listed gets no answer but these, and what gets them is listed.
            served = allowed or expected in ("user", "uncredentialed")
            if said is not None or expected != "denied":
                assert seen == (served and name in LISTED.names(WORDS[kind][0])), place


@pytest.mark.slow
@hypothesis.settings(max_examples=400, suppress_health_check=list(hypothesis.HealthCheck))
@hypothesis.given(documents=policy_worlds.worlds(), namespace=st.sampled_from(NAMESPACES))
def test_what_some_user_can_call_is_listed_for_nobody_in_particular(
    documents: list[dict[str, Any]], namespace: str
) -> None:
    snapshot, _ = opened(documents, namespace, "bot")
    bound = bind.bound(snapshot, dict.fromkeys((view.id for view in snapshot.servers), LISTED))
    for kind, _method in WORDS.values():
        nobody = {(target.server.id, target.name) for target in decide.listed(bound, kind=kind)}
        for said in PEOPLE:
            theirs = {(t.server.id, t.name) for t in decide.listed(bound, kind=kind, user=person(said))}
            assert theirs <= nobody


@pytest.mark.slow
@hypothesis.settings(max_examples=400, suppress_health_check=list(hypothesis.HealthCheck))
@hypothesis.given(
    documents=policy_worlds.worlds(), namespace=st.sampled_from(NAMESPACES), said=st.sampled_from(PEOPLE)
)
def test_no_server_is_hidden_of_which_something_could_be_used_and_no_template_of_which_something_could_be_read(
    documents: list[dict[str, Any]], namespace: str, said: dict[str, Any] | None
) -> None:
    snapshot, reading = opened(documents, namespace, "bot")
    for listed in (None, LISTED):
        bound = bind.bound(
            snapshot, {} if listed is None else dict.fromkeys((view.id for view in snapshot.servers), listed)
        )
        for server, held in bound.servers.items():
            verdicts = {place: reading.verdict(tuple(server), *place, said) for place in EVERYTHING}
            if any(verdict not in ("hidden", "denied") for verdict in verdicts.values()):
                assert held.in_sight, server
            if said is None and "denied" in verdicts.values():
                assert held.in_sight, server
            shown = {target.name for target in decide.templates(bound, server, person(said))}
            if listed is not None and verdicts["resources", "file:///pub/a"].startswith("allow"):
                assert "file:///pub/{name}" in shown
            if verdicts["resources", "db://7"].startswith("allow") and listed is not None:
                assert "db://{id}" in shown
