# SPDX-License-Identifier: Apache-2.0
"""One request on its way through, and what serves one: the types between intake, pipeline and whoever answers a method.

Nothing here does anything.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Coroutine
from typing import Any

from outrider import bind, identity, names
from outrider_sidecar import agents, asked, exchange, records, states


@dataclasses.dataclass(frozen=True, slots=True)
class Visit:
    """Where it came in, what it asks, and how to answer. `server` None is the merged endpoint."""

    request: exchange.Request
    reply: exchange.Reply
    endpoint: str
    server: names.ServerId | None
    subject: asked.Asked
    about: records.About

    @property
    def agent(self) -> agents.Agent | None:
        """The live session it belongs to; None for stateless requests and legacy ones without a session."""
        return self.subject.agent

    @property
    def user(self) -> identity.User | None:
        """Who is behind the agent, verified; None when no token was presented."""
        return self.about.user

    @property
    def principal(self) -> str:
        """Whose requestStates it can go on with: the workload's, for this user."""
        return states.principal(self.about.workload, self.about.user)


Handler = Callable[[Visit, bind.Bound], Coroutine[Any, Any, None] | None]
"""Serves one method. None: answered, or going on by callbacks; a coroutine only when something must be waited for."""

Listener = Callable[[Visit, bind.Bound], None]
"""Takes one notification, which has been answered already."""
