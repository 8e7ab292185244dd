# SPDX-License-Identifier: Apache-2.0
"""What was asked, in which era: the one value behind both, so that nothing later needs to know how it arrived.

Made by intake from headers and message. The era comes from MCP-Protocol-Version and the body's `_meta`, never from
Mcp-Method, which legacy clients send too (protocol.md).
"""

from __future__ import annotations

import dataclasses
import re
from typing import Any

from outrider import decision
from outrider_sidecar import agents, conventions, exchange, jsonrpc

_TRACEPARENT = re.compile(r"(?!ff)[0-9a-f]{2}-(?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}")
_TRACESTATE_CHARACTERS_MAX = 512
_MISMATCH = decision.Reason.HEADER_MISMATCH


@dataclasses.dataclass(frozen=True, slots=True)
class Asked:
    """`agent` is the session it belongs to: None for stateless requests, and for legacy ones that name none."""

    modern: bool
    version: str
    message: jsonrpc.Message
    trace: conventions.Trace
    agent: agents.Agent | None = None

    @property
    def session_key(self) -> str:
        """Tells apart whose upstream sessions are used: an agent's, or "" for requests without a session."""
        return "" if self.agent is None else self.agent.key

    @property
    def log_level(self) -> str | None:
        """The least severe log messages that it wants: of this request, or of its session; None when nothing was said."""
        if not self.modern:
            return None if self.agent is None else self.agent.log_level
        level = self.message.meta.get(conventions.META_LOG_LEVEL)
        return level if isinstance(level, str) and level in conventions.LOG_LEVELS else None

    @property
    def declared(self) -> dict[str, Any]:
        """The client capabilities that hold for this request: its own, or those of its session."""
        if not self.modern:
            return {} if self.agent is None else self.agent.capabilities
        given = self.message.meta.get(conventions.META_CAPABILITIES)
        return agents.declared(given) if given else {}

    @property
    def id(self) -> jsonrpc.Id | None:
        return self.message.id

    @property
    def progress_token(self) -> jsonrpc.Id | None:
        """The agent's own token, None when it wants no progress."""
        token = self.message.meta.get("progressToken")
        return token if isinstance(token, str | int) and not isinstance(token, bool) else None


def header(headers: exchange.Headers, name: bytes) -> str | None:
    """The one value of a header; None when absent. Raises Malformed (-32020) when it is there twice."""
    values = [value for key, value in headers if key == name]
    if len(values) > 1:
        raise jsonrpc.Malformed(
            f"{name.decode()} is there more than once", code=conventions.HEADER_MISMATCH, reason=_MISMATCH
        )
    return values[0].decode("latin-1").strip() if values else None


def is_modern(headers: exchange.Headers, message: jsonrpc.Message) -> bool:
    """Which era a request belongs to. Raises Malformed when header and body do not agree on one."""
    stated = header(headers, conventions.HEADER_VERSION)
    in_body = conventions.META_VERSION in message.meta
    if stated is None or stated in conventions.LEGACY:
        if in_body:
            raise jsonrpc.Malformed(
                f"_meta names a protocol version and the header {'does not' if stated is None else 'names another'}",
                code=conventions.HEADER_MISMATCH,
                reason=_MISMATCH,
            )
        return False
    return True


def trace(headers: exchange.Headers, message: jsonrpc.Message) -> conventions.Trace:
    """W3C trace context; what `_meta` says wins over the headers. Anything malformed is as if absent.

    A state belongs to the parent it came with and to no other.
    """
    parent, state = message.meta.get("traceparent"), message.meta.get("tracestate")
    if not isinstance(parent, str) or not _TRACEPARENT.fullmatch(parent):
        parent, state = (
            _first(headers, each) for each in (conventions.HEADER_TRACEPARENT, conventions.HEADER_TRACESTATE)
        )
        if not _TRACEPARENT.fullmatch(parent):
            return conventions.Trace()
    if not isinstance(state, str) or len(state) > _TRACESTATE_CHARACTERS_MAX:
        state = ""
    return conventions.Trace(parent, state if state.isascii() and state.isprintable() else "")


def _first(headers: exchange.Headers, name: bytes) -> str:
    return next((value.decode("latin-1") for key, value in headers if key == name), "")
