# SPDX-License-Identifier: Apache-2.0
"""One object of a cluster becomes the model a file would make, or problems that say where and what to do."""

from __future__ import annotations

import hypothesis
import hypothesis.strategies as st
import pytest
from tests import worlds

from outrider import manifests, resources

MADE_BY_THE_SERVER = {
    "creationTimestamp": "2026-01-01T00:00:00Z",
    "resourceVersion": "17",
    "managedFields": [{"manager": "kubectl"}],
    "labels": {f"l{index}": "x" for index in range(100)},
    "annotations": {"kubectl.kubernetes.io/last-applied-configuration": "x" * 10_000},
    "ownerReferences": [],
    "finalizers": ["x"],
}


def stored(made):
    """As the API server returns it."""
    metadata = {**made["metadata"], "uid": "1-2", **MADE_BY_THE_SERVER}
    return {**made, "metadata": metadata, "status": {"conditions": [{"type": "Ready", "anything": 1}]}}


def problems(raw):
    found = manifests.kubernetes_object(raw)
    assert isinstance(found, tuple), found
    assert found
    assert all((problem.file, problem.line) == ("", 0) for problem in found)
    return [str(problem) for problem in found]


@pytest.mark.parametrize(
    "made", [worlds.server(), worlds.policy(worlds.allow()), worlds.budget(worlds.CALLS)], ids=["server", "policy", "budget"]
)  # fmt: skip
def test_what_the_api_server_adds_is_not_looked_at(made) -> None:
    found = manifests.kubernetes_object(stored(made))
    assert isinstance(found, resources.KINDS[made["kind"]])
    assert (found.metadata.name, found.metadata.generation, found.metadata.uid) == (
        made["metadata"]["name"],
        7,
        "1-2",
    )
    assert found.metadata.labels is None


def test_an_object_equals_what_a_file_would_have_made() -> None:
    [placed] = worlds.world(worlds.policy(worlds.allow())).policies
    assert manifests.kubernetes_object(worlds.policy(worlds.allow())) == placed.resource


def test_every_problem_is_told_with_path_and_remedy() -> None:
    made = worlds.policy(
        {"name": "r", "effect": "Allow", "form": [{"anyone": True}], "tools": ["q"]}, mode="audit"
    )
    assert problems(made) == [
        "spec.mode: is not one of the allowed values. Allowed: Enforce, Audit",
        'spec.rules[0].form: unknown field; did you mean "from"? Allowed: effect, from, message, name, prompts, resources, tools',
    ]


@pytest.mark.parametrize(
    ("change", "path"),
    [
        ({"endpoint": {"command": ["/bin/sh"]}}, "spec.endpoint.command"),
        ({"credentials": [{"name": "c", "from": [{"anyone": True}], "file": {"path": "/x"}}]}, "spec.credentials[0].file"),
        (
            {"credentials": [{"name": "c", "from": [{"anyone": True}], "oauthClientCredentials": {
                "tokenUrl": "https://as.example/t", "clientId": "c", "clientSecret": {"file": {"path": "/x"}}}}]},
            "spec.credentials[0].oauthClientCredentials.clientSecret.file",
        ),
    ],
)  # fmt: skip
def test_what_is_for_a_laptop_is_refused_even_where_nothing_kept_it_out_of_the_cluster(change, path) -> None:
    assert problems(worlds.server(**change)) == [
        f"{path}: exists only in files that `outrider dev` reads; remove it"
    ]


def test_fields_of_a_laptop_are_not_offered_as_the_right_spelling() -> None:
    [found] = problems(worlds.server(endpoint={"url": "https://x/", "comand": ["x"]}))
    assert found.startswith("spec.endpoint.comand: unknown field. Allowed: ")
    assert "command" not in found


@pytest.mark.parametrize(
    ("raw", "words"),
    [
        (None, "is not an object"),
        ([], "is not an object"),
        ({}, "apiVersion: is none of ours. Allowed: outrider.dev/v1alpha1"),
        ({"apiVersion": "outrider.dev/v1", "kind": "MCPServer"}, "apiVersion: is none of ours"),
        ({"apiVersion": "outrider.dev/v1alpha1", "kind": "Settings"}, "kind: is none of ours. Allowed: MCPBudget, MCPServer"),
        ({"apiVersion": "outrider.dev/v1alpha1", "kind": ["MCPServer"]}, "kind: is none of ours"),
        ({"apiVersion": "outrider.dev/v1alpha1", "kind": "MCPServer"}, "metadata: required field is missing"),
        ({"apiVersion": "outrider.dev/v1alpha1", "kind": "MCPServer", "metadata": 1}, "metadata: must be an object"),
    ],
)  # fmt: skip
def test_what_is_not_ours_is_a_problem(raw, words) -> None:
    assert words in problems(raw)[0]


def test_what_is_not_json_is_a_problem_and_never_an_exception() -> None:
    circle: list = []
    circle.append(circle)
    for value in (circle, {1, 2}, {3: circle}, "\ud800", float("nan"), b"x"):
        assert problems(worlds.server(title=value))


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["name", "url", "from", "x"]), inner, max_size=3),
    max_leaves=8,
)  # fmt: skip


@hypothesis.given(
    st.fixed_dictionaries(
        {},
        optional={
            "apiVersion": st.just("outrider.dev/v1alpha1") | JSON,
            "kind": st.sampled_from([*resources.KINDS, "Pod"]) | JSON,
            "metadata": JSON,
            "spec": JSON | st.dictionaries(st.sampled_from(["rules", "endpoint", "limits", "tools"]), JSON),
        },
    )
    | JSON
)
def test_nothing_raises(raw) -> None:
    found = manifests.kubernetes_object(raw)
    assert found == () or bool(found)
    assert not isinstance(found, tuple) or all(problem.message for problem in found)
    assert found != ()


HEAD = "apiVersion: outrider.dev/v1alpha1\nkind: Settings\n"


def test_the_settings_of_a_cluster_are_those_of_a_file() -> None:
    found = manifests.settings(
        HEAD + "epoch: 3\nteamFromNamespaceLabel: true\nteams: [{name: a, namespaces: [b]}]\n"
    )
    assert isinstance(found, resources.Settings)
    assert (found.epoch, found.team_from_namespace_label, found.teams[0].name) == (3, True, "a")
    assert manifests.settings(HEAD.encode()) == resources.World().settings


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "settings.yaml: must hold one document of kind Settings and holds 0"),
        (HEAD + "---\n" + HEAD, "settings.yaml: must hold one document of kind Settings and holds 2"),
        ("kind: Settings\n", "settings.yaml:1: apiVersion: must be said. Allowed: outrider.dev/v1alpha1"),
        ("[]\n", "settings.yaml:1: apiVersion: must be said. Allowed: outrider.dev/v1alpha1"),
        (HEAD.replace("Settings", "MCPServer"), "settings.yaml:2: kind: must be said. Allowed: Settings"),
        (HEAD + "currency: usd\n", "settings.yaml:3: currency: must be a currency of three capital letters"),
        (HEAD + "curency: USD\n", 'settings.yaml:3: curency: unknown field; did you mean "currency"?'),
        (HEAD + "workload: {namespace: a, serviceAccount: b}\n",
         "settings.yaml:3: workload: exists only in files that `outrider dev` reads; remove it"),
        (HEAD + "a: b: c\n", "settings.yaml:3: malformed YAML"),
        (HEAD + "epoch: -1\n", "settings.yaml:3: epoch: must be a whole number from 0 to 2147483647"),
    ],
)  # fmt: skip
def test_settings_that_are_wrong_say_the_line_and_what_to_write(text, said) -> None:
    found = manifests.settings(text)
    assert isinstance(found, tuple)
    assert str(found[0]).startswith(said)


@hypothesis.given(st.text(max_size=80) | st.binary(max_size=80))
def test_no_text_of_settings_raises(text) -> None:
    found = manifests.settings(text)
    assert isinstance(found, resources.Settings) or found


@pytest.mark.parametrize(
    ("endpoints", "found"),
    [
        (None, ()),
        ([], ()),
        ([{"addresses": ["10.0.0.9"]}, {"addresses": ["10.0.0.10", "10.0.0.9"]}], ("10.0.0.9", "10.0.0.10")),
        ([{"addresses": ["10.0.0.7"], "conditions": {"ready": False}}], ("10.0.0.7",)),
        ([{"addresses": ["fd00:0::7", "::ffff:10.0.0.7"]}], ("10.0.0.7", "fd00::7")),
        ([{"addresses": ["api.example"]}, {"addresses": None}, {}], ()),
    ],
    ids=["nothing said", "nobody", "sorted once", "not ready", "one spelling", "no address"],
)
def test_endpoints_are_addresses_in_one_order_and_one_spelling_ready_or_not(endpoints, found):
    assert manifests.endpoint_addresses({"endpoints": endpoints}) == found
