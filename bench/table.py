# SPDX-License-Identifier: Apache-2.0
"""What a valid run is shown as: ratios within its rounds, the price of the features, and what it ran on.

Called by the command. Never a bare time without the figure it is to be compared with.
"""

from __future__ import annotations

import dataclasses
import os
import pathlib
import platform
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from importlib import metadata

from bench import compiled, processes, ratios, run

HEAD_ROOM = 1.5
"""Direct must manage so many times a way's calls/s, or load or upstream were the limit and the cell stays blank."""

FEATURES_MICROS_MAX = 80.0
"""What all features may cost per call before the gate closes (CPU microseconds)."""

CONTENDED = 0.2

BASES = {"direct": (), "nginx": ("direct",), "envoy": ("direct", "nginx")}
"""What a way is compared with; the others with all three."""

_LOOPS = {"c1": "closed loop, 1 connection", "c16": "closed loop, 16 connections", "open": "open loop"}


@dataclasses.dataclass(frozen=True, slots=True)
class Row:
    """One line of the table; ratios of a way to a base in the same rounds, None where nothing can be said."""

    loop: str
    way: str
    base: str
    p50: ratios.Spread
    p95: ratios.Spread
    p99: ratios.Spread
    per_second: ratios.Spread | None
    cpu: ratios.Spread | None
    memory: ratios.Spread | None


def series(result: run.Result, way: str, loop: str, what: str) -> list[float]:
    """One figure over the rounds; empty when the way has none."""
    values = [getattr(cell, what) for cell in result.cells if (cell.way, cell.loop) == (way, loop)]
    return [value for value in values if value is not None]


def rows(result: run.Result) -> Iterator[Row]:
    """Every way against every base that ran: the floor and the two peers."""
    present = list(dict.fromkeys(cell.way for cell in sorted(result.cells, key=_order(result))))
    for loop in _LOOPS:
        for way in present:
            for base in BASES.get(way, ("direct", "nginx", "envoy")):
                if base in present:
                    yield _row(result, loop, way, base)


def _order(result: run.Result) -> Callable[[run.Cell], int]:
    return lambda cell: result.plan.ways.index(cell.way)


def _row(result: run.Result, loop: str, way: str, base: str) -> Row:
    def ratio(what: str) -> ratios.Spread | None:
        above, below = series(result, way, loop, what), series(result, base, loop, what)
        return ratios.ratio(above, below) if above and below else None

    def needed(what: str) -> ratios.Spread:
        return ratios.ratio(series(result, way, loop, what), series(result, base, loop, what))

    return Row(
        loop, way, base, needed("p50"), needed("p95"), needed("p99"),
        needed("per_second") if loop != "c16" or has_room(result, way, base) else None,
        ratio("cpu"), ratio("memory"),
    )  # fmt: skip


def has_room(result: run.Result, way: str, base: str) -> bool:
    """Whether load and upstream can do enough more than both for calls/s to be about the ways."""
    floor = series(result, "direct", "c16", "per_second")
    if not floor:
        return False
    able = statistics.median(floor)
    return all(
        one == "direct" or able >= HEAD_ROOM * statistics.median(series(result, one, "c16", "per_second"))
        for one in (way, base)
    )


def features(result: run.Result, loop: str = "c16") -> ratios.Interval | None:
    """CPU microseconds per call that the features cost: full - plain, round by round. None without both."""
    full, plain = series(result, "full", loop, "cpu"), series(result, "plain", loop, "cpu")
    if not full or len(full) != len(plain):
        return None
    return ratios.interval([one - other for one, other in zip(full, plain, strict=True)])


def contended(result: run.Result) -> tuple[int, int]:
    """How many cells waited for a core more than a fifth of the CPU they used, of how many."""
    cells = [cell for cell in result.cells if cell.cpu]
    return sum(1 for cell in cells if (cell.waited or 0) > CONTENDED * (cell.cpu or 0)), len(cells)


def surroundings(cores: processes.Cores) -> dict[str, str]:
    """What the run ran on. Load is read here: call it once before and once after."""

    def said(*command: str) -> str:
        try:
            return subprocess.run(command, capture_output=True, text=True, check=False).stdout.strip()
        except OSError:
            return ""

    model = next(
        (line.partition(":")[2].strip() for line in pathlib.Path("/proc/cpuinfo").read_text().splitlines()
         if line.startswith("model name")), platform.machine(),
    )  # fmt: skip
    root = pathlib.Path(__file__).resolve().parent
    changed = " with changes" if said("git", "-C", str(root), "status", "--porcelain") else ""
    pinned = (
        f"load+upstream on {cores.load}, path on {cores.path}"
        if cores.pinned
        else "NOT PINNED (needs 2 cores and taskset)"
    )
    return {
        "revision": said("git", "-C", str(root), "rev-parse", "--short", "HEAD") + changed,
        "machine": f"{model}, {os.cpu_count()} cores, Linux {platform.release()}",
        "cores": pinned,
        "python": f"{platform.python_version()}, "
        + ", ".join(f"{name} {metadata.version(name)}" for name in ("aiohttp", "msgspec")),
        "compiler": said(compiled.compiler(), "--version").partition("\n")[0],
        "journal": f"durability Buffered (synced in groups, off the loop), on {_file_system()}",
        "load average": " ".join(f"{value:.2f}" for value in os.getloadavg()),
        "command": "python -m bench " + " ".join(sys.argv[1:]),
    }


def _file_system() -> str:
    """The kind of file system under the temporary folder, where the journals are."""
    place = pathlib.Path(tempfile.gettempdir()).resolve()
    mounts = [line.split()[1:3] for line in pathlib.Path("/proc/mounts").read_text().splitlines()]
    under = [(point, kind) for point, kind in mounts if place.is_relative_to(point)]
    return max(under, key=lambda mount: len(mount[0]))[1] if under else "an unknown file system"


def text(result: run.Result) -> str:
    """The tables."""
    lines = []
    for loop, title in _LOOPS.items():
        rate = f" at {result.plan.rate:g} calls/s" if loop == "open" else ""
        lines += ["", f"{title}{rate}: ratios, median of {result.plan.rounds} rounds [lowest-highest]"]
        lines.append(
            f"{'':>16}  {'p50':<22}{'p95':<22}{'p99':<22}{'calls/s':<22}{'CPU/call':<22}{result.memory_kind:<22}"
        )
        for row in rows(result):
            if row.loop == loop:
                cells = (row.p50, row.p95, row.p99, row.per_second, row.cpu, row.memory)
                lines.append(
                    f"{row.way:>7} / {row.base:<6}  "
                    + "".join(f"{_shown(cell):<22}" for cell in cells).rstrip()
                )
    lines += ["", "behind the ratios, medians of this run (not to be compared with another run):"]
    lines.append(
        f"{'':>16}  {'p50 us':>9}{'p95 us':>9}{'p99 us':>9}{'calls/s':>10}{'CPU us/call':>13}{result.memory_kind + ' MiB':>10}"
    )
    for loop in _LOOPS:
        for way in result.plan.ways:
            if series(result, way, loop, "p50"):
                lines.append(_absolute(result, way, loop))
    lines += ["", *_notes(result)]
    return "\n".join(lines)


def _shown(cell: ratios.Spread | None) -> str:
    return "-" if cell is None else f"{cell.median:.2f} [{cell.low:.2f}-{cell.high:.2f}]"


def _absolute(result: run.Result, way: str, loop: str) -> str:
    def middle(what: str, width: int, digits: int = 0) -> str:
        values = series(result, way, loop, what)
        return f"{statistics.median(values):>{width}.{digits}f}" if values else f"{'-':>{width}}"

    figures = [middle(what, 9) for what in ("p50", "p95", "p99")]
    return (
        f"{way:>9} {loop:<6}  "
        + "".join(figures)
        + middle("per_second", 10)
        + middle("cpu", 13, 1)
        + middle("memory", 10, 1)
    )


def _notes(result: run.Result) -> Iterator[str]:
    for loop in ("c16", "c1", "open"):
        if (cost := features(result, loop)) is not None:
            sure = f"95 % interval [{cost.low:.1f}, {cost.high:.1f}] over {cost.rounds} rounds"
            yield (
                f"features' CPU per call (full - plain, {loop}): {cost.value:.1f} us, "
                + (sure if cost.rounds > 1 else "one round: no interval")
                + (f"; limit of --gate {FEATURES_MICROS_MAX:g}" if loop == "c16" else "")
            )
    sent = {way: sum(cell.sent.sent for cell in result.cells if cell.way == way) for way in result.plan.ways}
    refused = sum(cell.sent.refused for cell in result.cells)
    yield f"every call accounted for: {', '.join(f'{way} {count}' for way, count in sent.items() if count)}; {refused} canaries refused"
    waited, of = contended(result)
    yield f"{waited} of {of} cells waited for their core more than {CONTENDED:.0%} of the CPU they used" + (
        ": other work runs on this machine, ratios are worth less" if waited else ""
    )
    backlog = {
        way: max(
            (cell.backlog for cell in result.cells if cell.way == way and cell.loop == "open"), default=0
        )
        for way in sent
    }
    yield "most calls that waited for a free connection in the open loop: " + ", ".join(
        f"{way} {n}" for way, n in backlog.items()
    )
    aside = [cell.beside for cell in result.cells if cell.way in ("plain", "full")]
    if aside:
        yield f"the operator used {statistics.median(aside) * 100:.1f} % of a core meanwhile (on the other core, not counted above)"
    for way, why in result.skipped.items():
        yield f"{way}: {why}"
