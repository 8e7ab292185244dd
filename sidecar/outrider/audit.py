# SPDX-License-Identifier: Apache-2.0
"""What is written down of every attempt: an intent before it is sent, an outcome after it, or one refusal.

Made by the pipeline, kept by the journal, read by `outrider audit` and `outrider explain`; `chain` makes tampering with
them show. Refuses to hold a credential: there is a field for its name and none for its value. Bodies are redacted before
they are cut, digested or stored, and digests are keyed, so that a guessed value cannot be confirmed from the journal.
"""

from __future__ import annotations

import enum
import hmac
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

import msgspec

from outrider import budgets, identity, names, snapshot

SCHEMA: Final = 1
"""The version of these records, stated in every Opening. Readers ignore fields they do not know."""

BODY_BYTES_MAX: Final = 8_192
"""Bytes of a body that are kept; the rest is counted and covered by the digest (audit.md)."""
TEXT_CHARACTERS_MAX: Final = 512
"""Characters kept of any single text of a refusal, so that a refused request cannot fill the disk by itself."""
GROUPS_MAX: Final = 64
"""Groups of a user that are kept, in the order of their names; the others are counted."""
REDACTED: Final = "[redacted]"


class Struct(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, rename="camel"):
    """Frozen, camelCase on disk and in exports; what has its default is not written."""


class Principal(Struct, frozen=True):
    """Who asked, as attested: `workload` is `namespace/serviceaccount`, `teams` as resolved at that moment.

    `user`, `client`, `actor` and `groups` are `provider:value` of the user's token, which itself is never here; "" and () without one.
    `names` are others by which rules may call the user. `groups` are sorted and at most GROUPS_MAX; `groups_left_out` were more.
    """

    workload: str
    teams: tuple[str, ...] = ()
    user: str = ""
    names: tuple[str, ...] = ()
    client: str = ""
    actor: str = ""
    groups: tuple[str, ...] = ()
    groups_left_out: int = 0


class Ruling(Struct, frozen=True):
    """A rule that decided: `policy` is `namespace/name` of the MCPToolPolicy at `generation`."""

    policy: str
    rule: str
    generation: int


class Body(Struct, frozen=True):
    """Arguments or a result: at most BODY_BYTES_MAX of redacted JSON text.

    `bytes` is the length after redaction, `truncated` how many of them `content` lacks, `digest` the hex HMAC-SHA256 of all
    of them, `redacted` the JSON pointers that matched.
    """

    bytes: int
    content: str = ""
    truncated: int = 0
    digest: str = ""
    redacted: tuple[str, ...] = ()


class Status(enum.Enum):
    """How an attempt ended. UNKNOWN: the proxy died before it knew; charged at the maximum."""

    COMPLETED = "Completed"
    FAILED = "Failed"
    NOT_SENT = "NotSent"
    UNKNOWN = "Unknown"


INTERRUPTED: Final = "Interrupted"
"""The reason of an outcome that a restart wrote in place of a proxy that died."""


class OpenCall(Struct, frozen=True):
    """An intent without an outcome at the moment a segment began; `charges` are its maximum."""

    event: str
    request_id: str = ""
    cost_max: int = 0
    charges: tuple[budgets.Charge, ...] = ()


class Opening(Struct, frozen=True, tag_field="type", tag="opening"):
    """The first record of each segment: where it comes from, and all a replay needs from what lies before it.

    `previous` is the hex digest the chain continues from and `previous_bytes` where the previous segment ended.
    `torn_bytes` were cut off its unsynced end; `abandoned_bytes` could not be cut and still follow its end. `latest` is the
    latest wall time of any record so far, `spent` what was settled per pool and period not ended by then.
    """

    segment: int
    boot_id: str
    schema: int = SCHEMA
    previous: str = ""
    previous_bytes: int = 0
    torn_bytes: int = 0
    abandoned_bytes: int = 0
    loss_possible: bool = False
    latest: float = 0.0
    spent: tuple[budgets.Charge, ...] = ()
    open_calls: tuple[OpenCall, ...] = ()


class Intent(Struct, frozen=True, tag_field="type", tag="intent"):
    """An allowed call that is about to be sent. `event` (a ULID) names the attempt; its outcome carries the same one.

    `charges` are the most it can spend; `cost_max` the same for money, in micro-units. `would` is what policies in Audit
    mode would have said. `credential` is a name, "" when none was lent. `round_of` is the request that this one goes on with,
    where everything was charged; "" for a call of its own.
    """

    event: str
    request_id: str
    principal: Principal
    server: str
    tool: str
    snapshot: str
    era: str = ""
    method: str = "tools/call"
    reason: str = "Allowed"
    rules: tuple[Ruling, ...] = ()
    would: tuple[str, ...] = ()
    arguments: Body | None = None
    credential: str = ""
    round_of: str = ""
    cost_max: int = 0
    charges: tuple[budgets.Charge, ...] = ()
    trace_id: str = ""


class Outcome(Struct, frozen=True, tag_field="type", tag="outcome"):
    """How the attempt `event` ended: exactly one follows every intent.

    `reason` is a decision.Reason (or INTERRUPTED); `sends` how often it was sent (2: again with a newer credential, because the
    server had refused the older one, 401); `cost` micro-units; `charges` what was really spent; `result_bytes` what
    arrived, None when nothing did; `ours_micros` and `upstream_micros` are wall microseconds.
    """

    event: str
    request_id: str
    status: Status
    reason: str
    http_status: int | None = None
    sends: int = 1
    result: Body | None = None
    result_bytes: int | None = None
    cost: int = 0
    charges: tuple[budgets.Charge, ...] = ()
    ours_micros: int = 0
    upstream_micros: int = 0
    detail: str = ""


def bare(record: Outcome) -> Outcome:
    """The same outcome without its longest parts: without the result's text, which its digest still covers."""
    result = record.result
    if result is not None and result.content:
        result = msgspec.structs.replace(result, content="", truncated=result.bytes)
    return msgspec.structs.replace(record, result=result, detail=record.detail[:256])


def interrupted(call: OpenCall) -> Outcome:
    """The outcome a restart writes for a call that was under way: nobody knows, so the maximum is charged (R37)."""
    return Outcome(
        event=call.event,
        request_id=call.request_id,
        status=Status.UNKNOWN,
        reason=INTERRUPTED,
        cost=call.cost_max,
        charges=call.charges,
        detail="the proxy ended before the call did; charged at its maximum",
    )


class RefusalRecord(Struct, frozen=True, tag_field="type", tag="refusal"):
    """An attempt that was refused before anything was sent. Before authentication `principal` is None.

    `visible` False: the agent was told that there is no such tool. Long texts are cut to TEXT_CHARACTERS_MAX.
    """

    event: str
    request_id: str
    reason: str
    principal: Principal | None = None
    server: str = ""
    tool: str = ""
    snapshot: str = ""
    era: str = ""
    method: str = "tools/call"
    visible: bool = True
    rule: Ruling | None = None
    pool: str = ""
    detail: str = ""
    would: tuple[str, ...] = ()
    arguments: Body | None = None
    ours_micros: int = 0
    trace_id: str = ""

    def __post_init__(self) -> None:
        """Cuts what a caller can make as long as it likes."""
        for field in ("server", "tool", "method", "detail", "era", "trace_id"):
            text = getattr(self, field)
            if len(text) > TEXT_CHARACTERS_MAX:
                msgspec.structs.force_setattr(self, field, _capped(text))


BEFORE_AUTHENTICATION: Final = "beforeAuthentication"
AUTHENTICATED: Final = "authenticated"
"""Why refusals were counted: nobody known sent so many of them, or an accepted caller did."""


class Summary(Struct, frozen=True, tag_field="type", tag="summary"):
    """Refusals that are counted instead of written one by one: by reason, from `since` to `until` (epoch seconds)."""

    since: float
    until: float
    counts: dict[str, int]
    why: str = BEFORE_AUTHENTICATION


Record = Opening | Intent | Outcome | RefusalRecord | Summary


class Entry(Struct, frozen=True):
    """One record as it stands in a segment: who wrote it, its number in that instance's life, and the wall time."""

    instance: str
    sequence: int
    time: float
    record: Record


_ENCODER = msgspec.json.Encoder()
_CANONICAL = msgspec.json.Encoder(order="deterministic")
_DECODER = msgspec.json.Decoder(Entry)
_SURROGATES = re.compile("[\ud800-\udfff]")


def encode(entry: Entry) -> bytes:
    """The JSON body of one frame. Text that is not Unicode (lone surrogates) is kept readable, never an error."""
    try:
        return _ENCODER.encode(entry)
    except UnicodeEncodeError:
        return _ENCODER.encode(_scrubbed(msgspec.to_builtins(entry)))


def decode(body: bytes) -> Entry:
    """The entry of one frame. Raises msgspec.DecodeError (or its ValidationError) when it is not one."""
    try:
        return _DECODER.decode(body)
    except (UnicodeDecodeError, RecursionError) as error:
        raise msgspec.DecodeError(f"not a record: {error}") from error


def principal(workload: identity.Workload, user: identity.User | None = None) -> Principal:
    """The principal of a sidecar's calls: the workload, and the user behind it if there is one."""
    if user is None:
        return Principal(workload=str(workload), teams=workload.teams)
    return Principal(
        workload=str(workload),
        teams=workload.teams,
        user=_capped(user.id),
        names=tuple(map(_capped, sorted(user.names - {user.id}))),
        client=_capped(user.client),
        actor=_capped(user.actor),
        groups=tuple(map(_capped, sorted(user.groups)[:GROUPS_MAX])),
        groups_left_out=max(0, len(user.groups) - GROUPS_MAX),
    )


def _capped(text: str) -> str:
    return text if len(text) <= TEXT_CHARACTERS_MAX else text[:TEXT_CHARACTERS_MAX] + "…"


def ruling(ref: names.RuleRef) -> Ruling:
    """A rule as records name it."""
    return Ruling(policy=ref.object, rule=ref.rule, generation=ref.generation)


# Bodies --------------------------------------------------------------------------------------------------------------


def arguments_body(
    value: object, level: snapshot.AuditLevel, *, pointers: Sequence[str] = (), key: bytes
) -> Body:
    """The arguments of a call at a level: Metadata keeps length and digest, Arguments and Full the text as well."""
    return body(value, pointers=pointers, key=key, keep=level is not snapshot.AuditLevel.METADATA)


def result_body(
    value: object, level: snapshot.AuditLevel, *, pointers: Sequence[str] = (), key: bytes
) -> Body:
    """A result at a level: only Full keeps the text."""
    return body(value, pointers=pointers, key=key, keep=level is snapshot.AuditLevel.FULL)


def body(value: object, *, pointers: Sequence[str], key: bytes, keep: bool) -> Body:
    """Redacts, digests and cuts. `value` is parsed JSON, or bytes of JSON text as they arrived.

    Bytes that should be redacted but are not JSON are withheld whole: what cannot be searched cannot be cleaned.
    """
    hits: tuple[str, ...] = ()
    if isinstance(value, bytes):
        text = value
        if pointers:
            try:
                parsed = msgspec.json.decode(value)
            except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
                return Body(bytes=len(value), truncated=len(value), redacted=("",))
            parsed, hits = _redacted(parsed, pointers)
            text = _canonical(parsed) if hits else value
    else:
        parsed, hits = _redacted(value, pointers) if pointers else (value, ())
        text = _canonical(parsed)
    digest = hmac.digest(key, text, "sha256").hex()
    if not keep:
        return Body(bytes=len(text), truncated=len(text), digest=digest, redacted=hits)
    head = text[:BODY_BYTES_MAX]
    content = head.decode("utf-8", "ignore" if len(text) > BODY_BYTES_MAX else "replace")
    truncated = len(text) - len(content.encode()) if len(text) > BODY_BYTES_MAX else 0
    return Body(bytes=len(text), content=content, truncated=truncated, digest=digest, redacted=hits)


def redact(value: Any, pointers: Iterable[str]) -> Any:
    """`value` with what the JSON pointers (RFC 6901) name replaced by REDACTED; the original is left as it is.

    A `*` stands for every element of an array and every member of an object. A pointer that leads nowhere changes
    nothing; the empty pointer names the whole value.
    """
    return _redacted(value, pointers)[0]


def _redacted(value: Any, pointers: Iterable[str]) -> tuple[Any, tuple[str, ...]]:
    hits = []
    for pointer in pointers:
        tokens = [token.replace("~1", "/").replace("~0", "~") for token in pointer.split("/")[1:]]
        replaced = _replaced(value, tokens)
        if replaced is not value:
            hits.append(pointer)
        value = replaced
    return value, tuple(hits)


def _replaced(value: Any, tokens: Sequence[str]) -> Any:
    if not tokens:
        return REDACTED
    step, rest = tokens[0], tokens[1:]
    if isinstance(value, Mapping):
        keys: Iterable[Any] = value.keys() if step == "*" else ([step] if step in value else [])
    elif isinstance(value, list | tuple):
        keys = range(len(value)) if step == "*" else _index(step, len(value))
    else:
        return value
    changed = {key: new for key in keys if (new := _replaced(value[key], rest)) is not value[key]}
    if not changed:
        return value
    if isinstance(value, Mapping):
        return {**value, **changed}
    return [changed.get(at, each) for at, each in enumerate(value)]


def _index(step: str, length: int) -> list[int]:
    if re.fullmatch("0|[1-9][0-9]{0,8}", step) and int(step) < length:
        return [int(step)]
    return []


def _canonical(value: object) -> bytes:
    try:
        return _CANONICAL.encode(value)
    except UnicodeEncodeError:
        return _CANONICAL.encode(_scrubbed(value))


def _scrubbed(value: Any) -> Any:
    if isinstance(value, str):
        return _SURROGATES.sub(lambda found: f"\\u{ord(found[0]):04x}", value)
    if isinstance(value, Mapping):
        return {_scrubbed(key): _scrubbed(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [_scrubbed(each) for each in value]
    return value
