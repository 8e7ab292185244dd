# SPDX-License-Identifier: Apache-2.0
"""How commands speak: errors, tables, amounts."""

from __future__ import annotations

import os
import pty
import subprocess
import sys

import click
import hypothesis
import pytest
from click import testing
from hypothesis import strategies as st

from outrider_cli import output


def test_an_error_says_what_why_and_what_next_on_stderr_and_exits_with_its_code() -> None:
    @click.command()
    def broken() -> None:
        raise output.Stop(output.UNREACHABLE, "the thing", why="is away", then="call it back")

    ran = testing.CliRunner().invoke(broken)
    assert ran.exit_code == 4
    assert ran.stderr == "Error: the thing: is away\nNext: call it back\n"
    assert ran.stdout == ""


def test_a_table_in_a_pipe_is_plain_aligned_columns(capsys: pytest.CaptureFixture[str]) -> None:
    output.table(["A", "LONGER"], [["xyz", "1"], ["y", "[bold]2"]])
    assert capsys.readouterr().out == "A    LONGER\nxyz  1\ny    [bold]2\n"


def _on_a_terminal(env: dict[str, str]) -> str:
    """What `table` writes to a real terminal."""
    ours, theirs = pty.openpty()
    program = "from outrider_cli import output; output.table(['HEAD'], [['[red]cell[/red]']])"
    with subprocess.Popen(
        [sys.executable, "-c", program], stdout=theirs, env={**os.environ, "TERM": "xterm", **env}
    ) as ran:
        os.close(theirs)
        shown = b""
        while True:
            try:
                chunk = os.read(ours, 4096)
            except OSError:
                break
            if not chunk:
                break
            shown += chunk
        assert ran.wait() == 0
    os.close(ours)
    return shown.decode()


def test_a_table_on_a_terminal_takes_no_markup_from_its_cells() -> None:
    assert "[red]cell[/red]" in _on_a_terminal({})


def test_no_color_leaves_no_colour_on_a_terminal() -> None:
    assert "\x1b[3" not in _on_a_terminal({"NO_COLOR": "1"})


@hypothesis.given(st.text())
def test_what_is_printable_cannot_steer_a_terminal(text: str) -> None:
    shown = output.printable(text)
    assert shown.isprintable()
    if text.isprintable():
        assert shown == text


@pytest.mark.parametrize(
    ("micro", "text"),
    [(0, "0.00 USD"), (2_000, "0.002 USD"), (1_500_000, "1.50 USD"), (12_000_001, "12.000001 USD")],
)
def test_money_is_exact(micro: int, text: str) -> None:
    assert output.money(micro, "USD") == text
