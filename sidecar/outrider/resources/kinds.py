# SPDX-License-Identifier: Apache-2.0
"""What the API server is told of each kind besides its fields: names, columns, and which revision of the schemas it is.

Called by crd and unknown_fields. Plain values; it refuses nothing.
"""

from __future__ import annotations

import dataclasses

from outrider import names

REVISION = 6
"""Raised whenever a CRD or a field policy changes: an installation never goes back behind the one that is live."""

REVISION_LABEL = f"{names.GROUP}/crd-revision"

VERSION = names.API_VERSION.rpartition("/")[2]


@dataclasses.dataclass(frozen=True, slots=True)
class Column:
    """What `kubectl get` shows; one with `wide` only under `-o wide`."""

    name: str
    path: str
    type: str = "string"
    wide: bool = False


@dataclasses.dataclass(frozen=True, slots=True)
class Kind:
    """A kind as the API server serves it. `columns` come before the age."""

    name: str
    plural: str
    short: str
    columns: tuple[Column, ...]


_READY = Column("Ready", '.status.conditions[?(@.type=="Ready")].status')
_WHY = Column("Why", '.status.conditions[?(@.type=="Ready")].reason', wide=True)
_PROGRAMMED = Column("Programmed", ".status.programmed")
_ENFORCEABLE = Column("Enforceable", '.status.conditions[?(@.type=="Enforceable")].reason', wide=True)
_REACHABLE = Column("Reachable", '.status.conditions[?(@.type=="Reachable")].reason', wide=True)

KINDS = (
    Kind(
        "MCPServer",
        "mcpservers",
        "orsrv",
        (
            _READY,
            Column("Version", ".spec.version"),
            Column("Tools", ".status.toolCount", "integer"),
            Column("Transport", ".spec.endpoint.transport"),
            dataclasses.replace(_PROGRAMMED, wide=True),
            Column("Lifecycle", ".spec.lifecycle", wide=True),
            Column("Url", ".spec.endpoint.url", wide=True),
            Column("Service", ".spec.endpoint.service.name", wide=True),
            _WHY,
            _REACHABLE,
            _ENFORCEABLE,
        ),
    ),
    Kind(
        "MCPToolPolicy",
        "mcptoolpolicies",
        "orpol",
        (
            _READY,
            Column("Mode", ".spec.mode"),
            Column("Targets", ".status.targets", "integer"),
            Column("Rules", ".status.rules", "integer"),
            _PROGRAMMED,
            _WHY,
            _ENFORCEABLE,
        ),
    ),
    Kind(
        "MCPBudget",
        "mcpbudgets",
        "orbud",
        (
            _READY,
            Column("On-Exceeded", ".spec.onExceeded"),
            Column("Limits", ".status.limits", "integer"),
            _PROGRAMMED,
            _WHY,
            _ENFORCEABLE,
        ),
    ),
)
"""In the order of resources.md."""
