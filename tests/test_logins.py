# SPDX-License-Identifier: Apache-2.0
"""Tokens of Vault against a real OpenBao: one login for all who wait, renewal, a new login where that ends, and given back."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import pathlib
from collections.abc import AsyncIterator

import pytest
from tests import openbao, relay, vaultside
from tests.kube import apiserver, certs

from outrider_sidecar import logins, vault, vaultline

T = vault.Trouble
PATH = "outrider/servers/lg/sf/api"


@pytest.fixture(scope="module", autouse=True)
def tenant(vault: openbao.Vault) -> None:
    vaultside.tenant(vault, "lg")
    vault.put(PATH, token="canary-1")


@dataclasses.dataclass
class Side:
    """The proxy's side of logins through a relay."""

    line: vaultline.VaultLine
    tokens: logins.Logins
    time: vaultside.Time
    between: relay.Relay
    pod: pathlib.Path
    moved: list[tuple[str, float]]

    async def read(self, role: str = "outrider-lg", path: str = PATH) -> str:
        secret = await self.tokens.use(role, lambda token: self.line.secret(token, role, path))
        return secret.values["token"]

    async def failed(self, role: str = "outrider-lg", path: str = PATH) -> vault.Failed:
        with pytest.raises(vault.Failed) as caught:
            await self.read(role, path)
        return caught.value


@contextlib.asynccontextmanager
async def side(bao: openbao.Vault, folder: pathlib.Path, **site) -> AsyncIterator[Side]:
    time = vaultside.Time()
    with relay.before(bao.address) as between:
        pod = vaultside.pod_token(folder, bao.jwt())
        at = vaultside.site(bao, **{"address": between.address} | site)
        line = vaultline.VaultLine(at, pod, time.timing())
        moved: list[tuple[str, float]] = []
        tokens = logins.Logins(line, time.timing(), moved=lambda *told: moved.append(told))
        try:
            yield Side(line, tokens, time, between, pod, moved)
        finally:
            await tokens.close()
            line.close()


def accessors(bao: openbao.Vault) -> set[str]:
    """Of every token that OpenBao knows."""
    return set(bao.call("LIST", "auth/token/accessors")["data"]["keys"])


def test_one_login_serves_all_who_wait_and_all_who_come_later(
    vault: openbao.Vault, tmp_path: pathlib.Path
) -> None:
    async def main() -> None:
        async with side(vault, tmp_path) as our:
            assert set(await asyncio.gather(*(our.read() for _ in range(20)))) == {"canary-1"}
            assert await our.read() == "canary-1"
            assert our.between.count("/login") == 1

    asyncio.run(main())


def test_a_login_that_fails_fails_for_all_who_wait_and_is_not_repeated_at_once(
    vault: openbao.Vault, tmp_path: pathlib.Path
) -> None:
    async def main() -> None:
        async with side(vault, tmp_path) as our:
            errors = await asyncio.gather(*(our.failed("outrider-none") for _ in range(20)))
            assert {"make that role" in str(each) for each in errors} == {True}
            assert our.between.count("/login") == 1
            again = await our.failed("outrider-none")
            assert 0 < (again.retry_after_seconds or 0) <= 1
            assert our.between.count("/login") == 1
            our.time.ahead += 2
            await our.failed("outrider-none")
            assert our.between.count("/login") == 2

    asyncio.run(main())


def test_a_token_is_renewed_before_it_ends_and_a_new_login_follows_where_renewing_ends(
    vault: openbao.Vault, tmp_path: pathlib.Path
) -> None:
    vaultside.tenant(vault, "lg-short", token_ttl="6s", token_max_ttl="14s")

    async def main() -> None:
        async with side(vault, tmp_path) as our:
            role = "outrider-lg-short"
            await our.tokens.use(role, our.line.alive)
            first = our.tokens.current(role)
            await vaultside.until(lambda: our.between.count("renew-self"), "the token is renewed")
            assert our.tokens.current(role) is first
            await vaultside.until(lambda: our.between.count("/login") == 2, "there is a new login")
            await vaultside.until(lambda: our.moved, "whoever hangs on the old token is told")
            assert our.tokens.current(role) is not first
            assert our.moved[0][0] == role

    asyncio.run(main())


def test_a_batch_token_is_replaced_in_time(vault: openbao.Vault, tmp_path: pathlib.Path) -> None:
    vaultside.tenant(vault, "lg-batch", token_type="batch", token_ttl="3s")

    async def main() -> None:
        async with side(vault, tmp_path) as our:
            await our.tokens.use("outrider-lg-batch", our.line.alive)
            await vaultside.until(lambda: our.between.count("/login") == 2, "there is a new login")
            assert our.between.count("renew-self") == 0

    asyncio.run(main())


def test_a_renewal_that_vault_refuses_becomes_a_login(vault: openbao.Vault, tmp_path: pathlib.Path) -> None:
    vaultside.tenant(vault, "lg-refused", token_ttl="2s")

    async def main() -> None:
        async with side(vault, tmp_path) as our:
            refusal = relay.Fault(
                403, b'{"errors":["permission denied"]}', {"Content-Type": "application/json"}
            )
            our.between.fault = lambda asked: refusal if "renew-self" in asked else None
            await our.tokens.use("outrider-lg-refused", our.line.alive)
            await vaultside.until(lambda: our.between.count("/login") == 2, "there is a new login")

    asyncio.run(main())


def test_a_renewal_that_fails_for_an_outage_is_tried_again(
    vault: openbao.Vault, tmp_path: pathlib.Path
) -> None:
    vaultside.tenant(vault, "lg-outage", token_ttl="30s")

    async def main() -> None:
        async with side(vault, tmp_path) as our:
            role, faults = "outrider-lg-outage", [relay.Fault(503)]
            token = await our.tokens.use(role, our.line.alive) and our.tokens.current(role)
            our.between.fault = lambda asked: faults.pop() if faults and "renew-self" in asked else None
            await our.tokens._renew(our.tokens._logins[role])
            assert our.between.count("renew-self") == 1
            our.time.ahead += 1.2  # the line is open again, the token lives on
            await vaultside.until(lambda: our.between.count("renew-self") == 2, "it is renewed")
            assert our.tokens.current(role) is token
            assert our.between.count("/login") == 1

    asyncio.run(main())


def test_a_token_revoked_under_us_is_replaced_once_and_the_call_goes_on(
    vault: openbao.Vault, tmp_path: pathlib.Path
) -> None:
    async def main() -> None:
        async with side(vault, tmp_path) as our:
            await our.read()
            held = our.tokens.current("outrider-lg")
            await vaultside.away(vault.call, "POST", "auth/token/revoke", {"token": held.value})
            assert set(await asyncio.gather(*(our.read() for _ in range(5)))) == {"canary-1"}
            assert our.between.count("/login") == 2
            assert [role for role, _ in our.moved] == ["outrider-lg"]

    asyncio.run(main())


def test_what_a_policy_forbids_makes_no_login_until_the_token_is_old(
    vault: openbao.Vault, tmp_path: pathlib.Path
) -> None:
    elsewhere = "outrider/servers/elsewhere/sf/api"
    vaultside.tenant(vault, "lg-policy")
    vault.put(elsewhere, token="canary-2")

    async def main() -> None:
        async with side(vault, tmp_path) as our:
            role = "outrider-lg-policy"
            for _ in range(5):
                assert (await our.failed(role, elsewhere)).trouble is T.DENIED
            assert our.between.count("/login") == 1
            # The role gets more: a token has the policies of its login.
            rules = {f"secret/data/{elsewhere}": ["read"], "auth/token/*": ["read", "update"]}
            await vaultside.away(vault.policy, "lg-more", rules)
            await vaultside.away(vault.role, role, ["lg-more"])
            assert (await our.failed(role, elsewhere)).trouble is T.DENIED
            our.time.ahead += logins.POLICY_SECONDS
            assert await our.read(role, elsewhere) == "canary-2"
            assert our.between.count("/login") == 2

    asyncio.run(main())


def test_a_refused_login_is_vaults_last_word_only_when_it_lasts(
    vault: openbao.Vault, tmp_path: pathlib.Path
) -> None:
    """The kubernetes method refuses logins when it cannot ask the API server, too."""

    async def main() -> None:
        async with side(vault, tmp_path) as our:
            await our.read()
            vaultside.pod_token(tmp_path, "no token at all")
            our.time.ahead += 700  # the token has ended
            assert (await our.failed()).trouble is T.UNADMITTED
            our.time.ahead += logins.GRACE_SECONDS - 10
            assert (await our.failed()).trouble is T.UNADMITTED
            our.time.ahead += 20
            assert (await our.failed()).trouble is T.DENIED
            vaultside.pod_token(tmp_path, vault.jwt())
            our.time.ahead += 20
            assert await our.read() == "canary-1"

    asyncio.run(main())


def test_an_api_server_that_is_away_looks_like_a_refused_login_and_ends_nothing_at_once(
    vault: openbao.Vault, tmp_path: pathlib.Path
) -> None:
    authority = certs.Authority.make(tmp_path / "pki", ["localhost"])
    away = f"https://127.0.0.1:{apiserver.free_port()}"
    vault.call("POST", "sys/auth/lg-away", {"type": "kubernetes"})
    vault.call(
        "POST", "auth/lg-away/config",
        {"kubernetes_host": away, "kubernetes_ca_cert": authority.ca_file.read_text(), "disable_local_ca_jwt": True},
    )  # fmt: skip
    role = {"bound_service_account_names": ["*"], "bound_service_account_namespaces": ["agents"]}
    vault.call("POST", "auth/lg-away/role/outrider-lg", {**role, "audience": openbao.AUDIENCE})

    async def main() -> None:
        async with side(vault, tmp_path, method="Kubernetes", auth_path="lg-away") as our:
            failed = await our.failed()
            assert (failed.trouble, failed.status, failed.final) == (T.UNADMITTED, 403, False)
            assert "can Vault review tokens of this cluster?" in str(failed)

    asyncio.run(main())


def test_tokens_are_given_back_when_a_role_is_not_needed_and_at_the_end(
    own_vault: openbao.Vault, tmp_path: pathlib.Path
) -> None:
    for name in ("lg", "lg-two"):
        vaultside.tenant(own_vault, name)
    own_vault.put(PATH, token="canary-1")
    own_vault.put("outrider/servers/lg-two/sf/api", token="canary-1")
    before = accessors(own_vault)

    async def main() -> None:
        async with side(own_vault, tmp_path) as our:
            await our.read()
            await our.read("outrider-lg-two", "outrider/servers/lg-two/sf/api")
            assert len(await vaultside.away(accessors, own_vault) - before) == 2
            our.tokens.keep(frozenset({"outrider-lg"}))
            while len(await vaultside.away(accessors, own_vault) - before) > 1:
                await asyncio.sleep(0.05)
            assert our.tokens.current("outrider-lg-two") is None
            await our.tokens.close()
            assert our.between.count("revoke-self") == 2
            # A machine that is busy may take longer than we wait for it.
            while await vaultside.away(accessors, own_vault) != before:
                await asyncio.sleep(0.05)
            assert (await our.failed()).trouble is T.UNPREPARED

    asyncio.run(main())


def test_the_end_waits_for_a_silent_vault_no_longer_than_it_may(
    vault: openbao.Vault, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(logins, "CLOSE_SECONDS", 0.2)

    async def main() -> None:
        async with side(vault, tmp_path) as our:
            await our.read()
            our.between.fault = lambda _: relay.Fault(204, seconds=60)
            # Well before the relay would answer, or the client give up.
            await asyncio.wait_for(our.tokens.close(), 4)

    asyncio.run(main())
