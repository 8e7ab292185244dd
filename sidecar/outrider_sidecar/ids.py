# SPDX-License-Identifier: Apache-2.0
"""Request ids: ULIDs, so that they sort by time and can be read aloud.

Called by the pipeline once per request. Time and randomness come from `main`.
"""

from __future__ import annotations

from collections.abc import Callable

_ALPHABET = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"
_PAIRS = tuple(high + low for high in _ALPHABET for low in _ALPHABET)
_RANDOM_BYTES = 10
_POOL_BYTES = _RANDOM_BYTES * 64


class Ids:
    """Makes ULIDs; the system's randomness is asked for 64 at a time."""

    def __init__(self, *, wall: Callable[[], float], entropy: Callable[[int], bytes]) -> None:
        self._wall = wall
        self._entropy = entropy
        self._pool = b""

    def next(self) -> str:
        """26 characters of Crockford base 32: 48 bits of milliseconds, 80 bits of randomness."""
        if not self._pool:
            self._pool = self._entropy(_POOL_BYTES)
        part, self._pool = self._pool[:_RANDOM_BYTES], self._pool[_RANDOM_BYTES:]
        number = (int(self._wall() * 1000) & 0xFFFFFFFFFFFF) << 80 | int.from_bytes(part, "big")
        return "".join([_PAIRS[number >> shift & 1023] for shift in range(120, -1, -10)])
