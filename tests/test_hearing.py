# SPDX-License-Identifier: Apache-2.0
"""What proxies report, from their bytes to what a replica knows, and from one replica to another."""

from __future__ import annotations

import asyncio
import json
import logging

import pytest

from outrider import fingerprints, identity, names, reports, snapshot, wire
from outrider_operator import hearing, pods, reviewer

PROBER = ("outrider-system", "outrider-prober")
CRM = names.ServerId("crm", "salesforce")
BOT = identity.Workload(namespace="sales", service_account="bot")
TOOLS = (("a", fingerprints.of(b"a")), ("b", fingerprints.of(b"b")))


def principal(account: tuple[str, str], pod: str) -> reviewer.Principal:
    return reviewer.Principal(namespace=account[0], service_account=account[1], pod=pod, uid=f"uid-{pod}")


def body(*, whole: bool = True) -> bytes:
    seen = reports.Seen(
        server=str(CRM), digest=fingerprints.digest(TOOLS), tools=TOOLS if whole else None, age_seconds=0.0
    )
    return reports.encode(reports.Report(servers=(seen,)))


def made() -> hearing.Hearing:
    view = snapshot.ServerView(
        id=CRM,
        generation=1,
        endpoint=snapshot.Endpoint(url="https://crm.example/mcp"),
        credentials=(snapshot.Credential(name="token"),),
    )
    given = {
        ("sales", "bot"): snapshot.Snapshot(epoch=1, workload=BOT, servers=(view,)),
        ("evil", "bot"): snapshot.Snapshot(epoch=1, workload=BOT),
    }
    return hearing.Hearing(PROBER, exists=lambda server: server == CRM, given=given.get)


def test_the_probers_word_is_the_catalogues_and_a_sidecars_is_not() -> None:
    subject = made()
    subject.reported(principal(PROBER, "prober-1"), body())
    assert subject.seen()[CRM].tools == TOOLS
    away = reports.encode(reports.Report(servers=(reports.Seen(server=str(CRM), error="it is away"),)))
    subject.reported(principal(("sales", "bot"), "bot-1"), away)
    assert subject.seen()[CRM].reachable
    subject.reported(principal(PROBER, "prober-1"), away)
    assert not subject.seen()[CRM].reachable
    assert "it is away" in subject.seen()[CRM].message


def test_the_answer_names_the_servers_of_which_more_is_wanted() -> None:
    subject = made()
    assert b"crm/salesforce" in subject.reported(principal(PROBER, "prober-1"), body(whole=False))
    assert b"crm/salesforce" not in subject.reported(principal(PROBER, "prober-1"), body())


def test_a_workload_says_nothing_of_servers_it_may_not_use_and_learns_nothing_of_them() -> None:
    """Whoever may exec into a pod has its token: no other namespace's catalogue is theirs to write."""
    subject = made()
    assert b"crm/salesforce" not in subject.reported(principal(("evil", "bot"), "bot-1"), body(whole=False))
    subject.reported(principal(("evil", "bot"), "bot-1"), body())
    assert subject.seen() == {}
    subject.reported(principal(("sales", "bot"), "bot-1"), body())
    assert subject.seen()[CRM].tools == TOOLS


@pytest.mark.parametrize("wrong", [b"", b"{", b"[]", b'{"servers": 1}'])
def test_what_does_not_read_as_a_report_is_refused(wrong: bytes) -> None:
    with pytest.raises(wire.WireError):
        made().reported(principal(PROBER, "prober-1"), wrong)


def test_another_replica_knows_the_same_after_what_was_carried() -> None:
    here, there = made(), made()
    here.reported(principal(PROBER, "prober-1"), body())
    told, upto = here.carried().summary(0)
    assert upto == here.carried().revision()
    there.carried().merge("outrider-0", told)
    assert there.seen()[CRM].tools == TOOLS
    assert here.carried().summary(upto)[1] == upto, "nothing is new after that"


def lending(state: str = "Failing", why: str = "sealed", credential: str = "token") -> bytes:
    row = reports.Lending(server=str(CRM), credential=credential, state=state, why=why)  # type: ignore[arg-type]
    return reports.encode(reports.Report(credentials=(row,)))


def test_how_credentials_fare_is_known_and_carried_with_what_is_seen_of_servers() -> None:
    here, there = made(), made()
    here.reported(principal(("sales", "bot"), "bot-1"), lending())
    assert [each.why for each in here.lent()[CRM]] == ["sealed"]
    assert here.troubles()["uid-bot-1"][0]["credential"] == "token"
    assert here.fares() == {"failing": 1, "expiring": 0, "ready": 0}
    told, upto = here.carried().summary(0)
    assert upto == here.carried().revision()
    there.carried().merge("outrider-0", told)
    assert there.lent() == here.lent()
    assert b"sealed" not in here.carried().summary(upto)[0], "it is told once"
    there.carried().merge("outrider-0", here.carried().summary(upto)[0])
    assert there.lent() == here.lent(), "that nothing is new takes nothing back"
    here.reported(principal(("sales", "bot"), "bot-1"), lending("Recovered"))
    told, upto = here.carried().summary(upto)
    there.carried().merge("outrider-0", told)
    assert there.lent()[CRM][0].failing == 0


def test_a_workload_says_nothing_of_credentials_of_servers_it_may_not_use() -> None:
    subject = made()
    for account in ("evil", "unknown"):
        subject.reported(principal((account, "bot"), "bot-1"), lending())
    assert (subject.lent(), subject.troubles()) == ({}, {})


def test_a_workload_says_nothing_of_credentials_that_it_made_up() -> None:
    subject = made()
    subject.reported(principal(("sales", "bot"), "bot-1"), lending(credential="invented"))
    assert (subject.lent(), subject.troubles()) == ({}, {})


def test_what_an_older_replica_carries_are_sightings_alone_and_count() -> None:
    here, there = made(), made()
    here.reported(principal(PROBER, "prober-1"), body())
    there.carried().merge(
        "outrider-0", json.dumps(json.loads(here.carried().summary(0)[0])["sightings"]).encode()
    )
    assert there.seen()[CRM].tools == TOOLS


def test_what_another_version_carries_is_left_aside_and_said(caplog: pytest.LogCaptureFixture) -> None:
    subject = made()
    with caplog.at_level(logging.WARNING):
        subject.carried().merge("outrider-0", b'{"revision": 1, "newer": true}')
    assert subject.seen() == {}
    assert [each.fields["replica"] for each in caplog.records] == ["outrider-0"]


def test_what_pods_said_that_are_gone_is_forgotten_and_a_bug_on_the_way_ends_nothing(
    caplog: pytest.LogCaptureFixture,
) -> None:
    subject = made()
    subject.reported(principal(("sales", "bot"), "bot-1"), body())
    known: dict[str, pods.Pod] | None = None

    async def run() -> None:
        nonlocal known
        tidying = asyncio.create_task(subject.tidy(lambda: known, seconds=0.01))  # type: ignore[arg-type, return-value]
        await asyncio.sleep(0.05)
        assert CRM in subject.seen(), "who cannot be asked is not gone"
        known = {"uid-bot-1": pods.Pod("uid-bot-1", "sales", "bot-1", "bot")}
        await asyncio.sleep(0.05)
        assert CRM in subject.seen()
        known = {}
        await asyncio.sleep(0.05)
        assert CRM not in subject.seen()
        assert not tidying.done()
        tidying.cancel()
        await asyncio.gather(tidying, return_exceptions=True)

    asyncio.run(run())
    assert "because of a bug" in caplog.text
