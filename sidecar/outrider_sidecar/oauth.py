# SPDX-License-Identifier: Apache-2.0
"""Access tokens as credentials: the proxy's own (RFC 6749 4.4), and the user's token exchanged for one (RFC 8693).

Two `loans.Source`s, made by `lenders` when a snapshot first names such a credential. Tokens are in memory alone, are refreshed
before they end, and when the authorization server is away those that are held serve to their own end. An exchanged one is lent for
the user's token it was got with, never to another user, and never longer than that token is good. Nothing is discovered: token
endpoint, resource and audience are the entry's.
"""

from __future__ import annotations

import asyncio
import collections
import contextlib
import functools
import pathlib
import re
import urllib.parse
from collections.abc import Iterable

from outrider import decision, identity, names, snapshot
from outrider_sidecar import clients, fetching, grants, held, loans, pacing

ASK_SECONDS = 15.0
"""For one token, from the client's secret to the answer, once more if the secret is an old one."""

CHECK_SECONDS = 10.0
"""How often it is looked whether a client has another secret or key than its token was got with, give or take a tenth."""

USERS_MAX = 1_000
"""Users at one entry whose tokens are held at a time; whoever was away longest is forgotten first."""

SWEEP_SECONDS = 30.0
"""Tokens that are over are forgotten after this at the latest."""

ACTOR_BYTES_MAX = 16_384

_R = decision.Reason
_VISIBLE = re.compile(rb"[\x21-\x7e]+")

_ANSWERED = frozenset({fetching.Trouble.REDIRECTED, fetching.Trouble.TOO_LARGE, fetching.Trouble.MALFORMED})
"""There was an answer, and it may have been about what was asked."""

_Grant = snapshot.ClientCredentials | snapshot.TokenExchange


def prepare(wanted: Iterable[snapshot.Source]) -> None:
    """Imports what signs, if a client of these signs: slow, so before the snapshot that names it is in force."""
    grants_ = (each for each in wanted if isinstance(each, _Grant))
    if any(each.client.key is not None for each in grants_):
        from outrider_sidecar import assertions  # noqa: F401 -- to have it loaded


def sources(endpoint: Endpoint, *, actor_file: pathlib.Path | None) -> dict[type, loans.Source]:
    """Both, by the type of what they lend."""
    return {
        snapshot.ClientCredentials: ClientTokens(endpoint),
        snapshot.TokenExchange: ExchangedTokens(endpoint, actor_file=actor_file),
    }


class Endpoint:
    """Asks token endpoints. `values` lend clients' secrets and keys."""

    def __init__(self, values: clients.Values, fetcher: fetching.Fetcher, times: pacing.Timing) -> None:
        self._clients = clients.Clients(values, wall=times.wall)
        self._fetcher = fetcher
        self.times = times

    def asking(self, source: _Grant, server: names.ServerId) -> clients.Asking:
        """Who asks, with as much time as one token may take."""
        return clients.Asking(source.client, source.token_url, server, self.times.clock() + ASK_SECONDS)

    async def ask(
        self, source: _Grant, server: names.ServerId, more: Iterable[tuple[str, str]] = ()
    ) -> tuple[grants.Granted, str]:
        """A token, and the version of the secret or key it was got with. Raises held.Failed and loans.Unavailable.

        `more` is the form's part that is for this request alone. A secret that is not taken is got anew, once.
        """
        asking = self.asking(source, server)
        form = [*grants.asked(source), *more]
        proof = await self._clients.proof(asking)
        try:
            return await self._asked(source, asking, form, proof), proof.version
        except grants.Refused as refused:
            first = refused
        if first.code == "invalid_client":
            newer = await self._clients.proof(asking, refused=proof.version)
            if newer.version != proof.version:
                try:
                    return await self._asked(source, asking, form, newer), newer.version
                except grants.Refused as refused:
                    first = refused
        unavailable = loans.Unavailable(first.reason, f"OAuth client {source.client.id!a}: {first}")
        # One user who may not have a token must not keep it from the others, whatever words are found for that.
        common = isinstance(source, snapshot.ClientCredentials) or first.of_all
        raise held.Failed(
            unavailable, common=common, doubtful=not first.of_user, wait_seconds=first.wait_seconds
        )

    async def secret_version(self, source: _Grant, server: names.ServerId) -> str:
        """Which secret or key the client has now. Raises loans.Unavailable."""
        return await self._clients.version(self.asking(source, server))

    async def _asked(
        self, source: _Grant, asking: clients.Asking, form: list[tuple[str, str]], proof: clients.Proof
    ) -> grants.Granted:
        ask = fetching.Ask(
            "POST",
            source.token_url,
            asking.deadline,
            headers=(
                ("content-type", "application/x-www-form-urlencoded"), ("accept", "application/json"), *proof.headers,
            ),
            body=urllib.parse.urlencode([*form, *proof.form]).encode(),
            ca_bundle=source.ca_bundle,
            bytes_max=grants.ANSWER_BYTES_MAX,
        )  # fmt: skip
        try:
            answer = await self._fetcher.fetch(ask)
        except fetching.FetchFailed as failed:
            text = f"OAuth client {source.client.id!a}: {failed}"
            common = isinstance(source, snapshot.ClientCredentials) or failed.reason not in _ANSWERED
            unavailable = loans.Unavailable(_R.CREDENTIAL_UNAVAILABLE, text)
            raise held.Failed(unavailable, common=common, doubtful=True) from None
        sent = (*proof.secrets, *(value for name, value in form if name in ("subject_token", "actor_token")))
        exchange = isinstance(source, snapshot.TokenExchange)
        return grants.granted(answer, url=source.token_url, exchange=exchange, secrets=sent)


class _Client:
    """The one token of an entry, and the look-out for another secret."""

    def __init__(
        self, endpoint: Endpoint, source: snapshot.ClientCredentials, server: names.ServerId
    ) -> None:
        times = endpoint.times
        self._endpoint = endpoint
        self._source = source
        self._server = server
        self._got_with: str | None = None
        self._looking: asyncio.Task[None] | None = None
        self.place = held.Place(snapshot.described(source), times, held.Pause(times))
        self.held = held.Held(self.place, self._obtain, eager=True)

    async def _obtain(self) -> grants.Granted:
        granted, self._got_with = await self._endpoint.ask(self._source, self._server)
        if self._looking is None:
            self._looking = asyncio.get_running_loop().create_task(self._look())
        return granted

    async def _look(self) -> None:
        """A secret that cannot be had is told by the refresh that needs it."""
        while True:
            await asyncio.sleep(CHECK_SECONDS * (0.9 + 0.2 * self._endpoint.times.jitter()))
            with contextlib.suppress(loans.Unavailable):
                if await self._endpoint.secret_version(self._source, self._server) != self._got_with:
                    self.held.begin()

    def close(self) -> None:
        self.held.close()
        if self._looking is not None:
            self._looking.cancel()


class ClientTokens:
    """`loans.Source` of `snapshot.ClientCredentials`."""

    def __init__(self, endpoint: Endpoint) -> None:
        self._endpoint = endpoint
        self._clients: dict[snapshot.Source, _Client] = {}

    def at_hand(self, wanted: loans.Wanted) -> loans.Loan | None:
        """As `loans.Source.at_hand`."""
        client = self._clients.get(wanted.where)
        return None if client is None else client.held.at_hand()

    async def fetch(self, wanted: loans.Wanted, *, refused: str | None = None) -> loans.Loan:
        """As `loans.Source.fetch`."""
        client = self._clients.get(wanted.where)
        if client is None:
            assert isinstance(wanted.where, snapshot.ClientCredentials)
            client = self._clients[wanted.where] = _Client(self._endpoint, wanted.where, wanted.server)
        return await client.held.fetch(wanted.deadline, refused)

    def keep(self, wanted: frozenset[snapshot.Source]) -> None:
        """As `loans.Source.keep`. A token cannot be given back: it ends by itself."""
        for where in self._clients.keys() - wanted:
            self._clients.pop(where).close()

    def standing(self) -> Iterable[loans.Standing]:
        """As `loans.Source.standing`."""
        for where, client in self._clients.items():
            loan, failing = client.held.good, client.held.failing()
            yield _standing(where, client.place, failing, loan, available=loan is not None or failing is None)

    async def close(self) -> None:
        """As `loans.Source.close`."""
        self.keep(frozenset())


class _Users:
    """Everybody's tokens at one entry."""

    def __init__(self, where: snapshot.TokenExchange, times: pacing.Timing) -> None:
        self.where = where
        self.place = held.Place(snapshot.described(where), times, held.Pause(times))
        # By the user and by the very token that was exchanged. The token itself, for a digest of it costs more than the rest of
        # a warm call, and it is in memory anyhow for as long as it is good.
        self.tokens: collections.OrderedDict[tuple[str, str], tuple[held.Held, float]] = (
            collections.OrderedDict()
        )
        self.sweep: asyncio.TimerHandle | None = None

    def forget(self, now: float) -> None:
        """Whose own token is over (epoch seconds)."""
        for key in [key for key, (one, ends_at) in self.tokens.items() if ends_at <= now and not one.busy]:
            self.tokens.pop(key)[0].close()

    def make_room(self) -> bool:
        """For one more; False when everybody is being waited for."""
        if len(self.tokens) < USERS_MAX:
            return True
        oldest = next((key for key, (one, _) in self.tokens.items() if not one.busy), None)
        if oldest is None:
            return False
        self.tokens.pop(oldest)[0].close()
        return True

    def close(self) -> None:
        if self.sweep is not None:
            self.sweep.cancel()
        for one, _ in self.tokens.values():
            one.close()
        self.tokens.clear()


class ExchangedTokens:
    """`loans.Source` of `snapshot.TokenExchange`. `actor_file` holds the workload's own token for exchanges, if there is one."""

    def __init__(self, endpoint: Endpoint, *, actor_file: pathlib.Path | None) -> None:
        self._endpoint = endpoint
        self._actor_file = actor_file
        self._entries: dict[snapshot.Source, _Users] = {}

    def at_hand(self, wanted: loans.Wanted) -> loans.Loan | None:
        """As `loans.Source.at_hand`."""
        user, entry = wanted.user, self._entries.get(wanted.where)
        if entry is None or user is None:
            return None
        key = (user.id, user.token)
        found = entry.tokens.get(key)
        if found is None:
            return None
        entry.tokens.move_to_end(key)
        return found[0].at_hand()

    async def fetch(self, wanted: loans.Wanted, *, refused: str | None = None) -> loans.Loan:
        """As `loans.Source.fetch`."""
        where, user = wanted.where, wanted.user
        assert isinstance(where, snapshot.TokenExchange)
        if user is None or not user.token:
            raise loans.Unavailable(
                _R.USER_REQUIRED, "the credential is the user's own, and there is no user"
            )
        entry = self._entries.get(where)
        if entry is None:
            entry = self._entries[where] = _Users(where, self._endpoint.times)
        found = entry.tokens.get((user.id, user.token))
        if found is None:
            found = self._admit(entry, user, wanted.server)
        return await found[0].fetch(wanted.deadline, refused)

    def keep(self, wanted: frozenset[snapshot.Source]) -> None:
        """As `loans.Source.keep`."""
        for where in self._entries.keys() - wanted:
            self._entries.pop(where).close()

    def standing(self) -> Iterable[loans.Standing]:
        """As `loans.Source.standing`: one row for all users, and what fails for one of them alone is not in it.

        What nobody can tell is of all until the first user was given something.
        """
        for where, entry in self._entries.items():
            place = entry.place
            failing = place.pause.failure or (None if place.refreshed else place.doubt)
            yield _standing(where, entry.place, failing, None, available=failing is None)

    async def close(self) -> None:
        """As `loans.Source.close`."""
        self.keep(frozenset())

    def _admit(self, entry: _Users, user: identity.User, server: names.ServerId) -> tuple[held.Held, float]:
        if not entry.make_room():
            text = f"{entry.place.name}: {USERS_MAX} users are being waited for already"
            raise loans.Unavailable(_R.CREDENTIAL_UNAVAILABLE, text, retry_after_seconds=held.PAUSE_SECONDS)
        obtain = functools.partial(self._exchanged, entry.where, server, user.token)
        one = held.Held(entry.place, obtain, eager=False, ends_at=user.expires_at)
        entry.tokens[user.id, user.token] = made = (one, user.expires_at)
        if entry.sweep is None:
            self._sweep_later(entry)
        return made

    def _sweep_later(self, entry: _Users) -> None:
        entry.sweep = asyncio.get_running_loop().call_later(SWEEP_SECONDS, self._sweep, entry)

    def _sweep(self, entry: _Users) -> None:
        entry.forget(self._endpoint.times.wall())
        entry.sweep = None
        if entry.tokens:
            self._sweep_later(entry)

    async def _exchanged(
        self, where: snapshot.TokenExchange, server: names.ServerId, token: str
    ) -> grants.Granted:
        actor = await self._actor() if where.actor else ""
        granted, _ = await self._endpoint.ask(
            where, server, grants.exchanged(token, actor, subject_type=where.subject_type)
        )
        return granted

    async def _actor(self) -> str:
        """The pod's own token, as it is in its file now: kubelet replaces it. Raises Unavailable."""
        if self._actor_file is None:
            raise loans.Unavailable(
                _R.CREDENTIAL_UNAVAILABLE,
                "the exchange names the workload as actor, and this proxy has no token for that (--exchange-token-file); "
                "where workloads have none, on a laptop, say `actor: Nobody`",
            )
        try:
            token = (await asyncio.to_thread(_read, self._actor_file)).strip()
        except OSError as error:
            raise loans.Unavailable(
                _R.CREDENTIAL_UNAVAILABLE,
                f"the workload's token for exchanges cannot be read: {self._actor_file}: {error.strerror}",
            ) from None
        if len(token) > ACTOR_BYTES_MAX or not _VISIBLE.fullmatch(token):
            raise loans.Unavailable(
                _R.CREDENTIAL_UNAVAILABLE, f"the workload's token for exchanges is none: {self._actor_file}"
            )
        return token.decode()


def _read(path: pathlib.Path) -> bytes:
    with path.open("rb") as file:
        return file.read(ACTOR_BYTES_MAX + 2)


def _standing(
    where: snapshot.Source, place: held.Place, failing: loans.Unavailable | None, loan: loans.Loan | None, *, available: bool
) -> loans.Standing:  # fmt: skip
    return loans.Standing(
        where,
        available=available,
        expires_at=None if loan is None else loan.expires_at,
        failing=None if failing is None else failing.reason,
        why="" if failing is None else str(failing),
        refreshed=place.refreshed,
        failed=place.failed,
    )
