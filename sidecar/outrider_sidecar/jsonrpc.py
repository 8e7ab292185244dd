# SPDX-License-Identifier: Apache-2.0
"""JSON-RPC 2.0 as MCP uses it: one message per body, ids with the type they had, raw slices where nobody need look.

`parse` reads what an agent sent, strictly; `answer` reads what a server sent, strict about JSON and lenient about what it
holds. The builders re-serialise envelopes and splice what is inside them, so that arguments and results cross byte for
byte (protocol.md rules 1 and 2).
"""

from __future__ import annotations

import dataclasses
import enum
import functools
import json
from collections.abc import Iterable, Mapping
from typing import Any

import msgspec

from outrider import decision, rules, strictjson
from outrider_sidecar import conventions, exchange

METHOD_CHARACTERS_MAX = 128

Id = str | int


class Malformed(Exception):
    """Not a message we take. `code` None: not even JSON-RPC can answer, only HTTP. The text quotes nothing received."""

    def __init__(
        self, text: str, *, status: int = 400, code: int = conventions.INVALID_REQUEST,
        reason: decision.Reason = decision.Reason.MALFORMED_REQUEST, data: dict[str, Any] | None = None,
    ) -> None:  # fmt: skip
        super().__init__(text)
        self.status = status
        self.code = code
        self.reason = reason
        self.data = data
        self.id: Id | None = None


class Kind(enum.Enum):
    REQUEST = "Request"
    NOTIFICATION = "Notification"
    RESPONSE = "Response"


@dataclasses.dataclass(frozen=True, slots=True)
class Message:
    """What an agent sent. `slices` are the members of `params` as the bytes they were.

    Of a response, `answered` is its result or error; of anything else None.
    """

    kind: Kind
    id: Id | None
    method: str
    params: dict[str, Any]
    slices: Mapping[str, msgspec.Raw] = dataclasses.field(default_factory=dict)
    answered: Answer | None = None

    @property
    def arguments_raw(self) -> bytes | None:
        """`params.arguments` as it was; None when absent, and `null` is how the Go SDK writes that."""
        if self.params.get("arguments") is None:
            return None
        return bytes(self.slices["arguments"])

    @property
    def meta(self) -> dict[str, Any]:
        found = self.params.get("_meta")
        return found if isinstance(found, dict) else {}

    @property
    def name(self) -> str | None:
        """`params.name`, None when it is absent or no string."""
        found = self.params.get("name")
        return found if isinstance(found, str) else None


class _Slices(msgspec.Struct):
    params: dict[str, msgspec.Raw] = {}


_SLICES = msgspec.json.Decoder(_Slices)


def _by_fold(*exact: str) -> Mapping[str, str]:
    return {rules.fold(each): each for each in exact}


_ENVELOPE = _by_fold("jsonrpc", "id", "method", "params", "result", "error")
_PARAMS = _by_fold(
    "name", "arguments", "_meta", "cursor", "uri", "requestId", "protocolVersion", "ref", "argument", "context", "task",
    "level", "notifications", "inputResponses", "requestState", "capabilities", "clientInfo", "progressToken",
)  # fmt: skip
_REF = _by_fold("type", "name", "uri")
_META = _by_fold(
    "progressToken", "traceparent", "tracestate", conventions.META_VERSION, conventions.META_CAPABILITIES,
    conventions.META_CLIENT_INFO, conventions.META_LOG_LEVEL,
)  # fmt: skip


def _exact(keys: Iterable[str], reserved: Mapping[str, str]) -> None:
    """R7: what we would not read and a case-insensitive server would. Raises Malformed."""
    for key in keys:
        meant = reserved.get(key.lower() if key.isascii() else rules.fold(key))
        if meant is not None and meant != key:
            raise Malformed(f"a key differs from {meant!r} only in case")


def check_content_type(headers: exchange.Headers) -> None:
    """Exactly one, application/json, in UTF-8 if it says a charset. Raises Malformed (415)."""
    values = [value for name, value in headers if name == b"content-type"]
    kind, *parameters = values[0].lower().split(b";") if len(values) == 1 else (b"",)
    charsets = [
        each.strip().removeprefix(b"charset=").strip(b'"')
        for each in parameters
        if each.strip().startswith(b"charset=")
    ]
    if kind.strip() != b"application/json" or any(charset not in (b"utf-8", b"utf8") for charset in charsets):
        raise Malformed("Content-Type must be application/json", status=415)


def parse(body: bytes) -> Message:
    """One request, notification or response. Raises Malformed."""
    try:
        value = strictjson.parse(body)
    except strictjson.StrictError as error:
        raise Malformed(str(error), code=conventions.PARSE_ERROR) from None
    if isinstance(value, list):
        raise Malformed("one message per body: batches are not part of MCP any more")
    if not isinstance(value, dict) or value.get("jsonrpc") != "2.0":
        raise Malformed('the body must be one JSON object with "jsonrpc": "2.0"')
    id_ = value.get("id")
    if "id" in value and (isinstance(id_, bool) or not isinstance(id_, str | int)):
        raise Malformed("an id is a string or an integer")
    try:
        _exact(value, _ENVELOPE)
        return _message(value, id_, body)
    except Malformed as error:
        error.id = id_
        raise


def _message(value: dict[str, Any], id_: Id | None, body: bytes) -> Message:
    if "method" not in value:
        if id_ is None or ("result" in value) == ("error" in value):
            raise Malformed("neither a request nor a response")
        return Message(Kind.RESPONSE, id_, "", {}, answered=answer(body))
    method, params = value["method"], value.get("params", {})
    if not isinstance(method, str) or not 0 < len(method) <= METHOD_CHARACTERS_MAX:
        raise Malformed(f"a method is a string of 1 to {METHOD_CHARACTERS_MAX} characters")
    if "result" in value or "error" in value:
        raise Malformed("a request with a result or an error is neither")
    if not isinstance(params, dict):
        raise Malformed("params must be an object", code=conventions.INVALID_PARAMS)
    meta = params.get("_meta", {})
    if not isinstance(meta, dict):
        raise Malformed("_meta must be an object", code=conventions.INVALID_PARAMS)
    _exact(params, _PARAMS)
    _exact(meta, _META)
    given = params.get("arguments")
    if given is not None and not isinstance(given, dict):
        raise Malformed("arguments must be an object", code=conventions.INVALID_PARAMS)
    if isinstance(ref := params.get("ref"), dict):
        _exact(ref, _REF)
    slices = _SLICES.decode(body).params if params else {}
    return Message(Kind.NOTIFICATION if id_ is None else Kind.REQUEST, id_, method, params, slices)


# What servers send ----------------------------------------------------------------------------------------------------


class AnswerKind(enum.Enum):
    RESULT = "Result"
    ERROR = "Error"
    NOTIFICATION = "Notification"
    REQUEST = "Request"


@dataclasses.dataclass(frozen=True, slots=True)
class Answer:
    """A server's message. `payload` is the raw result, error or params, whichever it has."""

    kind: AnswerKind
    id: Any
    payload: bytes
    method: str = ""

    @property
    def is_tool_error(self) -> bool:
        """A result with `isError`: the tool ran, or was asked to, and says that it failed."""
        if self.kind is not AnswerKind.RESULT or not may_have(self.payload, b"isError"):
            return False
        try:
            return members(self.payload).get("isError") == b"true"
        except msgspec.DecodeError:
            return False


class _Answer(msgspec.Struct):
    id: Any = None
    method: str | None = None
    result: msgspec.Raw = msgspec.Raw()
    error: msgspec.Raw = msgspec.Raw()
    params: msgspec.Raw = msgspec.Raw()


_ANSWER = msgspec.json.Decoder(_Answer)
_MEMBERS = msgspec.json.Decoder(dict[str, msgspec.Raw])


def answer(data: bytes) -> Answer:
    """Reads a server's message. Raises Malformed."""
    try:
        data.decode("utf-8")
        read = _ANSWER.decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        raise Malformed("not one JSON-RPC message") from None
    if read.method is not None:
        kind = AnswerKind.NOTIFICATION if read.id is None else AnswerKind.REQUEST
        return Answer(kind, read.id, bytes(read.params) or b"{}", read.method)
    result, error = (b"" if each == b"null" else each for each in (bytes(read.result), bytes(read.error)))
    if bool(result) == bool(error):
        raise Malformed("neither a result nor an error")
    payload = result or error
    if not payload.startswith(b"{"):
        raise Malformed("a result or an error is an object")
    return Answer(AnswerKind.RESULT if result else AnswerKind.ERROR, read.id, payload)


def may_have(raw: bytes, key: bytes) -> bool:
    """False when a key is certainly not in a raw value, so that it need not be read; escapes can hide one."""
    return key in raw or b"\\u" in raw


def members(raw: bytes) -> dict[str, bytes]:
    """The members of a raw object, each as the bytes it had. Raises msgspec.DecodeError."""
    return {key: bytes(value) for key, value in _MEMBERS.decode(raw).items()}


# What we send ---------------------------------------------------------------------------------------------------------


def encode_id(id_: Id | None) -> bytes:
    return b"null" if id_ is None else json.dumps(id_).encode()


def result(id_: Id | None, raw: bytes) -> bytes:
    """A response with this result, and no member beside it (TypeScript SDKs refuse any)."""
    return b'{"jsonrpc":"2.0","id":' + encode_id(id_) + b',"result":' + raw + b"}"


def error_raw(id_: Id | None, raw: bytes) -> bytes:
    """A response with this error object as it came."""
    return b'{"jsonrpc":"2.0","id":' + encode_id(id_) + b',"error":' + raw + b"}"


def error(id_: Id | None, code: int, message: str, data: dict[str, Any] | None = None) -> bytes:
    """A response with an error of ours."""
    body = {"code": code, "message": message} | ({} if data is None else {"data": data})
    return error_raw(id_, msgspec.json.encode(body))


_KEY_CHARACTERS = 64


@functools.lru_cache(maxsize=512)
def _short(key: str) -> bytes:
    """As it is written in an object: most are the same few dozen."""
    return json.dumps(key).encode() + b":"


def _key(key: str) -> bytes:
    return _short(key) if len(key) <= _KEY_CHARACTERS else json.dumps(key).encode() + b":"


def spliced(parts: Mapping[str, bytes]) -> bytes:
    """An object of raw members."""
    return b"{" + b",".join([_key(key) + value for key, value in parts.items()]) + b"}"


def request(id_: Id | None, method: str, params: dict[str, bytes]) -> bytes:
    """A request, or a notification when `id_` is None, with raw params."""
    head = b'{"jsonrpc":"2.0",' + (b"" if id_ is None else b'"id":' + encode_id(id_) + b",")
    return (
        head
        + b'"method":'
        + json.dumps(method).encode()
        + (b',"params":' + spliced(params) if params else b"")
        + b"}"
    )
