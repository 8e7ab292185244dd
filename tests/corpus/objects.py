# SPDX-License-Identifier: Apache-2.0
"""Objects that are wrong (objects.yaml), as tests of files and of a real API server read them."""

from __future__ import annotations

import dataclasses
import pathlib
from typing import Any

import yaml

_FILE = pathlib.Path(__file__).parent / "objects.yaml"
_ALL: dict[str, Any] = yaml.safe_load(_FILE.read_text())
TEAMS = _ALL["teams"]
TOOLS = _ALL["tools"]
API_VERSION = "outrider.dev/v1alpha1"


@dataclasses.dataclass(frozen=True, slots=True)
class Case:
    """One wrong object and what is to be said about it."""

    it: str
    kind: str
    caught: str
    patch: dict[str, Any]
    api: tuple[str, ...]
    file: tuple[str, ...]
    condition: tuple[str, ...]
    before: dict[str, Any] | None

    def wrong(self, namespace: str, name: str) -> dict[str, Any]:
        """The object; a name or namespace that is what is wrong stays."""
        return merged(base(self.kind, namespace, name), self.patch)

    def right(self, namespace: str, name: str) -> dict[str, Any]:
        """The same object with nothing wrong."""
        return merged(base(self.kind, namespace, name), self.before or {})


def cases(*caught: str) -> list[Case]:
    """Those caught in one of these places."""
    made = [
        Case(
            it=each["it"],
            kind=each["kind"],
            caught=each["caught"],
            patch=each["patch"],
            api=tuple(each["api"]),
            file=tuple(each.get("file", ())),
            condition=tuple(each.get("condition", ())),
            before=each.get("before"),
        )
        for each in _ALL["cases"]
    ]
    return [case for case in made if case.caught in caught]


def base(kind: str, namespace: str, name: str) -> dict[str, Any]:
    """An object with nothing wrong in it."""
    head = {"apiVersion": API_VERSION, "kind": kind, "metadata": {"name": name, "namespace": namespace}}
    return merged(head, _ALL["base"][kind])


def there(namespace: str) -> dict[str, Any]:
    """The server that the `status` cases are about."""
    return merged(base("MCPServer", namespace, "there"), _ALL["there"])


def settings() -> dict[str, Any]:
    return {"apiVersion": API_VERSION, "kind": "Settings", "teams": TEAMS}


def valid(namespace: str) -> list[dict[str, Any]]:
    """Objects in which nothing is wrong; together they hold every field that exists."""
    return [
        merged({"apiVersion": API_VERSION, "metadata": {"namespace": namespace}}, each)
        for each in _ALL["valid"]
    ]


def merged(into: Any, patch: Any) -> Any:
    """RFC 7386: null removes, objects merge, everything else replaces."""
    if not isinstance(patch, dict):
        return patch
    made = dict(into) if isinstance(into, dict) else {}
    for key, value in patch.items():
        if value is None:
            made.pop(key, None)
        else:
            made[key] = merged(made.get(key), value)
    return made
