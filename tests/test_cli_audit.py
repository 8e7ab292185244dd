# SPDX-License-Identifier: Apache-2.0
"""`outrider audit` as a user runs it, on journals a real proxy's journal wrote."""

from __future__ import annotations

import json
import pathlib
import shutil
import signal
import stat
import subprocess
import sys
import textwrap

import pytest
from click import testing
from tests import journals

from outrider import audit
from outrider_cli import audit as audit_command

ROOT = pathlib.Path(__file__).resolve().parent.parent


def run(*arguments, **environment):
    return testing.CliRunner().invoke(audit_command.group, [str(each) for each in arguments], env=environment)


@pytest.fixture
def folder(tmp_path):
    """A folder `outrider dev` ran with: five attempts, one still under way."""
    clock = journals.Clock()
    book = journals.opened(tmp_path / ".outrider" / "journal", clock)
    book.intent(journals.intent("E1", arguments=audit.Body(bytes=20, content='{"q":"Acme Corp"}')))
    book.outcome(journals.outcome("E1", cost=2_500_000, ours_micros=420, upstream_micros=8_000))
    clock.now += 60
    book.refusal(
        audit.RefusalRecord(
            event="E2", request_id="E2", reason="Denied", principal=audit.Principal(workload="agents/bot"),
            server="crm/s", tool="delete_account",
        )
    )  # fmt: skip
    clock.now += 60
    ada = audit.Principal(
        workload="agents/bot", user="okta:ada", names=("okta:ada@corp.example",), groups=("okta:sales",)
    )
    book.intent(journals.intent("E3", server="hr/people", tool="list", principal=ada))
    book.outcome(journals.outcome("E3", status=audit.Status.FAILED, reason="ToolError"))
    book.refusal(audit.Summary(since=clock.now, until=clock.now + 60, counts={"LocalAuthRefused": 9}))
    clock.now += 60
    book.intent(journals.intent("E4"))
    book.close()
    return tmp_path


def found(folder, *filters):
    result = run("search", "-f", folder, "-o", "jsonl", *filters)
    assert result.exit_code in (0, 1), result.output
    return [json.loads(line).get("requestId", "summary") for line in result.stdout.splitlines()]


@pytest.mark.parametrize(
    ("filters", "expected"),
    [
        ([], ["E1", "E2", "E3", "summary", "E4"]),
        (["--server", "crm/s"], ["E1", "E2", "E4"]),
        (["--server", "hr/*"], ["E3"]),
        (["--tool", "delete_*"], ["E2"]),
        (["--decision", "refused"], ["E2", "summary"]),
        (["--decision", "Allowed", "--server", "crm/s"], ["E1", "E4"]),
        (["--reason", "toolerror"], ["E3"]),
        (["--principal", "sa:agents/bot"], ["E1", "E2", "E3", "E4"]),
        (["--principal", "agents/other"], []),
        (["--user", "okta:ada"], ["E3"]),
        (["--user", "okta:*"], ["E3"]),
        (["--user", "*@corp.example"], ["E3"]),
        (["--user", "*"], ["E3"]),
        (["--user", "okta:bob"], []),
        (["--text", "OKTA:sales"], ["E3"]),
        (["--request", "e3"], ["E3"]),
        (["--text", "acme corp"], ["E1"]),
        (["--text", '{"q":'], ["E1"]),
        (["--since", "2025-06-15T15:08:10"], ["E3", "summary", "E4"]),
        (["--until", "2025-06-15T17:08:10+02:00"], ["E1", "E2"]),
        (["--since", "1h"], []),
        (["-n", "2"], ["summary", "E4"]),
    ],
)
def test_search_gives_what_fits_every_filter(folder, filters, expected):
    assert found(folder, *filters) == expected


def test_the_user_behind_a_workload_is_shown_beside_it(folder):
    table = run("search", "-f", folder, "--tool", "list").stdout
    assert "agents/bot for okta:ada" in table


def test_nothing_found_is_a_negative_answer_and_says_so_on_stderr(folder):
    result = run("search", "-f", folder, "--tool", "nothing")
    assert (result.exit_code, result.stdout) == (1, "")
    assert "no record fits" in result.stderr


def test_a_row_holds_verdict_latencies_cost_and_request_id(folder):
    result = run("search", "-f", folder, "-o", "json", "--request", "E1")
    (row,) = json.loads(result.stdout)
    assert row["requestId"] == "E1"
    assert (row["oursMicros"], row["upstreamMicros"], row["cost"]) == (420, 8000, "2.5")
    assert row["arguments"]["content"] == '{"q":"Acme Corp"}'


def test_the_table_is_plain_text_when_nobody_looks_at_it(folder):
    result = run("search", "-f", folder)
    lines = result.stdout.splitlines()
    assert lines[0].split()[:4] == ["TIME", "REQUEST", "WHO", "SERVER"]
    assert len(lines) == 6
    assert "2025-06-15T15:06:40.000Z" in lines[1]
    assert "\x1b" not in result.stdout
    assert "LocalAuthRefused x9" in result.stdout


def test_what_an_agent_chose_cannot_draw_on_the_terminal(tmp_path):
    book = journals.opened(tmp_path / "j")
    book.refusal(audit.RefusalRecord(event="e", request_id="r", reason="ToolUnknown", tool="\x1b[2Jx\u202ey"))
    book.close()
    result = run("search", "--journal", tmp_path / "j")
    assert "?[2Jx?y" in result.stdout
    assert "\x1b" not in result.stdout


@pytest.mark.parametrize(
    "arguments",
    [
        ["search", "--since", "yesterday-ish"],
        ["search", "--decision", "maybe"],
        ["search", "-o", "xml"],
        ["export", "--format", "csv"],
        ["tail", "-n", "-1"],
        ["verify", "--expect", "abc"],
        ["verify", "--key", "no such file"],
        ["verify", "--no-key", "--key", __file__],
        ["verify", "--from-segment", "0"],
    ],
)
def test_what_cannot_be_meant_is_a_usage_error(folder, arguments):
    result = run(*arguments, "--folder", folder)
    assert result.exit_code == 2
    assert "Usage:" in result.stderr
    assert result.stdout == ""


@pytest.mark.parametrize("command", ["tail", "search", "verify", "export"])
def test_where_there_is_no_journal_every_command_says_what_to_do(tmp_path, command):
    result = run(command, "--folder", tmp_path)
    assert result.exit_code == 4
    assert "start `outrider dev`, or name one with --journal" in result.stderr
    assert result.stdout == ""


@pytest.mark.parametrize("command", ["tail", "search", "verify", "export"])
def test_the_journal_may_be_named_in_the_environment(folder, command):
    result = run(command, OUTRIDER_JOURNAL=str(folder / ".outrider" / "journal"))
    assert result.exit_code == 0, result.stderr


def test_verify_says_ok_and_counts(folder):
    result = run("verify", "-f", folder)
    assert result.exit_code == 0
    end = journals.report(folder / ".outrider" / "journal").digest.hex()
    assert result.stdout == f"ok: 8 records in 1 segments, 1 calls under way\ndigest: {end}\n"
    found = json.loads(run("verify", "-f", folder, "-o", "json").stdout)
    assert (found["ok"], found["records"], found["digest"], found["authenticated"]) == (True, 8, end, True)


@pytest.mark.parametrize("how", ["edit", "cut", "delete", "head", "bad head"])
def test_verify_finds_tampering_and_says_where(folder, how):
    journal = folder / ".outrider" / "journal"
    path = journal / "00000001.seg"
    content = path.read_bytes()
    frame = journals.frames(content)[3]
    if how == "edit":
        path.write_bytes(content.replace(b"delete_account", b"select_account"))
    elif how == "cut":
        path.write_bytes(content[:-1])
    elif how == "delete":
        path.write_bytes(content[: frame.offset] + content[frame.end :])
    elif how == "head":
        (journal / "head.json").unlink()
    else:
        (journal / "head.json").write_bytes(b"\xff")
    result = run("verify", "-f", folder)
    assert result.exit_code == 1
    assert result.stdout.startswith("damaged: segment ")
    assert "keep the journal as it is" in result.stderr
    if how in ("edit", "delete"):
        assert f"segment 1 offset {frame.offset}, after record 3:" in result.stdout
    verdict = json.loads(run("verify", "-f", folder, "-o", "json").stdout)
    assert (verdict["ok"], "why" in verdict) == (False, True)


def test_verify_accepts_removed_segments_only_when_told(tmp_path):
    book = journals.opened(tmp_path / "j", segment_bytes_max=500)
    for number in range(10):
        book.intent(journals.intent(f"e{number}"))
    book.close()
    (tmp_path / "j" / "00000001.seg").unlink()
    assert "segment 1 is missing" in run("verify", "-f", tmp_path / "j").stdout
    assert run("verify", "-f", tmp_path / "j", "--from-segment", "2").exit_code == 0


def test_verify_works_beside_a_running_proxy(tmp_path):
    book = journals.opened(tmp_path / "j")
    book.intent(journals.intent())
    assert run("verify", "--journal", tmp_path / "j").exit_code == 0
    book.close()


def test_search_in_a_damaged_journal_gives_what_it_can_and_says_what_it_cannot(folder):
    path = folder / ".outrider" / "journal" / "00000001.seg"
    content = path.read_bytes()
    frames = journals.frames(content)
    path.write_bytes(content[: frames[4].offset] + content[frames[5].offset :])
    result = run("search", "-f", folder, "-o", "jsonl")
    assert result.exit_code == 4
    assert [json.loads(line)["requestId"] for line in result.stdout.splitlines()] == ["E1", "E2"]
    assert f"segment 1 offset {frames[4].offset}" in result.stderr
    assert "outrider audit verify" in result.stderr


def test_export_writes_every_record_as_it_stands(folder, tmp_path):
    result = run("export", "-f", folder)
    lines = [json.loads(line) for line in result.stdout.splitlines()]
    assert [line["sequence"] for line in lines] == list(range(1, 9))
    assert [line["record"]["type"] for line in lines[:4]] == ["opening", "intent", "outcome", "refusal"]
    assert "8 records" in result.stderr
    written = run("export", "-f", folder, "--format", "jsonl", "-o", tmp_path / "out.jsonl")
    assert (written.exit_code, written.stdout) == (0, "")
    assert (tmp_path / "out.jsonl").read_text() == result.stdout
    assert stat.S_IMODE((tmp_path / "out.jsonl").stat().st_mode) == 0o600


def test_an_export_that_cannot_be_written_is_said_in_a_sentence(folder, tmp_path):
    result = run("export", "-f", folder, "-o", tmp_path / "no" / "out.jsonl")
    assert result.exit_code == 4
    assert "No such file or directory; check the path" in result.stderr


def forged(folder):
    """What somebody who can write the folder does: the newest record gone, and a head that says so."""
    journal = folder / ".outrider" / "journal"
    content = (journal / "00000001.seg").read_bytes()
    last = journals.frames(content)[-2]
    (journal / "00000001.seg").write_bytes(content[: last.end])
    held = json.loads((journal / "head.json").read_bytes())
    (journal / "head.json").write_text(json.dumps(held | {"offset": last.end, "digest": last.digest.hex()}))


def test_records_cut_off_together_with_a_mended_head_are_found_by_the_key(folder):
    forged(folder)
    result = run("verify", "-f", folder)
    assert result.exit_code == 1
    assert result.stdout.startswith("damaged: segment 1 offset ")
    assert "the head file was changed" in result.stdout
    assert run("verify", "-f", folder, "--no-key").exit_code == 0


def test_without_its_key_a_journal_is_not_called_whole_unless_that_is_enough(folder, tmp_path):
    key = folder / ".outrider" / "journal-key"
    assert stat.S_IMODE(key.stat().st_mode) == 0o600
    elsewhere = key.rename(tmp_path / "key")
    result = run("verify", "-f", folder)
    assert result.exit_code == 1
    assert result.stdout == f"not certain: the head could not be authenticated: there is no key {key}\n"
    assert "--no-key" in result.stderr
    assert json.loads(run("verify", "-f", folder, "-o", "json").stdout)["ok"] is False
    content = run("verify", "-f", folder, "--no-key")
    assert content.exit_code == 0
    assert "the head was not authenticated" in content.stdout
    assert run("verify", "-f", folder, "--key", elsewhere).exit_code == 0
    elsewhere.write_bytes(bytes(32))
    assert "the head file was changed" in run("verify", "-f", folder, "--key", elsewhere).stdout
    elsewhere.write_bytes(b"short")
    unusable = run("verify", "-f", folder, "--key", elsewhere)
    assert (unusable.exit_code, unusable.stdout) == (4, "")
    assert "is no key of a journal" in unusable.stderr


def test_a_digest_noted_outside_finds_what_the_key_cannot(folder):
    journal = folder / ".outrider" / "journal"
    noted = json.loads(run("verify", "-f", folder, "-o", "json").stdout)["digest"]
    journals.opened(journal).close()
    assert run("verify", "-f", folder, "--expect", noted.upper()).exit_code == 0, "it went on from there"
    shutil.rmtree(journal)
    journals.opened(journal).close()  # made anew by who holds the key
    assert run("verify", "-f", folder).exit_code == 0
    result = run("verify", "-f", folder, "--expect", noted)
    assert result.exit_code == 1
    assert f"no record has the digest {noted}" in result.stdout


@pytest.mark.parametrize("arguments", [["-f"], ["-f", "-o", "jsonl"], ["-n", "3", "-f"]])
def test_tail_says_how_to_follow_to_who_expects_it_of_f(folder, arguments):
    result = run("tail", *arguments)
    assert result.exit_code == 2
    assert "-f takes the folder, as everywhere; to follow, write -F or --follow" in result.stderr


def test_what_was_only_counted_is_a_row_that_says_so(folder):
    for command in ("search", "tail"):
        (line,) = [line for line in run(command, "-f", folder).stdout.splitlines() if "x9" in line]
        assert line.split() == [
            "2025-06-15T15:08:40.000Z", "summary", "beforeAuthentication", "Refused", "LocalAuthRefused", "x9",
        ]  # fmt: skip
    assert found(folder, "--since", "2025-06-15T15:09:30") == ["summary", "E4"]
    assert found(folder, "--until", "2025-06-15T15:08:30") == ["E1", "E2"]


def test_one_long_name_does_not_stretch_a_table_and_is_whole_in_json(tmp_path):
    book, tool = journals.opened(tmp_path / "j"), "t" * 300
    book.refusal(journals.refusal("ToolUnknown", tool=tool))
    book.close()
    plain = run("search", "--journal", tmp_path / "j").stdout
    assert "t" * 39 + "…" in plain
    assert max(map(len, plain.splitlines())) < 150
    assert json.loads(run("search", "--journal", tmp_path / "j", "-o", "jsonl").stdout)["tool"] == tool


def test_tail_shows_the_newest(folder):
    assert len(run("tail", "-f", folder).stdout.splitlines()) == 5
    lines = run("tail", "-f", folder, "-n", "2", "-o", "jsonl").stdout.splitlines()
    assert [json.loads(line)["reason"] for line in lines] == ["ToolError", "LocalAuthRefused"]
    assert run("tail", "-f", folder, "-n", "0").stdout == ""


FOLLOW = """
    import sys
    sys.path[:0] = [{operator!r}, {sidecar!r}]
    from outrider_cli import audit
    {last}
"""


def script(last):
    return textwrap.dedent(FOLLOW).format(
        operator=str(ROOT / "operator"), sidecar=str(ROOT / "sidecar"), last=last
    )


def test_tail_goes_on_with_what_is_written(tmp_path):
    book = journals.opened(tmp_path / "j", segment_bytes_max=500)
    book.refusal(journals.refusal("Denied"))
    tail = subprocess.Popen(
        [
            sys.executable,
            "-u",
            "-c",
            script("audit.group()"),
            "tail",
            "-F",
            "-o",
            "jsonl",
            "--journal",
            tmp_path / "j",
        ],
        stdout=subprocess.PIPE,
        text=True,
    )
    assert json.loads(tail.stdout.readline())["reason"] == "Denied"
    for number in range(5):
        book.intent(journals.intent(f"e{number}"))
        book.outcome(journals.outcome(f"e{number}"))
        assert json.loads(tail.stdout.readline())["requestId"] == f"e{number}"
    tail.send_signal(signal.SIGINT)
    assert tail.wait(10) == 0
    tail.stdout.close()
    book.close()


def test_help_loads_neither_rich_nor_asyncio():
    last = "print('rich' in sys.modules, 'asyncio' in sys.modules)"
    ran = subprocess.run([sys.executable, "-c", script(last)], capture_output=True, text=True, check=True)
    assert ran.stdout == "False False\n"


@pytest.mark.parametrize(
    ("row", "shown"),
    [
        ({"tool": "query"}, "query"), ({"tool": "query", "method": "tools/call"}, "query"), ({}, ""),
        ({"tool": "greet", "method": "prompts/get"}, "prompts/get greet"),
        ({"tool": "doc://a", "method": "resources/read"}, "resources/read doc://a"), ({"method": ""}, ""),
    ],
)  # fmt: skip
def test_what_is_no_tool_is_shown_with_its_method(row, shown):
    assert audit_command._about(row) == shown
