# SPDX-License-Identifier: Apache-2.0
"""Who wants to hear what, and what of what servers say is for whom.

`subscriptions` and `speaking` bring listeners; servers are heard through `sources`, each once for everybody. A list that changed is
told when what the listener may see has changed (`views`), whoever changed it; a resource that changed, to those who subscribed to
it and still may, as the user they were then and as nobody once that user's token has expired. It refuses nothing itself: what may
be heard was decided when it was asked for, and is decided again when policy changes.
"""

from __future__ import annotations

import asyncio
import collections
import dataclasses
import hashlib
import json
from collections.abc import Callable, Iterable, Mapping

import msgspec

from outrider import bind, call, decide, decision, identity, names, snapshot
from outrider_sidecar import conventions, jsonrpc, lists, sources, users, views
from outrider_sidecar import current as in_force

CHANGED = {
    call.Kind.TOOL: conventions.TOOLS_CHANGED,
    call.Kind.PROMPT: conventions.PROMPTS_CHANGED,
    call.Kind.RESOURCE: conventions.RESOURCES_CHANGED,
}
_KINDS = {method: kind for kind, method in CHANGED.items()}

Origin = tuple[names.ServerId, str, str]
"""A server, the name of the credential it is asked with, "" without one, and whose own that is, "" if it is no user's."""

Tell = Callable[[str, dict[str, bytes]], None]
"""Tells a listener: method and raw params."""


@dataclasses.dataclass(eq=False, slots=True)
class Listener:
    """One agent's stream. `server` None is the merged endpoint; `uris` those it subscribed to and as whom, by where they are heard.

    `kinds` are those whose lists it wants to hear of, as `user` sees them; None: as some user could.
    """

    server: names.ServerId | None
    kinds: frozenset[call.Kind]
    tell: Tell
    user: identity.User | None = None
    uris: dict[Origin, dict[str, identity.User | None]] = dataclasses.field(default_factory=dict)

    @property
    def places(self) -> list[views.Place]:
        return [(self.server, kind) for kind in self.kinds]


class Audience:
    """One writer: the loop's thread. `wall` is epoch seconds."""

    def __init__(
        self,
        parts: sources.Parts,
        current: in_force.Current,
        catalogue: lists.Lists,
        *,
        wall: Callable[[], float],
    ) -> None:
        self._wall = wall
        self._parts = parts
        self._current = current
        self._catalogue = catalogue
        self._listeners: dict[Listener, None] = {}
        self._sources: dict[Origin, sources.Source] = {}
        self._views: dict[identity.User | None, views.Views] = {}
        self._announced: dict[tuple[names.ServerId, call.Kind], bytes] = {}
        self._arranging: asyncio.Handle | None = None
        self._closed = False

    def __len__(self) -> int:
        return len(self._listeners)

    # Listeners ----------------------------------------------------------------------------------------------------------

    def join(self, listener: Listener, bound: bind.Bound) -> None:
        """From now on it hears what it wants to."""
        self._listeners[listener] = None
        self._views.setdefault(listener.user, views.Views(listener.user)).watch(bound, listener.places)
        self._arrange_soon()

    def leave(self, listener: Listener) -> None:
        """It is gone; leaving twice is leaving once."""
        if listener in self._listeners:
            del self._listeners[listener]
            if (watched := self._views.get(listener.user)) is not None:  # none: nobody watches anything
                watched.leave(listener.places)
                if not watched:
                    del self._views[listener.user]
            self._arrange_soon()

    def rearrange(self) -> None:
        """What a listener wants has changed."""
        self._arrange_soon()

    async def live(self, listener: Listener, *, seconds: float) -> None:
        """Returns once everything it wants would be heard; at the latest after `seconds`."""
        self._arrange()
        bound = self._current.bound
        wanted = {} if bound is None else self._wanted(bound, [listener])
        waits = [
            asyncio.ensure_future(self._sources[origin].live())
            for origin in wanted
            if origin in self._sources
        ]
        if waits:
            _, pending = await asyncio.wait(waits, timeout=seconds)
            for each in pending:
                each.cancel()

    # What changes -------------------------------------------------------------------------------------------------------

    def refresh(self, server: names.ServerId | None = None, kinds: Iterable[call.Kind] = ()) -> None:
        """A configuration is in force, or `server` has listed `kinds` again: who sees something else than before is told."""
        bound = self._current.bound
        if bound is None:
            return
        changed = {user: watched.changed(bound) for user, watched in self._views.items()}
        again = set() if server is None else self._told_again(bound, [(server, kind) for kind in kinds])
        for listener in tuple(self._listeners):
            for kind, method in CHANGED.items():
                place = (listener.server, kind)
                if kind in listener.kinds and (place in again or place in changed.get(listener.user, ())):
                    listener.tell(method, {})
        self._arrange()

    def heard(self, server: names.ServerId, message: jsonrpc.Answer, *, whose: str = "") -> None:
        """A server says something that is about no request; `whose` is the user whose own credential it is heard with, if it is one's."""
        kind = _KINDS.get(message.method)
        if kind is not None:
            self._list_changed(server, kind)
        elif message.method == conventions.RESOURCE_UPDATED:
            self._updated(server, message, whose)

    def _list_changed(self, server: names.ServerId, kind: call.Kind) -> None:
        bound = self._current.bound
        held = None if bound is None else bound.servers.get(server)
        if bound is None or held is None:
            return
        if held.observed(kind):
            self._announced.setdefault((server, kind), self._defined(server, kind))
            self._catalogue.changed(server, kind)
        else:
            self._say({(server, kind), (None, kind)})  # nobody has looked yet, so nobody knows what changed

    def _told_again(
        self, bound: bind.Bound, listed: list[tuple[names.ServerId, call.Kind]]
    ) -> set[views.Place]:
        """Lists that their server says have changed and that are what they were: told all the same, as it would be directly.

        But not when what changed is hidden: that would tell of what may not be known.
        """
        found: set[views.Place] = set()
        for server, kind in listed:
            before = self._announced.pop((server, kind), None)
            same = before is not None and before == self._defined(server, kind)
            if same and server in bound.servers:
                found |= {(server, kind), (None, kind)}
        return found

    def _defined(self, server: names.ServerId, kind: call.Kind) -> bytes:
        """A digest of what a server lists of a kind, seen or not."""
        known = self._current.definitions.get(server)
        made = hashlib.sha256()
        if known is not None:
            listed = {
                call.Kind.TOOL: known.tools,
                call.Kind.PROMPT: known.prompts,
                call.Kind.RESOURCE: (*known.resources, *known.templates),
            }[kind]
            for each in listed:
                made.update(b"%d:" % len(each.raw) + each.raw)
        return made.digest()

    def _say(self, places: set[views.Place]) -> None:
        for listener in tuple(self._listeners):
            for place in listener.places:
                if place in places:
                    listener.tell(CHANGED[place[1]], {})

    def _updated(self, server: names.ServerId, message: jsonrpc.Answer, whose: str) -> None:
        try:
            params = jsonrpc.members(message.payload)
            uri = msgspec.json.decode(params.get("uri", b"null"))
        except msgspec.DecodeError:
            return
        if not isinstance(uri, str):
            return
        params.pop("_meta", None)
        may: dict[identity.User | None, bool] = {}
        for listener in tuple(self._listeners):
            heard_as = {
                user
                for origin, uris in listener.uris.items()
                if (origin[0], origin[2]) == (server, whose)
                for each, user in uris.items()
                if covers(each, uri)
            }
            may |= {user: self.may_hear(server, uri, user) for user in heard_as - may.keys()}
            if any(may[user] for user in heard_as):
                listener.tell(message.method, params)

    def may_hear(self, server: names.ServerId, uri: str, user: identity.User | None = None) -> bool:
        """Whether policy lets this workload, for this user, know of a resource now; what it costs was asked when it subscribed.

        Without a user, or with one whose token has expired, only what needs none.
        """
        bound = self._current.bound
        held = None if bound is None else bound.servers.get(server)
        target = None if held is None else held.target(call.Kind.RESOURCE, uri)
        if target is None:
            return False
        seen = target.of(users.present(user, self._wall()))
        in_doubt = seen.user_wanted or seen.telling is not None or seen.credential_doubtful
        return decide.reach(seen) is not decide.Reach.NEVER and not in_doubt

    # Sources ------------------------------------------------------------------------------------------------------------

    def _arrange_soon(self) -> None:
        if self._arranging is None and not self._closed:
            self._arranging = asyncio.get_running_loop().call_soon(self._arrange)

    def _arrange(self) -> None:
        """Listens to exactly those servers that somebody wants to hear."""
        if self._arranging is not None:
            self._arranging.cancel()
            self._arranging = None
        bound = self._current.bound
        if bound is None or self._closed:
            return
        wanted = self._wanted(bound, self._listeners)
        askers = self._askers()
        for origin, source in tuple(self._sources.items()):
            permit = self._permit(bound, origin, askers)
            if origin in wanted and permit is not None and _same_way(permit, source.permit):
                source.permit = permit
            else:
                source.close()
                del self._sources[origin]
        for origin, (kinds, uris) in wanted.items():
            known = self._sources.get(origin)
            if known is None:
                permit = self._permit(bound, origin, askers)
                if permit is None:
                    continue
                known = self._sources[origin] = sources.Source(self._parts, permit, hear=self._from(origin))
            known.want(kinds, uris)

    def _from(self, origin: Origin) -> sources.Hear:
        server, _, whose = origin
        return lambda message: self.heard(server, message, whose=whose)

    def _wanted(
        self, bound: bind.Bound, listeners: Iterable[Listener]
    ) -> dict[Origin, tuple[set[call.Kind], set[str]]]:
        """What is to be heard where. Many listeners want the same, so it is asked once for all of them."""
        found: dict[Origin, tuple[set[call.Kind], set[str]]] = {}
        lists_: set[tuple[names.ServerId | None, frozenset[call.Kind]]] = set()
        askers = dict.fromkeys(listener.user for listener in listeners if listener.user is not None)
        for listener in listeners:
            lists_.add((listener.server, listener.kinds))
            for origin, uris in listener.uris.items():
                found.setdefault(origin, (set(), set()))[1].update(uris)
        kinds: dict[names.ServerId, set[call.Kind]] = {}
        for server, wanted in lists_:
            for each in bound.servers if server is None else (server,):
                kinds.setdefault(each, set()).update(
                    wanted if server is not None else wanted - {call.Kind.RESOURCE}
                )
        for server_id, wanted_ in kinds.items():
            held = bound.servers.get(server_id)
            asked = set() if held is None else {kind for kind in wanted_ if decide.asked(held, kind)}
            permit = self._first(bound, server_id, None, [None, *askers]) if asked else None
            if permit is not None:
                found.setdefault(origin_of(permit), (set(), set()))[0].update(asked)
        return found

    def _askers(self) -> Mapping[Origin, list[identity.User | None]]:
        """In whose names each place may be asked: of those who listen there, and of those who want to hear of lists."""
        found: dict[Origin, list[identity.User | None]] = {}
        anywhere = dict.fromkeys(each.user for each in self._listeners if each.user is not None)
        for listener in self._listeners:
            for origin, uris in listener.uris.items():
                found.setdefault(origin, []).extend(uris.values())
        return collections.defaultdict(lambda: list(anywhere), found)

    def _permit(
        self, bound: bind.Bound, origin: Origin, askers: Mapping[Origin, list[identity.User | None]]
    ) -> decision.Permit | None:
        named = [None, *(user for user in askers[origin] if user is not None)]
        whose = [user for user in named if not origin[2] or (user is not None and user.id == origin[2])]
        permit = self._first(bound, origin[0], origin[1] or None, whose)
        return permit if permit is not None and origin_of(permit) == origin else None

    def _first(
        self,
        bound: bind.Bound,
        server: names.ServerId,
        credential: str | None,
        whose: Iterable[identity.User | None],
    ) -> decision.Permit | None:
        """Leave to ask a server in nobody's name, or in the first of these that will do and has not expired."""
        now = self._wall()
        for user in whose:
            if user is not None and users.present(user, now) is None:
                continue
            permit = decide.permit_listing(bound, server, credential=credential, user=user)
            if isinstance(permit, decision.Permit):
                return permit
            if permit.reason is not decision.Reason.USER_REQUIRED and user is None:
                return None
        return None

    async def close(self) -> None:
        """Ends every source."""
        self._closed = True
        held, self._sources = list(self._sources.values()), {}
        for source in held:
            source.close()
        await asyncio.gather(*(source.task for source in held), return_exceptions=True)


def _same_way(one: decision.Permit, other: decision.Permit) -> bool:
    """Whether both lead to the same place with the same credential: other rules are no reason to hang up."""
    same_user = one.call.user == other.call.user
    return same_user and one.server.endpoint == other.server.endpoint and one.credential == other.credential


def origin_of(permit: decision.Permit) -> Origin:
    """Where what a permit is about is heard."""
    entry, user = permit.credential, permit.call.user
    if entry is None:
        return permit.server.id, "", ""
    own = user is not None and isinstance(entry.source, snapshot.TokenExchange)
    return permit.server.id, entry.name, user.id if own and user is not None else ""


def covers(subscribed: str, uri: str) -> bool:
    """Whether news of a resource are for whoever subscribed to another: it, or a part of it (2026-07-28, subscriptions)."""
    return uri == subscribed or (
        uri.startswith(subscribed) and (subscribed.endswith("/") or uri[len(subscribed)] in "/#?")
    )


def notification(method: str, params: dict[str, bytes]) -> bytes:
    """As a legacy agent gets it."""
    return jsonrpc.request(None, method, params)


def tagged(method: str, params: dict[str, bytes], subscription: jsonrpc.Id | None) -> bytes:
    """As a modern agent gets it, on the stream of its request with this id."""
    key = json.dumps(conventions.META_SUBSCRIPTION).encode()
    meta = b"{" + key + b":" + jsonrpc.encode_id(subscription) + b"}"
    return jsonrpc.request(None, method, {**params, "_meta": meta})
