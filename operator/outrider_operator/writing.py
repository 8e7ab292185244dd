# SPDX-License-Identifier: Apache-2.0
"""Writing lines to many slow readers: each line has left this process before the next is begun, with and without TLS.

Called by streaming. A line that a reader does not take costs that reader's line and nothing else: what is newer waits outside, as
one reference. Refuses to wait for ever.
"""

from __future__ import annotations

import asyncio
from asyncio import sslproto

from aiohttp import abc

TLS_BUFFER_BYTES = 4_096
"""CPython gives every TLS connection a read buffer of 256 KiB; with a thousand of them that is what an operator's memory is."""

_SLICE_BYTES = 8_000
"""For each connection OpenSSL keeps a buffer of the largest piece it was ever given, and a third more: 12 KiB for this."""

_LAST_BYTES = 1


def spare_memory() -> None:
    """Makes TLS connections from now on read through smaller buffers: what proxies send is small, and streams stay open for long."""
    if hasattr(sslproto.SSLProtocol, "max_size"):
        sslproto.SSLProtocol.max_size = TLS_BUFFER_BYTES


class Line:
    """The one way to write to a stream: returns when the kernel has taken everything."""

    __slots__ = ("_seconds_max", "_transport", "_writer")

    def __init__(
        self, writer: abc.AbstractStreamWriter, transport: asyncio.Transport, *, seconds_max: float
    ) -> None:
        self._writer = writer
        self._transport = transport
        self._seconds_max = seconds_max
        # Beneath TLS there is a second buffer, of 64 KiB by default, that only the TLS layer hears of.
        beneath = getattr(getattr(transport, "_ssl_protocol", None), "_transport", None)
        if beneath is None:
            transport.set_write_buffer_limits(high=0)
        else:
            beneath.set_write_buffer_limits(high=0)
            # For TLS, asyncio takes a full buffer to be one that has reached `high`: at 0 even an empty one would be full.
            transport.set_write_buffer_limits(high=1, low=0)

    async def send(self, line: bytes) -> None:
        """Raises ConnectionError when the reader is gone, TimeoutError when it takes nothing."""
        async with asyncio.timeout(self._seconds_max):
            view = memoryview(line)
            for begin in range(0, len(line) - _LAST_BYTES, _SLICE_BYTES):
                await self._writer.write(view[begin : min(begin + _SLICE_BYTES, len(line) - _LAST_BYTES)])
                await self._writer.drain()
            # The end apart: while the buffer beneath is not empty it waits in TLS's own, and that is what `drain` hears of.
            await self._writer.write(line[-_LAST_BYTES:])
            await self._writer.drain()
        if self._transport.is_closing():
            raise ConnectionResetError("the reader is gone")
