# SPDX-License-Identifier: Apache-2.0
"""What the proxy asks on its own, of authorization servers and for sets of keys: the types between who asks and what fetches.

Used by the OAuth sources and by the verifier of user tokens; `fetcher` implements it. Nothing here knows aiohttp, and nothing here
does anything.
"""

from __future__ import annotations

import dataclasses
import enum
import urllib.parse
from typing import Protocol

from outrider_sidecar import exchange

BYTES_MAX = 1_048_576
"""No answer that is asked for here is longer: a token is a few kilobytes, a set of keys some tens of them."""

SHOWN_MAX = 200


class Trouble(enum.Enum):
    """Why there is no answer; the value is what can be said of it without the text."""

    UNFIT = "it cannot be asked as it is configured"
    ADDRESS_REFUSED = "its address is one that is never dialled"
    UNREACHABLE = "it cannot be reached"
    TIMEOUT = "it did not answer in time"
    REDIRECTED = "it answered with a redirect"
    TOO_LARGE = "its answer is too long"
    MALFORMED = "its answer is not HTTP as it should be"


class FetchFailed(Exception):
    """There is no answer. `reason` is its class, the text one line for the log, with nothing in it of what was sent."""

    def __init__(self, reason: Trouble, text: str) -> None:
        super().__init__(text)
        self.reason = reason


@dataclasses.dataclass(frozen=True, slots=True)
class Ask:
    """One request. `headers` and `body` may hold secrets and are in no repr. `deadline` in loop time.

    `ca_bundle` (PEM) is trusted instead of the system's roots.
    """

    method: str
    url: str
    deadline: float
    headers: tuple[tuple[str, str], ...] = dataclasses.field(default=(), repr=False)
    body: bytes = dataclasses.field(default=b"", repr=False)
    ca_bundle: str | None = dataclasses.field(default=None, repr=False)
    bytes_max: int = BYTES_MAX


@dataclasses.dataclass(frozen=True, slots=True, repr=False)
class Answer:
    """A whole answer of any status but a redirect. Has no repr: its body may be a token (N4)."""

    status: int
    headers: exchange.Headers
    body: bytes

    def header(self, name: bytes) -> str:
        """The one value of a header (`name` in lower case); "" when there is none, or more than one."""
        values = [value for each, value in self.headers if each == name]
        return values[0].decode("ascii", "replace").strip() if len(values) == 1 else ""

    def media_type(self) -> str:
        """The content type without its parameters, in lower case."""
        return self.header(b"content-type").partition(";")[0].strip().lower()


class Fetcher(Protocol):
    """Asks."""

    async def fetch(self, ask: Ask) -> Answer:
        """The answer, whatever its status; raises FetchFailed."""


def shown(url: str) -> str:
    """A URL for a log: without user, query and fragment, printable and not too long. Raises ValueError as urlsplit does."""
    parts = urllib.parse.urlsplit(url)
    text = f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}"
    return text.encode("ascii", "backslashreplace").decode()[:SHOWN_MAX].translate(_UNPRINTABLE)


_UNPRINTABLE = dict.fromkeys((*range(32), 127), "?")
