# SPDX-License-Identifier: Apache-2.0
"""What every client does at every server, and the two formats that clients read and write.

A client reads visits, `[{"key", "url", "headers", "steps": [{"do": ..., ...}]}]`, makes them one after another, and writes what
it saw: `{key: {"version", "capabilities", "instructions", "told": [one object for each step]}}`, or `{key: {"failed": why}}`.

Steps: `tools`, `prompts`, `resources`, `templates` tell every page of a list; `call` a result with its progress; `get`, `read`,
`complete`, `level` a result; `cancel` leaves a call that has begun; `subscribe` and `changed` call a tool and wait for the news.
A JSON-RPC error is told as `{"error": [code, message]}`, log messages of a step stand beside it as `logged`; they count where
`logs` says so, since some servers log of their own accord. `asks` marks a call during which a server of the handshake era asks the client something, `rounds` one that ends in `input_required`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

Step = Mapping[str, Any]

_LISTS: tuple[Step, ...] = tuple({"do": each} for each in ("tools", "prompts", "resources", "templates"))
_DOCUMENT = "demo://resource/static/document/features.md"


def call(name: str, /, **arguments: Any) -> dict[str, Any]:
    return {"do": "call", "name": name, "arguments": arguments}


def logs(step: dict[str, Any]) -> dict[str, Any]:
    return {**step, "logs": True}


def asks(step: dict[str, Any]) -> dict[str, Any]:
    return {**step, "asks": True}


def rounds(step: dict[str, Any], text: str) -> dict[str, Any]:
    """`text` is what the last round says to clients that answer as ours do."""
    return {**step, "rounds": text}


def get(name: str, /, **arguments: str) -> dict[str, Any]:
    return {"do": "get", "name": name, "arguments": arguments}


def read(uri: str) -> dict[str, Any]:
    return {"do": "read", "uri": uri}


def complete(prompt: str, name: str, value: str) -> dict[str, Any]:
    return {"do": "complete", "prompt": prompt, "argument": {"name": name, "value": value}}


_FIXTURE: tuple[Step, ...] = (
    *_LISTS,
    call("test_simple_text"),
    call("test_multiple_content_types"),
    call("test_structured", value=21),
    call("test_tool_with_progress"),
    {"do": "level", "level": "debug"},
    logs(call("test_tool_with_logging")),
    call("test_error_handling"),
    asks(call("test_sampling", prompt="hi")),
    asks(call("test_elicitation", message="Who?")),
    asks(call("test_elicitation_sep1330_enums")),
    asks(call("test_roots")),
    rounds(call("test_input_required_result_elicitation"), "Hello, said!"),
    rounds(call("test_input_required_result_multi_round"), "said likes said."),
    rounds(call("test_input_required_result_multiple_inputs"), "All inputs received."),
    get("test_prompt_with_arguments", arg1="a", arg2="b"),
    get("test_prompt_with_image"),
    read("test://static-text"),
    read("test://static-binary"),
    read("test://template/7/data"),
    read("test://none"),
    complete("test_prompt_with_arguments", "arg1", "p"),
    {"do": "cancel", "name": "test_wait", "arguments": {"seconds": 20}},
    {"do": "subscribe", "uri": "test://watched-resource", "by": "test_trigger_resource_update"},
    {"do": "changed", "by": "test_trigger_tool_change"},
)

_EVERYTHING: tuple[Step, ...] = (
    *_LISTS,
    call("echo", message="gr\u00fc\u00dfe \U0001f600"),
    call("get-sum", a=2, b=40),
    call("get-tiny-image"),
    call("get-annotated-message", messageType="error", includeImage=True),
    call("get-structured-content", location="New York"),
    call("get-resource-links", count=3),
    call("trigger-long-running-operation", duration=0.6, steps=3),
    asks(call("trigger-sampling-request", prompt="hi", maxTokens=20)),
    asks(call("trigger-elicitation-request")),
    get("simple-prompt"),
    get("args-prompt", city="Bern", state="BE"),
    read(_DOCUMENT),
    read("demo://resource/none"),
    complete("completable-prompt", "department", "E"),
    {"do": "level", "level": "error"},
    {"do": "cancel", "name": "trigger-long-running-operation", "arguments": {"duration": 8, "steps": 40}},
)

_MEMORY: tuple[Step, ...] = (
    {"do": "tools"},
    call("search_nodes", query="nothing of this name"),
    call("create_entities", entities=[{"name": "{tag}", "entityType": "test", "observations": ["seen"]}]),
    call("add_observations", observations=[{"entityName": "{tag}", "contents": ["seen again"]}]),
    call("open_nodes", names=["{tag}"]),
    call("delete_entities", entityNames=["{tag}"]),
    call("open_nodes", names=["{tag}"]),
)

_FILES: tuple[Step, ...] = (
    {"do": "tools"},
    call("read_text_file", path="{folder}/kept.txt"),
    call("write_file", path="{folder}/{tag}.txt", content="written \u2713"),
    call("read_multiple_files", paths=["{folder}/{tag}.txt", "{folder}/none.txt"]),
    call("read_text_file", path="/etc/hostname"),
)

_FAST: tuple[Step, ...] = (
    *_LISTS,
    call("add", a=2, b=40),
    call("slowly", steps=3),
    logs(call("logging", text="line")),
    call("fail"),
    asks(call("ask")),
    get("greeting", name="Ada"),
    read("data://settings"),
    read("data://users/7"),
    read("data://none"),
)

SCRIPTS: Mapping[str, tuple[Step, ...]] = {
    "fixture": _FIXTURE,
    "modern only": tuple(step for step in _FIXTURE if "asks" not in step),
    "everything": _EVERYTHING,
    "memory": _MEMORY,
    "filesystem": _FILES,
    "fastmcp": _FAST,
}


def steps(script: Sequence[Step], done: frozenset[str], **values: str) -> list[dict[str, Any]]:
    """The steps that a client has words for, with `{tag}` and `{folder}` filled in."""
    return [_filled(dict(step), values) for step in script if step["do"] in done]


def _filled(value: Any, values: Mapping[str, str]) -> Any:
    if isinstance(value, str):
        for name, text in values.items():
            value = value.replace(f"{{{name}}}", text)
        return value
    if isinstance(value, dict):
        return {name: _filled(each, values) for name, each in value.items()}
    return [_filled(each, values) for each in value] if isinstance(value, list) else value
