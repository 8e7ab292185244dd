# SPDX-License-Identifier: Apache-2.0
"""What the prober is told: where every server is and what it sends to list it, and no rule of anybody's.

Called by the operator for the one workload that makes the catalogue. A snapshot of it allows no call at all: `probing` lets its
proxy list tools, and decide looks at that in one place. Refuses to name servers that are Disabled: they are left alone.
"""

from __future__ import annotations

import msgspec

from outrider import names, resources
from outrider import snapshot as snapshots
from outrider.compile import assembly, lending, scope, views
from outrider.resources import credential, trust


class Probing:
    """The prober's snapshot of one world after another; a server that did not change is not viewed anew."""

    def __init__(self, namespace: str, service_account: str) -> None:
        self._subject = (namespace, service_account)
        self._views: dict[names.ServerId, tuple[resources.MCPServer, snapshots.ServerView | None]] = {}
        self._vault: trust.Vault | None = None

    def __call__(self, world: resources.World, epoch: int = 1) -> snapshots.Snapshot:
        site = assembly.Site(epoch=epoch, refused=world.api_servers)
        if world.settings.vault != self._vault:
            self._views.clear()
            self._vault = world.settings.vault
        fresh = {}
        for placed in world.servers:
            made = placed.resource
            held = self._views.get(made.id)
            same = held is not None and held[0] is made
            fresh[made.id] = held if held is not None and same else (made, _view(made, site, world.settings))
        self._views = fresh
        # Whose policy says what is nothing to the prober: the indexes stay empty.
        case = scope.case_of(world, self._subject, scope.Index(), scope.Index())
        found = (view for _, view in fresh.values() if view is not None)
        return msgspec.structs.replace(assembly.assembled(case, found, site), probing=True)


def _view(
    made: resources.MCPServer, site: assembly.Site, settings: resources.Settings
) -> snapshots.ServerView | None:
    url = assembly.address(made, site)
    if url is None or made.spec.lifecycle is snapshots.Lifecycle.DISABLED:
        return None
    return snapshots.ServerView(
        id=made.id,
        generation=made.metadata.generation,
        endpoint=views.endpoint(made.spec.endpoint, url=url),
        credentials=_credentials(made, settings),
    )


def _credentials(made: resources.MCPServer, settings: resources.Settings) -> tuple[snapshots.Credential, ...]:
    """The entry's first that needs no user, whoever it is meant for, when this place can lend it: no file, no workload's secret."""
    listed = made.spec.credentials or ()
    first = next((entry for entry in listed if not _needs_user(entry)), None)
    lent = None if first is None else lending.lent(lending.Borrower(settings, made.id, None), first)
    return () if lent is None or lending.from_files(lent.source) else (lent,)


def _needs_user(entry: credential.Credential) -> bool:
    return entry.token_exchange is not None or all(selector.personal for selector in entry.from_)
