# SPDX-License-Identifier: Apache-2.0
"""Names, parsed once at a door and never plain strings again.

Called by everything. Refuses to guess: what does not fit the pattern is not a name.
"""

from __future__ import annotations

import re
import unicodedata
from typing import NamedTuple

GROUP = "outrider.dev"
API_VERSION = f"{GROUP}/v1alpha1"

TOOL_NAME_CHARACTERS_MAX = 128
PROMPT_NAME_CHARACTERS_MAX = 128
_UNSPEAKABLE = frozenset({"Cc", "Cs", "Zl", "Zp"})
"""Controls, lone surrogates and line separators: what no JSON text, log line or terminal should have to carry."""

_TOOL = re.compile(r"[A-Za-z0-9_.-]{1,128}")
_LABEL = re.compile(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?")


class ServerId(NamedTuple):
    """An MCPServer object: `namespace/name`."""

    namespace: str
    name: str

    def __str__(self) -> str:
        return f"{self.namespace}/{self.name}"


class RuleRef(NamedTuple):
    """One rule of one MCPToolPolicy at one generation, as audit, explain and answers name it."""

    namespace: str
    policy: str
    rule: str
    generation: int

    def __str__(self) -> str:
        return f"{self.namespace}/{self.policy}/{self.rule}"

    @property
    def object(self) -> str:
        """`namespace/policy`: what the agent is told."""
        return f"{self.namespace}/{self.policy}"


def is_tool_name(text: str) -> bool:
    """R9: only these are listed or callable; anything else upstream is dropped and reported."""
    return _TOOL.fullmatch(text) is not None


def is_prompt_name(text: str) -> bool:
    """Any text of 1 to 128 characters without controls (resources.md)."""
    if text.isprintable():
        return 0 < len(text) <= PROMPT_NAME_CHARACTERS_MAX
    return len(text) <= PROMPT_NAME_CHARACTERS_MAX and not any(
        unicodedata.category(each) in _UNSPEAKABLE for each in text
    )


def is_label(text: str) -> bool:
    """An RFC 1123 label: what Kubernetes accepts as namespace and what we demand of server names."""
    return _LABEL.fullmatch(text) is not None


def server_id(text: str) -> ServerId | None:
    """Parses `namespace/name`; None when it is not exactly that."""
    namespace, slash, name = text.partition("/")
    if slash and is_label(namespace) and is_label(name):
        return ServerId(namespace, name)
    return None
