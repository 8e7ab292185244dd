# SPDX-License-Identifier: Apache-2.0
"""What of an agent's params goes to a server: everything byte for byte, but for what has to be ours.

Called by a leg. The name comes from the Permit, never from the message; `_meta` is made anew, with the agent's own members
that no proxy has a say in; what belongs to one hop is left out: tasks, and the states and answers of input_required, which
whoever keeps a call's rounds gives anew.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Final

from outrider import bind, call, decision, mirrors, rules
from outrider_sidecar import asked, conventions, governed, jsonrpc

_NOT_CARRIED: Final = frozenset({"_meta", "task", "inputResponses", "requestState"})
_NOTHING: Final[Mapping[str, bytes]] = {}
_REMADE: Final = frozenset({"progresstoken", "traceparent", "tracestate"})
"""Folded."""
_RESERVED: Final = frozenset(
    {conventions.META_VERSION, conventions.META_CAPABILITIES, conventions.META_CLIENT_INFO}
)
"""What is in every request of the stateless era: told apart without looking closer."""
_REFS: Final = {call.Kind.PROMPT: ("name", "uri"), call.Kind.RESOURCE: ("uri", "name")}


def params(
    subject: asked.Asked, permit: decision.Permit, given: Mapping[str, bytes] = _NOTHING
) -> dict[str, bytes]:
    """The params of a governed request but for `_meta`, in the agent's order; `given` is what goes on with a round."""
    message, wanted = subject.message, permit.call
    made = {key: bytes(value) for key, value in message.slices.items() if key not in _NOT_CARRIED}
    if made.get("arguments") == b"null":
        del made["arguments"]  # how the Go SDK writes none; not every server reads it so
    if message.method == conventions.COMPLETE:
        made["ref"] = _ref(made["ref"], wanted)
    else:
        made[governed.MEMBER[message.method]] = json.dumps(wanted.name).encode()
    return {**made, **given} if given else made


def _ref(raw: bytes, wanted: call.Call) -> bytes:
    """The reference with the decided name, and without a second one that another reader might prefer."""
    member, other = _REFS[wanted.kind]
    kept = {key: value for key, value in jsonrpc.members(raw).items() if key != other}
    return jsonrpc.spliced({**kept, member: json.dumps(wanted.name).encode()})


def meta(subject: asked.Asked, token: int) -> dict[str, bytes]:
    """The members of `_meta` that cross in either era: the agent's own, our progress token, the trace.

    Of what the protocol reserves nothing crosses by itself, the agent's name for itself least of all.
    """
    made: dict[str, bytes] = {}
    given = subject.message.meta
    if given and any(map(_carried, given)):
        raws = jsonrpc.members(bytes(subject.message.slices["_meta"]))
        made = {key: raws[key] for key in given if _carried(key)}
    if subject.progress_token is not None:
        made["progressToken"] = b"%d" % token
    trace = subject.trace
    if trace.parent:
        made["traceparent"] = json.dumps(trace.parent).encode()
        if trace.state:
            made["tracestate"] = json.dumps(trace.state).encode()
    return made


def _carried(key: str) -> bool:
    """Read as a server would that does not care for case (R7)."""
    if key in _RESERVED:
        return False
    folded = key.lower() if key.isascii() else rules.fold(key)
    reserved = folded.startswith((conventions.META_PREFIX, conventions.META_OURS))
    return not reserved and folded not in _REMADE


def mirrored(permit: decision.Permit) -> tuple[mirrors.Mirror, ...]:
    """The arguments that the permitted tool wants repeated in headers."""
    target = permit.target
    if not isinstance(target, bind.Target) or target.definition is None:
        return ()
    return target.definition.mirrors
