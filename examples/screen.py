# SPDX-License-Identifier: Apache-2.0
"""What the demo shows: a live table on a terminal, plain lines everywhere else.

Used by demo.py. Shows what it is given and decides nothing.
"""

from __future__ import annotations

import pathlib
import sys
from typing import Any, Self

from examples import agent

_HEADERS = ("CALL", "TOOL", "EXPECTED", "VERDICT", "RULE OR REASON", "OURS", "SERVER'S", "COST", "REQUEST")
_WIDTHS = (30, 29, 15, 15, 32, 8, 10, 9, 26)
_WIDE_COLUMNS = 160
_COLOURS = {agent.ALLOWED: "green", agent.HIDDEN: "magenta", agent.REFUSED: "red"}


class Screen:
    """Use it as a context while calls are made; `say` and `ran` are for before and after."""

    def __init__(self) -> None:
        self._live: Any = None
        self._table: Any = None
        self._wide = True
        self._requests: dict[str, str] = {}

    def __enter__(self) -> Self:
        if sys.stdout.isatty():
            from rich import box, console, live, table

            self._wide = console.Console().width >= _WIDE_COLUMNS
            self._table = table.Table(*self._fitting(_HEADERS), box=box.SIMPLE_HEAD, pad_edge=False)
            self._table.columns[-1].min_width = _WIDTHS[-1]  # half a request id is none
            self._live = live.Live(self._table, refresh_per_second=8, vertical_overflow="visible")
            self._live.start()
        else:
            self._line(_HEADERS)
        return self

    def __exit__(self, *_: object) -> None:
        if self._live is not None:
            self._live.stop()
        self.say("")

    def add(self, step: agent.Step, ending: agent.Ending, row: dict[str, Any]) -> None:
        """One call that has ended; `row` is its record in the journal."""
        self._requests.setdefault(step.tool, row["requestId"])
        upstream = row.get("upstreamMicros", 0)
        cells = (
            step.what,
            step.tool,
            step.expected,
            ending.verdict,
            ending.rule or ("" if ending.verdict == agent.ALLOWED else row["reason"]),
            f"{row['oursMicros'] / 1000:.2f} ms",
            f"{upstream / 1000:.1f} ms" if upstream else "-",
            row.get("cost") or "-",
            row["requestId"],
        )
        if self._table is None:
            self._line(cells)
            return
        style = (
            "bold white on red" if ending.verdict != step.expected else _COLOURS.get(ending.verdict, "yellow")
        )
        self._table.add_row(*self._fitting(cells), style=style)

    def _fitting(self, cells: tuple[str, ...]) -> tuple[str, ...]:
        """A narrow terminal does without the tool, the rule, and (a wrong verdict stands out) what was expected."""
        return cells if self._wide else (cells[0], cells[3], *cells[5:])

    def request_of(self, tool: str) -> str:
        """The id of the first call of a tool that was shown."""
        return self._requests[tool]

    def say(self, text: str) -> None:
        """A line."""
        sys.stdout.write(f"{text}\n")
        sys.stdout.flush()

    def ran(self, command: str, output: str, *, lines_max: int) -> None:
        """A command and the first lines of what it said."""
        lines = output.splitlines()
        more = "\n  ..." if len(lines) > lines_max else ""
        self.say(f"$ {command}\n" + "\n".join(f"  {line}" for line in lines[:lines_max]) + more + "\n")

    def what_next(self, folder: pathlib.Path) -> None:
        """How to go on by oneself."""
        self.say("Everything stays up. Try in another terminal:")
        self.say(f"  outrider can-i --list -f {folder}")
        self.say(f"  outrider can-i call crm/salesforce query --as sa:hr-agents/helper -f {folder}")
        self.say(f"  outrider audit tail --follow --folder {folder}")
        self.say(
            f"  edit {folder}/policies.yaml and call again; point a client at {folder}/.outrider/mcp.json"
        )
        self.say("Ctrl-C ends everything.")

    def _line(self, cells: tuple[str, ...]) -> None:
        padded = (cell.ljust(width) for cell, width in zip(cells, _WIDTHS, strict=True))
        self.say("  ".join(padded).rstrip())
