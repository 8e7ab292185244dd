# SPDX-License-Identifier: Apache-2.0
"""Whether arguments fit a tool's inputSchema. The only importer of the schema library.

Called by bind, which makes one `Validator` per tool, and by the check `arguments_fit`. A schema is written by a server
nobody vouches for, so patterns are linear, references go nowhere and size is capped (security.md R20).
"""

from __future__ import annotations

from typing import Any

import msgspec

from outrider import catalog

_COMPLAINT_CHARACTERS_MAX = 300


class SchemaRefused(ValueError):
    """The schema itself cannot be used. The text says why."""


def _nowhere(uri: str) -> Any:
    raise SchemaRefused(f"it refers to {uri[:100]!r}, and schemas are never fetched")


class Validator:
    """Compiles on first use and keeps the result: ten thousand schemas at once would stop the loop."""

    __slots__ = ("_compiled", "_refused", "_schema")

    def __init__(self, schema: bytes) -> None:
        self._schema = schema
        self._compiled: Any = None
        self._refused: str | None = None

    def objection(self, arguments: dict[str, Any]) -> str | None:
        """None when the arguments fit; otherwise a sentence for the model. A schema that cannot be used refuses."""
        if self._compiled is None and self._refused is None:
            try:
                self._compiled = _compile(self._schema)
            except SchemaRefused as refused:
                self._refused = str(refused)
        if self._refused is not None:
            return f"the tool's inputSchema cannot be used: {self._refused}"
        if self._compiled.is_valid(arguments):
            return None
        error = next(self._compiled.iter_errors(arguments))
        where = "/".join(str(step) for step in error.instance_path)
        text = str(error.message)[:_COMPLAINT_CHARACTERS_MAX]
        return f"at /{where}: {text}" if where else text


def _compile(schema: bytes) -> Any:
    if len(schema) > catalog.SCHEMA_BYTES_MAX:
        raise SchemaRefused(f"it is larger than {catalog.SCHEMA_BYTES_MAX} bytes")
    import jsonschema_rs  # here, because 8 MiB are only spent once a tool needs them

    try:
        return jsonschema_rs.validator_for(
            msgspec.json.decode(schema), pattern_options=jsonschema_rs.RegexOptions(), retriever=_nowhere
        )
    except (jsonschema_rs.ValidationError, jsonschema_rs.ReferencingError, ValueError) as error:
        raise SchemaRefused(str(error).partition("\n")[0][:_COMPLAINT_CHARACTERS_MAX]) from None
