# SPDX-License-Identifier: Apache-2.0
"""World: every object that is known, each with where it came from.

Made by a source of resources (manifests for files), read by compile. Plain values; it refuses nothing.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Generic, TypeVar

import pydantic

from outrider.resources import budget, policy, server, settings

Resource = TypeVar("Resource", server.MCPServer, policy.MCPToolPolicy, budget.MCPBudget)

KINDS: dict[str, type[pydantic.BaseModel]] = {
    "MCPServer": server.MCPServer,
    "MCPToolPolicy": policy.MCPToolPolicy,
    "MCPBudget": budget.MCPBudget,
    "Settings": settings.Settings,
}
"""Every kind of the group, by name."""


@dataclasses.dataclass(frozen=True, slots=True)
class Placed(Generic[Resource]):
    """An object and its origin; `line` counts from 1, 0 when there is none."""

    resource: Resource
    file: str = ""
    line: int = 0


@dataclasses.dataclass(frozen=True, slots=True)
class World:
    """All objects, in the order of (namespace, name), and the labels of every namespace where namespaces have any.

    `api_servers` are the addresses of the API server's endpoints, sorted, each in its one spelling; () where there is none or
    nobody knows them.
    """

    servers: tuple[Placed[server.MCPServer], ...] = ()
    policies: tuple[Placed[policy.MCPToolPolicy], ...] = ()
    budgets: tuple[Placed[budget.MCPBudget], ...] = ()
    settings: settings.Settings = settings.DEFAULT
    namespaces: Mapping[str, Mapping[str, str]] = dataclasses.field(default_factory=dict)
    api_servers: tuple[str, ...] = ()
