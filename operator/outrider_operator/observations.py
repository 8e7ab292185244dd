# SPDX-License-Identifier: Apache-2.0
"""What is known of servers because somebody called them: the prober's catalogue, and what sidecars were shown instead.

Read by conditions and by the inspection of rules that name tools. Nothing here is a promise: it says when it was seen.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping


@dataclasses.dataclass(frozen=True, slots=True)
class Observation:
    """One server as it was last seen, at `seen_at` (Unix seconds).

    `reachable` None: not tried yet. `tools`: (name, fingerprint), kept while the server is away. `differing`: the pods that
    are shown other definitions, and in what.
    """

    reachable: bool | None = None
    message: str = ""
    tools: tuple[tuple[str, str], ...] = ()
    protocol_versions: tuple[str, ...] = ()
    server_info: Mapping[str, str] = dataclasses.field(default_factory=dict)
    seen_at: float = 0.0
    differing: tuple[tuple[str, str], ...] = ()
