# SPDX-License-Identifier: Apache-2.0
"""Everything a server lists, page by page, in whichever era it is met.

Called by servers for the observed catalogue, never for an agent's session. Bounded in pages and entries; a list that ends
before it can be read whole is no list. What an entry must be like is `catalog`'s.
"""

from __future__ import annotations

from typing import Protocol

import msgspec

from outrider import catalog, decision
from outrider_sidecar import errands, exchange, jsonrpc, legacy, legs, lists, modern

PAGES_MAX = 200
"""A server whose list never ends is cut off here."""

_R = decision.Reason


class Peer(Protocol):
    """One server, met with one credential."""

    async def leg(self) -> legs.Leg:
        """The way there. Raises NoLeg."""

    async def ask(self, leg: legs.Leg, head: exchange.Headers, body: bytes, method: str) -> errands.Heard:
        """Sends one request of ours."""

    def forget(self, leg: legs.Leg) -> None:
        """The server does not know this session any more."""


async def tools(peer: Peer) -> lists.Listing:
    """Drains `tools/list`. Raises NoLeg."""
    raws: list[bytes] = []
    cursor: str | None = None
    renewed = False
    for _ in range(PAGES_MAX):
        leg = await peer.leg()
        if leg.session is None:
            head, body = modern.page_of(leg.call_id, "tools/list", cursor)
        else:
            head, body = legacy.page_of(
                leg.call_id, "tools/list", cursor, session=leg.session.id, version=leg.session.version
            )
        heard = await peer.ask(leg, head, body, "tools/list")
        if leg.expired(heard.status, heard.answer) and not renewed:
            renewed = True
            peer.forget(leg)
            cursor = None  # cursors need not outlive the session they were given in
            raws.clear()
            continue
        page = _page(heard, leg.call_id)
        raws.extend(bytes(raw) for raw in page.tools)
        cursor = page.next_cursor
        if cursor is None or len(raws) > catalog.TOOLS_MAX:
            ttl = page.ttl_ms / 1000 if page.ttl_ms is not None else None
            return lists.Listing(catalog.definitions(raws), ttl)
    raise legs.NoLeg(_R.UPSTREAM_PROTOCOL_ERROR, f"the list of tools has more than {PAGES_MAX} pages")


class _Page(msgspec.Struct, rename="camel"):
    tools: list[msgspec.Raw]
    next_cursor: str | None = None
    ttl_ms: float | None = None


def _page(heard: errands.Heard, call_id: int) -> _Page:
    answer = heard.answer
    if answer is None or answer.id != call_id or answer.kind is not jsonrpc.AnswerKind.RESULT:
        raise errands.no_leg(heard)
    try:
        return msgspec.json.decode(answer.payload, type=_Page)
    except msgspec.DecodeError as error:
        raise legs.NoLeg(_R.UPSTREAM_PROTOCOL_ERROR, f"the list of tools cannot be read: {error}") from None
