# SPDX-License-Identifier: Apache-2.0
"""The benchmark's checks: a server that cheats is found out, and no call goes missing unnoticed. Nothing here is timed."""

from __future__ import annotations

import contextlib
import dataclasses
import http.server
import json
import pathlib
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench import __main__ as command
from bench import compiled, decision, ours, paths, processes, ratios, run, start, table, validity

CALLS = ["--mode", "closed", "--connections", "2", "--seconds", "0.15", "--seed", "5"]
SENT = validity.Sent(sent=200, answered=200, echoed=198, refused=2, canaries=2, wrong=0, lost=0)
ARRIVED = validity.Arrived(calls=198, others=0, traced=198, named=198, credential=198, anonymous=0, foreign=0)
KEPT = validity.Kept(
    metric_allowed=198, metric_refused=2, audit_allowed=198, audit_refused=2, audit_unanswered=0, audit_ids=200,
    audit_bodies=200, chain_whole=True,
)  # fmt: skip


# Servers that answer the load generator, honestly or not ---------------------------------------------------------------


def honest(message: dict[str, Any], _state: dict[str, Any]) -> dict[str, Any]:
    params = message["params"]
    text = json.dumps({"name": params["name"], "arguments": params["arguments"]})
    content = [{"type": "text", "text": text}]
    return {"jsonrpc": "2.0", "id": message["id"], "result": {"content": content, "isError": False}}


def cached(message: dict[str, Any], state: dict[str, Any]) -> dict[str, Any]:
    """Right id, but the first answer's content for ever."""
    kept = state.setdefault("first", honest(message, state)["result"])
    return {"jsonrpc": "2.0", "id": message["id"], "result": kept}


def id_as_text(message: dict[str, Any], state: dict[str, Any]) -> dict[str, Any]:
    return honest(message, state) | {"id": str(message["id"])}


def stranger(message: dict[str, Any], state: dict[str, Any]) -> dict[str, Any]:
    return honest(message, state) | {"id": 1}


def always_refusing(message: dict[str, Any], _state: dict[str, Any]) -> dict[str, Any]:
    refusal = {"dev.outrider/refusal": {"reason": "Denied"}}
    result = {"content": [{"type": "text", "text": "no"}], "isError": True, "_meta": refusal}
    return {"jsonrpc": "2.0", "id": message["id"], "result": result}


def shortened(message: dict[str, Any], state: dict[str, Any]) -> dict[str, Any]:
    message["params"]["arguments"]["pad"] = "x"
    return honest(message, state)


def failing(message: dict[str, Any], _state: dict[str, Any]) -> dict[str, Any]:
    return {"jsonrpc": "2.0", "id": message["id"], "error": {"code": -32603, "message": "no"}}


def refusing_canaries(message: dict[str, Any], state: dict[str, Any]) -> dict[str, Any]:
    return (honest if message["params"]["name"] == "echo" else always_refusing)(message, state)


def telling_canaries(message: dict[str, Any], state: dict[str, Any]) -> dict[str, Any]:
    """Says that it refuses and gives what was asked for all the same."""
    if message["params"]["name"] == "echo":
        return honest(message, state)
    answer = always_refusing(message, state)
    answer["result"]["content"] = honest(message, state)["result"]["content"]
    return answer


@contextlib.contextmanager
def serving(
    answer: Callable[..., dict[str, Any]], *, drop_every: int = 0, chunked: bool = False
) -> Iterator[int]:
    """A real HTTP server that answers with `answer`; every `drop_every`th request it hangs up instead."""
    state: dict[str, Any] = {}
    counted = iter(range(1, 10**9))

    class Handler(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        disable_nagle_algorithm = True

        def do_POST(self) -> None:
            message = json.loads(self.rfile.read(int(self.headers["content-length"])))
            if drop_every and next(counted) % drop_every == 0:
                self.close_connection = True
                return
            body = json.dumps(answer(message, state)).encode()
            self.send_response(200)
            self.send_header("content-type", "application/json")
            if chunked:
                self.send_header("transfer-encoding", "chunked")
                parts = [body[:7], body[7:40], body[40:]]
                body = b"".join(b"%x\r\n%s\r\n" % (len(part), part) for part in parts) + b"0\r\n\r\n"
            else:
                self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield server.server_address[1]
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def way(port: int, *, expect: str = "echo", **more: Any) -> paths.Way:
    fields = {"name": "x", "path": "/mcp", "canaries": ("forbidden",), "credential": None} | more
    return paths.Way(port=port, expect=expect, **fields)


def loaded(port: int, *, expect: str = "echo", every: int = 5) -> validity.Sent:
    """What the load generator says, with a canary more often than in a run."""
    said = run.load(way(port, expect=expect), [*CALLS, "--canary-every", str(every)], core=None)
    names = {field.name for field in dataclasses.fields(validity.Sent)}
    return validity.Sent(**{name: value for name, value in said.items() if name in names})


@pytest.mark.parametrize("chunked", [False, True])
def test_an_honest_server_is_believed(chunked: bool) -> None:
    with serving(honest, chunked=chunked) as port:
        sent = loaded(port)
    assert validity.of_answers(sent, refuses=False) == []
    assert sent.echoed == sent.sent > 5


def test_a_server_that_refuses_canaries_is_believed() -> None:
    with serving(refusing_canaries) as port:
        sent = loaded(port, expect="refusal")
    assert validity.of_answers(sent, refuses=True) == []
    assert sent.refused == sent.canaries > 0


@pytest.mark.parametrize("cheat", [cached, id_as_text, stranger, always_refusing, shortened, failing])
def test_a_wrong_answer_voids_the_run(cheat: Callable[..., dict[str, Any]]) -> None:
    with serving(cheat) as port:
        sent = loaded(port)
    assert sent.wrong > 0
    assert "wrong" in validity.of_answers(sent, refuses=False)[0]


@pytest.mark.parametrize("cheat", [honest, telling_canaries, failing])
def test_a_canary_that_is_not_refused_voids_the_run(cheat: Callable[..., dict[str, Any]]) -> None:
    with serving(cheat) as port:
        sent = loaded(port, expect="refusal")
    assert sent.wrong > 0
    assert validity.of_answers(sent, refuses=True) != []


def test_a_missing_answer_voids_the_run() -> None:
    with serving(honest, drop_every=7) as port:
        sent = loaded(port)
    assert sent.lost > 0
    assert "missing" in validity.of_answers(sent, refuses=False)[0]


def test_the_open_loop_sends_what_was_due_though_nobody_answers_in_time() -> None:
    gate = threading.Event()

    def slow(message: dict[str, Any], state: dict[str, Any]) -> dict[str, Any]:
        gate.wait(0.5)
        return honest(message, state)

    with serving(slow) as port:
        arguments = [
            "--mode",
            "open",
            "--connections",
            "2",
            "--rate",
            "40",
            "--seconds",
            "0.5",
            "--seed",
            "1",
        ]
        said = run.load(way(port), arguments, core=None)
    assert said["sent"] == said["answered"] == 20
    assert said["backlog_max"] > 0
    assert said["p99"] > said["p50"] > 500_000 * 0.99


# The upstream -----------------------------------------------------------------------------------------------------------


def test_the_upstream_counts_what_the_checks_ask_for(tmp_path: pathlib.Path) -> None:
    with paths.upstream(processes.Cores(None, None), tmp_path, tools=2) as port:
        before = paths.arrived(port)
        said = run.load(way(port, authorization=paths.CREDENTIAL), [*CALLS, "--canary-every", "4"], core=None)
        arrived = paths.arrived(port).since(before)
    assert arrived.calls == arrived.traced == arrived.named == arrived.credential == said["sent"] > 0
    assert arrived.others == said["canaries"] > 0
    assert arrived.anonymous == arrived.foreign == 0


def test_the_upstream_knows_another_credential_from_its_own(tmp_path: pathlib.Path) -> None:
    with paths.upstream(processes.Cores(None, None), tmp_path) as port:
        said = run.load(way(port), CALLS, core=None)
        arrived = paths.arrived(port)
    assert arrived.foreign == said["sent"]
    sent = validity.Sent(sent=arrived.calls, answered=0, echoed=0, refused=0, canaries=0, wrong=0, lost=0)
    found = validity.of_upstream(sent, arrived, refuses=False, credential="credential")
    assert any("credential" in sentence for sentence in found)


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
    subject = decision.subject(20, __import__("random").Random(1))
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
