# SPDX-License-Identifier: Apache-2.0
"""What a server says it offers, and what its tools and prompts are called where servers are merged.

Called by the proxy's lists (which drains servers), by bind, and by `can-i` on saved definitions. Definitions are kept as
the bytes they came in: unknown fields, annotations and `$defs` survive (protocol.md rule 1).
"""

from __future__ import annotations

import dataclasses
import enum
import hashlib
import re
from collections.abc import Iterable, Mapping
from typing import Annotated, Any, Literal, NamedTuple

import msgspec

from outrider import call, findings, mirrors, names, uris

TOOLS_MAX = 10_000
"""More than this of one list are not listed: the rest is dropped and reported."""

DEPTH_MAX = 64
"""A definition nested deeper than this is dropped: parsers of clients give up at 200, and lose the whole list."""

_DETAIL_CHARACTERS_MAX = 200
_SHOWN_CHARACTERS_MAX = 128
_EXPOSED_CHARACTERS_MAX = 64
_EXPOSED_HEAD_CHARACTERS = 55
_NOT_EXPOSABLE = re.compile(r"[^A-Za-z0-9_-]")


@dataclasses.dataclass(frozen=True, slots=True)
class Definition:
    """One thing as its server defines it: `raw` is the whole JSON object, `input_schema` that member of a tool's.

    `name` of a resource is its URI, of a template its `uriTemplate`. `mirrors` are the arguments a tool wants repeated in headers.
    """

    name: str
    raw: bytes
    input_schema: bytes | None
    mirrors: tuple[mirrors.Mirror, ...] = ()


class Dropped(NamedTuple):
    """What is neither listed nor callable, and why. `name` is "?" when not even that could be read.

    `detail` says which member is wrong and what is expected of it; "" when the reason says it all. Templates are of kind RESOURCE.
    """

    name: str
    reason: findings.Reason
    detail: str = ""
    kind: call.Kind = call.Kind.TOOL


@dataclasses.dataclass(frozen=True, slots=True)
class Definitions:
    """What one server lists, each kind in its order, and what was left out of it.

    `unobserved` are kinds of which it is not known yet; of those there is nothing here.
    """

    tools: tuple[Definition, ...] = ()
    prompts: tuple[Definition, ...] = ()
    resources: tuple[Definition, ...] = ()
    templates: tuple[Definition, ...] = ()
    dropped: tuple[Dropped, ...] = ()
    unobserved: frozenset[call.Kind] = frozenset()

    def of(self, kind: call.Kind) -> tuple[Definition, ...]:
        """Those of one kind; templates are none."""
        if kind is call.Kind.TOOL:
            return self.tools
        return self.prompts if kind is call.Kind.PROMPT else self.resources

    def names(self, kind: call.Kind) -> tuple[str, ...]:
        return tuple(each.name for each in self.of(kind))


class Listed(NamedTuple):
    """What could be read of one list, and what was left out of it."""

    kept: tuple[Definition, ...]
    dropped: tuple[Dropped, ...]


class _Head(msgspec.Struct):
    name: str
    input_schema: msgspec.Raw = msgspec.field(name="inputSchema", default=msgspec.Raw())


class _UriHead(_Head, kw_only=True):
    name: str = msgspec.field(name="uri")


class _TemplateHead(_Head, kw_only=True):
    name: str = msgspec.field(name="uriTemplate")


class _Icon(msgspec.Struct, rename="camel"):
    src: str
    mime_type: str | None = None
    sizes: list[str] | None = None
    theme: Literal["dark", "light"] | None = None


class _Annotations(msgspec.Struct, rename="camel"):
    title: str | None = None
    read_only_hint: bool | None = None
    destructive_hint: bool | None = None
    idempotent_hint: bool | None = None
    open_world_hint: bool | None = None


class _Execution(msgspec.Struct, rename="camel"):
    task_support: Literal["forbidden", "optional", "required"] | None = None


class _Schema(msgspec.Struct):
    type: Literal["object"]
    dialect: str | None = msgspec.field(name="$schema", default=None)
    properties: dict[str, dict[str, Any] | bool] | None = None
    required: list[str] | None = None


class _Shape(msgspec.Struct, rename="camel"):
    """What official clients of every revision demand of a tool; one that is not like this costs them the whole list."""

    name: str
    input_schema: _Schema
    output_schema: _Schema | None = None
    title: str | None = None
    description: str | None = None
    annotations: _Annotations | None = None
    icons: list[_Icon] | None = None
    execution: _Execution | None = None
    meta: dict[str, Any] | None = msgspec.field(name="_meta", default=None)


class _Argument(msgspec.Struct):
    name: str
    title: str | None = None
    description: str | None = None
    required: bool | None = None


class _Prompt(msgspec.Struct, rename="camel"):
    name: str
    title: str | None = None
    description: str | None = None
    arguments: list[_Argument] | None = None
    icons: list[_Icon] | None = None
    meta: dict[str, Any] | None = msgspec.field(name="_meta", default=None)


class _Audience(msgspec.Struct, rename="camel"):
    audience: list[Literal["user", "assistant"]] | None = None
    priority: Annotated[float, msgspec.Meta(ge=0, le=1)] | None = None
    last_modified: str | None = None


class _Source(msgspec.Struct, rename="camel"):
    """What resources and templates have in common."""

    name: str
    title: str | None = None
    description: str | None = None
    mime_type: str | None = None
    size: int | None = None
    annotations: _Audience | None = None
    icons: list[_Icon] | None = None
    meta: dict[str, Any] | None = msgspec.field(name="_meta", default=None)


class _Resource(_Source, rename="camel", kw_only=True):
    uri: str


class _Template(_Source, rename="camel", kw_only=True):
    uri_template: str


class _Unusable(ValueError):
    """A definition that clients cannot use. The text says which member, and what is expected."""


def definitions(
    tools: Iterable[bytes] = (),
    *,
    prompts: Iterable[bytes] = (),
    resources: Iterable[bytes] = (),
    templates: Iterable[bytes] = (),
) -> Definitions:
    """Reads what an upstream listed, kind by kind; see `read`."""
    every = [
        read(form, raws) for form, raws in zip(Form, (tools, prompts, resources, templates), strict=True)
    ]
    kept = [each.kept for each in every]
    dropped = tuple(one for each in every for one in each.dropped)
    return Definitions(kept[0], kept[1], kept[2], kept[3], dropped)


class Form(enum.Enum):
    """The four lists of a server: what an entry must look like, which member names it, and whether that is a name."""

    TOOLS = "tools"
    PROMPTS = "prompts"
    RESOURCES = "resources"
    TEMPLATES = "resourceTemplates"

    @property
    def kind(self) -> call.Kind:
        return {"tools": call.Kind.TOOL, "prompts": call.Kind.PROMPT}.get(self.value, call.Kind.RESOURCE)


def read(form: Form, raws: Iterable[bytes]) -> Listed:
    """Reads the objects of one list as an upstream gave them.

    One without a usable name, or with one that came before, is dropped and named in `dropped`: two definitions of
    one name cannot both be what was approved. So is one that official clients cannot read: they would lose everything
    else with it. Raises nothing: what has no name that can be read is dropped as `?`.
    """
    kept: dict[str, Definition] = {}
    dropped: list[Dropped] = []
    for raw in raws:
        found = _read(form, raw, kept)
        if isinstance(found, Definition):
            kept[found.name] = found
        else:
            dropped.append(found)
    return Listed(tuple(kept.values()), tuple(dropped))


_HEADS: Mapping[Form, type[_Head]] = {
    Form.TOOLS: _Head, Form.PROMPTS: _Head, Form.RESOURCES: _UriHead, Form.TEMPLATES: _TemplateHead,
}  # fmt: skip
_SHAPES: Mapping[Form, type[msgspec.Struct]] = {
    Form.TOOLS: _Shape, Form.PROMPTS: _Prompt, Form.RESOURCES: _Resource, Form.TEMPLATES: _Template,
}  # fmt: skip


def _unusable(form: Form, name: str) -> tuple[findings.Reason, str] | None:
    """Why this could name nothing of its kind."""
    if form is Form.TOOLS:
        return None if names.is_tool_name(name) else (findings.Reason.UNUSABLE_TOOL_NAME, "")
    if form is Form.PROMPTS:
        return None if names.is_prompt_name(name) else (findings.Reason.UNUSABLE_PROMPT_NAME, "")
    flaw = uris.listing_flaw(name) if form is Form.RESOURCES else uris.template_flaw(name)
    return None if flaw is None else (findings.Reason.UNUSABLE_URI, flaw)


def _read(form: Form, raw: bytes, kept: Mapping[str, Definition]) -> Definition | Dropped:
    kind = form.kind
    try:
        head = msgspec.json.decode(raw, type=_HEADS[form])
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        return Dropped("?", findings.Reason.DEFINITIONS_REFUSED, _plain(error), kind)
    shown = head.name[:_SHOWN_CHARACTERS_MAX]
    if (unusable := _unusable(form, head.name)) is not None:
        return Dropped(shown, *unusable, kind)
    if head.name in kept:
        return Dropped(shown, findings.Reason.DUPLICATE_NAME, "", kind)
    if len(kept) >= TOOLS_MAX:
        return Dropped(shown, findings.Reason.TOO_MANY_TOOLS, "", kind)
    try:
        _check(form, raw)
        if form is not Form.TOOLS:
            return Definition(head.name, bytes(raw), None)
        schema = bytes(head.input_schema)
        return Definition(head.name, bytes(raw), schema, mirrors.read(schema))
    except (
        msgspec.DecodeError,
        UnicodeDecodeError,
        RecursionError,
        _Unusable,
        mirrors.MirrorRefused,
    ) as error:
        return Dropped(shown, findings.Reason.DEFINITIONS_REFUSED, _plain(error), kind)
    except Exception as bug:  # noqa: BLE001 -- one entry of one server must never cost the others their list
        text = f"reading it failed with {type(bug).__name__}, which is a bug of ours"
        return Dropped(shown, findings.Reason.DEFINITIONS_REFUSED, text, kind)


def _check(form: Form, raw: bytes) -> None:
    """Raises what `_read` expects for a definition that a client could not read."""
    msgspec.json.decode(raw, type=_SHAPES[form])
    whole = msgspec.json.decode(raw)
    if raw.count(b"{") + raw.count(b"[") > DEPTH_MAX and _is_deeper(whole, DEPTH_MAX):
        raise _Unusable(f"it is nested deeper than {DEPTH_MAX} levels")


def _is_deeper(value: Any, levels: int) -> bool:
    level = [value]
    for _ in range(levels + 1):
        level = [
            inner
            for each in level
            if isinstance(each, dict | list)
            for inner in (each.values() if isinstance(each, dict) else each)
        ]
    return bool(level)


def _plain(error: Exception) -> str:
    """A decoder's complaint, the place first."""
    if isinstance(error, RecursionError):
        return f"it is nested deeper than {DEPTH_MAX} levels"
    text, _, place = str(error).replace("`", "").partition(" - at $")
    text = text[:1].lower() + text[1:_DETAIL_CHARACTERS_MAX]
    return f"at {place[1:_DETAIL_CHARACTERS_MAX]}: {text}" if len(place) > 1 else text


def alias(server: names.ServerId, workload_namespace: str) -> str:
    """A server's prefix on the merged endpoint; `_` is illegal in Kubernetes names, so no two servers meet."""
    return server.name if server.namespace == workload_namespace else f"{server.namespace}_{server.name}"


def exposed_name(server: names.ServerId, tool: str, workload_namespace: str) -> str:
    """`{alias}__{tool}` in characters every model accepts, cut to 64 with a hash of what it stands for.

    It depends on nothing but its own server and tool: nobody is renamed because of somebody else's object.
    """
    plain = f"{alias(server, workload_namespace)}__{tool}"
    safe = _NOT_EXPOSABLE.sub("_", plain)
    if safe == plain and len(plain) <= _EXPOSED_CHARACTERS_MAX:
        return plain
    identity = f"{server.namespace}\0{server.name}\0{tool}".encode()
    return f"{safe[:_EXPOSED_HEAD_CHARACTERS]}_{hashlib.sha256(identity).hexdigest()[:8]}"
