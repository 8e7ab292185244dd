# SPDX-License-Identifier: Apache-2.0
"""Users behind an agent before the real processes, with a real authorization server as their issuer and a server that writes down."""

from __future__ import annotations

import concurrent.futures
import json

import pytest
from tests import laptop
from tests.authserver import server as authservers
from tests.scenarios import recorder

pytestmark = pytest.mark.slow
SALES, OPEN, PERSONAL = "tools/sales", "tools/open", "tools/personal"
RESOURCE = "https://personal.example/mcp"
CLIENT_SECRET = "canary-client-secret-5511"


@pytest.fixture
def seen():
    with recorder.running() as found:
        yield found


def settings(issuer: authservers.AuthServer, **more) -> str:
    provider = {
        "name": "as", "issuer": issuer.issuer, "audience": authservers.AUDIENCE, "jwksUri": issuer.jwks_uri, **more,
    }  # fmt: skip
    return laptop.SETTINGS + "identityProviders: " + json.dumps([provider]) + "\n"


def files(issuer: authservers.AuthServer, seen: recorder.Seen) -> dict[str, str]:
    group = {
        "name": "sales", "effect": "Allow", "from": [{"groups": ["as:sales"]}], "tools": ["*"],
    }  # fmt: skip
    exchange = {
        "name": "own", "from": [{"anyone": True}],
        "tokenExchange": {
            "tokenUrl": issuer.token_url, "clientId": "outrider", "clientSecret": {"file": {"path": "secret.txt"}},
            "resource": RESOURCE, "actor": "Nobody",
        },
        "inject": {"header": "Authorization", "prefix": "Bearer "},
    }  # fmt: skip
    entries = [
        laptop.server(SALES, seen.url),
        laptop.policy("outrider-system/sales", SALES, group),
        laptop.server(OPEN, seen.url, requireUser=True),
        laptop.policy("outrider-system/open", OPEN, laptop.allow()),
        laptop.server(PERSONAL, seen.url, credentials=[exchange]),
        laptop.policy("outrider-system/personal", PERSONAL, laptop.allow()),
    ]
    return {
        "outrider.yaml": settings(issuer),
        "all.yaml": laptop.documents(*entries),
        "secret.txt": CLIENT_SECRET,
    }


def call(home: laptop.Laptop, server: str, user: str | None = None, **arguments) -> dict:
    where, body, head = home.agent.request(server, "echo", arguments)
    reply = home.agent.post(where, body, head if user is None else {**head, "Outrider-User": user})
    assert reply.status == 200, reply
    return reply.result


def kept(home: laptop.Laptop) -> str:
    """Everything that is written anywhere."""
    found = [
        path.read_bytes() for path in home.folder.rglob("*") if path.is_file() and path.name != "secret.txt"
    ]
    return b"".join([*found, home.admin("/metrics").body]).decode("latin-1")


def test_a_user_is_verified_by_the_issuer_s_own_keys_and_rules_are_about_that_user(
    tmp_path, authserver, seen
):
    alice = authserver.user_token("alice", groups=["sales", "x"])
    bob = authserver.user_token("bob", groups=["support"])
    with laptop.running(tmp_path, files(authserver, seen)) as home:
        assert laptop.reason(call(home, SALES, alice, token="a")) == ""
        assert laptop.text(call(home, SALES, bob, token="b")) == "Unknown tool: echo"
        for server in (SALES, OPEN):
            assert laptop.reason(call(home, server)) == "UserRequired"
        assert laptop.reason(call(home, OPEN, bob, token="c")) == ""
        assert (
            laptop.reason(call(home, OPEN, authserver.user_token("bob", aud="billing"))) == "UserTokenInvalid"
        )
        assert seen.tokens == ["a", "c"]
        assert authserver.keys_asked == 1
        for _, head in seen.requests:
            assert "outrider-user" not in {name.lower() for name in head}
            assert alice not in str(head)
            assert bob not in str(head)
        listed = home.outrider(
            "audit", "search", "--journal", str(home.journal), "--user", "as:alice", "-o", "json"
        )
        assert listed.returncode == 0, listed
        assert "as:alice" in listed.stdout
        assert "as:bob" not in listed.stdout
        assert home.verify().returncode == 0
        everything = kept(home)
        for token in (alice, bob):
            assert token.rpartition(".")[2] not in everything


def test_an_issuer_that_goes_takes_nobody_with_it_and_one_that_changes_its_key_is_believed(
    tmp_path, authserver, seen
):
    before = authserver.user_token("alice")
    with laptop.running(tmp_path, files(authserver, seen)) as home:
        assert laptop.reason(call(home, OPEN, before)) == ""
        authserver.stop()
        assert laptop.reason(call(home, OPEN, before)) == ""
        assert laptop.reason(call(home, OPEN, authserver.user_token("bob"))) == ""  # the key is known
        authserver.rotate_keys(kind="EC", keep=True)
        after = authserver.user_token("carol")
        assert laptop.reason(call(home, OPEN, after)) == "UserTokenInvalid"
        authserver.start()
        # A key nobody knows is asked for once in thirty seconds, and the issuer was asked while it was away.
        laptop.until(lambda: laptop.reason(call(home, OPEN, after)) == "", "the new key is known", 60)
        assert laptop.reason(call(home, OPEN, before)) == ""
        home.write("outrider.yaml", laptop.SETTINGS)
        laptop.until(
            lambda: laptop.reason(call(home, OPEN, after)) == "UserTokenInvalid", "the provider is gone"
        )
        assert "not of an issuer that is known here" in laptop.text(call(home, OPEN, before))


def test_each_user_gets_a_token_of_their_own_lent_and_never_anothers(tmp_path, authserver, seen):
    authserver.register("outrider", secret=CLIENT_SECRET, targets=frozenset({RESOURCE}))
    users = {name: authserver.user_token(name) for name in ("alice", "bob", "carol")}
    with laptop.running(tmp_path, files(authserver, seen)) as home:
        assert laptop.reason(call(home, PERSONAL)) == "UserRequired"
        with concurrent.futures.ThreadPoolExecutor(6) as at_once:
            told = list(
                at_once.map(lambda name: call(home, PERSONAL, users[name], token=name), list(users) * 6)
            )
        assert [laptop.reason(each) for each in told] == [""] * 18
        lent = {
            head["Authorization"].removeprefix("Bearer ")
            for method, head in seen.requests
            if method == "tools/call"
        }
        assert {authserver.active(each)["sub"] for each in lent} == set(users)
        assert len(lent) == 3  # one exchange each
        assert sorted(seen.tokens) == sorted([*users] * 6)
        everything = kept(home)
        for secret in [CLIENT_SECRET, *lent, *users.values()]:
            assert secret.rpartition(".")[2] not in everything
