# SPDX-License-Identifier: Apache-2.0
"""The tether: whatever happens to the holder, nothing is left running. Real processes, real signals."""

from __future__ import annotations

import os
import pathlib
import signal
import subprocess
import sys

import pytest

from outrider_cli import tether

LINUX = pytest.mark.skipif(sys.platform != "linux", reason="needs Linux's subreaper")


def start(*command: str) -> subprocess.Popen[bytes]:
    line = [sys.executable, "-I", "-S", str(pathlib.Path(tether.__file__)), *command]
    return subprocess.Popen(line, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE)


def a_pid(held: subprocess.Popen[bytes]) -> int:
    assert held.stdout is not None
    return int(held.stdout.readline())


def is_over(pid: int) -> bool:
    """True when no such process runs (a zombie waits only for its parent to look)."""
    try:
        return pathlib.Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except FileNotFoundError:
        return True


def ends(held: subprocess.Popen[bytes]) -> int:
    code = held.wait(15)
    for stream in (held.stdin, held.stdout, held.stderr):
        if stream is not None:
            stream.close()
    return code


@pytest.mark.parametrize("code", [0, 7])
def test_the_code_is_the_commands(code: int) -> None:
    assert ends(start("sh", "-c", f"exit {code}")) == code


def test_a_command_ended_by_a_signal_is_128_and_the_signal() -> None:
    assert ends(start("sh", "-c", "kill -9 $$")) == 128 + 9


def test_a_command_that_is_not_there_is_127_and_said() -> None:
    held = start("/nowhere/program")
    _, said = held.communicate(timeout=15)
    assert held.returncode == 127
    assert b"/nowhere/program could not be started" in said


def test_the_end_of_standard_input_ends_the_command_gently() -> None:
    held = start("sh", "-c", 'trap "exit 42" TERM; echo $$; while :; do sleep 0.05; done')
    pid = a_pid(held)
    assert held.stdin is not None
    held.stdin.close()
    assert ends(held) == 42
    assert is_over(pid)


def test_a_signal_to_the_tether_ends_the_command() -> None:
    held = start("sh", "-c", "echo $$; exec sleep 300")
    pid = a_pid(held)
    held.send_signal(signal.SIGTERM)
    assert ends(held) == 128 + signal.SIGTERM
    assert is_over(pid)


@LINUX
def test_what_went_into_another_session_is_ended_too() -> None:
    # The far child leaves group and session, as stdio servers do when an SDK starts them.
    held = start("sh", "-c", "setsid sh -c 'echo $$; exec sleep 300' & wait")
    pid = a_pid(held)
    assert held.stdin is not None
    held.stdin.close()
    ends(held)
    assert is_over(pid)


@LINUX
def test_a_holder_that_is_killed_without_warning_leaves_nothing() -> None:
    program = (
        "import subprocess, sys, time\n"
        f"p = subprocess.Popen([sys.executable, '-I', '-S', {str(pathlib.Path(tether.__file__))!r}, 'sh', '-c',"
        " 'echo $$; exec sleep 300'], stdin=subprocess.PIPE)\n"
        "time.sleep(300)\n"
    )
    holder = subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE)
    pid = a_pid(holder)
    watched = os.pidfd_open(pid)
    holder.kill()
    ends(holder)
    import select

    assert select.select([watched], [], [], 15)[0], "the command outlived its holder"
    os.close(watched)
    assert is_over(pid)
