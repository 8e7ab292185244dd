# SPDX-License-Identifier: Apache-2.0
"""List and watch of one kind at the API server, over HTTP.

Called by reflector. A list is read in pages, a watch line by line; every page, line and wait is bounded. What the API server refuses and
what it does not answer are one exception with a status; it is for reflector to know what that means.
"""

from __future__ import annotations

import contextlib
import dataclasses
import urllib.parse
from collections.abc import AsyncIterator, Iterable, Iterator, Mapping
from typing import Any

import aiohttp
import msgspec

from outrider_operator import access, collection, outages

PAGE_OBJECTS = 500
PAGE_BYTES = 4_194_304
"""After a page larger than this the next is smaller: to decode one stops everything else for its time."""

PAGE_BYTES_MAX = 134_217_728
LINE_BYTES_MAX = 16_777_216
"""Of one event. The API server accepts objects of a tenth of that."""

LIST_RESTARTS_MAX = 3
PAGE_SECONDS_MAX = 60.0
ONE_SECONDS_MAX = 5.0
SILENCE_SECONDS_MAX = 150.0
"""Bookmarks come about once a minute, but none before a kind's first event since the API server started. A lost peer is noticed much sooner
by the kernel (access); this is for whatever else keeps a watch open and silent, and costs a list."""

_IDENTITY = {"Accept": "application/json", "Accept-Encoding": "identity"}


class Refused(Exception):
    """The API server said no (`status`), or nothing (0)."""

    def __init__(self, status: int, reason: str, text: str, *, retry_after: float = 0.0) -> None:
        super().__init__(f"{status} {reason}: {text}" if status else text)
        self.status = status
        self.reason = reason
        self.text = text
        self.retry_after = retry_after

    @property
    def gone(self) -> bool:
        """The position asked for is too old; only a list helps."""
        return self.status == 410


class Silent(Exception):
    """A watch on which nothing came for too long."""


@dataclasses.dataclass(frozen=True, slots=True)
class Watched:
    """What is watched: a kind, and which of its objects. `group` "" is the core's; `namespace` "" means all of them."""

    group: str
    version: str
    plural: str
    namespace: str = ""
    label_selector: str = ""
    field_selector: str = ""

    @property
    def path(self) -> str:
        root = f"/apis/{self.group}/{self.version}" if self.group else f"/api/{self.version}"
        return (
            f"{root}/namespaces/{self.namespace}/{self.plural}" if self.namespace else f"{root}/{self.plural}"
        )

    def path_of(self, key: collection.Key, namespaced: bool) -> str:
        namespace, name = (urllib.parse.quote(part, safe="") for part in key)
        root = f"/apis/{self.group}/{self.version}" if self.group else f"/api/{self.version}"
        return (
            f"{root}/namespaces/{namespace}/{self.plural}/{name}"
            if namespaced
            else f"{root}/{self.plural}/{name}"
        )

    @property
    def selectors(self) -> dict[str, str]:
        given = {"labelSelector": self.label_selector, "fieldSelector": self.field_selector}
        return {name: value for name, value in given.items() if value}

    def __str__(self) -> str:
        return f"{self.plural}.{self.group}" if self.group else self.plural


class Source:
    """One kind at one API server. `session` is the running loop's."""

    def __init__(self, given: access.Access, session: aiohttp.ClientSession, watched: Watched) -> None:
        self._access = given
        self._session = session
        self.watched = watched
        self._page_objects = PAGE_OBJECTS

    async def listed(
        self, known: collection.Collection
    ) -> tuple[dict[collection.Key, collection.Object], int]:
        """Everything there is, trimmed as `known` does, and as of when. Raises Refused and collection.TooMany."""
        for _ in range(LIST_RESTARTS_MAX):
            try:
                return await self._pages(known)
            except Refused as error:
                if not error.gone:
                    raise
        raise Refused(410, "Expired", "the list kept expiring while it was read; it is tried again")

    async def _pages(
        self, known: collection.Collection
    ) -> tuple[dict[collection.Key, collection.Object], int]:
        found: dict[collection.Key, collection.Object] = {}
        following = ""
        while True:
            query = {**self.watched.selectors, "limit": str(self._page_objects)}
            if following:
                query["continue"] = following
            page = await self._page(query)
            items = page.get("items") or []
            with _sound():
                found |= known.trimmed(items)
                version = collection.version_of(page)
            if len(found) > collection.OBJECTS_MAX:
                raise collection.TooMany(f"there are more than {collection.OBJECTS_MAX} objects")
            following = page["metadata"].get("continue") or ""
            if not following:
                return found, version

    async def _page(self, query: Mapping[str, str]) -> dict[str, Any]:
        timeout = aiohttp.ClientTimeout(total=PAGE_SECONDS_MAX)
        async with self._asked(self.watched.path, query, timeout) as answer:
            content = bytearray()
            async for chunk in answer.content.iter_any():
                content += chunk
                if len(content) > PAGE_BYTES_MAX:
                    raise Refused(
                        0,
                        "TooLarge",
                        f"a page of {self._page_objects} objects is larger than {PAGE_BYTES_MAX} bytes",
                    )
            if len(content) > PAGE_BYTES:
                self._page_objects = max(1, self._page_objects // 2)
            return _decoded(bytes(content))

    async def one(self, key: collection.Key) -> collection.Object | None:
        """One object as it is now; None when there is none."""
        path = self.watched.path_of(key, namespaced=bool(key[0]))
        try:
            async with self._asked(path, {}, aiohttp.ClientTimeout(total=ONE_SECONDS_MAX)) as answer:
                return _decoded(await answer.read())
        except Refused as error:
            if error.status == 404:
                return None
            raise

    @contextlib.asynccontextmanager
    async def watch(self, version: int, seconds: int) -> AsyncIterator[AsyncIterator[list[collection.Event]]]:
        """Events after `version`, for that many seconds, in runs as they arrive. Raises Refused (410 too) and Silent."""
        query = {
            **self.watched.selectors, "watch": "1", "allowWatchBookmarks": "true",
            "resourceVersion": str(version), "timeoutSeconds": str(seconds),
        }  # fmt: skip
        timeout = aiohttp.ClientTimeout(total=None, sock_connect=10.0, sock_read=SILENCE_SECONDS_MAX)
        async with self._asked(self.watched.path, query, timeout) as answer:
            yield _runs(answer.content)

    @contextlib.asynccontextmanager
    async def _asked(
        self, path: str, query: Mapping[str, str], limits: aiohttp.ClientTimeout
    ) -> AsyncIterator[aiohttp.ClientResponse]:
        try:
            more = self._access.request(headers=_IDENTITY, params=dict(query), timeout=limits)
            async with self._session.get(self._access.url(path), **more) as answer:
                if answer.status != 200:
                    raise await _refusal(answer)
                yield answer
        except aiohttp.SocketTimeoutError:
            raise Silent(f"nothing was heard for {SILENCE_SECONDS_MAX:g} s") from None
        except (aiohttp.ClientError, OSError, TimeoutError) as error:
            raise Refused(0, "NoAnswer", outages.unanswered(self._access.server, error)) from None
        except access.AccessError as error:
            raise Refused(0, "NoAccess", str(error)) from None


async def _runs(content: aiohttp.StreamReader) -> AsyncIterator[list[collection.Event]]:
    """Whole lines, as many as there are at once."""
    rest = b""
    while chunk := await content.readany():
        *lines, rest = (rest + chunk).split(b"\n")
        if len(rest) > LINE_BYTES_MAX:
            raise Refused(0, "TooLarge", f"an event is larger than {LINE_BYTES_MAX} bytes")
        if events := list(_events(lines)):
            yield events


def _events(lines: Iterable[bytes]) -> Iterable[collection.Event]:
    for line in lines:
        if not line.strip():
            continue
        event = _decoded(line)
        made = event.get("object")
        if event.get("type") == "ERROR" and isinstance(made, dict):
            raise Refused(
                int(made.get("code") or 500), str(made.get("reason") or ""), str(made.get("message") or "")
            )
        try:
            kind = collection.EventKind(str(event.get("type")))
        except ValueError:
            continue  # a kind of event that a later Kubernetes may have
        if isinstance(made, dict):
            with _sound():
                collection.version_of(made)
                if kind is not collection.EventKind.BOOKMARK:
                    collection.key_of(made)
            yield collection.Event(kind, made)


def _decoded(content: bytes) -> dict[str, Any]:
    try:
        found = msgspec.json.decode(content)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise Refused(0, "NotJson", f"the API server answered something that is not JSON: {error}") from None
    if not isinstance(found, dict):
        raise Refused(0, "NotJson", "the API server answered something that is not an object")
    return found


@contextlib.contextmanager
def _sound() -> Iterator[None]:
    """An answer without what every answer has is no answer."""
    try:
        yield
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise Refused(0, "NotAnObject", f"the API server's answer lacks or garbles {error}") from None


async def _refusal(answer: aiohttp.ClientResponse) -> Refused:
    content = await answer.content.read(65_536)
    try:
        found = msgspec.json.decode(content)
    except (msgspec.DecodeError, UnicodeDecodeError):
        found = None
    given: dict[str, Any] = found if isinstance(found, dict) else {}
    text = str(given.get("message") or content[:200].decode(errors="replace"))
    after = answer.headers.get("Retry-After", "")
    seconds = float(after) if after.isdigit() else 0.0
    return Refused(answer.status, str(given.get("reason") or answer.reason or ""), text, retry_after=seconds)
