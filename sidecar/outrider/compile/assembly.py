# SPDX-License-Identifier: Apache-2.0
"""One snapshot out of the views of its servers, and where each server is.

Called by `compile.snapshot`, which makes everything anew, and by the Compiler, which does not: what both say is made here.
"""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Iterable, Mapping

from outrider import names, resources, snapshot
from outrider.compile import lending, scope
from outrider.resources import fields, trust


@dataclasses.dataclass(frozen=True, slots=True)
class Site:
    """Facts of the installation that no object states.

    `loopback`: servers of this machine may be dialled (a laptop). `bridges`: the URL of the bridge of each server that is a
    command; a command without one is left out. `refused`: addresses that are never dialled, the World's `api_servers`.
    """

    epoch: int = 1
    loopback: bool = False
    bridges: Mapping[names.ServerId, str] = dataclasses.field(default_factory=dict)
    refused: tuple[str, ...] = ()


def address(made: resources.MCPServer, site: Site) -> str | None:
    """The URL at which a server is called; None when it has none here."""
    endpoint = made.spec.endpoint
    if endpoint.service is not None:
        return endpoint.service.url(made.metadata.namespace, tls=endpoint.tls is not None)
    return endpoint.url or site.bridges.get(made.id)


def assembled(case: scope.Case, views: Iterable[snapshot.ServerView], site: Site) -> snapshot.Snapshot:
    """The snapshot of the case's workload."""
    given = case.settings
    allow = tuple(
        snapshot.NetworkAllow(suffix=entry.suffix, cidr=entry.cidr) for entry in given.network.allow
    )
    servers = tuple(sorted(views, key=lambda view: view.id))
    return snapshot.Snapshot(
        epoch=site.epoch,
        workload=case.workload,
        servers=servers,
        network=snapshot.Network(loopback=site.loopback, allow=allow, refused=site.refused),
        currency=default_text(given.currency),
        vault=_vault(given.vault) if given.vault is not None and any(map(_borrows, servers)) else None,
        providers=tuple(map(_provider, given.identity_providers)),
    )


def _borrows(view: snapshot.ServerView) -> bool:
    """Whether Vault has to be asked for something of this server's."""
    return any(lending.from_vault(each.source) for each in view.credentials)


def _vault(given: trust.Vault) -> snapshot.Vault:
    return snapshot.Vault(
        address=given.address.removesuffix("/"),
        method=given.method,
        auth_path=default_text(given.auth_path),
        mount=default_text(given.mount),
        namespace=given.namespace or "",
        ca_bundle=given.ca_bundle,
    )


def _provider(given: trust.IdentityProvider) -> snapshot.IdentityProvider:
    return snapshot.IdentityProvider(
        name=given.name,
        issuer=given.issuer,
        audience=given.audience,
        jwks_uri=given.jwks_uri,
        groups_claim=default_text(given.claims.groups),
        clients=given.clients,
        client_claim=given.claims.client or "",
        email_domains=given.email_domains,
        lifetime_seconds_max=int(fields.seconds(given.max_lifetime)),
        ca_bundle=given.ca_bundle,
    )


def default_text(text: str) -> str:
    """The same text; when it is that of a default, the very default.

    Encoding leaves out what *is* the default, not what equals it: a `currency: USD` that somebody wrote down must not make
    another version than one that nobody did.
    """
    return sys.intern(text)
