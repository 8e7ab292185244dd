# SPDX-License-Identifier: Apache-2.0
"""What proxies tell the operator of the servers they see and of the credentials they lend: bytes <-> values.

Called by both ends of `POST /v1/config/report`. A list of tools is told by its digest; the tools themselves only when the
operator asks for them, so that five thousand sidecars that see the same thing say it once. Refuses, by WireError, unknown
fields, names no tool can have and whatever is beyond its bounds. No secret is in a report: only how each one fares.
"""

from __future__ import annotations

from typing import Annotated, Literal, TypeVar

import msgspec

from outrider import catalog, wire

BYTES_MAX = 4_194_304
"""The body of one report: a server of 10,000 tools with long names fits."""

SERVERS_MAX = 500
"""Servers of one report; there may be more reports."""

PROMPTS_MAX = 500
"""Prompts of one server that are told, the first by name; a status names no more either."""

ERROR_CHARACTERS_MAX = 512

CREDENTIALS_MAX = 2_000
"""Credentials of one report. A proxy has one list of them, so those that fare worst come first where it has more."""

PROVIDERS_MAX = 64
WHY_CHARACTERS_MAX = 400

RECOVERED_SECONDS = 900.0
"""A credential that could not be lent, and can again, is called `Recovered` for this long: whichever replica of the operator heard
of the failure then hears of its end, though another takes the report."""
_VERSIONS_MAX = 16

_Server = Annotated[str, msgspec.Meta(pattern=r"^[a-z0-9-]{1,63}/[a-z0-9-]{1,63}$")]
_Digest = Annotated[str, msgspec.Meta(pattern="^([0-9a-f]{64})?$")]
_Tool = tuple[
    Annotated[str, msgspec.Meta(pattern=r"^[A-Za-z0-9_.-]{1,128}$")],
    Annotated[str, msgspec.Meta(pattern="^sha256:[0-9a-f]{64}$")],
]
_Mark = Annotated[str, msgspec.Meta(pattern="^(sha256:[0-9a-f]{64})?$")]
_Prompt = tuple[Annotated[str, msgspec.Meta(min_length=1, max_length=128)], _Mark]
_Label = Annotated[str, msgspec.Meta(max_length=128)]
_Age = Annotated[float, msgspec.Meta(ge=0, le=86_400)]

State = Literal["Ready", "Recovered", "Expiring", "Failing"]


class _Told(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True, omit_defaults=True):
    """Frozen, keyword-only, and an unknown field is refused."""


class Seen(_Told, frozen=True, kw_only=True):
    """One server as one proxy saw it `age_seconds` ago.

    `error` '': it listed tools, and `digest` is what their list is called by (fingerprints.digest). Else why it did not, for
    people. `tools`: (name, fingerprint) of all of them, or None: ask if you do not know the digest. `prompts`: the first of them
    by name, None when they could not be listed; there are `prompt_count`. `resources`: what the list of resources and templates is
    called by, '' for none, None when it could not be listed. `instructions`: the fingerprint of what the server says
    about its use, '' when it says nothing.
    """

    server: _Server
    age_seconds: _Age = 0.0
    error: Annotated[str, msgspec.Meta(max_length=ERROR_CHARACTERS_MAX)] = ""
    digest: _Digest = ""
    tools: Annotated[tuple[_Tool, ...], msgspec.Meta(max_length=catalog.TOOLS_MAX)] | None = None
    unusable: Annotated[int, msgspec.Meta(ge=0, le=1_000_000)] = 0
    server_name: _Label = ""
    server_version: _Label = ""
    protocol_versions: Annotated[tuple[_Label, ...], msgspec.Meta(max_length=_VERSIONS_MAX)] = ()
    prompts: Annotated[tuple[_Prompt, ...], msgspec.Meta(max_length=PROMPTS_MAX)] | None = None
    prompt_count: Annotated[int, msgspec.Meta(ge=0, le=catalog.TOOLS_MAX)] = 0
    instructions: _Mark = ""
    resources: _Mark | None = None
    resource_count: Annotated[int, msgspec.Meta(ge=0, le=catalog.TOOLS_MAX)] = 0
    template_count: Annotated[int, msgspec.Meta(ge=0, le=catalog.TOOLS_MAX)] = 0


class Faring(_Told, frozen=True, kw_only=True):
    """How something that a proxy needs fares, `age_seconds` ago.

    `Ready`: it is at hand. `Recovered`: that, and not long ago it was not. `Expiring`: it is used still, but could not be renewed;
    `why`. `Failing`: it cannot be used; `why`, one line that names no secret. `reason` is one of decision.Reason. Until when what
    is held can be used is `expires_in_seconds`; None for what does not expire.
    """

    state: State = "Ready"
    age_seconds: _Age = 0.0
    reason: Annotated[str, msgspec.Meta(pattern="^[A-Za-z]{0,64}$")] = ""
    why: Annotated[str, msgspec.Meta(max_length=WHY_CHARACTERS_MAX)] = ""
    expires_in_seconds: Annotated[float, msgspec.Meta(ge=0, le=1e9)] | None = None


class Lending(Faring, frozen=True, kw_only=True):
    """One entry of a server's `credentials`, by its name."""

    server: _Server
    credential: Annotated[str, msgspec.Meta(pattern="^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$")]


class Keys(Faring, frozen=True, kw_only=True):
    """The keys by which the tokens of one identity provider are verified, by the provider's name."""

    provider: Annotated[str, msgspec.Meta(pattern="^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$")]


class Report(_Told, frozen=True, kw_only=True):
    """What is new, or has not been said for a while.

    `credentials` and `providers` are all that the proxy has asked for, so that what is left out is of no concern any more; None
    says nothing of them. They travel in a report of their own: an older operator that refuses it still hears of the servers.
    """

    servers: Annotated[tuple[Seen, ...], msgspec.Meta(max_length=SERVERS_MAX)] = ()
    credentials: Annotated[tuple[Lending, ...], msgspec.Meta(max_length=CREDENTIALS_MAX)] | None = None
    providers: Annotated[tuple[Keys, ...], msgspec.Meta(max_length=PROVIDERS_MAX)] | None = None


class Wanted(_Told, frozen=True, kw_only=True):
    """The answer: the servers of the report whose tools are not known by their digest; tell them whole."""

    servers: Annotated[tuple[_Server, ...], msgspec.Meta(max_length=SERVERS_MAX)] = ()


_encoder = msgspec.json.Encoder()
_reports = msgspec.json.Decoder(Report)
_wanted = msgspec.json.Decoder(Wanted)

_Message = TypeVar("_Message", Report, Wanted)


def encode(message: Report | Wanted) -> bytes:
    """One message as JSON."""
    return _encoder.encode(message)


def decode(body: bytes) -> Report:
    """A report. Raises wire.WireError with the path of what does not fit."""
    if len(body) > BYTES_MAX:
        raise wire.WireError("", f"a report has at most {BYTES_MAX:,} bytes; split it")
    return _decoded(_reports, body)


def decode_wanted(body: bytes) -> Wanted:
    """The answer to a report. Raises wire.WireError."""
    return _decoded(_wanted, body)


def _decoded(decoder: msgspec.json.Decoder[_Message], body: bytes) -> _Message:
    try:
        return decoder.decode(body)
    except msgspec.ValidationError as error:
        text, marker, path = str(error).rpartition(" - at `")
        raise wire.WireError(path.rstrip("`") if marker else "", text if marker else str(error)) from None
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError) as error:
        raise wire.WireError("", f"not JSON: {error}") from None
