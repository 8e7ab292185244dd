# SPDX-License-Identifier: Apache-2.0
"""Where calls never go: redirects are not followed (R16), and addresses that are never dialled are not dialled (R15)."""

from __future__ import annotations

import pytest
from tests import laptop
from tests.scenarios import recorder

SERVER = "tools/recorder"
REFUSED = {
    "metadata": "http://169.254.169.254/latest/meta-data",
    "link-local": "http://169.254.10.10:8000/mcp",
    "mapped": "http://[::ffff:169.254.169.254]/mcp",
    "nat64": "http://[64:ff9b::a9fe:a9fe]/mcp",
    "link-local-v6": "http://[fe80::1]:8000/mcp",
    "aws-v6": "http://[fd00:ec2::254]/mcp",
    "unspecified": "http://0.0.0.0:8000/mcp",
    "private": "http://10.1.2.3:8000/mcp",
    "broadcast": "http://255.255.255.255/mcp",
}


@pytest.fixture(scope="module")
def seen():
    with recorder.running() as found:
        yield found


@pytest.fixture(scope="module")
def home(tmp_path_factory, seen):
    documents = [
        laptop.server(SERVER, seen.url),
        laptop.policy("outrider-system/p", SERVER, laptop.allow()),
    ]
    for name, url in REFUSED.items():
        documents.append(laptop.server(f"far/{name}", url))
        documents.append(laptop.policy(f"outrider-system/{name}", f"far/{name}", laptop.allow()))
    files = {"all.yaml": laptop.documents(*documents)}
    with laptop.running(tmp_path_factory.mktemp("upstreams"), files) as made:
        yield made


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
@pytest.mark.parametrize("far", [False, True], ids=["same origin", "another origin"])
def test_a_redirect_is_never_followed_and_its_path_is_told(home, seen, status, far):
    to = f"http://localhost:{seen.port}/elsewhere/{status}?q=1" if far else f"/elsewhere/{status}?q=1"
    result = home.agent.call(SERVER, "redirect", {"status": status, "to": to})
    assert laptop.reason(result) == "UpstreamRedirects"
    assert f"/elsewhere/{status}" in laptop.text(result)
    assert "q=1" not in laptop.text(result)
    assert seen.elsewhere == []


@pytest.mark.parametrize("name", REFUSED)
def test_an_address_that_is_never_dialled_is_refused_before_anything_is_sent(home, name):
    reply = home.agent.post(*home.agent.request(f"far/{name}", "anything"))
    lines = [line for line in home.proxy.text().splitlines() if f'"far/{name}"' in line]
    assert any("UpstreamAddressRefused" in line for line in lines), lines
    assert reply.status == 200
    assert reply.result["isError"]
    assert laptop.reason(reply.result).startswith("Upstream")
    assert "169.254" not in laptop.text(reply.result)


def test_servers_that_cannot_be_reached_never_empty_the_merged_list(home):
    names = {tool["name"] for tool in home.agent.tools("")}
    assert names == {f"tools_recorder__{tool}" for tool in recorder.TOOLS}
