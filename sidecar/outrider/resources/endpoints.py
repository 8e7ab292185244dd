# SPDX-License-Identifier: Apache-2.0
"""Where an MCPServer is: its url or Service, how its certificate is checked, how long we wait.

Part of the server model. Refuses secrets among constant headers, and two places at once.
"""

from __future__ import annotations

from typing import Annotated, Literal

import pydantic

from outrider.resources import fields, headers, urls
from outrider.resources.fields import FILES_ONLY, Duration, Model, wrong

_RESULT_BYTES = Annotated[int, pydantic.Field(ge=1024, le=67_108_864)]


class Tls(Model):
    """How the server's certificate is checked."""

    ca_bundle: fields.Bundle = pydantic.Field(
        description="PEM certificates of the authorities that may sign the server's certificate, instead of the "
        "system's; at most 64 KiB."
    )


def _at_most(most: str) -> pydantic.config.JsonDict:
    return fields.checked((f"duration(self) <= duration('{most}')", f"is more than the {most} allowed"))


class Timeouts(Model):
    """How long we wait for the server."""

    connect: Duration = pydantic.Field(
        default="3s",
        description="To be connected, TLS included; at most 1m.",
        json_schema_extra=_at_most("60s"),
    )
    call: Duration = pydantic.Field(
        default="50s",
        description="For a call's whole answer, or the beginning of one that is a stream; at most 60m.",
        json_schema_extra=_at_most("3600s"),
    )
    stream: Duration = pydantic.Field(
        default="10m",
        description="For a stream that is alive: the answer of a call that sends progress, or changes that are listened to; "
        "at most 1440m.",
        json_schema_extra=_at_most("86400s"),
    )
    pool_idle: Duration = pydantic.Field(
        default="4s",
        description="How long an idle connection is kept; at most 10m. Below the server's own limit.",
        json_schema_extra=_at_most("600s"),
    )

    @pydantic.model_validator(mode="after")
    def _within_reason(self) -> Timeouts:
        for field, value, most in (
            ("connect", self.connect, 60),
            ("call", self.call, 3600),
            ("stream", self.stream, 86_400),
            ("poolIdle", self.pool_idle, 600),
        ):
            if fields.seconds(value) > most:
                raise wrong(field, f"{value} is more than the {most} s allowed")
        return self


class Service(Model):
    """A Service of the server's own namespace; what it resolves to may be a private address."""

    name: fields.Label = pydantic.Field(description="The Service's name, in this object's own namespace.")
    port: Annotated[int, pydantic.Field(ge=1, le=65_535)] = pydantic.Field(
        description="The Service's port, a number from 1 to 65535."
    )
    path: Annotated[str, pydantic.Field(pattern=urls.PATH_PATTERN, max_length=1024)] = pydantic.Field(
        default="/mcp", description="The path of the MCP endpoint, with its leading slash."
    )

    def url(self, namespace: str, *, tls: bool) -> str:
        """Where it is called: https when the endpoint says how the certificate is checked, else http."""
        return f"{'https' if tls else 'http'}://{self.name}.{namespace}.svc:{self.port}{self.path}"


class Endpoint(Model):
    """Where the server is."""

    url: Annotated[str, pydantic.Field(min_length=8, max_length=2048, pattern=urls.PATTERN)] | None = (
        pydantic.Field(
            default=None,
            description="The server's MCP endpoint: http or https, no user, no fragment. Exactly one of url and service.",
            json_schema_extra=fields.checked(urls.RULE),
        )
    )
    service: Service | None = pydantic.Field(
        default=None,
        description="A Service of this object's own namespace instead of a url; called by http, or by https with `tls`.",
    )
    command: (
        Annotated[
            tuple[Annotated[str, pydantic.Field(min_length=1, max_length=4096)], ...],
            pydantic.Field(min_length=1, max_length=64),
        ]
        | None
    ) = pydantic.Field(
        default=None,
        description="A stdio server's command and arguments, run by `outrider dev` behind a bridge.",
        json_schema_extra=FILES_ONLY,
    )
    transport: Literal["StreamableHTTP", "SSE"] = pydantic.Field(
        default="StreamableHTTP",
        description="How MCP is spoken to it: Streamable HTTP, or HTTP with SSE as servers of 2024-11-05 speak it.",
    )
    protocol: Annotated[
        str, pydantic.Field(pattern=r"^(Auto|[0-9]{4}-[0-9]{2}-[0-9]{2})$", max_length=10)
    ] = pydantic.Field(default="Auto", description="The MCP revision to speak, or Auto to find out.")
    tls: Tls | None = pydantic.Field(default=None, description="How the server's certificate is checked.")
    headers: (
        Annotated[
            dict[str, Annotated[str, pydantic.Field(pattern=r"^[\x20-\x7e]*$", max_length=1024)]],
            pydantic.Field(max_length=16),
        ]
        | None
    ) = pydantic.Field(
        default=None,
        description="Constant headers of every request to the server. Never secrets: those are `credentials`.",
        json_schema_extra=fields.checked(*headers.RULES),
    )
    timeouts: Timeouts = pydantic.Field(
        default_factory=Timeouts, description="How long we wait for the server."
    )
    max_result_bytes: _RESULT_BYTES = pydantic.Field(
        default=4_194_304,
        description="The largest result that is relayed, in bytes; larger ones are refused.",
    )

    model_config = pydantic.ConfigDict(
        json_schema_extra=fields.checked_last(
            ("has(self.url) != has(self.service)", "needs exactly one of url and service"),
        )
        | fields.checked(
            (
                "!has(self.tls) || !has(self.url) || self.url.startsWith('https:')",
                "tls has no meaning without an https url; write https, or remove tls",
            ),
        )
    )

    @pydantic.model_validator(mode="after")
    def _one_place(self) -> Endpoint:
        if [self.url, self.service, self.command].count(None) != 2:
            raise wrong("", "needs exactly one of url, service and command")
        if self.url is not None and (problem := urls.problem(self.url)):
            raise wrong("url", problem)
        if self.tls and self.url is not None and not self.url.startswith("https:"):
            raise wrong("tls", "has no meaning without an https url")
        if self.tls and self.command is not None:
            raise wrong("tls", "has no meaning for a command: its bridge is local and plain")
        for name, value in (self.headers or {}).items():
            if problem := headers.constant_problem(name, value):
                raise wrong(f"headers.{name}", problem)
        lower = [name.lower() for name in self.headers or {}]
        if len(set(lower)) != len(lower):
            raise wrong("headers", "two names differ only in case; header names have no case")
        return self
