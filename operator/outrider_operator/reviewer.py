# SPDX-License-Identifier: Apache-2.0
"""Who is at the other end of a connection: a token in, a principal out, or a sentence why not.

Called by streaming for every request, before its body is read. On a laptop the token is one of a file that only its owner can
read; in a cluster the API server reviews it, for one audience. Refuses whatever it cannot compare, a token that no pod is bound
to, and a pod that is not known as injected.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import dataclasses
import hashlib
import hmac
import json
import os
import pathlib
import secrets
import stat
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from typing import Protocol

from outrider_operator import apiobjects, pods

STREAM_AUDIENCE = "config.outrider.dev"
"""Of tokens that sidecars prove themselves with."""

API_AUDIENCE = "api.outrider.dev"
"""Of tokens that people and other replicas prove themselves with."""

TOKEN_BYTES = 32
_TOKEN_CHARACTERS_MIN = 32
_FILE_BYTES_MAX = 4096

_TOKEN_BYTES_MAX = 16_384
_ACCEPTED_SECONDS = 60.0
"""How long a token that was revoked may still be accepted for something new (security: at most a minute)."""

_REFUSED_SECONDS = 5.0
_REMEMBERED_MAX = 10_000
_ASKED_AT_ONCE_MAX = 16
_WAITING_MAX = 4_000
_ANSWER_SECONDS_MAX = 10.0


@dataclasses.dataclass(frozen=True, slots=True)
class Principal:
    """Whom a stream belongs to. `pod` and `uid` are '' on a laptop."""

    namespace: str
    service_account: str
    pod: str = ""
    uid: str = ""

    @property
    def subject(self) -> tuple[str, str]:
        return self.namespace, self.service_account

    def __str__(self) -> str:
        account = f"{self.namespace}/{self.service_account}" if self.namespace else self.service_account
        return f"{account} in pod {self.pod}" if self.pod else account


LAPTOP = Principal("", "laptop")
"""The one principal of an operator that reads files."""


@dataclasses.dataclass(frozen=True, slots=True)
class Caller:
    """A person or a replica, as the API server knows them."""

    username: str
    groups: tuple[str, ...] = ()


@dataclasses.dataclass(frozen=True, slots=True)
class Refused:
    """Why nobody is behind a token; `status` is 401, or 503 when nobody could be asked."""

    text: str
    status: int = 401


class Reviewer(Protocol):
    """Tells who presents a token."""

    async def review(self, token: str) -> Principal | Refused:
        """The principal the token stands for. Never raises."""

    async def again(self, token: str) -> Principal | Refused:
        """The same, believing nothing that is remembered."""


class FileReviewer:
    """The one token of a file, read anew each time: it may have been replaced."""

    __slots__ = ("_file",)

    def __init__(self, file: pathlib.Path) -> None:
        self._file = file

    async def review(self, token: str) -> Principal | Refused:
        try:
            wanted = read(self._file)
        except TokenFileError:
            return _NO_FILE_TOKEN
        # Compared as bytes: compare_digest takes constant time, and refuses text that is not ASCII.
        same = hmac.compare_digest(token.encode("utf-8", "surrogateescape"), wanted.encode())
        return LAPTOP if same else _NO_FILE_TOKEN

    async def again(self, token: str) -> Principal | Refused:
        return await self.review(token)


_NO_FILE_TOKEN = Refused("present the token of the operator's token file as Authorization: Bearer")


Ask = Callable[[str, str], Awaitable[apiobjects.Review | None]]
"""(token, audience): what a TokenReview says; None when the token is not accepted. Raises when nobody could be asked."""


class TokenReviewer:
    """Sidecars and callers of the API, as the API server knows them.

    `pod` gives the injected pod of a uid, None when it is not known; `clock` counts seconds. An answer is used again for up to a
    minute when it was good and for five seconds when it was not; the pod is looked up every time. Pods of `prober`, a ServiceAccount
    of the operator's own namespace, are not injected and are let in too.
    """

    def __init__(
        self,
        ask: Ask,
        *,
        pod: Callable[[str], pods.Pod | None],
        clock: Callable[[], float],
        wall: Callable[[], float],
        prober: tuple[str, str] | None = None,
    ) -> None:
        self._ask = ask
        self._pod = pod
        self._clock = clock
        self._wall = wall
        self._prober = prober
        self._known: OrderedDict[bytes, tuple[float, apiobjects.Review | None]] = OrderedDict()
        self._asking: dict[bytes, asyncio.Task[apiobjects.Review | None]] = {}
        self._turn = asyncio.Semaphore(_ASKED_AT_ONCE_MAX)

    async def review(self, token: str) -> Principal | Refused:
        """The pod behind a token of the config stream's audience."""
        found = await self._reviewed(token, STREAM_AUDIENCE)
        if isinstance(found, Refused):
            return found
        account = found.account
        if account is None:
            return Refused(f"{found.username} is not a ServiceAccount; sidecars present their pod's token")
        if not found.pod or not found.pod_uid:
            return Refused(
                "the token is bound to no pod; kubelet's projected tokens are, `kubectl create token` makes others"
            )
        known = self._pod(found.pod_uid)
        if account != self._prober and (known is None or known.subject != account):
            return Refused(
                f"pod {account[0]}/{found.pod} is not known here as injected (label {pods.INJECTED_LABEL}=true)"
            )
        return Principal(*account, found.pod, found.pod_uid)

    async def caller(self, token: str) -> Caller | Refused:
        """Whoever is behind a token of the API's audience."""
        found = await self._reviewed(token, API_AUDIENCE)
        return found if isinstance(found, Refused) else Caller(found.username, tuple(found.groups))

    async def again(self, token: str) -> Principal | Refused:
        """As `review`, asking the API server anew."""
        self._known.pop(_name(token, STREAM_AUDIENCE), None)
        return await self.review(token)

    async def _reviewed(self, token: str, audience: str) -> apiobjects.Review | Refused:
        if not token or len(token) > _TOKEN_BYTES_MAX or not token.isascii():
            return Refused(f"present a token with audience {audience} as Authorization: Bearer")
        name = _name(token, audience)
        until, found = self._known.get(name, (0.0, None))
        if until <= self._clock():
            try:
                found = await self._asked(name, token, audience)
            except Exception as error:  # noqa: BLE001 - whatever kept the API server from answering
                why = str(error) or type(error).__name__
                return Refused(f"the API server could not be asked about the token ({why}); dial again", 503)
        return found or Refused(_why(token, audience, self._wall()))

    async def _asked(self, name: bytes, token: str, audience: str) -> apiobjects.Review | None:
        """One question for one token, however many wait for its answer."""
        task = self._asking.get(name)
        if task is None:
            if len(self._asking) >= _WAITING_MAX:
                raise OSError(f"{_WAITING_MAX} tokens wait for it")
            task = asyncio.get_running_loop().create_task(self._question(name, token, audience))
            self._asking[name] = task
            task.add_done_callback(lambda done: self._answered(name, done))
        return await asyncio.shield(task)

    async def _question(self, name: bytes, token: str, audience: str) -> apiobjects.Review | None:
        async with self._turn, asyncio.timeout(_ANSWER_SECONDS_MAX):
            found = await self._ask(token, audience)
        seconds = _REFUSED_SECONDS if found is None else _ACCEPTED_SECONDS
        self._known[name] = (self._clock() + seconds, found)
        self._known.move_to_end(name)
        while len(self._known) > _REMEMBERED_MAX:
            self._known.popitem(last=False)
        return found

    def _answered(self, name: bytes, task: asyncio.Task[apiobjects.Review | None]) -> None:
        self._asking.pop(name, None)
        if not task.cancelled():
            task.exception()  # whoever waited for it has heard it


def _name(token: str, audience: str) -> bytes:
    """What a token is remembered by; the token itself is not kept."""
    return hashlib.sha256(f"{audience}\n{token}".encode()).digest()


def _why(token: str, audience: str, now: float) -> str:
    """Words for whoever presents a token that is not accepted, from what the token says of itself."""
    general = f"the API server does not accept this token for audience {audience}"
    try:
        part = token.split(".")[1]
        claims = json.loads(base64.urlsafe_b64decode(part + "=" * (-len(part) % 4)))
        given, ends = claims.get("aud", []), claims.get("exp", 0)
    except (IndexError, ValueError, binascii.Error, AttributeError, RecursionError):
        return f"{general}; present the pod's projected token"
    given = [given] if isinstance(given, str) else given
    if not isinstance(given, list) or audience not in given:
        return f"{general}: it was made for other audiences"
    if isinstance(ends, int | float) and ends <= now:
        return f"{general}: it has expired; read the token file again"
    return f"{general}: it was revoked, its pod is gone, or it is of another cluster"


class TokenFileError(Exception):
    """The token's file cannot be used; the text says why and what to do."""


def ensure(file: pathlib.Path) -> None:
    """Makes the file with a fresh token, mode 0600, if it is absent. Raises TokenFileError if it cannot be used."""
    try:
        file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        descriptor = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    except FileExistsError:
        read(file)
        return
    except OSError as error:
        raise TokenFileError(
            f"the token file {file} cannot be made: {error.strerror}; choose another folder"
        ) from None
    with os.fdopen(descriptor, "w") as opened:
        opened.write(secrets.token_hex(TOKEN_BYTES) + "\n")
        opened.flush()
        os.fsync(opened.fileno())


def read(file: pathlib.Path) -> str:
    """The token. Raises TokenFileError when others could read it too, or when it is too short to be one."""
    try:
        descriptor = os.open(file, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as error:
        raise TokenFileError(f"the token file {file} cannot be read: {error.strerror}") from None
    with os.fdopen(descriptor, "rb") as opened:
        status = os.fstat(opened.fileno())
        if not stat.S_ISREG(status.st_mode):
            raise TokenFileError(f"the token file {file} is not a regular file")
        if status.st_mode & 0o077:
            raise TokenFileError(f"others may read the token file {file}; run: chmod 600 {file}")
        token = opened.read(_FILE_BYTES_MAX).decode("ascii", "replace").strip()
    if len(token) < _TOKEN_CHARACTERS_MIN or not token.isascii() or not token.isprintable() or " " in token:
        raise TokenFileError(
            f"the token file {file} holds no token of {_TOKEN_CHARACTERS_MIN} or more characters; remove it to have one made"
        )
    return token
