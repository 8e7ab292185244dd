# SPDX-License-Identifier: Apache-2.0
"""Processes that are kept: real children, really killed; time is a number."""

from __future__ import annotations

import os
import pathlib
import signal
import sys

import pytest

from outrider_cli import children, crew, folder, output

SERVER_BEHIND = "sleep 300 & echo $! > PID; wait; exec sleep 300"
"""A bridge that lives on when its server has ended, as mcp-proxy does."""


@pytest.fixture
def home(tmp_path: pathlib.Path) -> folder.Folder:
    made = folder.at(str(tmp_path))
    (made.state / "logs").mkdir(parents=True)
    return made


def ended(member: crew.Member) -> int:
    assert member.child is not None
    return member.child.process.wait(15)


def test_a_death_is_said_and_mended_after_a_while_and_the_log_goes_on(home: folder.Folder) -> None:
    kept = crew.Crew(home)
    member = kept.start(crew.Member("one", ["sh", "-c", "echo here; exit 3"], "Nobody sings."))
    assert ended(member) == 3
    said = kept.tend(100.0)
    assert len(said) == 1
    assert "one: ended with code 3. Nobody sings. Starting it again in 0.2 s (1 of at most 5" in said[0]
    assert kept.tend(100.1) == []
    assert kept.tend(100.3) == ["one: started again."]
    assert ended(member) == 3
    assert (home.state / "logs" / "one.log").read_text() == "here\nhere\n"
    kept.close()


def test_what_dies_too_often_ends_the_run_with_its_last_lines(
    home: folder.Folder, capsys: pytest.CaptureFixture[str]
) -> None:
    kept, now, waits = crew.Crew(home), 0.0, []
    member = kept.start(crew.Member("sad", ["sh", "-c", "echo farewell; exit 9"], ""))
    for _ in range(crew.RESTARTS_MAX):
        ended(member)
        kept.tend(now)
        assert member.due is not None
        waits.append(round(member.due - now, 3))
        now = member.due
        kept.tend(now)
    ended(member)
    with pytest.raises(output.Stop) as stopped:
        kept.tend(now)
    assert waits == [0.2, 0.4, 0.8, 1.6, 3.2]
    assert stopped.value.exit_code == output.UNREACHABLE
    assert "sad ended with code 9, and 5 restarts in 60 s did not help" in stopped.value.message
    assert "  | farewell" in capsys.readouterr().err


def test_deaths_of_long_ago_do_not_count(home: folder.Folder) -> None:
    kept = crew.Crew(home)
    member = kept.start(crew.Member("old", ["sh", "-c", "exit 1"], ""))
    for round_ in range(3 * crew.RESTARTS_MAX):
        ended(member)
        assert "(1 of at most" in kept.tend(100.0 * round_)[0]
        kept.tend(100.0 * round_ + 1)
    kept.close()


def test_while_starting_a_death_is_final(home: folder.Folder) -> None:
    kept = crew.Crew(home)
    member = kept.start(crew.Member("one", ["sh", "-c", "exit 4"], ""))
    ended(member)
    with pytest.raises(output.Stop, match="one ended with code 4"):
        kept.check()


@pytest.mark.skipif(sys.platform != "linux", reason="the shell's child is found in /proc")
def test_a_bridge_whose_server_ends_is_ended_and_said(home: folder.Folder) -> None:
    kept = crew.Crew(home)
    line = ["sh", "-c", SERVER_BEHIND.replace("PID", str(home.state / "pid"))]
    member = kept.start(crew.Member("bridge", line, "Calls fail.", with_child=True))
    child = member.child
    assert isinstance(child, children.Child)
    with pytest.raises(children.subprocess.TimeoutExpired):
        child.process.wait(1.5)  # while its server lives it is left alone
    os.kill(int((home.state / "pid").read_text()), signal.SIGKILL)
    assert child.process.wait(15) == 70
    assert "bridge: the server behind it ended. Calls fail." in kept.tend(5.0)[0]
    assert "the server behind the bridge has ended" in child.log.read_text()
    kept.close()
