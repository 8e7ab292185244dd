# SPDX-License-Identifier: Apache-2.0
"""Making a server's acquaintance: which era it speaks, and the handshake where that takes one.

Called by servers, once at a time per server and session. A server is met in the era of the agent that comes whenever it speaks
it, so that nothing has to be translated; only what it does not speak is bridged. What is found out is kept in `legs.Server`.
"""

from __future__ import annotations

import json

from outrider_sidecar import conventions, errands, features, introductions, jsonrpc, legacy, legs, modern

_FALLBACK = frozenset({200, 400, 404, 405, 406, 415, 422, 501})
"""Statuses by which a server answers a request of the era it does not speak (versioning rules of the spec)."""


async def meet(
    ways: errands.Errands, errand: errands.Errand, client: legs.Client, key: str
) -> legs.Session | None:
    """The client's own era first, then the other. A session that was opened on the way. Raises NoLeg.

    `key` is whose session it will be. What a server was before is forgotten when it speaks neither: it may have been
    replaced.
    """
    server = errand.server
    heard: errands.Heard | None = None
    for era in (client.modern, not client.modern):
        if server.speaks(era) is False:
            continue
        found = await (_discover(ways, errand) if era else _greet(ways, errand, client, key))
        if not isinstance(found, errands.Heard):
            return found
        if found.status not in _FALLBACK or found.failed is not None:
            raise errands.no_leg(found)
        server.found(era, speaks=False)
        heard = found if heard is None or not era else heard  # what a handshake failed by says more
    server.doubt()
    assert heard is not None, "a server is never known to speak neither era"
    raise errands.no_leg(heard)


async def _discover(ways: errands.Errands, errand: errands.Errand) -> errands.Heard | None:
    """Asks what it is; None when it speaks the stateless era, else what it said instead."""
    head, body = modern.discover(errand.server.mint())
    heard = await ways.run(errand, head, body, conventions.DISCOVER)
    answer = heard.answer
    if answer is None or answer.kind is not jsonrpc.AnswerKind.RESULT or not modern.speaks(answer):
        return heard
    errand.server.found(True, speaks=True, introduction=introductions.discovered(answer))
    return None


async def _greet(
    ways: errands.Errands, errand: errands.Errand, client: legs.Client, key: str
) -> errands.Heard | legs.Session:
    """The handshake. We declare what the agent declared and the entry permits, and speak the agent's revision."""
    server, view, agent = errand.server, errand.permit.server, client.agent
    fixed = view.endpoint.protocol in conventions.LEGACY
    wanted = agent.version if agent is not None and not fixed else conventions.LEGACY[-1]
    offered = features.narrowed(_declared(client), view.features)
    head, body = legacy.initialize(
        server.mint(), view.endpoint.protocol if fixed else wanted, capabilities=json.dumps(offered).encode()
    )
    heard = await ways.run(errand, head, body, conventions.INITIALIZE)
    spoken = legacy.negotiated(heard.answer) if heard.answer is not None else None
    if spoken is None or heard.answer is None:
        return heard
    introduction = introductions.greeted(heard.answer, spoken)
    session = legs.Session(key, heard.session, spoken, introduction, roots="roots" in offered)
    head, body = legacy.initialized(session=session.id, version=spoken)
    await ways.run(errand, head, body, conventions.INITIALIZED)
    if agent is not None and agent.log_level is not None and introduction.has(introductions.LOGGING):
        body = legacy.level(server.mint(), agent.log_level)
        await ways.run(errand, legacy.head(session.id, spoken), body, conventions.SET_LEVEL)
    server.found(False, speaks=True, introduction=introduction)
    return session


def _declared(client: legs.Client) -> features.Capabilities:
    """The session's own, or those the proxy speaks for: a request without a session could be asked nothing."""
    if client.agent is not None:
        return client.agent.capabilities
    return client.offers if isinstance(client, legs.Proxy) else {}
