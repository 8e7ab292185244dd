# SPDX-License-Identifier: Apache-2.0
"""A whole proxy before a stage that keeps every byte, for bodies that an agent would have to write by hand.

`open_to(rules)` gives an `Arena`: `post` sends a body as it is, at either endpoint, in either era; `arrived` is what the
stage has heard from agents' requests since, each held against the witness when the arena closes.
"""

from __future__ import annotations

import base64
import contextlib
import dataclasses
import json
import pathlib
import tempfile
from collections.abc import AsyncIterator
from typing import Any

from tests import proxies
from tests.servers import mcp, stages, witness

from outrider import rules

ENDPOINTS = {"own endpoint": proxies.PATH, "merged endpoint": "/mcp"}
ERAS = ("modern", "legacy")
ALIAS = "api__"
COOKIE = "sid=agents-own-cookie"
OWN_WORK = frozenset({
    "server/discover", "initialize", "notifications/initialized", "tools/list", "prompts/list", "resources/list",
    "resources/templates/list", "subscriptions/listen", "notifications/cancelled", "logging/setLevel", "",
})  # fmt: skip
"""What the proxy sends of its own accord; the rest arrives because an agent asked for it."""


@dataclasses.dataclass
class Arena:
    """`sessions` are those of legacy agents, by path."""

    world: proxies.World
    stage: stages.Stage
    sessions: dict[str, str] = dataclasses.field(default_factory=dict)
    read_to: int = 0

    async def post(
        self,
        body: bytes,
        *,
        path: str,
        era: str,
        headers: dict[str, str] | None = None,
        session: str | None = None,
    ) -> proxies.Told:
        """Sends exactly these bytes, with the headers that a right agent of the era would send with them."""
        head = {
            "content-type": "application/json",
            "accept": "application/json, text/event-stream",
            "cookie": COOKIE,
        }
        if era == "legacy":
            head["mcp-protocol-version"] = mcp.LEGACY
            if path not in self.sessions:
                self.sessions[path] = await self.world.open_session(path)
            head["mcp-session-id"] = self.sessions[path] if session is None else session
        else:
            head |= {"mcp-protocol-version": mcp.MODERN, **mirrored(body)}
        return await (await self.world.send("POST", path, body, head | (headers or {}))).answer()

    @property
    def asked_for(self) -> list[stages.Heard]:
        """What agents' requests made arrive since this was last looked at."""
        fresh, self.read_to = self.stage.heard[self.read_to :], len(self.stage.heard)
        return [each for each in fresh if each.method not in OWN_WORK]


def mirrored(body: bytes) -> dict[str, str]:
    """The headers by which the stateless era repeats a body's method and name; none for a body that has none."""
    try:
        read = json.loads(body)
        method, params = read["method"], read.get("params", {})
    except (ValueError, KeyError, TypeError, RecursionError, AttributeError):
        return {"mcp-method": "tools/call"}
    named = params.get("uri" if method == "resources/read" else "name") if isinstance(params, dict) else None
    head = {"mcp-method": method if isinstance(method, str) and method.isascii() else "tools/call"}
    if isinstance(named, str):
        plain = named.isascii() and named.isprintable() and named == named.strip()
        encoded = base64.b64encode(named.encode("utf-8", "surrogatepass")).decode()
        head["mcp-name"] = named if plain else f"=?base64?{encoded}?="
    return head


def message(method: str, members: str, *, era: str, id_: str = "1") -> bytes:
    """A request whose params are these members, as they are; with what the era needs in `_meta`."""
    meta = f'"_meta":{json.dumps(proxies.META)}' if era == "modern" else ""
    inside = ",".join(each for each in (members, meta) if each)
    return f'{{"jsonrpc":"2.0","id":{id_},"method":"{method}","params":{{{inside}}}}}'.encode()


@contextlib.asynccontextmanager
async def open_to(*chosen: rules.Rule, stage: stages.Stage, **view: Any) -> AsyncIterator[Arena]:
    """An arena with one server, `crm/api`."""
    with tempfile.TemporaryDirectory() as folder:
        async with stages.playing(stage), proxies.running(pathlib.Path(folder)) as world:
            shown = proxies.a_view(None, *chosen, endpoint={"url": stage.url}, **view)
            world.apply(shown)
            made = Arena(world, stage)
            yield made
            secrets = (proxies.TOKEN.decode(), COOKIE, *made.sessions.values())
            assert [said for each in stage.heard for said in witness.complaints(each, secrets=secrets)] == []
