# SPDX-License-Identifier: Apache-2.0
"""What an older sidecar is sent decodes there, and grants nothing that it could not hold to."""

from __future__ import annotations

import importlib
import io
import pathlib
import subprocess
import sys
import tarfile

import msgspec
import pytest

from outrider import bind, budgets, call, decide, decision, names, snapshot, testing, wire

ROOT = pathlib.Path(__file__).resolve().parent.parent
FIRST = "e1f29f7"
"""The commit whose proxy reads schema 1."""

SERVICE = names.ServerId("crm", "inside")
OUTSIDE = testing.a_server(testing.allow("query"))
INSIDE = testing.a_server(testing.allow("query"), server=SERVICE)
INSIDE = msgspec.structs.replace(
    INSIDE, endpoint=snapshot.Endpoint(url="http://s.crm.svc:80/mcp", service=True)
)


@pytest.fixture(scope="module")
def first(tmp_path_factory):
    """The modules of the first schema's proxy, as they were committed."""
    folder = tmp_path_factory.mktemp("first")
    ran = subprocess.run(
        ["git", "archive", FIRST, "sidecar/outrider"], cwd=ROOT, capture_output=True, check=False
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
        loaded = {name: importlib.import_module(f"outrider.{name}") for name in ("snapshot", "wire", "bind")}
        assert loaded["snapshot"].__file__.startswith(str(folder))
        assert loaded["snapshot"].SCHEMA == 1
    finally:
        sys.path.remove(str(folder / "sidecar"))
        for name in list(sys.modules):
            if name.split(".")[0] == "outrider":
                del sys.modules[name]
        sys.modules.update(ours)
        importlib.invalidate_caches()
    return loaded


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
    with pytest.raises(wire.WireError, match="schema 1 is not the 3"):
        wire.decode_snapshot(content)


def test_bytes_of_this_schema_are_not_taken_for_the_first(first) -> None:
    """Even where no new field is used: the number always stands in the bytes."""
    with pytest.raises(first["wire"].WireError, match="schema"):
        first["wire"].decode_snapshot(snapshot.canonical(testing.a_snapshot(OUTSIDE)))


@pytest.mark.parametrize("schema", [-1, 0, 4, 99])
def test_a_schema_that_was_never_written_is_refused_by_name(schema) -> None:
    with pytest.raises(ValueError, match=rf"schema {schema} cannot be written here; these can: 1, 2, 3"):
        wire.downgrade(testing.a_snapshot(), schema)
