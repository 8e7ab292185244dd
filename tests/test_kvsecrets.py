# SPDX-License-Identifier: Apache-2.0
"""KV v2 secrets of a real OpenBao: read once, looked at by version, and what becomes of them when they change, vanish or are odd."""

from __future__ import annotations

import asyncio
import pathlib

import pytest
from tests import openbao, relay, vaultside

from outrider import decision
from outrider_sidecar import loans

R = decision.Reason


@pytest.fixture(scope="module", autouse=True)
def tenant(vault: openbao.Vault) -> None:
    vaultside.tenant(vault, "kv")


@pytest.fixture
def pod(vault: openbao.Vault, tmp_path: pathlib.Path) -> pathlib.Path:
    return vaultside.pod_token(tmp_path, vault.jwt())


def at(name: str) -> str:
    """Where a secret of these tests is."""
    return f"outrider/servers/kv/{name}"


async def unavailable(work) -> loans.Unavailable:
    with pytest.raises(loans.Unavailable) as caught:
        await work
    assert "canary" not in str(caught.value)
    return caught.value


def test_every_key_of_a_secret_comes_from_one_read(vault: openbao.Vault, pod: pathlib.Path) -> None:
    vault.put(at("one"), token="canary-1", other="canary-2")

    async def main() -> None:
        with relay.before(vault.address) as between:
            async with vaultside.proxy(vaultside.site(vault, address=between.address), pod) as our:
                token, other = (vaultside.secret("kv", "one", key) for key in ("token", "other"))
                assert await asyncio.gather(our.value(token), our.value(other)) == [b"canary-1", b"canary-2"]
                assert our.at_hand(token).value == b"canary-1"
                assert between.count("GET /v1/secret/data") == 1

    asyncio.run(main())


def test_a_new_version_is_served_from_the_next_look_on_and_a_look_reads_no_value(
    vault: openbao.Vault, pod: pathlib.Path
) -> None:
    vault.put(at("rotated"), token="canary-1")

    async def main() -> None:
        with relay.before(vault.address) as between:
            site, where = vaultside.site(vault, address=between.address), vaultside.secret("kv", "rotated")
            async with vaultside.proxy(site, pod, poll_seconds=0.2) as our:
                first = await our.fetch(where)
                await vaultside.until(lambda: between.count("metadata") >= 3, "it is looked at")
                assert between.count("GET /v1/secret/data") == 1
                await vaultside.away(vault.put, at("rotated"), token="canary-2")
                await our.until_value(where, b"canary-2")
                assert our.at_hand(where).version != first.version
                assert between.count("GET /v1/secret/data") == 2

    asyncio.run(main())


def test_what_a_server_refused_is_read_again_at_once_and_once_for_all(
    vault: openbao.Vault, pod: pathlib.Path
) -> None:
    vault.put(at("refused"), token="canary-1")

    async def main() -> None:
        with relay.before(vault.address) as between:
            site, where = vaultside.site(vault, address=between.address), vaultside.secret("kv", "refused")
            async with vaultside.proxy(site, pod) as our:
                old = await our.fetch(where)
                await vaultside.away(vault.put, at("refused"), token="canary-2")
                newer = await asyncio.gather(*(our.fetch(where, refused=old.version) for _ in range(20)))
                assert {each.value for each in newer} == {b"canary-2"}
                assert between.count("GET /v1/secret/data") == 2
                # Whoever comes late with the old version gets what is there.
                assert (await our.fetch(where, refused=old.version)).value == b"canary-2"
                assert between.count("GET /v1/secret/data") == 2

    asyncio.run(main())


def test_a_storm_of_refusals_of_the_newest_makes_no_storm_at_vault(
    vault: openbao.Vault, pod: pathlib.Path
) -> None:
    vault.put(at("storm"), token="canary-1")

    async def main() -> None:
        with relay.before(vault.address) as between:
            site, where = vaultside.site(vault, address=between.address), vaultside.secret("kv", "storm")
            async with vaultside.proxy(site, pod) as our:
                for _ in range(100):
                    loan = await our.fetch(where)
                    assert (await our.fetch(where, refused=loan.version)).version == loan.version
                assert between.count("GET /v1/secret/data") == 2
                assert our.standing(where).available

    asyncio.run(main())


@pytest.mark.parametrize(
    ("remove", "why"),
    [
        (
            lambda bao: bao.call("DELETE", f"secret/data/{at('removed')}"),
            "the latest version of the secret at",
        ),
        (
            lambda bao: bao.call("PUT", f"secret/destroy/{at('removed')}", {"versions": [1]}),
            "the latest version of the secret at",
        ),
        (lambda bao: bao.call("DELETE", f"secret/metadata/{at('removed')}"), "there is no secret at"),
    ],
)
def test_what_is_removed_is_not_served_any_longer_and_comes_back_when_it_is_written_again(
    vault, pod, remove, why
) -> None:
    vault.call("DELETE", f"secret/metadata/{at('removed')}")
    vault.put(at("removed"), token="canary-1")

    async def main() -> None:
        where = vaultside.secret("kv", "removed")
        async with vaultside.proxy(vaultside.site(vault), pod, poll_seconds=0.2) as our:
            await our.fetch(where)
            await vaultside.away(remove, vault)
            await vaultside.until(lambda: our.at_hand(where) is None, "it is served no longer")
            error = await unavailable(our.fetch(where))
            assert error.reason is R.CREDENTIAL_UNAVAILABLE
            assert str(error).startswith(why)
            assert at("removed") in str(error)
            assert our.standing(where).available is False
            assert our.standing(where).why == str(error)
            await vaultside.away(vault.put, at("removed"), token="canary-2")
            await our.until_value(where, b"canary-2")
            assert our.standing(where).available

    asyncio.run(main())


def test_what_a_policy_takes_away_is_not_served_any_longer(vault: openbao.Vault, pod: pathlib.Path) -> None:
    vaultside.tenant(vault, "kv-denied")
    vault.put("outrider/servers/kv-denied/sf/api", token="canary-1")

    async def main() -> None:
        where = vaultside.secret("kv-denied")
        async with vaultside.proxy(vaultside.site(vault), pod, poll_seconds=0.2) as our:
            await our.fetch(where)
            await vaultside.away(vault.policy, "outrider-kv-denied", {"auth/token/lookup-self": ["read"]})
            await vaultside.until(lambda: our.at_hand(where) is None, "it is served no longer")
            error = await unavailable(our.fetch(where))
            assert "Vault refuses role outrider-kv-denied to read" in str(error)
            assert "outrider vault-policy" in str(error)

    asyncio.run(main())


def test_a_role_that_may_not_see_versions_reads_the_secret_instead(
    vault: openbao.Vault, pod: pathlib.Path
) -> None:
    vaultside.tenant(vault, "kv-data")
    vault.policy("outrider-kv-data", {"secret/data/outrider/servers/kv-data/*": ["read"]})
    vault.put("outrider/servers/kv-data/sf/api", token="canary-1")

    async def main() -> None:
        where = vaultside.secret("kv-data")
        async with vaultside.proxy(vaultside.site(vault), pod, poll_seconds=0.2) as our:
            await our.fetch(where)
            await vaultside.away(vault.put, "outrider/servers/kv-data/sf/api", token="canary-2")
            await our.until_value(where, b"canary-2")

    asyncio.run(main())


def test_a_missing_path_is_told_with_its_place(vault: openbao.Vault, pod: pathlib.Path) -> None:
    async def main() -> None:
        async with vaultside.proxy(vaultside.site(vault), pod) as our:
            error = await unavailable(our.fetch(vaultside.secret("kv", "nowhere")))
            assert str(error).startswith(f"there is no secret at secret/{at('nowhere')} (HTTP 404)")
            assert error.retry_after_seconds is not None

    asyncio.run(main())


def test_a_missing_key_is_told_and_found_when_it_is_written(vault: openbao.Vault, pod: pathlib.Path) -> None:
    vault.put(at("keyless"), other="canary-1")

    async def main() -> None:
        where = vaultside.secret("kv", "keyless")
        async with vaultside.proxy(vaultside.site(vault), pod, poll_seconds=0.2) as our:
            error = await unavailable(our.fetch(where))
            assert error.reason is R.CREDENTIAL_UNAVAILABLE
            assert f"the secret at secret/{at('keyless')} has no key 'token'" in str(error)
            assert our.standing(where).failing is R.CREDENTIAL_UNAVAILABLE
            assert our.at_hand(vaultside.secret("kv", "keyless", "other")) is None
            assert await our.value(vaultside.secret("kv", "keyless", "other")) == b"canary-1"
            await vaultside.away(vault.put, at("keyless"), token="canary-2")
            await our.until_value(where, b"canary-2")
            assert "has no key 'other'" in await our.why(vaultside.secret("kv", "keyless", "other"))

    asyncio.run(main())


@pytest.mark.parametrize("value", [7, True, None, ["canary"], {"a": "canary"}])
def test_a_value_that_is_no_string_is_malformed(
    vault: openbao.Vault, pod: pathlib.Path, value: object
) -> None:
    vault.put(at("odd"), token=value)

    async def main() -> None:
        async with vaultside.proxy(vaultside.site(vault), pod) as our:
            error = await unavailable(our.fetch(vaultside.secret("kv", "odd")))
            assert (error.reason, "is no string" in str(error)) == (R.CREDENTIAL_MALFORMED, True)

    asyncio.run(main())


def test_a_secret_may_say_where_it_may_be_sent(vault: openbao.Vault, pod: pathlib.Path) -> None:
    vault.put(at("bound"), token="canary-1", outrider_origin="https://api.example.com:443")
    vault.put(at("misbound"), token="canary-1", outrider_origin=443)

    async def main() -> None:
        async with vaultside.proxy(vaultside.site(vault), pod) as our:
            assert (await our.fetch(vaultside.secret("kv", "bound"))).origin == "https://api.example.com:443"
            error = await unavailable(our.fetch(vaultside.secret("kv", "misbound")))
            assert (error.reason, "outrider_origin" in str(error)) == (R.CREDENTIAL_MALFORMED, True)

    asyncio.run(main())


def test_while_vault_is_away_a_secret_serves_on(own_vault: openbao.Vault, tmp_path: pathlib.Path) -> None:
    vaultside.tenant(own_vault, "kv")
    own_vault.put(at("api"), token="canary-1")

    async def main() -> None:
        time, where = vaultside.Time(), vaultside.secret("kv", "api")
        pod = vaultside.pod_token(tmp_path, own_vault.jwt())
        async with vaultside.proxy(vaultside.site(own_vault), pod, poll_seconds=0.2, at_time=time) as our:
            await our.fetch(where)

            async def lends_through(break_it, why: str) -> None:
                await vaultside.away(break_it)
                await vaultside.until(lambda: why in our.standing(where).why, f"the look fails: {why}")
                assert our.at_hand(where).value == b"canary-1"
                assert (await our.fetch(where)).value == b"canary-1"
                assert our.standing(where).available
                error = await unavailable(our.fetch(vaultside.secret("kv", why.replace(" ", "-"))))
                assert why in str(error)

            await lends_through(own_vault.seal, "is sealed")
            await vaultside.away(own_vault.unseal)
            await vaultside.until(lambda: not our.standing(where).why, "it is looked at again")
            await lends_through(own_vault.kill, "cannot be reached")
            await vaultside.away(own_vault.start)
            await vaultside.away(own_vault.put, at("api"), token="canary-2")
            await our.until_value(where, b"canary-2")
            assert our.standing(where).failing is None

    asyncio.run(main())


def test_a_silent_vault_keeps_no_call_past_its_deadline(
    own_vault: openbao.Vault, tmp_path: pathlib.Path
) -> None:
    vaultside.tenant(own_vault, "kv")
    own_vault.put(at("api"), token="canary-1")
    own_vault.put(at("cold"), token="canary-2")

    async def main() -> None:
        pod = vaultside.pod_token(tmp_path, own_vault.jwt())
        async with vaultside.proxy(vaultside.site(own_vault), pod) as our:
            warm, cold = vaultside.secret("kv", "api"), vaultside.secret("kv", "cold")
            await our.fetch(warm)
            own_vault.pause()
            source = our.vaulted.sources[type(cold)]
            deadline = asyncio.get_running_loop().time() + 0.3
            error = await unavailable(source.fetch(our.wanted(cold, deadline)))
            assert "has not answered in time" in str(error)
            assert error.retry_after_seconds is not None
            assert our.at_hand(warm).value == b"canary-1"
            own_vault.resume()
            # The request was under way and nobody took it back.
            await our.until_value(cold, b"canary-2")

    asyncio.run(main())
