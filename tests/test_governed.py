# SPDX-License-Identifier: Apache-2.0
"""What a governed request is about, read from its params and from nothing else."""

from __future__ import annotations

from typing import Any

import pytest
from tests import asking

from outrider import call, testing
from outrider_sidecar import governed


@pytest.mark.parametrize(
    ("method", "params", "kind", "verb", "name"),
    [
        ("tools/call", {"name": "q", "uri": "x://y"}, call.Kind.TOOL, call.Method.CALL, "q"),
        ("prompts/get", {"name": "p"}, call.Kind.PROMPT, call.Method.GET, "p"),
        ("resources/read", {"uri": "a://b", "name": "p"}, call.Kind.RESOURCE, call.Method.READ, "a://b"),
        ("completion/complete", {"ref": {"type": "ref/prompt", "name": "p", "uri": "u"}}, call.Kind.PROMPT, call.Method.COMPLETE, "p"),
        ("completion/complete", {"ref": {"type": "ref/resource", "uri": "a://{x}"}}, call.Kind.RESOURCE, call.Method.COMPLETE, "a://{x}"),
    ],
)  # fmt: skip
def test_each_method_names_one_thing(
    method: str, params: dict[str, Any], kind: call.Kind, verb: call.Method, name: str
) -> None:
    named = governed.named(asking.subject(method, params).message)
    assert (named.kind, named.method, named.name) == (kind, verb, name)
    made = named.at(testing.CRM)
    assert (made.server, made.kind, made.method, made.name) == (testing.CRM, kind, verb, name)
    assert named.at(testing.CRM, "own").name == "own"


@pytest.mark.parametrize("name", [None, 5, ["q"], {"name": "q"}])
@pytest.mark.parametrize("method", sorted(governed.METHODS))
def test_what_is_no_name_is_a_name_nobody_has(method: str, name: Any) -> None:
    for params in ({}, {"name": name, "uri": name}, {"ref": name}, {"ref": {"type": name, "name": "q"}}):
        assert governed.named(asking.subject(method, params).message).name == ""


def test_arguments_are_what_a_call_or_a_prompt_is_given_and_a_completion_what_is_completed() -> None:
    given = {"name": "n", "uri": "u", "arguments": {"a": 1}}
    assert governed.named(asking.subject("tools/call", given).message).arguments == {"a": 1}
    assert governed.named(asking.subject("prompts/get", given).message).arguments == {"a": 1}
    assert governed.named(asking.subject("resources/read", given).message).arguments is None
    half = {"ref": {"type": "ref/prompt", "name": "n"}, "argument": {"name": "a", "value": "v"}, "x": 1}
    completed = governed.named(asking.subject("completion/complete", half).message)
    assert completed.arguments == {"argument": {"name": "a", "value": "v"}}
