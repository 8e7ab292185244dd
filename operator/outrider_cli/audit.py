# SPDX-License-Identifier: Apache-2.0
"""`outrider audit`: tail, search, verify and export the journal of a proxy, from its files.

Called by `main`. Results on stdout, everything else on stderr. Exit codes: 0 ok, 1 a negative answer (nothing matches, or
the journal was tampered with or cannot be vouched for), 2 usage, 4 there is nothing that can be read.
"""

from __future__ import annotations

import collections
import contextlib
import dataclasses
import datetime as dt
import itertools
import os
import pathlib
import re
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from typing import Any, BinaryIO

import click
import msgspec

from outrider import rules
from outrider_cli import attempts, verdicts

NEGATIVE = 1
UNREADABLE = 4
FOLLOW_SECONDS = 0.2
CELL_CHARACTERS_MAX = 40
_AGES = {"s": 1, "m": 60, "h": 3600, "d": 86_400, "w": 604_800}
_COLUMNS = ("TIME", "REQUEST", "WHO", "SERVER", "TOOL", "DECISION", "REASON", "OURS", "SERVER'S", "COST")


@click.group("audit")
def group() -> None:
    """Read the journal: what was called, what was refused, and whether anybody changed it."""


def _where(command: Callable[..., None]) -> Callable[..., None]:
    """The options that say which journal; `-f` is the folder, as everywhere."""
    named = click.option(
        "--journal",
        type=click.Path(path_type=pathlib.Path, file_okay=False),
        envvar="OUTRIDER_JOURNAL",
        help="The journal's folder itself (or set OUTRIDER_JOURNAL).",
    )
    folder = click.option(
        "-f",
        "--folder",
        type=click.Path(path_type=pathlib.Path, file_okay=False),
        default=".",
        help="The folder `outrider dev` runs with; its journal is in .outrider/journal.",
    )
    return named(folder(command))


def _output(*formats: str) -> Callable[[Callable[..., None]], Callable[..., None]]:
    return click.option("-o", "--output", type=click.Choice(formats), default=formats[0], help="Format.")


class _Tail(click.Command):
    """Tells who writes `tail -f` as elsewhere that -f takes a folder here."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        for at, word in enumerate(args):
            if word == "-f" and (at + 1 == len(args) or args[at + 1].startswith("-")):
                raise click.UsageError(
                    "-f takes the folder, as everywhere; to follow, write -F or --follow", ctx
                )
        return super().parse_args(ctx, args)


@group.command(cls=_Tail)
@click.option("-F", "--follow", is_flag=True, help="Go on with what is written from now on.")
@click.option(
    "-n", "--lines", type=click.IntRange(0), default=20, show_default=True, help="How many to begin with."
)
@_output("table", "jsonl")
@_where
def tail(
    *, follow: bool, lines: int, output: str, folder: pathlib.Path, journal: pathlib.Path | None
) -> None:
    """The newest attempts."""
    with _complaints():
        reader = attempts.Reader(attempts.place(folder, journal))
        under_way: dict[str, dict[str, Any]] = {}
        newest = collections.deque(attempts.rows(reader.entries(), under_way), maxlen=lines)
        if not follow:
            _print(newest, output)
            _exit_unless_whole(reader)
            return
        for row in newest:
            _print_line(row, output)
        with contextlib.suppress(KeyboardInterrupt, BrokenPipeError):
            while True:
                for row in attempts.rows(reader.entries(), under_way):
                    _print_line(row, output)
                time.sleep(FOLLOW_SECONDS)


@group.command()
@click.option("--server", help="NAMESPACE/NAME; * stands for anything.")
@click.option("--tool", help="A tool's name; * stands for anything.")
@click.option(
    "--decision", type=click.Choice(["Allowed", "Refused"], case_sensitive=False), help="What we said."
)
@click.option("--reason", help="Such as NotAllowed, ToolError, BudgetExceeded.")
@click.option("--principal", help="NAMESPACE/SERVICEACCOUNT; * stands for anything.")
@click.option("--user", help="PROVIDER:ID of the user behind the agent; * stands for anything.")
@click.option(
    "--since", help="A time (2026-07-01T12:00, UTC unless it says otherwise) or an age: 15m, 24h, 7d."
)
@click.option("--until", help="As --since.")
@click.option("--request", help="The request id an agent was told.")
@click.option("--text", help="Text that occurs anywhere in the record, in any case.")
@click.option("-n", "--lines", type=click.IntRange(1), help="Only the newest so many.")
@_output("table", "json", "jsonl")
@_where
def search(
    *, output: str, folder: pathlib.Path, journal: pathlib.Path | None, lines: int | None, **given: Any
) -> None:
    """The attempts that fit every filter. Exit code 1 when none does."""
    now = time.time()
    since, until = (_moment(option, given.pop(option), now) for option in ("since", "until"))
    wanted = Filter(since=since, until=until, **given)
    with _complaints():
        reader = attempts.Reader(attempts.place(folder, journal))
        under_way: dict[str, dict[str, Any]] = {}
        every = itertools.chain(attempts.rows(reader.entries(), under_way), _rest(under_way))
        matching: Iterable[dict[str, Any]] = (row for row in every if wanted.fits(row))
        if lines is not None:
            matching = collections.deque(matching, maxlen=lines)
        count = _print(matching, output)
        _exit_unless_whole(reader)
    if count == 0:
        click.echo("no record fits; widen the filters, or see `outrider audit tail`", err=True)
        raise click.exceptions.Exit(NEGATIVE)


@group.command()
@click.option(
    "--from-segment",
    type=click.IntRange(1),
    default=1,
    show_default=True,
    help="The oldest segment that must be there; older ones were exported and removed on purpose.",
)
@click.option(
    "--expect",
    metavar="DIGEST",
    help="A digest `verify` printed before: the journal must still lead through it.",
)
@click.option(
    "--key",
    type=click.Path(path_type=pathlib.Path, dir_okay=False, exists=True),
    help="The key of the journal's head; by default the proxy's own, journal-key beside the journal's folder.",
)
@click.option("--no-key", is_flag=True, help="Be content with a head nobody vouches for.")
@_output("text", "json")
@_where
def verify(*, output: str, folder: pathlib.Path, journal: pathlib.Path | None, **given: Any) -> None:
    """Whether any record was edited, deleted, moved or cut off. Exit code 1 when one was, with where.

    What it prints as `digest` is the end of the journal: noted elsewhere and given to --expect, it also finds what somebody
    does who has the proxy's key, or who puts an older state of the whole folder back.
    """
    if given["key"] is not None and given["no_key"]:
        raise click.UsageError("--key and --no-key exclude each other")
    expect = (given["expect"] or "").lower()
    if expect and re.fullmatch("[0-9a-f]{64}", expect) is None:
        raise click.BadParameter(
            "a digest is 64 hexadecimal digits, as `verify` prints it", param_hint="--expect"
        )
    with _complaints():
        place = attempts.place(folder, journal)
        found = verdicts.of(
            place,
            None if given["no_key"] else verdicts.key(place, given["key"]),
            first=given["from_segment"],
            expect=bytes.fromhex(expect) or None,
            content=given["no_key"],
        )
    if output == "json":
        click.echo(msgspec.json.encode(found))
    else:
        said, advice = verdicts.in_words(found)
        click.echo(said)
        if advice:
            click.echo(advice, err=True)
    if not found["ok"]:
        raise click.exceptions.Exit(NEGATIVE)


@group.command()
@click.option(
    "--format", "encoding", type=click.Choice(["jsonl"]), default="jsonl", help="One record per line."
)
@click.option(
    "-o",
    "--output",
    "file",
    type=click.Path(path_type=pathlib.Path, dir_okay=False),
    help="A file (made readable for you alone) instead of stdout.",
)
@_where
def export(
    *, encoding: str, file: pathlib.Path | None, folder: pathlib.Path, journal: pathlib.Path | None
) -> None:
    """Every record as it stands in the journal, oldest first."""
    assert encoding == "jsonl"
    with _complaints():
        reader = attempts.Reader(attempts.place(folder, journal))
        count = 0
        with _opened(file) as out:
            for body in reader.bodies():
                out.write(body + b"\n")
                count += 1
        _exit_unless_whole(reader)
    click.echo(f"{count} records", err=True)


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Filter:
    """What `search` was asked for; None lets everything through."""

    server: str | None = None
    tool: str | None = None
    decision: str | None = None
    reason: str | None = None
    principal: str | None = None
    user: str | None = None
    request: str | None = None
    text: str | None = None
    since: float | None = None
    until: float | None = None

    def fits(self, row: dict[str, Any]) -> bool:
        """Whether a row passes every filter."""
        principal = self.principal.removeprefix("sa:") if self.principal is not None else None
        globs = ((self.server, "server"), (self.tool, "tool"), (principal, "principal"))
        known = filter(None, (row.get("user"), *row.get("names", ())))
        if self.user is not None and not any(rules.matches(self.user, name) for name in known):
            return False
        if not all(glob is None or rules.matches(glob, str(row.get(field, ""))) for glob, field in globs):
            return False
        words = ((self.decision, "decision"), (self.reason, "reason"))
        if not all(
            word is None or word.casefold() == str(row.get(field, "")).casefold() for word, field in words
        ):
            return False
        if self.request is not None and self.request.upper() not in (row.get("requestId"), row.get("event")):
            return False
        # What was only counted is of a whole minute: it fits as soon as some of that does.
        last = row["endedAt"] if row.get("type") == "summary" else row["time"]
        if last < (self.since or float("-inf")) or row["time"] > (self.until or float("inf")):
            return False
        return self.text is None or self.text.casefold() in "\n".join(_texts(row)).casefold()


def _texts(value: object) -> Iterator[str]:
    """Every text anywhere in a row."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict | list | tuple):
        for each in value.values() if isinstance(value, dict) else value:
            yield from _texts(each)


def _moment(name: str, text: str | None, now: float) -> float | None:
    if text is None:
        return None
    if age := re.fullmatch(r"(\d{1,9})([smhdw])", text):
        return now - int(age[1]) * _AGES[age[2]]
    try:
        moment = dt.datetime.fromisoformat(text)
    except ValueError:
        raise click.BadParameter(
            f"{text!r} is neither a time such as 2026-07-01T12:00 nor an age such as 15m, 24h, 7d",
            param_hint=f"--{name}",
        ) from None
    return (moment if moment.tzinfo else moment.replace(tzinfo=dt.UTC)).timestamp()


def _rest(under_way: dict[str, dict[str, Any]]) -> Iterator[dict[str, Any]]:
    """What is still under way once everything has been read."""
    yield from under_way.values()


def _print(found: Iterable[dict[str, Any]], output: str) -> int:
    if output == "jsonl":
        return sum(_print_line(row, output) for row in found)
    listed = list(found)
    if output == "json":
        click.echo(msgspec.json.format(msgspec.json.encode(listed), indent=2))
    elif listed:
        _print_table([tuple(map(_capped, _cells(row))) for row in listed])
    return len(listed)


def _print_line(row: dict[str, Any], output: str) -> int:
    click.echo(
        msgspec.json.encode(row) if output == "jsonl" else "  ".join(cell for cell in _cells(row) if cell)
    )
    return 1


def _print_table(lines: list[tuple[str, ...]]) -> None:
    if sys.stdout.isatty():
        from rich import console, table, text

        drawn = table.Table(*_COLUMNS, box=None, header_style="bold", pad_edge=False)
        for line in lines:
            style = "red" if line[5] == "Refused" else None
            drawn.add_row(*map(text.Text, line), style=style)
        console.Console().print(drawn)
        return
    widths = [max(map(len, column)) for column in zip(_COLUMNS, *lines, strict=True)]
    for line in (_COLUMNS, *lines):
        cells = (cell.ljust(width) for cell, width in zip(line, widths, strict=True))
        click.echo("  ".join(cells).rstrip())


def _capped(cell: str) -> str:
    """One long name must not push every column of every row out of sight."""
    return cell if len(cell) <= CELL_CHARACTERS_MAX else cell[: CELL_CHARACTERS_MAX - 1] + "…"


def _cells(row: dict[str, Any]) -> tuple[str, ...]:
    began = (
        dt.datetime.fromtimestamp(row["time"], dt.UTC)
        .isoformat(timespec="milliseconds")
        .replace("+00:00", "Z")
    )
    reason = str(row.get("reason", "")) + (f" x{row['count']}" if "count" in row else "")
    upstream = row.get("upstreamMicros")
    cells = (
        began,
        row.get("requestId", row.get("type", "")),
        _who(row),
        row.get("server", ""),
        _about(row),
        row["decision"],
        row["status"] if row.get("status") == "Open" else reason,
        f"{row['oursMicros'] / 1000:.2f}ms" if "oursMicros" in row else "",
        f"{upstream / 1000:.1f}ms" if upstream else "",
        row.get("cost", ""),
    )
    # What a caller chose must not draw on the terminal.
    return tuple("".join(mark if mark.isprintable() else "?" for mark in str(cell)) for cell in cells)


def _who(row: dict[str, Any]) -> str:
    """The workload, and the user behind it."""
    workload = row.get("principal", row.get("why", ""))
    return f"{workload} for {row['user']}" if row.get("user") else str(workload)


def _about(row: dict[str, Any]) -> str:
    """What was asked for: a tool by its name alone, anything else behind its method."""
    method, name = row.get("method", "tools/call"), row.get("tool", "")
    return name if method in ("", "tools/call") else f"{method} {name}".rstrip()


def _exit_unless_whole(reader: attempts.Reader) -> None:
    for found in reader.breaks:
        click.echo(
            f"segment {found.segment} offset {found.offset}: {found.why}; what follows there was left out;"
            " run `outrider audit verify`",
            err=True,
        )
    if reader.breaks:
        raise click.exceptions.Exit(UNREADABLE)


@contextlib.contextmanager
def _opened(file: pathlib.Path | None) -> Iterator[BinaryIO]:
    if file is None:
        yield sys.stdout.buffer
        return
    with os.fdopen(os.open(file, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as out:
        yield out


@contextlib.contextmanager
def _complaints() -> Iterator[None]:
    """What cannot be read is said in a sentence, with exit code 4."""
    try:
        yield
    except attempts.JournalUnreadable as error:
        click.echo(f"error: {error}", err=True)
        raise click.exceptions.Exit(UNREADABLE) from error
    except BrokenPipeError:
        raise
    except OSError as error:
        click.echo(f"error: {error.filename}: {error.strerror}; check the path and its permissions", err=True)
        raise click.exceptions.Exit(UNREADABLE) from error
