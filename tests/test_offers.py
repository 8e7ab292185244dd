# SPDX-License-Identifier: Apache-2.0
"""What each workload is offered: the Compiler's snapshot, in its schema, at the position that is true now."""

from __future__ import annotations

import dataclasses

import msgspec
import pytest
from tests import worlds

from outrider import compile as compiler
from outrider import names, snapshot, wire
from outrider_operator import offers
from outrider_operator.sources import kubernetes

BOT = ("crm", "bot")
PROBER = ("outrider-system", "outrider-prober")
SERVICE = {"endpoint": {"service": {"name": "s-mcp", "port": 8080}}}


def probing(world, epoch):
    found = compiler.snapshot(world, *PROBER, epoch=epoch)
    return msgspec.structs.replace(found, probing=True, currency="EUR" if world.servers else "USD")


@dataclasses.dataclass
class Desk:
    """Offers with a world to edit and a position to move."""

    position: dict[str, int] = dataclasses.field(default_factory=lambda: {"policies": 1})

    def __post_init__(self) -> None:
        self.compiled = compiler.Compiler()
        self.subject = offers.Offers(
            self.compiled, offers.Prober(PROBER, probing), position=lambda: dict(self.position)
        )

    def take(self, *objects, epoch=7):
        world = worlds.world(*objects)
        return self.subject.take(kubernetes.Reading(world, dict(self.position), epoch, frozenset()))


@pytest.fixture
def desk():
    return Desk()


def test_nothing_is_offered_before_everything_was_read(desk) -> None:
    assert not desk.subject.ready
    assert desk.subject.offer(BOT, snapshot.SCHEMA) is None
    desk.take()
    assert desk.subject.ready
    assert desk.subject.offer(BOT, snapshot.SCHEMA) is not None


def test_a_workload_is_offered_what_compile_makes_for_it(desk) -> None:
    world = [worlds.server(), worlds.policy(worlds.allow())]
    desk.take(*world)
    found = desk.subject.offer(BOT, snapshot.SCHEMA)
    wanted = compiler.snapshot(worlds.world(*world), *BOT, epoch=7)
    assert wire.decode_snapshot(found.content) == wanted
    assert found.version == snapshot.digest(found.content)
    assert desk.subject.epoch == 7


def test_what_is_offered_is_given_as_a_value_too(desk) -> None:
    assert desk.subject.given(BOT) is None
    desk.take(worlds.server(), worlds.policy(worlds.allow()))
    for subject in (BOT, PROBER):
        found = desk.subject.given(subject)
        assert snapshot.canonical(found) == desk.subject.offer(subject, snapshot.SCHEMA).content
    assert desk.subject.given(PROBER).probing
    desk.take()
    assert desk.subject.given(BOT).servers == desk.subject.given(PROBER).servers == ()


def test_the_same_content_stands_for_a_higher_position_later(desk) -> None:
    desk.take(worlds.server(), worlds.policy(worlds.allow()))
    before = desk.subject.offer(BOT, snapshot.SCHEMA)
    desk.position["policies"] = 9
    after = desk.subject.offer(BOT, snapshot.SCHEMA)
    assert (before.version, before.position) == (after.version, {"policies": 1})
    assert after.position == {"policies": 9}


def test_an_older_proxy_is_offered_its_schema_and_is_counted_by_it(desk) -> None:
    desk.take(worlds.server(**SERVICE), worlds.policy(worlds.allow()))
    newest = desk.subject.offer(BOT, snapshot.SCHEMA)
    older = desk.subject.offer(BOT, 1)
    assert older.version != newest.version
    assert b'"schema":1' in older.content or b'"schema"' not in older.content
    assert older.unexpressed == ("MCPServer crm/s",)
    assert desk.compiled.revision(BOT, older.version) == desk.compiled.revision(BOT, newest.version) > 0
    assert desk.subject.offer(BOT, 1).content is older.content


def test_an_edit_makes_another_offer_in_every_schema(desk) -> None:
    desk.take(worlds.server(), worlds.policy(worlds.allow(["query"])))
    before = [desk.subject.offer(BOT, schema).version for schema in snapshot.SCHEMAS]
    changes = desk.take(worlds.server(), worlds.policy(worlds.allow(["other"])))
    assert BOT in changes.subjects
    after = [desk.subject.offer(BOT, schema).version for schema in snapshot.SCHEMAS]
    assert not set(before) & set(after)


def test_the_prober_is_offered_what_is_to_be_listed(desk) -> None:
    desk.take()
    assert desk.subject.offer(PROBER, snapshot.SCHEMA).content.count(b"EUR") == 0
    desk.take(worlds.server())
    found = wire.decode_snapshot(desk.subject.offer(PROBER, snapshot.SCHEMA).content)
    assert (found.probing, found.currency) == (True, "EUR")
    assert desk.subject.offer(PROBER, 1).unexpressed == tuple(
        f"MCPServer {names.ServerId('crm', 's')}" for _ in found.servers
    )
