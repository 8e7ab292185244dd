# SPDX-License-Identifier: Apache-2.0
"""What a server says of itself, cut to size; nonsense is nothing."""

from __future__ import annotations

import json
from typing import Any

import pytest

from outrider_sidecar import introductions, jsonrpc

NOTHING = introductions.Introduction(capabilities=frozenset())


def answer(result: Any) -> jsonrpc.Answer:
    return jsonrpc.answer(json.dumps({"jsonrpc": "2.0", "id": 1, "result": result}).encode())


def test_a_server_of_the_stateless_era_says_its_name_in_meta_and_every_revision() -> None:
    info = {"name": "sf-mcp", "version": "1.9", "title": "x"}
    said = {
        "supportedVersions": ["2026-07-28", "2025-11-25"],
        "_meta": {"io.modelcontextprotocol/serverInfo": info},
    }
    made = introductions.discovered(answer(said))
    assert made == introductions.Introduction("sf-mcp", "1.9", ("2025-11-25", "2026-07-28"), frozenset())
    beside = introductions.discovered(answer({"supportedVersions": ["2026-07-28"], "serverInfo": info}))
    assert (beside.name, beside.version) == ("sf-mcp", "1.9")


def test_a_server_of_the_handshake_era_speaks_what_was_agreed_on() -> None:
    said = {"protocolVersion": "2025-06-18", "serverInfo": {"name": "old", "version": "0.1"}}
    made = introductions.greeted(answer(said), "2025-06-18")
    assert made == introductions.Introduction("old", "0.1", ("2025-06-18",), frozenset())


@pytest.mark.parametrize(
    "said",
    [
        {},
        {"serverInfo": None, "supportedVersions": None, "_meta": None},
        {"serverInfo": [], "supportedVersions": "2026-07-28"},
        {"serverInfo": {"name": 7, "version": {}}, "supportedVersions": [1]},
        {"capabilities": "tools", "instructions": ["x"]},
        {"capabilities": {"tools": True, "prompts": None, "resources": []}, "instructions": None},
    ],
)
def test_nonsense_says_nothing(said: Any) -> None:
    assert introductions.discovered(answer(said)) == NOTHING


def test_what_is_too_long_or_cannot_be_seen_is_left_out() -> None:
    info = {"name": "a\u200bb\u202ec\n" + "x" * 10_000, "version": "\x00"}
    said = {
        "supportedVersions": ["x" * 100, *(f"20{year:02}-01-01" for year in range(60))],
        "serverInfo": info,
    }
    made = introductions.discovered(answer(said))
    assert made.name == "abc" + "x" * (introductions.CHARACTERS_MAX - 3)
    assert made.version == ""
    assert len(made.protocol_versions) == introductions.VERSIONS_MAX


def test_capabilities_are_those_that_are_relayed_with_the_flags_that_are_true() -> None:
    said = {
        "capabilities": {
            "tools": {"listChanged": True},
            "prompts": {"listChanged": False, "future": True},
            "resources": {"subscribe": True, "listChanged": "true"},
            "logging": {},
            "completions": {},
            "tasks": {"list": {}},
            "experimental": {"x": {}},
            "extensions": {"io.modelcontextprotocol/tasks": {}},
        }
    }
    wanted = {
        "tools", "tools.listChanged", "prompts", "resources", "resources.subscribe", "logging", "completions",
    }  # fmt: skip
    for made in (introductions.discovered(answer(said)), introductions.greeted(answer(said), "2025-11-25")):
        assert made.capabilities == wanted
        assert made.has(introductions.SUBSCRIBE)
        assert not made.has("tasks")
    assert not introductions.Introduction().has("tools")


def test_instructions_are_kept_whole_or_not_at_all() -> None:
    for text in ("Use query first.\nThen \u00e9.", "x" * introductions.INSTRUCTIONS_CHARACTERS_MAX):
        assert introductions.greeted(answer({"instructions": text}), "2025-11-25").instructions == text
    longer = "x" * (introductions.INSTRUCTIONS_CHARACTERS_MAX + 1)
    assert introductions.discovered(answer({"instructions": longer})).instructions == ""
