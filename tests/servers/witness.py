# SPDX-License-Identifier: Apache-2.0
"""An independent reading of what arrived at a server: what four different JSON readers understand, and what is wrong with it.

Written from the protocol page and the specification, not from our code, and imports none of it. `complaints` is what
the corpus, the fuzzer and attacks hold against every request that a stage has heard.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Iterable
from typing import Any

from tests.servers import mcp, stages

HEADERS = frozenset({
    "host", "content-type", "content-length", "accept", "accept-encoding", "user-agent", "connection", "cache-control",
    "authorization", "traceparent", "tracestate", "mcp-protocol-version", "mcp-session-id", "mcp-method", "mcp-name",
    "last-event-id",
})  # fmt: skip
"""Everything that may go upstream, besides mcp-param-*. What an agent sent of its own must never be among it."""

REQUESTS = frozenset({
    "server/discover", "initialize", "ping", "tools/list", "prompts/list", "resources/list",
    "resources/templates/list", "tools/call", "prompts/get", "resources/read", "completion/complete",
    "resources/subscribe", "resources/unsubscribe", "subscriptions/listen", "logging/setLevel",
})  # fmt: skip
NOTIFICATIONS = frozenset({
    "notifications/initialized", "notifications/cancelled", "notifications/roots/list_changed",
    "notifications/progress",
})  # fmt: skip
_NAMED = {"tools/call": "name", "prompts/get": "name", "resources/read": "uri"}
_LEGACY_ONLY = frozenset({
    "initialize", "ping", "resources/subscribe", "resources/unsubscribe", "logging/setLevel",
})  # fmt: skip
_MODERN_ONLY = frozenset({"server/discover", "subscriptions/listen"})


def _strict(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    made = dict(pairs)
    if len({key.casefold() for key in made}) != len(pairs):
        raise ValueError("a key twice")
    return made


def _first(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    return dict(reversed(pairs))


def _careless(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """As Go's encoding/json reads into a struct: the case of a key does not matter, and the last one wins."""
    return {key.casefold(): value for key, value in pairs}


def readings(raw: bytes) -> dict[str, Any]:
    """What each reader makes of a body. Raises ValueError when the strict one refuses it."""
    text = raw.decode("utf-8")
    return {
        "strict": json.loads(text, object_pairs_hook=_strict, parse_constant=_refuse),
        "last wins": json.loads(text),
        "first wins": json.loads(text, object_pairs_hook=_first),
        "careless": json.loads(text, object_pairs_hook=_careless),
    }


def _refuse(word: str) -> Any:
    raise ValueError(f"{word} is no JSON")


def folded(value: Any) -> Any:
    """A value as the careless reader has it."""
    if isinstance(value, dict):
        return {key.casefold(): folded(each) for key, each in value.items()}
    return [folded(each) for each in value] if isinstance(value, list) else value


def complaints(heard: stages.Heard, *, asked: Iterable[Any] = (), secrets: Iterable[str] = ()) -> list[str]:
    """What is wrong with one request that arrived; nothing, if all is well.

    `asked` are the ids of requests that the server itself made, `secrets` what must occur nowhere in it.
    """
    found = [*_about_head(heard), *_about_body(heard, asked)]
    everything = b"\n".join([f"{name}: {value}".encode() for name, value in heard.head] + [heard.raw])
    found += [f"a secret of somebody's: {secret}" for secret in secrets if secret.encode() in everything]
    return [f"{heard.verb} {heard.method or '-'}: {each}" for each in found]


def _about_head(heard: stages.Heard) -> list[str]:
    names = [name for name, _ in heard.head]
    found = [f"the header {name} twice" for name in set(names) if names.count(name) > 1]
    found += [
        f"the header {name}" for name in names if name not in HEADERS and not name.startswith("mcp-param-")
    ]
    if heard.verb not in ("POST", "GET", "DELETE"):
        found.append("the verb")
    if heard.modern and "mcp-session-id" in names:
        found.append("a session in the stateless era")
    if not heard.modern and {"mcp-method", "mcp-name"} & set(names):
        found.append("mirrored headers in the handshake era")
    return found


def _about_body(heard: stages.Heard, asked: Iterable[Any]) -> list[str]:
    if heard.verb != "POST":
        return ["a body"] if heard.raw else []
    try:
        read = readings(heard.raw)
    except (ValueError, RecursionError) as error:
        return [f"not strict JSON: {error}"]
    body = read["strict"]
    if not isinstance(body, dict) or body.get("jsonrpc") != "2.0":
        return ["no JSON-RPC"]
    found = [f"{name} reads it otherwise" for name in ("last wins", "first wins") if read[name] != body]
    if read["careless"] != folded(body):
        found.append("careless reads it otherwise")
    if strange := set(body) - {"jsonrpc", "id", "method", "params", "result", "error"}:
        found.append(f"members {sorted(strange)}")
    if "method" not in body:
        return found + (
            [] if body.get("id") in list(asked) and not heard.modern else ["an answer to nothing"]
        )
    return found + _about_method(heard)


def _about_method(heard: stages.Heard) -> list[str]:
    method, found = heard.method, []
    if method not in (REQUESTS if "id" in heard.body else NOTIFICATIONS):
        found.append("the method")
    if method in (_LEGACY_ONLY if heard.modern else _MODERN_ONLY):
        found.append("a method of the other era")
    meta = heard.params.get("_meta", {})
    if heard.modern and "id" in heard.body:
        if heard.headers.get("mcp-method") != method:
            found.append("Mcp-Method is not the body's")
        if meta.get(stages.mcp_key("protocolVersion")) != mcp.MODERN:
            found.append("_meta without the version")
        member = _NAMED.get(method)
        stated = heard.headers.get("mcp-name")
        if member is None and stated is not None:
            found.append("an Mcp-Name that nothing has")
        elif member is not None and _decoded(stated) != heard.params.get(member):
            found.append(f"Mcp-Name is not the body's: {stated}")
    if not heard.modern and any(
        key.startswith(stages.mcp_key(""))
        for key in meta
        if "subscription" not in key and "related" not in key
    ):
        found.append("_meta of the stateless era in the other")
    return found


def _decoded(value: str | None) -> str | None:
    if value is None or not value.startswith("=?base64?"):
        return value
    return base64.b64decode(value[9:-2]).decode()
