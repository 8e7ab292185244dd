# SPDX-License-Identifier: Apache-2.0
"""How the fixture's tools are written down, and the tools that need nobody's answer.

`TOOLS` maps a name to its definition and to the function that does it. The functions are given an `Asked` and return a result,
or a text, which becomes one. `dialogues` adds the tools that ask the client something. Names and texts are those that the
official suite looks for.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

import anyio
from mcp import types
from mcp.server import context, subscriptions
from mcp.shared import exceptions

PIXEL = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAIAAACQd1PeAAAADElEQVR4nGP4z8AAAAMBAQDJ/pLvAAAAAElFTkSuQmCC"
SILENCE = "UklGRiQAAABXQVZFZm10IBAAAAABAAEAQB8AAIA+AAACABAAZGF0YQAAAAA="
SAMPLING_NEEDED = {"requiredCapabilities": {"sampling": {}}}
BUS = subscriptions.InMemorySubscriptionBus()
"""Who listens in the stateless era."""
WATCHED = "test://watched-resource"
_STEP_SECONDS = 0.05
_RECONNECT_SECONDS = 0.2


@dataclasses.dataclass(frozen=True, slots=True)
class Asked:
    """One request: its context, and what it carried."""

    ctx: context.ServerRequestContext[Any, Any]
    arguments: Mapping[str, Any]
    answers: Mapping[str, Any]
    state: str | None

    @classmethod
    def by(cls, ctx: context.ServerRequestContext[Any, Any], params: Any) -> Asked:
        """`answers` as they stood on the wire, by the keys of the requests."""
        given = params.input_responses or {}
        answers = {key: each.model_dump(by_alias=True, mode="json") for key, each in given.items()}
        return cls(ctx, params.arguments or {}, answers, params.request_state)

    async def log(self, text: str) -> None:
        await self.ctx.session.send_log_message("info", text, related_request_id=self.ctx.request_id)


Result = types.CallToolResult | types.InputRequiredResult
Deed = Callable[[Asked], Awaitable[Result | str]]


@dataclasses.dataclass(frozen=True, slots=True)
class Offer:
    """A tool: what lists say of it, and what it does."""

    definition: types.Tool
    deed: Deed


TOOLS: dict[str, Offer] = {}


def offered(name: str, description: str, schema: Mapping[str, Any] | None = None, **more: Any) -> Any:
    """Decorates the function that does what the tool `name` promises."""
    told = {"name": name, "description": description, "inputSchema": schema or obj(), **more}

    def kept(deed: Deed) -> Deed:
        TOOLS[name] = Offer(types.Tool.model_validate(told), deed)
        return deed

    return kept


def obj(required: tuple[str, ...] = (), **properties: Any) -> dict[str, Any]:
    """The schema of an object."""
    return {"type": "object", "properties": properties, "required": list(required)}


def content(*blocks: Mapping[str, Any], **more: Any) -> types.CallToolResult:
    return types.CallToolResult.model_validate({"content": blocks, **more})


def text(said: str) -> dict[str, Any]:
    return {"type": "text", "text": said}


def image() -> dict[str, Any]:
    return {"type": "image", "data": PIXEL, "mimeType": "image/png"}


def embedded(uri: str, mime_type: str, said: str) -> dict[str, Any]:
    return {"type": "resource", "resource": {"uri": uri, "mimeType": mime_type, "text": said}}


# Contents -------------------------------------------------------------------------------------------------------------


@offered("test_simple_text", "A text.")
async def _simple(asked: Asked) -> str:
    return "This is a simple text response for testing."


@offered("test_image_content", "An image.")
async def _image(asked: Asked) -> Result:
    return content(image())


@offered("test_audio_content", "A sound.")
async def _audio(asked: Asked) -> Result:
    return content({"type": "audio", "data": SILENCE, "mimeType": "audio/wav"})


@offered("test_embedded_resource", "A resource within the result.")
async def _embedded(asked: Asked) -> Result:
    return content(
        embedded("test://embedded-resource", "text/plain", "This is an embedded resource content.")
    )


@offered("test_multiple_content_types", "A text, an image and a resource.")
async def _multiple(asked: Asked) -> Result:
    resource = embedded("test://mixed-content-resource", "application/json", '{"test":"data","value":123}')
    return content(text("Multiple content types test:"), image(), resource)


@offered("test_error_handling", "Fails.")
async def _fails(asked: Asked) -> Result:
    return content(text("This tool intentionally returns an error for testing"), isError=True)


@offered(
    "test_structured", "Structured beside text.", obj(("value",), value={"type": "number"}),
    title="Structured", annotations={"readOnlyHint": True, "idempotentHint": True},
    outputSchema=obj(("doubled",), doubled={"type": "number"}), _meta={"example.org/kept": {"deep": [1, None]}},
)  # fmt: skip
async def _structured(asked: Asked) -> Result:
    doubled = 2 * asked.arguments["value"]
    return content(
        text(str(doubled)), structuredContent={"doubled": doubled}, _meta={"example.org/result": True}
    )


@offered(
    "test_x_mcp_header",
    "An argument that also stands in a header.",
    obj(region={"type": "string", "default": "<none>", "x-mcp-header": "Region"}),
)
async def _header(asked: Asked) -> str:
    return f"region={asked.arguments.get('region', '<none>')}"


@offered(
    "json_schema_2020_12_tool",
    "A schema with the words of JSON Schema 2020-12.",
    {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "type": "object",
        "$defs": {
            "address": {
                "$anchor": "addressDef",
                "type": "object",
                "properties": {"street": {"type": "string"}, "city": {"type": "string"}},
            }
        },
        "properties": {
            "name": {"type": "string"},
            "address": {"$ref": "#/$defs/address"},
            "contactMethod": {"type": "string", "enum": ["phone", "email"]},
            "phone": {"type": "string"},
            "email": {"type": "string"},
        },
        "allOf": [{"anyOf": [{"required": ["phone"]}, {"required": ["email"]}]}],
        "if": {"properties": {"contactMethod": {"const": "phone"}}, "required": ["contactMethod"]},
        "then": {"required": ["phone"]},
        "else": {"required": ["email"]},
        "additionalProperties": False,
    },
)
async def _json_schema(asked: Asked) -> str:
    return "json_schema_2020_12_tool"


# While a call runs ----------------------------------------------------------------------------------------------------


@offered("test_tool_with_logging", "Three lines in the log, in between.")
async def _logging(asked: Asked) -> str:
    for line in ("Tool execution started", "Tool processing data", "Tool execution completed"):
        await asked.log(line)
        await anyio.sleep(_STEP_SECONDS)
    return "Tool with logging executed successfully"


@offered("test_logging_tool", "One line in the log.")
async def _one_line(asked: Asked) -> str:
    await asked.log("One line")
    return "Logged one line"


@offered("test_tool_with_progress", "Half-way, and there.")
async def _progress(asked: Asked) -> str:
    for done in (0, 50, 100):
        await asked.ctx.session.report_progress(done, 100, f"Completed step {done} of 100")
        await anyio.sleep(_STEP_SECONDS)
    return "Progress reported"


@offered("test_wait", "Says that it has begun and waits.", obj(seconds={"type": "number", "maximum": 30}))
async def _wait(asked: Asked) -> str:
    await asked.ctx.session.report_progress(1, None, "begun")
    await anyio.sleep(asked.arguments.get("seconds", 5))
    return "waited"


@offered("test_reconnection", "Closes its stream half-way, so that the client has to come back for the rest.")
async def _reconnection(asked: Asked) -> str:
    await asked.log("Before disconnect")
    if asked.ctx.close_sse_stream is not None:
        await asked.ctx.close_sse_stream()
    await anyio.sleep(_RECONNECT_SECONDS)
    await asked.log("After reconnect")
    return "Reconnection test completed"


@offered("test_missing_capability", "For clients that declared sampling only.")
async def _capability(asked: Asked) -> str:
    declared = asked.ctx.session.client_capabilities
    if declared is None or declared.sampling is None:
        message = "This tool requires the client's 'sampling' capability"
        raise exceptions.MCPError(
            code=types.MISSING_REQUIRED_CLIENT_CAPABILITY, message=message, data=SAMPLING_NEEDED
        )
    return "The client declared sampling."


# Changes --------------------------------------------------------------------------------------------------------------


@offered("test_trigger_tool_change", "Says that the list of tools has changed.")
async def _tools_changed(asked: Asked) -> str:
    await BUS.publish(subscriptions.ToolsListChanged())
    await asked.ctx.session.send_tool_list_changed()
    return "tool list changed"


@offered("test_trigger_prompt_change", "Says that the list of prompts has changed.")
async def _prompts_changed(asked: Asked) -> str:
    await BUS.publish(subscriptions.PromptsListChanged())
    await asked.ctx.session.send_prompt_list_changed()
    return "prompt list changed"


@offered("test_trigger_resource_update", "Says that the watched resource has changed.")
async def _resource_updated(asked: Asked) -> str:
    await BUS.publish(subscriptions.ResourceUpdated(uri=WATCHED))
    await asked.ctx.session.send_resource_updated(WATCHED)
    return "resource updated"
