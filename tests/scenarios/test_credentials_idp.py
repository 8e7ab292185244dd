# SPDX-License-Identifier: Apache-2.0
"""Identity providers and authorization servers as they really fail, through the whole proxy and with a real one of each.

Keys: the last good ones serve on, an unknown one is refused. Tokens of the proxy's own: what is held serves to its own end, then the
call is refused. A user's token is a user or a refusal, never nobody, whatever is away.
"""

from __future__ import annotations

import time

import pytest
from tests import laptop, openbao
from tests.authserver import server as authserver
from tests.scenarios import recorder
from tests.vault import lent

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]
USERS = ("known", "away", "silent", "rotated")
"""Providers, each with a server that wants a user of it: what a test does to one is not another's."""
SECRET = "client-secret-1"


@pytest.fixture(scope="module")
def seen():
    with recorder.running() as found:
        yield found


@pytest.fixture(scope="module")
def vault(tmp_path_factory):
    made = openbao.Vault(tmp_path_factory.mktemp("vault"))
    try:
        yield made.start()
    finally:
        made.close()


@pytest.fixture(scope="module")
def issuers():
    """One for each of USERS, and those that give the proxy tokens: `tokens`, `brief`, `strict`, `exchange`."""
    made = {
        name: authserver.AuthServer().start() for name in (*USERS, "tokens", "brief", "strict", "exchange")
    }
    made["away"].stop()
    for name in ("tokens", "brief", "strict", "exchange"):
        made[name].register("outrider", secret=SECRET)
    made["brief"].oauth.lifetime = 4
    try:
        yield made
    finally:
        for each in made.values():
            each.close()


def provider(name: str, issuer: authserver.AuthServer) -> dict:
    return {
        "name": name,
        "issuer": issuer.issuer,
        "audience": authserver.AUDIENCE,
        "jwksUri": issuer.jwks_uri,
    }


def client(issuer: authserver.AuthServer) -> dict:
    secret = {"vault": {"path": "client", "key": "secret"}}
    return {"tokenUrl": issuer.token_url, "clientId": "outrider", "clientSecret": secret}


@pytest.fixture(scope="module")
def home(tmp_path_factory, vault, issuers, seen):
    none = {"name": "none", "from": lent.ANYONE, "none": True}
    entries = []
    for name in USERS:
        entries.append(laptop.server(f"users/{name}", seen.url, credentials=[none], requireUser=True))
        rule = {"name": "staff", "effect": "Allow", "from": [{"groups": [f"{name}:staff"]}], "tools": ["*"]}
        entries.append(laptop.policy(f"outrider-system/{name}", f"users/{name}", rule))
    idempotent = {"tools": {"idempotent": ["echo"]}}
    for name in ("tokens", "brief", "strict"):
        credential = {"name": name, "from": lent.ANYONE, "oauthClientCredentials": client(issuers[name])}
        entries.append(lent.entry(f"own/{name}", seen.url, credential, **idempotent))
        vault.put(lent.path(f"own/{name}", "client"), secret=SECRET)
    credential = {"name": "exchange", "from": lent.ANYONE, "tokenExchange": client(issuers["exchange"])}
    entries.append(lent.entry("own/exchange", seen.url, credential, **idempotent))
    vault.put(lent.path("own/exchange", "client"), secret=SECRET)
    with lent.running(
        tmp_path_factory.mktemp("idp"), vault, entries, tokens={"exchange": issuers["exchange"].actor_token()},
        identityProviders=[provider(name, issuers[name]) for name in (*USERS, "exchange")],
    ) as made:  # fmt: skip
        yield made


def ask(home, server: str, user: str | None = None, tool: str = "echo") -> str:
    where, body, head = home.agent.request(server, tool)
    reply = home.agent.post(where, body, {**head, **({"Outrider-User": user} if user else {})})
    if reply.status == 404 or laptop.text(reply.result).startswith("Unknown tool"):
        return "unknown"
    return laptop.reason(reply.result) or "allowed"


def staff(issuer: authserver.AuthServer, who: str = "ada", **more) -> str:
    return issuer.user_token(who, groups=["staff"], **more)


def said(home, *words: str) -> bool:
    return any(all(word in line for word in words) for line in home.proxy.text().splitlines())


def test_a_user_is_known_and_recorded_by_name_and_nobody_else_is(home, issuers):
    token = staff(issuers["known"])
    assert ask(home, "users/known", token) == "allowed"
    record = lent.records(home, "users/known")[-1]
    assert record["user"] == "known:ada"
    assert token not in str(record)
    assert ask(home, "users/known") == "UserRequired"
    assert ask(home, "users/known", issuers["known"].user_token("bob", groups=["guests"])) == "unknown"
    # A token of another provider is a user of that one, whatever it calls its groups.
    assert ask(home, "users/known", staff(issuers["rotated"])) == "unknown"


@pytest.mark.parametrize(
    "change", [{"aud": "else"}, {"seconds": -120}, {"iss": "https://idp.example"}, {"exp": None}]
)
def test_a_token_that_is_not_good_is_refused_and_never_taken_for_nobody(home, issuers, change):
    assert ask(home, "users/known", staff(issuers["known"], **change)) == "UserTokenInvalid"
    assert lent.records(home, "users/known")[-1]["reason"] == "UserTokenInvalid"
    # Where no user is needed at all, it is refused just the same.
    assert ask(home, "own/tokens", staff(issuers["known"], **change)) == "UserTokenInvalid"


def test_a_provider_that_was_never_reached_vouches_for_nobody_and_does_once_it_is_there(home, issuers):
    token = staff(issuers["away"])
    assert ask(home, "users/away", token) == "UserTokenInvalid"
    assert said(home, "away", "keys")
    issuers["away"].start()
    laptop.until(lambda: ask(home, "users/away", token) == "allowed", "its keys are known", 60)


def test_a_provider_that_goes_away_leaves_its_keys_behind(home, issuers):
    here = issuers["known"]
    assert ask(home, "users/known", staff(here)) == "allowed"
    here.stop()
    try:
        assert ask(home, "users/known", staff(here, "eve")) == "allowed"
    finally:
        here.start()


def test_a_provider_that_does_not_answer_is_waited_for_and_not_for_ever(home, issuers):
    token = staff(issuers["silent"])
    with issuers["silent"].paused():
        assert ask(home, "users/silent", token) == "UserTokenInvalid"
    laptop.until(lambda: ask(home, "users/silent", token) == "allowed", "its keys are known", 60)


def test_a_new_key_is_found_and_an_old_one_is_forgotten(home, issuers):
    here = issuers["rotated"]
    assert ask(home, "users/rotated", staff(here)) == "allowed"
    here.rotate_keys()
    # An unknown key is asked for once in half a minute at most.
    laptop.until(lambda: ask(home, "users/rotated", staff(here)) == "allowed", "the new key is known", 90)


def active(issuer):
    return lambda shown: issuer.active(shown.removeprefix("Bearer ")) is None


def test_an_access_token_is_got_once_and_replaced_when_the_server_refuses_it(home, issuers, seen):
    here = issuers["tokens"]
    assert ask(home, "own/tokens") == "allowed"
    asked = here.requests
    assert [ask(home, "own/tokens") for _ in range(5)] == ["allowed"] * 5
    assert here.requests == asked
    here.revoke_all()
    seen.refuses = active(here)
    try:
        assert ask(home, "own/tokens") == "allowed"
    finally:
        seen.refuses = lambda _: False
    assert here.requests == asked + 1
    assert lent.records(home, "own/tokens")[-1]["sends"] == 2


def test_a_token_serves_to_its_own_end_while_the_server_is_away_and_no_longer(home, issuers, seen):
    here = issuers["brief"]
    laptop.until(lambda: ask(home, "own/brief") == "allowed", "there is a token", 60)
    here.stop()
    try:
        ends = here.oauth.issued[-1].claims["exp"]
        verdicts = []
        laptop.until(
            lambda: verdicts.append((time.time(), ask(home, "own/brief"))) or verdicts[-1][1] != "allowed",
            "the token has ended", 60,
        )  # fmt: skip
        assert verdicts[-1][1] == "CredentialUnavailable"
        # The claim is in whole seconds, cut off.
        assert all(at < ends + 1 for at, _ in verdicts[:-1])
        assert said(home, here.token_url.rpartition("/")[0].removeprefix("http://"))
    finally:
        here.start()
    laptop.until(lambda: ask(home, "own/brief") == "allowed", "there is a token again", 60)


def test_a_clients_secret_that_is_replaced_in_vault_is_taken_when_the_old_one_is_refused(
    home, issuers, vault, seen
):
    here = issuers["strict"]
    assert ask(home, "own/strict") == "allowed"
    here.oauth.clients["outrider"].secret = "client-secret-2"
    vault.put(lent.path("own/strict", "client"), secret="client-secret-2")
    here.revoke_all()
    seen.refuses = active(here)
    try:
        laptop.until(lambda: ask(home, "own/strict") == "allowed", "the new secret is taken", 90)
    finally:
        seen.refuses = lambda _: False


def test_each_user_gets_a_token_of_their_own_and_nobody_gets_none(home, issuers, seen):
    here = issuers["exchange"]
    assert ask(home, "own/exchange") == "UserRequired"
    shown = {}
    for who in ("ada", "bob", "ada", "bob"):
        assert ask(home, "own/exchange", here.user_token(who)) == "allowed"
        claims = here.active(seen.lent()[-1].removeprefix("Bearer "))
        assert claims["sub"] == who
        assert "agents:bot" in claims["act"]["sub"]
        shown.setdefault(who, seen.lent()[-1])
    assert shown["ada"] != shown["bob"]
