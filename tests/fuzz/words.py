# SPDX-License-Identifier: Apache-2.0
"""What a fuzzing agent says: bytes, well-formed JSON of every method, answers nobody asked for, streams opened and left.

A `Step` is one request; a conversation is a list of them with the manners of the servers meanwhile (`manners`).
"""

from __future__ import annotations

import dataclasses
import json
from typing import Any

from hypothesis import strategies as st
from tests.fuzz import manners

METHODS = (
    "initialize", "server/discover", "ping", "tools/list", "tools/call", "prompts/list", "prompts/get", "resources/list",
    "resources/templates/list", "resources/read", "resources/subscribe", "resources/unsubscribe",
    "completion/complete", "logging/setLevel", "subscriptions/listen", "tasks/get", "tasks/result", "tasks/list",
    "tasks/cancel", "tasks/update", "sampling/createMessage", "elicitation/create", "roots/list", "x/future",
)  # fmt: skip
NOTIFICATIONS = (
    "notifications/initialized", "notifications/cancelled", "notifications/progress", "notifications/message",
    "notifications/roots/list_changed", "notifications/tools/list_changed", "notifications/resources/updated",
    "notifications/subscriptions/acknowledged", "notifications/x",
)  # fmt: skip
PATHS = ("/crm/modern/mcp", "/crm/legacy/mcp", "/crm/dual/mcp", "/mcp")
NAMES = (
    "query", "slow", "drop", "QUERY", "greet", "secret_prompt", "modern__query", "legacy__slow", "dual__drop",
    "modern__greet", "dual__secret_prompt", "", "*", "..", "query\0",
)  # fmt: skip
URIS = (
    "note://open/a", "note://open/b", "note://open/new", "note://secret/x", "note://open/../secret/x",
    "note://open/%2e%2e/secret/x", "note://open/..%2fsecret/x", "note://open\\..\\secret", "NOTE://OPEN/a",
    "note://open/a b", "note://open/{id}", "note://secret/{id}", "file:///etc/passwd", "note://open/\u202ea", "",
)  # fmt: skip


@dataclasses.dataclass(frozen=True, slots=True)
class Step:
    """`body` is sent as it is. `leave` seconds after sending the agent hangs up, if that is not None."""

    verb: str
    path: str
    era: str
    body: bytes
    session: str
    head: tuple[tuple[str, str], ...] = ()
    leave: float | None = None
    id: Any = None


_words = st.sampled_from((
    *NAMES, *URIS, "a", "1", "debug", "ref/prompt", "ref/resource", "__proto__", "\ud7ff", "\u2028", "x" * 300,
    "2025-11-25", "2026-07-28", "io.modelcontextprotocol/protocolVersion",
))  # fmt: skip
_leaves = st.one_of(
    st.none(), st.booleans(), st.integers(-(2**65), 2**65), st.floats(allow_nan=False, allow_infinity=False),
    _words, st.text(max_size=8),
)  # fmt: skip
values = st.recursive(
    _leaves,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(_words, inner, max_size=3),
    max_leaves=6,
)
ids = st.one_of(
    st.integers(0, 3), st.sampled_from(("", "1", "a", -1, 2**53, 2**63, "\u00fc")), st.text(max_size=4)
)
_members = {
    "name": st.one_of(st.sampled_from(NAMES), values),
    "uri": st.one_of(st.sampled_from(URIS), values),
    "arguments": st.one_of(st.dictionaries(_words, values, max_size=3), values),
    "cursor": values,
    "ref": st.one_of(
        st.fixed_dictionaries({"type": st.just("ref/prompt"), "name": st.sampled_from(NAMES)}),
        st.fixed_dictionaries({"type": st.just("ref/resource"), "uri": st.sampled_from(URIS)}),
        values,
    ),
    "argument": st.one_of(st.fixed_dictionaries({"name": _words, "value": _words}), values),
    "level": values,
    "requestState": st.one_of(_words, values),
    "inputResponses": values,
    "notifications": st.one_of(
        st.fixed_dictionaries(
            {},
            optional={
                "toolsListChanged": values, "promptsListChanged": values, "resourcesListChanged": values,
                "resourceSubscriptions": st.one_of(st.lists(st.sampled_from(URIS), max_size=4), values),
            },
        ),
        values,
    ),
    "requestId": ids,
    "progressToken": ids,
    "progress": values,
    "protocolVersion": st.one_of(st.sampled_from(("2025-11-25", "2024-11-05", "2026-07-28")), values),
    "capabilities": st.one_of(
        st.sampled_from(({}, {"sampling": {}, "elicitation": {}, "roots": {"listChanged": True}}, {"tasks": {}})),
        values,
    ),
    "clientInfo": st.one_of(st.just({"name": "f", "version": "1"}), values),
    "task": values,
    "taskId": values,
}  # fmt: skip
_RIGHT = {
    "tools/call": ("name", "arguments"), "prompts/get": ("name", "arguments"), "resources/read": ("uri",),
    "resources/subscribe": ("uri",), "resources/unsubscribe": ("uri",), "completion/complete": ("ref", "argument"),
    "logging/setLevel": ("level",), "subscriptions/listen": ("notifications",),
    "initialize": ("protocolVersion", "capabilities", "clientInfo"), "notifications/cancelled": ("requestId",),
    "notifications/progress": ("progressToken", "progress"),
}  # fmt: skip
_CAPABLE = st.sampled_from(({}, {"elicitation": {"form": {}, "url": {}}, "sampling": {}, "roots": {}}))
_meta_more = st.dictionaries(
    st.sampled_from((
        "progressToken", "traceparent", "tracestate", "baggage", "com.example/x", "io.modelcontextprotocol/logLevel",
        "io.modelcontextprotocol/subscriptionId", "io.modelcontextprotocol/related-task", "ProgressToken",
    )),
    values,
    max_size=2,
)  # fmt: skip


@st.composite
def params_of(draw: st.DrawFn, method: str, era: str) -> Any:
    """Mostly what the method needs, with members of others, sometimes something else altogether."""
    wanted = [*_RIGHT.get(method, ()), *draw(st.lists(st.sampled_from(sorted(_members)), max_size=2))]
    made: Any = {member: draw(_members[member]) for member in wanted if draw(st.integers(0, 9))}
    meta = draw(_meta_more)
    if era == "modern" and draw(st.integers(0, 9)):
        meta |= {
            "io.modelcontextprotocol/protocolVersion": "2026-07-28",
            "io.modelcontextprotocol/clientCapabilities": draw(_CAPABLE),
        }
    if meta:
        made["_meta"] = meta
    return made if draw(st.integers(0, 19)) else draw(values)


def _encoded(value: Any) -> bytes:
    return json.dumps(value, ensure_ascii=False).encode("utf-8", "surrogatepass")


@st.composite
def _bent(draw: st.DrawFn, body: bytes) -> bytes:
    """The same bytes with a few changed, left out or put in."""
    made = bytearray(body)
    for _ in range(draw(st.integers(1, 3))):
        at = draw(st.integers(0, len(made)))
        made[at : at + draw(st.integers(0, 2))] = draw(st.binary(max_size=3))
    return bytes(made)


def _mirrored(method: str, params: Any) -> tuple[tuple[str, str], ...]:
    head = [("mcp-method", method)]
    named = params.get("uri" if method == "resources/read" else "name") if isinstance(params, dict) else None
    if method in ("tools/call", "prompts/get", "resources/read") and isinstance(named, str):
        head.append(("mcp-name", manners.header(named)))
    return tuple(head)


_MERGED = ("modern__", "legacy__", "dual__")
_GOVERNED = ("tools/call",) * 6 + ("prompts/get", "resources/read", "completion/complete") * 2 + (
    "tools/list", "prompts/list", "resources/list", "resources/templates/list", "resources/subscribe", "logging/setLevel",
    "subscriptions/listen", "ping", "initialize", "server/discover",
)  # fmt: skip


@st.composite
def right(draw: st.DrawFn) -> Step:
    """What a well-behaved agent asks, so that what servers do is met."""
    era, path = draw(st.sampled_from(("modern", "legacy"))), draw(st.sampled_from(PATHS))
    method = draw(st.sampled_from(_GOVERNED))
    prefix = draw(st.sampled_from(_MERGED)) if path == "/mcp" else ""
    uri = draw(st.sampled_from(("note://open/a", "note://open/new", "note://secret/x")))
    params: dict[str, Any] = {
        "tools/call": {"name": prefix + draw(st.sampled_from(("query", "query", "slow", "drop")))},
        "prompts/get": {"name": prefix + draw(st.sampled_from(("greet", "greet", "secret_prompt")))},
        "resources/read": {"uri": uri},
        "resources/subscribe": {"uri": uri},
        "completion/complete": {
            "ref": {"type": "ref/prompt", "name": prefix + "greet"}, "argument": {"name": "who", "value": "a"}
        },
        "logging/setLevel": {"level": "debug"},
        "subscriptions/listen": {"notifications": {"toolsListChanged": True, "resourceSubscriptions": [uri]}},
        "initialize": {"protocolVersion": "2025-11-25", "capabilities": {"sampling": {}, "elicitation": {}, "roots": {}},
                       "clientInfo": {"name": "f", "version": "1"}},
    }.get(method, {})  # fmt: skip
    if method in ("tools/call", "prompts/get") and draw(st.booleans()):
        params["arguments"] = draw(
            st.dictionaries(st.text("abc", min_size=1, max_size=2), values, max_size=2)
        )
    meta: dict[str, Any] = {"progressToken": draw(ids)} if draw(st.booleans()) else {}
    if era == "modern":
        meta["io.modelcontextprotocol/protocolVersion"] = "2026-07-28"
        meta["io.modelcontextprotocol/clientCapabilities"] = draw(_CAPABLE)
    if meta:
        params["_meta"] = meta
    id_ = draw(ids)
    body = _encoded({"jsonrpc": "2.0", "id": id_, "method": method, "params": params})
    leave = 0.1 if method == "subscriptions/listen" else draw(st.sampled_from((None,) * 7 + (0.02,)))
    whose = draw(st.sampled_from(("own", "other")))
    return Step("POST", path, era, body, whose, _mirrored(method, params), leave, id_)


@st.composite
def wild(draw: st.DrawFn) -> Step:
    """One request of any kind, mostly not as it should be."""
    era, path = draw(st.sampled_from(("modern", "legacy"))), draw(st.sampled_from(PATHS))
    session = draw(st.sampled_from(("own", "own", "own", "other", "none", "x", "a b")))
    leave = draw(st.sampled_from((None, None, None, None, 0.0, 0.02)))
    kind = draw(st.integers(0, 19))
    head: tuple[tuple[str, str], ...] = ()
    id_: Any = None
    if kind == 0:
        return Step("GET", path, era, b"", session, (("accept", "text/event-stream"),), leave or 0.1)
    if kind == 1:
        return Step(draw(st.sampled_from(("DELETE", "PUT", "HEAD"))), path, era, b"", session, (), leave)
    if kind == 2:
        body = draw(st.binary(max_size=200))
    elif kind == 3:
        answer = {"jsonrpc": "2.0", "id": draw(ids), draw(st.sampled_from(("result", "error"))): draw(values)}
        body = _encoded(answer)
    elif kind == 4:
        method = draw(st.sampled_from(NOTIFICATIONS))
        params = draw(params_of(method, era))
        head, body = (
            _mirrored(method, params),
            _encoded({"jsonrpc": "2.0", "method": method, "params": params}),
        )
    else:
        method = draw(st.sampled_from(METHODS))
        params, id_ = draw(params_of(method, era)), draw(ids)
        head = _mirrored(method, params)
        body = _encoded({"jsonrpc": "2.0", "id": id_, "method": method, "params": params})
        if kind == 5:
            body, id_ = draw(_bent(body)), None
        if method == "subscriptions/listen":
            leave = leave or 0.1
    if not draw(st.integers(0, 15)):
        head = draw(st.sampled_from(((), (*head, ("mcp-name", "x")), (*head, ("accept", "text/html")))))
    return Step("POST", path, era, body, session, head, leave, id_)


conversations = st.tuples(
    st.lists(st.one_of(right(), right(), wild()), min_size=2, max_size=10),
    st.lists(st.sampled_from((*sorted(manners.MANNERS), *("fine",) * 12)), min_size=2, max_size=8),
)
