# SPDX-License-Identifier: Apache-2.0
"""A proxy whose journal's disk is full, in a process of its own because the limit is the process's.

`python -m tests.full_disks deny|allow` prints what happened as JSON. The limit is the kernel's (RLIMIT_FSIZE): a write
beyond it fails as on a full disk.
"""

from __future__ import annotations

import asyncio
import json
import pathlib
import resource
import sys
import tempfile
from typing import Any

from tests import proxies
from tests.servers import mcp

from outrider import snapshot, testing


async def scenario(folder: pathlib.Path, *, deny: bool) -> dict[str, Any]:
    told: dict[str, Any] = {}
    async with mcp.serving(mcp.Peer()) as peer, proxies.running(folder, reserve_bytes=65_536) as world:
        rules = snapshot.AuditRules(on_unavailable_deny=deny, durability=snapshot.Durability.SYNCED)
        world.apply(proxies.a_view(peer, audit=rules, limits=(testing.a_limit(calls=9),)))
        told["before"] = (await world.call("echo")).reason
        (segment,) = (folder / "journal").glob("*.seg")
        _, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (segment.stat().st_size, hard))
        answer = await world.call("echo")
        told["full"] = answer.reason
        told["text"] = answer.text
        told["calls"] = len(peer.calls)
        told["spent"] = [row.spent for row in world.parts.ledger.standing(0)]
        resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))
        told["after"] = (await world.call("echo")).reason
        await world.settled()
        told["intents"], told["outcomes"] = len(world.intents), len(world.outcomes)
    return told


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        print(json.dumps(asyncio.run(scenario(pathlib.Path(folder), deny=sys.argv[1] == "deny"))))


if __name__ == "__main__":
    main()
