# SPDX-License-Identifier: Apache-2.0
"""The kinds on a real API server: what is wrong is refused with field and remedy, with none of our processes running.

The table of wrong objects is tests/corpus/objects.yaml; what files say of the same objects is in tests/corpus/test_objects.py.
"""

from __future__ import annotations

import itertools
import json
import pathlib
import random

import pytest
import yaml
from tests.corpus import mutations, objects
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
def admin(api):
    """An administrator who is not strict."""
    posting = kinds.Posting(api)
    yield posting
    posting.close()


@pytest.fixture(scope="module")
def space(api) -> str:
    """A namespace in which nearly nothing is stored."""
    return api.namespace("kinds")


def refused(ran, words) -> None:
    assert ran.returncode != 0, ran.stdout
    for each in words:
        assert each in ran.stderr


@pytest.mark.parametrize("case", objects.cases("schema", "fields"), ids=ids)
def test_a_wrong_object_is_refused_by_field_and_remedy(admin, space, case) -> None:
    wrong = case.wrong(space, f"case-{next(NUMBERS)}")
    if case.before is None:
        status, said = admin.send(wrong)
    else:
        assert admin.send(case.right(space, wrong["metadata"]["name"])) == (201, "")
        status, said = admin.ask("PATCH", wrong, kind="merge-patch+json", body=case.patch)
    assert status == 422, said
    for words in case.api:
        assert words in said


@pytest.mark.parametrize("case", objects.cases("schema", "fields"), ids=ids)
def test_an_object_that_got_past_the_api_server_is_told_of_in_its_status(case) -> None:
    if case.before is not None:
        return  # Nothing is wrong with the object itself, only with the change.
    found = manifests.kubernetes_object(case.wrong("crm", "one"))
    assert isinstance(found, tuple)
    facts = conditions.Facts(kind=case.kind, generation=1, problems=found)
    told = conditions.status(facts, {}, now=0.0, timestamp=str)["conditions"]
    accepted = next(each for each in told if each["type"] == "Accepted")
    assert accepted["status"] == "False"
    assert found[0].field in accepted["message"]


@pytest.mark.parametrize("case", objects.cases("fields"), ids=ids)
def test_a_misspelt_field_is_refused_on_every_path(admin, space, case) -> None:
    wrong = case.wrong(space, f"case-{next(NUMBERS)}")
    right = case.right(space, wrong["metadata"]["name"])
    apply = {"kind": "apply-patch+yaml", "query": "fieldManager=somebody&force=true"}
    told = [
        admin.send(wrong, "fieldValidation=Ignore"),
        admin.send(wrong, "fieldValidation=Strict"),
        admin.send(wrong, "dryRun=All"),
        admin.ask("PATCH", wrong, **apply),
    ]
    assert admin.send(right) == (201, "")
    before = admin.stored(right)
    told += [
        admin.ask("PUT", {**wrong, "metadata": before["metadata"]}),
        admin.ask("PATCH", wrong, kind="merge-patch+json", body=case.patch),
        admin.ask("PATCH", wrong, kind="json-patch+json", body=_replacing(wrong)),
        admin.ask("PATCH", wrong, **apply),
    ]
    for status, said in told:
        assert status == 422, said
        assert all(words in said for words in case.api), said
    assert admin.stored(right) == before


def _replacing(made):
    return [
        {"op": "add", "path": f"/{field}", "value": value}
        for field, value in made.items()
        if field not in ("apiVersion", "kind", "metadata")
    ]


@pytest.mark.parametrize(
    "words", [[], ["--validate=false"], ["--server-side"], ["--server-side", "--validate=false"]]
)
def test_kubectl_refuses_a_misspelt_field_strict_or_not(api, space, words) -> None:
    [case] = [case for case in objects.cases("fields") if "deny everybody" in case.it]
    ran = api.kubectl("apply", *words, "-f", "-", input=json.dumps(case.wrong(space, "typed")), check=False)
    assert ran.returncode == 1
    assert all(each in ran.stderr for each in case.api), ran.stderr


@pytest.mark.parametrize("case", objects.cases("status"), ids=ids)
def test_what_only_several_objects_show_is_stored_and_said_in_the_status(api, namespace, admin, case) -> None:
    name = f"case-{next(NUMBERS)}"
    made = case.wrong(namespace, name)
    space = made["metadata"]["namespace"]
    assert admin.send(objects.there(namespace)) == admin.send(made) == (201, "")
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


def test_the_examples_that_hold_no_laptops_fields_are_taken(api, admin) -> None:
    for file in ("policies.yaml", "budgets.yaml", "cluster/servers.yaml", "cluster/policies.yaml"):
        for made in yaml.safe_load_all((ROOT / "examples" / file).read_text()):
            api.namespace(made["metadata"]["namespace"])
            assert admin.send(made, "dryRun=All") == (201, "")


LIST = [f"n{index}" for index in range(32)]
NAMES = [each.ljust(63, "x") for each in LIST]
ACCOUNTS = [f"{each}/{each}" for each in NAMES]
PEOPLE = {
    field: [f"okta:{index}".ljust(100, "x") for index in range(4)] for field in ("users", "groups", "clients")
}
EVERYBODY = [{"namespaces": NAMES[:8], "serviceAccounts": ACCOUNTS[:4], "teams": NAMES[:8], **PEOPLE}] * 16
GLOBS = [f"*{index}".ljust(128, "x") for index in range(64)]
GRANT = {
    "tokenUrl": "https://as.example/" + "x" * 2000,
    "clientId": "c" * 256,
    "clientSecret": {"vault": {"path": "/".join(["x" * 31] * 8), "key": "k" * 128}},
    "scopes": [f"{index}".ljust(256, "x") for index in range(8)],
    "resource": "https://x.example/" + "x" * 1000,
    "tls": {"caBundle": "-----BEGIN CERTIFICATE-----" + "x" * 6000},
}
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
        "credentials": [
            {
                "name": each, "from": EVERYBODY, "tools": GLOBS[:8],
                ("oauthClientCredentials", "tokenExchange")[index % 2]: GRANT,
                "inject": {"header": f"k-{index}".ljust(64, "k"), "prefix": "p" * 64},
            }
            for index, each in enumerate(NAMES)
        ],
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
def test_the_largest_objects_are_looked_through_to_their_end(admin, space, kind) -> None:
    """Rules and policies have a budget of effort at the API server; an object that exceeds it would be refused unread."""
    metadata = {"name": "large", "namespace": space}
    made = {"apiVersion": names.API_VERSION, "kind": kind, "metadata": metadata, "spec": LARGEST[kind]}
    assert admin.send(made, "dryRun=All") == (201, "")
    assert len(json.dumps(made)) > 15_000
    wrong = json.loads(json.dumps(made))
    spec = wrong["spec"]
    last = {"MCPToolPolicy": spec.get("rules"), "MCPServer": spec.get("credentials"), "MCPBudget": [spec]}[
        kind
    ][-1]
    last["from"][-1]["nonsense"] = 1
    status, told = admin.send(wrong, "dryRun=All")
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


@pytest.mark.parametrize("seed", range(4))
def test_the_api_server_and_the_models_take_and_refuse_the_same_objects(admin, space, seed) -> None:
    """Right objects with one thing changed by chance: CEL and field policies there, code here, one meaning."""
    chance = random.Random(seed)
    taken, differing = 0, []
    for index in range(150):
        made = mutations.changed(chance, space, f"m{index}")
        status, said = admin.send(made, "dryRun=All")
        found = manifests.kubernetes_object(made)
        taken += status == 201
        if (status == 201) is isinstance(found, tuple):
            differing.append((made["spec"], status, said, str(found)))
    assert differing == []
    assert taken > 10
