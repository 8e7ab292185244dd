# SPDX-License-Identifier: Apache-2.0
"""What replicas tell the one that writes status, and what it tells people: receipts together, `GET /v1/status`.

Run by controller; its doors are served beside the config stream. A replica sends its whole book to whoever holds the Lease, a second
after it changed and every five seconds: whoever takes over knows everything within that time. Refuses callers that are not our own
ServiceAccount, or that may not `get` the subresource `proxystatus` of MCPServers.
"""

from __future__ import annotations

import asyncio
import dataclasses
import datetime as dt
import logging
import pathlib
import ssl
import time
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

import aiohttp
import msgspec
from aiohttp import hdrs, web

from outrider_operator import cluster, keeper, outages, pods, receipts, reviewer, streaming

log = logging.getLogger("outrider.operator")

CHANGED_SECONDS = 1.0
UNCHANGED_SECONDS = 5.0
WHOLE_SECONDS = 60.0
"""What is carried in parts is told from the beginning this often."""

_SUMMARY_BYTES_MAX = 64 * 1024 * 1024
"""About a hundred thousand pods."""

_ANSWER_SECONDS_MAX = 5.0
_TOKEN_BYTES_MAX = 16_384

RECEIPTS_PATH = "/v1/receipts"
STATUS_PATH = "/v1/status"


class Summary(msgspec.Struct, frozen=True):
    """One replica's book, and what its proxies saw of servers (JSON that `Carried` understands)."""

    replica: str
    records: list[receipts.Record]
    carried: msgspec.Raw = msgspec.Raw(b"null")


@dataclasses.dataclass(frozen=True, slots=True)
class Carried:
    """Something else that travels with the receipts, in parts.

    `summary` makes JSON of what is newer than a revision (0: of everything) and says up to which it goes; `merge` takes a
    replica's; `revision` is the newest.
    """

    summary: Callable[[int], tuple[bytes, int]] = lambda _known: (b"null", 0)
    merge: Callable[[str, bytes], None] = lambda _replica, _summary: None
    revision: Callable[[], int] = lambda: 0


@dataclasses.dataclass(frozen=True, slots=True)
class _Sent:
    """What the holder has of us: the revisions of our book and of what is carried, and when it took them."""

    holder: str = ""
    book: int = -1
    carried: int = 0
    at: float = 0.0
    whole_at: float = 0.0


@dataclasses.dataclass(frozen=True, slots=True)
class Peers:
    """How other replicas are reached: whoever holds the Lease (host:port, '' unknown), whom TLS must name, what proves us."""

    leading: Callable[[], bool]
    holder: Callable[[], str]
    context: Callable[[], ssl.SSLContext]
    server_name: str
    token_file: pathlib.Path


@dataclasses.dataclass(frozen=True, slots=True)
class Callers:
    """Who may ask: `caller` reviews a token of the API's audience; `own` is our username; `may` is asked for (caller, namespace)."""

    caller: Callable[[str], Awaitable[reviewer.Caller | reviewer.Refused]]
    own: str
    may: Callable[[reviewer.Caller, str], Awaitable[bool]]


class Replicas:
    """One replica among the others. `known` gives the injected pods by uid, `troubles` what is amiss with their credentials.

    `spared` is the workload that has other pods, the prober.
    """

    def __init__(  # noqa: PLR0913 - parts, each by its name
        self,
        gathering: receipts.Gathering,
        peers: Peers,
        callers: Callers,
        *,
        known: Callable[[], Mapping[str, pods.Pod]],
        carried: Carried | None = None,
        troubles: Callable[[], Mapping[str, list[dict[str, object]]]] = dict,
        spared: tuple[str, str] = ("", ""),
    ) -> None:
        self._gathering = gathering
        self._peers = peers
        self._callers = callers
        self._known = known
        self._carried = carried or Carried()
        self._troubles = troubles
        self._spared = spared
        self._session: aiohttp.ClientSession | None = None
        self._sent = _Sent()
        self._why = ""

    @property
    def doors(self) -> Mapping[str, Callable[[web.Request], Awaitable[web.StreamResponse]]]:
        """For `streaming.application`: each reviews its callers itself."""
        return {RECEIPTS_PATH: self._receipts, STATUS_PATH: self._status}

    async def run(self) -> None:
        """Forgets pods that are gone and keeps the holder of the Lease informed; returns only by cancellation."""
        async with aiohttp.ClientSession() as self._session:
            while True:
                self._tidy()
                await self.send()
                await asyncio.sleep(CHANGED_SECONDS)

    def _tidy(self) -> None:
        """Forgets the pods that are gone. Those of `spared` are in nobody's list, and what one said here is known nowhere else."""
        found = self._gathering.receipts().items()
        self._gathering.keep({*self._known(), *(uid for uid, one in found if one.subject == self._spared)})

    async def send(self) -> None:
        """Sends our book if there is something to say and somebody to say it to."""
        holder = self._peers.holder()
        if self._peers.leading() or not holder:
            return
        book, carried, now = self._gathering.own.revision, self._carried.revision(), time.monotonic()
        sent = self._sent if self._sent.holder == holder else _Sent()
        if (sent.book, sent.carried) == (book, carried) and now - sent.at < UNCHANGED_SECONDS:
            return
        # A holder that started again under its own name has forgotten us, and cannot know it.
        if now - sent.whole_at > WHOLE_SECONDS:
            sent = dataclasses.replace(sent, carried=0, whole_at=now)
        content, upto = self._carried.summary(sent.carried)
        summary = Summary(
            self._gathering.replica, list(self._gathering.own.records.values()), msgspec.Raw(content)
        )
        why = await self._posted(holder, msgspec.json.encode(summary))
        self._sent = _Sent() if why else _Sent(holder, book, upto, now, sent.whole_at)
        if why and why != self._why:
            log.warning("receipts not delivered", extra={"fields": {"holder": holder, "why": why}})
        self._why = why

    async def _posted(self, holder: str, summary: bytes) -> str:
        """'' when it was taken, else why not."""
        try:
            async with self._asked("POST", holder, summary) as answer:
                text = await answer.text()
                return "" if answer.status == 200 else f"{answer.status} {text[:200]}"
        except (aiohttp.ClientError, OSError, TimeoutError, keeper.CertificateError) as error:
            return outages.why(error)

    def _asked(self, method: str, holder: str, body: bytes | None = None) -> Any:
        """A request to the holder. Raises OSError when our token cannot be read."""
        assert self._session is not None, "run has begun"
        with self._peers.token_file.open("rb") as opened:
            token = opened.read(_TOKEN_BYTES_MAX).decode("ascii", "replace").strip()
        return self._session.request(
            method,
            f"https://{holder}{RECEIPTS_PATH}",
            data=body,
            headers={hdrs.AUTHORIZATION: f"Bearer {token}"},
            ssl=self._peers.context(),
            server_hostname=self._peers.server_name,
            allow_redirects=False,
            timeout=aiohttp.ClientTimeout(total=_ANSWER_SECONDS_MAX),
        )

    async def _receipts(self, request: web.Request) -> web.StreamResponse:
        """For other replicas: POST takes a book, GET gives everything."""
        found = await self._callers.caller(streaming.bearer(request))
        if isinstance(found, reviewer.Refused):
            return streaming.refusal(found)
        if found.username != self._callers.own:
            return streaming.error(403, f"this is for {self._callers.own}, and you are {found.username}")
        if request.method == hdrs.METH_GET:
            return web.json_response(self._rows())
        if request.method != hdrs.METH_POST:
            return streaming.error(405, "GET or POST")
        if not self._peers.leading():
            return streaming.error(409, "another replica holds the Lease")
        try:
            summary = msgspec.json.decode(await streaming.body(request, _SUMMARY_BYTES_MAX), type=Summary)
        except msgspec.DecodeError as error:
            return streaming.error(400, f"not a summary: {error}")
        if not self._gathering.heard(summary.replica, summary.records):
            return streaming.error(429, "too many replicas")
        self._carried.merge(summary.replica, bytes(summary.carried))
        return web.json_response({"recorded": len(summary.records)})

    async def _status(self, request: web.Request) -> web.StreamResponse:
        """For people: every proxy, what it was offered and what it said."""
        found = await self._callers.caller(streaming.bearer(request))
        if isinstance(found, reviewer.Refused):
            return streaming.refusal(found)
        if request.method != hdrs.METH_GET:
            return streaming.error(405, "GET")
        namespace = request.query.get("namespace", "")
        try:
            allowed = await self._callers.may(found, namespace)
        except cluster.ClusterError as error:
            return streaming.error(503, f"the API server could not be asked what you may see: {error}")
        if not allowed:
            where = f" in namespace {namespace}" if namespace else ""
            words = f"{found.username} may not get mcpservers.outrider.dev/proxystatus{where}; ask for ClusterRole outrider-view"
            return streaming.error(403, words)
        rows, why = await self._complete()
        shown = [row for row in rows if namespace in ("", row["namespace"])]
        return web.json_response(
            {"replica": self._gathering.replica, "complete": not why, "why": why, "sidecars": shown}
        )

    async def _complete(self) -> tuple[list[dict[str, Any]], str]:
        """All rows, and why they may not be all."""
        if self._peers.leading():
            settling = "the replica that collects receipts has just taken over"
            return self._rows(), settling if self._gathering.settling else ""
        holder = self._peers.holder()
        if not holder:
            return self._rows(), "no replica holds the Lease"
        try:
            async with self._asked("GET", holder) as answer:
                if answer.status == 200:
                    return await answer.json(), ""
                why = f"it answers {answer.status}"
        except (aiohttp.ClientError, OSError, TimeoutError, ValueError, keeper.CertificateError) as error:
            why = outages.why(error)
        return self._rows(), f"the replica that collects receipts was not reached: {why}"

    def _rows(self) -> list[dict[str, Any]]:
        given, known = self._gathering.receipts(), self._known()
        there = {*known, *(uid for uid, receipt in given.items() if receipt.connected)}
        amiss = self._troubles()
        rows = [
            {**_row(uid, known.get(uid), given.get(uid)), "troubles": amiss.get(uid, [])} for uid in there
        ]
        return sorted(rows, key=lambda row: (row["namespace"], row["pod"], row["uid"]))


_NO_POD = pods.Pod("", "", "", "")
_NO_RECEIPT = receipts.Receipt(("", ""), "", "", 0, connected=False)


def _row(uid: str, pod: pods.Pod | None, receipt: receipts.Receipt | None) -> dict[str, Any]:
    """One proxy as JSON. A pod that never connected has a row too, and so has a proxy whose pod is not seen any more."""
    seen, said = pod or _NO_POD, receipt or _NO_RECEIPT
    since = dt.datetime.fromtimestamp(said.since, dt.UTC).isoformat(timespec="seconds").replace("+00:00", "Z")
    return {
        "namespace": seen.namespace or said.namespace,
        "pod": seen.name or said.pod,
        "uid": uid,
        "serviceAccount": seen.service_account or said.subject[1],
        "node": seen.node,
        "phase": seen.phase,
        "image": seen.image,
        "version": said.software,
        "schema": said.schema or None,
        "connected": said.connected,
        "replica": said.replica,
        "since": since if said.since else None,
        "offered": said.offered or None,
        "acked": said.acked or None,
        "inSync": said.connected and said.acked == said.offered != "",
        "refusal": None if said.refusal is None else msgspec.to_builtins(said.refusal),
        "unexpressed": list(said.unexpressed),
    }
