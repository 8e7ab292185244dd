# SPDX-License-Identifier: Apache-2.0
"""Who is asking: only what was attested, never what was claimed.

Called by compile (to resolve selectors) and by the proxy (to know itself). Labels, headers, `_meta` and `clientInfo`
are never identity (R29), so nothing here can hold them.
"""

from __future__ import annotations

import msgspec

from outrider import names


class Workload(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A ServiceAccount in its namespace, with the teams the settings give it (sorted)."""

    namespace: str
    service_account: str
    teams: tuple[str, ...] = ()

    def __str__(self) -> str:
        return f"{self.namespace}/{self.service_account}"


def workload_ref(text: str) -> tuple[str, str] | None:
    """Parses `sa:namespace/name` or `namespace/name`, the form of `--as`; None when it is neither."""
    parsed = names.server_id(text.removeprefix("sa:"))
    return (parsed.namespace, parsed.name) if parsed else None
