# SPDX-License-Identifier: Apache-2.0
"""Where the credential of an entry is, whole: what an MCPServer says, below what the settings and its owner fix.

Called by views, for the workload that calls, and by probing, for the one that lists tools. No field of an object moves the
tenant boundary: mount and prefix are the settings', namespaces and names those of the parties, and a path is looked at once
more, whoever let it in. Refuses (None) an entry whose path could leave its tenant.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping
from types import MappingProxyType
from typing import Literal

from outrider import names, resources, rules, snapshot
from outrider.resources import credential, fields, oauth, trust, urls

PROBER_ROLE = "outrider_prober"
"""The Vault role of whoever lists the tools of servers. The underscore keeps it apart from that of a namespace `prober`."""

WORKLOAD_ROLE = "outrider"
"""The Vault role of secrets that a workload's own namespace stores."""

_PATH = re.compile(fields.PATH_PATTERN[1:-1])
_KEY = re.compile(oauth.KEY_PATTERN[1:-1])
_TTL = "60m"
"""How long a client certificate lives where its entry does not say."""
_SUBJECT_TYPES: Mapping[str, Literal["access_token", "jwt", "id_token"]] = MappingProxyType(
    {"AccessToken": "access_token", "JWT": "jwt", "IDToken": "id_token"}
)
_PLAIN = trust.Vault(address="https://vault.invalid")
"""Prefixes where the settings name no Vault: nothing is fetched then, and the entry still stands in its place."""


class _Unsafe(Exception):
    """A path that could mean something else than what lies below it, a secret that is not this party's, or a place for no user's token."""


def server_role(namespace: str) -> str:
    """The Vault role that reads the secrets of a namespace's servers."""
    return f"outrider-{namespace}"


def server_path(prefix: str, server: names.ServerId, path: str = "") -> str:
    """Where what the server's own side stores is."""
    return "/".join(filter(None, (prefix, "servers", *server, path)))


def workload_path(prefix: str, workload: str, server: names.ServerId, path: str = "") -> str:
    """Where what a workload's namespace stores for one server is."""
    return "/".join(filter(None, (prefix, "workloads", workload, *server, path)))


@dataclasses.dataclass(frozen=True, slots=True)
class Borrower:
    """Who borrows: any workload of a namespace, or, None, the prober, who is in nobody's namespace."""

    settings: resources.Settings
    server: names.ServerId
    namespace: str | None

    @property
    def _vault(self) -> trust.Vault:
        return self.settings.vault or _PLAIN

    def role(self, owner: oauth.Owner) -> str:
        """The Vault role to log in with. Raises _Unsafe where there is none."""
        if self.namespace is None:
            if owner == "Workload":
                raise _Unsafe
            return PROBER_ROLE
        return WORKLOAD_ROLE if owner == "Workload" else server_role(self.server.namespace)

    def path(self, prefix: str, owner: oauth.Owner, path: str) -> str:
        """The whole path. Raises _Unsafe for one that does not fit its pattern, as the API server ought to have done."""
        if not _PATH.fullmatch(path):
            raise _Unsafe
        if owner == "Server":
            return server_path(prefix, self.server, path)
        if self.namespace is None:
            raise _Unsafe
        return workload_path(prefix, self.namespace, self.server, path)

    def value(self, given: oauth.Value | credential.Credential) -> snapshot.Value:
        """Where one secret value is."""
        if given.vault is not None:
            return self._in_vault(given.vault)
        if given.secret_ref is not None:
            if not _KEY.fullmatch(given.secret_ref.key):
                raise _Unsafe
            return snapshot.MountedSecret(
                path=f"{self.server.namespace}.{self.server.name}/{given.secret_ref.key}"
            )
        assert given.file is not None, "one of the three is said"
        return snapshot.FileSecret(path=given.file.path)

    def _in_vault(self, given: oauth.VaultValue) -> snapshot.Value:
        role = self.role(given.owner)
        if given.engine == "KV":
            path = self.path(self._vault.prefix, given.owner, given.path)
            return snapshot.VaultSecret(role=role, path=path, key=given.key)
        path = self.path(self._vault.engines_prefix, given.owner, given.path)
        return snapshot.VaultLease(role=role, path=path, key=given.key)

    def client(self, given: oauth.Grant) -> snapshot.OAuthClient:
        """Who the proxy is to the authorization server."""
        plain = snapshot.OAuthClient(id=given.client_id)
        return snapshot.OAuthClient(
            id=given.client_id,
            secret=None if given.client_secret is None else self.value(given.client_secret),
            post=bool(given.post),
            key=None if given.private_key is None else self.value(given.private_key),
            algorithm=given.algorithm or plain.algorithm,
            key_id=given.key_id or plain.key_id,
        )

    def source(self, entry: credential.Credential) -> snapshot.Source | None:
        """Where the entry's credential comes from; None for `none: true`."""
        if entry.none:
            return None
        if entry.oauth_client_credentials is not None:
            grant = entry.oauth_client_credentials
            return snapshot.ClientCredentials(
                token_url=grant.token_url,
                client=self.client(grant),
                scopes=grant.scopes or (),
                resource=grant.resource or "",
                audience=grant.audience or "",
                ca_bundle=grant.tls.ca_bundle if grant.tls else None,
            )
        if entry.token_exchange is not None:
            return self._exchange(entry.token_exchange)
        if entry.client_certificate is not None:
            return self._certificate(entry.client_certificate)
        return self.value(entry)

    def _exchange(self, given: oauth.Exchange) -> snapshot.TokenExchange:
        if not shown_to(self.settings, given.token_url):
            raise _Unsafe
        return snapshot.TokenExchange(
            token_url=given.token_url,
            client=self.client(given),
            scopes=given.scopes or (),
            resource=given.resource or "",
            audience=given.audience or "",
            actor=given.actor == "Workload",
            subject_type=_SUBJECT_TYPES[given.subject_token_type or "AccessToken"],
            ca_bundle=given.tls.ca_bundle if given.tls else None,
        )

    def _certificate(self, given: credential.ClientCertificate) -> snapshot.ClientCertificate:
        return snapshot.ClientCertificate(
            role=self.role(given.vault.owner),
            path=self.path(self._vault.engines_prefix, given.vault.owner, given.vault.path),
            common_name=given.common_name,
            ttl_seconds=int(fields.seconds(given.ttl or _TTL)),
        )


def shown_to(settings: resources.Settings, token_url: str) -> bool:
    """Whether users' tokens, and the workload's for exchanges, may be sent to a token endpoint: who made them is there, or the
    settings list it. An MCPServer's author alone cannot have the tokens of his consumers' users.

    True while there are no providers: then there are no users.
    """
    listed = settings.identity_providers
    return not listed or any(
        token_url in each.token_endpoints or urls.origin(each.issuer) == urls.origin(token_url)
        for each in listed
    )


def lent(
    borrower: Borrower, entry: credential.Credential, callers: rules.Callers = ()
) -> snapshot.Credential | None:
    """The entry as this borrower may use it; None when it must not be used at all."""
    try:
        source = borrower.source(entry)
    except _Unsafe:
        return None
    if source is None or isinstance(source, snapshot.ClientCertificate):
        return snapshot.Credential(name=entry.name, tools=entry.tools, source=source, callers=callers)
    header = entry.header
    assert header is not None, "every other kind goes into a header"
    default = "Bearer " if header == "authorization" else ""
    given = entry.inject.prefix if entry.inject else None
    return snapshot.Credential(
        name=entry.name,
        tools=entry.tools,
        source=source,
        header=header,
        prefix=default if given is None else given,
        callers=callers,
    )


def from_vault(source: snapshot.Source | None) -> bool:
    """Whether Vault has to be asked for it."""
    if isinstance(source, snapshot.ClientCredentials | snapshot.TokenExchange):
        return from_vault(source.client.secret) or from_vault(source.client.key)
    return isinstance(source, snapshot.VaultSecret | snapshot.VaultLease | snapshot.ClientCertificate)


def from_files(source: snapshot.Source | None) -> bool:
    """Whether it is in a file of a laptop."""
    if isinstance(source, snapshot.ClientCredentials | snapshot.TokenExchange):
        return from_files(source.client.secret) or from_files(source.client.key)
    return isinstance(source, snapshot.FileSecret)
