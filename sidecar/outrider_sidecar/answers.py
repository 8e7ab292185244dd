# SPDX-License-Identifier: Apache-2.0
"""Everything the proxy itself says to an agent, phrased so that a model can tell "never" from "later" from "differently".

Called by the pipeline and by attempts. Unknown and hidden tools get the same words but for the request id (R24); no
answer holds a secret, a header as received, or anything about where the proxy runs.
"""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import msgspec

from outrider import decision
from outrider_sidecar import asked, conventions, exchange, jsonrpc, streams

_R = decision.Reason
_TEXT: exchange.Headers = ((b"content-type", b"text/plain; charset=utf-8"),)
_NAME_CHARACTERS = 128
_JSON: exchange.Headers = ((b"content-type", b"application/json"),)


@dataclasses.dataclass(frozen=True, slots=True)
class Answer:
    """A complete HTTP answer."""

    status: int
    headers: exchange.Headers
    body: bytes

    def give(self, reply: exchange.Reply) -> None:
        """Sends it."""
        reply.start(self.status, self.headers, len(self.body))
        reply.end(self.body)


# HTTP -----------------------------------------------------------------------------------------------------------------


def plain(status: int, text: str, *more: tuple[bytes, bytes]) -> Answer:
    return Answer(status, (*_TEXT, *more), f"{text}\n".encode())


def not_found() -> Answer:
    """An unknown path and an invisible server are the same."""
    return plain(404, "not found")


def not_accepted(objection: decision.Objection) -> Answer:
    """A caller that the door does not know: 401 without `resource_metadata`, which would open a browser; or 403."""
    if objection.reason is _R.HOST_REFUSED:
        return plain(
            403,
            "Host or Origin is not allowed here: dial the proxy as 127.0.0.1 or localhost with its port,"
            " and send no Origin but one of those",
        )
    text = "send the token: read /etc/outrider/mcp.json (on a laptop: .outrider/mcp.json in the folder of `outrider dev`)"
    return plain(401, text, (b"www-authenticate", b"Bearer"))


def token_refused(why: str) -> Answer:
    """Of a GET: no 401, for that would have clients look for an authorization server."""
    return plain(403, f"the user's token in Outrider-User was not accepted: {why}")


def method_not_allowed(allowed: bytes) -> Answer:
    return plain(405, "method not allowed", (b"allow", allowed))


def accepted() -> Answer:
    """A notification was taken."""
    return Answer(202, (), b"")


def json(body: bytes, *more: tuple[bytes, bytes], status: int = 200) -> Answer:
    return Answer(status, (*_JSON, *more), body)


def event(body: bytes, *more: tuple[bytes, bytes]) -> Answer:
    """The same as a stream of one event."""
    return Answer(200, (*streams.SSE_HEAD, *more), streams.encode_event(body))


def malformed(error: jsonrpc.Malformed) -> Answer:
    """A body or headers that are not a request."""
    return json(jsonrpc.error(error.id, error.code, str(error), error.data), status=error.status)


def unknown_session(id_: jsonrpc.Id | None) -> Answer:
    """The words and the code of the official SDKs, which clients look for."""
    return json(jsonrpc.error(id_, conventions.SESSION_NOT_FOUND, "Session not found"), status=404)


def unknown_state(id_: jsonrpc.Id | None) -> Answer:
    """A requestState that goes on with nothing of this caller: altered, spent, too old, another's, or of another call."""
    return json(jsonrpc.error(id_, conventions.INVALID_PARAMS, "Unknown requestState: call again without it"))


def unknown_method(id_: jsonrpc.Id | None, *, modern: bool) -> Answer:
    return json(
        jsonrpc.error(id_, conventions.METHOD_NOT_FOUND, "Method not found"), status=404 if modern else 200
    )


# Calls ----------------------------------------------------------------------------------------------------------------


def refused(subject: asked.Asked, objection: decision.Objection, *, request_id: str, name: str = "") -> bytes:
    """The body for a refused request; `name` is what it asked for, in the agent's own words.

    A `tools/call` gets a result with `isError`, because an error ends some agents' runs; anything else an error.
    """
    data = _refusal(objection, request_id, _UNKNOWN.get(subject.message.method, _R.TOOL_UNKNOWN))
    told = f"{sentence(objection)} Request {request_id}."
    if subject.message.method == conventions.CALL_TOOL:
        text = told if objection.visible else f"Unknown tool: {name[:128]}"
        return _error_result(subject.id, text, data, modern=subject.modern)
    code, text = (_code(objection), told) if objection.visible else _unknown(subject, name)
    return jsonrpc.error(subject.id, code, text, {conventions.META_REFUSAL: data})


def _unknown(subject: asked.Asked, name: str) -> tuple[int, str]:
    """What is hidden looks like what nobody has, in the words of the agent's era."""
    method, shown = subject.message.method, name[:_NAME_CHARACTERS]
    if method in (conventions.READ_RESOURCE, conventions.SUBSCRIBE):
        code = conventions.INVALID_PARAMS if subject.modern else conventions.RESOURCE_NOT_FOUND
        return code, f"Resource not found: {shown}"
    if method == conventions.GET_PROMPT:
        return conventions.INVALID_PARAMS, f"Unknown prompt: {shown}"
    return conventions.INVALID_PARAMS, "Unknown name"


def _code(objection: decision.Objection) -> int:
    """Outside every reserved range, and what HTTP would say."""
    codes = {_R.RATE_LIMITED: conventions.TOO_MANY, _R.BUDGET_EXCEEDED: conventions.PAYMENT_REQUIRED}
    return codes.get(objection.reason, conventions.FORBIDDEN)


_UNKNOWN = {
    conventions.GET_PROMPT: _R.PROMPT_UNKNOWN,
    conventions.READ_RESOURCE: _R.RESOURCE_UNKNOWN,
    conventions.SUBSCRIBE: _R.RESOURCE_UNKNOWN,
}


def _refusal(objection: decision.Objection, request_id: str, unknown: decision.Reason) -> dict[str, Any]:
    """What programs read of a refusal. A hidden one looks like one reason, whatever it was."""
    if not objection.visible:
        return {"reason": unknown.value, "requestId": request_id}
    data: dict[str, Any] = {"reason": objection.reason.value, "requestId": request_id}
    if objection.retry_after_seconds is not None:
        data["retryAfterSeconds"] = math.ceil(objection.retry_after_seconds)
    if objection.rule is not None:
        data |= {"policy": objection.rule.object, "rule": objection.rule.rule}
    return data


def _error_result(id_: jsonrpc.Id | None, text: str, data: dict[str, Any], *, modern: bool) -> bytes:
    result: dict[str, Any] = {"resultType": "complete"} if modern else {}
    result |= {
        "content": [{"type": "text", "text": text}],
        "isError": True,
        "_meta": {conventions.META_REFUSAL: data},
    }
    return jsonrpc.result(id_, msgspec.json.encode(result))


def sentence(objection: decision.Objection) -> str:
    """One sentence for the model: what happened, and whether trying again or differently can help."""
    reason, detail = objection.reason, objection.detail
    if reason is _R.DENIED and objection.rule is not None:
        return f"Refused by policy {objection.rule.object}: {_stopped(detail)}"
    if reason is _R.ARGUMENTS_INVALID:
        return f"The arguments do not fit the tool's inputSchema, nothing was sent: {_stopped(detail)} Correct them and call again."
    if reason in (_R.RATE_LIMITED, _R.BUDGET_EXCEEDED):
        what = (
            "A rate limit has no calls left"
            if reason is _R.RATE_LIMITED
            else "The budget for this tool is used up"
        )
        return f"{what} ({_budget(objection)}). {_later(objection.retry_after_seconds)}"
    if reason is _R.UPSTREAM_UNAUTHORIZED and objection.retry_after_seconds is not None:
        return "The server refused a credential that has been replaced meanwhile, and did not make the call. Try again."
    return _SENTENCES.get(reason, "The call failed for a reason that is in the proxy's log.") + (
        f" ({detail})" if detail else ""
    )


def _budget(objection: decision.Objection) -> str:
    limit = objection.pool.limit if objection.pool is not None else None
    return f"{limit.namespace}/{limit.budget}, limit {limit.name}" if limit is not None else "a budget"


def _later(seconds: float | None) -> str:
    if seconds is None:
        return "Trying again does not help: the limit is smaller than one call."
    if seconds < 120:
        return f"Try again in {math.ceil(seconds)} s."
    hours, minutes = divmod(math.ceil(seconds / 60), 60)
    wait = f"{hours} h {minutes} min" if hours else f"{minutes} min"
    return f"It resets in {wait}; do not try again before."


def _stopped(text: str) -> str:
    return text if text.endswith((".", "!", "?")) else f"{text}."


_STOP = "Do not try again."
_AGAIN = "Trying again later may help."
_SENTENCES = {
    _R.SERVER_DISABLED: f"This server is switched off by its owners. {_STOP}",
    _R.NO_CREDENTIAL_FOR_CALLER: f"The server has no credential for this agent. {_STOP}",
    _R.NOT_READY: f"The proxy has not received its configuration yet. {_AGAIN}",
    _R.AUDIT_UNAVAILABLE: f"The call cannot be recorded, so it was not made. {_AGAIN}",
    _R.LEDGER_UNAVAILABLE: f"It is not known what the budget has left, so the call was not made. {_AGAIN}",
    _R.CREDENTIAL_UNAVAILABLE: f"The server's credential is not available, so the call was not made. {_AGAIN}",
    _R.CREDENTIAL_MALFORMED: f"The server's credential cannot be used, so the call was not made. {_STOP}",
    _R.CREDENTIAL_MISPLACED: f"The server's credential is meant for another server, so the call was not made. {_STOP}",
    _R.USER_REQUIRED: f"This needs a user and none was presented: whoever runs the agent must send the user's token in the header Outrider-User. {_STOP}",
    _R.USER_TOKEN_INVALID: f"The user's token in the header Outrider-User was not accepted, so nothing was done. {_STOP}",
    _R.OVERLOADED: f"Too many calls are under way. {_AGAIN}",
    _R.UPSTREAM_NOT_READY: f"The server did not answer as it should before the call, so nothing was sent. {_AGAIN}",
    _R.UPSTREAM_UNREACHABLE: f"The server cannot be reached; nothing was sent. {_AGAIN}",
    _R.UPSTREAM_ADDRESS_REFUSED: f"The server's address is not one that may be called. {_STOP}",
    _R.UPSTREAM_BREAKER_OPEN: f"The server failed repeatedly and is left alone for a moment. {_AGAIN}",
    _R.UPSTREAM_TIMEOUT: "The server did not answer in time; whether it did what was asked is unknown.",
    _R.UPSTREAM_REDIRECTS: f"The server answered with a redirect, which is never followed. {_STOP}",
    _R.UPSTREAM_TOO_LARGE: "The server's result is larger than allowed here. Ask for less.",
    _R.UPSTREAM_PROTOCOL_ERROR: "The server's answer was broken; whether it did what was asked is unknown.",
    _R.UPSTREAM_UNAUTHORIZED: f"The server does not accept the proxy's credential. {_STOP}",
    _R.ASK_REFUSED: f"The server asked for input that may not be asked of this agent, so the call went no further. {_STOP}",
    _R.INTERNAL: "The proxy made a mistake and refused the call to be safe.",
    _R.CANCELLED: "The call was cancelled.",
}
