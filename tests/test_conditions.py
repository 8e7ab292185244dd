# SPDX-License-Identifier: Apache-2.0
"""A status says what is known, in words a person can act on, and nothing that is not known."""

from __future__ import annotations

import dataclasses

import hypothesis
import hypothesis.strategies as st
import pytest
from tests.worlds import CALLS, allow, budget, policy, server, world

from outrider import findings, manifests
from outrider_operator import conditions, lendings, observations

NOW, LATER = 1_000_000.0, 1_000_100.0
POLICY = world(policy(allow())).policies[0].resource
BUDGET = world(budget(CALLS)).budgets[0].resource
SERVER = world(server()).servers[0].resource
ALL = conditions.Fleet(pods=12, programmed=12)
FACTS = conditions.Facts("MCPToolPolicy", 4, POLICY, fleet=ALL, targets=2)
SEEN = observations.Observation(
    reachable=True, tools=(("b", "sha256:2"), ("a", "sha256:1")), protocol_versions=("2025-11-25",),
    server_info={"name": "sf", "version": "1.9"}, seen_at=NOW,
)  # fmt: skip
OF_SERVER = conditions.Facts("MCPServer", 2, SERVER, fleet=ALL, observation=SEEN)


LENDING = (
    world(server(credentials=[{"name": "token", "from": [{"anyone": True}], "file": {"path": "/secret"}}]))
    .servers[0]
    .resource
)
OF_LENDER = dataclasses.replace(OF_SERVER, made=LENDING)


def status(facts, previous=None, now=NOW):
    return conditions.status(facts, previous or {}, now=now, timestamp=lambda at: f"t{at:.0f}")


def said(facts, previous=None, now=NOW):
    return {each["type"]: each for each in status(facts, previous, now)["conditions"]}


def short(facts, kind, previous=None, now=NOW):
    found = said(facts, previous, now)[kind]
    return found["status"], found["reason"], found["message"]


def finding(reason, path="spec.rules[0]", message="no tool matches", severity=findings.Severity.WARNING):
    return findings.Finding(severity, reason, "MCPToolPolicy", "crm", "p", path, message, "Correct it.")


def test_when_everything_is_in_order_it_is_ready_and_says_how_many_enforce_it() -> None:
    made = status(FACTS)
    assert [each["type"] for each in made["conditions"]] == [
        "Accepted", "Enforceable", "Programmed", "Ready", "ResolvedRefs",
    ]  # fmt: skip
    assert all(each["status"] == "True" and each["observedGeneration"] == 4 for each in made["conditions"])
    assert short(FACTS, "Programmed") == ("True", "Programmed", "12/12 sidecars enforce generation 4.")
    assert (made["observedGeneration"], made["programmed"], made["targets"], made["rules"]) == (
        4,
        "12/12",
        2,
        1,
    )
    of_budget = status(conditions.Facts("MCPBudget", 1, BUDGET, fleet=ALL, targets=1))
    assert (of_budget["limits"], "targets" in of_budget) == (1, False)


def test_the_first_status_is_unknown_until_somebody_was_counted() -> None:
    first = dataclasses.replace(FACTS, fleet=None)
    assert short(first, "Ready")[:2] == ("Unknown", "Pending")
    assert "programmed" not in status(first)


def test_a_time_moves_only_when_the_status_flips() -> None:
    before = status(FACTS)
    lagging = dataclasses.replace(FACTS, fleet=conditions.Fleet(12, 11, lagging=("a/x",)))
    between = status(lagging, before, now=LATER)
    after = said(
        dataclasses.replace(lagging, fleet=conditions.Fleet(12, 10, lagging=("a/x", "a/y"))),
        between,
        now=LATER + 1,
    )
    assert {each["lastTransitionTime"] for each in before["conditions"]} == {"t1000000"}
    assert after["Accepted"]["lastTransitionTime"] == "t1000000"
    assert after["Programmed"]["lastTransitionTime"] == "t1000100"
    assert status(FACTS, before, now=LATER) == before


PROBLEM = manifests.Problem(
    "", 0, "spec.rules[0].fro", 'unknown field; did you mean "from"?', ("from", "tools")
)


def test_an_object_that_is_not_accepted_says_what_is_wrong_and_what_is_in_force() -> None:
    bad = dataclasses.replace(FACTS, problems=(PROBLEM,), instead="Generation 3 stays in force.")
    text = 'Generation 3 stays in force. spec.rules[0].fro: unknown field; did you mean "from"? Allowed: from, tools.'
    assert short(bad, "Accepted") == ("False", "UnknownField", text)
    assert short(bad, "Stalled")[:2] == ("True", "UnknownField")
    assert short(bad, "Ready") == ("False", "UnknownField", text)
    assert short(bad, "Programmed") == ("False", "NotAccepted", "Generation 3 stays in force.")
    assert short(bad, "ResolvedRefs")[0] == short(bad, "Enforceable")[0] == "Unknown"
    other = manifests.Problem("", 0, "spec.rules", "has too few entries: at least 1")
    mixed = dataclasses.replace(bad, problems=(PROBLEM, other))
    assert short(mixed, "Accepted")[1] == "Invalid"
    assert "Stalled" not in said(FACTS)


@pytest.mark.parametrize(
    ("fleet", "expected"),
    [
        (conditions.Fleet(), ("True", "NoSidecars", "No running pod with a sidecar is concerned.")),
        (
            conditions.Fleet(14, 12, unreachable=("a/x", "a/y")),
            ("False", "SidecarsUnreachable", "12/14: 2 unreachable (a/x, a/y)."),
        ),
        (
            conditions.Fleet(3, 2, refusals=(("a/x", "$.servers[0].url: not a URL."),)),
            ("False", "Rejected", "2/3: a/x rejected it: $.servers[0].url: not a URL."),
        ),
        (
            conditions.Fleet(2, 1, too_old=("a/x",)),
            ("False", "SidecarTooOld", "1/2: 1 too old to express it, denying instead (a/x)."),
        ),
        (
            conditions.Fleet(9, 1, lagging=tuple(f"a/p{n}" for n in range(8))),
            ("False", "Pending", "1/9: 8 not yet acknowledged (a/p0, a/p1, a/p2, a/p3, a/p4 and 3 more)."),
        ),
        (
            conditions.Fleet(4, 1, refusals=(("a/x", "no"),), unreachable=("a/y",), lagging=("a/z",)),
            ("False", "Rejected", "1/4: a/x rejected it: no; 1 unreachable (a/y); 1 not yet acknowledged (a/z)."),
        ),
    ],
)  # fmt: skip
def test_programmed_counts_running_pods_and_names_those_that_do_not_hold_it(fleet, expected) -> None:
    facts = dataclasses.replace(FACTS, fleet=fleet)
    assert short(facts, "Programmed") == expected
    assert short(facts, "Ready")[0] == expected[0]


def test_a_new_leader_repeats_what_was_said_until_every_replica_has_reported() -> None:
    partial = dataclasses.replace(FACTS, fleet=conditions.Fleet(12, 3, unreachable=("a/x",), settling=True))
    before = status(FACTS)
    assert status(partial, before) == before
    assert short(partial, "Programmed")[:2] == ("Unknown", "Pending")
    newer = dataclasses.replace(partial, generation=5)
    assert short(newer, "Programmed", before)[:2] == ("Unknown", "Pending")


def test_a_frozen_kind_is_not_called_programmed() -> None:
    frozen = dataclasses.replace(FACTS, frozen="The list of MCPToolPolicy went back.")
    assert short(frozen, "Programmed") == (
        "Unknown", "Frozen", "The list of MCPToolPolicy went back. 12/12 sidecars hold it as it was then.",
    )  # fmt: skip
    assert short(frozen, "Ready")[:2] == ("Unknown", "Frozen")


def test_findings_about_references_and_about_effect_are_two_conditions() -> None:
    lost = finding(
        findings.Reason.TARGET_NOT_FOUND,
        "spec.targetRefs[0]",
        "there is no MCPServer crm/z",
        findings.Severity.ERROR,
    )
    idle = finding(findings.Reason.SHADOWED)
    facts = dataclasses.replace(FACTS, found=(lost, idle))
    assert short(facts, "ResolvedRefs") == (
        "False", "TargetNotFound", "spec.targetRefs[0]: there is no MCPServer crm/z. Correct it.",
    )  # fmt: skip
    assert short(facts, "Enforceable") == ("False", "Shadowed", "spec.rules[0]: no tool matches. Correct it.")
    assert short(facts, "Ready")[:2] == ("False", "TargetNotFound")
    assert short(dataclasses.replace(FACTS, found=(idle,)), "Ready")[0] == "True"


def test_a_message_holds_as_many_findings_as_it_can_and_counts_the_others() -> None:
    many = tuple(finding(findings.Reason.UNKNOWN_TOOL, f"spec.rules[{n}]", "x" * 90) for n in range(64))
    text = short(dataclasses.replace(FACTS, found=many), "Enforceable")[2]
    assert len(text) <= conditions.MESSAGE_CHARACTERS_MAX
    assert text.endswith("more.")
    assert "spec.rules[0]: " in text
    one = finding(findings.Reason.UNKNOWN_TOOL, message="y" * 5_000)
    assert (
        len(short(dataclasses.replace(FACTS, found=(one,)), "Enforceable")[2])
        == conditions.MESSAGE_CHARACTERS_MAX
    )


def test_a_server_that_answered_has_its_catalogue_in_status() -> None:
    made = status(OF_SERVER)
    assert made["tools"] == [
        {"name": "a", "fingerprint": "sha256:1"},
        {"name": "b", "fingerprint": "sha256:2"},
    ]
    assert (made["toolCount"], made["serverInfo"]) == (2, {"name": "sf", "version": "1.9"})
    assert made["protocolVersions"] == ["2025-11-25"]
    assert short(OF_SERVER, "Reachable")[:2] == ("True", "Reachable")
    assert short(OF_SERVER, "ToolsDiscovered") == ("True", "Discovered", "2 tools listed.")
    crowd = dataclasses.replace(SEEN, tools=tuple((f"t{n:04}", "sha256:0") for n in range(600)))
    many = status(dataclasses.replace(OF_SERVER, observation=crowd))
    assert (many["toolCount"], len(many["tools"])) == (600, 500)


def test_a_server_that_went_away_keeps_its_tools_and_is_not_reachable() -> None:
    away = observations.Observation(reachable=False, message="connection refused", seen_at=LATER)
    gone = dataclasses.replace(OF_SERVER, observation=away)
    before = status(OF_SERVER)
    after = status(gone, before, LATER)
    assert (after["tools"], after["serverInfo"]) == (before["tools"], before["serverInfo"])
    assert said(gone, before, LATER)["Reachable"]["lastTransitionTime"] == "t1000100"
    assert short(gone, "Reachable", before, LATER) == ("False", "Unreachable", "connection refused")
    assert short(gone, "ToolsDiscovered", before, LATER) == (
        "True", "Discovered", "2 tools, as listed before it became unreachable.",
    )  # fmt: skip
    assert short(gone, "ToolsDiscovered", {}, LATER) == ("False", "NotDiscovered", "connection refused")


def test_what_was_known_of_a_server_before_a_restart_is_carried_over() -> None:
    unseen = dataclasses.replace(OF_SERVER, observation=None)
    before = status(OF_SERVER)
    assert status(unseen, before, LATER) == before
    assert short(unseen, "Reachable") == ("Unknown", "NotProbed", "Nothing has tried to reach it yet.")
    assert short(unseen, "ToolsDiscovered")[:2] == ("Unknown", "NotProbed")
    # Another generation may be another address.
    assert short(dataclasses.replace(unseen, generation=3), "Reachable", before)[:2] == (
        "Unknown",
        "NotProbed",
    )


def test_what_nobody_looked_at_for_long_is_said_to_be_old() -> None:
    found = short(OF_SERVER, "Reachable", status(OF_SERVER), NOW + 601)
    assert found == (
        "Unknown",
        "Stale",
        "Nothing has tried to reach it since t1000000; is the prober running?",
    )


def test_sidecars_that_are_shown_other_definitions_are_named() -> None:
    differing = dataclasses.replace(SEEN, differing=(("a/x", "query has another description"),))
    assert short(dataclasses.replace(OF_SERVER, observation=differing), "ToolsDiscovered") == (
        "True", "Differing", "2 tools. a/x is shown other definitions: query has another description.",
    )  # fmt: skip


def test_a_server_that_lists_nothing_is_not_called_undiscovered() -> None:
    empty = dataclasses.replace(SEEN, tools=())
    assert short(dataclasses.replace(OF_SERVER, observation=empty), "ToolsDiscovered") == (
        "True",
        "NoTools",
        "0 tools listed.",
    )


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["conditions", "type", "status", "tools", "toolCount", "x"]), inner, max_size=3
        )
    ),
    max_leaves=8,
)


@hypothesis.given(
    st.dictionaries(st.sampled_from(["conditions", "tools", "toolCount", "programmed"]), json_values),
    st.sampled_from([FACTS, OF_SERVER, OF_LENDER, dataclasses.replace(OF_SERVER, observation=None)]),
)
def test_whatever_an_earlier_status_holds_the_next_is_whole_and_then_stays(previous, facts) -> None:
    made = status(facts, previous)
    for each in made["conditions"]:
        assert all(
            isinstance(each[name], str) and each[name]
            for name in ("type", "status", "reason", "lastTransitionTime")
        )
        assert each["status"] in ("True", "False", "Unknown")
    assert status(facts, made, LATER) == made


def test_prompts_resources_and_instructions_stand_in_the_status_until_the_server_has_them_no_more() -> None:
    seen = dataclasses.replace(
        SEEN, prompts=(("greet", "sha256:3"),), prompt_count=7, instructions="sha256:4",
        resources="sha256:5", resource_count=3, template_count=1,
    )  # fmt: skip
    before = status(dataclasses.replace(OF_SERVER, observation=seen))
    assert before["promptCount"] == 7
    assert before["prompts"] == [{"name": "greet", "fingerprint": "sha256:3"}]
    assert before["instructionsFingerprint"] == "sha256:4"
    assert (before["resourceCount"], before["resourceTemplateCount"]) == (3, 1)
    assert before["resourcesFingerprint"] == "sha256:5"
    untold = status(OF_SERVER, before)
    assert untold["prompts"] == before["prompts"]
    none = dataclasses.replace(SEEN, prompts=())
    without = status(dataclasses.replace(OF_SERVER, observation=none), before)
    assert not set(conditions._BESIDES_TOOLS) & set(without)
    assert without["tools"] == before["tools"]


def lent(*standings, **more):
    return short(dataclasses.replace(OF_LENDER, lent=standings, **more), "CredentialsReady")


def test_a_server_that_lends_nothing_has_nothing_that_can_fail() -> None:
    assert short(OF_SERVER, "CredentialsReady") == ("True", "NoCredentials", "It lends none.")
    free = (
        world(server(credentials=[{"name": "free", "from": [{"anyone": True}], "none": True}]))
        .servers[0]
        .resource
    )
    assert short(dataclasses.replace(OF_SERVER, made=free), "CredentialsReady")[:2] == (
        "True",
        "NoCredentials",
    )


def test_credentials_are_ready_when_a_proxy_has_them_and_nobody_complains() -> None:
    assert lent() == ("Unknown", "NotLent", "No proxy has needed its credentials yet.")
    ready = lendings.Standing("token", ready=True)
    assert lent(ready) == ("True", "CredentialsReady", "The proxies that need its credentials have them.")


def test_a_credential_that_cannot_be_lent_is_said_with_one_pod_and_why_and_ready_stays_as_it_is() -> None:
    failing = lendings.Standing(
        "token", 3, ready=True, pod="a/b", reason="CredentialUnavailable", why="Vault is sealed; unseal it"
    )
    assert lent(failing) == (
        "False",
        "CredentialsFailing",
        "token cannot be lent by 3 proxies, such as a/b: CredentialUnavailable: Vault is sealed; unseal it.",
    )
    assert short(dataclasses.replace(OF_LENDER, lent=(failing,)), "Ready")[0] == "True"


def test_a_credential_that_is_lent_still_says_until_when() -> None:
    expiring = lendings.Standing("token", expiring=1, ready=True, pod="a/b", why="no route", expires_at=LATER)
    assert lent(expiring) == (
        "True",
        "CredentialsExpiring",
        f"token is lent until t{LATER:.0f} and could not be renewed by 1 proxy (a/b): no route.",
    )


def test_what_is_said_of_a_credential_that_the_server_no_longer_lists_is_of_no_concern() -> None:
    assert lent(lendings.Standing("older", failing=1, pod="a/b"))[1] == "NotLent"


def test_a_replica_that_has_heard_nothing_yet_repeats_what_was_said_while_there_are_proxies() -> None:
    failing = lendings.Standing("token", failing=1, pod="a/b", why="sealed")
    before = status(dataclasses.replace(OF_LENDER, lent=(failing,)))
    assert short(OF_LENDER, "CredentialsReady", before)[1] == "CredentialsFailing"
    alone = dataclasses.replace(OF_LENDER, fleet=conditions.Fleet())
    assert short(alone, "CredentialsReady", before)[1] == "NotLent"
    newer = dataclasses.replace(OF_LENDER, generation=3)
    assert short(newer, "CredentialsReady", before)[1] == "NotLent"
