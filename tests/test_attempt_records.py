# SPDX-License-Identifier: Apache-2.0
"""What must be written before and after a call, and what must be at hand; without it nothing is sent."""

from __future__ import annotations

import json
import pathlib
import shutil
import subprocess
import sys
from typing import Any

import pytest
from tests import conftest, proxies
from tests.servers import mcp

from outrider import audit, budgets, chain, snapshot, testing

LIMITS = (testing.a_limit(calls=9), testing.a_limit(cost=9 * budgets.MICRO, name="m"))
PRICE = budgets.Price(per_call=budgets.MICRO)
SECRET = "canary-7f3a"


def on_a_full_disk(choice: str) -> dict[str, Any]:
    ran = subprocess.run(
        [sys.executable, "-m", "tests.full_disks", choice],
        cwd=conftest.ROOT,
        env={"PYTHONPATH": f"{conftest.ROOT}/sidecar:{conftest.ROOT}"},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert ran.returncode == 0, ran.stderr
    return json.loads(ran.stdout)


def test_a_call_that_cannot_be_recorded_is_not_made() -> None:
    told = on_a_full_disk("deny")
    assert (told["before"], told["full"], told["after"]) == (None, "AuditUnavailable", None)
    assert "cannot be recorded, so it was not made" in told["text"]
    assert (told["calls"], told["spent"]) == (1, [budgets.MICRO])  # nothing was sent, its unit came back
    assert (told["intents"], told["outcomes"]) == (2, 2)


def test_with_on_unavailable_allow_it_is_made_unrecorded_and_charged() -> None:
    """Also when the server's records are to be synced: what could not be written cannot be waited for."""
    told = on_a_full_disk("allow")
    assert (told["before"], told["full"], told["after"]) == (None, None, None)
    assert (told["calls"], told["spent"]) == (2, [2 * budgets.MICRO])
    assert told["intents"] == told["outcomes"] == 2  # no half record of the call in between


def spent(world: proxies.World) -> set[int]:
    rows = world.parts.ledger.standing(0)
    assert {row.reserved for row in rows} <= {0}
    return {row.spent for row in rows}


def with_credential(path: pathlib.Path, **more: Any) -> dict[str, Any]:
    secret = snapshot.FileSecret(path=str(path))
    entry = snapshot.Credential(name="key", source=secret, prefix="Bearer ", **more)
    return {"credentials": (entry,), "credential_required": True}


@pytest.mark.parametrize(
    ("content", "reason"),
    [(None, "CredentialUnavailable"), (b"", "CredentialMalformed"), (b"a\nb\n", "CredentialMalformed")],
)
def test_without_its_credential_a_call_is_not_sent_and_its_units_return(
    tmp_path: pathlib.Path, content: bytes | None, reason: str
) -> None:
    async def scenario(world: proxies.World, peer: mcp.Peer) -> None:
        if content is not None:
            (tmp_path / "key").write_bytes(content)
        world.current.observed(proxies.API, testing.tools("echo"))
        told = await world.call("echo")
        assert told.reason == reason
        assert str(tmp_path) not in told.body.decode()
        (outcome,) = world.outcomes
        assert (outcome.status, outcome.reason, outcome.cost) == (audit.Status.NOT_SENT, reason, 0)
        assert all(charge.amount == 0 for charge in outcome.charges)
        assert (spent(world), peer.seen) == ({0}, [])

    proxies.run(scenario, limits=LIMITS, default_price=PRICE, **with_credential(tmp_path / "key"))


def test_a_credential_is_used_as_soon_as_it_is_there(tmp_path: pathlib.Path) -> None:
    async def scenario(world: proxies.World, peer: mcp.Peer) -> None:
        world.current.observed(proxies.API, testing.tools("echo"))
        assert (await world.call("echo")).reason == "CredentialUnavailable"
        (tmp_path / "key").write_text(SECRET)
        assert (await world.call("echo")).reason is None
        assert {seen.headers["authorization"] for seen in peer.seen} == {f"Bearer {SECRET}"}

    proxies.run(scenario, **with_credential(tmp_path / "key"))


def test_the_intent_names_the_credential_and_nothing_holds_its_value(tmp_path: pathlib.Path) -> None:
    (tmp_path / "key").write_text(f"{SECRET}\n")

    async def scenario(world: proxies.World, peer: mcp.Peer) -> None:
        assert (await world.call("echo")).reason is None
        assert world.intents[0].credential == "key"
        files = [path for path in world.folder.rglob("*") if path.is_file()]
        assert files
        assert not any(SECRET.encode() in path.read_bytes() for path in files)

    proxies.run(scenario, **with_credential(tmp_path / "key"))


def test_an_intent_is_on_disk_before_the_server_is_called() -> None:
    async def scenario(world: proxies.World, peer: mcp.Peer) -> None:
        asking = await world.calling("waits", {"deal": 7})
        await peer.called.wait()
        (intent,) = world.intents
        assert (intent.tool, intent.server, intent.method) == ("waits", "crm/api", "tools/call")
        assert intent.arguments is not None
        assert intent.arguments.content == '{"deal":7}'
        assert world.outcomes == []
        peer.go_on.set()
        await asking.answer()
        assert world.outcomes[0].event == intent.event

    proxies.run(scenario)


def test_the_outcome_is_written_before_the_agent_has_its_answer() -> None:
    async def scenario(world: proxies.World, peer: mcp.Peer) -> None:
        for number in range(20):
            await world.call("echo")
            assert len(world.outcomes) == number + 1

    proxies.run(scenario)


@pytest.mark.parametrize("level", list(snapshot.AuditLevel))
def test_each_level_keeps_what_it_says_and_pointers_are_withheld(level: snapshot.AuditLevel) -> None:
    redact = (snapshot.Redaction(tools=("EC*",), arguments=("/pin",), result=("/content",)),)
    rules = snapshot.AuditRules(level=level, redact=redact)

    async def scenario(world: proxies.World, peer: mcp.Peer) -> None:
        told = await world.call("echo", {"pin": 1234, "deal": 7})
        assert json.loads(told.text)["pin"] == 1234  # the agent's answer is not redacted
        arguments, result = world.intents[0].arguments, world.outcomes[0].result
        assert arguments is not None
        assert result is not None
        assert ("7" in arguments.content) is (level is not snapshot.AuditLevel.METADATA)
        assert bool(result.content) is (level is snapshot.AuditLevel.FULL)
        assert "1234" not in arguments.content + result.content
        assert arguments.redacted == ("/pin",)
        assert result.redacted == ("/content",)

    proxies.run(scenario, audit=rules)


@pytest.mark.parametrize("deny", [True, False])
def test_records_that_cannot_be_synced_stop_a_call_unless_the_entry_allows_it(deny: bool) -> None:
    rules = snapshot.AuditRules(durability=snapshot.Durability.SYNCED, on_unavailable_deny=deny)

    async def scenario(world: proxies.World, peer: mcp.Peer) -> None:
        assert (await world.call("echo")).reason is None
        await world.parts.journal.synced()
        head = world.folder / "journal" / "head.json"
        kept = head.read_bytes()
        head.unlink()
        (head / "in the way").mkdir(parents=True)  # what every sync replaces cannot be replaced
        told = await world.call("echo")
        assert told.reason == ("AuditUnavailable" if deny else None)
        assert len(peer.calls) == (1 if deny else 2)
        shutil.rmtree(head)
        head.write_bytes(kept)
        assert (await world.call("echo")).reason is None

    proxies.run(scenario, audit=rules, limits=LIMITS)


def test_synced_records_are_on_disk_before_anything_is_sent() -> None:
    rules = snapshot.AuditRules(durability=snapshot.Durability.SYNCED)

    async def scenario(world: proxies.World, peer: mcp.Peer) -> None:
        await world.call("echo")
        asking = await world.calling("waits")
        await peer.called.wait()
        head = chain.read_head((world.folder / "journal" / "head.json").read_bytes())
        (segment,) = (world.folder / "journal").glob("*.seg")
        assert head.offset == segment.stat().st_size
        peer.go_on.set()
        await asking.answer()

    proxies.run(scenario, audit=rules)
