# SPDX-License-Identifier: Apache-2.0
"""Our strings of MCP are those of the official SDK, and ours alone are outside what the spec reserves."""

from __future__ import annotations

import importlib.metadata
import pathlib
import re
import tomllib

import mcp_types
from mcp.shared import inbound
from mcp_types import jsonrpc, version

from outrider_sidecar import conventions

ROOT = pathlib.Path(__file__).resolve().parent.parent


def test_the_versions_are_those_of_the_sdk_but_for_the_one_without_this_transport() -> None:
    assert version.MODERN_PROTOCOL_VERSIONS == (conventions.MODERN,)
    assert ("2024-11-05", *conventions.LEGACY) == version.HANDSHAKE_PROTOCOL_VERSIONS
    assert conventions.LEGACY_WITHOUT_HEADER in conventions.LEGACY


def test_the_keys_of_meta_are_those_of_the_sdk() -> None:
    assert (
        conventions.META_VERSION,
        conventions.META_CAPABILITIES,
        conventions.META_CLIENT_INFO,
        conventions.META_SERVER_INFO,
    ) == (
        mcp_types.PROTOCOL_VERSION_META_KEY,
        mcp_types.CLIENT_CAPABILITIES_META_KEY,
        mcp_types.CLIENT_INFO_META_KEY,
        mcp_types.SERVER_INFO_META_KEY,
    )


def test_our_key_of_meta_has_a_prefix_that_nobody_reserved() -> None:
    prefix, _, name = conventions.META_REFUSAL.partition("/")
    assert name
    assert prefix.split(".")[1] not in ("modelcontextprotocol", "mcp")


def test_the_headers_are_those_of_the_sdk() -> None:
    assert (
        conventions.HEADER_VERSION.decode(),
        conventions.HEADER_METHOD.decode(),
        conventions.HEADER_NAME.decode(),
    ) == (
        inbound.MCP_PROTOCOL_VERSION_HEADER,
        inbound.MCP_METHOD_HEADER,
        inbound.MCP_NAME_HEADER,
    )


def test_every_header_is_lower_case() -> None:
    headers = [value for name, value in vars(conventions).items() if name.startswith("HEADER_")]
    headers = [value for value in headers if isinstance(value, bytes)]
    assert len(headers) == 7
    assert [value for value in headers if value != value.lower()] == []


def test_the_error_codes_are_those_of_the_sdk() -> None:
    assert (
        conventions.PARSE_ERROR,
        conventions.INVALID_REQUEST,
        conventions.METHOD_NOT_FOUND,
        conventions.INVALID_PARAMS,
        conventions.HEADER_MISMATCH,
        conventions.VERSION_UNSUPPORTED,
    ) == (
        jsonrpc.PARSE_ERROR,
        jsonrpc.INVALID_REQUEST,
        jsonrpc.METHOD_NOT_FOUND,
        jsonrpc.INVALID_PARAMS,
        jsonrpc.HEADER_MISMATCH,
        jsonrpc.UNSUPPORTED_PROTOCOL_VERSION,
    )


def test_our_own_codes_are_outside_every_reserved_range() -> None:
    ours = (conventions.FORBIDDEN, conventions.TOO_MANY, conventions.PAYMENT_REQUIRED)
    assert [code for code in ours if -32768 <= code <= -32000] == []
    assert len(set(ours)) == 3


def test_the_methods_are_methods_of_the_sdk() -> None:
    known = {value for value in _literals() if "/" in value or value in ("initialize", "ping")}
    ours = (
        conventions.INITIALIZE, conventions.INITIALIZED, conventions.CANCELLED, conventions.PROGRESS, conventions.PING,
        conventions.DISCOVER, conventions.LIST_TOOLS, conventions.CALL_TOOL,
    )  # fmt: skip
    assert [method for method in ours if method not in known] == []


def _literals() -> set[str]:
    source = pathlib.Path(mcp_types.__file__).with_name("_types.py").read_text()
    return set(re.findall(r'Literal\["([a-zA-Z/_]+)"\]', source))


def test_the_version_we_tell_servers_is_that_of_the_distribution() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert (project["name"], project["version"]) == (conventions.CLIENT_NAME, conventions.CLIENT_VERSION)


def test_the_trace_id_is_read_from_its_parent() -> None:
    parent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
    assert conventions.Trace(parent).id == "0af7651916cd43dd8448eb211c80319c"
    assert conventions.Trace().id == ""


def test_the_tests_run_against_the_sdk_of_both_eras() -> None:
    assert importlib.metadata.version("mcp").split(".")[0] == "2"
