# SPDX-License-Identifier: Apache-2.0
"""What is asked at a token endpoint, and which of its answers are tokens."""

from __future__ import annotations

import json

import pytest

from outrider import decision, snapshot
from outrider_sidecar import fetching, grants

R = decision.Reason
URL = "https://as.example/token?tenant=hunter2"
SECRET = "s3cret-canary-77f0"
CLIENT = snapshot.OAuthClient(id="outrider", secret=snapshot.FileSecret(path="/secret"))
ACCESS = grants.TOKEN_TYPE + "access_token"


def answered(body, status=200, media="application/json", **headers):
    raw = body if isinstance(body, bytes) else json.dumps(body).encode()
    made = [(b"content-type", media.encode())] if media else []
    made += [(name.replace("_", "-").encode(), value.encode()) for name, value in headers.items()]
    return fetching.Answer(status, tuple(made), raw)


def granted(answer, *, exchange=False):
    return grants.granted(answer, url=URL, exchange=exchange, secrets=(SECRET,))


def refused(answer, *, exchange=False):
    with pytest.raises(grants.Refused) as failed:
        granted(answer, exchange=exchange)
    text = str(failed.value)
    assert text.startswith("https://as.example/token ")
    assert "hunter2" not in text
    assert "token-canary" not in text
    assert SECRET not in text
    assert text.isascii()
    assert text.isprintable()
    assert len(text) < 500
    assert failed.value.__cause__ is None
    return failed.value


def bearer(**more):
    return {"access_token": "token-canary", "token_type": "Bearer", "expires_in": 60, **more}


def test_a_form_holds_what_the_entry_says_and_nothing_else():
    plain = snapshot.ClientCredentials(token_url=URL, client=CLIENT)
    assert grants.asked(plain) == [("grant_type", "client_credentials")]
    full = snapshot.ClientCredentials(
        token_url=URL, client=CLIENT, scopes=("a", "b:c"), resource="https://crm.example/mcp", audience="crm"
    )
    assert grants.asked(full)[1:] == [
        ("scope", "a b:c"), ("resource", "https://crm.example/mcp"), ("audience", "crm"),
    ]  # fmt: skip
    exchange = snapshot.TokenExchange(token_url=URL, client=CLIENT)
    assert grants.asked(exchange) == [("grant_type", grants.TOKEN_EXCHANGE)]


def test_an_exchange_names_the_types_of_its_tokens_and_an_actor_only_if_there_is_one():
    form = dict(grants.exchanged("user", "pod", subject_type="jwt"))
    assert form == {
        "subject_token": "user", "subject_token_type": grants.TOKEN_TYPE + "jwt", "requested_token_type": ACCESS,
        "actor_token": "pod", "actor_token_type": grants.TOKEN_TYPE + "jwt",
    }  # fmt: skip
    assert not {"actor_token", "actor_token_type"} & set(
        dict(grants.exchanged("u", "", subject_type="access_token"))
    )


def test_a_bearer_token_is_taken_with_its_life_and_has_no_repr():
    made = granted(answered(bearer(refresh_token="never kept", scope="a")))
    assert (made.token, made.life_seconds) == (b"token-canary", 60.0)
    assert "canary" not in repr(made)
    assert granted(answered(bearer(token_type="bEaReR"))).token == b"token-canary"
    assert granted(answered(bearer(), media="application/json; charset=UTF-8")).token == b"token-canary"


LIVES = [
    ({}, 60.0),
    ({"expires_in": "120"}, 120.0),
    ({"expires_in": 0.5}, 0.5),
    ({"expires_in": 10**9}, 86_400.0),
    ({"expires_in": 1e300}, 86_400.0),
]


@pytest.mark.parametrize(("more", "seconds"), LIVES)
def test_a_life_is_what_the_answer_says_up_to_a_day(more, seconds):
    assert granted(answered(bearer(**more))).life_seconds == seconds


def test_a_token_that_says_nothing_of_its_life_is_used_for_five_minutes():
    assert granted(answered({"access_token": "t", "token_type": "Bearer"})).life_seconds == 300.0


MALFORMED = [
    ({"token_type": "Bearer"}, "gave no access_token"),
    ({"id_token": "token-canary", "token_type": "Bearer"}, "an id_token is none"),
    (bearer(access_token=""), "visible ASCII"),
    (bearer(access_token="token-canary with space"), "visible ASCII"),
    (bearer(access_token="token-canary\n"), "visible ASCII"),
    (bearer(access_token="token-canary\u00fc"), "visible ASCII"),
    (bearer(access_token=["token-canary"]), "visible ASCII"),
    (bearer(access_token=7), "visible ASCII"),
    (bearer(access_token="a" * 16_385), "visible ASCII"),
    (bearer(token_type="mac"), "of type mac, and only Bearer"),
    (bearer(token_type="DPoP"), "of type DPoP, and only Bearer"),
    (bearer(token_type="N_A"), "of type N_A, and only Bearer"),
    ({"access_token": "token-canary"}, "without a token_type"),
    (bearer(token_type=None), "without a token_type"),
    (bearer(expires_in="soon"), "no number"),
    (bearer(expires_in="-5"), "no number"),
    (bearer(expires_in=None), "no number"),
    (bearer(expires_in=True), "no number"),
    (bearer(expires_in=[60]), "no number"),
    (bearer(expires_in="9" * 13), "no number"),
]


@pytest.mark.parametrize(("body", "says"), MALFORMED)
def test_what_is_no_bearer_token_is_malformed_and_told_without_it(body, says):
    failure = refused(answered(body))
    assert failure.reason is R.CREDENTIAL_MALFORMED
    assert says in str(failure)


@pytest.mark.parametrize(
    ("seconds", "says"), [(0, "is 0"), (-1, "negative"), (-1e9, "negative"), ("0", "is 0")]
)
def test_a_token_that_is_over_already_is_none(seconds, says):
    failure = refused(answered(bearer(expires_in=seconds)))
    assert failure.reason is R.CREDENTIAL_UNAVAILABLE
    assert says in str(failure)


NOT_ANSWERS = [
    (answered(b"<html>token-canary</html>", media="text/html"), "text/html instead of application/json"),
    (answered(bearer(), media="text/plain"), "text/plain"),
    (answered(bearer(), media=""), "no content type"),
    (answered(b'{"access_token":"token-canary","access_token":"b"}'), "same key twice"),
    (answered(b'{"access_token":"token-canary","Access_Token":"b"}'), "differ only in case"),
    (answered(b'{"access_token":"token-canary"'), "not JSON"),
    (answered(b""), "not JSON"),
    (answered(b"\xff\xfe"), "not UTF-8"),
    (answered(b'{"expires_in":NaN}'), "NaN"),
    (answered(b"[" * 100 + b"]" * 100), "nested"),
    (answered(b'["token-canary"]'), "no object"),
    (answered(b"access_token=token-canary&token_type=bearer", media="application/x-www-form-urlencoded"), "x-www-form"),
]  # fmt: skip


@pytest.mark.parametrize(("answer", "says"), NOT_ANSWERS)
def test_what_is_no_json_object_is_no_answer(answer, says):
    failure = refused(answer)
    assert failure.reason is R.CREDENTIAL_UNAVAILABLE
    assert says in str(failure)


@pytest.mark.parametrize(
    "kind", [None, grants.TOKEN_TYPE + "id_token", grants.TOKEN_TYPE + "refresh_token", 5]
)
def test_an_exchange_gives_an_access_token_or_nothing(kind):
    body = bearer() if kind is None else bearer(issued_token_type=kind)
    failure = refused(answered(body), exchange=True)
    assert failure.reason is R.CREDENTIAL_MALFORMED
    assert "issued_token_type" in str(failure)
    assert granted(answered(bearer(issued_token_type=ACCESS)), exchange=True).token == b"token-canary"


ERRORS = [
    ("invalid_client", 401, "check the client's id, and its secret or key", False),
    ("invalid_grant", 400, "refused with invalid_grant", True),
    ("invalid_request", 400, "refused with invalid_request", True),
    ("invalid_scope", 400, "`scopes`", False),
    ("invalid_target", 400, "`resource` or `audience`", False),
    ("unauthorized_client", 400, "allow this client", False),
    ("unsupported_grant_type", 400, "does not offer", False),
    ("temporarily_unavailable", 503, "asked again", False),
    ("slow_down", 400, "refused with slow_down", False),
]


@pytest.mark.parametrize(("code", "status", "says", "of_user"), ERRORS)
def test_an_error_is_told_by_its_code_and_with_what_to_do(code, status, says, of_user):
    failure = refused(answered({"error": code, "error_description": "no such thing"}, status))
    assert (failure.code, failure.of_user, failure.reason) == (code, of_user, R.CREDENTIAL_UNAVAILABLE)
    assert says in str(failure)
    assert "(no such thing)" in str(failure)


PROSE = [
    (f"the secret {SECRET} is wrong", False),
    ("the secret s3cret-canary%2D77f0 is wrong", False),
    ("secrets beginning with s3cret-c are old", False),
    ("\u001b[31mred\u0007 \u00e4 line\nand another", True),
    ("a" * 5000, True),
    ("", False),
    (None, False),
    (["list"], False),
]


@pytest.mark.parametrize(("prose", "shown"), PROSE)
def test_of_a_servers_prose_nothing_is_shown_that_quotes_a_secret_or_is_no_line(prose, shown):
    text = str(refused(answered({"error": "invalid_client", "error_description": prose}, 401)))
    assert ("(" in text) is shown
    assert "s3cret" not in text


CODES = [None, 5, "", "two words", "a" * 65, "b\u00e4d", SECRET, {"a": 1}]


@pytest.mark.parametrize("code", CODES)
def test_a_status_without_an_oauth_error_is_told_as_that(code):
    failure = refused(answered({"error": code}, 400))
    assert (failure.code, failure.of_user) == ("", False)
    assert "status 400 and no OAuth error" in str(failure)


@pytest.mark.parametrize(
    "answer",
    [
        answered(b"<html>oops</html>", 502, "text/html"),
        answered(b"{", 500),
        answered(b"", 404, ""),
        answered(b"{}", 204),
        answered(bearer(), 201),
        answered(b'{"error":"invalid_grant","error":"x"}', 400),
    ],
)
def test_other_statuses_are_no_tokens(answer):
    assert f"status {answer.status} and no OAuth error" in str(refused(answer))


WAITS = [("5", 5.0), ("100000", 300.0), ("Wed, 21 Oct 2026 07:28:00 GMT", 0.0), ("-1", 0.0), ("1.5", 0.0)]


@pytest.mark.parametrize(("said", "seconds"), WAITS)
def test_a_server_that_is_busy_says_for_how_long_within_bounds(said, seconds):
    failure = refused(answered(b"", 429, "", retry_after=said))
    assert failure.wait_seconds == seconds
