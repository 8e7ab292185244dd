# SPDX-License-Identifier: Apache-2.0
"""Definitions as servers list them, and exposed names."""

from __future__ import annotations

import re

import hypothesis
from hypothesis import strategies as st

from outrider import catalog, names

TOOL = st.from_regex(r"[A-Za-z0-9_.-]{1,128}", fullmatch=True)
LABEL = st.from_regex(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?", fullmatch=True)


def test_a_definition_keeps_its_bytes() -> None:
    raw = b'{ "name":"query" , "x-unknown": 1.0, "inputSchema": {"$defs":{}} }'
    found = catalog.definitions([raw])
    assert found.tools[0].raw == raw
    assert found.tools[0].input_schema == b'{"$defs":{}}'


def test_unusable_and_repeated_names_are_dropped_and_named() -> None:
    raws = [b'{"name":"a"}', b'{"name":"a"}', b'{"name":"with space"}', b"[]", b"\xff", b'{"name":1}']
    found = catalog.definitions(raws)
    assert [tool.name for tool in found.tools] == ["a"]
    assert [each.name for each in found.dropped] == ["a", "with space", "?", "?", "?"]
    assert [each.reason.value for each in found.dropped][:3] == [
        "DuplicateName",
        "UnusableToolName",
        "DefinitionsRefused",
    ]


def test_more_tools_than_the_limit_are_dropped() -> None:
    found = catalog.definitions(b'{"name":"t%d"}' % number for number in range(catalog.TOOLS_MAX + 2))
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
