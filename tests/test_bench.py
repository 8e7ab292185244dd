# SPDX-License-Identifier: Apache-2.0
"""The benchmark's checks: a server that cheats is found out, and no call goes missing unnoticed. Nothing here is timed."""

from __future__ import annotations

import dataclasses
import pathlib
import random
import subprocess
import sys

import pytest
from bench import __main__ as command
from bench import compiled, decision, ours, paths, processes, ratios, run, start, table, validity
from hypothesis import given
from hypothesis import strategies as st

CALLS = ["--mode", "closed", "--connections", "2", "--seconds", "0.15", "--seed", "5"]
SENT = validity.Sent(sent=200, answered=200, echoed=198, refused=2, canaries=2, wrong=0, lost=0)
ARRIVED = validity.Arrived(calls=198, others=0, traced=198, named=198, credential=198, anonymous=0, foreign=0)
KEPT = validity.Kept(
    metric_allowed=198, metric_refused=2, audit_allowed=198, audit_refused=2, audit_unanswered=0, audit_ids=200,
    audit_bodies=200, chain_whole=True,
)  # fmt: skip


# Validity ---------------------------------------------------------------------------------------------------------------


def test_a_run_that_adds_up_has_nothing_to_say() -> None:
    assert validity.of_answers(SENT, refuses=True) == []
    assert validity.of_upstream(SENT, ARRIVED, refuses=True, credential="credential") == []
    assert validity.of_records(SENT, KEPT, bodies=True) == []
    spent = {"calls": 198.0, "spend": 0.02}
    assert validity.of_budgets(SENT, spent, calls_pool="calls", cost_pool="spend") == []


@pytest.mark.parametrize("field", ["sent", "answered", "echoed", "refused", "canaries", "wrong", "lost"])
@given(off=st.integers(-2, 10**6).filter(bool))
def test_one_call_more_or_less_in_the_answers_is_noticed(field: str, off: int) -> None:
    changed = dataclasses.replace(SENT, **{field: max(0, getattr(SENT, field) + off)})
    assert changed == SENT or validity.of_answers(changed, refuses=True) != []


@pytest.mark.parametrize("field", ["calls", "others", "traced", "named", "credential"])
@given(off=st.integers(-198, 10**6).filter(bool))
def test_one_call_more_or_less_at_the_upstream_is_noticed(field: str, off: int) -> None:
    changed = dataclasses.replace(ARRIVED, **{field: max(0, getattr(ARRIVED, field) + off)})
    found = validity.of_upstream(SENT, changed, refuses=True, credential="credential")
    assert changed == ARRIVED or found != []


@pytest.mark.parametrize("field", [field.name for field in dataclasses.fields(validity.Kept)])
def test_a_record_more_or_less_is_noticed(field: str) -> None:
    for value in (
        (False, getattr(KEPT, field) - 1, getattr(KEPT, field) + 1) if field != "chain_whole" else (False,)
    ):
        changed = dataclasses.replace(KEPT, **{field: value})
        assert changed == KEPT or validity.of_records(SENT, changed, bodies=True) != [], value


def test_budgets_that_did_not_count_are_noticed() -> None:
    for spent in ({}, {"calls": 198.0}, {"calls": 197.0, "spend": 1.0}, {"calls": 198.0, "spend": 0.0}):
        assert validity.of_budgets(SENT, spent, calls_pool="calls", cost_pool="spend") != []


def test_cells_add_up_and_keep_the_first_complaint() -> None:
    both = validity.total([SENT, dataclasses.replace(SENT, wrong=1, complaint="why")])
    assert (both.sent, both.refused, both.wrong, both.complaint) == (400, 4, 1, "why")


# Ratios and the gate ----------------------------------------------------------------------------------------------------


@given(st.lists(st.floats(0.1, 1e6), min_size=1, max_size=9), st.floats(0.1, 50))
def test_a_series_that_is_everywhere_k_times_another_has_the_ratio_k(below: list[float], k: float) -> None:
    found = ratios.ratio([value * k for value in below], below)
    assert found.low == pytest.approx(k)
    assert found.high == pytest.approx(k)


@given(st.lists(st.floats(-100, 1000), min_size=2, max_size=9))
def test_the_interval_holds_its_mean_and_stays_within_what_was_seen(values: list[float]) -> None:
    found = ratios.interval(values)
    assert min(values) - 1e-6 <= found.low <= found.value + 1e-6
    assert found.value - 1e-6 <= found.high <= max(values) + 1e-6
    assert found == ratios.interval(values), "seeded: the same values give the same interval"


def test_series_that_cannot_be_divided_are_refused() -> None:
    for above, below in (([1.0], [1.0, 2.0]), ([1.0], [0.0]), ([], [])):
        with pytest.raises(ValueError, match=r"round"):
            ratios.ratio(above, below)


def cell(
    name: str, number: int, cpu: float | None, *, per_second: float = 1000.0, loop: str = "c16"
) -> run.Cell:
    return run.Cell(
        way=name, loop=loop, round=number, p50=1.0, p95=2.0, p99=3.0, per_second=per_second, backlog=0, cpu=cpu,
        waited=None if cpu is None else 0.0, memory=None, beside=0.0, sent=SENT,
    )  # fmt: skip


def result(features: list[float], *, direct: float = 50_000.0) -> run.Result:
    cells = []
    for number, cost in enumerate(features):
        for loop in ("c1", "c16", "open"):
            cells.append(cell("direct", number, None, per_second=direct, loop=loop))
            cells.append(cell("plain", number, 300.0 + number, loop=loop))
            cells.append(cell("full", number, 300.0 + number + cost, loop=loop))
    plan = run.Plan(ways=("direct", "plain", "full"), rounds=len(features))
    return run.Result(plan, tuple(cells), {}, {"nginx": "not installed"}, "PSS")


@pytest.mark.parametrize(
    ("features", "code"),
    [([95.0, 99.0, 97.0], 3), ([70.0, 60.0, 65.0], 0), ([20.0, 190.0, 60.0], 0), ([500.0], 0)],
)
def test_the_gate_closes_only_when_the_whole_interval_is_beyond_it(
    features: list[float], code: int, capsys: pytest.CaptureFixture[str]
) -> None:
    assert command._gate(result(features)) == code
    assert ("GATE" in capsys.readouterr().err) == (code == 3)


def test_throughput_is_blank_when_the_load_generator_was_the_limit() -> None:
    wide, narrow = result([50.0], direct=1500.0), result([50.0], direct=1499.0)
    shown = {True: [], False: []}
    for one, enough in ((wide, True), (narrow, False)):
        shown[enough] = [row.per_second for row in table.rows(one) if row.loop == "c16"]
    assert None not in shown[True]
    assert set(shown[False]) == {None}


def test_the_table_names_every_way_and_what_was_left_out() -> None:
    text = table.text(result([50.0, 52.0]))
    assert "full / direct" in text
    assert "features' CPU per call (full - plain, c16): 51.0 us" in text
    assert "nginx: not installed" in text


# Processes, flags, and what is missing ----------------------------------------------------------------------------------


def test_usage_counts_children_and_what_they_leave_behind(tmp_path: pathlib.Path) -> None:
    burn = "import time\nwhile time.process_time() < 0.1: pass\n"
    parent = (
        "import subprocess, sys, time, pathlib\n"
        f"subprocess.run([sys.executable, '-c', {burn!r}])\n"
        f"child = subprocess.Popen([sys.executable, '-c', {burn + 'import time; time.sleep(60)'!r}])\n"
        f"{burn}\n"
        "pathlib.Path(sys.argv[1]).touch(); time.sleep(60)\n"
    )
    log, up = tmp_path / "log", tmp_path / "up"
    with processes.running([sys.executable, "-c", parent, str(up)], core=None, log=log) as process:
        processes.wait_for(
            lambda: up.exists() and processes.usage(process.pid).cpu >= 0.28,
            what="parent",
            process=process,
            log=log,
        )
        assert len(processes.tree(process.pid)) == 2
        own = processes.resident(process.pid)
        child = next(one for one in processes.tree(process.pid) if one != process.pid)
        assert own > processes.resident(child) > 1
        subprocess.run(["kill", str(child)], check=True)


def test_a_process_that_dies_is_reported_with_its_last_words(tmp_path: pathlib.Path) -> None:
    log = tmp_path / "log"
    dying = [sys.executable, "-c", "import sys; sys.exit('the last words')"]
    with (
        processes.running(dying, core=None, log=log) as process,
        pytest.raises(compiled.Unable, match=r"(?s)exited with 1.*the last words"),
    ):
        processes.wait_for(lambda: False, what="it", process=process, log=log)


def test_without_a_compiler_it_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: pathlib.Path
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("CC", raising=False)
    assert command.main([]) == 3
    assert "apt-get install gcc" in capsys.readouterr().err


@pytest.mark.parametrize(
    "flags", [["--rounds", "0"], ["--seconds", "-1"], ["--ways", "plain"], ["--ways", "direct,pigeon"],
              ["--ways", "direct,plain", "--gate"], ["--unknown"]]
)  # fmt: skip
def test_flags_that_cannot_be_run_are_refused(flags: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as left:
        command.parse(flags)
    assert left.value.code == 2
    assert "error: " in capsys.readouterr().err


def test_metrics_are_read_with_their_labels() -> None:
    page = '# HELP x y\nx_total{decision="deny",rule="a, \\"b\\""} 3.0\nplain 1e3\nx_created{a="b"} 1.7\n'
    assert ours.samples(page) == [
        ("x_total", {"decision": "deny", "rule": 'a, \\"b\\"'}, 3.0),
        ("plain", {}, 1000.0),
        ("x_created", {"a": "b"}, 1.7),
    ]


# The smaller benchmarks -------------------------------------------------------------------------------------------------


def test_decisions_are_measured_on_right_verdicts_only() -> None:
    found = decision.measure((10, 20), 2)
    assert {len(values) for values in found.values()} == {2}
    subject = decision.subject(20, random.Random(1))
    assert {allowed for _, allowed in subject.cold} == {True, False}
    lied = [(one, not allowed) for one, allowed in subject.cold]
    with pytest.raises(ValueError, match="wrong"):
        decision.timed(subject.bound, lied)


@pytest.mark.slow
def test_the_proxy_starts_without_a_control_plane_and_is_measured(tmp_path: pathlib.Path) -> None:
    line, up = start.proxy(tmp_path)
    found = start.once(line, up, tmp_path / "log")
    assert found["cpu"] > 0
    assert found["resident"] > 5


# The whole of it --------------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_a_tiny_run_through_the_real_proxy_accounts_for_every_call(tmp_path: pathlib.Path) -> None:
    cores = processes.Cores(None, None)
    plan = run.Plan(ways=("direct", "plain", "full"), rounds=1, seconds=0.6, rate=100.0)
    with paths.upstream(cores, tmp_path) as port:
        found = run.run(plan, paths.Place(port, cores, tmp_path))
        arrived = paths.arrived(port)
    assert {(one.way, one.loop) for one in found.cells} == {
        (name, loop) for name in plan.ways for loop in ("c1", "c16", "open")
    }
    sent = validity.total([one.sent for one in found.cells])
    assert sent.sent == arrived.calls + sent.refused
    assert sent.refused > 0
    assert "full / direct" in table.text(found)


@pytest.mark.slow
def test_a_call_that_the_generator_did_not_make_is_missed_from_no_book(tmp_path: pathlib.Path) -> None:
    cores = processes.Cores(None, None)
    with (
        paths.upstream(cores, tmp_path) as port,
        ours.start(paths.Place(port, cores, tmp_path), "full") as full,
    ):
        arguments = [*CALLS, "--canary-every", "5"]
        said = [run.load(full, [*arguments, "--seed", str(number)], core=None) for number in (11, 12)]
        names = {field.name for field in dataclasses.fields(validity.Sent)}
        parts = [
            validity.Sent(**{name: value for name, value in one.items() if name in names}) for one in said
        ]
        kept, sent = ours.kept(full), validity.total(parts)
        assert validity.of_records(sent, kept, bodies=True) == []
        assert ours.budgets_differ(full, sent) == []
        found = validity.of_records(parts[0], kept, bodies=True)
        assert {sentence.partition(":")[0] for sentence in found} >= {
            "metric counts of allowed calls", "metric counts of refused calls", "audit records of allowed calls",
            "audit records of refused calls", "distinct request ids in the audit",
        }  # fmt: skip
        assert ours.budgets_differ(full, parts[0]) != []
        with pytest.raises(run.Void, match="audit records"):
            run._settled(full, parts[:1])
