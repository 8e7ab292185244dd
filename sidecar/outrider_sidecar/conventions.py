# SPDX-License-Identifier: Apache-2.0
"""The strings of MCP and of the conventions around it, each in one place. Values only."""

from __future__ import annotations

import dataclasses
from typing import Final

MODERN: Final = "2026-07-28"
"""The stateless revision; the only one of its era so far."""

LEGACY: Final = ("2025-03-26", "2025-06-18", "2025-11-25")
"""The handshake revisions, oldest first."""

OLDEST: Final = "2024-11-05"
"""Spoken to servers only, most of which have the transport of that revision (HTTP+SSE)."""

LEGACY_WITHOUT_HEADER: Final = "2025-03-26"
"""What a request without MCP-Protocol-Version speaks (2025-06-18, transports)."""

META_VERSION: Final = "io.modelcontextprotocol/protocolVersion"
META_CAPABILITIES: Final = "io.modelcontextprotocol/clientCapabilities"
META_CLIENT_INFO: Final = "io.modelcontextprotocol/clientInfo"
META_SERVER_INFO: Final = "io.modelcontextprotocol/serverInfo"
META_LOG_LEVEL: Final = "io.modelcontextprotocol/logLevel"
META_PREFIX: Final = "io.modelcontextprotocol/"
META_SUBSCRIPTION: Final = "io.modelcontextprotocol/subscriptionId"
META_OURS: Final = "dev.outrider/"
META_REFUSAL: Final = "dev.outrider/refusal"
META_SERVER: Final = "dev.outrider/server"

HEADER_VERSION: Final = b"mcp-protocol-version"
HEADER_METHOD: Final = b"mcp-method"
HEADER_NAME: Final = b"mcp-name"
HEADER_SESSION: Final = b"mcp-session-id"
HEADER_USER: Final = b"outrider-user"
HEADER_TRACEPARENT: Final = b"traceparent"
HEADER_TRACESTATE: Final = b"tracestate"

INITIALIZE: Final = "initialize"
INITIALIZED: Final = "notifications/initialized"
CANCELLED: Final = "notifications/cancelled"
PROGRESS: Final = "notifications/progress"
LOG_MESSAGE: Final = "notifications/message"
ROOTS_CHANGED: Final = "notifications/roots/list_changed"
ELICITED: Final = "notifications/elicitation/complete"
ACKNOWLEDGED: Final = "notifications/subscriptions/acknowledged"
RESOURCE_UPDATED: Final = "notifications/resources/updated"
TOOLS_CHANGED: Final = "notifications/tools/list_changed"
PROMPTS_CHANGED: Final = "notifications/prompts/list_changed"
RESOURCES_CHANGED: Final = "notifications/resources/list_changed"
PING: Final = "ping"
DISCOVER: Final = "server/discover"
SET_LEVEL: Final = "logging/setLevel"
LIST_TOOLS: Final = "tools/list"
LIST_PROMPTS: Final = "prompts/list"
LIST_RESOURCES: Final = "resources/list"
LIST_TEMPLATES: Final = "resources/templates/list"
CALL_TOOL: Final = "tools/call"
GET_PROMPT: Final = "prompts/get"
READ_RESOURCE: Final = "resources/read"
COMPLETE: Final = "completion/complete"
LISTEN: Final = "subscriptions/listen"
SUBSCRIBE: Final = "resources/subscribe"
UNSUBSCRIBE: Final = "resources/unsubscribe"
SAMPLE: Final = "sampling/createMessage"
ELICIT: Final = "elicitation/create"
LIST_ROOTS: Final = "roots/list"

LOG_LEVELS: Final = (
    "debug", "info", "notice", "warning", "error", "critical", "alert", "emergency",
)  # fmt: skip
"""As syslog has them, the least severe first."""

PARSE_ERROR: Final = -32700
INVALID_REQUEST: Final = -32600
METHOD_NOT_FOUND: Final = -32601
INVALID_PARAMS: Final = -32602
INTERNAL_ERROR: Final = -32603
SESSION_NOT_FOUND: Final = -32001
RESOURCE_NOT_FOUND: Final = -32002
"""Of the handshake era only; the modern era says INVALID_PARAMS."""
URL_ELICITATION_REQUIRED: Final = -32042
"""Of the handshake era only, in which a server sends people to an address by it; the modern era asks."""
HEADER_MISMATCH: Final = -32020
CAPABILITY_MISSING: Final = -32021
VERSION_UNSUPPORTED: Final = -32022

FORBIDDEN: Final = 403
"""Our own error codes lie outside every reserved range and say what HTTP would (protocol.md)."""
TOO_MANY: Final = 429
PAYMENT_REQUIRED: Final = 402

CLIENT_NAME: Final = "outrider"
CLIENT_VERSION: Final = "0.1.0"


@dataclasses.dataclass(frozen=True, slots=True)
class Trace:
    """W3C trace context as received; both empty when there was none worth carrying on."""

    parent: str = ""
    state: str = ""

    @property
    def id(self) -> str:
        """The 32 hex digits of the trace, "" without one."""
        return self.parent[3:35]
