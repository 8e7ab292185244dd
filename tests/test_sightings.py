# SPDX-License-Identifier: Apache-2.0
"""The store of reports: content once, bounded, truthful about pods and replicas that come and go."""

from __future__ import annotations

import msgspec
import pytest

from outrider import fingerprints, names, reports, wire
from outrider_operator import observations, sightings

CRM = names.ServerId("crm", "salesforce")
PROBER = sightings.Reporter("p-uid", "outrider-system/prober-1", prober=True)
POD = sightings.Reporter("a-uid", "sales/agent-1")
NOW = 10_000.0


def tools(*texts: str) -> tuple[tuple[str, str], ...]:
    return tuple((text, fingerprints.of(text.encode())) for text in texts)


def listed(*texts: str, server: str = "crm/salesforce", whole: bool = True, age: float = 0.0) -> reports.Seen:
    made = tools(*texts)
    return reports.Seen(
        server=server, age_seconds=age, digest=fingerprints.digest(made), tools=made if whole else None
    )


def away(error: str) -> reports.Seen:
    return reports.Seen(server="crm/salesforce", error=error)


def report(*seen: reports.Seen) -> reports.Report:
    return reports.Report(servers=seen)


@pytest.fixture
def store() -> sightings.Sightings:
    return sightings.Sightings(lambda server: server.namespace != "gone")


def test_a_list_is_asked_for_once_and_then_known_by_its_digest(store: sightings.Sightings) -> None:
    wanted = store.reported(PROBER, report(listed("a", "b", whole=False)), now=NOW)
    assert wanted.servers == ("crm/salesforce",)
    assert store.seen() == {}
    assert store.reported(PROBER, report(listed("a", "b")), now=NOW).servers == ()
    assert store.seen()[CRM].tools == tools("a", "b")
    assert store.reported(POD, report(listed("a", "b", whole=False)), now=NOW).servers == ()


def test_nothing_new_is_the_same_object(store: sightings.Sightings) -> None:
    store.reported(PROBER, report(listed("a")), now=NOW)
    assert store.seen() is store.seen()


@pytest.mark.parametrize(
    "lie",
    [
        reports.Seen(server="crm/salesforce", digest="0" * 64, tools=tools("a")),
        reports.Seen(server="crm/salesforce", digest=fingerprints.digest((*tools("a"), *tools("a"))), tools=(*tools("a"), *tools("a"))),
    ],
)  # fmt: skip
def test_a_list_that_is_not_what_its_digest_says_is_not_taken(
    store: sightings.Sightings, lie: reports.Seen
) -> None:
    assert store.reported(PROBER, report(lie), now=NOW).servers == ()
    assert store.seen() == {}


def test_servers_that_do_not_exist_are_not_heard_of(store: sightings.Sightings) -> None:
    assert store.reported(POD, report(listed("a", server="gone/x")), now=NOW).servers == ()
    assert store.seen() == {}


def test_a_sidecar_never_makes_the_catalogue_and_its_failures_are_its_own(store: sightings.Sightings) -> None:
    store.reported(PROBER, report(listed("a", age=50)), now=NOW)
    store.reported(PROBER, report(listed("a", whole=False)), now=NOW + 60)
    store.reported(POD, report(listed("a", "evil")), now=NOW + 30)
    store.reported(POD, report(away("refused")), now=NOW + 31)
    seen = store.seen()[CRM]
    assert (seen.reachable, seen.tools) == (True, tools("a"))
    assert seen.differing == (("sales/agent-1", "more: evil"),)


def test_a_pod_that_is_gone_or_silent_is_forgotten(store: sightings.Sightings) -> None:
    store.reported(PROBER, report(listed("a", age=50)), now=NOW)
    store.reported(PROBER, report(listed("a")), now=NOW + 60)
    store.reported(POD, report(listed("b")), now=NOW)
    store.keep({POD.uid}, now=NOW + 60)
    assert store.seen()[CRM].differing
    store.keep({"another"}, now=NOW + 60)
    assert store.seen()[CRM].differing == ()
    store.reported(POD, report(listed("b")), now=NOW)
    assert store.seen()[CRM].differing
    store.keep({POD.uid}, now=NOW + sightings.FORGOTTEN_SECONDS + 1)
    assert store.seen()[CRM].differing == ()


def test_an_object_that_is_gone_is_forgotten_everywhere() -> None:
    existing = {CRM}
    store = sightings.Sightings(existing.__contains__)
    store.reported(PROBER, report(listed("a")), now=NOW)
    other = sightings.Sightings(existing.__contains__)
    other.reported(PROBER, report(listed("a")), now=NOW)
    store.merge("b", other.summary(0), now=NOW)
    existing.clear()
    store.keep(set(), now=NOW)
    assert store.seen() == {}
    existing.add(CRM)
    assert store.seen() == {}


def test_a_failure_keeps_what_was_listed(store: sightings.Sightings) -> None:
    store.reported(PROBER, report(listed("a")), now=NOW)
    store.reported(PROBER, report(away("The connection was refused.")), now=NOW + 60)
    seen = store.seen()[CRM]
    assert (seen.reachable, seen.tools, seen.seen_at) == (False, tools("a"), NOW + 60)


def test_fingerprints_are_kept_of_the_first_500_tools_and_names_of_all(store: sightings.Sightings) -> None:
    many = [f"tool-{number:05}" for number in range(2_000)]
    store.reported(PROBER, report(listed(*many)), now=NOW)
    seen = store.seen()[CRM]
    assert (len(seen.tools), seen.total, seen.complete) == (2_000, 2_000, True)
    assert sum(bool(mark) for _, mark in seen.tools) == 500
    assert seen.tools[499][1]


def test_memory_is_bounded_and_what_is_beyond_is_only_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sightings, "TOOLS_HELD_MAX", 3)
    store = sightings.Sightings(lambda server: True)
    store.reported(PROBER, report(listed("a", "b"), listed("c", "d", server="crm/other")), now=NOW)
    other = store.seen()[names.ServerId("crm", "other")]
    assert (other.tools, other.total, other.complete) == ((), 2, False)
    store.reported(PROBER, report(listed("e")), now=NOW)
    store.reported(PROBER, report(listed("f", "g", server="crm/third")), now=NOW)
    assert store.seen()[names.ServerId("crm", "third")].complete, "what is not shown any more makes room"


def test_more_different_lists_than_are_kept_apart_are_one(store: sightings.Sightings) -> None:
    for number in range(20):
        pod = sightings.Reporter(f"u{number}", f"x/pod-{number}")
        store.reported(pod, report(listed(f"t{number}")), now=NOW)
    groups = store.summary(0).entries["crm/salesforce"].groups
    assert len(groups) == sightings.GROUPS_MAX + 1
    assert next(group for group in groups if not group.digest).count == 20 - sightings.GROUPS_MAX


def test_probers_that_came_and_went_are_not_kept_for_ever(store: sightings.Sightings) -> None:
    for number in range(30):
        who = sightings.Reporter(f"p{number}", f"s/prober-{number}", prober=True)
        store.reported(who, report(listed("a")), now=NOW + number)
    assert len(store.summary(0).entries["crm/salesforce"].probes) == sightings.PROBERS_MAX


def test_another_replica_knows_the_same_after_the_summary_and_only_changes_follow(
    store: sightings.Sightings,
) -> None:
    store.reported(PROBER, report(listed("a", age=50)), now=NOW)
    store.reported(POD, report(listed("b")), now=NOW)
    holder = sightings.Sightings(lambda server: True)
    first = store.summary(0)
    assert first.revision == store.revision
    holder.merge("one", msgspec.json.decode(msgspec.json.encode(first), type=sightings.Summary), now=NOW)
    assert holder.seen() == store.seen()
    assert store.summary(first.revision) == sightings.Summary(first.revision)
    store.reported(PROBER, report(listed("a", whole=False)), now=NOW + 60)
    second = store.summary(first.revision)
    assert second.contents == {}, "lists travel once"
    holder.merge("one", second, now=NOW)
    assert holder.seen() == store.seen()
    assert holder.seen()[CRM].differing


def test_a_replica_that_is_silent_is_forgotten(store: sightings.Sightings) -> None:
    holder = sightings.Sightings(lambda server: True)
    store.reported(PROBER, report(listed("a")), now=NOW)
    holder.merge("one", store.summary(0), now=NOW)
    holder.keep(set(), now=NOW + sightings.SILENT_SECONDS)
    assert CRM in holder.seen()
    holder.merge("one", sightings.Summary(1), now=NOW + 10)
    holder.keep(set(), now=NOW + sightings.SILENT_SECONDS + 5)
    assert CRM in holder.seen()
    holder.keep(set(), now=NOW + sightings.SILENT_SECONDS + 11)
    assert holder.seen() == {}


def test_a_summary_is_cut_and_goes_on_where_it_ended(
    store: sightings.Sightings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sightings, "SUMMARY_BYTES_MAX", 3_000)
    for number in range(50):
        seen = listed(*(f"t{number}-{each}" for each in range(10)), server=f"crm/s{number}")
        store.reported(PROBER, report(seen), now=NOW)
    store.reported(
        PROBER, report(listed(*(f"t3-{each}" for each in range(10)), server="crm/s3", whole=False)), now=NOW
    )
    holder, known, rounds = sightings.Sightings(lambda server: True), 0, 0
    while known < store.revision:
        summary = store.summary(known)
        assert summary.revision > known
        known, rounds = summary.revision, rounds + 1
        holder.merge(
            "one", msgspec.json.decode(msgspec.json.encode(summary), type=sightings.Summary), now=NOW
        )
    assert rounds > 5
    assert holder.seen() == store.seen()


def test_a_server_info_that_says_nothing_is_left_out(store: sightings.Sightings) -> None:
    seen = msgspec.structs.replace(listed("a"), server_name="sf-mcp", protocol_versions=("2025-11-25",))
    store.reported(PROBER, report(seen), now=NOW)
    assert store.seen()[CRM].server_info == {"name": "sf-mcp"}
    assert observations.Observation().server_info == {}


def test_replicas_and_proxies_speak_json_and_nonsense_of_another_version_is_passed_over(
    store: sightings.Sightings, caplog: pytest.LogCaptureFixture
) -> None:
    answer = store.received(PROBER, reports.encode(report(listed("a", whole=False))), now=NOW)
    assert reports.decode_wanted(answer).servers == ("crm/salesforce",)
    store.received(PROBER, reports.encode(report(listed("a"))), now=NOW)
    with pytest.raises(wire.WireError):
        store.received(PROBER, b"{", now=NOW)
    told, upto = store.told(0)
    assert upto == store.revision
    holder = sightings.Sightings(lambda server: True)
    holder.heard("one", told, now=NOW)
    assert holder.seen() == store.seen()
    holder.heard("one", b'{"newer": 1}', now=NOW)
    assert holder.seen() == store.seen()
    assert "sightings not understood" in caplog.text
