# SPDX-License-Identifier: Apache-2.0
"""`python -m bench.credential`: what lending costs a call: warm, from each kind of place, and the first time.

In one process, with the proxy's own sources before a real OpenBao and a real authorization server on this machine. Warm figures are CPU
time with the collector off, kinds taking turns in an order drawn anew; first ones are latency, which another machine does not share.
Every loan is checked: a wrong one makes the run void (exit 3).
"""

from __future__ import annotations

import argparse
import asyncio
import collections
import contextlib
import dataclasses
import gc
import pathlib
import random
import statistics
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Sequence

from tests import lending, openbao, vaultside
from tests.authserver import server as authserver

from outrider import bind, decision, identity, snapshot, testing
from outrider_sidecar import credentials, exchange, fetcher, lenders, pacing

GOAL_MICROS = 5.0
BATCH = 5_000
_PLACE = "outrider/servers/bench/salesforce"
_TARGET = "https://mcp.example"
_VALUE = "canary-" + "x" * 800
"""About as long as an access token that is a JWT."""


class World:
    """What is behind: a folder of Secrets, a Vault, an authorization server, and somebody behind the agent."""

    def __init__(self, folder: pathlib.Path, vault: openbao.Vault, oauth: authserver.AuthServer) -> None:
        self._vault = vault
        mounted = folder / "secrets" / f"{testing.CRM.namespace}.{testing.CRM.name}"
        mounted.mkdir(parents=True)
        (mounted / "token").write_text(_VALUE)
        vaultside.tenant(vault, "bench")
        vault.put(f"{_PLACE}/org", token=_VALUE)
        vault.put(f"{_PLACE}/client", secret="s3cret")
        oauth.register("outrider", secret="s3cret", targets=frozenset({_TARGET}))
        (folder / "exchange").write_text(oauth.actor_token("agents", "bot"))
        pod = vaultside.pod_token(folder, vault.jwt())
        self._files = lenders.Files(pod, folder / "exchange", folder / "secrets")
        token, ends_at = oauth.user_token("alice"), time.time() + 600
        self.user = identity.User("okta:alice", frozenset({"okta:alice"}), expires_at=ends_at, token=token)
        grant = {
            "token_url": oauth.token_url, "resource": _TARGET,
            "client": snapshot.OAuthClient(id="outrider", secret=self._secret("client", "secret")),
        }  # fmt: skip
        self.kinds: dict[str, snapshot.Source | None] = {
            "none": None,
            "secretRef": snapshot.MountedSecret(path="crm.salesforce/token"),
            "vault": self._secret("org", "token"),
            "oauthClientCredentials": snapshot.ClientCredentials(**grant),  # type: ignore[arg-type]
            "tokenExchange": snapshot.TokenExchange(**grant),  # type: ignore[arg-type]
        }

    def _secret(self, path: str, key: str) -> snapshot.VaultSecret:
        return snapshot.VaultSecret(role="outrider-bench", path=f"{_PLACE}/{path}", key=key)

    def _bound(self) -> bind.Bound:
        entries = [lending.entry(source, name=name) for name, source in self.kinds.items()]
        (view,) = lending.a_bound(*entries).snapshot.servers
        laptop = snapshot.Network(loopback=True)
        return bind.bound(testing.a_snapshot(view, vault=vaultside.site(self._vault), network=laptop), {})

    @contextlib.asynccontextmanager
    async def proxy(self) -> AsyncIterator[tuple[credentials.Credentials, dict[str, decision.Permit]]]:
        """A proxy's lending that has lent nothing yet, and a permit for each kind."""
        loop, bound = asyncio.get_running_loop(), self._bound()
        asks = fetcher.AiohttpFetcher(loop, network=lambda: bound.snapshot.network)
        made = lenders.Lenders(pacing.Timing(loop.time, time.time, random.random), asks, self._files)
        lender = credentials.Credentials(made.sources, clock=loop.time)
        await made.prepare(bound.snapshot)
        made.configure(bound)
        lender.keep(bound)
        some, view = lending.a_permit(lending.entry()), bound.servers[testing.CRM].view
        subject = dataclasses.replace(some.call, user=self.user)
        permits = {
            entry.name: dataclasses.replace(some, call=subject, server=view, credential=entry)
            for entry in view.credentials
        }
        try:
            yield lender, permits
        finally:
            await lender.close()


def _checked(name: str, lent: exchange.Lent | None) -> None:
    right = lent is not None and (not lent.headers if name == "none" else bool(lent.headers))
    if right and name in ("secretRef", "vault"):
        right = lent is not None and lent.headers[0][1] == b"Bearer " + _VALUE.encode()
    if not right:
        raise ValueError(f"{name}: what was lent is wrong")


def timed(lender: credentials.Credentials, name: str, permit: decision.Permit) -> float:
    """CPU microseconds per warm loan over one batch. Raises ValueError for a wrong one."""
    at_hand = lender.at_hand
    start = time.process_time_ns()
    for _ in range(BATCH):
        lent = at_hand(permit)
    spent = time.process_time_ns() - start
    _checked(name, lent)
    return spent / BATCH / 1000


async def warm(world: World, rounds: int) -> dict[str, list[float]]:
    """Microseconds per loan that is at hand, by kind, one figure per round."""
    found: dict[str, list[float]] = collections.defaultdict(list)
    async with world.proxy() as (lender, permits):
        gc.collect()
        gc.disable()
        try:
            for _ in range(rounds):
                for name in random.sample(list(permits), len(permits)):
                    _checked(name, await lender.lend(permits[name]))  # a file is read again every second
                    found[name].append(timed(lender, name, permits[name]))
        finally:
            gc.enable()
    return found


async def first(world: World, rounds: int) -> dict[str, list[float]]:
    """Milliseconds that a call waits for a credential that nobody has asked for yet, by kind, in a proxy that has met nobody yet."""
    found: dict[str, list[float]] = collections.defaultdict(list)
    for _ in range(rounds):
        for name in random.sample(list(world.kinds), len(world.kinds)):
            async with world.proxy() as (lender, permits):
                start = time.perf_counter()
                _checked(name, lender.at_hand(permits[name]) or await lender.lend(permits[name]))
                found[name].append((time.perf_counter() - start) * 1000)
    return found


def shown(warmed: dict[str, list[float]], firsts: dict[str, list[float]]) -> str:
    """The table."""
    lines = [f"{'credential':<24}{'warm, us CPU [lowest-highest]':<34}first, ms [lowest-highest]"]
    for name, micros in sorted(warmed.items(), key=lambda each: statistics.median(each[1])):
        millis = firsts[name]
        lines.append(
            f"{name:<24}"
            f"{f'{statistics.median(micros):.2f} [{min(micros):.2f}-{max(micros):.2f}]':<34}"
            f"{statistics.median(millis):.1f} [{min(millis):.1f}-{max(millis):.1f}]"
        )
    worst = max(statistics.median(micros) for micros in warmed.values())
    lines.append(f"goal: a warm loan at most {GOAL_MICROS:g} us; the dearest is {worst:.2f}")
    return "\n".join(lines)


def main(arguments: Sequence[str] | None = None) -> int:
    """Prints the table. Returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m bench.credential", description=__doc__)
    parser.add_argument("--rounds", type=int, default=15, help="interleaved rounds (default 15)")
    given = parser.parse_args(arguments)
    if given.rounds < 1:
        parser.error("--rounds must be above zero")
    with tempfile.TemporaryDirectory() as name, contextlib.ExitStack() as stack:
        folder = pathlib.Path(name)
        vault, oauth = openbao.Vault(folder / "vault"), authserver.AuthServer()
        stack.callback(vault.close)
        stack.callback(oauth.close)
        world = World(folder, vault.start(), oauth.start())
        try:
            warmed = asyncio.run(warm(world, given.rounds))
            firsts = asyncio.run(first(world, given.rounds))
        except ValueError as wrong:
            print(f"VOID: {wrong}", file=sys.stderr)
            return 3
    print(shown(warmed, firsts))
    return 0


if __name__ == "__main__":
    sys.exit(main())
