# SPDX-License-Identifier: Apache-2.0
"""How every command speaks: results on stdout, progress and errors on stderr, one meaning per exit code.

Called by all commands. An error says what is wrong, why, and what to do next. Refuses to colour what is not a terminal, and
whatever NO_COLOR is set for (rich reads it itself).
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from typing import IO, Any

import click

OK = 0
NO = 1
"""A negative answer: not allowed, not verified, not ready."""
USAGE = 2
GATE = 3
"""A gate in CI closed: the question was answered, and the answer must stop a merge."""
UNREACHABLE = 4
"""Something that had to be read or called could not be."""

_GAP = "  "


class Stop(click.ClickException):
    """Ends a command: `what` is wrong, perhaps `why`, and `then` the next thing to do; exits with `code`."""

    def __init__(self, code: int, what: str, *, why: str = "", then: str = "") -> None:
        super().__init__(f"{what}: {why}" if why else what)
        self.exit_code = code  # type: ignore[misc]  # click reads it from the instance
        self.then = then

    def show(self, file: IO[Any] | None = None) -> None:
        """To stderr, as every error."""
        click.echo(f"Error: {self.message}", file=file or sys.stderr)
        if self.then:
            click.echo(f"Next: {self.then}", file=file or sys.stderr)


def progress(text: str) -> None:
    """What is going on, for whoever watches; never part of a result."""
    click.echo(text, err=True)


def as_json(value: Any) -> None:
    """One indented JSON document."""
    click.echo(json.dumps(value, indent=2, ensure_ascii=False))


def as_line(value: Any) -> None:
    """One line of JSON."""
    click.echo(json.dumps(value, ensure_ascii=False))


def table(headers: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """A table: drawn by rich on a terminal, plain aligned columns everywhere else, so that pipes can cut it."""
    if sys.stdout.isatty():
        from rich import box, console, markup  # only here: the import costs more than most commands
        from rich import table as tables

        drawn = tables.Table(*headers, box=box.SIMPLE_HEAD, pad_edge=False)
        for row in rows:
            drawn.add_row(*(markup.escape(cell) for cell in row))
        console.Console().print(drawn)
        return
    lines = [[printable(cell) for cell in row] for row in (headers, *rows)]
    widths = [max(len(line[column]) for line in lines) for column in range(len(headers))]
    for line in lines:
        cells = [cell.ljust(width) for cell, width in zip(line, widths, strict=True)]
        click.echo(_GAP.join(cells).rstrip())


def printable(text: str) -> str:
    """`text` without anything that moves a cursor or hides: names and messages were written by others."""
    return "".join(each if each.isprintable() else f"\\u{ord(each):04x}" for each in text)


def money(micro: int, currency: str) -> str:
    """Micro-units as a decimal amount, such as `0.0125 USD`."""
    whole, part = divmod(micro, 1_000_000)
    digits = f"{part:06d}".rstrip("0").ljust(2, "0")
    return f"{whole}.{digits} {currency}"
