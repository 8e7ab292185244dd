# SPDX-License-Identifier: Apache-2.0
"""Everything of one kind that a server lists, page by page, in whichever era it is met.

Called by servers for the observed catalogue, never for an agent's session. A server is asked only for what it says it has.
Bounded in pages, entries and bytes; a list that ends before it can be read whole, or that goes round in circles, is no list.
What an entry must be like is `catalog`'s.
"""

from __future__ import annotations

from typing import Any, Protocol

import msgspec

from outrider import call, catalog, decision
from outrider_sidecar import (
    conventions,
    errands,
    exchange,
    introductions,
    jsonrpc,
    legacy,
    legs,
    lists,
    modern,
)

PAGES_MAX = 200
"""A server whose list never ends is cut off here."""

BYTES_MAX = 33_554_432
"""Of one list; one page is bounded by the endpoint's `maxResultBytes`."""

_R = decision.Reason
_Form = catalog.Form
_METHODS = {
    _Form.TOOLS: conventions.LIST_TOOLS,
    _Form.PROMPTS: conventions.LIST_PROMPTS,
    _Form.RESOURCES: conventions.LIST_RESOURCES,
    _Form.TEMPLATES: conventions.LIST_TEMPLATES,
}
_CAPABILITIES = {
    call.Kind.TOOL: introductions.TOOLS,
    call.Kind.PROMPT: introductions.PROMPTS,
    call.Kind.RESOURCE: introductions.RESOURCES,
}


class Peer(Protocol):
    """One server, met with one credential."""

    async def leg(self) -> legs.Leg:
        """The way there. Raises NoLeg."""

    async def ask(self, leg: legs.Leg, head: exchange.Headers, body: bytes, method: str) -> errands.Heard:
        """Sends one request of ours."""

    def forget(self, leg: legs.Leg) -> None:
        """The server does not know this session any more."""


async def drained(peer: Peer, kind: call.Kind, *, again: bool = False) -> lists.Listing:
    """All of one kind, with the templates when it is resources; nothing of a kind the server does not say it has.

    `again`: the server was met before, so it may have more by now than it said then. Raises NoLeg.
    """
    leg = await peer.leg()
    modern_ = leg.session is None
    if again and modern_ and not _has(leg.server.introduced(modern_), kind):
        await _introduced(peer, leg)
    met = leg.server.introduced(modern_)
    found: dict[_Form, catalog.Listed] = {}
    fresh: list[float] = []
    if _has(met, kind):
        for form in (each for each in _Form if each.kind is kind):
            raws, ttl = await _pages(peer, form)
            found[form] = catalog.read(form, raws)
            fresh += [] if ttl is None else [ttl]
    kept = {form: listed.kept for form, listed in found.items()}
    definitions = catalog.Definitions(
        tools=kept.get(_Form.TOOLS, ()),
        prompts=kept.get(_Form.PROMPTS, ()),
        resources=kept.get(_Form.RESOURCES, ()),
        templates=kept.get(_Form.TEMPLATES, ()),
        dropped=tuple(one for listed in found.values() for one in listed.dropped),
        unobserved=frozenset(call.Kind) - {kind},
    )
    return lists.Listing(definitions, min(fresh, default=None), met)


async def _introduced(peer: Peer, leg: legs.Leg) -> None:
    """Asks a server of the stateless era once more what it is; nothing else would tell that it was replaced by one with more."""
    head, body = modern.discover(leg.call_id)
    heard = await peer.ask(leg, head, body, conventions.DISCOVER)
    answer = heard.answer
    if answer is not None and answer.kind is jsonrpc.AnswerKind.RESULT and modern.speaks(answer):
        leg.server.found(True, speaks=True, introduction=introductions.discovered(answer))


def _has(met: introductions.Introduction, kind: call.Kind) -> bool:
    """Servers that name no kind at all, by mistake, are taken to have tools."""
    named = (met.capabilities or frozenset()) & set(_CAPABILITIES.values())
    return _CAPABILITIES[kind] in named or (not named and kind is call.Kind.TOOL)


async def _pages(peer: Peer, form: catalog.Form) -> tuple[list[bytes], float | None]:
    """One list whole, and for how many seconds it is fresh if its last page says so. Raises NoLeg."""
    raws: list[bytes] = []
    cursor: str | None = None
    followed: set[str] = set()
    size, renewed = 0, False
    for _ in range(PAGES_MAX):
        leg = await peer.leg()
        heard = await _asked(peer, leg, _METHODS[form], cursor)
        if leg.expired(heard.status, heard.answer) and not renewed:
            renewed = True
            peer.forget(leg)
            cursor, size = None, 0  # cursors need not outlive the session they were given in
            followed.clear()
            raws.clear()
            continue
        if form is not _Form.TOOLS and cursor is None and _unheard_of(heard):
            return [], None
        page = _page(heard, leg.call_id, form)
        raws.extend(map(bytes, page.entries))
        size += sum(map(len, page.entries))
        if size > BYTES_MAX:
            text = f"what {_METHODS[form]} gives has more than {BYTES_MAX:,} bytes"
            raise legs.NoLeg(_R.UPSTREAM_TOO_LARGE, text)
        cursor = page.cursor
        if cursor is None or len(raws) > catalog.TOOLS_MAX:
            return raws, page.ttl_seconds
        if cursor in followed:
            text = f"{_METHODS[form]} gives the same cursor twice, so its list would never end"
            raise legs.NoLeg(_R.UPSTREAM_PROTOCOL_ERROR, text)
        followed.add(cursor)
    raise legs.NoLeg(_R.UPSTREAM_PROTOCOL_ERROR, f"{_METHODS[form]} has more than {PAGES_MAX} pages")


async def _asked(peer: Peer, leg: legs.Leg, method: str, cursor: str | None) -> errands.Heard:
    if leg.session is None:
        head, body = modern.page_of(leg.call_id, method, cursor)
    else:
        head, body = legacy.page_of(
            leg.call_id, method, cursor, session=leg.session.id, version=leg.session.version
        )
    return await peer.ask(leg, head, body, method)


def _unheard_of(heard: errands.Heard) -> bool:
    """The server does not know the method, as many do not that have resources and no templates."""
    if heard.answer is None or heard.answer.kind is not jsonrpc.AnswerKind.ERROR:
        return False
    try:
        code = jsonrpc.members(heard.answer.payload).get("code")
    except msgspec.DecodeError:
        return False
    return code == b"%d" % conventions.METHOD_NOT_FOUND


class _Page(msgspec.Struct):
    entries: list[msgspec.Raw]
    cursor: str | None
    ttl_seconds: float | None


_ENTRIES = msgspec.json.Decoder(list[msgspec.Raw])


def _page(heard: errands.Heard, call_id: int, form: catalog.Form) -> _Page:
    """Raises NoLeg. `ttlMs` that is no number is none: nothing but the age of the list hangs on it."""
    answer = heard.answer
    if answer is None or answer.id != call_id or answer.kind is not jsonrpc.AnswerKind.RESULT:
        raise errands.no_leg(heard)
    try:
        parts = jsonrpc.members(answer.payload)
        entries = _ENTRIES.decode(parts[form.value])
        cursor = msgspec.json.decode(parts.get("nextCursor", b"null"), type=str | None)
        ttl: Any = msgspec.json.decode(parts.get("ttlMs", b"null"))
    except KeyError:
        text = f"the answer to {_METHODS[form]} has no {form.value!r}"
        raise legs.NoLeg(_R.UPSTREAM_PROTOCOL_ERROR, text) from None
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        text = f"the answer to {_METHODS[form]} cannot be read: {error}"
        raise legs.NoLeg(_R.UPSTREAM_PROTOCOL_ERROR, text) from None
    is_number = isinstance(ttl, int | float) and not isinstance(ttl, bool) and ttl >= 0
    return _Page(entries, cursor, ttl / 1000 if is_number else None)
