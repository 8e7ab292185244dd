# SPDX-License-Identifier: Apache-2.0
"""Names are parsed once, and what does not fit is not a name."""

from __future__ import annotations

import pytest

from outrider import identity, names


@pytest.mark.parametrize("text", ["crm/salesforce", "a/b", "a-1/b-2"])
def test_a_server_reference_is_namespace_slash_name(text: str) -> None:
    parsed = names.server_id(text)
    assert parsed is not None
    assert str(parsed) == text


@pytest.mark.parametrize(
    "text", ["", "a", "/a", "a/", "a/b/c", "A/b", "a_b/c", "-a/b", "a/b-", "a/" + "b" * 64, "a/b\n"]
)
def test_anything_else_is_not_a_server(text: str) -> None:
    assert names.server_id(text) is None


@pytest.mark.parametrize(
    ("text", "fits"),
    [
        ("query", True),
        ("a.b-c_D9", True),
        ("x" * 128, True),
        ("", False),
        ("x" * 129, False),
        ("a b", False),
        ("a/b", False),
        ("qu\u00e9ry", False),
        ("q\n", False),
    ],
)
def test_a_tool_name_is_128_plain_characters_at_most(text: str, fits: bool) -> None:
    assert names.is_tool_name(text) is fits


def test_a_rule_names_its_policy_to_the_agent_and_itself_in_full_elsewhere() -> None:
    ref = names.RuleRef("crm", "sales-only", "reads", 3)
    assert (str(ref), ref.object) == ("crm/sales-only/reads", "crm/sales-only")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("sa:agents/bot", ("agents", "bot")),
        ("agents/bot", ("agents", "bot")),
        ("bot", None),
        ("user:a/b", None),
    ],
)
def test_a_workload_is_named_with_or_without_its_prefix(text: str, expected: tuple[str, str] | None) -> None:
    assert identity.workload_ref(text) == expected


@pytest.mark.parametrize(
    ("text", "fits"),
    [
        ("Write a letter", True), ("R\u00e9sum\u00e9 \U0001f468\u200d\U0001f469", True), ("a\u00a0b", True), ("x" * 128, True), ("", False),
        ("x" * 129, False), ("a\nb", False), ("a\x7f", False), ("a\u0085", False), ("a\u2028b", False), ("a\ud800", False),
    ],
)  # fmt: skip
def test_a_prompts_name_is_any_text_without_controls(text: str, fits: bool) -> None:
    assert names.is_prompt_name(text) is fits
