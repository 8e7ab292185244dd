# SPDX-License-Identifier: Apache-2.0
"""What Vault makes for a time, through the whole proxy: users of a real PostgreSQL, while something before Vault fails.

A relay stands before Vault and answers as gateways do. A lease serves to its own end and not longer, and is given back at the end.
"""

from __future__ import annotations

import threading

import pytest
from tests import laptop, openbao, postgres, relay
from tests.scenarios import recorder
from tests.vault import lent

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]
LEASED = ("plain", "ending", "given-back")


@pytest.fixture(scope="module")
def seen():
    with recorder.running() as found:
        yield found


@pytest.fixture(scope="module")
def database():
    yield from postgres.running()


@pytest.fixture(scope="module")
def vault(tmp_path_factory, database):
    made = openbao.Vault(tmp_path_factory.mktemp("leasing"))
    try:
        made.start()
        for name in LEASED:
            mount = f"outrider/servers/tools/{name}/db"
            database.behind(made, mount)
            ttl = "8s" if name == "ending" else "1h"
            database.maker(made, mount, "readonly", ttl=ttl, most="24h")
        yield made
    finally:
        made.close()


@pytest.fixture(scope="module")
def between(vault):
    with relay.before(vault.address) as found:
        yield found


@pytest.fixture(scope="module")
def home(tmp_path_factory, vault, between, seen):
    entries = [
        lent.entry(f"tools/{name}", seen.url, lent.kv("db/creds/readonly", "password") | _leased())
        for name in LEASED
    ]
    vault.put(lent.path("tools/held"), token="held-1")
    entries.append(lent.entry("tools/held", seen.url, lent.kv(), tools={"idempotent": ["echo"]}))
    with lent.running(tmp_path_factory.mktemp("leases"), vault, entries, at=between.address) as made:
        yield made


def _leased() -> dict:
    return {"vault": {"path": "db/creds/readonly", "key": "password", "engine": "Lease"}}


def ask(home, name: str, tool: str = "echo") -> str:
    return laptop.reason(home.agent.call(f"tools/{name}", tool)) or "allowed"


def test_a_password_is_made_for_the_sidecar_and_one_serves_many_calls(home, seen, database, between):
    assert ask(home, "plain") == "allowed"
    password = seen.lent()[-1].removeprefix("Bearer ")
    assert any(database.lets_in(user, password) for user in database.users())
    made = between.count("creds/readonly")
    assert [ask(home, "plain") for _ in range(5)] == ["allowed"] * 5
    assert between.count("creds/readonly") == made
    assert password not in home.proxy.text()


@pytest.mark.parametrize("status", [500, 502, 503, 429])
def test_a_lease_serves_to_its_own_end_while_vault_answers_nothing_useful_and_no_longer(
    home, seen, between, status
):
    laptop.until(lambda: ask(home, "ending") == "allowed", "there is a lease", 60)
    between.fault = lambda _: relay.Fault(
        status, b'{"errors": ["not now"]}', {"Content-Type": "application/json"}
    )
    try:
        verdicts = []
        laptop.until(
            lambda: verdicts.append(ask(home, "ending")) or verdicts[-1] != "allowed", "the lease has ended", 60
        )  # fmt: skip
        assert verdicts[0] == "allowed"
        assert verdicts[-1] == "CredentialUnavailable"
        assert lent.records(home, "tools/ending")[-1]["reason"] == "CredentialUnavailable"
        # A lease that lives longer is not touched by all of this.
        assert ask(home, "plain") == "allowed"
    finally:
        between.fault = lambda _: None
    laptop.until(lambda: ask(home, "ending") == "allowed", "there is a lease again", 60)


def test_a_secret_that_is_replaced_while_a_call_is_under_way_is_the_next_calls(home, vault, seen):
    assert ask(home, "held") == "allowed"
    arrived, verdicts = threading.Event(), []
    seen.arrived = lambda _: arrived.set()
    call = threading.Thread(
        target=lambda: verdicts.append(laptop.reason(home.agent.call("tools/held", "hold", {"token": "x"})))
    )
    call.start()
    try:
        assert arrived.wait(30)
        vault.put(lent.path("tools/held"), token="held-2")
        seen.refuses = lambda shown: shown == "Bearer held-1"
        assert ask(home, "held") == "allowed"
        assert seen.lent()[-1] == "Bearer held-2"
    finally:
        seen.refuses, seen.arrived = (lambda _: False), (lambda _: None)
        seen.release()
        call.join()
    assert verdicts == [""]


def test_leases_are_given_back_when_the_proxy_stops(home, seen, database):
    assert ask(home, "given-back") == "allowed"
    password = seen.lent()[-1].removeprefix("Bearer ")
    before = database.users()
    assert any(database.lets_in(user, password) for user in before)
    home.proxy.stop()
    try:
        laptop.until(lambda: not database.users() & before, "the users of the leases are gone", 60)
    finally:
        home.start_proxy("--vault-token-file", str(home.folder / "tokens" / "vault"))
