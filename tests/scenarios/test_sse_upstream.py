# SPDX-License-Identifier: Apache-2.0
"""Official servers of HTTP+SSE behind the proxy, for official clients that do not know the transport any more."""

from __future__ import annotations

import contextlib
import dataclasses

import pytest
from tests import laptop
from tests.scenarios import agents, sse_servers

pytestmark = pytest.mark.slow


@dataclasses.dataclass(frozen=True, slots=True)
class World:
    laptop: laptop.Laptop

    def visit(self, client, name, *calls):
        agent = self.laptop.agent
        url = f"http://127.0.0.1:{agent.port}{laptop.path(f'tools/{name}')}"
        return agents.visit(client, url, {"Authorization": f"Bearer {agent.token}"}, calls)


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    folder = tmp_path_factory.mktemp("sse")
    with contextlib.ExitStack() as stack:
        urls = {
            "everything": stack.enter_context(sse_servers.everything(folder / "logs")),
            "older": stack.enter_context(sse_servers.older(folder / "logs")),
        }
        documents = []
        for name, url in urls.items():
            documents.append(laptop.server(f"tools/{name}", url, endpoint={"transport": "SSE"}))
            documents.append(laptop.policy(f"outrider-system/{name}", f"tools/{name}", laptop.allow()))
        files = {"all.yaml": laptop.documents(*documents)}
        yield World(stack.enter_context(laptop.running(folder, files)))


def words(call):
    return [part["text"] for part in call["result"]["content"]]


@pytest.mark.parametrize("client", agents.CLIENTS)
def test_a_server_on_the_python_sdk_is_listed_called_and_heard(world, client):
    told = world.visit(client, "older", ("add", {"a": 2, "b": 40}), ("count", {"to": 3}), ("fails", {}))
    assert {"add", "count", "fails", "more"} <= {tool["name"] for tool in told["tools"]}
    added, counted, failed = told["calls"]
    assert words(added) == ["42"]
    assert words(counted) == ["counted to 3"]
    assert [(each["done"], each["total"]) for each in counted["progress"]] == [(1, 3), (2, 3), (3, 3)]
    assert failed["result"]["isError"]
    assert "no such deal" in words(failed)[0]


@pytest.mark.parametrize("client", agents.CLIENTS)
def test_server_everything_is_listed_called_and_heard(world, client):
    slow = ("trigger-long-running-operation", {"duration": 0.4, "steps": 4})
    told = world.visit(client, "everything", ("echo", {"message": "grüße"}), slow)
    assert {"echo", "get-sum"} <= {tool["name"] for tool in told["tools"]}
    echoed, ran = told["calls"]
    assert words(echoed) == ["Echo: grüße"]
    assert [each["done"] for each in ran["progress"]] == [1, 2, 3, 4]
