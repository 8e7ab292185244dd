# SPDX-License-Identifier: Apache-2.0
"""`input_required` results of the stateless era, read and written: what is asked, and what goes back with the next round.

Called by `asking`. Reading is strict, because a client could read another of two equal keys than the check did; what goes on
to an agent is made of exactly what was looked at. Pure: whether an ask may be relayed is for `features`.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping

import msgspec

from outrider import strictjson
from outrider_sidecar import conventions, jsonrpc

REQUESTS_MAX = 16
"""Asks in one result: each is a dialog in front of somebody."""

KEY_CHARACTERS_MAX = 256
_RESULT = frozenset({"resultType", "inputRequests", "requestState"})
_ENTRY = frozenset({"method", "params"})


class _Data(msgspec.Struct):
    elicitations: list[msgspec.Raw] = []


_ELICITATIONS = msgspec.json.Decoder(_Data)


class Broken(Exception):
    """Not an input_required result. The text says why and quotes nothing of it."""


@dataclasses.dataclass(frozen=True, slots=True)
class Ask:
    """One entry of `inputRequests`: `params` raw, `more` whatever else stands beside method and params."""

    key: str
    method: str
    params: bytes
    more: Mapping[str, bytes]


@dataclasses.dataclass(frozen=True, slots=True)
class Required:
    """A result that asks. `state` is the server's own requestState, None when it gave none; `more` the other members."""

    asks: tuple[Ask, ...]
    state: str | None
    more: Mapping[str, bytes]


def required(payload: bytes) -> Required:
    """Reads a result whose resultType is `input_required`. Raises Broken."""
    try:
        parts = jsonrpc.members(payload)
        kind = msgspec.json.decode(parts.pop("resultType", b'"complete"'))
        state = msgspec.json.decode(parts.pop("requestState", b"null"), type=str | None)
        raw = parts.pop("inputRequests", b"null")
    except (msgspec.DecodeError, UnicodeDecodeError):
        raise Broken("the result cannot be read, or its requestState is no string") from None
    if kind != "input_required":
        raise Broken("the result is of a type that nobody here knows")
    if strictjson.disguised(parts, _RESULT):
        raise Broken("a member of the result differs in case alone from one that is meant")
    asks = () if raw == b"null" else _asks(raw)
    if not asks and state is None:
        raise Broken("the result asks for input and names neither what nor a state to go on with")
    return Required(asks, state, parts)


def addresses(error: bytes) -> Required | None:
    """The error by which a server of the handshake era sends people to addresses first, as asks; None when it is no such error.

    Raises Broken when it is one that cannot be read in one way only.
    """
    try:
        parts = jsonrpc.members(error)
        if parts.get("code") != b"%d" % conventions.URL_ELICITATION_REQUIRED:
            return None
        raws = _ELICITATIONS.decode(parts.get("data", b"{}")).elicitations
    except (msgspec.DecodeError, UnicodeDecodeError):
        raise Broken("the error that names addresses cannot be read") from None
    if not 0 < len(raws) <= REQUESTS_MAX:
        raise Broken(f"1 to {REQUESTS_MAX} addresses can be named at once")
    asks = (Ask(f"address-{at}", conventions.ELICIT, bytes(raw), {}) for at, raw in enumerate(raws, 1))
    return Required(tuple(asks), None, {})


def _asks(raw: bytes) -> tuple[Ask, ...]:
    try:
        entries = strictjson.parse(raw)
    except strictjson.StrictError as error:
        raise Broken(f"inputRequests cannot be read in one way only: {error}") from None
    if not isinstance(entries, dict) or len(entries) > REQUESTS_MAX:
        raise Broken(f"inputRequests is an object of at most {REQUESTS_MAX} members")
    found = []
    for key, entry in jsonrpc.members(raw).items():
        method = entries[key].get("method") if isinstance(entries[key], dict) else None
        if not isinstance(method, str) or len(key) > KEY_CHARACTERS_MAX:
            raise Broken("each of inputRequests is an object with a method")
        more = jsonrpc.members(entry)
        del more["method"]
        params = more.pop("params", b"{}")
        if not params.startswith(b"{") or strictjson.disguised(more, _ENTRY):
            raise Broken(
                "an input request is a method and params that are an object, each in one way to read it"
            )
        found.append(Ask(key, method, params, more))
    return tuple(found)


def result(asked: Required, *, state: str, server: str) -> bytes:
    """The result as an agent of the stateless era gets it: with our state, and each ask says which server it is of."""
    asks = {
        ask.key: jsonrpc.spliced({
            "method": json.dumps(ask.method).encode(), "params": signed(ask.params, server), **ask.more
        })
        for ask in asked.asks
    }  # fmt: skip
    parts = {"resultType": b'"input_required"', **asked.more}
    if asks:
        parts["inputRequests"] = jsonrpc.spliced(asks)
    return jsonrpc.spliced({**parts, "requestState": json.dumps(state).encode()})


def signed(params: bytes, server: str) -> bytes:
    """The params of an ask, naming in `_meta` the server that asks; what people read is left as it is."""
    parts = jsonrpc.members(params)
    meta = parts.get("_meta", b"{}")
    named = jsonrpc.members(meta) if meta.startswith(b"{") else {}
    named[conventions.META_SERVER] = json.dumps(server).encode()
    return jsonrpc.spliced({**parts, "_meta": jsonrpc.spliced(named)})


def of_handshake(params: bytes, id_: str) -> bytes:
    """An elicitation as the handshake era writes it: one that sends people to an address has an id there."""
    parts = jsonrpc.members(params)
    if parts.get("mode") != b'"url"' or "elicitationId" in parts:
        return params
    return jsonrpc.spliced({**parts, "elicitationId": json.dumps(id_).encode()})


def members(responses: bytes | None, state: str | None) -> dict[str, bytes]:
    """The members of params that go on with a call: the answers (raw), and the server's own state."""
    made = {} if responses is None else {"inputResponses": responses}
    if state is not None:
        made["requestState"] = json.dumps(state).encode()
    return made
