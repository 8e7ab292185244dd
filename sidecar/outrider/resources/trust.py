# SPDX-License-Identifier: Apache-2.0
"""Settings.vault and Settings.identityProviders: whom the installation believes about secrets and about users.

Part of Settings. Refuses what would be read or answered by whoever is on the way: both are https, or on this machine.
"""

from __future__ import annotations

from typing import Annotated, Literal

import pydantic

from outrider.resources import fields, forms, urls
from outrider.resources.fields import Bundle, Duration, Model, Path, wrong

CLAIM_PATTERN = r"^[^\x00-\x20\x7f-\xa0]+$"

_LIFE = (60, 86_400)
"""Seconds that a user's token may live, at least and at most."""


def _private(url: str) -> str:
    if problem := urls.problem(url):
        raise wrong("", problem)
    if not urls.private(url):
        raise wrong("", f"must be {forms.FORMS[urls.PRIVATE_PATTERN]}")
    return url


_Url = Annotated[
    str,
    pydantic.Field(min_length=8, max_length=2048, pattern=urls.PRIVATE_PATTERN),
    pydantic.AfterValidator(_private),
]


class Vault(Model):
    """The installation's HashiCorp Vault or OpenBao. No MCPServer can name another, or a path outside of these prefixes."""

    address: Annotated[
        str,
        pydantic.Field(min_length=8, max_length=2048, pattern=urls.ORIGIN_PATTERN),
        pydantic.AfterValidator(_private),
    ] = pydantic.Field(description="Where it is: https, a host, perhaps a port.")
    method: Literal["Kubernetes", "JWT"] = pydantic.Field(
        default="Kubernetes",
        description="How sidecars log in with their pod's token: Vault asks the API server about it, or checks its signature itself.",
    )
    auth_path: Path = pydantic.Field(
        default="kubernetes", description="Where the auth method is mounted, below auth/."
    )
    mount: Path = pydantic.Field(default="secret", description="Where the KV engine, version 2, is mounted.")
    prefix: Path = pydantic.Field(
        default="outrider",
        description="What every KV secret of ours lies under: PREFIX/servers/... and PREFIX/workloads/....",
    )
    engines_prefix: Path = pydantic.Field(
        default="outrider",
        description="What engines that make secrets for a time are mounted under: PREFIX/servers/NAMESPACE/SERVER/db, for example.",
    )
    namespace: Path | None = pydantic.Field(
        default=None, description="Vault's own namespace in which all of this is; left out, none."
    )
    ca_bundle: Bundle | None = pydantic.Field(
        default=None,
        description="PEM certificates of the authorities that may sign its certificate, instead of the system's; at most 64 KiB.",
    )


class Claims(Model):
    """Where a provider's tokens say what."""

    groups: Annotated[str, pydantic.Field(pattern=CLAIM_PATTERN, max_length=128)] = pydantic.Field(
        default="groups", description="The claim that lists the user's groups."
    )
    client: Annotated[str, pydantic.Field(pattern=CLAIM_PATTERN, max_length=128)] | None = pydantic.Field(
        default=None,
        description="The claim that names the OAuth client that the token was given to, where that is neither `azp` nor "
        "`client_id`: `cid` at Okta, `appid` in tokens of Entra ID's first version.",
    )


class IdentityProvider(Model):
    """Whose tokens say who the user behind an agent is."""

    name: fields.Label = pydantic.Field(
        description="What users, groups and clients of it are called with: NAME:VALUE."
    )
    issuer: _Url = pydantic.Field(description="The `iss` of its tokens, to the letter: https.")
    audience: fields.Visible = pydantic.Field(
        description="The `aud` that its tokens for this installation have; a token for others is refused."
    )
    jwks_uri: _Url = pydantic.Field(
        description="Where its keys are: https. A private address needs an entry of network.allow."
    )
    token_endpoints: Annotated[tuple[_Url, ...], pydantic.Field(max_length=16)] = pydantic.Field(
        default=(),
        description="Token endpoints elsewhere than at the issuer's own scheme, host and port that a tokenExchange may show users' "
        "tokens to: a tokenUrl as it is written there. Whoever keeps one of them can act as these users.",
    )
    claims: Claims = pydantic.Field(default_factory=Claims, description="Where its tokens say what.")
    clients: Annotated[tuple[fields.Visible, ...], pydantic.Field(max_length=64)] = pydantic.Field(
        default=(),
        description="The OAuth clients whose tokens are taken (`azp`, `client_id`, and `act` of an exchanged token); none "
        "listed, any client's.",
    )
    email_domains: Annotated[tuple[fields.Host, ...], pydantic.Field(max_length=64)] = pydantic.Field(
        default=(),
        description="Domains of which a verified e-mail address is a name of the user too; none listed, no address counts.",
    )
    max_lifetime: Duration = pydantic.Field(
        default="90m",
        description="The longest that a token may live, 1m to 1440m; a longer-lived one is refused.",
    )
    ca_bundle: Bundle | None = pydantic.Field(
        default=None,
        description="PEM certificates of the authorities that may sign the certificate of jwksUri, instead of the system's; "
        "at most 64 KiB.",
    )

    @pydantic.field_validator("max_lifetime")
    @classmethod
    def _within_reason(cls, lifetime: str) -> str:
        if not _LIFE[0] <= fields.seconds(lifetime) <= _LIFE[1]:
            raise wrong("", "must be from 1m to 1440m")
        return lifetime
