# SPDX-License-Identifier: Apache-2.0
"""The fixture's tools that ask the client: by requests of the handshake era, and by `input_required` of the stateless one.

Imported by the fixture for what it adds to `offers.TOOLS`.
"""

from __future__ import annotations

import json
from typing import Any

from mcp import types
from mcp.shared import exceptions
from tests.conformance import offers
from tests.conformance.offers import Asked, Result, obj, offered

STATE_KEY = b"the fixture's requestState, for tests only: nothing secret"
_STRING = {"type": "string"}
_ONE_OF_THREE = ["active", "inactive", "pending"]
_WITH_DEFAULTS = obj(
    name={"type": "string", "description": "Name", "default": "John Doe"},
    age={"type": "integer", "description": "Age", "default": 30},
    score={"type": "number", "description": "Score", "default": 95.5},
    status={"type": "string", "description": "Status", "enum": _ONE_OF_THREE, "default": "active"},
    verified={"type": "boolean", "description": "Verified", "default": True},
)
_TITLED = [{"const": word, "title": f"{word.title()} Priority"} for word in ("low", "medium", "high")]
_TITLED_MANY = [
    {"const": word, "title": title}
    for word, title in (("feature", "New Feature"), ("bug", "Bug Fix"), ("docs", "Documentation"))
]
_ENUMS = obj(
    untitledSingle={"type": "string", "enum": _ONE_OF_THREE},
    titledSingle={"type": "string", "oneOf": _TITLED},
    untitledMulti={"type": "array", "items": {"type": "string", "enum": ["read", "write", "execute"]}},
    titledMulti={"type": "array", "items": {"anyOf": _TITLED_MANY}},
    legacyEnum={
        "type": "string", "enum": ["small", "medium", "large"],
        "enumNames": ["Small Size", "Medium Size", "Large Size"],
    },
)  # fmt: skip


# Requests of a server, within a call (handshake era) --------------------------------------------------------------------


async def _form(asked: Asked, message: str, schema: dict[str, Any]) -> str:
    try:
        said = await asked.ctx.session.elicit_form(message, schema, related_request_id=asked.ctx.request_id)
    except exceptions.MCPError as error:
        return f"The client did not answer: {error.error.code} {error.error.message}"
    return f"action={said.action}, content={json.dumps(said.content)}"


@offered("test_sampling", "Asks the client's model.", obj(("prompt",), prompt=_STRING))
async def _sampling(asked: Asked) -> str:
    message = types.SamplingMessage.model_validate(
        {"role": "user", "content": offers.text(asked.arguments["prompt"])}
    )
    try:
        said = await asked.ctx.session.create_message(
            [message], max_tokens=100, related_request_id=asked.ctx.request_id
        )
    except exceptions.MCPError as error:
        return f"The client did not answer: {error.error.code} {error.error.message}"
    return f"LLM response: {getattr(said.content, 'text', '')}"


@offered("test_roots", "Asks for the client's roots.")
async def _roots(asked: Asked) -> str:
    try:
        said = await asked.ctx.session.list_roots()
    except exceptions.MCPError as error:
        return f"The client did not answer: {error.error.code} {error.error.message}"
    return " ".join(str(each.uri) for each in said.roots) or "none"


@offered("test_elicitation", "Asks the client's user.", obj(("message",), message=_STRING))
async def _elicitation(asked: Asked) -> str:
    schema = obj(("response",), response={"type": "string", "description": "User's response"})
    return f"User response: {await _form(asked, asked.arguments['message'], schema)}"


@offered("test_elicitation_sep1034_defaults", "Asks with a default for each kind of field.")
async def _defaults(asked: Asked) -> str:
    said = await _form(asked, "Please check what is filled in", _WITH_DEFAULTS)
    return f"Elicitation completed: {said}"


@offered("test_elicitation_sep1330_enums", "Asks with each way to write a choice.")
async def _enums(asked: Asked) -> str:
    return f"Elicitation completed: {await _form(asked, 'Please choose', _ENUMS)}"


# Rounds (stateless era) -------------------------------------------------------------------------------------------------


def ask(method: str, **params: Any) -> dict[str, Any]:
    return {"method": method, "params": params}


def form(message: str, name: str, kind: str = "string") -> dict[str, Any]:
    """A form with one field."""
    schema = obj((name,), **{name: {"type": kind}})
    return ask("elicitation/create", mode="form", message=message, requestedSchema=schema)


def sample(said: str, tokens: int = 100) -> dict[str, Any]:
    messages = [{"role": "user", "content": offers.text(said)}]
    return ask("sampling/createMessage", messages=messages, maxTokens=tokens)


def needed(state: str | None = None, **requests: Any) -> types.InputRequiredResult:
    told: dict[str, Any] = {"resultType": "input_required", "inputRequests": requests}
    return types.InputRequiredResult.model_validate(
        told if state is None else {**told, "requestState": state}
    )


def filled(asked: Asked, key: str, field: str) -> Any:
    """What was filled into a field of a form; None when it was not."""
    return (asked.answers.get(key, {}).get("content") or {}).get(field)


@offered("test_input_required_result_elicitation", "Asks for a name.")
async def _round_of_a_form(asked: Asked) -> Result | str:
    if "user_name" in asked.answers:
        return f"Hello, {filled(asked, 'user_name', 'name') or 'stranger'}!"
    return needed(user_name=form("What is your name?", "name"))


@offered("test_streaming_elicitation", "Reports progress, then asks for a name.")
async def _round_after_progress(asked: Asked) -> Result | str:
    await asked.ctx.session.report_progress(1, 2, "about to ask")
    return await _round_of_a_form(asked)


@offered("test_input_required_result_sampling", "Asks a model for a capital.")
async def _round_of_a_model(asked: Asked) -> Result | str:
    if "capital_question" in asked.answers:
        said = asked.answers["capital_question"].get("content", {})
        return f"The model said: {said.get('text', '')}"
    return needed(capital_question=sample("What is the capital of France?"))


@offered("test_input_required_result_list_roots", "Asks for roots.")
async def _round_of_roots(asked: Asked) -> Result | str:
    if "client_roots" in asked.answers:
        return f"{len(asked.answers['client_roots'].get('roots', ()))} root(s)"
    return needed(client_roots=ask("roots/list"))


@offered("test_input_required_result_request_state", "Wants its state back beside the answer.")
async def _round_with_state(asked: Asked) -> Result | str:
    if "confirm" in asked.answers and asked.state == "kept by the client":
        return "state-ok: confirmed"
    return needed("kept by the client", confirm=form("Please confirm", "ok", "boolean"))


@offered("test_input_required_result_multiple_inputs", "Asks for three things in one round.")
async def _round_of_three(asked: Asked) -> Result | str:
    if {"user_name", "greeting", "client_roots"} <= asked.answers.keys():
        return "All inputs received."
    return needed(
        "three", user_name=form("What is your name?", "name"), greeting=sample("Generate a greeting", 50),
        client_roots=ask("roots/list"),
    )  # fmt: skip


@offered("test_input_required_result_multi_round", "Asks for a name, then for a colour.")
async def _two_rounds(asked: Asked) -> Result | str:
    state = json.loads(asked.state) if asked.state else {}
    if state.get("after") == "step1" and "step1" in asked.answers:
        later = json.dumps({"after": "step2", "name": filled(asked, "step1", "name")})
        return needed(later, step2=form("Step 2: What is your favorite color?", "color"))
    if state.get("after") == "step2" and "step2" in asked.answers:
        return f"{state['name']} likes {filled(asked, 'step2', 'color')}."
    return needed(json.dumps({"after": "step1"}), step1=form("Step 1: What is your name?", "name"))


@offered("test_input_required_result_tampered_state", "Tells which state came back.")
async def _round_tampered(asked: Asked) -> Result | str:
    if asked.state is not None:
        return f"state-ok: {asked.state}"
    return needed("first round", confirm=form("Please confirm", "ok", "boolean"))


@offered("test_input_required_result_capabilities", "Asks only for what the client declared.")
async def _round_by_capabilities(asked: Asked) -> Result | str:
    declared = asked.ctx.session.client_capabilities
    requests: dict[str, Any] = {}
    if declared is not None and declared.sampling is not None:
        requests["sample"] = sample("Say hello", 50)
    if declared is not None and declared.elicitation is not None:
        requests["ask"] = form("What is your name?", "name")
    return needed("by capabilities", **requests)
