# SPDX-License-Identifier: Apache-2.0
"""The committed CRDs are what the models say, in a form the API server accepts."""

from __future__ import annotations

import hashlib
import pathlib
import subprocess
import sys

import pytest
import yaml

from outrider import resources
from outrider.resources import kinds
from outrider_operator import crds

ROOT = pathlib.Path(__file__).resolve().parent.parent
TEXTS = resources.crds()
POLICIES = resources.field_policies()
EVERYTHING = {**TEXTS, **POLICIES}
REVISION = (6, "ac971a321720fc2df30840a876827392d25f52d1a557d98983ac9c41628044ce")
"""The live revision and the digest of everything in crds/."""


def nodes(schema, path="", *, in_list=False):
    yield path, schema, in_list
    for name, child in schema.get("properties", {}).items():
        yield from nodes(child, f"{path}.{name}", in_list=in_list)
    if "items" in schema:
        yield from nodes(schema["items"], f"{path}[]", in_list=True)
    if isinstance(schema.get("additionalProperties"), dict):
        yield from nodes(schema["additionalProperties"], f"{path}{{}}", in_list=True)


def whole_of(text):
    [version] = yaml.safe_load(text)["spec"]["versions"]
    return version["schema"]["openAPIV3Schema"]


def spec_of(text):
    return whole_of(text)["properties"]["spec"]


def test_the_committed_files_are_the_generated_ones() -> None:
    committed = {path.name: path.read_text() for path in (ROOT / "crds").glob("*.yaml")}
    assert committed == EVERYTHING, "run: python -m outrider_operator.crds"


def test_the_command_writes_them(tmp_path) -> None:
    ran = subprocess.run(
        [sys.executable, "-m", "outrider_operator.crds", str(tmp_path / "out")], capture_output=True, text=True, check=True,
        env={"PYTHONPATH": f"{ROOT / 'operator'}:{ROOT / 'sidecar'}"},
    )  # fmt: skip
    assert {path.name: path.read_text() for path in (tmp_path / "out").iterdir()} == EVERYTHING
    assert len(ran.stdout.splitlines()) == 6


def test_writing_twice_changes_nothing(tmp_path) -> None:
    assert crds.write(tmp_path) == crds.write(tmp_path)


@pytest.mark.parametrize("name", sorted(TEXTS))
def test_a_schema_is_structural_bounded_and_described(name) -> None:
    allowed = {
        "type", "description", "properties", "required", "items", "additionalProperties", "enum", "pattern", "default",
        "minLength", "maxLength", "minimum", "maximum", "minItems", "maxItems", "maxProperties",
        "x-kubernetes-list-type", "x-kubernetes-validations", "x-kubernetes-preserve-unknown-fields",
    }  # fmt: skip
    for path, node, in_list in nodes(spec_of(TEXTS[name])):
        assert set(node) <= allowed, (path, set(node) - allowed)
        assert node["type"] in ("object", "array", "string", "integer", "boolean"), path
        assert not ("properties" in node and "additionalProperties" in node), path
        assert set(node.get("required", ())) <= set(node.get("properties", {})), path
        assert node.get("description") or path.endswith(("[]", "{}")), path
        if in_list:
            assert "default" not in node, path
        if node["type"] == "array":
            assert "maxItems" in node, path
            assert node["x-kubernetes-list-type"] == "atomic", path
        if node["type"] == "string" and "enum" not in node:
            assert "maxLength" in node, path
        assert ("properties" in node) == (node.get("x-kubernetes-preserve-unknown-fields") is True), path


@pytest.mark.parametrize("name", sorted(TEXTS))
def test_a_status_is_structural_bounded_and_described_and_keeps_nothing_unknown(name) -> None:
    status = whole_of(TEXTS[name])["properties"]["status"]
    assert {"observedGeneration", "conditions", "programmed"} <= set(status["properties"])
    for path, node, _ in nodes(status):
        assert "x-kubernetes-preserve-unknown-fields" not in node, path
        assert "default" not in node, path
        assert node.get("description", "").endswith(".") or path.endswith("[]"), path
        assert node["type"] != "array" or "maxItems" in node, path
        assert node["type"] != "string" or {"maxLength", "enum", "format"} & set(node), path
    conditions = status["properties"]["conditions"]
    assert conditions["x-kubernetes-list-map-keys"] == ["type"]


def test_every_column_shows_a_scalar_that_the_schema_has() -> None:
    for text in TEXTS.values():
        made = yaml.safe_load(text)
        [version] = made["spec"]["versions"]
        for column in version["additionalPrinterColumns"]:
            path = column["jsonPath"]
            if path.startswith((".status.conditions[", ".metadata")):
                continue
            node = whole_of(text)
            for step in path.strip(".").split("."):
                node = node["properties"][step]
            assert node["type"] == column["type"], path
        assert version["subresources"] == {"status": {}}
        shown = [column["name"] for column in version["additionalPrinterColumns"]]
        assert (shown[0], shown[-1]) == ("Ready", "Age")


def test_the_revision_is_raised_when_anything_changes() -> None:
    """An installation refuses to go back behind the live revision, so two different ones must not share a number."""
    joined = "".join(EVERYTHING[name] for name in sorted(EVERYTHING))
    known = (kinds.REVISION, hashlib.sha256(joined.encode()).hexdigest())
    assert known == REVISION, "raise outrider.resources.kinds.REVISION and write both down here"
    for text in EVERYTHING.values():
        for document in yaml.safe_load_all(text):
            assert document["metadata"]["labels"] == {kinds.REVISION_LABEL: str(kinds.REVISION)}


@pytest.mark.parametrize("name", sorted(TEXTS))
def test_names_are_those_of_our_group(name) -> None:
    made = yaml.safe_load(TEXTS[name])
    spec = made["spec"]
    assert made["metadata"]["name"] == f"{spec['names']['plural']}.outrider.dev"
    assert spec["names"]["categories"] == ["outrider"]
    assert spec["names"]["shortNames"][0] in ("orsrv", "orpol", "orbud")


def test_what_exists_only_in_files_is_in_no_crd() -> None:
    servers = TEXTS["outrider.dev_mcpservers.yaml"]
    spec = spec_of(servers)
    assert "command" not in spec["properties"]["endpoint"]["properties"]
    assert "required" not in spec["properties"]["endpoint"]
    credential = spec["properties"]["credentials"]["items"]
    assert "file" not in credential["properties"]
    assert "vault" in credential["properties"]
    secret = credential["properties"]["oauthClientCredentials"]["properties"]["clientSecret"]
    assert set(secret["properties"]) == {"vault", "secretRef"}
    assert set(credential["required"]) == {"name", "from"}


def test_what_a_misspelling_makes_look_forgotten_is_told_after_it() -> None:
    """A CRD's own rules come before any policy, so these are not among them."""
    assert "an Allow needs" not in TEXTS["outrider.dev_mcptoolpolicies.yaml"]
    first, second = yaml.safe_load_all(POLICIES["unknown-fields_mcptoolpolicies.yaml"]).__next__()["spec"][
        "validations"
    ]
    assert (first["expression"], second["expression"]) == (
        "size(variables.unknown) == 0",
        "size(variables.missing) == 0",
    )


def test_lists_with_names_demand_unique_ones_by_cel() -> None:
    named = {
        path: node
        for text in TEXTS.values()
        for path, node, _ in nodes(spec_of(text))
        if node["type"] == "array"
        and "name" in node["items"].get("required", ())
        and not path.endswith("targetRefs")
    }
    assert set(named) == {".credentials", ".tools.cost.perTool", ".rules", ".limits"}
    for path, node in named.items():
        assert any("exists_one" in rule["rule"] for rule in node["x-kubernetes-validations"]), path


def test_defaults_of_the_server_are_those_of_the_models() -> None:
    def filled(node, value):
        """What the API server makes of `value`: defaults of absent fields, then those below."""
        for name, child in node.get("properties", {}).items():
            if name not in value and "default" in child:
                value[name] = yaml.safe_load(yaml.safe_dump(child["default"]))
            if isinstance(value.get(name), dict):
                filled(child, value[name])
        return value

    spec = {"description": "x", "endpoint": {"url": "https://x.example/"}}
    top = {
        "apiVersion": "outrider.dev/v1alpha1",
        "kind": "MCPServer",
        "metadata": {"name": "a", "namespace": "b"},
    }
    made = resources.MCPServer.model_validate_json(__import__("json").dumps({**top, "spec": spec}))
    stored = filled(spec_of(TEXTS["outrider.dev_mcpservers.yaml"]), spec)
    again = resources.MCPServer.model_validate_json(__import__("json").dumps({**top, "spec": stored}))
    assert stored["endpoint"]["timeouts"]["call"] == "50s"
    assert again == made
