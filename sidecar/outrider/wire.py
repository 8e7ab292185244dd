# SPDX-License-Identifier: Apache-2.0
"""The config stream's messages and the one strict way to read a snapshot: bytes <-> values.

Called by both ends of the stream. One message is one line of JSON. Refuses unknown fields and types, always by WireError with
the path of what it could not accept: what is not understood is never ignored.
"""

from __future__ import annotations

import hashlib
import zlib
from typing import Annotated, TypeVar

import msgspec

from outrider import snapshot
from outrider.skew import downgrade as downgrade  # noqa: PLC0414 -- part of what this module offers

LINE_END = b"\n"

CONTENT_BYTES_MAX = 64 * 1024 * 1024
"""What a deflated offer may become: a few bytes of it can ask for any amount of memory."""

_DEFLATE_LEVEL = 3
"""Rules are repetitive: more effort makes them hardly smaller, and a change waits for it."""

_Position = dict[
    Annotated[str, msgspec.Meta(min_length=1, max_length=64)],
    Annotated[int, msgspec.Meta(ge=0, le=2**63 - 1)],
]
_Version = Annotated[str, msgspec.Meta(pattern="^[0-9a-f]{64}$")]
_Short = Annotated[str, msgspec.Meta(max_length=4096)]


class WireError(Exception):
    """What was read is not what was agreed. `path` is a JSON path such as `$.servers[0].url`, '' for the whole."""

    def __init__(self, path: str, text: str) -> None:
        super().__init__(f"{path}: {text}" if path else text)
        self.path = path
        self.text = text


class Message(
    msgspec.Struct,
    frozen=True,
    forbid_unknown_fields=True,
    kw_only=True,
    omit_defaults=True,
    tag_field="type",
    tag=str.lower,
):
    """One line; `type` says which. Schema 1 knows only what is marked `1` here; more is left out when it is spoken to."""


class Hello(Message, frozen=True, kw_only=True):
    """The operator's first line: the epoch of its positions and the schema it will send (1); who it is and how often it pings."""

    epoch: int
    schema: int
    controller: _Short = ""
    heartbeat_seconds: Annotated[float, msgspec.Meta(ge=0, le=3600)] = 0.0


class SnapshotOffer(Message, frozen=True, kw_only=True, tag="snapshot"):
    """A configuration: `version` is the digest of `content`, the snapshot's canonical bytes."""

    version: _Version
    position: _Position
    content: msgspec.Raw


class Deflated(Message, frozen=True, kw_only=True):
    """A `snapshot` whose content is deflated (RFC 1950), for a sidecar that says it can read that."""

    version: _Version
    position: _Position
    content: bytes


class Unchanged(Message, frozen=True, kw_only=True):
    """What the sidecar holds is current; `position` is what it stands for now."""

    version: _Version
    position: _Position


class Ping(Message, frozen=True, kw_only=True):
    """Nothing has happened; the stream is alive."""


class GoAway(Message, frozen=True, kw_only=True):
    """The stream ends here; dial again (1), at a random moment of the next `spread_ms`."""

    reason: _Short = ""
    spread_ms: Annotated[int, msgspec.Meta(ge=0, le=600_000)] = 0


class Behind(Message, frozen=True, kw_only=True):
    """The replica knows less than the sidecar holds; keep it and dial another (1)."""


class Trust(Message, frozen=True, kw_only=True):
    """The authorities that the operator's certificates come from, from now on (PEM); in place of those known so far."""

    bundle: Annotated[str, msgspec.Meta(max_length=65_536)]


class Trusted(Message, frozen=True, kw_only=True):
    """The sidecar's answer to `Trust`: the digest of the bundle that it now trusts."""

    digest: _Version


class Ack(Message, frozen=True, kw_only=True):
    """The sidecar's answer to an offer; when not `ok`, why, and the path in the content that it could not accept (1).

    `source` and `generation` are the object which that path is about, such as `MCPToolPolicy crm/sales`; '' when unknown.
    """

    version: _Version
    position: _Position
    ok: bool
    error: _Short = ""
    path: _Short = ""
    source: _Short = ""
    generation: Annotated[int, msgspec.Meta(ge=0, le=2**63 - 1)] = 0


AnyMessage = Hello | SnapshotOffer | Deflated | Unchanged | Ping | GoAway | Behind | Trust | Trusted | Ack

_encoder = msgspec.json.Encoder(order="deterministic")
_message_decoder: msgspec.json.Decoder[AnyMessage] = msgspec.json.Decoder(AnyMessage)
_snapshot_decoder = msgspec.json.Decoder(snapshot.Snapshot)


class _Schema(msgspec.Struct, frozen=True):
    """The one field that is read before the others; schema 1 leaves it out."""

    schema: int = 1


_schema_decoder = msgspec.json.Decoder(_Schema)

_Decoded = TypeVar("_Decoded")


def raw(content: bytes) -> msgspec.Raw:
    """Bytes that are JSON already, to be carried as they are."""
    return msgspec.Raw(content)


def bundle_digest(bundle: str) -> str:
    """What both ends call a bundle of authorities: the digest of its text less the blanks around it."""
    return hashlib.sha256(bundle.strip().encode()).hexdigest()


def encode(message: AnyMessage) -> bytes:
    """One line with its end. An offer's content passes byte for byte: its digest is its version."""
    return _encoder.encode(message) + LINE_END


def deflated(offer: SnapshotOffer) -> Deflated:
    """The same offer in fewer bytes."""
    content = zlib.compress(bytes(offer.content), _DEFLATE_LEVEL)
    return Deflated(version=offer.version, position=offer.position, content=content)


def decode(line: bytes) -> AnyMessage:
    """The message of one line, with or without its end; an offer is inflated, and its content must have its version as digest.

    Raises WireError.
    """
    message = _decoded(_message_decoder, line)
    if isinstance(message, Deflated):
        content = raw(_inflated(message.content))
        message = SnapshotOffer(version=message.version, position=message.position, content=content)
    if isinstance(message, SnapshotOffer) and snapshot.digest(bytes(message.content)) != message.version:
        raise WireError("$.version", "the version is not the digest of the content")
    return message


def _inflated(content: bytes) -> bytes:
    reader = zlib.decompressobj()
    try:
        made = reader.decompress(content, CONTENT_BYTES_MAX)
    except zlib.error as error:
        raise WireError("$.content", f"it cannot be inflated: {error}") from None
    if not reader.eof or reader.unused_data:
        # Cut off, followed by something, or larger than it may become.
        raise WireError("$.content", f"it is not one deflated text of at most {CONTENT_BYTES_MAX} bytes")
    return made


def decode_snapshot(content: bytes) -> snapshot.Snapshot:
    """The snapshot of an offer's content. Raises WireError with the path of what does not fit."""
    # First, so that a newer schema is called by its name and not by the first of its fields that is unknown here.
    schema = _decoded(_schema_decoder, content).schema
    if schema != snapshot.SCHEMA:
        raise WireError("$.schema", f"schema {schema} is not the {snapshot.SCHEMA} that is read here")
    made = _decoded(_snapshot_decoder, content)
    for index, view in enumerate(made.servers):
        for position, limit in enumerate(view.limits):
            if (limit.quota is None) == (limit.rate is None):
                raise WireError(
                    f"$.servers[{index}].limits[{position}]", "needs exactly one of quota and rate"
                )
    return made


def _decoded(decoder: msgspec.json.Decoder[_Decoded], data: bytes) -> _Decoded:
    try:
        return decoder.decode(data)
    except msgspec.ValidationError as error:
        text, marker, path = str(error).rpartition(" - at `")
        raise WireError(path.rstrip("`") if marker else "", text if marker else str(error)) from None
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError) as error:
        raise WireError("", f"not JSON: {error}") from None
