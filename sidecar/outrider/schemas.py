# SPDX-License-Identifier: Apache-2.0
"""Whether arguments fit a tool's inputSchema. The only importer of the schema library.

Called by bind, which asks for a schema's `flaw` and makes one `Validator` per tool without one, and by the check
`arguments_fit`. A schema is written by a server nobody vouches for, and the library cannot be interrupted: patterns are
linear, references go nowhere, size is capped (security.md R20), and what a check may cost is known before it begins.
"""

from __future__ import annotations

import hashlib
from typing import Any, Final

import msgspec

from outrider import effort

SCHEMA_BYTES_MAX: Final = 262_144
"""An inputSchema above this is not compiled (R20)."""

_COMPLAINT_CHARACTERS_MAX = 300
_PATTERN_BYTES_MAX = 1_048_576
_EXPLAINED_UNITS_MAX = 2_000
_EXPLAINED_COPIES_MAX = 20_000
_CHARACTERS_PER_VALUE = 64
_JUDGED_MAX = 20_000
_PLAIN_BYTES_MAX = 16_384
_SIGNS = (b'ef"', b"attern", b"unevaluated", b"\\u")
"""References, patterns, what is evaluated again, and characters that hide one of them: without these, and small, a schema
cannot be worse than its size, and most of ten thousand need no closer look."""


class SchemaRefused(ValueError):
    """The schema itself cannot be used. The text says why."""


_judged: dict[bytes, str | None] = {}


def flaw(schema: bytes) -> str | None:
    """Why arguments cannot be checked against this schema at all, such as "it refers to itself ..."; None when they can.

    Remembered by the schema's digest: lists and snapshots come again and again, and schemas hardly ever change.
    """
    key = hashlib.sha256(schema).digest()
    if key in _judged:
        return _judged[key]
    if len(_judged) >= _JUDGED_MAX:
        _judged.clear()
    try:
        if len(schema) > _PLAIN_BYTES_MAX or any(sign in schema for sign in _SIGNS):
            _compiled(schema)
        else:
            _library(msgspec.json.decode(schema))
    except SchemaRefused as refused:
        _judged[key] = str(refused)
    except (ValueError, RecursionError) as error:
        _judged[key] = f"it cannot be read: {error}"
    else:
        _judged[key] = None
    return _judged[key]


def _nowhere(uri: str) -> Any:
    raise SchemaRefused(f"it refers to {uri[:100]!r}, and schemas are never fetched")


class Validator:
    """For a schema without a flaw. Compiles on first use and keeps the result: ten thousand would be large."""

    __slots__ = ("_compiled", "_effort", "_schema")

    def __init__(self, schema: bytes) -> None:
        self._schema = schema
        self._compiled: Any = None
        self._effort: effort.Effort | None = None

    def objection(self, arguments: dict[str, Any]) -> str | None:
        """None when the arguments fit; otherwise a sentence for the model.

        Arguments that would take longer than about 50 ms to check are refused unchecked. Raises SchemaRefused for a
        schema that has a flaw.
        """
        if self._effort is None:
            self._effort, self._compiled = _compiled(self._schema)
        units = self._effort.units(arguments)
        if units > effort.UNITS_MAX:
            return "there is too much in them to be checked against this tool's inputSchema; send less in one call"
        if self._compiled.is_valid(arguments):
            return None
        if self._effort.has_branches and not _is_cheap(units, arguments):
            return (
                "there is too much in them to say which part does not fit; send less in one call to be told"
            )
        return self._complaint(arguments)

    def _complaint(self, arguments: dict[str, Any]) -> str:
        import jsonschema_rs  # loaded long ago, by _compiled

        try:
            self._compiled.validate(arguments)  # stops at the first error, which iter_errors does not
        except jsonschema_rs.ValidationError as error:
            where = "/".join(str(step) for step in error.instance_path)
            text = str(error.message)[:_COMPLAINT_CHARACTERS_MAX]
            return f"at /{where}: {text}" if where else text
        return "they are not valid"


def _is_cheap(units: int, arguments: dict[str, Any]) -> bool:
    """Whether an error can be made: one of anyOf or oneOf holds a copy of the value for every branch below it."""
    size = characters = 0
    waiting: list[Any] = [arguments]
    while waiting and size * units <= _EXPLAINED_COPIES_MAX:
        each = waiting.pop()
        if isinstance(each, str):
            characters += len(each)
        elif isinstance(each, dict):
            waiting.extend(each.values())
        elif isinstance(each, list):
            waiting.extend(each)
        size += 1
    copies = (size + characters // _CHARACTERS_PER_VALUE) * units
    return units <= _EXPLAINED_UNITS_MAX and copies <= _EXPLAINED_COPIES_MAX


def _compiled(schema: bytes) -> tuple[effort.Effort, Any]:
    """What checking costs, and the library's validator. Raises SchemaRefused."""
    if len(schema) > SCHEMA_BYTES_MAX:
        raise SchemaRefused(f"it is larger than {SCHEMA_BYTES_MAX} bytes")
    try:
        decoded = msgspec.json.decode(schema)
        return effort.Effort(decoded), _library(decoded)
    except SchemaRefused:
        raise
    except (ValueError, RecursionError) as error:
        raise SchemaRefused(_shortened(error)) from None


def _library(decoded: Any) -> Any:
    import jsonschema_rs  # here, because 8 MiB are only spent once a snapshot has a server with tools

    try:
        return jsonschema_rs.validator_for(
            decoded,
            pattern_options=jsonschema_rs.RegexOptions(size_limit=_PATTERN_BYTES_MAX),
            retriever=_nowhere,
            validate_formats=False,  # as the current draft has it: `format` says, it does not demand
        )
    except (jsonschema_rs.ValidationError, jsonschema_rs.ReferencingError, ValueError) as error:
        raise SchemaRefused(_shortened(error)) from None


def _shortened(error: Exception) -> str:
    return str(error).partition("\n")[0][:_COMPLAINT_CHARACTERS_MAX]
