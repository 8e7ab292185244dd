# SPDX-License-Identifier: Apache-2.0
"""People behind official clients, who answer what servers ask; and a proxy before a server that may ask everything.

For the scenarios about asks: `dual` and `stateless` are fixtures with a server of the conformance fixture.
"""

from __future__ import annotations

import asyncio
import contextlib
import pathlib
from collections.abc import AsyncIterator, Iterator
from typing import Any

import httpx2
import pytest
from mcp import types
from mcp.client import client as clients
from mcp.client import streamable_http
from tests import proxies
from tests.conformance import fixture

from outrider import budgets, snapshot, testing

EVERYTHING = snapshot.ClientFeatures(elicitation_form=True, sampling=True, roots=True)
EVERY_KIND = testing.allow("*", prompts=("*",), resources=("*",))
FORM_ONLY = {"_meta": {"io.modelcontextprotocol/clientCapabilities": {"elicitation": {}}}}
ONCE = (testing.a_limit(calls=1),)
ANSWERED = {"user_name": {"action": "accept", "content": {"name": "Ada"}}}
TOOL = "test_input_required_result_elicitation"


async def asked(world: proxies.World, tool: str = TOOL, **params: Any) -> proxies.Told:
    body = proxies.request("tools/call", {"name": tool, "arguments": {}, **FORM_ONLY, **params})
    return await world.ask(body)


def charged(world: proxies.World) -> int:
    (row,) = world.parts.ledger.standing(0)
    assert row.reserved == 0
    return row.spent // budgets.MICRO


@pytest.fixture(scope="module")
def dual(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with fixture.running(tmp_path_factory.mktemp("dual")) as url:
        yield url


@pytest.fixture(scope="module")
def stateless(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with fixture.running(tmp_path_factory.mktemp("stateless"), modern_only=True) as url:
        yield url


class Person:
    """Answers everything a server may ask, and keeps what it was asked."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, Any]] = []
        self.fails = False

    async def elicit(self, _: Any, params: Any) -> Any:
        self.asked.append(("elicitation/create", params))
        if self.fails:
            return types.ErrorData(code=-1, message="nobody is there")
        given = {"name": "Ada", "color": "blue", "ok": True, "response": "yes", "context": "c"}
        return types.ElicitResult(
            action="accept", content={key: given[key] for key in params.requested_schema["properties"]}
        )

    async def sample(self, _: Any, params: Any) -> Any:
        self.asked.append(("sampling/createMessage", params))
        said = types.TextContent(type="text", text="Paris")
        return types.CreateMessageResult(role="assistant", content=said, model="m")

    async def roots(self, _: Any) -> Any:
        self.asked.append(("roots/list", None))
        return types.ListRootsResult.model_validate({"roots": [{"uri": "file:///work", "name": "work"}]})


@contextlib.asynccontextmanager
async def client(url: str, person: Person, *, modern: bool, token: str = "") -> AsyncIterator[clients.Client]:
    headers = {"authorization": f"Bearer {token}"} if token else {}
    async with httpx2.AsyncClient(headers=headers, timeout=30, trust_env=False) as http:
        transport = streamable_http.streamable_http_client(url, http_client=http)
        callbacks = {
            "elicitation_callback": person.elicit, "sampling_callback": person.sample, "list_roots_callback": person.roots,
        }  # fmt: skip
        mode = "auto" if modern else "legacy"
        async with clients.Client(transport, mode=mode, **callbacks) as session:  # type: ignore[arg-type]
            yield session


@contextlib.asynccontextmanager
async def proxied(
    folder: pathlib.Path, url: str, *, features: snapshot.ClientFeatures = EVERYTHING, **view: Any
) -> AsyncIterator[proxies.World]:
    async with proxies.running(folder) as world:
        world.apply(proxies.a_view(None, EVERY_KIND, endpoint={"url": url}, features=features, **view))
        yield world


def through(world: proxies.World) -> str:
    return f"http://127.0.0.1:{world.door.port}{proxies.PATH}"


def text(result: Any) -> str:
    return str(result.content[0].text)


def run(scenario: Any) -> None:
    asyncio.run(asyncio.wait_for(scenario, 60))


def worded(person: Person) -> list[Any]:
    """What was asked but for `_meta`, where the proxy names the server."""
    return [
        None if params is None else params.model_dump(exclude={"meta"}, by_alias=True)
        for _, params in person.asked
    ]
