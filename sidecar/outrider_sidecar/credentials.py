# SPDX-License-Identifier: Apache-2.0
"""Lends the secret a Permit names, for one upstream request.

Called by the pipeline after the intent is on disk, and by lists. Where secrets come from is a `loans.Source` per kind; here is
checked that one may go to this server and can be a header, and it is made into one. Secrets live in the memory of the sources and
of this module and in the `Lent` it hands out, nowhere else: no log line, error or record here ever holds one (N4).
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import contextlib
import dataclasses
import logging
import math
import re
import urllib.parse
import weakref
from collections.abc import Callable, Iterable, Iterator, Mapping

from outrider import bind, decision, identity, names, snapshot
from outrider_sidecar import clienttls, exchange, loans, renewals, secretfiles, telemetry

log = logging.getLogger("outrider")

LEND_SECONDS = 20.0
"""How long a request of the proxy's own waits for its credential."""

WARM_AT_ONCE = 4
"""Credentials fetched at the same time when a configuration comes into force: their origins serve thousands of proxies."""

CLOSE_SECONDS = 3.0
"""Sources have two; the proxy's own end does not wait for one that takes longer."""

SAID_SECONDS = 5.0
"""Between two log lines of the same kind about calls that one entry had no credential for."""

_GRACE_SECONDS = 0.5
"""A source keeps to the deadline by itself and says why; this much later nobody waits for it any more."""

_PRINTABLE = bytes(range(0x20, 0x7F))
_DIGITS = re.compile("[0-9]+")
_PORTS = {"http": 80, "https": 443}

_R = decision.Reason
_NOTHING = exchange.Lent()


@dataclasses.dataclass(slots=True, repr=False)
class _Slot:
    """One entry of one server as it is in force. `made` holds what loans were made into, as long as their source has them.

    `of_user`: what is lent is the user's own. `unfit`: a loan that may not be lent, and why, likewise.
    """

    view: snapshot.ServerView
    entry: snapshot.Credential
    source: loans.Source
    wanted: loans.Wanted
    of_user: bool
    made: weakref.WeakKeyDictionary[loans.Loan, exchange.Lent] = dataclasses.field(
        default_factory=weakref.WeakKeyDictionary
    )
    unfit: weakref.WeakKeyDictionary[loans.Loan, tuple[decision.Reason, str]] = dataclasses.field(
        default_factory=weakref.WeakKeyDictionary
    )
    said: tuple[str, float] = ("", -math.inf)


@dataclasses.dataclass(frozen=True, slots=True)
class Row:
    """How one entry's credential fares, by names that are bounded: none of a user."""

    server: names.ServerId
    credential: str
    standing: loans.Standing


class Credentials:
    """Turns a Permit's credential into request headers, or into the certificate of its connection.

    `sources` by the type of what they lend; more may be added to it. `clock` is loop time.
    """

    def __init__(self, sources: Mapping[type, loans.Source], *, clock: Callable[[], float]) -> None:
        self._sources = sources
        self._clock = clock
        self._slots: dict[tuple[names.ServerId, str], _Slot] = {}
        self._in_force: dict[names.ServerId, snapshot.ServerView] | None = None
        self._renewals = renewals.Renewals(clock)

    # One request --------------------------------------------------------------------------------------------------------

    def at_hand(self, permit: decision.Permit) -> exchange.Lent | None:
        """What can be lent without waiting; None when it must be fetched. Raises Unavailable for what may not be lent."""
        entry = permit.credential
        if entry is None or entry.source is None:
            return _NOTHING
        slot = self._slots.get((permit.server.id, entry.name))
        if slot is None or slot.view is not permit.server:
            slot = self._slot(permit.server, entry)
        wanted = slot.wanted
        if slot.of_user:
            wanted = loans.Wanted(wanted.where, wanted.server, _present(slot, permit.call.user))
        loan = slot.source.at_hand(wanted)
        if loan is None:
            return None
        lent = slot.made.get(loan)
        if lent is None and loan.certificate is None:
            lent = _made(slot, loan, wanted.user)
        return lent

    async def lend(self, permit: decision.Permit, *, deadline: float | None = None) -> exchange.Lent:
        """Like `at_hand`, waiting for the source until `deadline` (loop time). Raises Unavailable."""
        entry = permit.credential
        if entry is None or entry.source is None:
            return _NOTHING
        slot = self._slot(permit.server, entry)
        wanted = self._wanted(slot, permit.call.user, deadline)
        return await self._prepared(slot, await self._fetched(slot, wanted), wanted.user)

    async def renewed(
        self, permit: decision.Permit, refused: exchange.Lent, *, deadline: float
    ) -> exchange.Lent | None:
        """After a server answered 401 to `refused`: what is newer, None when nothing is.

        Everybody who was refused waits for one refresh, and refreshes that do not help come ever more seldom (`renewals`).
        """
        entry = permit.credential
        if entry is None or entry.source is None or refused.identity is not None:
            return None
        slot = self._slot(permit.server, entry)
        until = min(deadline, self._clock() + renewals.SECONDS_MAX)
        wanted = self._wanted(slot, permit.call.user, until)
        try:
            held = slot.source.at_hand(wanted)
            if held is None or held.version == refused.version:
                held = await self._renewals.renewed(slot.source, wanted, refused.version)
            return (
                None
                if held is None or held.version == refused.version
                else await self._prepared(slot, held, wanted.user)
            )
        except loans.Unavailable as failure:
            log.warning(
                "a refused credential cannot be renewed", extra=_told(permit.server.id, entry, failure)
            )
            return None

    def lacking(self, permit: decision.Permit, failure: loans.Unavailable, *, request: str) -> None:
        """Logs that a call had to be refused for want of its credential, and why: not of every one, for in an outage it is all.

        Each one's reason is in its outcome.
        """
        entry, now = permit.credential, self._clock()
        slot = self._slots.get((permit.server.id, entry.name)) if entry is not None else None
        why = _DIGITS.sub("", str(failure))  # how long it still takes is no news
        if entry is None or (slot is not None and slot.said[0] == why and now - slot.said[1] < SAID_SECONDS):
            return
        if slot is not None:
            slot.said = (why, now)
        facts = _told(permit.server.id, entry, failure)["fields"]
        log.error("no credential can be lent", extra=telemetry.fields(**facts, request=request))

    async def _fetched(self, slot: _Slot, wanted: loans.Wanted) -> loans.Loan:
        """What is at hand, else what the source has when asked."""
        if (held := slot.source.at_hand(wanted)) is not None:
            return held
        try:
            async with asyncio.timeout_at(wanted.deadline + _GRACE_SECONDS):
                return await slot.source.fetch(wanted)
        except TimeoutError:
            text = f"credential {slot.entry.name!r} was not obtained in the time that its call has"
            raise loans.Unavailable(_R.CREDENTIAL_UNAVAILABLE, text, retry_after_seconds=1.0) from None

    async def _prepared(
        self, slot: _Slot, loan: loans.Loan, user: identity.User | None = None
    ) -> exchange.Lent:
        """What is lent by this loan, made once."""
        if (lent := slot.made.get(loan)) is not None:
            return lent
        if loan.certificate is None:
            return _made(slot, loan, user)
        endpoint = slot.view.endpoint
        if not endpoint.url.startswith("https:"):
            text = f"credential {slot.entry.name!r} is a client certificate, and the endpoint is not https"
            raise loans.Unavailable(_R.CREDENTIAL_UNAVAILABLE, text)
        context = await asyncio.to_thread(clienttls.context, endpoint.ca_bundle, loan.certificate)
        shown = exchange.Identity(f"{slot.entry.name}\0{loan.certificate.version}", context)
        lent = slot.made[loan] = exchange.Lent(version=loan.version, identity=shown)
        return lent

    def _wanted(self, slot: _Slot, user: identity.User | None, deadline: float | None = None) -> loans.Wanted:
        until = self._clock() + LEND_SECONDS if deadline is None else deadline
        whose = _present(slot, user) if slot.of_user else None
        return loans.Wanted(slot.wanted.where, slot.wanted.server, whose, until)

    def _slot(self, view: snapshot.ServerView, entry: snapshot.Credential) -> _Slot:
        """Of the entry as it is in force, or of one that was and is still in use. Raises Unavailable when nothing here lends it."""
        key = (view.id, entry.name)
        slot = self._slots.get(key)
        if slot is not None and slot.view is view:
            return slot
        assert entry.source is not None
        source = self._sources.get(type(entry.source))
        if source is None:
            text = f"credential {entry.name!r} is one that this proxy cannot lend"
            raise loans.Unavailable(_R.CREDENTIAL_UNAVAILABLE, text)
        own = isinstance(entry.source, snapshot.TokenExchange)
        slot = _Slot(view, entry, source, loans.Wanted(entry.source, view.id), own)
        if self._in_force is None or self._in_force.get(view.id) is view:
            self._slots[key] = slot
        return slot

    # All of them --------------------------------------------------------------------------------------------------------

    def keep(self, bound: bind.Bound) -> None:
        """A snapshot is in force: whatever it does not name is forgotten, here and at the sources."""
        self._slots.clear()
        self._in_force = {key: held.view for key, held in bound.servers.items()}
        wanted = frozenset(everything(self._in_force.values()))
        for source in self._distinct():
            source.keep(wanted)
        for view in self._in_force.values():
            for entry in view.credentials:
                if entry.source is not None and type(entry.source) in self._sources:
                    self._slot(view, entry)

    async def warm(self, jitter: Callable[[], float]) -> None:
        """Fetches what first calls would have to wait for. What cannot be had is logged once, and again by the calls."""
        room = asyncio.Semaphore(WARM_AT_ONCE)

        async def fetched(slot: _Slot) -> None:
            async with room:
                await asyncio.sleep(0.2 * jitter())
                try:
                    await self._prepared(slot, await self._fetched(slot, self._wanted(slot, None)))
                except loans.Unavailable as failure:
                    said = _told(slot.view.id, slot.entry, failure)
                    log.warning("a credential cannot be had yet", extra=said)

        await asyncio.gather(*(fetched(slot) for slot in tuple(self._slots.values()) if not slot.of_user))

    def standing(self) -> Iterator[Row]:
        """How each entry's credential fares, of those that were asked for."""
        found = {each.where: each for source in self._distinct() for each in source.standing()}
        for (server, name), slot in self._slots.items():
            if (standing := found.get(slot.wanted.where)) is not None:
                yield Row(server, name, _fit(slot, standing))

    def figures(self) -> Iterator[telemetry.Credential]:
        """The same for the scrape."""
        for row in self.standing():
            told = row.standing
            yield telemetry.Credential(
                str(row.server), row.credential, told.available, told.expires_at, told.refreshed, told.failed
            )

    async def close(self) -> None:
        """Nothing is lent any more: sources give back what was leased."""
        self._slots.clear()
        closing = asyncio.gather(*(source.close() for source in self._distinct()), return_exceptions=True)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(CLOSE_SECONDS):
                await closing

    def _distinct(self) -> Iterable[loans.Source]:
        return {id(source): source for source in self._sources.values()}.values()


def everything(views: Iterable[snapshot.ServerView]) -> Iterator[snapshot.Source]:
    """What entries name, and what those need in turn: the secret or key of an OAuth client."""
    for view in views:
        for source in (entry.source for entry in view.credentials if entry.source is not None):
            yield source
            if isinstance(source, snapshot.ClientCredentials | snapshot.TokenExchange):
                yield from (each for each in (source.client.secret, source.client.key) if each is not None)


def _told(
    server: names.ServerId, entry: snapshot.Credential, failure: loans.Unavailable
) -> dict[str, dict[str, object]]:
    return telemetry.fields(
        server=str(server), credential=entry.name, reason=failure.reason.value, why=str(failure)
    )


def _present(slot: _Slot, user: identity.User | None) -> identity.User:
    if user is None:
        text = f"credential {slot.entry.name!r} is the user's own, and there is no user"
        raise loans.Unavailable(_R.USER_REQUIRED, text)
    return user


def _made(slot: _Slot, loan: loans.Loan, user: identity.User | None) -> exchange.Lent:
    """What is lent by this loan; what may not be is remembered for as long as the source has nothing else."""
    try:
        lent = slot.made[loan] = _lent(slot, loan, user)
    except loans.Unavailable as failure:
        if not slot.of_user:  # one user's is not everybody's
            slot.unfit[loan] = (failure.reason, str(failure))
        raise
    return lent


def _fit(slot: _Slot, told: loans.Standing) -> loans.Standing:
    """How a credential fares whose source is well: what it gave may be for another server, or no header."""
    for reason, why in tuple(slot.unfit.values())[-1:]:
        return dataclasses.replace(told, available=False, failing=reason, why=why)
    return told


def _lent(slot: _Slot, loan: loans.Loan, user: identity.User | None) -> exchange.Lent:
    """One trailing newline is an editor's and is taken off; anything else odd is refused, never repaired.

    What must not come back is the user's own token too, for some authorization servers exchange it for itself.
    """
    entry, url = slot.entry, slot.view.endpoint.url
    if loan.origin and _origin(loan.origin) != _origin(url):
        raise loans.Unavailable(
            _R.CREDENTIAL_MISPLACED,
            f"the secret of credential {entry.name!r} is for {loan.origin[:200]!a} alone ({secretfiles.ORIGIN_KEY}), "
            f"and this endpoint is {_origin(url)}: correct the one that is wrong",
        )
    secret = loan.value.removesuffix(b"\n").removesuffix(b"\r")
    if not secret or len(secret) > secretfiles.VALUE_BYTES_MAX or secret.translate(None, _PRINTABLE):
        raise loans.Unavailable(
            _R.CREDENTIAL_MALFORMED,
            f"credential {entry.name!r} is empty, too long or not one line of printable ASCII",
        )
    header = (entry.header.lower().encode(), entry.prefix.encode() + secret)
    own = () if user is None else (user.token.encode(),)
    return exchange.Lent((header,), (secret, *_inside(entry.prefix, secret), *own), version=loan.version)


def _origin(url: str) -> str:
    """scheme://host:port with the port written out; "" for what is no origin."""
    try:
        parts = urllib.parse.urlsplit(url)
        port = parts.port or _PORTS[parts.scheme]
    except (ValueError, KeyError):
        return ""
    host = parts.hostname or ""
    return f"{parts.scheme}://[{host}]:{port}" if ":" in host else f"{parts.scheme}://{host}:{port}"


def _inside(prefix: str, secret: bytes) -> tuple[bytes, ...]:
    """User and password of Basic authentication, together and the password alone."""
    if prefix.strip().lower() != "basic":
        return ()
    try:
        pair = base64.b64decode(secret, validate=True)
    except binascii.Error:
        return ()
    return (pair, pair.partition(b":")[2])
