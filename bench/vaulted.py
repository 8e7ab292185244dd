# SPDX-License-Identifier: Apache-2.0
"""`python -m bench.vaulted`: steady load whose credentials are in a real Vault that is killed, sealed and slowed, and rotate meanwhile.

The installed commands over real files, and a server that refuses a secret once its grace is over. It voids the run when a call was
carried out with an old secret, when a call of a repeatable tool failed for any reason but an old secret while Vault was away, or when a call of
another tool failed more often than its secret was replaced. Goal: memory as flat at the end as at the beginning.

Exit codes: 0 a valid run; 2 usage; 3 the run is void, or something is missing to run at all.
"""

from __future__ import annotations

import argparse
import asyncio
import collections
import dataclasses
import pathlib
import statistics
import sys
import tempfile
import time
from collections.abc import Sequence

import aiohttp
from tests import laptop, openbao
from tests.vault import lent

from bench import compiled, rotating, run

CLOSED = 3
SERVERS = 4
_JWT_SECONDS = 240.0
"""How often the pod's token is written anew, as kubelet does."""

_BACK_SECONDS = 15.0
"""After Vault is back: the proxy asks again within 10 s, and takes a moment for the login."""

_AWAY_SECONDS = 20.0
_WRITES_ONE_IN = 10
MEMORY_MIB_MAX = 4.0
MINUTES_FOR_MEMORY = 5.0
"""A shorter run says nothing about memory: caches and pools fill first."""


@dataclasses.dataclass(frozen=True, slots=True)
class Plan:
    """`rate` calls/s for `seconds`; every secret is replaced `every` seconds, Vault taken away each `away_every`."""

    seconds: float
    rate: float = 60.0
    every: float = 5.0
    grace: float = 15.0
    away_every: float = 150.0


@dataclasses.dataclass
class Seen:
    """What was measured. `away` are the times (monotonic) at which Vault went and when it was back."""

    verdicts: collections.Counter[tuple[str, str, bool]] = dataclasses.field(
        default_factory=collections.Counter
    )
    latency: list[float] = dataclasses.field(default_factory=list)
    resident: list[float] = dataclasses.field(default_factory=list)
    away: list[tuple[str, float, float]] = dataclasses.field(default_factory=list)
    complaints: list[str] = dataclasses.field(default_factory=list)
    secrets: dict[str, rotating.Secret] = dataclasses.field(default_factory=dict)
    round_ended: int = 0
    """How many times memory had been looked at when Vault had been away in every way once; 0 when it has not."""

    def was_away(self, at: float) -> bool:
        """Whether a call at this time could not have had a new secret."""
        return any(gone - 1 <= at <= back + _BACK_SECONDS for _, gone, back in self.away)


def judged(seen: Seen, calls: dict[str, int]) -> list[str]:
    """Everything for which a run must not be believed, or must not have happened."""
    found = list(seen.complaints)
    for name, secret in seen.secrets.items():
        if secret.unknown:
            found.append(f"{name} was shown {secret.unknown} values that it never had")
        if calls[name] > secret.accepted:
            found.append(f"{name} carried out more calls than it accepted secrets")
    replaced = sum(max(0, secret.number - 1) for secret in seen.secrets.values())
    failed = 0
    for (tool, verdict, away), count in seen.verdicts.items():
        if verdict == "allowed":
            continue
        if away and verdict in ("UpstreamUnauthorized", "CredentialUnavailable"):
            continue
        if tool == "write" and verdict == "UpstreamUnauthorized":
            failed += count
        else:
            found.append(
                f"{count} calls of {tool} were answered {verdict}{' while Vault was away' if away else ''}"
            )
    # One in ten calls is a write: of one replacement only few can be the first to show the old value.
    if failed > replaced:
        found.append(f"{failed} writes failed for {replaced} replacements")
    return found


async def _load(port: int, token: str, plan: Plan, seen: Seen, until: float) -> None:
    agent, number, started = laptop.Agent(port, token), 0, time.monotonic()
    waiting: set[asyncio.Task[None]] = set()
    async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=60)) as session:
        while (due := started + number / plan.rate) < until:
            await asyncio.sleep(max(0.0, due - time.monotonic()))
            tool = "write" if number % _WRITES_ONE_IN == 0 else "read"
            task = asyncio.create_task(_call(session, agent, f"tools/s{number % SERVERS}", tool, seen))
            waiting.add(task)
            task.add_done_callback(waiting.discard)
            number += 1
        if waiting:
            await asyncio.wait(waiting)


async def _call(
    session: aiohttp.ClientSession, agent: laptop.Agent, server: str, tool: str, seen: Seen
) -> None:
    where, body, head = agent.request(server, tool)
    began = time.monotonic()
    try:
        async with session.post(f"http://127.0.0.1:{agent.port}{where}", data=body, headers=head) as answer:
            reply = laptop.Reply(
                answer.status, {k.lower(): v for k, v in answer.headers.items()}, await answer.read()
            )
        verdict = laptop.reason(reply.result) or "allowed"
    except (OSError, aiohttp.ClientError, TimeoutError, ValueError, KeyError) as error:
        verdict = f"no answer ({type(error).__name__})"
    seen.verdicts[tool, verdict, seen.was_away(time.monotonic())] += 1
    if verdict == "allowed":
        seen.latency.append(time.monotonic() - began)


async def _trouble(vault: openbao.Vault, plan: Plan, seen: Seen) -> None:
    """Kill and start, seal and unseal, stop answering and go on: in turns."""
    loop = asyncio.get_running_loop()
    ways = (
        ("killed", vault.kill, vault.start),
        ("sealed", vault.seal, vault.unseal),
        ("silent", vault.pause, vault.resume),
    )
    number = 0
    away = min(_AWAY_SECONDS, plan.away_every / 3)
    while True:
        await asyncio.sleep(plan.away_every - away)
        name, take, give = ways[number % len(ways)]
        number += 1
        place = len(seen.away)
        seen.away.append((name, time.monotonic(), float("inf")))
        await loop.run_in_executor(None, take)
        await asyncio.sleep(away)
        await loop.run_in_executor(None, give)
        seen.away[place] = (name, seen.away[place][1], time.monotonic())
        if number == len(ways):
            seen.round_ended = len(seen.resident)


async def _watch(home: laptop.Laptop, vault: openbao.Vault, seen: Seen) -> None:
    """The proxy's memory every second, and the pod's token like kubelet."""
    assert home.proxy is not None
    status = pathlib.Path(f"/proc/{home.proxy.pid}/status")
    written = time.monotonic()
    while True:
        await asyncio.sleep(1.0)
        kib = next(line.split()[1] for line in status.read_text().splitlines() if line.startswith("VmRSS:"))
        seen.resident.append(int(kib) / 1024)
        if time.monotonic() - written > _JWT_SECONDS:
            (home.folder / "tokens" / "vault").write_text(vault.jwt())
            written = time.monotonic()


async def _measure(home: laptop.Laptop, vault: openbao.Vault, plan: Plan, seen: Seen) -> None:
    def store(name: str, value: str) -> None:
        vault.put(lent.path(f"tools/{name}"), token=value)

    token = (home.state / "agent-token").read_text().strip()
    around = [
        asyncio.create_task(each)
        for each in (
            rotating.rotate(seen.secrets, store, every_seconds=plan.every, grace_seconds=plan.grace),
            _trouble(vault, plan, seen),
            _watch(home, vault, seen),
        )
    ]
    await _load(home.port, token, plan, seen, time.monotonic() + plan.seconds)
    for each in around:
        if each.done():
            seen.complaints.append(f"something of the run's own ended: {each.exception()!r}")
        each.cancel()
    await asyncio.gather(*around, return_exceptions=True)
    # Whatever is under way with Vault ends before it is closed.
    vault.resume()


async def measured(plan: Plan, folder: pathlib.Path) -> Seen:
    """Starts everything, runs, ends everything. Raises Void for a run that must not be believed."""
    seen = Seen(secrets={f"s{number}": rotating.Secret(f"s{number}") for number in range(SERVERS)})
    upstream = rotating.Upstream(seen.secrets)
    vault = openbao.Vault(folder / "vault")
    loop = asyncio.get_running_loop()
    try:
        await loop.run_in_executor(None, vault.start)
        for secret in seen.secrets.values():
            vault.put(lent.path(f"tools/{secret.name}"), token=secret.next())
            secret.replaced(plan.grace)
        async with upstream.serving() as port:
            entries = [
                lent.entry(
                    f"tools/{name}", f"http://127.0.0.1:{port}/{name}/mcp", lent.kv(), tools={"idempotent": ["read"]},
                    audit={"level": "Metadata"},
                )
                for name in seen.secrets
            ]  # fmt: skip
            running = lent.running(folder / "laptop", vault, entries)
            home = await loop.run_in_executor(None, running.__enter__)
            try:
                await _measure(home, vault, plan, seen)
            finally:
                await loop.run_in_executor(None, running.__exit__, None, None, None)
    finally:
        await loop.run_in_executor(None, vault.close)
    if complaints := judged(seen, upstream.calls) + grown(plan, seen):
        raise run.Void(f"{text(plan, seen)}\n{len(complaints)} complaints: {'; '.join(complaints[:8])}")
    return seen


def memory(seen: Seen) -> tuple[float, float]:
    """Medians (MiB) of a tenth of the run and of its last tenth.

    The first begins when Vault has been away in every way once: what piles up while it is silent is memory that is used again,
    and nothing can be said of growth before there was a first time. A run that is too short for that begins with its second tenth.
    """
    part = max(1, len(seen.resident) // 10)
    begins = seen.round_ended if 0 < seen.round_ended <= len(seen.resident) - 2 * part else part
    first, last = seen.resident[begins : begins + part] or [0.0], seen.resident[-part:] or [0.0]
    return statistics.median(first), statistics.median(last)


def grown(plan: Plan, seen: Seen) -> list[str]:
    """A complaint about memory that is not flat, of a run that is long enough to tell."""
    first, last = memory(seen)
    if plan.seconds < MINUTES_FOR_MEMORY * 60 or last - first <= MEMORY_MIB_MAX:
        return []
    return [f"the proxy's memory grew from {first:.1f} to {last:.1f} MiB"]


def text(plan: Plan, seen: Seen) -> str:
    """The figures, a line each."""
    first, last = memory(seen)
    took = statistics.quantiles(seen.latency, n=1000) if len(seen.latency) > 1 else [0.0] * 999
    counted = sum(seen.verdicts.values())
    replaced = sum(max(0, secret.number - 1) for secret in seen.secrets.values())
    late = sorted(each for secret in seen.secrets.values() for each in secret.late)
    ways = collections.Counter(name for name, _, _ in seen.away)
    failed = {key: count for key, count in seen.verdicts.items() if key[1] != "allowed"}
    lines = [
        f"calls: {counted} in {plan.seconds:g} s, {SERVERS} servers, {plan.rate:g} calls/s",
        f"secrets: {replaced} replacements, each {plan.every:g} s, grace {plan.grace:g} s",
        f"Vault away: {', '.join(f'{name} {count}x' for name, count in sorted(ways.items())) or 'never'}",
        f"shown after its grace, and refused by the server: {len(late)}"
        + (f", at most {late[-1]:.1f} s after it" if late else "")
        + "; carried out with one: 0",
        f"latency: p50 {took[499] * 1000:.1f} ms, p99 {took[989] * 1000:.1f} ms, p99.9 {took[998] * 1000:.1f} ms",
        (
            f"memory: {first:.1f} MiB {'when all had happened once' if seen.round_ended else 'early in the run'},"
            f" {last:.1f} MiB in the last tenth ({last - first:+.1f}); {max(seen.resident, default=0.0):.1f} MiB at most"
        ),
    ]
    lines += [
        f"failed: {count} calls of {tool}: {verdict}{', Vault away' if away else ''}"
        for (tool, verdict, away), count in sorted(failed.items())
    ]
    return "\n".join(lines)


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    """The flags. Exits 2 with a sentence for values that cannot be run."""
    parser = argparse.ArgumentParser(prog="python -m bench.vaulted", description=__doc__, allow_abbrev=False)
    parser.add_argument("--minutes", type=float, default=30.0, help="how long (default 30)")
    parser.add_argument("--rate", type=float, default=60.0, help="calls/s (default 60)")
    parser.add_argument(
        "--every", type=float, default=5.0, help="seconds between replacements of a secret (default 5)"
    )
    given = parser.parse_args(arguments)
    if not 0.1 <= given.minutes <= 600 or not 1 <= given.rate <= 1_000 or not 0.5 <= given.every <= 600:
        parser.error("--minutes is 0.1 to 600, --rate 1 to 1000, --every 0.5 to 600")
    return given


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs and prints. Returns the exit code."""
    given = parse(arguments)
    plan = Plan(given.minutes * 60, rate=given.rate, every=given.every)
    try:
        with tempfile.TemporaryDirectory(prefix="outrider-bench-") as folder:
            seen = asyncio.run(measured(plan, pathlib.Path(folder)))
    except compiled.Unable as unable:
        print(f"cannot run: {unable}", file=sys.stderr)
        return CLOSED
    except run.Void as void:
        print(f"VOID: {void}", file=sys.stderr)
        return CLOSED
    print(text(plan, seen))
    return 0


if __name__ == "__main__":
    sys.exit(main())
