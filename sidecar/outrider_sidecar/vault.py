# SPDX-License-Identifier: Apache-2.0
"""What the proxy asks of Vault (or OpenBao), what it gets, and how asking can fail.

Spoken by `vaultline`; asked by `logins` and the engines (`kvsecrets`, `leases`, `clientcertificates`). Nothing here does I/O or knows
a client library. What holds a token or a value has no repr, and a failure's text never has one in it (N4).
"""

from __future__ import annotations

import dataclasses
import enum
import math
import re
from collections.abc import Mapping
from typing import Any, Protocol

PATH = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9_.-]*(/[A-Za-z0-9_-][A-Za-z0-9_.-]*)*", re.ASCII)
"""No path that does not match is ever asked for: clients keep `..`, and Vault follows it (R26)."""

PATH_CHARACTERS_MAX = 1_024
_SAID_CHARACTERS_MAX = 200


class Trouble(enum.Enum):
    """Why Vault gave nothing. The first few are its word about what was asked; the rest say nothing about it."""

    DENIED = "denied"
    REFUSED = "refused"
    MISSING = "missing"
    SEALED = "sealed"
    BUSY = "busy"
    BROKEN = "broken"
    UNREACHABLE = "unreachable"
    SLOW = "slow"
    UNTRUSTED = "untrusted"
    REDIRECTED = "redirected"
    UNPREPARED = "unprepared"
    UNADMITTED = "unadmitted"


_ITS_WORD = frozenset({Trouble.DENIED, Trouble.REFUSED, Trouble.MISSING})
_NOBODY_THERE = frozenset(
    {Trouble.SEALED, Trouble.UNREACHABLE, Trouble.SLOW, Trouble.UNTRUSTED, Trouble.REDIRECTED}
)


class Failed(Exception):
    """One line that a platform engineer can act on; it names addresses, roles and paths, and no value or token.

    `status` is that of HTTP, 0 when there was no answer. `retry_after_seconds`: nobody asks again before.
    """

    def __init__(
        self,
        trouble: Trouble,
        text: str,
        *,
        status: int = 0,
        said: str = "",
        retry_after_seconds: float | None = None,
    ) -> None:
        super().__init__(text)
        self.trouble = trouble
        self.status = status
        self.said = said
        self.retry_after_seconds = retry_after_seconds

    @property
    def final(self) -> bool:
        """Vault itself says that there is nothing: what was got before is not good any longer."""
        return self.trouble in _ITS_WORD

    @property
    def outage(self) -> bool:
        """Vault as a whole cannot be asked, whatever it is asked."""
        return self.trouble in _NOBODY_THERE


@dataclasses.dataclass(slots=True, repr=False, eq=False)
class Token:
    """One login. `seconds` it lives from when it was given, or was renewed last; inf for ever. Each login makes another one."""

    value: str
    seconds: float
    renewable: bool


@dataclasses.dataclass(frozen=True, slots=True, repr=False)
class Secret:
    """A KV v2 secret. `version` tells it from every other that was ever at this path."""

    values: Mapping[str, Any]
    version: str


@dataclasses.dataclass(frozen=True, slots=True, repr=False)
class Lease:
    """What an engine made. `id` is "" and `seconds` 0 where it cannot be renewed or revoked."""

    values: Mapping[str, Any]
    id: str
    seconds: float
    renewable: bool


class Vault(Protocol):
    """Each raises Failed, and returns within seconds whatever Vault does."""

    async def login(self, role: str) -> Token:
        """With the pod's own token, read from its file now."""

    async def alive(self, token: Token) -> bool:
        """Whether Vault still knows the token; True when it does not want to say."""

    async def renew(self, token: Token, role: str) -> Token:
        """The same token with what it lives from now on."""

    async def revoke(self, token: Token, role: str) -> None:
        """Gives a token back, and with it all its leases."""

    async def secret(self, token: Token, role: str, path: str) -> Secret:
        """The latest version of a KV v2 secret. `path` is below the site's mount."""

    async def version(self, token: Token, role: str, path: str) -> str:
        """That of the latest version; "" when it is deleted, or may be."""

    async def make(self, token: Token, role: str, path: str, wish: Mapping[str, str] | None = None) -> Lease:
        """What the engine at this path of the API makes; with a wish it is written to."""

    async def renew_lease(self, token: Token, role: str, lease: str) -> float:
        """Seconds that it lives from now on."""

    async def revoke_lease(self, token: Token, role: str, lease: str) -> None:
        """Gives one back."""


def seconds(given: object) -> float:
    """A duration as Vault says it; what is no positive number means that there is no end."""
    if isinstance(given, bool) or not isinstance(given, int | float) or given <= 0:
        return math.inf
    return float(given)


def said(errors: object, *, but: str = "") -> str:
    """What Vault said, on one line of printable ASCII, cut short; nothing when it repeats what must not be said."""
    listed = errors if isinstance(errors, list) else [errors]
    words = " ".join(" ".join(each.split()) for each in listed if isinstance(each, str))
    if but and but in words:
        return ""
    words = words.removeprefix("1 error occurred: * ")
    printable = "".join(letter if " " <= letter <= "~" else "?" for letter in words)
    return printable if len(printable) <= _SAID_CHARACTERS_MAX else f"{printable[:_SAID_CHARACTERS_MAX]}..."


def acceptable(path: str) -> bool:
    """Whether a path is one that may be asked for."""
    return len(path) <= PATH_CHARACTERS_MAX and PATH.fullmatch(path) is not None
