# SPDX-License-Identifier: Apache-2.0
"""R7, R8, R10: the corpus against a whole proxy, at both endpoints, in both eras, with the arrived bytes read four ways."""

from __future__ import annotations

import asyncio
import json
import pathlib
from typing import Any

import pytest
from tests import proxies
from tests.corpus import arena
from tests.servers import stages, witness

from outrider import testing

HERE = pathlib.Path(__file__).parent
BODIES = json.loads((HERE / "bodies.json").read_bytes())["hostile"]
CALLS = json.loads((HERE / "calls.json").read_bytes())["cases"]
HEADS = json.loads((HERE / "heads.json").read_bytes())
everywhere = pytest.mark.parametrize("path", arena.ENDPOINTS.values(), ids=arena.ENDPOINTS)
in_both_eras = pytest.mark.parametrize("era", arena.ERAS)
upstream_of = pytest.mark.parametrize("upstream", ["modern", "legacy"], ids=lambda era: f"{era}-server")


def a_stage(era: str = "dual") -> stages.Stage:
    return stages.Stage(era, tools=[stages.tool(name) for name in ("query", "a", "drop")])


def run(scenario: Any, stage: stages.Stage) -> None:
    async def main() -> None:
        async with arena.open_to(testing.allow("query", "a"), stage=stage) as made:
            await scenario(made)

    asyncio.run(asyncio.wait_for(main(), 60))


@everywhere
@in_both_eras
def test_no_hostile_body_makes_anything_arrive_and_each_is_refused_and_recorded(path: str, era: str) -> None:
    async def scenario(it: arena.Arena) -> None:
        differ = []
        for case in BODIES:
            body = case["body"].encode("latin-1") * case.get("times", 1)
            before = len(it.world.refusals)
            told = await it.post(body, path=path, era=era)
            got = (told.status, told.last["error"]["code"], told.last["id"])
            if got != (case["status"], case["code"], case.get("id")):
                differ.append((case["what"], got))
            recorded = [each.reason for each in it.world.refusals[before:]]
            if recorded != ["MalformedRequest"]:
                differ.append((case["what"], recorded))
        assert differ == []
        assert it.asked_for == []
        told = await it.post(
            arena.message("tools/call", call_of(CALLS[0], path), era=era), path=path, era=era
        )
        assert "isError" not in told.result, "and the same agent goes on"

    run(scenario, a_stage())


def call_of(case: dict[str, Any], path: str) -> str:
    return str(case["params"]).replace("@", arena.ALIAS if path == "/mcp" else "")


@everywhere
@in_both_eras
@upstream_of
def test_what_arrives_is_what_was_decided_about_for_every_reader(path: str, era: str, upstream: str) -> None:
    async def scenario(it: arena.Arena) -> None:
        for case in CALLS:
            told = await it.post(
                arena.message("tools/call", call_of(case, path), era=era), path=path, era=era
            )
            assert told.status == 200, (case["what"], told)
            [arrived] = it.asked_for
            for reader, body in witness.readings(arrived.raw).items():
                params = body["params"]
                assert (body["method"], params["name"]) == ("tools/call", case["name"]), (
                    case["what"],
                    reader,
                )
                expected = case.get("arguments")
                if expected is not None:
                    wanted = witness.folded(expected) if reader == "careless" else expected
                    assert params.get("arguments") == wanted, (case["what"], reader)
                elif "raw" not in case:
                    assert not params.get("arguments"), (case["what"], reader)
                assert not set(params) & set(case.get("never", ())), (case["what"], reader)
            if "raw" in case:
                assert case["raw"].encode() in arrived.raw, case["what"]

    run(scenario, a_stage(upstream))


@everywhere
@pytest.mark.parametrize("case", HEADS["cases"], ids=lambda case: str(case["what"]))
def test_a_head_of_the_corpus_makes_arrive_what_the_table_says(case: dict[str, Any], path: str) -> None:
    async def scenario(it: arena.Arena) -> None:
        base = {**HEADS["bases"][case["base"]], **case.get("set", {})}
        for name in case.get("drop", ()):
            del base[name]
        body = json.dumps(HEADS["bodies"][case["body"]]).encode()
        pairs = [*base.items(), *case.get("add", {}).items()]
        told = await (await _raw(it.world, path, pairs, body)).answer()
        if "era" in case:
            assert told.status in (200, 202)
            return
        assert it.asked_for == []
        if "at_the_door" in case:
            assert (told.status, told.body.decode()) == (400, case["at_the_door"])
            return
        assert told.status == case["status"]
        assert told.last["error"]["code"] == case["code"]

    run(scenario, a_stage())


async def _raw(world: proxies.World, path: str, pairs: list[tuple[str, str]], body: bytes) -> proxies.Asking:
    """A POST with these header lines in this order, a name twice if it is there twice."""
    reader, writer = await asyncio.open_connection("127.0.0.1", world.door.port)
    fixed = [("host", "localhost"), ("authorization", f"Bearer {proxies.TOKEN.decode()}")]
    lines = "".join(f"{k}: {v}\r\n" for k, v in (*fixed, *pairs, ("content-length", str(len(body)))))
    writer.write(f"POST {path} HTTP/1.1\r\n{lines}\r\n".encode("latin-1") + body)
    return proxies.Asking(reader, writer)
