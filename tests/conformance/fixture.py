# SPDX-License-Identifier: Apache-2.0
"""An MCP server that offers what the official conformance suite asks for, in both eras, on the official SDK.

`running(logs)` starts it as a process of its own and gives its URL. The tools are in `offers` and `dialogues`; prompts,
resources, completions and the wiring are here. By hand: `python -m tests.conformance.fixture PORT [modern-only]`.
"""

from __future__ import annotations

import contextlib
import json
import pathlib
import re
import socket
import sys
from collections.abc import Iterator
from typing import Any

import uvicorn
from mcp import types
from mcp.server import lowlevel, request_state, streamable_http, subscriptions
from mcp.server.context import ServerRequestContext
from mcp.shared import exceptions
from starlette import responses
from starlette.types import ASGIApp, Receive, Scope, Send
from tests import laptop
from tests.conformance import dialogues, offers

NAME = "outrider-conformance-fixture"
ROOT = pathlib.Path(__file__).resolve().parents[2]
MODERN = "2026-07-28"
RETRY_MS = 100
_MODERN_ONLY = "modern-only"
_EVENTS_MAX = 10_000
_TEMPLATE = re.compile(r"test://template/([^/]+)/data")
_TEXTS = {
    "test://static-text": "This is the content of the static text resource.",
    offers.WATCHED: "This is what is watched.",
}
_BINARY = "test://static-binary"
_COUNTRIES = ("Paraguay", "Peru", "Poland", "Portugal")
Ctx = ServerRequestContext[Any, Any]


class Events(streamable_http.EventStore):
    """What was sent, for clients that come back for the rest. The oldest goes when there is too much."""

    def __init__(self) -> None:
        self._kept: dict[int, tuple[str, types.JSONRPCMessage | None]] = {}
        self._last = 0

    async def store_event(self, stream_id: str, message: types.JSONRPCMessage | None) -> str:
        self._last += 1
        self._kept[self._last] = (stream_id, message)
        self._kept.pop(self._last - _EVENTS_MAX, None)
        return str(self._last)

    async def replay_events_after(
        self, last_event_id: str, send_callback: streamable_http.EventCallback
    ) -> str | None:
        known = self._kept.get(int(last_event_id)) if last_event_id.isdigit() else None
        if known is None:
            return None
        for number, (stream, message) in tuple(self._kept.items()):
            if stream == known[0] and number > int(last_event_id) and message is not None:
                await send_callback(streamable_http.EventMessage(message, str(number)))
        return known[0]


# Tools ------------------------------------------------------------------------------------------------------------------


async def _tools(ctx: Ctx, params: Any) -> types.ListToolsResult:
    return types.ListToolsResult(tools=[offer.definition for offer in offers.TOOLS.values()])


async def _call(ctx: Ctx, params: types.CallToolRequestParams) -> offers.Result:
    offer = offers.TOOLS.get(params.name)
    if offer is None:
        return offers.content(offers.text(f"Unknown tool: {params.name}"), isError=True)
    told = await offer.deed(offers.Asked.by(ctx, params))
    return offers.content(offers.text(told)) if isinstance(told, str) else told


# Prompts ----------------------------------------------------------------------------------------------------------------


def _prompt(name: str, description: str, *arguments: str) -> types.Prompt:
    given = [{"name": each, "description": f"The {each}", "required": True} for each in arguments]
    return types.Prompt.model_validate({"name": name, "description": description, "arguments": given})


PROMPTS = (
    _prompt("test_simple_prompt", "One message."),
    _prompt("test_prompt_with_arguments", "Its arguments in a message.", "arg1", "arg2"),
    _prompt("test_prompt_with_embedded_resource", "A resource and a message.", "resourceUri"),
    _prompt("test_prompt_with_image", "An image and a message."),
    _prompt("test_input_required_result_prompt", "Asks for the context first."),
)


async def _prompts(ctx: Ctx, params: Any) -> types.ListPromptsResult:
    return types.ListPromptsResult(prompts=list(PROMPTS))


async def _get(
    ctx: Ctx, params: types.GetPromptRequestParams
) -> types.GetPromptResult | types.InputRequiredResult:
    asked = offers.Asked.by(ctx, params)
    match params.name:
        case "test_simple_prompt":
            blocks = [offers.text("This is a simple prompt for testing.")]
        case "test_prompt_with_arguments":
            given = [f"{name}='{asked.arguments.get(name, '')}'" for name in ("arg1", "arg2")]
            blocks = [offers.text(f"Prompt with arguments: {', '.join(given)}")]
        case "test_prompt_with_embedded_resource":
            uri = asked.arguments.get("resourceUri", "test://embedded")
            blocks = [offers.embedded(uri, "text/plain", "Embedded resource content for testing.")]
            blocks.append(offers.text("Please process the embedded resource above."))
        case "test_prompt_with_image":
            blocks = [offers.image(), offers.text("Please analyze the image above.")]
        case "test_input_required_result_prompt":
            if "user_context" not in asked.answers:
                return dialogues.needed(user_context=dialogues.form("Which context?", "context"))
            blocks = [offers.text(f"In the context of {dialogues.filled(asked, 'user_context', 'context')}")]
        case _:
            raise exceptions.MCPError(code=types.INVALID_PARAMS, message=f"Unknown prompt: {params.name}")
    messages = [{"role": "user", "content": block} for block in blocks]
    return types.GetPromptResult.model_validate({"messages": messages})


# Resources --------------------------------------------------------------------------------------------------------------


async def _resources(ctx: Ctx, params: Any) -> types.ListResourcesResult:
    told: list[dict[str, Any]] = [
        {"uri": uri, "name": uri.removeprefix("test://"), "mimeType": "text/plain"} for uri in _TEXTS
    ]
    told.append({"uri": _BINARY, "name": "static-binary", "mimeType": "image/png"})
    return types.ListResourcesResult.model_validate({"resources": told})


async def _templates(ctx: Ctx, params: Any) -> types.ListResourceTemplatesResult:
    told = {
        "uriTemplate": "test://template/{id}/data", "name": "template", "mimeType": "application/json",
        "description": "Data by id.",
    }  # fmt: skip
    return types.ListResourceTemplatesResult.model_validate({"resourceTemplates": [told]})


async def _read(ctx: Ctx, params: types.ReadResourceRequestParams) -> types.ReadResourceResult:
    uri = str(params.uri)
    if uri in _TEXTS:
        told = {"uri": uri, "mimeType": "text/plain", "text": _TEXTS[uri]}
    elif uri == _BINARY:
        told = {"uri": uri, "mimeType": "image/png", "blob": offers.PIXEL}
    elif found := _TEMPLATE.fullmatch(uri):
        data = json.dumps({"id": found[1], "templateTest": True, "data": f"Data for ID: {found[1]}"})
        told = {"uri": uri, "mimeType": "application/json", "text": data}
    else:
        raise exceptions.MCPError(
            code=types.INVALID_PARAMS, message=f"Unknown resource: {uri}", data={"uri": uri}
        )
    return types.ReadResourceResult.model_validate({"contents": [told]})


async def _nothing_to_add(ctx: Ctx, params: Any) -> types.EmptyResult:
    return types.EmptyResult()


async def _complete(ctx: Ctx, params: types.CompleteRequestParams) -> types.CompleteResult:
    begun = params.argument.value.lower()
    values = [each for each in _COUNTRIES if each.lower().startswith(begun)]
    return types.CompleteResult(completion=types.Completion(values=values, total=len(values), has_more=False))


# Serving ----------------------------------------------------------------------------------------------------------------


def server() -> lowlevel.Server[Any]:
    """The whole server, without a transport."""
    made: lowlevel.Server[Any] = lowlevel.Server(
        NAME, version="1.0.0", title="Conformance", instructions="For tests.",
        get_tool_input_schema=lambda name: (
            offers.TOOLS[name].definition.input_schema if name in offers.TOOLS else None
        ),
        on_list_tools=_tools, on_call_tool=_call, on_list_prompts=_prompts, on_get_prompt=_get,
        on_list_resources=_resources, on_list_resource_templates=_templates, on_read_resource=_read,
        on_subscribe_resource=_nothing_to_add, on_unsubscribe_resource=_nothing_to_add,
        on_set_logging_level=_nothing_to_add, on_completion=_complete,
        on_subscriptions_listen=subscriptions.ListenHandler(offers.BUS),
    )  # fmt: skip
    security = request_state.RequestStateSecurity(keys=[dialogues.STATE_KEY])
    made.middleware.append(request_state.RequestStateBoundary(security, default_audience=NAME))
    return made


class ModernOnly:
    """The same server for clients of the stateless era alone: to others it names the version that it wants."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or (b"mcp-protocol-version", MODERN.encode()) in scope["headers"]:
            await self._app(scope, receive, send)
            return
        data = {"supported": [MODERN]}
        error = {"code": types.UNSUPPORTED_PROTOCOL_VERSION, "message": "Unsupported", "data": data}
        told = responses.JSONResponse({"jsonrpc": "2.0", "id": None, "error": error}, status_code=400)
        await told(scope, receive, send)


def main(listening: socket.socket, *, modern_only: bool = False) -> None:
    app: ASGIApp = server().streamable_http_app(event_store=Events(), retry_interval=RETRY_MS)
    options = uvicorn.Config(
        ModernOnly(app) if modern_only else app, log_level="warning", timeout_graceful_shutdown=1
    )
    uvicorn.Server(options).run(sockets=[listening])


@contextlib.contextmanager
def running(logs: pathlib.Path, *, modern_only: bool = False) -> Iterator[str]:
    """The fixture on a free port; its URL names localhost, as the suite's check against DNS rebinding demands."""
    words = [_MODERN_ONLY] if modern_only else []
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        listening.listen(256)
        process = laptop.Process(
            "-".join(["fixture", *words]), [sys.executable, "-m", __name__, f"fd={listening.fileno()}", *words],
            logs=logs, pass_fds=[listening.fileno()],
            env={"PYTHONPATH": str(ROOT), "PYTHONWARNINGS": "ignore"},
        )  # fmt: skip
        port = listening.getsockname()[1]
    try:
        yield f"http://localhost:{port}/mcp"
    finally:
        process.stop()
        print(process.tail())


if __name__ == "__main__":
    word, chosen_era = sys.argv[1], sys.argv[2:]
    if word.startswith("fd="):
        main(socket.socket(fileno=int(word.removeprefix("fd="))), modern_only=chosen_era == [_MODERN_ONLY])
    else:
        with socket.socket() as chosen:
            chosen.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            chosen.bind(("127.0.0.1", int(word)))
            main(chosen, modern_only=chosen_era == [_MODERN_ONLY])
