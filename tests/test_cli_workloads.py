# SPDX-License-Identifier: Apache-2.0
"""Objects in files: every document comes out as it went in, with the pods found wherever a kind keeps them."""

from __future__ import annotations

import json
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as some

from outrider_cli import workloads

POD: dict[str, Any] = {"metadata": {"labels": {}}, "spec": {"containers": []}}


def kind(name: str, api: str, spec: Any) -> dict[str, Any]:
    return {"apiVersion": api, "kind": name, "metadata": {"name": "x", "namespace": "team"}, "spec": spec}


@pytest.mark.parametrize(
    ("document", "path"),
    [
        *((kind(each, "apps/v1", {"template": POD}), ("spec", "template"))
          for each in ("Deployment", "StatefulSet", "DaemonSet", "ReplicaSet")),
        (kind("Job", "batch/v1", {"template": POD}), ("spec", "template")),
        (kind("ReplicationController", "v1", {"template": POD}), ("spec", "template")),
        (
            kind("CronJob", "batch/v1", {"jobTemplate": {"spec": {"template": POD}}}),
            ("spec", "jobTemplate", "spec", "template"),
        ),
        ({"apiVersion": "v1", "kind": "PodTemplate", "metadata": {"name": "x", "namespace": "team"}, "template": POD}, ("template",)),
    ],
)  # fmt: skip
def test_a_pod_is_found_where_its_kind_keeps_it_and_put_back_there(
    document: dict[str, Any], path: tuple[str, ...]
) -> None:
    [found] = workloads.pods(document)
    assert (found.label, found.path, found.pod) == (f"{document['kind']} team/x", path, POD)
    made = workloads.replaced(document, path, {"new": True})
    [again] = workloads.pods(made)
    assert again.pod == {"new": True}
    assert [each.pod for each in workloads.pods(document)] == [POD], "what was given stays"


def test_a_pod_is_its_own_and_a_list_holds_each_of_its_own() -> None:
    pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"generateName": "agent-"}, "spec": {}}
    other = {"apiVersion": "v1", "kind": "ConfigMap"}
    listed = {
        "apiVersion": "v1",
        "kind": "List",
        "items": [other, pod, kind("Job", "batch/v1", {"template": POD})],
    }
    first, second = workloads.pods(listed)
    assert (first.label, first.path) == ("Pod agent-", ("items", "1"))
    assert second.path == ("items", "2", "spec", "template")
    made = workloads.replaced(listed, first.path, {"new": True})
    assert [made["items"][0], made["items"][1]] == [other, {"new": True}]
    assert workloads.replaced(pod, (), {"new": True}) == {"new": True}


@pytest.mark.parametrize(
    "document",
    [
        None, [], "text", {}, {"kind": ["Pod"]}, {"kind": "Pod"}, {"apiVersion": "example.com/v1", "kind": "Deployment"},
        kind("Deployment", "apps/v1", None), kind("Deployment", "apps/v1", {"template": []}),
        {"apiVersion": "v1", "kind": "List", "items": "x"}, kind("Service", "v1", {}),
    ],
)  # fmt: skip
def test_what_holds_no_pod_is_passed_over(document: Any) -> None:
    assert list(workloads.pods(document)) == []


def test_yaml_means_what_kubernetes_takes_it_for() -> None:
    text = 'a: 2024-01-01\nb: yes\nc: "yes"\nd: 0o17\ne: ~\n---\n---\n{"json": [1, 2.5, null]}\n'
    assert workloads.read(text) == [
        {"a": "2024-01-01", "b": True, "c": "yes", "d": "0o17", "e": None},
        {"json": [1, 2.5, None]},
    ]


BOMB = "a: &a [x,x,x,x,x,x,x,x,x,x]\n" + "".join(
    f"{chr(98 + n)}: &{chr(98 + n)} [{','.join(['*' + chr(97 + n)] * 10)}]\n" for n in range(8)
)


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("a: 1\na: 2\n", "line 2: the key 'a' is there twice"),
        ("1: x\n", "a key that is not text"),
        ("a: [\n", "expected"),
        ("a: !!python/object:os.system x\n", "could not determine a constructor"),
        ("&a [*a]\n", "more than 500000 values"),
        (BOMB, "more than 500000 values"),
        ("[" * 100_000, "nested without end"),
        ("x" * (workloads.FILE_BYTES_MAX + 1), "larger than"),
    ],
)
def test_what_others_could_read_differently_or_never_finish_is_refused(text: str, why: str) -> None:
    with pytest.raises(workloads.Unreadable) as refused:
        workloads.read(text)
    assert why in str(refused.value)


_VALUES = some.recursive(
    some.none()
    | some.booleans()
    | some.integers(-(2**53), 2**53)
    | some.text(some.characters(exclude_categories=["C"]) | some.just("\n"), max_size=12)
    | some.sampled_from(["yes", "null", "1e3", "0644", "2024-01-01", "~", "=", "<<", "a: b", "- x"]),
    lambda inner: some.lists(inner, max_size=3) | some.dictionaries(some.text("abc:/ .-", min_size=1, max_size=6), inner, max_size=3),
    max_leaves=12,
)  # fmt: skip


@given(
    some.lists(some.dictionaries(some.text("abc", min_size=1), _VALUES, min_size=1), min_size=1, max_size=3)
)
def test_what_is_written_reads_the_same(documents: list[Any]) -> None:
    assert workloads.read(workloads.as_yaml(documents)) == documents
    assert list(yaml.safe_load_all(workloads.as_yaml(documents))) == documents, (
        "for other readers of YAML too"
    )


def test_several_objects_are_a_list_in_json() -> None:
    assert json.loads(workloads.as_json([POD])) == POD
    assert json.loads(workloads.as_json([POD, POD])) == {
        "apiVersion": "v1",
        "kind": "List",
        "items": [POD, POD],
    }


def test_an_alias_is_written_out_and_text_of_many_lines_stays_readable() -> None:
    [document] = workloads.read("a: &x {b: 1}\nc: *x\n")
    assert "*" not in workloads.as_yaml([document])
    assert workloads.as_yaml([{"a": "one\ntwo\n"}]) == "a: |\n  one\n  two\n"
