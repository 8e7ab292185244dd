# SPDX-License-Identifier: Apache-2.0
"""What a server of the stateless era says on its own: one `subscriptions/listen` with all that anybody wants to hear of it.

Made by `sources`. When more or less is wanted, a new stream is opened and acknowledged before the old one is let go, so that
nothing falls between the two. A stream that ends is opened again, ever later while nothing comes of it. What is said is handed
on; it decides nothing about it.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Iterable

import msgspec

from outrider import call, decision
from outrider_sidecar import conventions, exchange, following, jsonrpc, loans, modern, reading, retries

_R = decision.Reason
_UNSPOKEN = frozenset({404, 405, 501})

FLAGS = {
    call.Kind.TOOL: "toolsListChanged",
    call.Kind.PROMPT: "promptsListChanged",
    call.Kind.RESOURCE: "resourcesListChanged",
}
"""The members of a listen request's filter by the kind whose list they are about."""

URIS = "resourceSubscriptions"

Wanted = tuple[frozenset[call.Kind], frozenset[str]]
"""Whose lists' changes, and which resources'."""


class Ear:
    """`hear` gets every notification but the acknowledgment; `acknowledged` what was wanted when one came.

    `over` is called at most once: the server does not know the method.
    """

    def __init__(  # noqa: PLR0913 -- wired in one place
        self,
        parts: following.Parts,
        permit: decision.Permit,
        mint: Callable[[], int],
        *,
        hear: Callable[[jsonrpc.Answer], None],
        acknowledged: Callable[[Wanted], None] = lambda _: None,
        over: Callable[[following.End], None] = lambda _: None,
    ) -> None:
        self._parts = parts
        self._permit = permit
        self._mint = mint
        self._hear = hear
        self._acknowledged = acknowledged
        self._over = over
        self._wanted: Wanted = (frozenset(), frozenset())
        self._changed = asyncio.Event()
        self._streams: set[asyncio.Task[bool]] = set()
        self._task = asyncio.get_running_loop().create_task(self._listen(), name=f"listen {permit.server.id}")

    @property
    def task(self) -> asyncio.Task[None]:
        """For whoever closes all of them and waits."""
        return self._task

    def want(self, kinds: Iterable[call.Kind], uris: Iterable[str]) -> None:
        """From now on this is to be heard, and nothing else need be."""
        wanted = (frozenset(kinds), frozenset(uris))
        if wanted != self._wanted:
            self._wanted = wanted
            self._changed.set()

    def close(self) -> None:
        """Nobody listens any more: the server learns it by the end of the stream."""
        self._task.cancel()

    async def _listen(self) -> None:
        failures = 0
        try:
            while True:
                self._changed.clear()
                before = set(self._streams)
                stream = asyncio.get_running_loop().create_task(self._stream(self._wanted, before))
                self._streams.add(stream)
                changed = asyncio.get_running_loop().create_task(self._changed.wait())
                try:
                    await asyncio.wait((stream, changed), return_when=asyncio.FIRST_COMPLETED)
                finally:
                    changed.cancel()
                if not stream.done():
                    continue  # more or less is wanted: the next stream lets this one go
                self._streams.discard(stream)
                failures = 0 if stream.result() else failures + 1
                await self._pause(failures)
        except _Unspoken:
            self._over(following.End.NONE)
        finally:
            for stream in self._streams:
                stream.cancel()

    async def _pause(self, failures: int) -> None:
        seconds = min(following.RETRY_SECONDS * 2 ** min(failures, 16), following.BACKOFF_SECONDS_MAX)
        await asyncio.sleep(seconds * (1 + 0.5 * self._parts.jitter()) if failures else 0.0)

    async def _stream(self, wanted: Wanted, before: set[asyncio.Task[bool]]) -> bool:
        """One stream until it ends; whether it was acknowledged. Lets `before` go as soon as it is. Raises _Unspoken."""
        parts, permit = self._parts, self._permit
        try:
            lent = await parts.credentials.lend(permit)
        except loans.Unavailable:
            return False
        call_id, acked = self._mint(), False
        ended: asyncio.Future[exchange.Failed | None] = asyncio.get_running_loop().create_future()
        refused: list[jsonrpc.Answer] = []

        def said(message: jsonrpc.Answer) -> bool:
            nonlocal acked
            if message.kind is jsonrpc.AnswerKind.ERROR:
                refused.append(message)
            elif message.method == conventions.ACKNOWLEDGED and not acked:
                acked = True
                self._acknowledged(wanted)
                for each in before:
                    each.cancel()
                self._streams.difference_update(before)
            elif message.kind is jsonrpc.AnswerKind.NOTIFICATION:
                self._hear(message)
            return True

        def end(failed: exchange.Failed | None) -> None:
            if not ended.done():
                ended.set_result(failed)

        endpoint = permit.server.endpoint
        into = reading.Reading(
            result_bytes_max=endpoint.result_bytes_max, on_message=said, on_end=end, secrets=lent.secrets
        )
        head, body = modern.listen(call_id, filtered(*wanted))
        deadline = parts.clock() + endpoint.stream_seconds
        into.flight = parts.upstream.send(permit, lent, head, body, into, deadline=deadline)
        try:
            await ended
        finally:
            into.flight.cancel()
        if into.status == retries.UNAUTHORIZED:
            until = parts.clock() + following.RENEW_SECONDS
            await parts.credentials.renewed(permit, lent, deadline=until)
        if not acked and (into.status in _UNSPOKEN or any(map(_unknown_method, refused))):
            raise _Unspoken
        return acked


class _Unspoken(Exception):
    """The server does not know the method: asking again would get the same."""


def filtered(kinds: Iterable[call.Kind], uris: Iterable[str]) -> bytes:
    """A listen request's filter, also as it is acknowledged."""
    made: dict[str, bytes] = {FLAGS[kind]: b"true" for kind in call.Kind if kind in set(kinds)}
    if listed := sorted(uris):
        made[URIS] = json.dumps(listed).encode()
    return jsonrpc.spliced(made)


def _unknown_method(message: jsonrpc.Answer) -> bool:
    try:
        return jsonrpc.members(message.payload).get("code") == b"%d" % conventions.METHOD_NOT_FOUND
    except msgspec.DecodeError:
        return False
