# SPDX-License-Identifier: Apache-2.0
"""N4: a planted credential is in no answer, log, metric, journal, status or state file, whatever the server does with it.

The server here sends the credential back in every way it has: results, errors, progress, redirects, descriptions of tools.
"""

from __future__ import annotations

import base64
import json
import pathlib
import urllib.parse

import pytest
from tests import laptop
from tests.scenarios import recorder

SERVER = "tools/recorder"
CANARY = 'canary-8d1f"/Zq\\4477be'
"""With the characters that JSON and URLs spell in more than one way."""
REFLECTING = [tool for tool in recorder.TOOLS if tool.startswith("reflect")]
SPELLINGS = {
    CANARY, json.dumps(CANARY)[1:-1], CANARY.replace("/", "\\/"), urllib.parse.quote(CANARY, safe=""),
    json.dumps(json.dumps(CANARY))[2:-2], "".join(f"\\u{ord(each):04x}" for each in CANARY),
    base64.b64encode(CANARY.encode()).decode(), "canary-8d1f",
}  # fmt: skip


@pytest.fixture(scope="module")
def seen():
    with recorder.running() as found:
        found.description = "Lists with {secret}"
        yield found


@pytest.fixture(scope="module")
def home(tmp_path_factory, seen):
    folder = tmp_path_factory.mktemp("canary")
    secret = folder / "secret"
    secret.write_text(CANARY)
    credentials = [{"name": "token", "from": [{"anyone": True}], "file": {"path": str(secret)}}]
    gone = folder / "gone"
    lost = [{"name": "lost", "from": [{"anyone": True}], "file": {"path": str(gone)}}]
    files = {
        "all.yaml": laptop.documents(
            laptop.server(SERVER, seen.url, credentials=credentials, audit={"level": "Full"}),
            laptop.server("tools/lost", seen.url, credentials=lost),
            laptop.policy("outrider-system/p", SERVER, laptop.allow()),
            laptop.policy("outrider-system/q", "tools/lost", laptop.allow()),
        )
    }
    with laptop.running(folder, files) as made:
        yield made


def holds(content: bytes) -> list[str]:
    return [each for each in SPELLINGS if each.lower().encode() in content.lower()]


@pytest.mark.parametrize("server", [SERVER, ""], ids=["own endpoint", "merged endpoint"])
@pytest.mark.parametrize("tool", REFLECTING)
def test_a_server_that_sends_the_credential_back_is_relayed_without_it(home, seen, tool, server):
    name = tool if server else f"tools_recorder__{tool}"
    _, _, head = home.agent.request(server, name)
    params = {"name": name, "arguments": {}, "_meta": {"progressToken": "p"}}
    reply = home.agent.post(laptop.path(server), home.agent.body("tools/call", params), head)
    method, sent = seen.requests[-1]
    assert (method, sent["Authorization"]) == ("tools/call", f"Bearer {CANARY}")
    assert holds(reply.body) == []
    assert reply.status == 200
    assert reply.messages[-1]["id"] == 1
    if tool in ("reflect", "reflect_escaped", "reflect_error", "reflect_progress", "reflect_redirect"):
        assert b"[redacted]" in reply.body
    if tool == "reflect_progress":
        assert [each.get("method") for each in reply.messages] == ["notifications/progress", None]


def test_lists_and_kept_definitions_are_without_it(home):
    tools = home.agent.tools(SERVER)
    assert tools[0]["description"] == "Lists with Bearer [redacted]"
    assert holds(json.dumps(tools).encode()) == []
    kept = (home.state / "definitions.json").read_bytes()
    assert b"[redacted]" in kept
    assert holds(kept) == []


def refused(home) -> list[laptop.Reply]:
    """What the proxy says to those it does not serve: 401, 403, 404, 405, 400, 415."""
    agent = home.agent
    where, body, head = agent.request(SERVER, "echo")
    replies = [
        agent.post(where, body, head | {"Authorization": "Bearer wrong"}),
        agent.post(where, body, head | {"Host": "evil.example"}),
        agent.post("/no/such/thing", body, head),
        agent.post("/tools/absent/mcp", body, head),
        agent.post(where, b"[]", head),
        agent.post(where, body, head | {"Content-Type": "text/plain"}),
        agent.post(where, body, head | {"Mcp-Name": "other"}),
        agent.post(where, body, {**head, "MCP-Protocol-Version": "1999-01-01"}),
    ]
    assert [each.status for each in replies] == [401, 403, 404, 404, 400, 415, 400, 400]
    return replies


def test_refusals_pages_metrics_and_status_are_without_it(home):
    refused_call = home.agent.call("tools/lost", "echo")
    assert laptop.reason(refused_call) in ("CredentialUnavailable", "UpstreamUnreachable")
    told = [each.body for each in refused(home)]
    told += [home.admin(where).body for where in ("/metrics", "/healthz", "/readyz", "/other")]
    told.append(json.dumps(home.status()).encode())
    told.append(json.dumps(refused_call).encode())
    assert [found for each in told if (found := holds(each))] == []


def test_nothing_on_disk_holds_it_but_its_own_file(home):
    for tool in REFLECTING:
        home.agent.post(*home.agent.request(SERVER, tool))
    refused(home)
    home.proxy.stop()
    try:
        files = [each for each in home.folder.rglob("*") if each.is_file()]
        found = {str(each.relative_to(home.folder)): holds(each.read_bytes()) for each in files}
        assert "secret" in found
        assert {name for name, what in found.items() if what} == {"secret"}
        named = {pathlib.PurePath(name).name for name in found}
        assert {"proxy.log", "operator.log", "last-good.json", "definitions.json", "head.json"} <= named
        journal = b"".join(each.read_bytes() for each in home.journal.glob("*.seg"))
        assert b"[redacted]" in journal
    finally:
        home.start_proxy()


def test_the_proxys_own_tokens_are_in_their_own_files_only(home):
    # The client's and the control plane's: secrets too, though nobody lends them.
    for secret, holder in (
        (home.state / "agent-token", "proxy/agent-token"),
        (home.operator_state / "operator-token", "operator/operator-token"),
    ):
        value = secret.read_bytes().strip()
        files = [each for each in home.folder.rglob("*") if each.is_file()]
        assert {str(f.relative_to(home.folder)) for f in files if value in f.read_bytes()} == {holder}
        assert secret.stat().st_mode & 0o077 == 0


def test_every_log_line_is_one_json_object(home):
    for process in (home.proxy, home.operator):
        lines = process.text().splitlines()
        assert lines
        assert all(isinstance(json.loads(line), dict) for line in lines)
