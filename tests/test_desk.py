# SPDX-License-Identifier: Apache-2.0
"""The operator's desk: what it says to probes and scrapes, and that it says nothing else."""

from __future__ import annotations

import asyncio

from aiohttp import test_utils

from outrider_operator import desk


async def _asked(method: str, path: str, **state) -> tuple[int, str, str]:
    held = {"alive": lambda: True, "unready": lambda: (), "render": lambda: b"up 1\n", **state}
    async with test_utils.TestClient(test_utils.TestServer(desk.application(**held))) as client:
        answer = await client.request(method, path)
        return answer.status, await answer.text(), answer.headers["Content-Type"]


def asked(method: str, path: str, **state) -> tuple[int, str, str]:
    return asyncio.run(_asked(method, path, **state))


def test_a_replica_that_can_serve_says_so() -> None:
    assert asked("GET", "/healthz")[:2] == (200, "ok\n")
    assert asked("GET", "/readyz")[:2] == (200, "ok\n")


def test_a_replica_that_is_not_ready_says_why_and_is_not_restarted() -> None:
    state = {"unready": lambda: ("mcpservers are not synced yet: 403", "no certificate yet")}
    assert asked("GET", "/readyz", **state)[:2] == (
        503,
        "mcpservers are not synced yet: 403\nno certificate yet\n",
    )
    assert asked("GET", "/healthz", **state)[0] == 200


def test_a_replica_that_only_a_restart_helps_says_so() -> None:
    assert asked("GET", "/healthz", alive=lambda: False)[0] == 500


def test_metrics_are_what_prometheus_reads() -> None:
    assert asked("GET", "/metrics") == (200, "up 1\n", "text/plain; version=0.0.4; charset=utf-8")


def test_nothing_else_is_served() -> None:
    assert asked("POST", "/readyz")[0] == 405
    assert asked("GET", "/")[0] == 404
