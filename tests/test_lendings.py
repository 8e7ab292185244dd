# SPDX-License-Identifier: Apache-2.0
"""How credentials fare in the fleet: from what pods tell of their own servers, at whichever replica, to one standing each."""

from __future__ import annotations

import logging
from typing import Any

import pytest

from outrider import identity, names, reports, snapshot
from outrider_operator import lendings, sightings

CRM = names.ServerId("crm", "salesforce")
JIRA = names.ServerId("ops", "jira")
BOT = identity.Workload(namespace="sales", service_account="bot")
NOW = 1_000_000.0


def pod(
    name: str = "bot-1", *servers: names.ServerId, space: str = "sales", **more: Any
) -> sightings.Reporter:
    return sightings.Reporter(
        uid=f"uid-{name}", pod=f"{space}/{name}", servers=frozenset(servers or (CRM,)), **more
    )


def row(
    state: str = "Failing", server: names.ServerId = CRM, credential: str = "token", **more: Any
) -> reports.Lending:
    return reports.Lending(server=str(server), credential=credential, state=state, **more)  # type: ignore[arg-type]


def said(*rows: reports.Lending, **more: Any) -> reports.Report:
    return reports.Report(credentials=rows, **more)


def made(*servers: names.ServerId) -> lendings.Lendings:
    return lendings.Lendings(lambda server: server in (servers or (CRM, JIRA)))


def test_a_credential_that_cannot_be_lent_is_known_with_who_says_so_and_why() -> None:
    book = made()
    book.reported(pod(), said(row(reason="CredentialUnavailable", why="Vault is sealed")), now=NOW)
    book.reported(pod("bot-0"), said(row(reason="CredentialUnavailable", why="Vault is sealed")), now=NOW)
    book.reported(pod("bot-2"), said(row("Ready")), now=NOW)
    assert book.seen() == {
        CRM: (
            lendings.Standing(
                "token", failing=2, ready=True, pod="sales/bot-0", reason="CredentialUnavailable", why="Vault is sealed"
            ),
        )
    }  # fmt: skip
    assert lendings.failure(book.seen()[CRM][0]) == (
        "token cannot be lent by 2 proxies, such as sales/bot-0: CredentialUnavailable: Vault is sealed."
    )


def test_a_report_is_all_that_a_pod_has_and_one_that_says_nothing_of_credentials_changes_nothing() -> None:
    book = made()
    book.reported(pod(), said(row(), row(credential="cert")), now=NOW)
    book.reported(pod(), reports.Report(), now=NOW)
    assert [each.name for each in book.seen()[CRM]] == ["cert", "token"]
    book.reported(pod(), said(row(credential="cert")), now=NOW)
    assert [each.name for each in book.seen()[CRM]] == ["cert"]
    book.reported(pod(), said(), now=NOW)
    assert book.seen() == {}


def test_a_pod_tells_only_of_servers_that_it_has_and_that_exist() -> None:
    book = made(CRM, JIRA)
    book.reported(
        pod("evil", JIRA), said(row(), row(server=JIRA), row(server=names.ServerId("no", "where"))), now=NOW
    )
    assert list(book.seen()) == [JIRA]
    book.reported(pod("prober", JIRA, prober=True), said(row()), now=NOW)
    assert set(book.seen()) == {CRM, JIRA}, "the prober may tell of every server"


def test_what_is_lent_still_but_could_not_be_renewed_names_when_it_ends() -> None:
    book = made()
    book.reported(pod("a"), said(row("Expiring", why="no route", expires_in_seconds=600.0)), now=NOW)
    book.reported(
        pod("b"), said(row("Expiring", why="no route", expires_in_seconds=60.0, age_seconds=10.0)), now=NOW
    )
    [standing] = book.seen()[CRM]
    assert (standing.failing, standing.expiring, standing.ready, standing.expires_at) == (
        0,
        2,
        True,
        NOW + 50,
    )
    assert lendings.expiry(standing, timestamp=lambda at: f"t{at:.0f}") == (
        "token is lent until t1000050 and could not be renewed by 2 proxies, such as sales/a: no route."
    )


def test_the_same_trouble_told_again_is_no_news_to_anybody() -> None:
    book = made()
    book.reported(pod(), said(row("Expiring", why="no route", expires_in_seconds=600.0)), now=NOW)
    seen, revision = book.seen(), book.revision
    book.reported(pod(), said(row("Expiring", why="no route", expires_in_seconds=301.5)), now=NOW + 300)
    assert book.seen() is seen
    assert book.revision == revision
    book.reported(pod("bot-2"), said(row("Ready")), now=NOW)
    revision = book.revision
    for number in range(100):
        book.reported(pod(f"bot-{number + 3}"), said(row("Ready")), now=NOW)
    assert book.revision == revision, "that all goes well with one more pod is not worth a word"


def test_of_what_a_pod_told_two_replicas_the_later_counts() -> None:
    here, there = made(), made()
    here.reported(pod(), said(row(why="sealed")), now=NOW)
    there.reported(pod(), said(row("Recovered")), now=NOW + 10)
    here.heard("other", there.told(), now=NOW + 11)
    [standing] = here.seen()[CRM]
    assert (standing.failing, standing.ready) == (0, True)
    there.reported(pod(), said(row(why="again")), now=NOW + 20)
    here.heard("other", there.told(), now=NOW + 21)
    [standing] = here.seen()[CRM]
    assert (standing.failing, standing.why) == (1, "again")


def test_another_replicas_word_replaces_its_last_and_goes_with_it() -> None:
    here, there = made(), made()
    there.reported(pod(), said(row()), now=NOW)
    here.heard("other", there.told(), now=NOW)
    assert CRM in here.seen()
    here.heard("other", None, now=NOW + 10)
    here.keep((), now=NOW + 20)
    assert CRM in here.seen(), "it is alive, and has nothing new"
    there.reported(pod(), said(), now=NOW)
    here.heard("other", there.told(), now=NOW + 20)
    assert here.seen() == {}
    there.reported(pod(), said(row()), now=NOW)
    here.heard("other", there.told(), now=NOW + 20)
    here.keep((), now=NOW + 21 + sightings.SILENT_SECONDS)
    assert here.seen() == {}


@pytest.mark.parametrize("wrong", [b"", b"[]", b'{"crm/salesforce": {"token": {"rows": 5}}}'])
def test_what_cannot_be_read_is_passed_over_and_said(wrong: bytes, caplog: pytest.LogCaptureFixture) -> None:
    book = made()
    with caplog.at_level(logging.WARNING):
        book.heard("other", wrong, now=NOW)
    assert book.seen() == {}
    assert "lendings not understood" in caplog.text


def test_what_gone_pods_servers_and_silent_pods_said_is_forgotten() -> None:
    there = {CRM, JIRA}
    book = lendings.Lendings(lambda server: server in there)
    book.reported(pod("a", CRM, JIRA), said(row(), row(server=JIRA)), now=NOW)
    book.reported(pod("p", prober=True), said(row(credential="probed")), now=NOW)
    book.keep({"uid-a"}, now=NOW + 1)
    assert set(book.seen()) == {CRM, JIRA}
    there.remove(JIRA)
    book.keep({"uid-a"}, now=NOW + 2)
    assert set(book.seen()) == {CRM}
    book.keep((), now=NOW + 3)
    assert [each.name for each in book.seen()[CRM]] == ["probed"], "the prober is in nobody's list of pods"
    book.keep((), now=NOW + 1 + sightings.FORGOTTEN_SECONDS)
    assert book.seen() == {}
    book.reported(pod("a"), said(row()), now=NOW + 2_000)
    assert CRM in book.seen(), "nothing of it was left behind"


def test_of_many_pods_with_one_trouble_some_are_named_and_the_others_counted() -> None:
    here, there = made(), made()
    for number in range(lendings.ROWS_MAX + 30):
        there.reported(pod(f"bot-{number:03}"), said(row()), now=NOW)
    here.heard("other", there.told(), now=NOW)
    [standing] = here.seen()[CRM]
    assert (standing.failing, standing.pod) == (lendings.ROWS_MAX + 30, "sales/bot-000")
    assert len(here.troubles()) == lendings.ROWS_MAX
    assert len(there.told()) < 200 * lendings.ROWS_MAX


def test_a_pod_tells_only_of_credentials_and_providers_that_its_snapshot_has() -> None:
    """64 invented names would fill the table of a server, and of the providers, and what is amiss with real ones go unheard."""
    endpoint = snapshot.Endpoint(url="https://crm.example/mcp")
    view = snapshot.ServerView(
        id=CRM, generation=1, endpoint=endpoint, credentials=(snapshot.Credential(name="token"),)
    )
    okta = snapshot.IdentityProvider(
        name="okta", issuer="https://okta.example", audience="o", jwks_uri="https://okta.example/k"
    )
    needs = lendings.needed(snapshot.Snapshot(epoch=1, workload=BOT, servers=(view,), providers=(okta,)))
    assert needs == {(str(CRM), "token"), ("", "okta")}
    book, keys = made(), [reports.Keys(provider=f"p-{n}", state="Failing") for n in range(63)]
    invented = [row(credential=f"c-{number}") for number in range(1_000)]
    told = said(*invented, row(server=JIRA), providers=tuple(keys))
    for number in range(100):
        book.reported(pod(f"evil-{number}", CRM, JIRA, needs=needs), told, now=NOW)
    assert (book.seen(), book.troubles()) == ({}, {})
    okta_fails = reports.Keys(provider="okta", state="Failing")
    book.reported(pod(needs=needs), said(*invented, row(), providers=(*keys, okta_fails)), now=NOW)
    assert [each.name for each in book.seen()[CRM]] == ["token"]
    assert [each.get("provider") for each in book.troubles()["uid-bot-1"]] == ["okta", None]
    assert lendings.needed(None) == frozenset()


def test_a_namespaces_pods_take_nobody_elses_place_in_a_full_table(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lendings, "ENTRIES_MAX", 60)
    book = made()
    many = said(*(row(credential=f"c-{number}") for number in range(20)))
    for number in range(50):
        book.reported(pod(f"evil-{number}", space="evil"), many, now=NOW)
    few = said(*(row(server=JIRA, credential=f"real-{number}") for number in range(3)))
    book.reported(pod("b", JIRA), few, now=NOW)
    assert [each.name for each in book.seen()[JIRA]] == ["real-0", "real-1", "real-2"]
    for number in range(50):
        book.reported(pod(f"more-{number}", space="evil"), many, now=NOW)
    assert [each.failing for each in book.seen()[JIRA]] == [1, 1, 1]
    book.reported(pod("prober", JIRA, space="system", prober=True), few, now=NOW)
    assert [each.failing for each in book.seen()[JIRA]] == [2, 2, 2], "the prober is always heard"
    book.keep({"uid-b"}, now=NOW + 1)
    assert set(book.seen()) == {JIRA}
    book.keep((), now=NOW + 1 + sightings.FORGOTTEN_SECONDS)
    assert book.seen() == {}
    book.reported(pod("c"), many, now=NOW)
    assert len(book.seen()[CRM]) == 20, "nothing of it was left behind"


def test_of_one_trouble_a_namespaces_many_pods_hide_no_others_few() -> None:
    here, there = made(), made()
    for number in range(10 * lendings.ROWS_MAX):
        there.reported(pod(f"a-{number:03}", space="many"), said(row()), now=NOW)
    there.reported(pod("z"), said(row(why="sealed")), now=NOW)
    here.heard("other", there.told(), now=NOW)
    assert here.troubles()["uid-z"][0]["why"] == "sealed"
    assert here.seen()[CRM][0].failing == 10 * lendings.ROWS_MAX + 1


def test_of_one_server_so_many_names_are_held_and_no_more() -> None:
    book = made()
    rows = (row(credential=f"c-{number}") for number in range(1_000))
    book.reported(pod("bot-1", CRM, JIRA), said(*rows, row(server=JIRA)), now=NOW)
    assert len(book.seen()[CRM]) == lendings.CREDENTIALS_MAX
    assert JIRA in book.seen(), "that one server has enough says nothing of another"


def test_a_proxys_words_reach_a_status_without_controls() -> None:
    book = made()
    book.reported(pod(), said(row(why="a\n\x1b[31mb\u202ec  d")), now=NOW)
    assert book.seen()[CRM][0].why == "a [31mb c d"


def test_troubles_are_told_by_pod_those_with_identity_providers_too() -> None:
    book = made()
    keys = reports.Keys(provider="okta", state="Failing", why="answers 500")
    book.reported(
        pod(), said(row("Ready"), row("Failing", credential="cert", why="sealed"), providers=(keys,)), now=NOW
    )
    assert book.troubles() == {
        "uid-bot-1": [
            {"provider": "okta", "state": "Failing", "reason": "", "why": "answers 500", "expiresAt": None},
            {
                "server": "crm/salesforce", "credential": "cert", "state": "Failing", "reason": "", "why": "sealed",
                "expiresAt": None,
            },
        ]
    }  # fmt: skip
    book.reported(pod(), reports.Report(credentials=()), now=NOW)
    assert [each.get("provider") for each in book.troubles()["uid-bot-1"]] == ["okta"], (
        "nothing was said of providers"
    )
    book.reported(pod(), reports.Report(providers=()), now=NOW)
    assert book.troubles() == {}
