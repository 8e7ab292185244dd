# SPDX-License-Identifier: Apache-2.0
"""MCPServer.spec.credentials: who is lent what, and where it goes.

Part of the server model. Refuses headers that are the proxy's own to set, and an entry that says two things or nothing.
"""

from __future__ import annotations

from typing import Annotated

import pydantic

from outrider.resources import fields, forms, headers, oauth
from outrider.resources.fields import FILES_ONLY, Duration, Glob, Model, wrong

COMMON_NAME_PATTERN = r"^[A-Za-z0-9][A-Za-z0-9._@-]*$"

_LIFE = (60, 86_400)
"""Seconds that a client certificate may live, at least and at most."""


class Inject(Model):
    """Where the credential goes in a request to the server."""

    header: Annotated[str, pydantic.Field(pattern=fields.HEADER_PATTERN, max_length=64)] = pydantic.Field(
        default="Authorization",
        description="The header that carries the value. Not one that is the proxy's own to set, and not Cookie.",
        json_schema_extra=fields.checked(headers.INJECTED_RULE),
    )
    prefix: Annotated[str, pydantic.Field(pattern=forms.PRINTABLE, max_length=64)] | None = pydantic.Field(
        default=None,
        description="What stands before the value; left out, `Bearer ` in Authorization and nothing elsewhere.",
    )

    @pydantic.field_validator("header")
    @classmethod
    def _ours(cls, header: str) -> str:
        if headers.reserved(header) or header.lower() == "cookie":
            raise wrong("", f"{header} is the proxy's own to set; a credential cannot go there")
        return header


class ClientCertificate(Model):
    """A certificate that Vault's PKI engine issues, with which the proxy names itself to the server (mTLS)."""

    vault: oauth.Issuer = pydantic.Field(description="The PKI engine and its role, such as pki/issue/agent.")
    common_name: Annotated[str, pydantic.Field(pattern=COMMON_NAME_PATTERN, max_length=64)] = pydantic.Field(
        description="The certificate's common name; the PKI role must allow it."
    )
    ttl: Duration | None = pydantic.Field(
        default=None,
        description="How long a certificate is good for, 1m to 1440m; left out, 60m. It is renewed before.",
        json_schema_extra=fields.checked(
            (
                "duration(self) >= duration('60s') && duration(self) <= duration('86400s')",
                "must be from 1m to 1440m",
            )
        ),
    )

    @pydantic.field_validator("ttl")
    @classmethod
    def _within_reason(cls, ttl: str | None) -> str | None:
        if ttl is not None and not _LIFE[0] <= fields.seconds(ttl) <= _LIFE[1]:
            raise wrong("", "must be from 1m to 1440m")
        return ttl


KINDS = ("vault", "secretRef", "oauthClientCredentials", "tokenExchange", "clientCertificate", "none")
"""What an entry can be in a cluster."""

_SAID = "[" + ", ".join(f"has(self.{kind})" for kind in KINDS) + "].filter(k, k).size() == 1"
_IN_CLUSTER = f"needs exactly one of {', '.join(KINDS[:-1])} and none"
_ANYWHERE = f"needs exactly one of {', '.join((*KINDS[:-1], 'file'))} and none"


class Credential(Model):
    """One entry of the ordered list: who gets which credential for which tools. The first match is used.

    An entry about users is never passed over because the user is not known: the call is then refused.
    """

    name: fields.Label = pydantic.Field(description="The entry's name, unique in the list.")
    from_: fields.Selectors = pydantic.Field(alias="from", description="Which callers it is lent to.")
    tools: Annotated[tuple[Glob, ...], pydantic.Field(min_length=1, max_length=64)] = pydantic.Field(
        default=("*",),
        description="Which tools it is for; for prompts and resources the first entry is taken that is for the caller.",
    )
    vault: oauth.VaultValue | None = pydantic.Field(default=None, description="The value is in Vault.")
    secret_ref: oauth.SecretKey | None = pydantic.Field(
        default=None,
        description="The value is in a Secret of the workload's namespace that the pod's author chose for this server with "
        "the annotation outrider.dev/secrets.",
    )
    file: oauth.FileSource | None = pydantic.Field(
        default=None, description="The value is in a file of this machine.", json_schema_extra=FILES_ONLY
    )
    oauth_client_credentials: oauth.Grant | None = pydantic.Field(
        default=None,
        description="An access token of the proxy's own, by the client credentials grant (RFC 6749, 4.4).",
    )
    token_exchange: oauth.Exchange | None = pydantic.Field(
        default=None,
        description="An access token for the user, in exchange for the token the user came with (RFC 8693). Calls without a "
        "user are refused.",
    )
    client_certificate: ClientCertificate | None = pydantic.Field(
        default=None,
        description="A client certificate for mTLS with the server; nothing is sent in a header.",
    )
    none: fields.Yes | None = pydantic.Field(
        default=None,
        description="Nothing is sent to these callers' calls: the server needs no credential for them.",
    )
    inject: Inject | None = pydantic.Field(
        default=None, description="Where the value goes; left out, `Authorization: Bearer `."
    )

    model_config = pydantic.ConfigDict(
        json_schema_extra=fields.checked_last((_SAID, _IN_CLUSTER))
        | fields.checked(
            (
                "!has(self.inject) || !(has(self.none) || has(self.clientCertificate))",
                "inject has no meaning with none and with a clientCertificate: nothing is sent in a header; remove it",
            ),
        )
    )

    @property
    def kind(self) -> str:
        """The field that says where the credential comes from, as it is written."""
        return next(alias for alias, value in self._kinds().items() if value is not None)

    @property
    def header(self) -> str | None:
        """The header that carries it, in lower case; None when none does."""
        if self.none or self.client_certificate:
            return None
        return (self.inject or Inject()).header.lower()

    def _kinds(self) -> dict[str, object]:
        return {
            "vault": self.vault,
            "secretRef": self.secret_ref,
            "file": self.file,
            "oauthClientCredentials": self.oauth_client_credentials,
            "tokenExchange": self.token_exchange,
            "clientCertificate": self.client_certificate,
            "none": self.none,
        }

    @pydantic.model_validator(mode="after")
    def _one_source(self) -> Credential:
        kinds = self._kinds()
        if list(kinds.values()).count(None) != len(kinds) - 1:
            raise wrong("", _ANYWHERE)
        if self.inject and self.header is None:
            raise wrong("inject", f"has no meaning with {self.kind}: nothing is sent in a header")
        return self
