# SPDX-License-Identifier: Apache-2.0
"""Servers of 2024-11-05 (HTTP+SSE): one GET stream per session, and POSTs to a place that the stream names.

An `exchange.Upstream` around the way out: to everybody else such a server looks like one of Streamable HTTP. Its stream is what
`mcp-session-id` names (an id of ours, which never leaves), an answer is an event stream of its own, an ended stream is an unknown
session, DELETE ends it, and GET gives what belongs to no request. It refuses a place at another origin (R15) and never repeats
anything.
"""

from __future__ import annotations

import collections
from collections.abc import Callable

from outrider import decision
from outrider_sidecar import conventions, exchange, jsonrpc, letters, lines

LINES_MAX = 1_000
"""Streams held in all; the one unused for longest makes room."""

_KEY_BYTES = 16


class EitherTransport:
    """`exchange.Upstream` for servers of both transports; those of Streamable HTTP are passed straight on.

    `clock` is loop time; `entropy(n)` gives n random bytes.
    """

    def __init__(
        self, out: exchange.Upstream, *, clock: Callable[[], float], entropy: Callable[[int], bytes]
    ) -> None:
        self._out = out
        self._entropy = entropy
        self._clock = clock
        self._lines: collections.OrderedDict[bytes, lines.Line] = collections.OrderedDict()

    def __len__(self) -> int:
        """Streams that are held now."""
        return len(self._lines)

    def send(  # noqa: PLR0913 -- the shape of exchange.Upstream
        self,
        permit: decision.Permit,
        lent: exchange.Lent,
        head: exchange.Headers,
        body: bytes,
        into: exchange.Sink,
        *,
        deadline: float,
        method: str = "POST",
        place: str = "",
    ) -> exchange.Flight:
        """As `exchange.Upstream.send`; where messages are posted to over SSE is the stream's to say, so `place` is not."""
        if permit.server.endpoint.transport != "SSE":
            return self._out.send(
                permit, lent, head, body, into, deadline=deadline, method=method, place=place
            )
        key = next((value for name, value in head if name == conventions.HEADER_SESSION), None)
        if key is None:
            return self._first(permit, lent, head, body, into, deadline)
        line = self._lines.get(key)
        if line is None or line.server != permit.server.id or line.endpoint != permit.server.endpoint:
            return letters.Told(into, 404)  # what a server of sessions says of one that is over
        self._lines.move_to_end(key)
        if method == "DELETE":
            line.close()
            return letters.Told(into, 200)
        if method == "GET":
            return line.overheard(into, deadline)
        return line.post(letters.Letter(permit, lent, _without_session(head), body, into, deadline=deadline))

    def _first(  # noqa: PLR0913, PLR0917 -- the shape of exchange.Upstream
        self,
        permit: decision.Permit,
        lent: exchange.Lent,
        head: exchange.Headers,
        body: bytes,
        into: exchange.Sink,
        deadline: float,
    ) -> exchange.Flight:
        """Without a session there is only the handshake: it opens one. Such a server never speaks the modern era."""
        if not body or jsonrpc.answer(body).method != conventions.INITIALIZE:
            return letters.Told(into, 405)
        key = self._entropy(_KEY_BYTES).hex().encode()
        line = lines.Line(self._out, permit, lent, clock=self._clock, over=lambda: self._lines.pop(key, None))
        self._lines[key] = line
        self._make_room()
        letter = letters.Letter(permit, lent, head, body, into, deadline=deadline, session=key)
        return line.post(letter)

    def _make_room(self) -> None:
        while len(self._lines) > LINES_MAX:
            next(iter(self._lines.values())).close()

    async def close(self) -> None:
        """Ends every stream, then the way out."""
        for line in tuple(self._lines.values()):
            line.close()
        await self._out.close()


def _without_session(head: exchange.Headers) -> exchange.Headers:
    return tuple(each for each in head if each[0] != conventions.HEADER_SESSION)
