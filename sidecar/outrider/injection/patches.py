# SPDX-License-Identifier: Apache-2.0
"""What to change so that one JSON object becomes another, as operations of RFC 6902.

Called by `outrider inject`, for people who want to read what the webhook would do. Lists are replaced whole.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any


def operations(before: Mapping[str, Any], after: Mapping[str, Any]) -> list[dict[str, Any]]:
    """A JSON Patch; empty when nothing differs."""
    return list(_operations(before, after, ""))


def _operations(before: Mapping[str, Any], after: Mapping[str, Any], path: str) -> Iterator[dict[str, Any]]:
    for name in before:
        if name not in after:
            yield {"op": "remove", "path": f"{path}/{_escaped(name)}"}
    for name, value in after.items():
        here = f"{path}/{_escaped(name)}"
        if name not in before:
            yield {"op": "add", "path": here, "value": value}
        elif isinstance(before[name], Mapping) and isinstance(value, Mapping):
            yield from _operations(before[name], value, here)
        elif before[name] != value:
            yield {"op": "replace", "path": here, "value": value}


def _escaped(name: str) -> str:
    return name.replace("~", "~0").replace("/", "~1")
