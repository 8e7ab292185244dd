# SPDX-License-Identifier: Apache-2.0
"""Field bug 20, and 18 again: everything that is listed is served, at both endpoints, and nothing else is."""

from __future__ import annotations

import json

from tests import proxies
from tests.field_bugs import ground
from tests.servers import stages

from outrider import testing

OPEN, CLOSED = "note://open/a", "note://closed/a"


def a_stage(era: str, label: str = "stage") -> stages.Stage:
    return stages.Stage(
        era,
        label=label,
        tools=[stages.tool("query")],
        prompts=[stages.prompt("greet", title="kept", _meta={"x": 1}), stages.prompt("secret")],
        resources=[stages.resource(OPEN, size=3, annotations={"priority": 0.50}), stages.resource(CLOSED)],
        templates=[stages.template("note://open/{id}"), stages.template("note://closed/{id}")],
    )


CHOSEN = (testing.allow("query", prompts=("greet",), resources=("note://open/*",)),)


@ground.both_agents
@ground.both_servers
def test_bug_20_resources_are_listed_read_and_completed_at_their_servers_endpoint(
    modern: bool, era: str
) -> None:
    """agentgateway/agentgateway#1582: resources/read was "unsupported with multiplexing"."""

    async def scenario(world: proxies.World, stage: stages.Stage) -> None:
        options = await ground.agent(world, modern=modern)
        listed = await ground.drained(world, "resources/list", "resources", **options)
        assert listed == [stage.resources[0]]
        templates = await ground.drained(world, "resources/templates/list", "resourceTemplates", **options)
        assert [each["uriTemplate"] for each in templates] == ["note://open/{id}"]
        for uri in (OPEN, "note://open/unlisted"):
            told = await world.ask(proxies.request("resources/read", {"uri": uri}), mcp_name=uri, **options)
            assert told.result["contents"][0]["uri"] == uri
        ref = {
            "ref": {"type": "ref/resource", "uri": "note://open/{id}"},
            "argument": {"name": "id", "value": "a"},
        }
        told = await world.ask(proxies.request("completion/complete", ref), **options)
        assert told.result["completion"]["values"] == ["stage"]

    ground.run(scenario, a_stage(era), chosen=CHOSEN)


@ground.both_agents
@ground.both_servers
@ground.both_endpoints
def test_bug_20_prompts_that_are_listed_are_served(modern: bool, era: str, path: str) -> None:
    """agentgateway/agentgateway#1850 (missing), stacklok/toolhive PR 5857 (listed but not served)."""

    async def scenario(world: proxies.World, one: stages.Stage, two: stages.Stage) -> None:
        options = await ground.agent(world, modern=modern, path=path)
        listed = await ground.drained(world, "prompts/list", "prompts", **options)
        shown = (
            {"name": "api__greet", "other": "other__greet"} if path == ground.MERGED else {"name": "greet"}
        )
        assert [each["name"] for each in listed] == list(shown.values())
        assert {**listed[0], "name": "greet"} == one.prompts[0]
        for name in shown.values():
            body = proxies.request("prompts/get", {"name": name, "arguments": {"who": "x"}})
            told = await world.ask(body, mcp_name=name, **options)
            words = json.loads(told.result["messages"][0]["content"]["text"])
            label = "two" if name.startswith("other") else "one"
            assert words == {"by": label, "name": "greet", "arguments": {"who": "x"}}
            ref = {"ref": {"type": "ref/prompt", "name": name}, "argument": {"name": "who", "value": "a"}}
            told = await world.ask(proxies.request("completion/complete", ref), **options)
            assert told.result["completion"]["values"] == [label]

    ground.run(scenario, a_stage(era, "one"), a_stage(era, "two"), chosen=CHOSEN)


@ground.both_agents
@ground.both_endpoints
def test_bug_20_what_is_said_to_be_offered_is_offered(modern: bool, path: str) -> None:
    """The same bugs, in capabilities: a client asks for no more than it was told of, and gets all of that."""

    async def scenario(world: proxies.World, stage: stages.Stage) -> None:
        options = await ground.agent(world, modern=modern, path=path)
        if modern:
            said = (await world.ask(proxies.request("server/discover"), **options)).result["capabilities"]
        else:
            info = {
                "protocolVersion": "2025-11-25",
                "capabilities": {},
                "clientInfo": {"name": "t", "version": "1"},
            }
            said = (await world.ask(proxies.request("initialize", info), **options)).result["capabilities"]
        expected = {"tools", "prompts", "completions"} | ({"resources"} if path != ground.MERGED else set())
        assert expected <= set(said)
        assert not {"tasks", "experimental"} & set(said)
        for kind in ("tools", "prompts", "resources"):
            told = await world.ask(proxies.request(f"{kind}/list"), **options)
            assert ("result" in told.last) == (kind in said or kind == "resources"), (kind, told)

    ground.run(scenario, a_stage("dual"), chosen=CHOSEN)
