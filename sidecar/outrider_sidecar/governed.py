# SPDX-License-Identifier: Apache-2.0
"""The methods of agents that are decided and sent on: which they are, and what of their params names what they are about.

Called by calls, which asks `decide` about what stands here, and by modern for the name that a header must repeat. Pure.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any, Final

from outrider import call, identity, names
from outrider_sidecar import conventions, jsonrpc


@dataclasses.dataclass(frozen=True, slots=True)
class Named:
    """What a request is about: `name` is "" when it names nothing, which no server has."""

    kind: call.Kind
    name: str
    method: call.Method
    arguments: dict[str, Any] | None = None

    def at(
        self, server: names.ServerId, name: str | None = None, *, user: identity.User | None = None
    ) -> call.Call:
        """As a call of one server; `name` is its own when the agent's is an exposed one."""
        own = self.name if name is None else name
        return call.Call(server, own, self.arguments, self.kind, self.method, user)


MEMBER: Final[Mapping[str, str]] = {
    conventions.CALL_TOOL: "name",
    conventions.GET_PROMPT: "name",
    conventions.READ_RESOURCE: "uri",
}
"""The member of params that names what is asked, for the methods whose `Mcp-Name` header repeats it."""

_KINDS: Final = {
    conventions.CALL_TOOL: (call.Kind.TOOL, call.Method.CALL),
    conventions.GET_PROMPT: (call.Kind.PROMPT, call.Method.GET),
    conventions.READ_RESOURCE: (call.Kind.RESOURCE, call.Method.READ),
}
_REFS: Final = {"ref/prompt": (call.Kind.PROMPT, "name"), "ref/resource": (call.Kind.RESOURCE, "uri")}
METHODS: Final = frozenset({*_KINDS, conventions.COMPLETE})


def named(message: jsonrpc.Message) -> Named:
    """Of a request whose method is one of METHODS, or a subscription to one resource. A name that is no name at all is "": refused like an unknown one."""
    params = message.params
    if message.method == conventions.COMPLETE:
        return _referred(params)
    if message.method == conventions.SUBSCRIBE:
        return Named(call.Kind.RESOURCE, _text(params.get("uri")), call.Method.SUBSCRIBE)
    kind, method = _KINDS[message.method]
    arguments = params.get("arguments") if kind is not call.Kind.RESOURCE else None
    return Named(kind, _text(params.get(MEMBER[message.method])), method, arguments)


def _referred(params: dict[str, Any]) -> Named:
    """A completion is about the prompt or resource that its `ref` names; what is to be completed are its arguments."""
    ref = params.get("ref")
    ref = ref if isinstance(ref, dict) else {}
    kind, member = _REFS.get(_text(ref.get("type")), (call.Kind.PROMPT, ""))
    given: dict[str, Any] = {key: params[key] for key in ("argument", "context") if key in params}
    return Named(kind, _text(ref.get(member)), call.Method.COMPLETE, given)


def _text(value: object) -> str:
    return value if isinstance(value, str) else ""
