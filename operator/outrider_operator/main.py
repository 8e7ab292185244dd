# SPDX-License-Identifier: Apache-2.0
"""`outrider-operator`: wires a source of resources to the streams of proxies. In a cluster that is `controller`'s work.

Called from the command line and by `outrider dev`. Logs one JSON object per line on stderr. Refuses to start when it could
not keep what must survive a restart; once started, nothing in the files can stop it.
"""

from __future__ import annotations

import asyncio
import contextlib
import datetime as dt
import fcntl
import io
import json
import logging
import os
import pathlib
import signal
import sys
from collections.abc import Sequence
from typing import Any

from aiohttp import web

from outrider import compile as compiler
from outrider import findings, manifests, resources, snapshot
from outrider_operator import counters, durable, laptop, reviewer, settings, sources, streaming

log = logging.getLogger("outrider.operator")

_PROBLEMS_LOGGED_MAX = 20
_DRAIN_SECONDS_MAX = 3.0
_FIRST_READING_SECONDS = 5.0
_RETRY_SECONDS = 1.0
_STREAMS_MAX = 64


class JsonLines(logging.Formatter):
    """One JSON object per record; `extra={"fields": {...}}` adds to it."""

    def format(self, record: logging.LogRecord) -> str:
        when = dt.datetime.fromtimestamp(record.created, dt.UTC)
        line: dict[str, Any] = {
            "time": when.isoformat(timespec="milliseconds").replace("+00:00", "Z"),
            "level": record.levelname.lower(),
            "message": record.getMessage(),
            **getattr(record, "fields", {}),
        }
        if record.exc_info and record.exc_info[0] is not None:
            line["exception"] = self.formatException(record.exc_info)
        return json.dumps(line, ensure_ascii=False, default=str)


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs until SIGTERM or SIGINT; 0 then, 1 when it cannot start, 2 for a command line that is wrong."""
    flags = settings.parse(arguments)
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonLines())
    logging.basicConfig(level=flags.log_level.upper(), handlers=[handler], force=True)
    logging.getLogger("aiohttp.access").setLevel(logging.WARNING)
    if isinstance(flags, settings.Controller):
        from outrider_operator import controller  # kopf and kubernetes are for clusters only

        return controller.main(flags)
    try:
        lock = _state(flags.state)
        reviewer.ensure(flags.token_file)
        counter = laptop.Counter(flags.state / "position.json")
        with lock:
            asyncio.run(_run(flags, laptop.Laptop(counter)))
    except (laptop.StateError, reviewer.TokenFileError, OSError) as error:
        log.error("cannot start", extra={"fields": {"why": str(error)}})  # noqa: TRY400 - a sentence, not a traceback
        return 1
    return 0


def _state(folder: pathlib.Path) -> io.TextIOWrapper:
    """The state folder, made if absent, locked for us: two operators would count in one counter."""
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    lock = (folder / "operator.lock").open("w")
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        lock.close()
        text = f"another outrider-operator uses {folder}; stop it, or choose another --state"
        raise laptop.StateError(text) from None
    return lock


async def _run(flags: settings.Flags, desk: laptop.Laptop) -> None:
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    who = reviewer.FileReviewer(flags.token_file)
    app = streaming.application(
        desk.publisher,
        who,
        manner=streaming.Manner(streams_max=_STREAMS_MAX),
        on_report=desk.reported,
        elsewhere={"/v1/status": streaming.status_door(who, desk.status)},
    )
    runner = web.AppRunner(
        app, access_log=None, shutdown_timeout=_DRAIN_SECONDS_MAX, handler_cancellation=True
    )
    await runner.setup()
    first = asyncio.Event()
    following = asyncio.create_task(_follow(flags, desk, first))

    def ended(_task: asyncio.Task[None]) -> None:
        """Should following ever end, nobody may wait for it; its exception is raised below."""
        first.set()
        stop.set()

    following.add_done_callback(ended)
    try:
        # What the files say is known before anybody can ask, unless they take long.
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(first.wait(), _FIRST_READING_SECONDS)
        site = web.TCPSite(runner, "127.0.0.1", flags.port)
        await site.start()
        _announce(flags, runner.addresses[0][1])
        await stop.wait()
        log.info("stopping")
        await desk.publisher.drain()
    finally:
        following.cancel()
        await asyncio.gather(following, return_exceptions=True)
        await runner.cleanup()
    if not following.cancelled() and (error := following.exception()):
        raise error


def _announce(flags: settings.Flags, port: int) -> None:
    address = {"port": port, "url": f"http://127.0.0.1:{port}"}
    if flags.address_file is not None:
        durable.write(flags.address_file, json.dumps(address).encode() + b"\n")
    log.info("listening", extra={"fields": {**address, "files": str(flags.files), "pid": os.getpid()}})


async def _follow(flags: settings.Flags, desk: laptop.Laptop, first: asyncio.Event) -> None:
    """Publishes every sound reading; a broken one is reported and changes nothing."""
    memory = counters.Memory(flags.state / "counters.json")
    remembering = compiler.Compiler(loopback=True, bridges=flags.bridges)
    async for reading in sources.Folder(flags.files).readings():
        desk.report(reading.problems)
        if reading.world is None:
            _complain(reading.problems, in_force=bool(desk.version))
        else:
            try:
                await _publish(flags, desk, remembering, reading.world)
                _notice(desk, memory, reading.world)
            except Exception:  # a bug that one set of files shows must not end the proxies' streams
                desk.report((manifests.Problem("", 0, "", "a bug of ours kept these files from being used"),))
                log.exception("files not used because of a bug; the last good configuration stays in force")
        first.set()


async def _publish(
    flags: settings.Flags, desk: laptop.Laptop, remembering: compiler.Compiler, world: resources.World
) -> None:
    who = world.settings.workload
    assert who is not None, "the file source refuses settings without a workload"

    def compiled() -> tuple[snapshot.Snapshot, tuple[findings.Finding, ...]]:
        remembering.update(world, epoch=desk.epoch)
        made = remembering.snapshot(who.namespace, who.service_account)
        return made, compiler.check(world, bridges=flags.bridges)

    made, found = await asyncio.to_thread(compiled)
    fresh = await _durably(desk, made, found)
    fields = {"version": desk.version, "position": dict(desk.position), "findings": len(found)}
    log.info("published" if fresh else "unchanged", extra={"fields": fields})


def _notice(desk: laptop.Laptop, memory: counters.Memory, world: resources.World) -> None:
    """Warns of counters that are now keyed differently."""
    found = memory.learn(world)
    desk.notice(found)
    for each in found:
        fields = {
            "budget": each["budget"],
            "limit": each["limit"],
            "field": each["field"],
            "why": each["message"],
        }
        log.warning("a counter is keyed differently", extra={"fields": fields})
    try:
        memory.save()
    except OSError as error:
        why = f"counters.json cannot be written: {error.strerror}"
        log.warning("changes of counters will not be noticed after a restart", extra={"fields": {"why": why}})


async def _durably(desk: laptop.Laptop, made: snapshot.Snapshot, found: tuple[findings.Finding, ...]) -> bool:
    """Publishes once the position can be kept; until then nobody hears of it and status says why."""
    reported = False
    while True:
        try:
            fresh = desk.publish(made, found)
        except laptop.StateError as error:
            if not reported:
                desk.report((manifests.Problem("", 0, "", str(error)),))
                log.error("not published", extra={"fields": {"why": str(error)}})  # noqa: TRY400 - a sentence will do
            reported = True
            await asyncio.sleep(_RETRY_SECONDS)
        else:
            desk.report(())
            return fresh


def _complain(problems: tuple[manifests.Problem, ...], *, in_force: bool) -> None:
    """One line per change, with the first problem's place where a reader of logs looks for it."""
    kept = (
        "the last good configuration stays in force"
        if in_force
        else "nothing is in force yet: all calls are refused"
    )
    shown = [
        {"file": p.file, "line": p.line, "field": p.field, "message": p.message}
        for p in problems[:_PROBLEMS_LOGGED_MAX]
    ]
    fields = {**shown[0], "why": shown[0]["message"], "problems": shown, "count": len(problems)}
    fields["message"] = f"files refused; {kept}"
    log.error("files refused", extra={"fields": fields})


if __name__ == "__main__":
    sys.exit(main())
