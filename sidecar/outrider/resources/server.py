# SPDX-License-Identifier: Apache-2.0
"""MCPServer: the catalogue entry of one MCP server.

Called by manifests and compile. Refuses to lend a credential on a connection that others can read.
"""

from __future__ import annotations

from typing import Annotated, Literal

import pydantic

from outrider import budgets, names, snapshot
from outrider.resources import credential, endpoints, fields, urls
from outrider.resources.fields import UNIQUE_NAMES, Amount, AnyGlob, Glob, Model, wrong


class Price(Model):
    """What a call costs in the installation's currency."""

    per_call: Amount | None = pydantic.Field(default=None, description="What every call costs.")
    per_thousand_result_tokens: Amount | None = pydantic.Field(
        default=None, description="What a thousand tokens of the result cost, estimated from its bytes."
    )
    max_result_bytes: Annotated[int, pydantic.Field(ge=1, le=67_108_864)] | None = pydantic.Field(
        default=None,
        description="The largest result of a priced call, in bytes; what is reserved before the call (65536).",
    )
    on_error: budgets.OnError | None = pydantic.Field(
        default=None, description="What a failed, cancelled or unknown call costs (Full)."
    )


class ToolPrice(Price):
    """What a call of one tool costs; what it leaves out is as in `default`."""

    name: fields.ToolName = pydantic.Field(description="The tool's exact name, unique in the list.")


class Cost(Model):
    """The prices of a server."""

    default: Price = pydantic.Field(
        default_factory=Price,
        description="The price of every tool not in perTool, and of every prompt and resource.",
    )
    per_tool: Annotated[
        tuple[ToolPrice, ...], pydantic.Field(max_length=128, json_schema_extra=UNIQUE_NAMES)
    ] = pydantic.Field(default=(), description="Prices of single tools.")

    @pydantic.model_validator(mode="after")
    def _once_each(self) -> Cost:
        fields.unique((entry.name for entry in self.per_tool), "perTool")
        return self


class Redaction(Model):
    """What of some tools' calls is never written down."""

    tools: Annotated[tuple[Glob, ...], pydantic.Field(min_length=1, max_length=64)] = pydantic.Field(
        description="Which tools."
    )
    arguments: Annotated[tuple[fields.Pointer, ...], pydantic.Field(min_length=1, max_length=32)] | None = (
        pydantic.Field(default=None, description="JSON pointers into the arguments.")
    )
    result: Annotated[tuple[fields.Pointer, ...], pydantic.Field(min_length=1, max_length=32)] | None = (
        pydantic.Field(default=None, description="JSON pointers into the result.")
    )

    model_config = pydantic.ConfigDict(
        json_schema_extra=fields.checked_last(
            ("has(self.arguments) || has(self.result)", "needs arguments, result or both")
        )
    )

    @pydantic.model_validator(mode="after")
    def _takes_something(self) -> Redaction:
        if not self.arguments and not self.result:
            raise wrong("", "needs arguments, result or both")
        return self


class Tools(Model):
    """Which of the server's tools exist here, what calls cost and what is kept out of the journal."""

    include: Annotated[tuple[Glob, ...], pydantic.Field(min_length=1, max_length=64)] = pydantic.Field(
        default=("*",), description="Only tools that match one of these exist; byte-exact."
    )
    exclude: Annotated[tuple[AnyGlob, ...], pydantic.Field(max_length=64)] = pydantic.Field(
        default=(), description="Tools that match one of these do not exist; case-folded."
    )
    validate_arguments: bool = pydantic.Field(
        default=True, description="Check arguments against the tool's inputSchema before anything is sent."
    )
    idempotent: Annotated[tuple[Glob, ...], pydantic.Field(max_length=64)] = pydantic.Field(
        default=(),
        description="Tools that may be called once more, with a newer credential, when the server refused the first one (401).",
    )
    cost: Cost = pydantic.Field(default_factory=Cost, description="What calls cost.")
    redact: Annotated[tuple[Redaction, ...], pydantic.Field(max_length=32)] = pydantic.Field(
        default=(), description="What is taken out before the journal sees a call."
    )


class Audit(Model):
    """What is written down of each call and how surely."""

    level: snapshot.AuditLevel = pydantic.Field(
        default=snapshot.AuditLevel.ARGUMENTS,
        description="Metadata: who, what, when, how it ended. Arguments: also the arguments. Full: also the result.",
    )
    durability: snapshot.Durability = pydantic.Field(
        default=snapshot.Durability.BUFFERED,
        description="Synced: on disk before the call leaves. Buffered: written before, synced soon after.",
    )
    on_unavailable: Literal["Deny", "Allow"] = pydantic.Field(
        default="Deny", description="What happens to calls while the journal cannot be written."
    )


class Elicitation(Model):
    """What a server may ask the people behind the agents that call it."""

    form: Literal["Allow", "Deny"] = pydantic.Field(
        default="Allow", description="Whether it may show them a form; never one that asks for a secret."
    )
    url_hosts: Annotated[tuple[fields.Host, ...], pydantic.Field(max_length=32)] = pydantic.Field(
        default=(), description="The hosts it may send them to, by https; exact names. None: nowhere."
    )


class ClientFeatures(Model):
    """What a server may ask of the agents that call it; an agent is asked only for what it offers itself."""

    elicitation: Elicitation = pydantic.Field(default_factory=Elicitation, description="Questions to people.")
    sampling: Literal["Allow", "Deny"] = pydantic.Field(
        default="Deny", description="Whether it may have the agent's model write something."
    )
    roots: Literal["Allow", "Deny"] = pydantic.Field(
        default="Deny",
        description="Whether it is told the agent's folders; denied, it is told that there are none.",
    )


_PLACED = "(has(self.endpoint.url) || has(self.endpoint.service))"
_TLS = "(has(self.endpoint.url) ? self.endpoint.url.startsWith('https:') : has(self.endpoint.tls))"
_HERE = f"(has(self.endpoint.url) && {urls.LOOPBACK.replace('self.', 'self.endpoint.url.', 1)})"
_LENDS = "has(self.credentials) && self.credentials.exists(c, !has(c.none))"
_CERTIFIES = "has(self.credentials) && self.credentials.exists(c, has(c.clientCertificate))"
_ENCRYPTED = (
    (
        f"!({_LENDS}) || !{_PLACED} || {_TLS} || {_HERE}",
        "a credential is sent only over https, to a service with tls, or to this machine itself: others could read it",
    ),
    (
        f"!({_CERTIFIES}) || !{_PLACED} || {_TLS}",
        "a client certificate needs an https url, or a service with tls",
    ),
)
"""`_safe_to_lend` as the API server checks it."""

_INJECTED = "(has(c.inject) && has(c.inject.header) ? c.inject.header.lowerAscii() : 'authorization')"
_TAKEN = f"self.endpoint.headers.exists(k, k.lowerAscii() == {_INJECTED})"
_TWICE = "a credential goes into a header that endpoint.headers already sets; remove it there"
_NOT_TWICE = (
    "!has(self.credentials) || !has(self.endpoint) || !has(self.endpoint.headers)"
    f" || self.credentials.all(c, has(c.none) || has(c.clientCertificate) || !{_TAKEN})"
)


class ServerSpec(Model):
    """The entry itself."""

    title: Annotated[str, pydantic.Field(pattern=r"^[^\x00-\x1f\x7f-\x9f]*$", max_length=100)] = (
        pydantic.Field(default="", description="The name people see.")
    )
    description: Annotated[
        str, pydantic.Field(pattern=r"^[^\x00-\x1f\x7f-\x9f]+$", min_length=1, max_length=100)
    ] = pydantic.Field(description="What the server is for, in 1 to 100 characters.")
    version: Annotated[str, pydantic.Field(pattern=r"^[A-Za-z0-9.+_-]*$", max_length=64)] = pydantic.Field(
        default="", description="The version of this entry."
    )
    lifecycle: snapshot.Lifecycle = pydantic.Field(
        default=snapshot.Lifecycle.ACTIVE,
        description="Disabled is the kill switch: not listed, every call visibly refused.",
    )
    endpoint: endpoints.Endpoint = pydantic.Field(description="Where the server is.")
    credentials: (
        Annotated[
            tuple[credential.Credential, ...],
            pydantic.Field(min_length=1, max_length=32, json_schema_extra=UNIQUE_NAMES),
        ]
        | None
    ) = pydantic.Field(
        default=None,
        description="Ordered, first match. None listed: none sent. Listed and none matches: the call is refused.",
    )
    require_user: bool = pydantic.Field(
        default=False,
        description="Whether every call needs a verified user behind the agent; its tools are listed without one.",
    )
    tools: Tools = pydantic.Field(default_factory=Tools, description="Which tools exist, prices, redaction.")
    audit: Audit = pydantic.Field(default_factory=Audit, description="What is written down of each call.")
    client_features: ClientFeatures = pydantic.Field(
        default_factory=ClientFeatures, description="What the server may ask of the agents that call it."
    )
    instructions: Literal["Drop", "Pass"] = pydantic.Field(
        default="Drop",
        description="Whether the instructions that the server gives to models are passed on to agents. Dropped, a server can "
        "tell a model nothing but what its tools, prompts and resources say.",
    )

    model_config = pydantic.ConfigDict(
        json_schema_extra=fields.checked_last((_NOT_TWICE, _TWICE)) | fields.checked(*_ENCRYPTED),
    )

    @pydantic.model_validator(mode="after")
    def _safe_to_lend(self) -> ServerSpec:
        fields.unique((entry.name for entry in self.credentials or ()), "credentials")
        constants = {name.lower() for name in self.endpoint.headers or {}}
        for index, entry in enumerate(self.credentials or ()):
            at = f"credentials[{index}]"
            if entry.client_certificate and not self._tls():
                raise wrong(f"{at}.clientCertificate", _ENCRYPTED[1][1])
            if not entry.none and not self._encrypted():
                raise wrong(f"{at}.{entry.kind}", _ENCRYPTED[0][1])
            if entry.header in constants:
                raise wrong(f"{at}.inject.header", "endpoint.headers already sets this header")
        return self

    def _tls(self) -> bool:
        """True when the server is spoken to by TLS."""
        url = self.endpoint.url
        return url.startswith("https:") if url is not None else self.endpoint.tls is not None

    def _encrypted(self) -> bool:
        """True when nobody on the way can read a credential."""
        endpoint = self.endpoint
        if endpoint.service is not None:
            return endpoint.tls is not None
        return endpoint.url is None or urls.private(endpoint.url)


class MCPServer(Model):
    """An MCP server that agents may be allowed to call: where it is, what it costs, which credential it gets."""

    api_version: Literal["outrider.dev/v1alpha1"] = pydantic.Field(
        description="Always outrider.dev/v1alpha1."
    )
    kind: Literal["MCPServer"] = pydantic.Field(description="Always MCPServer.")
    metadata: fields.Metadata = pydantic.Field(description="The object's name and namespace.")
    spec: ServerSpec = pydantic.Field(description="The catalogue entry.")

    @property
    def id(self) -> names.ServerId:
        return names.ServerId(self.metadata.namespace, self.metadata.name)
