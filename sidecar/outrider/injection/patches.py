# SPDX-License-Identifier: Apache-2.0
"""What to change so that one JSON object becomes another: as a merge patch (RFC 7386) and as operations (RFC 6902).

Called by admission, whose library speaks merge patches, and by `outrider inject`. Lists are replaced whole: nobody has to
know where in a list something stood.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any


def merge(before: Mapping[str, Any], after: Mapping[str, Any]) -> dict[str, Any]:
    """The merge patch; empty when nothing differs."""
    made: dict[str, Any] = {name: None for name in before if name not in after}
    for name, value in after.items():
        old = before.get(name)
        if name in before and old == value:
            continue
        both = isinstance(old, Mapping) and isinstance(value, Mapping)
        made[name] = merge(old, value) if both else value  # type: ignore[arg-type]
    return made


def operations(before: Mapping[str, Any], after: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The same as a JSON Patch."""
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
