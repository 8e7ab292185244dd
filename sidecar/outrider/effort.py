# SPDX-License-Identifier: Apache-2.0
"""How much work a schema can make of arguments: bounded before the validator, which nothing can interrupt, is let at them.

Called by schemas only. The bound is never too low: every branch counts as taken, every pattern as tried. It is counted, not
enumerated: a schema of 1 KB can stand for 2^30 evaluations, and saying so costs as much as reading it. Judges no schema's
sense.
"""

from __future__ import annotations

import dataclasses
import urllib.parse
from collections.abc import Iterator
from typing import Any, Final

from outrider import patterns

UNITS_MAX: Final = 2_000_000
"""What one check of arguments may cost. A unit is about 10 to 25 ns: one subschema against one value."""

EXPANDED_MAX: Final = 10_000
"""More evaluations of one and the same value than this, references written out, and a schema is refused."""

CHAIN_MAX: Final = 200
"""How many subschemas may stand behind one another for one value: the validator recurses along them."""

_PLACES_MAX = 4_096
_BUILDING_UNITS = 40
_AGAIN = 3
_FRACTION_UNITS = 40
_TINY_UNITS = 1_000
_COMPARED_UNITS = 60
_INTEGER_BITS = 63
_REFERENCES = ("$ref", "$dynamicRef", "$recursiveRef")
_IN_PLACE = ("not", "if", "then", "else", "allOf", "anyOf", "oneOf")
_IN_PLACE_MAPS = ("dependentSchemas", "dependencies")
_OF_ITEMS = ("items", "prefixItems", "additionalItems", "contains", "unevaluatedItems")
_OF_KEYS = ("additionalProperties", "unevaluatedProperties")


class TooMuch(ValueError):
    """A schema that cannot be bounded. The text says why."""


@dataclasses.dataclass(slots=True)
class _Node:
    """One subschema: what it costs by itself, and what it applies to the same value, to members and to elements."""

    units: int = 1
    states: int = 0
    key_states: int = 0
    is_unique: bool = False
    branches: bool = False
    same: list[int] = dataclasses.field(default_factory=list)
    named: dict[str, int] = dataclasses.field(default_factory=dict)
    members: list[int] = dataclasses.field(default_factory=list)
    keys: list[int] = dataclasses.field(default_factory=list)
    elements: list[int] = dataclasses.field(default_factory=list)
    again: int = 1


@dataclasses.dataclass(slots=True)
class _Place:
    """All that applies to one value: nodes with how often each, and what was found out about values inside."""

    nodes: list[tuple[_Node, int]]
    units: int
    states: int
    key_states: int
    is_unique: bool
    named: dict[str, _Place] = dataclasses.field(default_factory=dict)
    others: dict[int, int] = dataclasses.field(default_factory=dict)
    other: _Place | None = None
    element: _Place | None = None
    key: _Place | None = None
    names: frozenset[str] = frozenset()
    known: bool = False


class Effort:
    """The structure of one schema (decoded JSON). Raises TooMuch when there is no bound worth having."""

    def __init__(self, schema: Any) -> None:
        self._schema = schema
        self._anchors, self._has_ids = _labels(schema)
        self._nodes: list[_Node] = []
        self._numbers: dict[int, int] = {}
        self._places: dict[tuple[tuple[int, int], ...], _Place] = {}
        self._built = 0
        self._read_all()
        self._expand_all()
        if sum(node.states + node.key_states for node in self._nodes) > patterns.STATES_MAX:
            raise TooMuch(
                f"its patterns have more than {patterns.STATES_MAX} states, with repetitions written out"
            )
        self.has_branches = any(node.branches for node in self._nodes)
        self._schema, self._numbers, self._anchors = None, {}, {}

    def units(self, arguments: Any) -> int:
        """An upper bound of what checking this costs; above UNITS_MAX it has stopped counting."""
        self._built = 0
        if len(self._places) > _PLACES_MAX:
            self._places.clear()
        total = 0
        unique = False
        waiting: list[tuple[_Place, Any]] = [(self._place({0: 1}), arguments)]
        while waiting and total + self._built * _BUILDING_UNITS <= UNITS_MAX:
            place, value = waiting.pop()
            self._complete(place)
            total += place.units
            unique = unique or place.is_unique
            if isinstance(value, str):
                total += len(value) * place.states
            elif isinstance(value, dict):
                for key, inner in value.items():
                    total += 1 + len(key) * place.key_states
                    if place.key is not None:
                        waiting.append((place.key, key))
                    if (under := self._named(place, key) if key in place.names else place.other) is not None:
                        waiting.append((under, inner))
            elif isinstance(value, list) and place.element is not None:
                waiting.extend((place.element, inner) for inner in value)
        wide = _wide(arguments) if unique else 0
        # The validator compares what does not fit 64 bits pair by pair; everything else it hashes.
        return total + self._built * _BUILDING_UNITS + wide * wide * _COMPARED_UNITS // 2

    def _read_all(self) -> None:
        waiting = [self._schema]
        self._numbers[id(self._schema)] = 0
        self._nodes.append(_Node())
        while waiting:
            schema = waiting.pop()
            if isinstance(schema, dict):
                self._read(self._nodes[self._numbers[id(schema)]], schema, waiting)

    def _number(self, schema: Any, waiting: list[Any]) -> int:
        found = self._numbers.get(id(schema)) if isinstance(schema, dict) else None
        if found is None:
            found = len(self._nodes)
            self._nodes.append(_Node())
            if isinstance(schema, dict):
                self._numbers[id(schema)] = found
                waiting.append(schema)
        return found

    def _read(self, node: _Node, schema: dict[str, Any], waiting: list[Any]) -> None:
        def numbers(*keywords: str) -> list[int]:
            return [
                self._number(each, waiting)
                for keyword in keywords
                if keyword in schema
                for each in _schemas(schema[keyword])
            ]

        node.units = _own(schema)
        node.states = patterns.states(schema.get("pattern"))
        node.is_unique = schema.get("uniqueItems") is True
        node.branches = "anyOf" in schema or "oneOf" in schema
        node.same = numbers(*_IN_PLACE)
        node.same += [
            self._number(each, waiting) for key in _IN_PLACE_MAPS for each in _values(schema.get(key))
        ]
        node.same += [
            self._number(self._target(schema[key]), waiting) for key in _REFERENCES if key in schema
        ]
        node.elements = numbers(*_OF_ITEMS)
        node.keys = numbers("propertyNames")
        tried = schema.get("patternProperties")
        if isinstance(tried, dict):
            node.key_states = sum(map(patterns.states, tried))
            node.members = [self._number(each, waiting) for each in _values(tried)]
        node.members += numbers(*_OF_KEYS)
        properties = schema.get("properties")
        if isinstance(properties, dict):
            node.named = {key: self._number(each, waiting) for key, each in properties.items() if _is(each)}
        if "unevaluatedProperties" in schema or "unevaluatedItems" in schema:
            node.again = _AGAIN  # to know what was evaluated, the validator does it all again

    def _target(self, reference: Any) -> Any:
        """The subschema that a reference stands for. Raises TooMuch for anything outside this schema."""
        own = self._schema.get("$id") if isinstance(self._schema, dict) else None
        if not isinstance(reference, str):
            raise TooMuch("a reference is not a string")
        if isinstance(own, str):
            reference = reference.removeprefix(own.rstrip("#"))
        if reference and not reference.startswith("#"):
            raise TooMuch(f"it refers to {reference[:100]!r}, and schemas are never fetched")
        if self._has_ids:
            raise TooMuch(
                "it has references, and an `$id` that is not its own: what they mean is not one thing"
            )
        path = urllib.parse.unquote(reference[1:])
        if path and not path.startswith("/"):
            if path not in self._anchors:
                raise TooMuch(f"it refers to {reference[:100]!r}, which it does not have")
            return self._anchors[path]
        value = self._schema
        for step in path.split("/")[1:]:
            key = step.replace("~1", "/").replace("~0", "~")
            if isinstance(value, dict) and key in value:
                value = value[key]
            elif isinstance(value, list) and key.isascii() and key.isdigit() and int(key[:9]) < len(value):
                value = value[int(key[:9])]
            else:
                raise TooMuch(f"it refers to {reference[:100]!r}, which it does not have")
        if not _is(value):
            raise TooMuch(f"it refers to {reference[:100]!r}, which is no schema")
        return value

    def _expand_all(self) -> None:
        """References written out, how many evaluations does one value get from each node? Linear in edges."""
        counts: dict[int, tuple[int, int]] = {}
        for start in range(len(self._nodes)):
            open_ = {start} if start not in counts else set()
            path = [(start, iter(self._nodes[start].same))] if open_ else []
            while path:
                number, left = path[-1]
                following = next((each for each in left if each not in counts), None)
                if following is None:
                    node = self._nodes[number]
                    inner = [counts[each] for each in node.same]
                    units = 1 + node.again * sum(each for each, _ in inner)
                    depth = 1 + max((each for _, each in inner), default=0)
                    if units > EXPANDED_MAX:
                        raise TooMuch(f"one value would be checked more than {EXPANDED_MAX} times")
                    if depth > CHAIN_MAX:
                        raise TooMuch(
                            f"more than {CHAIN_MAX} subschemas stand behind one another for one value"
                        )
                    counts[number] = (units, depth)
                    open_.discard(number)
                    path.pop()
                elif following in open_:
                    raise TooMuch("it refers to itself for one and the same value, without end")
                else:
                    open_.add(following)
                    path.append((following, iter(self._nodes[following].same)))

    def _place(self, start: dict[int, int]) -> _Place:
        """What applies to a value that these nodes, so many times each, are asked about."""
        key = tuple(sorted(start.items()))
        if (held := self._places.get(key)) is not None:
            return held
        times = dict(start)
        for number in reversed(self._order(start)):
            node = self._nodes[number]
            for each in node.same:
                times[each] = times.get(each, 0) + times[number] * node.again
        nodes = [(self._nodes[number], often) for number, often in times.items()]
        self._built += len(nodes) + sum(len(node.same) for node, _ in nodes)
        made = _Place(
            nodes,
            units=sum(node.units * often for node, often in nodes),
            states=sum(node.states * often for node, often in nodes),
            key_states=sum(node.key_states * often for node, often in nodes),
            is_unique=any(node.is_unique for node, _ in nodes),
        )
        self._places[key] = made
        return made

    def _order(self, start: dict[int, int]) -> list[int]:
        """Every node for the same value, each after all that it leads to (there are no cycles: _expand_all)."""
        done: dict[int, None] = {}
        for first in start:
            path = [(first, iter(self._nodes[first].same))] if first not in done else []
            while path:
                number, left = path[-1]
                following = next((each for each in left if each not in done), None)
                if following is None:
                    done[number] = None
                    path.pop()
                else:
                    path.append((following, iter(self._nodes[following].same)))
        return list(done)

    def _complete(self, place: _Place) -> None:
        """Makes the places of values inside this one; those of named members are made when somebody names them."""
        if place.known:
            return
        place.known = True
        keys: dict[int, int] = {}
        elements: dict[int, int] = {}
        for node, often in place.nodes:
            weight = often * node.again
            self._built += 1 + len(node.members) + len(node.keys) + len(node.elements)
            _add(place.others, node.members, weight)
            _add(keys, node.keys, weight)
            _add(elements, node.elements, weight)
        place.other = self._place(place.others) if place.others else None
        place.key = self._place(keys) if keys else None
        place.element = self._place(elements) if elements else None
        place.names = frozenset().union(*(node.named for node, _ in place.nodes))

    def _named(self, place: _Place, name: str) -> _Place:
        """What applies to this member: what names it, and all that is for any member (counted as if it applied)."""
        if (held := place.named.get(name)) is not None:
            return held
        counts = dict(place.others)
        for node, often in place.nodes:
            if name in node.named:
                _add(counts, (node.named[name],), often * node.again)
        self._built += len(place.nodes) + len(counts)
        made = place.named[name] = self._place(counts)
        return made


def _add(counts: dict[int, int], numbers: list[int] | tuple[int, ...], often: int) -> None:
    for number in numbers:
        counts[number] = counts.get(number, 0) + often


def _is(value: Any) -> bool:
    return isinstance(value, dict | bool)


def _values(value: Any) -> Iterator[Any]:
    return (each for each in value.values() if _is(each)) if isinstance(value, dict) else iter(())


def _schemas(value: Any) -> Iterator[Any]:
    """The subschemas of a keyword that has one or a list of them."""
    return (each for each in (value if isinstance(value, list) else [value]) if _is(each))


def _walk(value: Any) -> Iterator[Any]:
    waiting = [value]
    while waiting:
        each = waiting.pop()
        yield each
        if isinstance(each, dict):
            waiting.extend(each.values())
        elif isinstance(each, list):
            waiting.extend(each)


def _labels(schema: Any) -> tuple[dict[str, Any], bool]:
    """Anchors, and whether anything but the whole claims an identity of its own."""
    anchors: dict[str, Any] = {}
    has_ids = False
    draft = schema.get("$schema") if isinstance(schema, dict) else None
    claims = ("$id", "$schema", "id") if "draft-04" in str(draft) else ("$id", "$schema")
    for each in _walk(schema):
        if not isinstance(each, dict):
            continue
        if each is not schema:
            has_ids = has_ids or any(isinstance(each.get(key), str) for key in claims)
        for key in ("$anchor", "$dynamicAnchor"):
            if isinstance(name := each.get(key), str) and anchors.setdefault(name, each) is not each:
                has_ids = True  # one name for two things
    return anchors, has_ids


def _own(schema: dict[str, Any]) -> int:
    """What a subschema costs by itself, patterns and what it applies left out."""
    units = 1 + len(schema) // 4
    if isinstance(schema.get("required"), list):
        units += len(schema["required"]) // 2
    if isinstance(schema.get("patternProperties"), dict):
        units += len(schema["patternProperties"])
    for key in ("dependentRequired", "dependencies"):
        if isinstance(schema.get(key), dict):
            units += sum(1 + len(each) for each in schema[key].values() if isinstance(each, list))
    if (choices := schema.get("enum")) is not None:
        units += (
            1
            if isinstance(choices, list) and all(isinstance(each, str) for each in choices)
            else _compared(choices)
        )
    if "const" in schema:
        units += _compared(schema["const"])
    if (multiple := schema.get("multipleOf")) is not None:
        units += _FRACTION_UNITS if isinstance(multiple, int) else _TINY_UNITS
    return units


def _compared(value: Any) -> int:
    """Numbers of two kinds, and whole objects, are compared slowly; text and words are not."""
    return sum(
        1 if each is None or isinstance(each, str | bool) else _COMPARED_UNITS for each in _walk(value)
    )


def _wide(value: Any) -> int:
    return sum(isinstance(each, int) and each.bit_length() > _INTEGER_BITS for each in _walk(value))
