# SPDX-License-Identifier: Apache-2.0
"""Who is asking: only what was attested, never what was claimed.

Called by compile (to resolve selectors) and by the proxy (to know itself and its users). Labels, headers, `_meta` and `clientInfo`
are never identity (R29), so nothing here can hold them.
"""

from __future__ import annotations

import dataclasses

import msgspec

from outrider import names

PRINCIPAL_CHARACTERS_MAX = 320


class Workload(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A ServiceAccount in its namespace, with the teams the settings give it (sorted)."""

    namespace: str
    service_account: str
    teams: tuple[str, ...] = ()

    def __str__(self) -> str:
        return f"{self.namespace}/{self.service_account}"


@dataclasses.dataclass(frozen=True, slots=True)
class User:
    """A person whose token an identity provider of the settings signed; everything but `name` is `provider:value`.

    `id` is `provider:sub`. `names` are what `users:` may call it: the id, and the e-mail address where the provider's settings let
    it count. `client`: the OAuth client that the token was given to. `actor`: who acts for the user (RFC 8693 `act`). `expires_at`
    in epoch seconds. `token` is what was presented, for an exchange (RFC 8693) alone: it has no repr and is no part of equality.
    """

    id: str
    names: frozenset[str]
    groups: frozenset[str] = frozenset()
    client: str = ""
    actor: str = ""
    expires_at: float = 0.0
    token: str = dataclasses.field(default="", repr=False, compare=False)

    def __str__(self) -> str:
        return self.id


def workload_ref(text: str) -> tuple[str, str] | None:
    """Parses `sa:namespace/name` or `namespace/name`, the form of `--as`; None when it is neither."""
    parsed = names.server_id(text.removeprefix("sa:"))
    return (parsed.namespace, parsed.name) if parsed else None


def principal_ref(text: str) -> tuple[str, str] | None:
    """Parses `provider:value`, as users, groups and OAuth clients are written; None when it is not that."""
    provider, _, value = text.partition(":")
    if not names.is_label(provider) or not value or value != value.strip() or not value.isprintable():
        return None
    return (provider, value) if len(text) <= PRINCIPAL_CHARACTERS_MAX else None
