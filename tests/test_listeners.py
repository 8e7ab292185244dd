# SPDX-License-Identifier: Apache-2.0
"""Everything that listens, together: both eras at one proxy, and what is left when it goes."""

from __future__ import annotations

from tests import hearing_agents as hearing
from tests import proxies
from tests.servers import stages

TOOLS = "notifications/tools/list_changed"


def test_agents_of_both_eras_hear_of_one_change_through_one_stream():
    stage = hearing.a_stage("modern")

    async def scenario(world: proxies.World) -> None:
        await world.ask(proxies.request("tools/list"))
        session = await world.open_session()
        old = await hearing.get(world, session)
        new, _ = await hearing.listen(world, {"toolsListChanged": True})
        assert len(world.pipeline.listeners) == world.pipeline.streams == 2
        await stage.until(lambda: len(stage.listeners) == 1)
        stage.tools.append(stages.tool("new"))
        await stage.push(TOOLS)
        assert (await old.next())["method"] == (await new.next())["method"] == TOOLS

    hearing.run(scenario, stage)


def test_when_it_goes_nothing_is_listened_to_any_more():
    stage = hearing.a_stage("modern")

    async def scenario(world: proxies.World) -> None:
        new, _ = await hearing.listen(world, {"toolsListChanged": True})
        await world.pipeline.listeners.close()
        assert (await new.next())["result"]["resultType"] == "complete"
        await stage.until(lambda: not stage.listeners)
        assert len(world.pipeline.listeners) == 0

    hearing.run(scenario, stage)
