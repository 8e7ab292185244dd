# SPDX-License-Identifier: Apache-2.0
"""What people see of the kinds: apply again without a difference, explain, columns, statuses; on a real API server."""

from __future__ import annotations

import itertools
import json
import pathlib
import re

import pytest
from tests.corpus import objects
from tests.kube import kinds
from tests.kube.kinds import PLURALS

from outrider import manifests

ROOT = pathlib.Path(__file__).resolve().parents[2]
NUMBERS = itertools.count()


@pytest.fixture(scope="module")
def api(cluster):
    """The API server with everything of crds/ in force."""
    kinds.in_force(cluster)
    return cluster


@pytest.fixture
def namespace(api) -> str:
    return api.namespace(f"shown-{next(NUMBERS)}")


def create(api, made):
    return api.kubectl("create", "-f", "-", input=json.dumps(made))


@pytest.mark.parametrize(
    "made", objects.valid("shown-valid"), ids=lambda made: f"{made['kind']} {made['metadata']['name']}"
)
def test_what_is_right_is_stored_as_the_models_read_it_and_a_second_apply_changes_nothing(api, made) -> None:
    api.namespace("shown-valid")
    text = json.dumps(made)
    for words in (["apply", "--server-side"], ["apply", "--server-side"]):
        api.kubectl(*words, "-f", "-", input=text)
    plural, name = PLURALS[made["kind"]], made["metadata"]["name"]
    stored = api.get(plural, name, "shown-valid")
    assert stored["metadata"]["generation"] == 1
    api.kubectl("apply", "--server-side", "-f", "-", input=text)
    assert (
        api.get(plural, name, "shown-valid")["metadata"]["resourceVersion"]
        == stored["metadata"]["resourceVersion"]
    )
    assert api.kubectl("diff", "--server-side", "-f", "-", input=text).returncode == 0
    drifted(made["spec"], stored["spec"], "spec")
    read = manifests.kubernetes_object(stored)
    from_file = manifests.kubernetes_object(made)
    assert not isinstance(read, tuple)
    assert not isinstance(from_file, tuple)
    assert read.spec == from_file.spec


def drifted(wanted, live, path) -> None:
    """Whatever was written stands as it was written; a list is the very list (what Argo CD compares)."""
    if isinstance(wanted, dict):
        for key, value in wanted.items():
            drifted(value, live[key], f"{path}.{key}")
    else:
        assert live == wanted, path


def test_a_second_apply_of_the_kinds_changes_nothing_and_there_is_no_difference(api) -> None:
    def versions():
        words = ["get", "crd,validatingadmissionpolicy,validatingadmissionpolicybinding", "-o", "json"]
        return {
            each["metadata"]["name"]: each["metadata"]["generation"]
            for each in json.loads(api.kubectl(*words).stdout)["items"]
            if "outrider" in each["metadata"]["name"]
        }

    before = versions()
    assert len(before) == 6
    api.kubectl("apply", "--server-side", "-f", str(ROOT / "crds"))
    assert versions() == before
    assert api.kubectl("diff", "--server-side", "-f", str(ROOT / "crds")).returncode == 0


def test_no_rule_of_a_kind_is_in_doubt(api) -> None:
    for plural in PLURALS.values():
        crd = api.get("crd", f"{plural}.outrider.dev")
        said = {each["type"]: each["status"] for each in crd["status"]["conditions"]}
        assert (said["Established"], said["NamesAccepted"]) == ("True", "True")
        assert "NonStructuralSchema" not in said


def fields_of(text):
    """(name, text) of every field that `kubectl explain` lists."""
    listed = text.partition("FIELDS:\n")[2]
    parts = re.split(r"^  (\w+)\t", listed, flags=re.MULTILINE)[1:]
    return list(zip(parts[::2], parts[1::2], strict=True))


@pytest.mark.parametrize("kind", PLURALS)
def test_explain_has_a_sentence_for_every_field(api, kind) -> None:
    """As people meet it: by the real kubectl, object by object, and every field that the CRD has."""
    crd = api.get("crd", f"{PLURALS[kind]}.outrider.dev")
    whole = crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]
    waiting, walked = [(f"{PLURALS[kind]}.outrider.dev.{top}", whole[top]) for top in ("spec", "status")], 0
    while waiting:
        path, node = waiting.pop()
        node = node.get("items", node)
        shown = dict(fields_of(api.kubectl("explain", path).stdout))
        assert shown.keys() == node["properties"].keys(), path
        for name, child in node["properties"].items():
            words = shown[name].partition("\n")[2].strip().removeprefix("enum:").strip()
            sentence = words.partition("\n")[2].strip() if "enum" in child else words
            assert re.match(r"[A-Z0-9`]", sentence), (path, name, words)
            assert sentence.endswith("."), (path, name, words)
            walked += 1
            if "properties" in child.get("items", child):
                waiting.append((f"{path}.{name}", child))
    assert walked > 20


def test_get_shows_the_columns_and_the_whole_category(api, namespace) -> None:
    for kind in PLURALS:
        create(api, objects.base(kind, namespace, "one"))
    ready = {
        "type": "Ready",
        "status": "True",
        "reason": "Ready",
        "message": "m",
        "lastTransitionTime": "2026-01-01T00:00:00Z",
    }
    for kind, more in (
        ("MCPServer", {"toolCount": 12, "programmed": "3/3"}),
        ("MCPToolPolicy", {"targets": 1, "rules": 1, "programmed": "2/3"}),
        ("MCPBudget", {"limits": 1, "programmed": "3/3"}),
    ):  # fmt: skip
        patch = json.dumps({"status": {"conditions": [ready], **more}})
        api.kubectl(
            "patch",
            PLURALS[kind],
            "one",
            "-n",
            namespace,
            "--subresource=status",
            "--type=merge",
            "-p",
            patch,
        )
    shown = {
        short: [
            line.split() for line in api.kubectl("get", short, "-n", namespace, *wide).stdout.splitlines()
        ]
        for short, wide in (("orsrv", []), ("orpol", []), ("orbud", ["-o", "wide"]))
    }
    assert shown["orsrv"][0] == ["NAME", "READY", "VERSION", "TOOLS", "TRANSPORT", "AGE"]
    assert shown["orsrv"][1][:4] == ["one", "True", "12", "StreamableHTTP"]
    assert shown["orpol"][0] == ["NAME", "READY", "MODE", "TARGETS", "RULES", "PROGRAMMED", "AGE"]
    assert shown["orpol"][1][:6] == ["one", "True", "Enforce", "1", "1", "2/3"]
    assert shown["orbud"][0] == [
        "NAME",
        "READY",
        "ON-EXCEEDED",
        "LIMITS",
        "PROGRAMMED",
        "WHY",
        "ENFORCEABLE",
        "AGE",
    ]
    assert shown["orbud"][1][:6] == ["one", "True", "Deny", "1", "3/3", "Ready"]
    everything = api.kubectl("get", "outrider", "-n", namespace).stdout
    assert all(f"{kind.lower()}.outrider.dev/one" in everything for kind in PLURALS)


def test_a_status_is_written_only_where_statuses_are_and_keeps_only_what_exists(api, namespace) -> None:
    create(api, {**objects.base("MCPServer", namespace, "one"), "status": {"toolCount": 5}})
    assert "status" not in api.get("mcpservers", "one", namespace)
    words = ["patch", "mcpservers", "one", "-n", namespace, "--type=merge", "-p"]
    api.kubectl(*words, json.dumps({"status": {"toolCount": 5, "secret": 1}}), "--subresource=status")
    assert api.get("mcpservers", "one", namespace)["status"] == {"toolCount": 5}
    assert api.get("mcpservers", "one", namespace)["metadata"]["generation"] == 1
    ran = api.kubectl(*words, json.dumps({"status": {"toolCount": -1}}), "--subresource=status", check=False)
    assert ran.returncode != 0
    assert "status.toolCount: Invalid value: -1" in ran.stderr
