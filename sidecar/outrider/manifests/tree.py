# SPDX-License-Identifier: Apache-2.0
"""YAML as a tree that remembers its lines, of the harmless part of YAML only.

Called by manifests. Plain scalars mean what JSON says they mean (dates, `on` and `yes` are strings). Refuses duplicate
keys, tags, keys that are not strings, values that are empty, and documents that grow or nest without measure: it builds
from events with a stack of its own, so nothing a file holds can exhaust ours.
"""

from __future__ import annotations

import dataclasses
import re
from typing import Any

import yaml

DEPTH_MAX = 48
"""Our deepest field is at 9; JSON of arbitrary depth has no place in these files."""
NODES_MAX = 200_000
"""Of one file with every alias written out: what stops a small file from becoming a huge one."""

_LOADER: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
_INT = re.compile(r"-?(0|[1-9][0-9]{0,18})")
_FLOAT = re.compile(r"-?(0|[1-9][0-9]*)(\.[0-9]+)?([eE][+-]?[0-9]+)?")
_WORDS = {"true": True, "false": False, "null": None, "": None}

Path = tuple[str | int, ...]


@dataclasses.dataclass(frozen=True, slots=True)
class Flaw:
    """Something in the YAML itself; `line` counts from 1."""

    line: int
    field: str
    message: str


@dataclasses.dataclass(slots=True)
class Node:
    """A scalar, a list of nodes, or a mapping of key to (line of the key, node)."""

    line: int
    scalar: str | int | float | bool | None = None
    items: list[Node] | None = None
    entries: dict[str, tuple[int, Node]] | None = None
    size: int = 1
    height: int = 1

    def plain(self) -> Any:
        """The value as JSON has it."""
        if self.entries is not None:
            return {key: node.plain() for key, (_, node) in self.entries.items()}
        if self.items is not None:
            return [node.plain() for node in self.items]
        return self.scalar

    def line_of(self, path: Path) -> int:
        """The line of `path`, or of the nearest parent that exists."""
        at, line = self, self.line
        for step in path:
            if isinstance(step, int) and at.items is not None and step < len(at.items):
                at = at.items[step]
                line = at.line
            elif isinstance(step, str) and at.entries is not None and step in at.entries:
                line, at = at.entries[step]
            else:
                break
        return line


class _Stop(Exception):
    """Ends the reading of a file that cannot be read further."""


def read(content: bytes) -> tuple[list[Node], list[Flaw]]:
    """The documents of a file that hold something, and every flaw found; reading ends at the first malformed line."""
    builder = _Builder()
    try:
        text = content.decode("utf-8-sig")
        for event in yaml.parse(text, Loader=_LOADER):
            builder.take(event)
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        builder.flaws.append(Flaw(line, "", "is not UTF-8 text"))
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        reason = " ".join(part for part in (error.context, error.problem) if part)
        builder.flaws.append(Flaw(mark.line + 1 if mark else 1, "", f"malformed YAML: {reason}"))
    except yaml.YAMLError as error:
        builder.flaws.append(Flaw(1, "", f"malformed YAML: {str(error).splitlines()[0]}"))
    except _Stop:
        return builder.documents, builder.flaws
    return builder.documents, builder.flaws


@dataclasses.dataclass(slots=True)
class _Open:
    """A list or mapping whose end has not come; `key` is the key whose value comes next."""

    node: Node
    anchor: str | None
    key: tuple[int, str] | None = None


@dataclasses.dataclass(slots=True)
class _Builder:
    documents: list[Node] = dataclasses.field(default_factory=list)
    flaws: list[Flaw] = dataclasses.field(default_factory=list)
    stack: list[_Open] = dataclasses.field(default_factory=list)
    anchors: dict[str, Node] = dataclasses.field(default_factory=dict)

    def take(self, event: Any) -> None:
        line = event.start_mark.line + 1
        if getattr(event, "tag", None) is not None:
            self._flaw(line, "tags (such as !!str) are not used here; remove it")
        if isinstance(event, yaml.DocumentStartEvent):
            self.anchors = {}
        elif isinstance(event, yaml.ScalarEvent):
            self._scalar(event, line)
        elif isinstance(event, yaml.AliasEvent):
            self._alias(event.anchor, line)
        elif isinstance(event, yaml.CollectionStartEvent):
            if len(self.stack) >= DEPTH_MAX:
                self._stop(line, f"nests deeper than the {DEPTH_MAX} levels allowed")
            mapping = isinstance(event, yaml.MappingStartEvent)
            node = Node(line, entries={}) if mapping else Node(line, items=[])
            if self._wants_key():
                self._flaw(line, "a key must be a string")
            self.stack.append(_Open(node, event.anchor))
        elif isinstance(event, yaml.CollectionEndEvent):
            closed = self.stack.pop()
            self._place(closed.node, closed.anchor)

    def _scalar(self, event: Any, line: int) -> None:
        value: Any = event.value
        if event.implicit[0]:
            value = _resolved(event.value)
            if isinstance(value, float) and value in (float("inf"), float("-inf")):
                self._flaw(line, "is too large a number")
                value = 0
        if self._wants_key():
            if not isinstance(value, str):
                self._flaw(line, "a key must be a string; put it in quotes")
            self.stack[-1].key = (line, str(event.value))
            self._key_is_new(line, event)
            return
        if value is None and self.stack:
            self._flaw(line, "has no value; give it one, or remove the field")
        if value is None and not self.stack:
            return  # An empty document: comments only, or nothing between two separators.
        self._place(Node(line, scalar=value), event.anchor)

    def _key_is_new(self, line: int, event: Any) -> None:
        top = self.stack[-1]
        assert top.node.entries is not None
        if event.value in top.node.entries:
            first = top.node.entries[event.value][0]
            self.flaws.append(
                Flaw(line, self._field(event.value), f"the key is already on line {first}; remove one")
            )
        if event.anchor is not None:
            self._flaw(line, "a key cannot have an anchor")

    def _alias(self, anchor: str | None, line: int) -> None:
        known = self.anchors.get(anchor or "")
        if known is None:
            self._stop(line, f"the alias *{anchor} refers to nothing complete before it")
        elif self._wants_key():
            self._stop(line, "an alias cannot be a key")
        elif len(self.stack) + known.height > DEPTH_MAX:
            self._stop(line, f"nests deeper than the {DEPTH_MAX} levels allowed, aliases written out")
        else:
            self._place(known, None)

    def _place(self, node: Node, anchor: str | None) -> None:
        """Puts a complete node where it belongs."""
        if anchor is not None:
            self.anchors[anchor] = node
        if not self.stack:
            self.documents.append(node)
            return
        top = self.stack[-1]
        parent = top.node
        parent.size += node.size
        parent.height = max(parent.height, node.height + 1)
        if parent.size > NODES_MAX:
            self._stop(node.line, f"holds more than {NODES_MAX} values, aliases written out")
        if parent.items is not None:
            parent.items.append(node)
        elif top.key is not None and parent.entries is not None:
            parent.entries[top.key[1]] = (top.key[0], node)
            top.key = None
        elif parent.entries is not None:
            top.key = (node.line, "")  # A list or mapping stood where a key belongs; its flaw is noted.

    def _wants_key(self) -> bool:
        return bool(self.stack) and self.stack[-1].node.entries is not None and self.stack[-1].key is None

    def _field(self, last: str = "") -> str:
        text = ""
        for open_ in self.stack:
            if open_.node.items is not None:
                text += f"[{len(open_.node.items)}]"
            elif open_.key is not None and not (last and open_ is self.stack[-1]):
                text += f".{open_.key[1]}"
        return f"{text}.{last}".strip(".") if last else text.strip(".")

    def _flaw(self, line: int, message: str) -> None:
        self.flaws.append(Flaw(line, self._field(), message))

    def _stop(self, line: int, message: str) -> None:
        self._flaw(line, message)
        raise _Stop


def _resolved(text: str) -> str | int | float | bool | None:
    """What a plain scalar means by YAML's JSON schema: nothing but JSON's own words and numbers."""
    if text in _WORDS:
        return _WORDS[text]
    if _INT.fullmatch(text):
        return int(text)
    if _FLOAT.fullmatch(text):
        return float(text)
    return text
