# SPDX-License-Identifier: Apache-2.0
"""Where one secret value is, and how an access token is got with it: the OAuth kinds of credentials.

Part of the server model. Refuses a token endpoint that is not named in the entry itself: nothing is discovered from an
upstream's word.
"""

from __future__ import annotations

from typing import Annotated, Literal

import pydantic

from outrider.resources import endpoints, fields, urls
from outrider.resources.fields import FILES_ONLY, Model, wrong

KEY_PATTERN = r"^[A-Za-z0-9_-][A-Za-z0-9_.-]*$"
SCOPE_PATTERN = r"^[\x21\x23-\x5b\x5d-\x7e]+$"
ISSUING_PATTERN = r"^[A-Za-z0-9_-][A-Za-z0-9_.-]*(/[A-Za-z0-9_-][A-Za-z0-9_.-]*){2,}$"
RESOURCE_PATTERN = r"^[a-z][a-z0-9+.-]*:[\x21\x24-\x5b\x5d\x5f\x61-\x7a\x7e]+$"

Key = Annotated[str, pydantic.Field(pattern=KEY_PATTERN, max_length=128)]
"""One key of a secret that has several."""

Owner = Literal["Server", "Workload"]
"""Whose secret it is: that of the server's own namespace, or that of the calling workload's namespace for this server."""

_OWNER = (
    "Server (left out): the secret lies under the server's namespace and name, and the Vault role of that namespace says "
    "who may read it. Workload: it lies under the calling workload's namespace, for this server."
)

_OPERATION = "must name the engine and its operation where it is a Lease, such as db/creds/readonly"


class Issuer(Model):
    """What issues certificates at Vault."""

    owner: Owner = pydantic.Field(default="Server", description=_OWNER)
    path: Annotated[str, pydantic.Field(pattern=ISSUING_PATTERN, max_length=256)] = pydantic.Field(
        description="The engine, its operation and the role, such as pki/issue/agent, below what the settings and the owner fix."
    )


class VaultValue(Model):
    """A value in Vault. Mount and prefix come from the settings, and whose it is from the owner: no path leaves its tenant."""

    owner: Owner = pydantic.Field(default="Server", description=_OWNER)
    path: fields.Path = pydantic.Field(
        description="Below what the settings and the owner fix: of a KV secret its name; of a lease the engine and its "
        "operation, such as db/creds/readonly."
    )
    key: Key = pydantic.Field(description="Which of the values there.")
    engine: Literal["KV", "Lease"] = pydantic.Field(
        default="KV",
        description="KV (left out): a secret of the KV engine, version 2. Lease: what an engine makes for a time; it is "
        "renewed, and revoked when nobody needs it any more.",
    )

    model_config = pydantic.ConfigDict(
        json_schema_extra=fields.checked_at(
            ".path", "!has(self.engine) || self.engine != 'Lease' || self.path.contains('/')", _OPERATION
        )
    )

    @pydantic.model_validator(mode="after")
    def _operation(self) -> VaultValue:
        if self.engine == "Lease" and "/" not in self.path:
            raise wrong("path", _OPERATION)
        return self


class SecretKey(Model):
    """A key of the Secret that the pod's author chose for this server with the annotation outrider.dev/secrets."""

    key: Key = pydantic.Field(description="Which of the Secret's keys.")


class FileSource(Model):
    """A value in a file of the machine `outrider dev` runs on."""

    path: Annotated[str, pydantic.Field(pattern=r"^[^\x00-\x1f\x7f]+$", max_length=4096)] = pydantic.Field(
        description="The file that holds the value; relative to the folder of the files."
    )

    @pydantic.field_validator("path")
    @classmethod
    def _no_home(cls, path: str) -> str:
        if path.startswith("~"):
            raise wrong("", "~ is not expanded; write the path out, or relative to the folder of the files")
        return path


class Value(Model):
    """Where one secret value is."""

    vault: VaultValue | None = pydantic.Field(default=None, description="In Vault.")
    secret_ref: SecretKey | None = pydantic.Field(
        default=None, description="In a Secret of the workload's namespace that the pod's author chose."
    )
    file: FileSource | None = pydantic.Field(
        default=None, description="In a file of this machine.", json_schema_extra=FILES_ONLY
    )

    model_config = pydantic.ConfigDict(
        json_schema_extra=fields.checked_last(
            ("has(self.vault) != has(self.secretRef)", "needs exactly one of vault and secretRef")
        )
    )

    @pydantic.model_validator(mode="after")
    def _one_place(self) -> Value:
        if [self.vault, self.secret_ref, self.file].count(None) != 2:
            raise wrong("", "needs exactly one of vault, secretRef and file")
        return self


class Grant(Model):
    """How the proxy gets an access token, and who it is to the authorization server."""

    token_url: Annotated[str, pydantic.Field(min_length=8, max_length=2048, pattern=urls.PATTERN)] = (
        pydantic.Field(
            description="The authorization server's token endpoint: https. It is never discovered.",
            json_schema_extra=fields.checked(urls.RULE, urls.PRIVATE_RULE),
        )
    )
    client_id: fields.Visible = pydantic.Field(
        description="The proxy's client id at the authorization server."
    )
    client_secret: Value | None = pydantic.Field(
        default=None, description="Where the client's secret is. Exactly one of clientSecret and privateKey."
    )
    private_key: Value | None = pydantic.Field(
        default=None,
        description="Where the client's private key (PEM) is: it signs a JWT that proves who the client is (RFC 7523).",
    )
    post: bool | None = pydantic.Field(
        default=None,
        description="Whether the secret goes into the request's body (client_secret_post); left out, into its "
        "Authorization header (client_secret_basic).",
    )
    algorithm: Literal["RS256", "PS256", "ES256", "EdDSA"] | None = pydantic.Field(
        default=None, description="What the private key signs with; left out, RS256."
    )
    key_id: fields.Visible | None = pydantic.Field(
        default=None, description="The `kid` of what the private key signs; left out, none."
    )
    scopes: (
        Annotated[
            tuple[Annotated[str, pydantic.Field(pattern=SCOPE_PATTERN, max_length=256)], ...],
            pydantic.Field(min_length=1, max_length=32),
        ]
        | None
    ) = pydantic.Field(default=None, description="The scopes that are asked for; left out, none.")
    resource: Annotated[str, pydantic.Field(pattern=RESOURCE_PATTERN, max_length=1024)] | None = (
        pydantic.Field(
            default=None,
            description="What the token is to be good for, a URI (RFC 8707); left out, not said.",
        )
    )
    audience: fields.Visible | None = pydantic.Field(
        default=None,
        description="For whom the token is to be, by the authorization server's own name for it; left out, not said.",
    )
    tls: endpoints.Tls | None = pydantic.Field(
        default=None, description="How the authorization server's certificate is checked."
    )

    model_config = pydantic.ConfigDict(
        json_schema_extra=fields.checked_last(
            (
                "has(self.clientSecret) != has(self.privateKey)",
                "needs exactly one of clientSecret and privateKey",
            ),
        )
        | fields.checked(
            ("!has(self.post) || has(self.clientSecret)", "post is about a clientSecret; remove it"),
            (
                "(!has(self.algorithm) && !has(self.keyId)) || has(self.privateKey)",
                "algorithm and keyId are about a privateKey; remove them",
            ),
            (
                "!has(self.tls) || self.tokenUrl.startsWith('https:')",
                "tls has no meaning without an https tokenUrl",
            ),
        )
    )

    @pydantic.field_validator("token_url")
    @classmethod
    def _is_private(cls, url: str) -> str:
        if problem := urls.problem(url):
            raise wrong("", problem)
        if not urls.private(url):
            raise wrong("", urls.PRIVATE_RULE[1])
        return url

    @pydantic.model_validator(mode="after")
    def _one_proof(self) -> Grant:
        if (self.client_secret is None) == (self.private_key is None):
            raise wrong("", "needs exactly one of clientSecret and privateKey")
        if self.post is not None and self.client_secret is None:
            raise wrong("post", "is about a clientSecret; remove it")
        if (self.algorithm or self.key_id) and self.private_key is None:
            raise wrong("algorithm" if self.algorithm else "keyId", "is about a privateKey; remove it")
        if self.tls and not self.token_url.startswith("https:"):
            raise wrong("tls", "has no meaning without an https tokenUrl")
        return self


class Exchange(Grant):
    """How the proxy gets an access token in the user's name (RFC 8693)."""

    actor: Literal["Workload", "Nobody"] = pydantic.Field(
        default="Workload",
        description="Workload (left out): the pod's own token is sent along and says who acts for the user. Nobody: it is not.",
    )
    subject_token_type: Literal["AccessToken", "JWT", "IDToken"] | None = pydantic.Field(
        default=None,
        description="What the user's token is called in the request (RFC 8693, subject_token_type); left out, AccessToken. Most "
        "authorization servers know one name only.",
    )
