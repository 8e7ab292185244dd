# SPDX-License-Identifier: Apache-2.0
"""Telling the operator: what is new, whole only when asked, again when somebody new listens, and never in the way."""

from __future__ import annotations

import asyncio
import dataclasses
import json
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from outrider import call, catalog, fingerprints, names, reports, testing, wire
from outrider_operator import sightings
from outrider_sidecar import introductions, telling

CRM = names.ServerId("crm", "salesforce")
WHO = introductions.Introduction("sf", "1.9", ("2025-11-25",))
PROBER = sightings.Reporter("p", "s/prober", prober=True)


class Operator:
    """The operator's own store behind bytes; `away` makes it answer with that status."""

    def __init__(self) -> None:
        self.store = sightings.Sightings(lambda server: True)
        self.taken: list[reports.Report] = []
        self.away = 0
        self.again: list[names.ServerId] = []
        self.pace = telling.Pace(0.0, 1000.0)

    async def post(self, body: bytes) -> tuple[int, bytes]:
        if self.away == -1:
            raise ConnectionRefusedError("refused")
        if self.away:
            return self.away, b'{"error": "no"}'
        self.taken.append(reports.decode(body))
        return 200, self.store.received(PROBER, body, now=1000.0)

    def told(self) -> list[tuple[str, bool]]:
        """(server, with its tools) of everything taken, in order."""
        return [(seen.server, seen.tools is not None) for report in self.taken for seen in report.servers]

    async def until(self, condition: Callable[[], bool]) -> None:
        async with asyncio.timeout(10):
            while not condition():
                await asyncio.sleep(0.005)


Scenario = Callable[[Operator, telling.Telling], Awaitable[None]]


def run(scenario: Scenario, pace: telling.Pace | None = None) -> None:
    async def whole() -> None:
        operator = Operator()
        loop = asyncio.get_running_loop()
        made = telling.Telling(
            operator.post, pace or operator.pace, clock=loop.time, jitter=lambda: 0.5, again=operator.again.append
        )  # fmt: skip
        task = loop.create_task(made.run())
        try:
            await scenario(operator, made)
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    asyncio.run(whole())


def test_a_list_is_told_by_its_digest_and_whole_when_it_is_asked_for() -> None:
    async def scenario(operator: Operator, made: telling.Telling) -> None:
        await made.listed(CRM, testing.tools("a", "b"), WHO)
        await operator.until(lambda: CRM in operator.store.seen())
        assert operator.told() == [("crm/salesforce", False), ("crm/salesforce", True)]
        seen = operator.store.seen()[CRM]
        raws = {tool.name: tool.raw for tool in testing.tools("a", "b").tools}
        assert dict(seen.tools) == {name: fingerprints.of(raw) for name, raw in raws.items()}
        assert (seen.server_info, seen.protocol_versions) == (
            {"name": "sf", "version": "1.9"},
            ("2025-11-25",),
        )

    run(scenario)


def test_the_same_list_again_is_no_news_unless_it_is_the_catalogues() -> None:
    async def scenario(operator: Operator, made: telling.Telling) -> None:
        await made.listed(CRM, testing.tools("a"), WHO)
        await operator.until(lambda: len(operator.told()) == 2)
        await made.listed(CRM, testing.tools("a"), WHO)
        await asyncio.sleep(0.05)
        assert len(operator.told()) == 2
        await made.listed(CRM, testing.tools("a"), WHO, always=True)
        await operator.until(lambda: len(operator.told()) == 3)
        await made.listed(CRM, testing.tools("a", "b"), WHO)
        await operator.until(lambda: len(operator.told()) == 5)

    run(scenario)


def test_a_failure_is_told_in_its_words_and_so_is_that_it_is_over() -> None:
    async def scenario(operator: Operator, made: telling.Telling) -> None:
        await made.listed(CRM, testing.tools("a"), WHO)
        await operator.until(lambda: CRM in operator.store.seen())
        made.failed(CRM, "It refuses connections.")
        await operator.until(lambda: operator.store.seen()[CRM].reachable is False)
        assert operator.store.seen()[CRM].message.startswith("It refuses connections")
        await made.listed(CRM, testing.tools("a"), WHO)
        await operator.until(lambda: operator.store.seen()[CRM].reachable is True)

    run(scenario)


@pytest.mark.parametrize("away", [503, 401, -1])
def test_nothing_is_lost_while_the_operator_is_away_and_only_the_first_failure_is_logged(
    away: int, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(telling, "_BACKOFF_SECONDS", 0.001)

    async def scenario(operator: Operator, made: telling.Telling) -> None:
        operator.away = away
        await made.listed(CRM, testing.tools("a"), WHO)
        await asyncio.sleep(0.1)
        operator.away = 0
        await operator.until(lambda: CRM in operator.store.seen())

    run(scenario)
    assert caplog.text.count("could not be told") == 1


def test_an_operator_that_takes_no_reports_is_left_in_peace(caplog: pytest.LogCaptureFixture) -> None:
    async def scenario(operator: Operator, made: telling.Telling) -> None:
        operator.away = 404
        await made.listed(CRM, testing.tools("a"), WHO)
        await asyncio.sleep(0.05)

    run(scenario)
    assert caplog.text == ""


def test_whoever_listens_anew_is_told_everything_that_is_still_there() -> None:
    async def scenario(operator: Operator, made: telling.Telling) -> None:
        other = names.ServerId("crm", "other")
        await made.listed(CRM, testing.tools("a"), WHO)
        await made.listed(other, testing.tools("b"), WHO)
        await operator.until(lambda: len(operator.store.seen()) == 2)
        made.keep([CRM])
        operator.store = sightings.Sightings(lambda server: True)
        made.repeat()
        await operator.until(lambda: CRM in operator.store.seen())
        assert other not in operator.store.seen()

    run(scenario)


def test_everything_is_said_again_now_and_then() -> None:
    async def scenario(operator: Operator, made: telling.Telling) -> None:
        await made.listed(CRM, testing.tools("a"), WHO)
        await operator.until(lambda: len(operator.told()) >= 4)
        assert operator.told()[2:4] == [("crm/salesforce", False)] * 2

    run(scenario, telling.Pace(0.0, 0.05))


def test_many_servers_are_told_in_several_reports() -> None:
    async def scenario(operator: Operator, made: telling.Telling) -> None:
        for number in range(1_200):
            await made.listed(names.ServerId("crm", f"s{number}"), testing.tools(f"t{number}"), WHO)
        await operator.until(lambda: len(operator.store.seen()) == 1_200)
        assert all(len(report.servers) <= reports.SERVERS_MAX for report in operator.taken)

    run(scenario)


def test_a_list_that_is_not_held_is_fetched_again_when_it_is_asked_for(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(telling, "TOOLS_HELD_MAX", 1)

    async def scenario(operator: Operator, made: telling.Telling) -> None:
        await made.listed(CRM, testing.tools("a", "b"), WHO)
        await operator.until(lambda: operator.again == [CRM])
        assert CRM not in operator.store.seen()
        await made.listed(CRM, testing.tools("a", "b"), WHO)
        await operator.until(lambda: CRM in operator.store.seen())
        await made.listed(CRM, testing.tools("a", "b"), WHO, always=True)
        await asyncio.sleep(0.05)
        assert operator.again == [CRM]

    run(scenario)


def test_ten_thousand_tools_do_not_stop_the_loop() -> None:
    async def scenario(operator: Operator, made: telling.Telling) -> None:
        longest, loop = 0.0, asyncio.get_running_loop()

        async def watch() -> None:
            nonlocal longest
            while True:
                began = loop.time()
                await asyncio.sleep(0)
                longest = max(longest, loop.time() - began)

        watching = loop.create_task(watch())
        await made.listed(CRM, testing.tools(*(f"tool-{number}" for number in range(3_000))), WHO)
        watching.cancel()
        assert longest < 0.2

    run(scenario)


def test_an_answer_that_cannot_be_read_is_tried_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(telling, "_BACKOFF_SECONDS", 0.001)

    async def whole() -> None:
        answers = [b"<html>", reports.encode(reports.Wanted())]
        posted: list[bytes] = []

        async def post(body: bytes) -> tuple[int, bytes]:
            posted.append(body)
            return 200, answers[min(len(posted), 2) - 1]

        made = telling.Telling(
            post, telling.Pace(0.0, 1000.0), clock=asyncio.get_running_loop().time, jitter=lambda: 0.0
        )
        await made.listed(CRM, testing.tools("a"), WHO)
        task = asyncio.get_running_loop().create_task(made.run())
        async with asyncio.timeout(5):
            while len(posted) < 2:
                await asyncio.sleep(0.005)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)

    asyncio.run(whole())
    with pytest.raises(wire.WireError):
        reports.decode_wanted(b"<html>")


def with_prompts(*prompt_names: str, **more: Any) -> catalog.Definitions:
    raws = [json.dumps({"name": name}).encode() for name in prompt_names]
    return dataclasses.replace(
        testing.tools("a"), prompts=catalog.definitions((), prompts=raws).prompts, **more
    )


def test_prompts_and_instructions_are_told_by_their_fingerprints() -> None:
    async def scenario(operator: Operator, made: telling.Telling) -> None:
        who = dataclasses.replace(WHO, instructions="Use a first.")
        await made.listed(CRM, with_prompts("say hello", "bye"), who)
        await operator.until(lambda: CRM in operator.store.seen())
        seen = operator.store.seen()[CRM]
        assert [name for name, _ in seen.prompts] == ["bye", "say hello"]
        assert dict(seen.prompts)["bye"] == fingerprints.of(b'{"name":"bye"}')
        assert seen.prompt_count == 2
        assert seen.instructions == fingerprints.of(b'"Use a first."')
        told = len(operator.told())
        await made.listed(CRM, with_prompts("say hello", "bye"), who)
        await asyncio.sleep(0.05)
        assert len(operator.told()) == told
        await made.listed(CRM, with_prompts("say hello", "bye"), WHO)
        await operator.until(lambda: operator.store.seen()[CRM].instructions == "")
        await made.listed(CRM, with_prompts("bye"), WHO)
        await operator.until(lambda: operator.store.seen()[CRM].prompt_count == 1)

    run(scenario)


def test_prompts_that_could_not_be_listed_are_those_that_were_listed_last() -> None:
    async def scenario(operator: Operator, made: telling.Telling) -> None:
        await made.listed(CRM, with_prompts("hi"), WHO)
        await operator.until(lambda: CRM in operator.store.seen())
        unobserved = frozenset({call.Kind.PROMPT})
        await made.listed(CRM, with_prompts(unobserved=unobserved), WHO, always=True)
        await operator.until(lambda: operator.taken[-1].servers[-1].prompts is None)
        assert [name for name, _ in operator.store.seen()[CRM].prompts] == ["hi"]
        await made.listed(CRM, with_prompts(), WHO, always=True)
        await operator.until(lambda: operator.store.seen()[CRM].prompts == ())

    run(scenario)


def test_of_very_many_prompts_the_first_by_name_are_told_and_all_are_counted() -> None:
    async def scenario(operator: Operator, made: telling.Telling) -> None:
        await made.listed(CRM, with_prompts(*(f"p{n:04}" for n in range(2000, 0, -1))), WHO)
        await operator.until(lambda: CRM in operator.store.seen())
        seen = operator.store.seen()[CRM]
        assert (len(seen.prompts), seen.prompt_count) == (reports.PROMPTS_MAX, 2000)
        assert seen.prompts[0][0] == "p0001"

    run(scenario)


def with_resources(*uris: str, templates: tuple[str, ...] = (), **more: Any) -> catalog.Definitions:
    raws = [json.dumps({"uri": uri, "name": uri}).encode() for uri in uris]
    forms = [json.dumps({"uriTemplate": text, "name": text}).encode() for text in templates]
    made = catalog.definitions((), resources=raws, templates=forms)
    return dataclasses.replace(testing.tools("a"), resources=made.resources, templates=made.templates, **more)


def test_resources_and_templates_are_told_by_one_fingerprint_which_any_change_changes() -> None:
    async def scenario(operator: Operator, made: telling.Telling) -> None:
        def seen() -> tuple[str, int, int]:
            found = operator.store.seen()[CRM]
            return found.resources, found.resource_count, found.template_count

        await made.listed(CRM, with_resources("file:///a", "file:///b", templates=("db://{id}",)), WHO)
        await operator.until(lambda: CRM in operator.store.seen())
        first, *counts = seen()
        assert (first.startswith("sha256:"), counts) == (True, [2, 1])
        await made.listed(
            CRM, with_resources("file:///b", "file:///a", templates=("db://{id}",)), WHO, always=True
        )
        await operator.until(lambda: len(operator.taken) == 2)
        assert seen() == (first, 2, 1), "an order says nothing"
        await made.listed(CRM, with_resources("file:///a", templates=("db://{id}", "file:///b")), WHO)
        await operator.until(lambda: seen()[1:] == (1, 2))
        assert seen()[0] != first
        unobserved = frozenset({call.Kind.RESOURCE})
        await made.listed(CRM, with_resources(unobserved=unobserved), WHO, always=True)
        await operator.until(lambda: operator.taken[-1].servers[-1].resources is None)
        assert seen()[1:] == (1, 2), "what could not be listed is what was listed last"
        await made.listed(CRM, with_resources(), WHO, always=True)
        await operator.until(lambda: seen() == ("", 0, 0))

    run(scenario)
