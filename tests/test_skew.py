# SPDX-License-Identifier: Apache-2.0
"""What an older sidecar is sent decodes there, and grants nothing that it could not hold to."""

from __future__ import annotations

import dataclasses
import importlib
import io
import pathlib
import subprocess
import sys
import tarfile

import msgspec
import pytest

from outrider import bind, budgets, call, decide, decision, manifests, names, rules, snapshot, testing, wire
from outrider import compile as compiler

ROOT = pathlib.Path(__file__).resolve().parent.parent
FIRST = "e1f29f7"
"""The commit whose proxy reads schema 1."""

SECOND = "37fe4d9"
"""The last whose proxy reads schema 2."""

THIRD = "7af41eb"
"""The last whose proxy reads schema 3."""

SERVICE = names.ServerId("crm", "inside")
OUTSIDE = testing.a_server(testing.allow("query"))
INSIDE = testing.a_server(testing.allow("query"), server=SERVICE)
INSIDE = msgspec.structs.replace(
    INSIDE, endpoint=snapshot.Endpoint(url="http://s.crm.svc:80/mcp", service=True)
)


@pytest.fixture(scope="module")
def first(tmp_path_factory):
    """The modules of the first schema's proxy, as they were committed."""
    return committed(FIRST, 1, tmp_path_factory.mktemp("first"))


@pytest.fixture(scope="module")
def second(tmp_path_factory):
    """Those of the second schema's."""
    return committed(SECOND, 2, tmp_path_factory.mktemp("second"))


@pytest.fixture(scope="module")
def third(tmp_path_factory):
    """Those of the third schema's."""
    return committed(THIRD, 3, tmp_path_factory.mktemp("third"))


def committed(commit, schema, folder):
    ran = subprocess.run(
        ["git", "archive", commit, "sidecar/outrider"], cwd=ROOT, capture_output=True, check=False
    )
    assert ran.returncode == 0, (
        f"needs the history of this repository (git fetch --unshallow): {ran.stderr.decode()}"
    )
    with tarfile.open(fileobj=io.BytesIO(ran.stdout)) as archive:
        archive.extractall(folder, filter="data")
    ours = {name: sys.modules.pop(name) for name in list(sys.modules) if name.split(".")[0] == "outrider"}
    sys.path.insert(0, str(folder / "sidecar"))
    try:
        importlib.invalidate_caches()
        modules = ("snapshot", "wire", "bind", "decide", "call", "budgets", "catalog", "names", "decision")
        loaded = {name: importlib.import_module(f"outrider.{name}") for name in modules}
        assert loaded["snapshot"].__file__.startswith(str(folder))
        assert schema == loaded["snapshot"].SCHEMA
    finally:
        sys.path.remove(str(folder / "sidecar"))
        for name in list(sys.modules):
            if name.split(".")[0] == "outrider":
                del sys.modules[name]
        sys.modules.update(ours)
        importlib.invalidate_caches()
    return loaded


def verdicts(theirs, content, server, *tools):
    """Tool -> whether a proxy of that commit lets it pass, with all of them listed."""
    read = theirs["wire"].decode_snapshot(content)
    listed = theirs["catalog"].definitions(
        b'{"name":"%s","inputSchema":{"type":"object"}}' % tool.encode() for tool in tools
    )
    at = theirs["names"].ServerId(*server)
    bound = theirs["bind"].bound(read, {at: listed})
    return {
        tool: isinstance(
            theirs["decide"].decide(
                bound, theirs["call"].Call(at, tool), theirs["budgets"].UNLIMITED, now=0.0
            ),
            theirs["decision"].Permit,
        )
        for tool in tools
    }


def test_its_own_schema_is_the_snapshot_byte_for_byte() -> None:
    made = testing.a_snapshot(OUTSIDE, INSIDE)
    assert wire.downgrade(made, snapshot.SCHEMA) == (snapshot.canonical(made), ())


def test_what_the_first_schema_knows_arrives_there_whole(first) -> None:
    content, unexpressed = wire.downgrade(testing.a_snapshot(OUTSIDE), 1)
    assert unexpressed == ()
    read = first["wire"].decode_snapshot(content)
    assert read.schema == 1
    [view] = read.servers
    assert (str(view.id), view.endpoint.url) == ("crm/salesforce", OUTSIDE.endpoint.url)
    assert [rule.effect.value for rule in view.rules] == ["Allow"]


def test_a_service_is_denied_whole_to_a_reader_that_does_not_know_services(first) -> None:
    content, unexpressed = wire.downgrade(testing.a_snapshot(INSIDE, OUTSIDE), 1)
    assert unexpressed == ("MCPServer crm/inside",)
    read = first["wire"].decode_snapshot(content)
    views = {str(view.id): view for view in read.servers}
    deny = views["crm/inside"].rules[-1]
    assert (deny.effect.value, deny.tools, deny.enforced) == ("Deny", ("*",), True)
    assert "too old" in deny.message
    assert [rule.effect.value for rule in views["crm/salesforce"].rules] == ["Allow"]


def test_a_denied_service_is_refused_by_the_decision_itself() -> None:
    content, _ = wire.downgrade(testing.a_snapshot(INSIDE), 1)
    value = {**msgspec.json.decode(content), "schema": snapshot.SCHEMA}
    read = wire.decode_snapshot(msgspec.json.encode(value))
    bound = bind.bound(read, {SERVICE: testing.tools("query")})
    found = decide.decide(bound, call.Call(SERVICE, "query"), budgets.UNLIMITED, now=0.0)
    assert isinstance(found, decision.Refusal)
    assert (found.reason, str(found.objection.rule)) == (
        decision.Reason.DENIED,
        "crm/inside/sidecar-too-old",
    )


def test_a_prober_of_the_first_schema_is_given_nothing_it_could_call() -> None:
    made = testing.a_snapshot(OUTSIDE, probing=True)
    content, unexpressed = wire.downgrade(made, 1)
    assert unexpressed == ("MCPServer crm/salesforce",)
    assert b"probing" not in content


def test_bytes_of_the_first_schema_are_not_taken_for_this_one() -> None:
    content, _ = wire.downgrade(testing.a_snapshot(OUTSIDE), 1)
    with pytest.raises(wire.WireError, match="schema 1 is not the 4"):
        wire.decode_snapshot(content)


def test_bytes_of_this_schema_are_not_taken_for_the_first(first) -> None:
    """Even where no new field is used: the number always stands in the bytes."""
    with pytest.raises(first["wire"].WireError, match="schema"):
        first["wire"].decode_snapshot(snapshot.canonical(testing.a_snapshot(OUTSIDE)))


@pytest.mark.parametrize("schema", [-1, 0, 5, 99])
def test_a_schema_that_was_never_written_is_refused_by_name(schema) -> None:
    with pytest.raises(ValueError, match=rf"schema {schema} cannot be written here; these can: 1, 2, 3, 4"):
        wire.downgrade(testing.a_snapshot(), schema)


# To the second schema -------------------------------------------------------------------------------------------------


def test_tools_go_on_for_a_proxy_that_knows_nothing_else(second) -> None:
    view = testing.a_server(
        testing.allow("query", "drop", prompts=("*",), resources=("file:///*",)),
        testing.deny("drop", resources=("*secret*",)),
        features=snapshot.ClientFeatures(elicitation_form=False),
    )
    content, unexpressed = wire.downgrade(testing.a_snapshot(view), 2)
    assert unexpressed == ("MCPServer crm/salesforce",)
    assert verdicts(second, content, testing.CRM, "query", "drop", "other") == {
        "query": True, "drop": False, "other": False,
    }  # fmt: skip


def test_a_server_whose_rules_speak_of_tools_alone_is_expressed_whole(second) -> None:
    made = testing.a_snapshot(testing.a_server(testing.allow("query"), testing.deny()), INSIDE)
    content, unexpressed = wire.downgrade(made, 2)
    assert unexpressed == ()
    assert verdicts(second, content, SERVICE, "query") == {"query": True}
    assert wire.downgrade(msgspec.structs.replace(made, servers=(OUTSIDE,)), 1)[1] == ()


def test_a_rule_about_prompts_alone_opens_no_tool_there_and_closes_none(second) -> None:
    nothing = {"ref": testing.allow(name="w").ref, "key": rules.Key.PROVIDER, "tools": ()}
    words = rules.Rule(effect=rules.Effect.ALLOW, prompts=("*",), resources=("*",), **nothing)
    quiet = rules.Rule(effect=rules.Effect.DENY, prompts=("*",), **nothing)
    content, unexpressed = wire.downgrade(testing.a_snapshot(testing.a_server(words, quiet)), 2)
    assert unexpressed == ("MCPServer crm/salesforce",)
    assert verdicts(second, content, testing.CRM, "query") == {"query": False}
    content, _ = wire.downgrade(testing.a_snapshot(testing.a_server(testing.allow("query"), words, quiet)), 2)
    assert verdicts(second, content, testing.CRM, "query") == {"query": True}


def test_a_deny_of_every_kind_stays_one_of_every_tool(second) -> None:
    everything = testing.deny(prompts=("*",), resources=("*",))
    view = testing.a_server(testing.allow(prompts=("*",)), everything)
    content, _ = wire.downgrade(testing.a_snapshot(view), 2)
    assert verdicts(second, content, testing.CRM, "query") == {"query": False}


def test_a_server_over_sse_is_denied_whole_to_a_reader_that_cannot_speak_it(second) -> None:
    endpoint = snapshot.Endpoint(url="https://old.example/sse", transport="SSE", stream_seconds=60.0)
    view = testing.a_server(testing.allow("query"))
    view = msgspec.structs.replace(view, endpoint=endpoint)
    for schema in (1, 2):
        content, unexpressed = wire.downgrade(testing.a_snapshot(view, INSIDE), schema)
        assert "MCPServer crm/salesforce" in unexpressed
        assert b"SSE" not in content
    assert verdicts(second, wire.downgrade(testing.a_snapshot(view), 2)[0], testing.CRM, "query") == {
        "query": False
    }


@pytest.mark.parametrize(
    "more",
    [
        {"features": snapshot.ClientFeatures(sampling=True)}, {"features": snapshot.ClientFeatures(roots=True)},
        {"features": snapshot.ClientFeatures(elicitation_url_hosts=("a.example",))}, {"instructions": True},
    ],
)  # fmt: skip
def test_what_an_entry_grants_besides_is_withheld_and_said_to_be(second, more) -> None:
    content, unexpressed = wire.downgrade(
        testing.a_snapshot(testing.a_server(testing.allow("query"), **more)), 2
    )
    assert unexpressed == ("MCPServer crm/salesforce",)
    assert verdicts(second, content, testing.CRM, "query") == {"query": True}


# To the third schema --------------------------------------------------------------------------------------------------

PERSONAL = testing.callers(groups=["okta:sales"])
VAULTED = snapshot.VaultSecret(path="outrider/servers/crm/salesforce/api", key="token", role="outrider-crm")


@pytest.mark.parametrize(
    "personal",
    [
        testing.a_server(testing.allow("query", callers=(PERSONAL,))),
        testing.a_server(testing.allow("query"), testing.deny("drop", callers=(PERSONAL,))),
        testing.a_server(testing.allow("query"), require_user=True),
        testing.a_server(
            testing.allow("query"), credentials=(snapshot.Credential(name="c", source=VAULTED),)
        ),
    ],
    ids=["an Allow of users", "a Deny of users", "a user must be there", "a secret in Vault"],
)
def test_a_server_that_asks_who_the_user_is_or_lends_from_vault_is_denied_whole(third, personal) -> None:
    plain = testing.a_server(testing.allow("query"), server=names.ServerId("crm", "plain"))
    content, unexpressed = wire.downgrade(testing.a_snapshot(plain, personal), 3)
    assert unexpressed == ("MCPServer crm/salesforce",)
    assert verdicts(third, content, testing.CRM, "query", "drop") == {"query": False, "drop": False}
    assert verdicts(third, content, plain.id, "query") == {"query": True}


def test_what_else_is_not_dialled_keeps_no_older_proxy_from_reading(third) -> None:
    network = snapshot.Network(
        allow=(snapshot.NetworkAllow(suffix=".corp", cidr="10.0.0.0/8"),), refused=("10.0.0.7",)
    )
    content, unexpressed = wire.downgrade(testing.a_snapshot(OUTSIDE, network=network), 3)
    assert unexpressed == ()
    assert verdicts(third, content, testing.CRM, "query") == {"query": True}
    assert third["wire"].decode_snapshot(content).network.allow[0].suffix == ".corp"


def test_a_compiled_world_is_read_by_every_schema(first, second, third) -> None:
    """Defaults that compile writes out, such as how long streams last, are left out where nobody knows them."""
    world = manifests.load({
        "a.yaml": b"""
apiVersion: outrider.dev/v1alpha1
kind: MCPServer
metadata: {name: s, namespace: crm}
spec: {description: One, endpoint: {url: "https://s.example/mcp", transport: StreamableHTTP, timeouts: {stream: 5m}}}
---
apiVersion: outrider.dev/v1alpha1
kind: MCPToolPolicy
metadata: {name: p, namespace: crm}
spec:
  targetRefs: [{name: s}]
  rules:
  - {name: all, effect: Allow, from: [{anyone: true}], tools: ["*"], prompts: ["*"], resources: ["*"]}
  - {name: none, effect: Deny, from: [{namespaces: [other]}]}
"""
    })  # fmt: skip
    made = compiler.snapshot(dataclasses.replace(world, api_servers=("10.0.0.7",)), "crm", "bot")
    for schema, theirs in ((1, first), (2, second), (3, third)):
        content, _ = wire.downgrade(made, schema)
        assert theirs["wire"].decode_snapshot(content).schema == schema
        assert verdicts(theirs, content, ("crm", "s"), "query") == {"query": True}
