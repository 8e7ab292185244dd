# SPDX-License-Identifier: Apache-2.0
"""What each sidecar was offered and what it said to that.

Read by fleet, which counts who enforces what.
"""

from __future__ import annotations

import dataclasses


@dataclasses.dataclass(frozen=True, slots=True)
class Refusal:
    """A sidecar's words about the version it was offered; `source` such as `MCPToolPolicy crm/sales-only`, '' if unknown."""

    error: str
    path: str = ""
    source: str = ""


@dataclasses.dataclass(frozen=True, slots=True)
class Receipt:
    """One pod's sidecar. `offered` and `acked` are versions as sent in its schema, '' before any.

    `unexpressed`: what its schema cannot say (`MCPServer ns/name`); denied instead. `connected` False: it holds `acked` still.
    """

    subject: tuple[str, str]
    pod: str
    namespace: str
    schema: int
    offered: str = ""
    acked: str = ""
    refusal: Refusal | None = None
    unexpressed: tuple[str, ...] = ()
    connected: bool = True
