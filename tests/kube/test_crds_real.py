# SPDX-License-Identifier: Apache-2.0
"""The kinds on a real API server: what is wrong is refused with field and remedy, with none of our processes running.

The table of wrong objects is tests/corpus/objects.yaml; what files say of the same objects is in tests/corpus/test_objects.py.
"""

from __future__ import annotations

import itertools
import json
import pathlib

import pytest
import yaml
from tests.corpus import objects
from tests.kube import kinds
from tests.kube.kinds import PLURALS

from outrider import compile as compiler
from outrider import manifests, names, resources
from outrider_operator import conditions

ROOT = pathlib.Path(__file__).resolve().parents[2]
NUMBERS = itertools.count()


def ids(case):
    return f"{case.kind}: {case.it}"


@pytest.fixture(scope="module")
def api(cluster):
    """The API server with everything of crds/ in force."""
    kinds.in_force(cluster)
    cluster.namespace("outrider-system")
    return cluster


@pytest.fixture
def namespace(api) -> str:
    return api.namespace(f"kinds-{next(NUMBERS)}")


def create(api, made):
    return api.kubectl("create", "-f", "-", input=json.dumps(made))


@pytest.fixture(scope="module")
def post(api):
    """A plain POST: (made, query) -> (status, what the API server says)."""
    posting = kinds.Posting(api)
    yield posting.send
    posting.close()


def refused(ran, words) -> None:
    assert ran.returncode != 0, ran.stdout
    for each in words:
        assert each in ran.stderr


@pytest.mark.parametrize("case", objects.cases("schema", "fields"), ids=ids)
def test_a_wrong_object_is_refused_by_field_and_remedy(api, post, case) -> None:
    space, name = "kinds-refused", f"case-{next(NUMBERS)}"
    api.namespace(space)
    if case.before is None:
        status, said = post(case.wrong(space, name))
        assert status == 422, said
        for words in case.api:
            assert words in said
        # What the operator would say of it, had the API server's checks been absent.
        found = manifests.kubernetes_object(case.wrong(space, name))
        assert isinstance(found, tuple)
        status = conditions.status(
            conditions.Facts(kind=case.kind, generation=1, problems=found), {}, now=0.0, timestamp=str
        )
        accepted = next(each for each in status["conditions"] if each["type"] == "Accepted")
        assert accepted["status"] == "False"
        assert found[0].field in accepted["message"]
        return
    create(api, case.right(space, name))
    version = api.get(PLURALS[case.kind], name, space)["metadata"]["resourceVersion"]
    patch = json.dumps(case.patch)
    refused(
        api.kubectl("patch", PLURALS[case.kind], name, "-n", space, "--type=merge", "-p", patch, check=False),
        case.api,
    )
    assert api.get(PLURALS[case.kind], name, space)["metadata"]["resourceVersion"] == version


@pytest.mark.parametrize("case", objects.cases("fields"), ids=ids)
def test_a_misspelt_field_is_refused_on_every_path(api, case) -> None:
    space, name = "kinds-misspelt", f"case-{next(NUMBERS)}"
    api.namespace(space)
    wrong = case.wrong(space, name)
    text = json.dumps(wrong)
    refused(api.kubectl("apply", "-f", "-", input=text, check=False), case.api)
    refused(api.kubectl("apply", "--server-side", "-f", "-", input=text, check=False), case.api)
    refused(api.kubectl("create", "--dry-run=server", "-f", "-", input=text, check=False), case.api)
    create(api, case.right(space, name))
    before = api.get(PLURALS[case.kind], name, space)
    about = [PLURALS[case.kind], name, "-n", space]
    for words in (
        ["patch", *about, "--type=merge", "-p", json.dumps(case.patch)],
        ["apply", "--server-side", "--force-conflicts", "--validate=false", "-f", "-"],
        ["replace", "--validate=false", "-f", "-"],
    ):
        refused(api.kubectl(*words, input=text, check=False), case.api)
    assert api.get(PLURALS[case.kind], name, space) == before


@pytest.mark.parametrize("case", objects.cases("status"), ids=ids)
def test_what_only_several_objects_show_is_stored_and_said_in_the_status(api, namespace, case) -> None:
    name = f"case-{next(NUMBERS)}"
    made = case.wrong(namespace, name)
    space = made["metadata"]["namespace"]
    create(api, objects.there(namespace))
    create(api, made)
    stored = [api.get("mcpservers", "there", namespace), api.get(PLURALS[case.kind], name, space)]
    taken = [manifests.kubernetes_object(each) for each in stored]
    world = resources.World(
        servers=tuple(resources.Placed(each) for each in taken if isinstance(each, resources.MCPServer)),
        policies=tuple(resources.Placed(each) for each in taken if isinstance(each, resources.MCPToolPolicy)),
        budgets=tuple(resources.Placed(each) for each in taken if isinstance(each, resources.MCPBudget)),
        settings=resources.Settings.model_validate_json(json.dumps(objects.settings())),
    )
    listed = {names.ServerId(namespace, "there"): tuple(objects.TOOLS)}
    found = tuple(each for each in compiler.check(world, listed) if each.name == name)
    facts = conditions.Facts(kind=case.kind, generation=1, made=taken[1], found=found)
    status = conditions.status(facts, {}, now=0.0, timestamp=lambda _: "2026-01-01T00:00:00Z")
    patch = json.dumps({"status": status})
    api.kubectl(
        "patch", PLURALS[case.kind], name, "-n", space, "--subresource=status", "--type=merge", "-p", patch
    )
    said = {each["type"]: each for each in api.get(PLURALS[case.kind], name, space)["status"]["conditions"]}
    kind, reason = case.condition
    assert (said[kind]["status"], said[kind]["reason"]) == ("False", reason)
    for words in case.api:
        assert words.replace("NAMESPACE", namespace) in said[kind]["message"]
    assert said["Accepted"]["status"] == "True"


def test_the_examples_that_hold_no_laptops_fields_are_taken(api, post) -> None:
    for file in ("policies.yaml", "budgets.yaml"):
        for made in yaml.safe_load_all((ROOT / "examples" / file).read_text()):
            api.namespace(made["metadata"]["namespace"])
            assert post(made, "dryRun=All") == (201, "")


LIST = [f"n{index}" for index in range(32)]
NAMES = [each.ljust(63, "x") for each in LIST]
ACCOUNTS = [f"{each}/{each}" for each in NAMES]
EVERYBODY = [{"namespaces": NAMES[:8], "serviceAccounts": ACCOUNTS[:4], "teams": NAMES[:8]}] * 16
GLOBS = [f"*{index}".ljust(128, "x") for index in range(64)]
LARGEST = {
    "MCPToolPolicy": {
        "targetRefs": [{"namespace": each, "name": each} for each in NAMES],
        "rules": [
            {"name": f"r{index}".ljust(63, "x"), "effect": "Allow", "from": EVERYBODY, "tools": GLOBS[:8]}
            for index in range(64)
        ],
    },
    "MCPServer": {
        "description": "x" * 100,
        "endpoint": {
            "url": "https://crm.example/" + "x" * 2000,
            "headers": {f"x-{index}".ljust(64, "h"): "some words " * 90 + "end" for index in range(16)},
            "tls": {"caBundle": "-----BEGIN CERTIFICATE-----" + "x" * 65_000},
        },
        "credentials": [{"name": each, "from": EVERYBODY, "tools": GLOBS, "none": True} for each in NAMES],
        "tools": {
            "include": GLOBS,
            "exclude": GLOBS,
            "cost": {"perTool": [{"name": f"t{index}".ljust(128, "x"), "perCall": "1"} for index in range(128)]},
            "redact": [{"tools": GLOBS[:16], "arguments": ["/" + "x" * 250] * 16}] * 32,
        },
    },
    "MCPBudget": {
        "targetRefs": [{"namespace": each, "name": each} for each in NAMES],
        "from": EVERYBODY,
        "tools": GLOBS,
        "limits": [
            {"name": each, "unit": "Calls", "quota": {"amount": "1", "period": "Day", "warnAt": list(range(1, 9))}}
            for each in NAMES[:8]
        ],
    },
}  # fmt: skip


@pytest.mark.parametrize("kind", LARGEST)
def test_the_largest_objects_are_looked_through_to_their_end(post, kind) -> None:
    """Rules and policies have a budget of effort at the API server; an object that exceeds it would be refused unread."""
    metadata = {"name": "large", "namespace": "kinds-refused"}
    made = {"apiVersion": names.API_VERSION, "kind": kind, "metadata": metadata, "spec": LARGEST[kind]}
    assert post(made, "dryRun=All") == (201, "")
    assert len(json.dumps(made)) > 15_000
    wrong = json.loads(json.dumps(made))
    spec = wrong["spec"]
    last = {"MCPToolPolicy": spec.get("rules"), "MCPServer": spec.get("credentials"), "MCPBudget": [spec]}[
        kind
    ][-1]
    last["from"][-1]["nonsense"] = 1
    status, told = post(wrong, "dryRun=All")
    assert status == 422
    assert "from[15].nonsense: unknown field" in told


def test_an_object_from_before_the_policies_can_still_be_deleted_and_not_otherwise_touched(
    own_cluster,
) -> None:
    """Its typo is told in its status; what refuses it must not keep it alive."""
    api = own_cluster
    for file in sorted((ROOT / "crds").glob("outrider.dev_*.yaml")):
        api.kubectl("apply", "--server-side", "-f", str(file))
    api.kubectl("wait", "--for=condition=Established", "crd", "--all", "--timeout=60s")
    api.namespace("old")
    made = objects.merged(objects.base("MCPToolPolicy", "old", "one"), {"spec": {"modus": "Audit"}})
    made["metadata"]["finalizers"] = ["example.com/hold"]
    create(api, made)
    stored = api.get("mcptoolpolicies", "one", "old")
    assert stored["spec"]["modus"] == "Audit"
    found = manifests.kubernetes_object(stored)
    assert isinstance(found, tuple)
    assert str(found[0]).startswith('spec.modus: unknown field; did you mean "mode"?')
    kinds.in_force(api)
    about = ["mcptoolpolicies", "one", "-n", "old"]
    refused(
        api.kubectl("label", *about, "a=b", check=False),
        ["spec.modus: unknown field", "allowed: mode, rules, targetRefs"],
    )
    api.kubectl("delete", *about, "--wait=false")
    released = json.dumps({"metadata": {"finalizers": None}})
    api.kubectl("patch", *about, "--type=merge", "-p", released)
    assert api.kubectl("get", *about, check=False).returncode != 0
