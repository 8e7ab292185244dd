# SPDX-License-Identifier: Apache-2.0
"""Vault and authorization servers as they really fail: what the agent is told, what the audit says, what the log says to do.

Every test has servers (MCPServers) of its own at one proxy, so that nothing one of them breaks is another's. The table of
security.md: cached credentials serve until they expire, then the call is refused; never another credential, never none.
"""

from __future__ import annotations

import contextlib
import json

import pytest
from tests import laptop, openbao
from tests.scenarios import recorder
from tests.vault import lent

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]
KEPT = (
    "fresh", "sealed", "gone", "silent", "revoked", "rotated", "forbidden", "deleted", "unwritten", "misplaced", "malformed",
    "keyless", "late-sealed", "late-gone", "late-silent", "written",
)  # fmt: skip
"""Servers of namespace `tools`, each with a secret of its own."""


@pytest.fixture(scope="module")
def seen():
    with recorder.running() as found:
        yield found


@pytest.fixture(scope="module")
def vault(tmp_path_factory):
    made = openbao.Vault(tmp_path_factory.mktemp("faulty"))
    try:
        yield made.start()
    finally:
        made.close()


@pytest.fixture(scope="module")
def home(tmp_path_factory, vault, seen):
    for name in KEPT:
        if name != "unwritten" and not name.startswith("late-"):
            vault.put(lent.path(f"tools/{name}"), token=f"{name}-1")
    vault.put(lent.path("tools/misplaced"), token="misplaced-1", outrider_origin="https://elsewhere.example")
    vault.put(lent.path("tools/malformed"), token="two\nlines")
    entries = [
        lent.entry(f"tools/{name}", seen.url, lent.kv(), tools={"idempotent": ["echo"]}) for name in KEPT
    ]
    entries.append(lent.entry("locked/wrong-role", seen.url, lent.kv()))

    def bound_to_others() -> None:
        vault.role("outrider-locked", ["outrider-locked"], namespaces=["others"])

    with lent.running(tmp_path_factory.mktemp("faults"), vault, entries, then=bound_to_others) as made:
        yield made


def ask(home, name: str, tool: str = "echo") -> str:
    """`allowed`, or the reason of the refusal."""
    server = name if "/" in name else f"tools/{name}"
    return laptop.reason(home.agent.call(server, tool)) or "allowed"


def last(home, name: str) -> dict:
    """The newest record of a call of the server."""
    return lent.records(home, name if "/" in name else f"tools/{name}")[-1]


def said(home, *words: str) -> bool:
    """Whether one line of the proxy's log holds all of these words."""
    return any(all(word in line for word in words) for line in home.proxy.text().splitlines())


@contextlib.contextmanager
def refusing(seen, shown: str):
    """The server takes this Authorization no longer, for a block."""
    seen.refuses = lambda given: given == shown
    try:
        yield
    finally:
        seen.refuses = lambda _: False


OUTAGES = {
    "sealed": ("seal", "unseal", "is sealed"), "gone": ("kill", "start", "cannot be reached"),
    "silent": ("pause", "resume", "did not answer in time"),
}  # fmt: skip
"""What is done to Vault, what undoes it, and what the log says of it."""


@contextlib.contextmanager
def outage(vault, name: str):
    take, give, _ = OUTAGES[name]
    getattr(vault, take)()
    try:
        yield
    finally:
        getattr(vault, give)()


def test_a_secret_reaches_the_server_and_nobody_else(home, seen):
    assert ask(home, "fresh") == "allowed"
    assert seen.lent()[-1] == "Bearer fresh-1"
    record = last(home, "fresh")
    assert (record["decision"], record["credential"]) == ("Allowed", "token")
    assert "fresh-1" not in json.dumps(record)


@pytest.mark.parametrize("name", OUTAGES)
def test_while_vault_is_away_what_is_held_serves_and_what_is_not_is_refused(home, vault, seen, name):
    late = f"late-{name}"
    assert ask(home, name) == "allowed"
    with outage(vault, name):
        for _ in range(3):
            assert ask(home, name) == "allowed"
            assert seen.lent()[-1] == f"Bearer {name}-1"
        reached = len(seen.requests)
        assert ask(home, late) == "CredentialUnavailable"
        assert len(seen.requests) == reached
        assert last(home, late)["reason"] == "CredentialUnavailable"
        laptop.until(
            lambda: ask(home, late) and said(home, f"Vault at {vault.address} {OUTAGES[name][2]}"),
            "the log says what is wrong with Vault", 60,
        )  # fmt: skip
    vault.put(lent.path(f"tools/{late}"), token=f"{late}-1")
    laptop.until(lambda: ask(home, late) == "allowed", "a new secret can be had again", 60)
    assert seen.lent()[-1] == f"Bearer {late}-1"


def test_a_token_that_is_revoked_under_us_is_replaced_and_nobody_notices(home, vault, seen):
    assert ask(home, "revoked") == "allowed"
    vault.call("POST", "auth/token/revoke-accessor", {"accessor": accessor(vault)})
    vault.put(lent.path("tools/revoked"), token="revoked-2")
    with refusing(seen, "Bearer revoked-1"):
        assert ask(home, "revoked") == "allowed"
    assert seen.lent()[-1] == "Bearer revoked-2"


def accessor(vault) -> str:
    """Of the proxy's token: the newest with its policy."""
    listed = vault.call("LIST", "auth/token/accessors")["data"]["keys"]
    found = []
    for each in listed:
        with contextlib.suppress(openbao.Refused):
            data = vault.call("POST", "auth/token/lookup-accessor", {"accessor": each})["data"]
            if "jwt-outrider-tools" in data["policies"]:
                found.append((data["creation_time"], each))
    return max(found)[1]


def test_a_secret_that_is_replaced_is_used_from_the_first_refusal_on(home, vault, seen):
    assert ask(home, "rotated") == "allowed"
    vault.put(lent.path("tools/rotated"), token="rotated-2")
    with refusing(seen, "Bearer rotated-1"):
        assert ask(home, "rotated") == "allowed"
        assert seen.lent()[-1] == "Bearer rotated-2"
        assert last(home, "rotated")["sends"] == 2


def test_a_call_that_may_not_be_repeated_ends_with_the_refusal_and_the_next_has_the_new_secret(
    home, vault, seen
):
    assert ask(home, "written", "slow") == "allowed"
    vault.put(lent.path("tools/written"), token="written-2")
    with refusing(seen, "Bearer written-1"):
        assert ask(home, "written", "slow") == "UpstreamUnauthorized"
        assert ask(home, "written", "slow") == "allowed"
    assert seen.lent()[-1] == "Bearer written-2"


@pytest.mark.parametrize(
    ("name", "reason", "words"),
    [
        (
            "unwritten",
            "CredentialUnavailable",
            ("there is no secret at secret/outrider/servers/tools/unwritten/api",),
        ),
        ("misplaced", "CredentialMisplaced", ("https://elsewhere.example",)),
        ("malformed", "CredentialMalformed", ("tools/malformed", "printable ASCII")),
    ],
)
def test_a_secret_that_cannot_be_lent_refuses_the_call_and_the_log_says_why(home, seen, name, reason, words):
    reached = len(seen.requests)
    assert ask(home, name) == reason
    assert len(seen.requests) == reached
    assert last(home, name)["reason"] == reason
    assert said(home, *words)
    assert "two\nlines" not in home.proxy.text()


def test_a_key_that_is_missing_is_named(home, vault, seen):
    vault.put(lent.path("tools/keyless"), password="keyless-1")
    laptop.until(
        lambda: ask(home, "keyless") == "CredentialUnavailable", "the secret without the key is read", 120
    )
    assert said(home, "token", "outrider/servers/tools/keyless/api")


def test_a_secret_that_vault_takes_away_is_not_lent_any_longer(home, vault, seen):
    assert ask(home, "deleted") == "allowed"
    vault.call("DELETE", f"secret/data/{lent.path('tools/deleted')}")
    with refusing(seen, "Bearer deleted-1"):  # or the next look at the version, within a minute
        assert ask(home, "deleted") in ("CredentialUnavailable", "UpstreamUnauthorized")
    laptop.until(
        lambda: ask(home, "deleted") == "CredentialUnavailable", "a deleted secret is lent no more", 120
    )
    assert said(home, "outrider/servers/tools/deleted/api", "deleted")


def test_a_role_that_does_not_know_the_workload_is_named_with_what_to_do(home):
    """The admin bound another namespace: Vault refuses the login itself, whatever the proxy thinks."""
    assert ask(home, "locked/wrong-role") == "CredentialUnavailable"
    assert last(home, "locked/wrong-role")["reason"] == "CredentialUnavailable"
    assert said(home, "the login of role outrider-locked", "bind this pod's namespace", "vault-policy")


def test_a_permission_that_is_taken_away_ends_the_lending(home, vault, seen):
    assert ask(home, "forbidden") == "allowed"
    policy = vault.call("GET", "sys/policies/acl/jwt-outrider-tools")["data"]["policy"]
    without = policy.replace("tools/forbidden/api", "tools/nothing/api")
    assert without != policy
    vault.call("PUT", "sys/policies/acl/jwt-outrider-tools", {"policy": without})
    try:
        with refusing(seen, "Bearer forbidden-1"):
            assert ask(home, "forbidden") in ("CredentialUnavailable", "UpstreamUnauthorized")
        laptop.until(
            lambda: ask(home, "forbidden") == "CredentialUnavailable", "Vault's refusal is believed", 120
        )
        assert said(home, "outrider/servers/tools/forbidden/api", "vault-policy")
    finally:
        vault.call("PUT", "sys/policies/acl/jwt-outrider-tools", {"policy": policy})
