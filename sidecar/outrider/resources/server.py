# SPDX-License-Identifier: Apache-2.0
"""MCPServer: the catalogue entry of one MCP server.

Called by manifests and compile. Refuses headers that are the proxy's own to set, and a
credential from a file on a connection that others can read.
"""

from __future__ import annotations

from typing import Annotated, Literal

import pydantic

from outrider import budgets, names, snapshot
from outrider.resources import endpoints, fields, headers, urls
from outrider.resources.fields import FILES_ONLY, UNIQUE_NAMES, Amount, AnyGlob, Glob, Model, wrong


class FileSource(Model):
    """A credential in a file of the machine `outrider dev` runs on."""

    path: Annotated[str, pydantic.Field(pattern=r"^[^\x00-\x1f\x7f]+$", max_length=4096)] = pydantic.Field(
        description="The file that holds the value; relative to the folder of the files."
    )

    @pydantic.field_validator("path")
    @classmethod
    def _no_home(cls, path: str) -> str:
        if path.startswith("~"):
            raise wrong("", "~ is not expanded; write the path out, or relative to the folder of the files")
        return path


class Inject(Model):
    """Where the credential goes in a request to the server."""

    header: Annotated[str, pydantic.Field(pattern=fields.HEADER_PATTERN, max_length=64)] = pydantic.Field(
        default="Authorization", description="The header that carries the value."
    )
    prefix: Annotated[str, pydantic.Field(pattern=r"^[\x20-\x7e]*$", max_length=64)] | None = pydantic.Field(
        default=None,
        description="What stands before the value; left out, `Bearer ` in Authorization and nothing elsewhere.",
    )

    @pydantic.field_validator("header")
    @classmethod
    def _ours(cls, header: str) -> str:
        if headers.reserved(header) or header.lower() == "cookie":
            raise wrong("", f"{header} is the proxy's own to set; a credential cannot go there")
        return header


class Credential(Model):
    """One entry of the ordered list: who gets which credential for which tools. The first match is used."""

    name: fields.Label = pydantic.Field(description="The entry's name, unique in the list.")
    from_: fields.Selectors = pydantic.Field(alias="from", description="Which callers it is lent to.")
    tools: Annotated[tuple[Glob, ...], pydantic.Field(min_length=1, max_length=64)] = pydantic.Field(
        default=("*",),
        description="Which tools it is for; for prompts and resources the first entry is taken that is for the caller.",
    )
    file: FileSource | None = pydantic.Field(
        default=None, description="The value is in a file of this machine.", json_schema_extra=FILES_ONLY
    )
    none: fields.Yes | None = pydantic.Field(
        default=None,
        description="Nothing is sent to these callers' calls: the server needs no credential for them.",
    )
    inject: Inject | None = pydantic.Field(
        default=None,
        description="Where the value goes; left out, `Authorization: Bearer `.",
        json_schema_extra=FILES_ONLY,
    )

    model_config = fields.needed_in_cluster(
        "none",
        "in a cluster this version lends no secrets yet: write `none: true` for a server that asks for none, without file and inject",
    )

    @pydantic.model_validator(mode="after")
    def _one_source(self) -> Credential:
        if (self.file is None) == (self.none is None):
            raise wrong("", "needs exactly one of file and none")
        if self.none and self.inject:
            raise wrong("inject", "has no meaning with `none: true`: nothing is sent")
        return self


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
            tuple[Credential, ...],
            pydantic.Field(min_length=1, max_length=32, json_schema_extra=UNIQUE_NAMES),
        ]
        | None
    ) = pydantic.Field(
        default=None,
        description="Ordered, first match. None listed: none sent. Listed and none matches: the call is refused.",
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

    @pydantic.model_validator(mode="after")
    def _safe_to_lend(self) -> ServerSpec:
        fields.unique((entry.name for entry in self.credentials or ()), "credentials")
        constants = {name.lower() for name in self.endpoint.headers or {}}
        for index, entry in enumerate(self.credentials or ()):
            if entry.file and not self._encrypted():
                raise wrong(
                    f"credentials[{index}].file",
                    "a credential is sent only over https, or to this machine itself",
                )
            if entry.file and (entry.inject or Inject()).header.lower() in constants:
                raise wrong(
                    f"credentials[{index}].inject.header", "endpoint.headers already sets this header"
                )
        return self

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
