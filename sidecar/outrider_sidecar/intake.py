# SPDX-License-Identifier: Apache-2.0
"""From one HTTP request to a Visit: parsed, of one era, of a session when it names one, and of a user when it brings a token.

Called by the pipeline before anything is looked up. What is no request, names a session that is not this caller's, or brings a
token that is not good here and now, is answered here, recorded, and goes no further: never is it served as nobody's.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Coroutine
from typing import Any

from outrider import decision, identity, names
from outrider_sidecar import (
    agents,
    answers,
    asked,
    conventions,
    exchange,
    ids,
    jsonrpc,
    legacy,
    modern,
    records,
    refusals,
    tokens,
    users,
    visits,
)
from outrider_sidecar import current as in_force

_R = decision.Reason


Waiting = Coroutine[Any, Any, None] | None


class Intake:
    """`live` are the sessions; `desk` records what is turned away; `verifier` knows users by their tokens."""

    def __init__(
        self,
        live: agents.Agents,
        desk: refusals.Desk,
        identifiers: ids.Ids,
        current: in_force.Current,
        verifier: users.Users,
    ) -> None:
        self._live = live
        self._desk = desk
        self._ids = identifiers
        self._current = current
        self._users = verifier

    @property
    def principal(self) -> str:
        """Whose sessions these are; "" while there is no configuration."""
        return "" if self._current.bound is None else str(self._current.bound.snapshot.workload)

    def read(
        self, request: exchange.Request, reply: exchange.Reply, endpoint: str, server: names.ServerId | None
    ) -> visits.Visit | None:
        """Parses and places a POST; None when it has been answered."""
        try:
            jsonrpc.check_content_type(request.headers)
            message = jsonrpc.parse(request.body)
            try:
                subject = self._asked(request.headers, message, endpoint)
            except jsonrpc.Malformed as error:
                error.id = message.id
                raise
        except jsonrpc.Malformed as error:
            self._desk.of_caller(error.reason, place=endpoint, detail=str(error))
            answers.malformed(error).give(reply)
            return None
        if subject is None:
            self._stranger(message.id, endpoint).give(reply)
            return None
        bound = self._current.bound
        about = records.About(
            request_id=self._ids.next(),
            workload=None if bound is None else bound.snapshot.workload,
            digest="" if bound is None else bound.digest,
            era=subject.version,
            method=message.method,
            trace_id=subject.trace.id,
        )
        return visits.Visit(request, reply, endpoint, server, subject, about)

    # Users --------------------------------------------------------------------------------------------------------------

    def identified(self, visit: visits.Visit, serve: Callable[[visits.Visit], Waiting]) -> Waiting:
        """Serves a request as the user's whose token it brings, as nobody's without one, and not at all with a bad one.

        At once, unless the keys of the token's issuer have to be fetched.
        """

        def found(user: users.Found | None, token: str) -> Waiting:
            if isinstance(user, tokens.Refused):
                self._desk.token(visit, user, token)
                return None
            if user is None:
                return serve(visit)
            about = dataclasses.replace(visit.about, user=user)
            return serve(dataclasses.replace(visit, about=about))

        return self._whose(visit.request.headers, found)

    def listening(
        self,
        request: exchange.Request,
        reply: exchange.Reply,
        endpoint: str,
        listen: Callable[[identity.User | None], None],
    ) -> Waiting:
        """The same of a GET, whose answer is no message."""

        def found(user: users.Found | None, token: str) -> None:
            if isinstance(user, tokens.Refused):
                self._desk.whose(user, token, place=endpoint)
                answers.token_refused(user.flaw.value).give(reply)
            else:
                listen(user)

        return self._whose(request.headers, found)

    def _whose(
        self, headers: exchange.Headers, found: Callable[[users.Found | None, str], Waiting]
    ) -> Waiting:
        given = [value for name, value in headers if name == conventions.HEADER_USER]
        if not given:
            return found(None, "")
        token = given[0].decode("latin-1")
        if len(given) > 1 or not token or not token.isascii():
            what = f"{len(given)} headers" if len(given) > 1 else "not ASCII" if token else "0 characters"
            return found(tokens.Refused(tokens.Flaw.HEADER, what), token)
        user = self._users.verified(token)
        return self._once_verified(token, found) if user is None else found(user, token)

    async def _once_verified(self, token: str, found: Callable[[users.Found | None, str], Waiting]) -> None:
        waiting = found(await self._users.verify(token), token)
        if waiting is not None:
            await waiting

    # Sessions -----------------------------------------------------------------------------------------------------------

    def agent(
        self, request: exchange.Request, reply: exchange.Reply, endpoint: str, *, allowed: bytes
    ) -> agents.Agent | None:
        """Whose session a GET or DELETE is about; None when it has been answered. Without one, only `allowed` verbs work."""
        try:
            sealed = asked.header(request.headers, conventions.HEADER_SESSION)
        except jsonrpc.Malformed as error:
            answers.malformed(error).give(reply)
            return None
        if sealed is None:
            answers.method_not_allowed(allowed).give(reply)
            return None
        agent = self._live.find(sealed, principal=self.principal, endpoint=endpoint)
        if agent is None:
            self._stranger(None, endpoint).give(reply)
        return agent

    def _asked(
        self, headers: exchange.Headers, message: jsonrpc.Message, endpoint: str
    ) -> asked.Asked | None:
        """What was asked, in which era; None when its session is not one of this caller's. Raises Malformed."""
        trace = asked.trace(headers, message)
        if asked.is_modern(headers, message):
            modern.check(headers, message)
            return asked.Asked(True, conventions.MODERN, message, trace)
        if message.method == conventions.INITIALIZE:
            return asked.Asked(False, legacy.chosen_version(message.params), message, trace)
        version = legacy.version_of(headers)
        sealed = asked.header(headers, conventions.HEADER_SESSION)
        if sealed is None or self._current.bound is None:
            # Without a configuration nobody's session can be told, and a 404 would end it for good.
            return asked.Asked(False, version, message, trace)
        agent = self._live.find(sealed, principal=self.principal, endpoint=endpoint)
        return None if agent is None else asked.Asked(False, version, message, trace, agent)

    def _stranger(self, id_: jsonrpc.Id | None, endpoint: str) -> answers.Answer:
        self._desk.of_caller(_R.SESSION_UNKNOWN, place=endpoint)
        return answers.unknown_session(id_)
