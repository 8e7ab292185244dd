# SPDX-License-Identifier: Apache-2.0
"""Definitions as servers list them, and exposed names."""

from __future__ import annotations

import json
import os
import re
import subprocess
from typing import Any

import hypothesis
import mcp.types
import mcp_types._v2025_11_25 as handshake
import mcp_types._v2026_07_28 as modern
import pytest
from hypothesis import strategies as st

from outrider import call, catalog, findings, names

TOOL = st.from_regex(r"[A-Za-z0-9_.-]{1,128}", fullmatch=True)
LABEL = st.from_regex(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?", fullmatch=True)


def tool(**members: Any) -> bytes:
    """A definition, with members changed, added or (None) taken away."""
    made = {"name": "t", "inputSchema": {"type": "object"}, **members}
    return json.dumps({key: value for key, value in made.items() if value is not None}).encode()


def test_a_definition_keeps_its_bytes() -> None:
    raw = b'{ "name":"query" , "x-unknown": 1.0, "inputSchema": {"type":"object","$defs":{}} }'
    found = catalog.definitions([raw])
    assert found.tools[0].raw == raw
    assert found.tools[0].input_schema == b'{"type":"object","$defs":{}}'


def test_unusable_and_repeated_names_are_dropped_and_named() -> None:
    raws = [tool(name="a"), tool(name="a"), tool(name="with space"), b"[]", b"\xff", b'{"name":1}']
    found = catalog.definitions(raws)
    assert [tool.name for tool in found.tools] == ["a"]
    assert [each.name for each in found.dropped] == ["a", "with space", "?", "?", "?"]
    assert [each.reason.value for each in found.dropped][:3] == [
        "DuplicateName",
        "UnusableToolName",
        "DefinitionsRefused",
    ]


def test_more_tools_than_the_limit_are_dropped() -> None:
    found = catalog.definitions(tool(name=f"t{number}") for number in range(catalog.TOOLS_MAX + 2))
    assert len(found.tools) == catalog.TOOLS_MAX
    assert len(found.dropped) == 2


@hypothesis.given(namespace=LABEL, name=LABEL, tool=TOOL, own=LABEL)
def test_an_exposed_name_is_short_and_in_characters_every_model_takes(
    namespace: str, name: str, tool: str, own: str
) -> None:
    exposed = catalog.exposed_name(names.ServerId(namespace, name), tool, own)
    assert re.fullmatch(r"[A-Za-z0-9_-]{1,64}", exposed)


@hypothesis.given(first=st.tuples(LABEL, LABEL, TOOL), second=st.tuples(LABEL, LABEL, TOOL), own=LABEL)
def test_two_tools_never_share_an_exposed_name(
    first: tuple[str, str, str], second: tuple[str, str, str], own: str
) -> None:
    hypothesis.assume(first != second)
    exposed = {
        catalog.exposed_name(names.ServerId(ns, name), tool, own) for ns, name, tool in (first, second)
    }
    assert len(exposed) == 2


def test_a_cut_name_is_55_characters_and_a_hash() -> None:
    exposed = catalog.exposed_name(names.ServerId("crm", "salesforce"), "x" * 100, "crm")
    assert re.fullmatch(r"salesforce__x{43}_[0-9a-f]{8}", exposed)


WRONG: list[tuple[str, dict[str, Any], str]] = [
    ("inputSchema", {"inputSchema": None}, "required"),
    ("inputSchema", {"inputSchema": []}, "object"),
    ("inputSchema", {"inputSchema": {"properties": {}}}, "type"),
    ("inputSchema", {"inputSchema": {"type": ["object"]}}, "str"),
    ("inputSchema.required", {"inputSchema": {"type": "object", "required": "a"}}, "array"),
    ("inputSchema.properties", {"inputSchema": {"type": "object", "properties": {"a": 7}}}, "object"),
    ("description", {"description": 7}, "str"),
    ("title", {"title": []}, "str"),
    ("annotations", {"annotations": []}, "object"),
    ("annotations.readOnlyHint", {"annotations": {"readOnlyHint": "perhaps"}}, "bool"),
    ("outputSchema", {"outputSchema": 7}, "object"),
    ("outputSchema", {"outputSchema": {"properties": {}}}, "type"),
    ("_meta", {"_meta": "x"}, "object"),
    ("icons", {"icons": {}}, "array"),
    ("icons", {"icons": [{}]}, "src"),
    ("execution", {"execution": True}, "object"),
    ("execution.taskSupport", {"execution": {"taskSupport": "never"}}, "enum"),
]


@pytest.mark.parametrize(("member", "changes", "expected"), WRONG)
def test_a_tool_that_clients_cannot_read_is_dropped_with_member_and_what_is_expected(
    member: str, changes: dict[str, Any], expected: str
) -> None:
    found = catalog.definitions([tool(name="good"), tool(**changes)])
    assert [each.name for each in found.tools] == ["good"]
    (dropped,) = found.dropped
    assert (dropped.name, dropped.reason) == ("t", findings.Reason.DEFINITIONS_REFUSED)
    assert member in dropped.detail
    assert expected in dropped.detail


@pytest.mark.parametrize(
    "broken",
    [
        b'{"name":"t","inputSchema":{"type":"object"},"x":1e999}',
        b'{"name":"t","inputSchema":{"type":"object"},"x":%s}' % (b"9" * 5_000),
        b'{"name":"t","inputSchema":{"type":"object"},"x":"\\ud800"}',
        b'{"name":"t","inputSchema":{"type":"object"},"x":' + b"[" * 150 + b"]" * 150 + b"}",
        b'{"name":"t","inputSchema":{"type":"object"},"x":' + b"[" * 5_000 + b"]" * 5_000 + b"}",
        b'{"name":"t","inputSchema":{"type":"object","properties":{"r":{"type":["string","null"],"x-mcp-header":"R"}}}}',
    ],
)
def test_nothing_escapes_whatever_one_tool_says(broken: bytes) -> None:
    found = catalog.definitions([broken, tool(name="good")])
    assert [each.name for each in found.tools] == ["good"]
    assert len(found.dropped) == 1


ANY = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=5,
)
SCHEMA = st.fixed_dictionaries(
    {"type": st.just("object")},
    optional={
        "$schema": ANY,
        "schema_": ANY,
        "properties": ANY,
        "required": st.lists(ANY, max_size=2),
        "x": ANY,
    },
)
MEMBERS = {
    "outputSchema": SCHEMA | ANY, "title": ANY, "description": ANY, "_meta": ANY,
    "meta": ANY, "input_schema": ANY, "outputschema": ANY, "execution": ANY | st.fixed_dictionaries({"taskSupport": ANY | st.just("optional")}),
    "annotations": ANY | st.fixed_dictionaries({}, optional={"title": ANY, "readOnlyHint": ANY, "read_only_hint": ANY}),
    "icons": ANY | st.lists(st.fixed_dictionaries({"src": st.text()}, optional={"sizes": ANY, "theme": ANY, "mimeType": ANY, "mime_type": ANY}), max_size=2),
}  # fmt: skip


def test_every_official_client_reads_whatever_is_kept() -> None:
    kept: list[bytes] = []

    @hypothesis.settings(max_examples=400, deadline=None, database=None)
    @hypothesis.given(members=st.fixed_dictionaries({"inputSchema": SCHEMA | ANY}, optional=MEMBERS))
    def collect(members: dict[str, Any]) -> None:
        found = catalog.definitions([json.dumps({"name": "t", **members}).encode()])
        kept.extend(each.raw for each in found.tools)
        for each in found.tools:
            page = {"tools": [json.loads(each.raw)]}
            mcp.types.ListToolsResult.model_validate(page, by_name=False)
            handshake.ListToolsResult.model_validate(page, by_name=False)
            stamped = {**page, "resultType": "complete", "ttlMs": 1, "cacheScope": "private"}
            modern.ListToolsResult.model_validate(stamped, by_name=False)

    collect()
    assert len(kept) > 20
    code = "import sys, mcp.types; print(len(mcp.types.ListToolsResult.model_validate_json(sys.stdin.buffer.read()).tools))"
    page = b'{"tools":[' + b",".join(kept) + b"]}"
    legacy = os.environ["OUTRIDER_LEGACY_PYTHON"]
    done = subprocess.run([legacy, "-c", code], input=page, capture_output=True, check=False)
    assert done.returncode == 0, done.stderr.decode()
    assert int(done.stdout) == len(kept)


URI = (
    st.text(max_size=12)
    | st.text(alphabet="a:/.[]@%?#1-xé_~!", max_size=16)
    | st.from_regex(r"[a-z]{1,5}:[/?#a-z0-9@:.\\[\\]-]{0,12}", fullmatch=True)
)
SCHEMES = st.builds(
    "{}:{}".format, st.sampled_from(["http", "https", "file", "crm", "ws", "FTP", "urn"]), URI
)
COMMON = {
    "title": ANY, "description": ANY, "_meta": ANY, "icons": MEMBERS["icons"], "mimeType": ANY, "size": ANY, "name_": ANY,
    "annotations": ANY | st.fixed_dictionaries({}, optional={
        "audience": ANY | st.lists(st.sampled_from(["user", "assistant", "robot"]), max_size=2), "priority": ANY | st.floats(-1, 2),
        "lastModified": ANY,
    }),
}  # fmt: skip
ARGUMENTS = st.lists(
    st.fixed_dictionaries({"name": st.text(max_size=3) | ANY}, optional={"description": ANY, "required": ANY, "title": ANY}), max_size=2
)  # fmt: skip
FORMS = {
    catalog.Form.PROMPTS: (
        "ListPromptsResult", {"name": st.text(min_size=1, max_size=9)}, {"arguments": ARGUMENTS | ANY},
    ),
    catalog.Form.RESOURCES: ("ListResourcesResult", {"name": st.text(max_size=3) | ANY, "uri": SCHEMES | URI}, {}),
    catalog.Form.TEMPLATES: (
        "ListResourceTemplatesResult", {"name": st.text(max_size=3) | ANY, "uriTemplate": SCHEMES | URI}, {},
    ),
}  # fmt: skip


@pytest.mark.parametrize("form", FORMS, ids=lambda form: form.value)
def test_every_official_client_reads_whatever_is_kept_of_other_kinds(form: catalog.Form) -> None:
    result, needed, more = FORMS[form]
    kept: list[bytes] = []

    @hypothesis.settings(max_examples=600, deadline=None, database=None)
    @hypothesis.given(members=st.fixed_dictionaries(needed, optional={**COMMON, **more}))
    def collect(members: dict[str, Any]) -> None:
        found = catalog.read(form, [json.dumps(members).encode()])
        kept.extend(each.raw for each in found.kept)
        for each in found.kept:
            page = {form.value: [json.loads(each.raw)]}
            getattr(mcp.types, result).model_validate(page, by_name=False)
            getattr(handshake, result).model_validate(page, by_name=False)
            stamped = {**page, "resultType": "complete", "ttlMs": 1, "cacheScope": "private"}
            getattr(modern, result).model_validate(stamped, by_name=False)

    collect()
    assert len(kept) > 20
    code = (
        f"import sys, mcp.types\nfor line in sys.stdin.buffer:\n"
        f"    try: mcp.types.{result}.model_validate_json(line)\n"
        f"    except ValueError as error: print(line, error)"
    )
    lines = b"".join(b'{"%s":[%s]}\n' % (form.value.encode(), raw) for raw in kept)
    legacy = os.environ["OUTRIDER_LEGACY_PYTHON"]
    done = subprocess.run([legacy, "-c", code], input=lines, capture_output=True, check=False)
    assert done.returncode == 0, done.stderr.decode()
    assert done.stdout.decode() == ""


def test_each_list_is_read_by_its_own_names_and_what_is_dropped_says_of_which_kind() -> None:
    found = catalog.definitions(
        [tool(name="query")],
        prompts=[b'{"name":"Write a letter"}', b'{"name":"a\\nb"}', b'{"name":"Write a letter"}', b"{}"],
        resources=[b'{"uri":"a://b","name":"b","x":[1.50]}', b'{"uri":"a://../b","name":"b"}', b'{"uri":"plain","name":"b"}'],
        templates=[b'{"uriTemplate":"a://{b}","name":"b"}', b'{"uriTemplate":"a://{b","name":"b"}'],
    )  # fmt: skip
    kinds = [call.Kind.TOOL, call.Kind.PROMPT, call.Kind.RESOURCE]
    assert [found.names(kind) for kind in kinds] == [("query",), ("Write a letter",), ("a://b",)]
    assert found.resources[0].raw == b'{"uri":"a://b","name":"b","x":[1.50]}'
    assert [each.name for each in found.templates] == ["a://{b}"]
    assert [(each.kind.value, each.name, each.reason.value) for each in found.dropped] == [
        ("Prompt", "a\nb", "UnusablePromptName"),
        ("Prompt", "Write a letter", "DuplicateName"),
        ("Prompt", "?", "DefinitionsRefused"),
        ("Resource", "a://../b", "UnusableUri"),
        ("Resource", "plain", "UnusableUri"),
        ("Resource", "a://{b", "UnusableUri"),
    ]
