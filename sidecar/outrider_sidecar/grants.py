# SPDX-License-Identifier: Apache-2.0
"""What is asked of a token endpoint, and what its answer means (RFC 6749, 8693, 8707). Pure.

Called by the OAuth sources. An answer is taken only if it is what the RFCs say it is: strict JSON, a Bearer token of visible
ASCII, a life in seconds. What an authorization server says of an error is told by its code; of its prose only what is printable,
short, and holds nothing of what was sent.
"""

from __future__ import annotations

import dataclasses
import re
import urllib.parse
from collections.abc import Iterable
from typing import Any

from outrider import decision, snapshot, strictjson
from outrider_sidecar import fetching

CLIENT_CREDENTIALS = "client_credentials"
TOKEN_EXCHANGE = "urn:ietf:params:oauth:grant-type:token-exchange"  # noqa: S105 -- a name
TOKEN_TYPE = "urn:ietf:params:oauth:token-type:"  # noqa: S105 -- the beginning of names

ANSWER_BYTES_MAX = 65_536
"""A token endpoint's answer: the token, and what else servers like to say."""

TOKEN_BYTES_MAX = 16_384
"""No server accepts a longer header."""

LIFE_SECONDS_UNSAID = 300.0
"""How long a token is used whose authorization server does not say how long it is good (RFC 6749 5.1 recommends to say)."""

LIFE_SECONDS_MAX = 86_400.0
"""A token is asked for anew once a day, however long it is good."""

RETRY_AFTER_SECONDS_MAX = 300.0

_PROSE_MAX = 160
_CODE_MAX = 64
_ECHO_CHARACTERS = 8
"""So many characters of a secret in an error's prose, and none of it is shown."""

_CODE = re.compile(r"[a-zA-Z0-9_.-]+")
_UNSHOWN = re.compile(r"[^\x20-\x7e]+")
_VISIBLE = re.compile(r"[\x21-\x7e]+")
_DIGITS = re.compile(r"[0-9]{1,12}")

_NEXT = {
    "invalid_client": "check the client's id, and its secret or key",
    "unauthorized_client": "the authorization server has to allow this client the grant",
    "invalid_scope": "correct the entry's `scopes`, or what the client may ask for",
    "invalid_target": "correct the entry's `resource` or `audience`, or what the client may ask for",
    "unsupported_grant_type": "the authorization server does not offer this grant",
    "temporarily_unavailable": "it is asked again",
    "server_error": "it is asked again",
}
_OF_THE_USER = frozenset(
    {"invalid_grant", "invalid_request", "access_denied", "interaction_required", "consent_required"}
)
"""What an exchange is refused for that is about the user, for certain."""

_OF_ALL = frozenset(
    {
        "invalid_client",
        "unauthorized_client",
        "unsupported_grant_type",
        "temporarily_unavailable",
        "server_error",
    }
)
_TOO_MANY_REQUESTS = 429

_R = decision.Reason


@dataclasses.dataclass(frozen=True, slots=True, repr=False)
class Granted:
    """An access token and for how many seconds from its being asked for it may be used. Has no repr (N4)."""

    token: bytes
    life_seconds: float


class Refused(Exception):
    """No token. `code` is the error's of RFC 6749 5.2, "" without one; the text is one line for the log.

    `of_user`: it is about whom the token was to be for. `of_all`: whoever asks next would fare no better. Neither: nobody can tell
    whether this user may not have it or nobody may. `wait_seconds`: the server asked for it.
    """

    def __init__(
        self,
        text: str,
        *,
        code: str = "",
        status: int = 200,
        reason: decision.Reason = _R.CREDENTIAL_UNAVAILABLE,
        wait_seconds: float = 0.0,
    ) -> None:
        super().__init__(text)
        self.code = code
        self.reason = reason
        self.of_user = code in _OF_THE_USER
        self.of_all = code in _OF_ALL or status >= 500 or status == _TOO_MANY_REQUESTS
        self.wait_seconds = wait_seconds


def asked(source: snapshot.ClientCredentials | snapshot.TokenExchange) -> list[tuple[str, str]]:
    """The form of a request, without what proves the client and without an exchange's tokens."""
    exchanges = isinstance(source, snapshot.TokenExchange)
    form = [("grant_type", TOKEN_EXCHANGE if exchanges else CLIENT_CREDENTIALS)]
    if source.scopes:
        form.append(("scope", " ".join(source.scopes)))
    if source.resource:
        form.append(("resource", source.resource))
    if source.audience:
        form.append(("audience", source.audience))
    return form


def exchanged(subject: str, actor: str, *, subject_type: str) -> list[tuple[str, str]]:
    """What an exchange adds (RFC 8693 2.1): whose token, and who acts; "" for nobody."""
    form = [
        ("subject_token", subject),
        ("subject_token_type", TOKEN_TYPE + subject_type),
        ("requested_token_type", TOKEN_TYPE + "access_token"),
    ]
    return [*form, ("actor_token", actor), ("actor_token_type", TOKEN_TYPE + "jwt")] if actor else form


def granted(answer: fetching.Answer, *, url: str, exchange: bool, secrets: Iterable[str] = ()) -> Granted:
    """What a token endpoint answered; raises Refused. `secrets` are what was sent and must not be quoted."""
    where = fetching.shown(url)
    if answer.status != 200:
        raise _refused(answer, where, tuple(secrets))
    content = _object(answer, where)
    token, kind = content.get("access_token"), content.get("token_type")
    if token is None:
        also = " (an id_token is none)" if "id_token" in content else ""
        raise Refused(f"{where} gave no access_token{also}", reason=_R.CREDENTIAL_MALFORMED)
    if not isinstance(token, str) or not _VISIBLE.fullmatch(token) or len(token) > TOKEN_BYTES_MAX:
        raise Refused(
            f"{where} gave an access_token that is not 1 to {TOKEN_BYTES_MAX} characters of visible ASCII",
            reason=_R.CREDENTIAL_MALFORMED,
        )
    if not isinstance(kind, str) or kind.lower() != "bearer":
        named = f"of type {_shown(kind)}" if isinstance(kind, str) else "without a token_type"
        raise Refused(
            f"{where} gave a token {named}, and only Bearer tokens can be lent: have it issue those to this client",
            reason=_R.CREDENTIAL_MALFORMED,
        )
    if exchange and (issued := content.get("issued_token_type")) != TOKEN_TYPE + "access_token":
        named = _shown(issued) if isinstance(issued, str) else "nothing"
        raise Refused(
            f"{where} gave {named} as issued_token_type, and an access token was asked for (RFC 8693)",
            reason=_R.CREDENTIAL_MALFORMED,
        )
    return Granted(token.encode(), _life(content, where))


def _object(answer: fetching.Answer, where: str) -> dict[str, Any]:
    media = answer.media_type()
    if media != "application/json":
        named = _shown(media) if media else "no content type"
        raise Refused(f"{where} answered with {named} instead of application/json: is it the token endpoint?")
    try:
        content = strictjson.parse(answer.body)
    except strictjson.StrictError as error:
        raise Refused(f"{where} answered with JSON that is not taken: {error}") from None
    if not isinstance(content, dict):
        raise Refused(f"{where} answered with JSON that is no object")
    return content


def _life(content: dict[str, Any], where: str) -> float:
    """Seconds. A number in quotes is taken too, as some servers write it; anything else that is no number is not."""
    if "expires_in" not in content:
        return LIFE_SECONDS_UNSAID
    said = content["expires_in"]
    if isinstance(said, str) and _DIGITS.fullmatch(said):
        said = int(said)
    if isinstance(said, bool) or not isinstance(said, int | float):
        raise Refused(
            f"{where} gave an expires_in that is no number of seconds", reason=_R.CREDENTIAL_MALFORMED
        )
    if said <= 0:
        raise Refused(
            f"{where} gave a token that is over already: its expires_in is {'0' if said == 0 else 'negative'}"
        )
    return float(min(said, LIFE_SECONDS_MAX))


def _refused(answer: fetching.Answer, where: str, secrets: tuple[str, ...]) -> Refused:
    wait = _retry_after(answer)
    content: Any = None
    if answer.media_type() == "application/json":
        try:
            content = strictjson.parse(answer.body)
        except strictjson.StrictError:
            content = None
    code = content.get("error") if isinstance(content, dict) else None
    if (
        not isinstance(code, str)
        or len(code) > _CODE_MAX
        or not _CODE.fullmatch(code)
        or _echoes(code, secrets)
    ):
        text = f"{where} answered with status {answer.status} and no OAuth error"
        return Refused(text, status=answer.status, wait_seconds=wait)
    prose = content.get("error_description")
    prose = prose[: 2 * _PROSE_MAX] if isinstance(prose, str) else ""
    said = f" ({_shown(prose)})" if prose and not _echoes(prose, secrets) else ""
    then = f": {_NEXT[code]}" if code in _NEXT else ""
    text = f"{where} refused with {code}{said}{then}"
    return Refused(text, code=code, status=answer.status, wait_seconds=wait)


def _retry_after(answer: fetching.Answer) -> float:
    """Of a server that is busy, in seconds (RFC 9110 10.2.3); its other form, a date, is not read."""
    said = answer.header(b"retry-after")
    return min(float(said), RETRY_AFTER_SECONDS_MAX) if _DIGITS.fullmatch(said) else 0.0


def _echoes(prose: str, secrets: tuple[str, ...]) -> bool:
    """Whether a piece of what was sent is in a text, as it was sent or percent-encoded."""
    texts = (prose, urllib.parse.unquote_plus(prose))
    return any(
        secret[at : at + _ECHO_CHARACTERS] in text
        for secret in secrets
        if secret
        for at in range(max(1, len(secret) - _ECHO_CHARACTERS + 1))
        for text in texts
    )


def _shown(text: str) -> str:
    """What somebody else wrote, on one line of ours."""
    plain = _UNSHOWN.sub("?", text).strip()
    return plain if len(plain) <= _PROSE_MAX else plain[:_PROSE_MAX] + "..."
