# SPDX-License-Identifier: Apache-2.0
"""What a server says during a call and without being asked: which of it its agent hears, and in whose terms.

Called by an attempt for every notification on the stream of its call. Progress of this very call goes on, and log messages as
far as the agent wants them, and that an elicitation has been completed; all else is nobody's here. Pure.
"""

from __future__ import annotations

from typing import Final

import msgspec

from outrider import call
from outrider_sidecar import asked, conventions, jsonrpc, legs

_RANKS: Final = {level: rank for rank, level in enumerate(conventions.LOG_LEVELS)}
_LISTS: Final = {
    conventions.TOOLS_CHANGED: call.Kind.TOOL,
    conventions.PROMPTS_CHANGED: call.Kind.PROMPT,
    conventions.RESOURCES_CHANGED: call.Kind.RESOURCE,
}


def passed(message: jsonrpc.Answer, leg: legs.Leg, subject: asked.Asked) -> bytes | None:
    """The notification as the agent gets it; None when it does not."""
    if message.method == conventions.PROGRESS:
        return leg.progress(message, subject)
    if message.method == conventions.LOG_MESSAGE:
        return _log(message, subject)
    if message.method == conventions.ELICITED and not subject.modern:
        return _as_it_is(message)
    return None


def outdated(message: jsonrpc.Answer) -> call.Kind | None:
    """The kind whose list the server says has changed."""
    return _LISTS.get(message.method)


def _log(message: jsonrpc.Answer, subject: asked.Asked) -> bytes | None:
    """A stateless request gets the messages it asked for and no other; a session those of its level, or any before it set one."""
    wanted = subject.log_level
    if wanted is None:
        return None if subject.modern else _as_it_is(message)
    try:
        level = msgspec.json.decode(jsonrpc.members(message.payload).get("level", b"null"))
    except msgspec.DecodeError:
        return None
    rank = _RANKS.get(level) if isinstance(level, str) else None
    return None if rank is None or rank < _RANKS[wanted] else _as_it_is(message)


def _as_it_is(message: jsonrpc.Answer) -> bytes | None:
    try:
        return jsonrpc.request(None, message.method, jsonrpc.members(message.payload))
    except msgspec.DecodeError:
        return None
