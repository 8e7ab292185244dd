# SPDX-License-Identifier: Apache-2.0
"""What an agent asked and the leave to do it, as one module's test needs them."""

from __future__ import annotations

import dataclasses
import json
from typing import Any

from outrider import call, decide, decision, names, testing
from outrider_sidecar import agents, asked, conventions, governed, jsonrpc

NO_TRACE = conventions.Trace()


class Plenty:
    """`budgets.Units` of somebody whose money never ends."""

    def available(self, *_: Any) -> int:
        return 10**12


def subject(
    method: str = "tools/call",
    params: dict[str, Any] | None = None,
    *,
    modern: bool = True,
    trace: conventions.Trace = NO_TRACE,
    agent: agents.Agent | None = None,
    raw: bytes | None = None,
) -> asked.Asked:
    """A request as intake makes it; `raw` is the whole body instead of `method` and `params`."""
    body = {"jsonrpc": "2.0", "id": "theirs", "method": method, "params": params or {}}
    message = jsonrpc.parse(json.dumps(body).encode() if raw is None else raw)
    version = conventions.MODERN if modern else conventions.LEGACY[-1]
    return asked.Asked(modern, version, message, trace, agent)


def permit(of: asked.Asked, server: names.ServerId = testing.CRM) -> decision.Permit:
    """Leave to ask a server for exactly this, whatever it is: decided for a tool, and then put on what was asked."""
    view = testing.a_server(testing.allow(), server=server)
    verdict = decide.decide(testing.bound_to(view, "t"), call.Call(server, "t"), Plenty(), now=0.0)
    assert isinstance(verdict, decision.Permit), verdict
    return dataclasses.replace(verdict, call=governed.named(of.message).at(server))
