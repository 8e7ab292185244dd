# SPDX-License-Identifier: Apache-2.0
"""The command line itself: what it lists, how fast it is there, and how it says no."""

from __future__ import annotations

import subprocess
import sys

import pytest
from click import testing

from outrider_cli import main


def run(*line: str) -> testing.Result:
    return testing.CliRunner().invoke(main.cli, list(line))


def test_help_lists_every_command_with_its_line() -> None:
    shown = run("--help")
    assert shown.exit_code == 0
    for name, (_, _, text) in main.COMMANDS.items():
        assert name in shown.stdout
        assert text.split(maxsplit=1)[0] in shown.stdout
    assert "Exit codes: 0 ok, 1 negative answer, 2 usage, 3 gate closed, 4 unreachable." in shown.stdout


@pytest.mark.parametrize("name", list(main.COMMANDS))
def test_a_commands_line_in_the_list_is_the_one_it_has_itself(name: str) -> None:
    found = main.cli.get_command(None, name)
    assert found is not None
    assert found.get_short_help_str(limit=200) == main.COMMANDS[name][2]
    assert run(name, "--help").exit_code == 0


def test_help_imports_nothing_that_takes_time() -> None:
    program = (
        "import sys; from outrider_cli import main\n"
        "try: main.cli.main(['--help'], standalone_mode=False)\n"
        "finally: print('LOADED', [n for n in ('rich', 'aiohttp', 'pydantic', 'msgspec', 'yaml', 'asyncio') if n in sys.modules])"
    )
    ran = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert ran.stdout.splitlines()[-1] == "LOADED []"


def test_an_unknown_command_is_a_usage_error_that_names_it() -> None:
    ran = run("simulatte")
    assert ran.exit_code == 2
    assert "simulatte" in ran.stderr
    assert ran.stdout == ""


def test_the_console_script_says_whose_name_it_was_called_by() -> None:
    program = "import sys; sys.argv = ['/usr/bin/kubectl-outrider', '--help']; from outrider_cli import main; main.main()"
    ran = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert ran.stdout.startswith("Usage: kubectl outrider ")
