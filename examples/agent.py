# SPDX-License-Identifier: Apache-2.0
"""The scripted agent of the demo: what it calls, through the official SDK, and how each call should end.

Used by demo.py. It knows the proxy's address and token from the client config, as any agent would, and nothing of policies:
what happened to a call it learns from the answer alone.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import pathlib
from collections.abc import AsyncIterator
from typing import Any, Self

import httpx2
import mcp
from mcp.client import client as clients
from mcp.client import streamable_http

ALLOWED = "allowed"
HIDDEN = "hidden"
REFUSED = "refused"
WRONG = "wrong arguments"
THROTTLED = "throttled"
OVER_BUDGET = "over budget"
TOOL_ERROR = "tool error"
SERVER_FAILED = "server failed"

CRM = "crm/salesforce"
MERGED = ""
"""The endpoint where all servers are one; its tools are called `{alias}__{tool}`."""

MODERN = "2026-07-28"
LEGACY = "2025-11-25"

FAILURES = (mcp.MCPError, httpx2.HTTPError, ExceptionGroup, RuntimeError)
"""What the SDK raises when a session or an answer is not to be had; its task groups wrap the first two."""

_REFUSAL = "dev.outrider/refusal"
_VERDICTS = {"ArgumentsInvalid": WRONG, "RateLimited": THROTTLED, "BudgetExceeded": OVER_BUDGET}


@dataclasses.dataclass(frozen=True, slots=True)
class Step:
    """One call and how it should end: `expected` is a verdict, `reason` what the journal should give."""

    what: str
    tool: str
    arguments: dict[str, Any]
    expected: str
    reason: str = "Allowed"
    endpoint: str = CRM
    era: str = MODERN


@dataclasses.dataclass(frozen=True, slots=True)
class Ending:
    """How a call ended, as the agent saw it. `request_id` and `rule` come with refusals only."""

    verdict: str
    text: str
    request_id: str = ""
    rule: str = ""


_SOQL = "SELECT Name, Amount FROM Opportunity WHERE Amount > 20000 ORDER BY Amount DESC LIMIT 3"
_BERLIN = {"timezone": "Europe/Berlin"}


def script() -> list[list[Step]]:
    """Scenes: the calls of one are made without a pause, so that a rate limit can bite."""
    account = {"account_id": "001-003"}
    return [
        [Step("read the pipeline", "query", {"soql": _SOQL}, ALLOWED)],
        [Step("open an opportunity", "create_opportunity", {"account": "001-003", "amount": 12000}, ALLOWED)],
        [Step("a number instead of text", "query", {"soql": 42}, WRONG, "ArgumentsInvalid")],
        [Step("delete an account", "delete_account", account, REFUSED, "Denied")],
        [Step("a debug tool", "debug_dump", {}, HIDDEN, "DeniedHidden")],
        [Step("a tool that does not exist", "querry", {}, HIDDEN, "ToolUnknown")],
        [Step("another team's server", "hr_people__get_person", {}, HIDDEN, "ServerUnknown", MERGED)],
        [Step("a server switched off", "crm_reports__top_accounts", {}, REFUSED, "ServerDisabled", MERGED)],
        [
            Step(
                "the time, from a stdio server",
                "tools_clock__get_current_time",
                _BERLIN,
                ALLOWED,
                endpoint=MERGED,
            )
        ],
        [
            Step("look up an account", "get_account", account, ALLOWED),
            Step("look up an account", "get_account", account, ALLOWED),
            Step("look up an account", "get_account", account, ALLOWED),
            Step("look up an account, too soon", "get_account", account, THROTTLED, "RateLimited"),
        ],
        [Step("export all contacts", "export_all_contacts", {}, ALLOWED)],
        [Step("export all contacts", "export_all_contacts", {}, ALLOWED)],
        [Step("export all contacts, 3rd today", "export_all_contacts", {}, OVER_BUDGET, "BudgetExceeded")],
        [Step("a tool that fails", "sync_invoices", {"period": "2026-01"}, TOOL_ERROR, "ToolError")],
        [
            Step(
                "a tool that hangs",
                "sync_invoices",
                {"period": "2026-06", "wait_seconds": 30},
                SERVER_FAILED,
                "UpstreamTimeout",
            )
        ],
        [Step("an older client reads", "query", {"soql": _SOQL}, ALLOWED, era=LEGACY)],
        [Step("an older client deletes", "delete_account", account, REFUSED, "Denied", era=LEGACY)],
    ]


class Agent:
    """Sessions with the proxy, one per endpoint and era, opened when they are first needed."""

    def __init__(self, config: pathlib.Path) -> None:
        server = json.loads(config.read_bytes())["mcpServers"]["outrider"]
        self._url: str = server["url"]
        self._headers: dict[str, str] = server["headers"]
        self._sessions: dict[tuple[str, str], clients.Client] = {}
        self._open = contextlib.AsyncExitStack()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._open.aclose()

    async def call(self, step: Step) -> Ending:
        """Makes one call and reads its answer."""
        session = await self._session(step.endpoint, step.era)
        result = await session.call_tool(step.tool, step.arguments)
        return ending(result.model_dump(mode="json", by_alias=True))

    async def tools(self, endpoint: str = MERGED) -> list[str]:
        """The names this agent sees."""
        session = await self._session(endpoint, MODERN)
        return [tool.name for tool in (await session.list_tools()).tools]

    async def _session(self, endpoint: str, era: str) -> clients.Client:
        if (endpoint, era) not in self._sessions:
            opened = await self._open.enter_async_context(self._connected(endpoint, era))
            if opened.protocol_version != era:
                raise RuntimeError(f"the proxy speaks {opened.protocol_version} to a client of {era}")
            self._sessions[endpoint, era] = opened
        return self._sessions[endpoint, era]

    @contextlib.asynccontextmanager
    async def _connected(self, endpoint: str, era: str) -> AsyncIterator[clients.Client]:
        url = self._url if endpoint == MERGED else f"{self._url.removesuffix('/mcp')}/{endpoint}/mcp"
        mode = "auto" if era == MODERN else "legacy"
        async with httpx2.AsyncClient(headers=self._headers, timeout=30, trust_env=False) as http:
            transport = streamable_http.streamable_http_client(url, http_client=http)
            async with clients.Client(transport, mode=mode) as session:
                yield session


def ending(result: dict[str, Any]) -> Ending:
    """Reads a tool's result as an agent must: allowed, later, never, or wrong."""
    text = " ".join(part.get("text", "") for part in result.get("content", ()))
    if not result.get("isError"):
        return Ending(ALLOWED, text)
    refusal = (result.get("_meta") or {}).get(_REFUSAL)
    if refusal is None:
        return Ending(TOOL_ERROR, text)
    reason = refusal["reason"]
    if text.startswith("Unknown tool: "):
        verdict = HIDDEN
    elif reason.startswith("Upstream"):
        verdict = SERVER_FAILED
    else:
        verdict = _VERDICTS.get(reason, REFUSED)
    rule = "/".join(filter(None, (refusal.get("policy"), refusal.get("rule"))))
    return Ending(verdict, text, refusal["requestId"], rule)


def cause(error: BaseException) -> str:
    """The first thing that went wrong, out of however many task groups."""
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return f"{type(error).__name__}: {error}"
