# SPDX-License-Identifier: Apache-2.0
"""Which object a place in a snapshot comes from, for a refusal that its author can do something about.

Called by snapshots when a snapshot was refused, so it reads content that the strict reader did not take. Refuses to guess.
"""

from __future__ import annotations

import re
from typing import Any

import msgspec

_SERVER = re.compile(r"\$\.servers\[(\d{1,9})\](?:\.(rules|limits)\[(\d{1,9})\])?")
_WORD_CHARACTERS_MAX = 253


def source(content: bytes, path: str) -> tuple[str, int]:
    """('MCPToolPolicy crm/sales', 4): kind, name and generation of what `path` is about; ('', 0) when nothing tells."""
    found = _SERVER.match(path)
    if found is None:
        return "", 0
    try:
        view = msgspec.json.decode(content)["servers"][int(found[1])]
        if found[2] is None:
            return _named("MCPServer", *view["id"]), _count(view["generation"])
        part = view[found[2]][int(found[3])]
        if found[2] == "limits":
            return _named("MCPBudget", part["namespace"], part["budget"]), 0
        namespace, policy, _rule, generation = part["ref"]
        return _named("MCPToolPolicy", namespace, policy), _count(generation)
    except (msgspec.DecodeError, LookupError, TypeError, ValueError, RecursionError):
        return "", 0


def _named(kind: str, namespace: Any, name: Any) -> str:
    words = [
        word for word in (namespace, name) if isinstance(word, str) and len(word) <= _WORD_CHARACTERS_MAX
    ]
    return f"{kind} {'/'.join(words)}" if len(words) == 2 else ""


def _count(given: Any) -> int:
    return given if type(given) is int and 0 <= given < 2**63 else 0
