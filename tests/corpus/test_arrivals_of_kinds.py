# SPDX-License-Identifier: Apache-2.0
"""R6, R8, R10, R24 for prompts, resources and completions: what arrives, what looks unknown, and how long that takes to say."""

from __future__ import annotations

import asyncio
import json
import pathlib
import random
import statistics
import time
from typing import Any

import pytest
from tests import proxies
from tests.corpus import arena
from tests.servers import stages, witness

from outrider import testing

CASES = json.loads((pathlib.Path(__file__).parent / "kinds.json").read_bytes())["cases"]
NOBODY = {
    "tools/call": {"name": "@zzz"},
    "prompts/get": {"name": "@zzz"},
    "resources/read": {"uri": "note://zzz"},
    "completion/complete": {
        "ref": {"type": "ref/prompt", "name": "@zzz"},
        "argument": {"name": "who", "value": "a"},
    },
}
"""What nobody has, for every method: whatever is unknown is answered like this."""
everywhere = pytest.mark.parametrize("path", arena.ENDPOINTS.values(), ids=arena.ENDPOINTS)
in_both_eras = pytest.mark.parametrize("era", arena.ERAS)
upstream_of = pytest.mark.parametrize("upstream", ["modern", "legacy"], ids=lambda era: f"{era}-server")


def a_stage(era: str = "dual") -> stages.Stage:
    return stages.Stage(
        era,
        tools=[stages.tool("query"), stages.tool("drop")],
        prompts=[stages.prompt(name) for name in ("greet", "greet me, \u00fc!", "greet_secret", "other")],
        resources=[stages.resource("note://open/a"), stages.resource("note://open/private/x")],
        templates=[stages.template("note://open/{id}"), stages.template("note://open/private/{id}")],
    )


def run(scenario: Any, stage: stages.Stage) -> None:
    rules = (
        testing.allow("query", prompts=("greet*",), resources=("note://open/*",)),
        testing.deny("drop", prompts=("greet_secret",), resources=("note://open/private/*",)),
    )

    async def main() -> None:
        async with arena.open_to(*rules, stage=stage) as made:
            await scenario(made)

    asyncio.run(asyncio.wait_for(main(), 60))


def members(params: dict[str, Any], path: str) -> str:
    alias = arena.ALIAS if path == "/mcp" else ""
    return json.dumps(params).replace('"@', f'"{alias}')[1:-1]


async def ask(it: arena.Arena, method: str, params: dict[str, Any], *, path: str, era: str) -> proxies.Told:
    return await it.post(arena.message(method, members(params, path), era=era), path=path, era=era)


def shape(told: proxies.Told) -> Any:
    """An answer without the name that was asked for, and without what differs from request to request."""
    read = json.loads(json.dumps(told.last))
    error, result = read.get("error", {}), read.get("result", {})
    if "message" in error:
        error["message"] = error["message"].partition(": ")[0]
    for part in result.get("content", ()):
        part["text"] = part["text"].partition(": ")[0]
    for holder in (error.get("data", {}), result.get("_meta", {})):
        holder.pop("uri", None)
        holder.get("dev.outrider/refusal", {}).pop("requestId", None)
    return told.status, {name for name in told.headers if name != "date"}, read


@everywhere
@in_both_eras
@upstream_of
def test_what_arrives_and_what_looks_unknown_is_as_in_the_table(path: str, era: str, upstream: str) -> None:
    async def scenario(it: arena.Arena) -> None:
        differ = []
        nobody = {
            method: shape(await ask(it, method, params, path=path, era=era))
            for method, params in NOBODY.items()
        }
        assert it.asked_for == []
        for case in CASES:
            if path == "/mcp" and case.get("own_only"):
                continue
            told = await ask(it, case["method"], case["params"], path=path, era=era)
            arrived = it.asked_for
            if case["expect"] == "arrives":
                differ += [(case["what"], said) for said in wrong(case, told, arrived)]
                continue
            if arrived:
                differ.append((case["what"], f"arrived: {arrived[0].raw!r}"))
            if case["expect"] == "unknown" and told.status == 200:
                if (found := shape(told)) != nobody[case["method"]]:
                    differ.append((case["what"], f"{found} is not as {nobody[case['method']]}"))
            elif case["expect"] == "unknown" and era == "legacy":
                differ.append((case["what"], f"{told.status} {told.body!r}"))
        assert not differ, "\n".join(f"{what}: {said}" for what, said in differ)

    run(scenario, a_stage(upstream))


def wrong(case: dict[str, Any], told: proxies.Told, arrived: list[stages.Heard]) -> list[str]:
    """What differs from a relayed request."""
    if len(arrived) != 1 or "result" not in told.last:
        return [f"{len(arrived)} arrived, answered {told.status} {told.body!r}"]
    [heard] = arrived
    found = []
    for reader, body in witness.readings(heard.raw).items():
        params = body["params"]
        ref = params.get("ref", params)
        named = (
            ref.get("uri")
            if case["method"] == "resources/read" or ref.get("type") == "ref/resource"
            else ref.get("name")
        )
        if (body["method"], named) != (case["method"], case["name"]):
            found.append(f"{reader} reads {body['method']} of {named!r}")
    found += [f"{text!r} arrived" for text in case.get("never", ()) if text.encode() in heard.raw]
    return found


@in_both_eras
def test_hidden_and_nonexistent_take_equally_long_to_be_unknown(era: str) -> None:
    """R24, timing class: neither takes twice as long as the other, in any order, and no server is asked for either."""
    chance = random.Random(1)
    pairs = [
        ("tools/call", {"name": "drop"}, {"name": "dropp"}),
        ("prompts/get", {"name": "greet_secret"}, {"name": "greet_secrets"}),
        ("resources/read", {"uri": "note://open/private/x"}, {"uri": "note://secret/private/x"}),
    ]

    async def scenario(it: arena.Arena) -> None:
        for method, *both in pairs:
            took: list[list[float]] = [[], []]
            for _ in range(80):
                for at, params in chance.sample(
                    list(enumerate(both)), 2
                ):  # or one of them would always come first
                    began = time.perf_counter()
                    await ask(it, method, params, path=proxies.PATH, era=era)
                    took[at].append(time.perf_counter() - began)
            hidden, nowhere = (statistics.quantiles(each, n=10)[1] for each in took)  # the machine is shared
            assert 0.5 < hidden / nowhere < 2, (method, hidden, nowhere)
        assert it.asked_for == []

    run(scenario, a_stage())
