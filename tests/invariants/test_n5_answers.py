# SPDX-License-Identifier: Apache-2.0
"""N5, R23: an answer reaches nobody but its caller, however alike the requests are."""

from __future__ import annotations

import asyncio
import json

import aiohttp
import pytest
from tests import laptop
from tests.scenarios import crowds, recorder, servers

CLIENTS = 50
CALLS = 20
SERVER = "tools/recorder"


@pytest.fixture
def seen():
    with recorder.running() as found:
        yield found


def files(url, **more):
    return {
        "all.yaml": laptop.documents(
            laptop.server(SERVER, url, **more), laptop.policy("outrider-system/p", SERVER, laptop.allow())
        )
    }


def test_fifty_clients_with_equal_ids_never_get_each_others_answers(tmp_path, seen):
    async def client(home, number):
        async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=1)) as session:
            for call in range(CALLS):
                # The same tool and the same id as everybody else; only the argument is one's own.
                mine = {"token": f"{number}-{call}", "seconds": ((number * 7 + call * 13) % 10) / 1000}
                answer = await crowds.one(session, home.agent, SERVER, "slow", mine, 1)
                assert answer is not None
                assert answer["id"] == 1
                assert json.loads(laptop.text(answer["result"])) == mine

    async def all_of_them(home):
        await asyncio.gather(*(client(home, number) for number in range(CLIENTS)))

    with laptop.running(tmp_path, files(seen.url)) as home:
        asyncio.run(all_of_them(home))
    assert sorted(seen.tokens) == sorted(f"{n}-{c}" for n in range(CLIENTS) for c in range(CALLS))


def test_equal_requests_are_sent_once_each_and_ids_keep_their_types(tmp_path, seen):
    ids = [1, "1", 0, "", -7, 2**53, "0", "\u00fc"] * 25
    asked = [("echo", {"token": "same"}, id_) for id_ in ids]
    with laptop.running(tmp_path, files(seen.url)) as home:
        answers = asyncio.run(crowds.calls(home.agent, SERVER, asked, at_once=50))
    assert [(type(each["id"]), each["id"]) for each in answers] == [(type(id_), id_) for id_ in ids]
    assert seen.tokens == ["same"] * len(ids)


@pytest.mark.slow
def test_sessions_of_a_handshake_server_are_not_shared_between_sessions_of_agents(tmp_path):
    """Fifty sessions of the older era at once over a TypeScript server that keeps sessions."""

    async def client(home, number):
        head = {
            "Content-Type": "application/json", "Accept": "application/json, text/event-stream",
            "Authorization": f"Bearer {home.agent.token}",
        }  # fmt: skip
        url = f"http://127.0.0.1:{home.port}/tools/recorder/mcp"
        async with aiohttp.ClientSession(headers=head) as session:
            hello = {
                "protocolVersion": laptop.LEGACY,
                "capabilities": {},
                "clientInfo": {"name": "x", "version": "1"},
            }
            first = {"jsonrpc": "2.0", "id": 0, "method": "initialize", "params": hello}
            async with session.post(url, json=first) as answer:
                own = {
                    "Mcp-Session-Id": answer.headers["Mcp-Session-Id"],
                    "MCP-Protocol-Version": laptop.LEGACY,
                }
            for call in range(5):
                message = f"{number}-{call}"
                params = {"name": "echo", "arguments": {"message": message}}
                body = {"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": params}
                async with session.post(url, json=body, headers=own) as answer:
                    content = await answer.read()
                    kind = {"content-type": answer.content_type}
                found = laptop.Reply(200, kind, content).messages[-1]
                assert (found["id"], laptop.text(found["result"])) == (1, f"Echo: {message}")
            return own["Mcp-Session-Id"]

    async def all_of_them(home):
        return await asyncio.gather(*(client(home, number) for number in range(CLIENTS)))

    with servers.everything(tmp_path / "logs") as url, laptop.running(tmp_path, files(url)) as home:
        assert len(set(asyncio.run(all_of_them(home)))) == CLIENTS
