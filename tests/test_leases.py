# SPDX-License-Identifier: Apache-2.0
"""What an engine makes for a time: users of a real PostgreSQL, through the database engine of a real OpenBao."""

from __future__ import annotations

import asyncio
import json
import pathlib
import time as times

import pytest
from tests import laptop, openbao, postgres, relay, vaultside

from outrider import snapshot
from outrider_sidecar import keeping, pacing

MOUNT = "outrider/servers/ls/sf/db"


@pytest.fixture(scope="module", autouse=True)
def engine(vault: openbao.Vault, database: postgres.Postgres) -> None:
    vaultside.tenant(vault, "ls")
    database.behind(vault, MOUNT)


def lease(name: str, key: str) -> snapshot.VaultLease:
    return snapshot.VaultLease(role="outrider-ls", path=f"{MOUNT}/creds/{name}", key=key)


def test_user_and_password_are_of_one_lease_and_the_database_lets_them_in(
    vault: openbao.Vault, database: postgres.Postgres, tmp_path: pathlib.Path
) -> None:
    database.maker(vault, MOUNT, "plain", ttl="1h", most="2h")

    async def main() -> None:
        pod = vaultside.pod_token(tmp_path, vault.jwt())
        async with vaultside.proxy(vaultside.site(vault), pod) as our:
            user, word = await asyncio.gather(
                our.value(lease("plain", "username")), our.value(lease("plain", "password"))
            )
            assert await vaultside.away(database.lets_in, user.decode(), word.decode())
            loan = our.at_hand(lease("plain", "password"))
            assert loan.expires_at == pytest.approx(times.time() + 3600, abs=60)
            assert our.standing(lease("plain", "password")).expires_at == loan.expires_at
            assert our.standing(lease("plain", "password")).refreshed == 1
            assert "has no key 'nothing'" in await our.why(lease("plain", "nothing"))
            assert user.decode() in await vaultside.away(database.users)
        # The token was given back, and Vault removes the user with it.
        names.append((user.decode(), word.decode()))

    names: list[tuple[str, str]] = []
    asyncio.run(main())
    laptop.until(lambda: not database.lets_in(*names[0]), "the user of the lease is removed")


def test_a_lease_is_renewed_and_made_anew_when_it_nears_the_most_that_it_may_live(
    vault: openbao.Vault, database: postgres.Postgres, tmp_path: pathlib.Path
) -> None:
    database.maker(vault, MOUNT, "short", ttl="6s", most="14s")

    async def main() -> None:
        pod = vaultside.pod_token(tmp_path, vault.jwt())
        with relay.before(vault.address) as between:
            at = vaultside.site(vault, address=between.address)
            async with vaultside.proxy(at, pod) as our:
                first = await our.value(lease("short", "username"))
                loan = our.at_hand(lease("short", "username"))
                await vaultside.until(lambda: between.count("sys/leases/renew"), "the lease is renewed")

                def longer() -> bool:
                    now = our.at_hand(lease("short", "username"))
                    return (
                        now is not None and now.version == loan.version and now.expires_at > loan.expires_at
                    )

                await vaultside.until(longer, "the same user lives longer")

                def anew() -> bool:
                    now = our.at_hand(lease("short", "username"))
                    return now is not None and now.value != first and now.version != loan.version

                await vaultside.until(anew, "another user is made")
                assert our.standing(lease("short", "username")).failed == 0

    asyncio.run(main())


def test_a_lease_that_a_server_refuses_is_made_anew_and_the_old_one_given_back(
    vault: openbao.Vault, database: postgres.Postgres, tmp_path: pathlib.Path
) -> None:
    database.maker(vault, MOUNT, "refused", ttl="1h", most="2h")

    async def main() -> None:
        pod, where = vaultside.pod_token(tmp_path, vault.jwt()), lease("refused", "username")
        with relay.before(vault.address) as between:
            at = vaultside.site(vault, address=between.address)
            async with vaultside.proxy(at, pod) as our:
                old = await our.fetch(where)
                newer = await asyncio.gather(*(our.fetch(where, refused=old.version) for _ in range(10)))
                assert {each.value for each in newer} == {newer[0].value}
                assert newer[0].value != old.value
                assert between.count("/creds/") == 2
                while old.value.decode() in await vaultside.away(database.users):
                    await asyncio.sleep(0.05)
                # A server that refuses whatever it gets makes no user with each call.
                for _ in range(10):
                    newest = await our.fetch(where, refused=our.at_hand(where).version)
                assert newest.version == newer[0].version
                assert between.count("/creds/") == 2

    asyncio.run(main())


def test_what_is_not_wanted_any_longer_is_revoked(
    vault: openbao.Vault, database: postgres.Postgres, tmp_path: pathlib.Path
) -> None:
    database.maker(vault, MOUNT, "kept", ttl="1h", most="2h")
    database.maker(vault, MOUNT, "gone", ttl="1h", most="2h")

    async def main() -> None:
        pod = vaultside.pod_token(tmp_path, vault.jwt())
        async with vaultside.proxy(vaultside.site(vault), pod) as our:
            kept, gone = lease("kept", "username"), lease("gone", "username")
            names = [(await our.value(each)).decode() for each in (kept, gone)]
            our.keep(kept)
            assert our.at_hand(gone) is None
            assert "not in force" in await our.why(gone)

            async def revoked() -> bool:
                return names[1] not in await vaultside.away(database.users)

            while not await revoked():
                await asyncio.sleep(0.05)
            assert our.at_hand(kept).value == names[0].encode()
            assert names[0] in await vaultside.away(database.users)

    asyncio.run(main())


def test_a_token_revoked_under_us_takes_its_leases_and_new_ones_are_got(
    vault: openbao.Vault, database: postgres.Postgres, tmp_path: pathlib.Path
) -> None:
    database.maker(vault, MOUNT, "orphan", ttl="6s", most="1h")

    async def main() -> None:
        pod, where = vaultside.pod_token(tmp_path, vault.jwt()), lease("orphan", "username")
        async with vaultside.proxy(vaultside.site(vault), pod) as our:
            first = await our.value(where)
            held = our.vaulted._site._tokens.current("outrider-ls")
            await vaultside.away(vault.call, "POST", "auth/token/revoke", {"token": held.value})

            def anew() -> bool:
                now = our.at_hand(where)
                return now is not None and now.value != first

            await vaultside.until(anew, "another user is made")
            assert our.at_hand(where).value.decode() in await vaultside.away(database.users)

    asyncio.run(main())


def test_while_vault_is_away_a_lease_serves_until_its_own_end_and_no_longer(
    vault: openbao.Vault, database: postgres.Postgres, tmp_path: pathlib.Path
) -> None:
    database.maker(vault, MOUNT, "outage", ttl="1h", most="2h")

    async def main() -> None:
        time = vaultside.Time()
        pod, where = vaultside.pod_token(tmp_path, vault.jwt()), lease("outage", "username")
        with relay.before(vault.address) as between:
            at = vaultside.site(vault, address=between.address)
            async with vaultside.proxy(at, pod, at_time=time) as our:
                value = await our.value(where)
                between.fault = lambda _: relay.Fault(503)
                time.ahead += 3_500
                assert our.at_hand(where).value == value
                time.ahead += 200
                assert our.at_hand(where) is None
                assert "sealed" in await our.why(where)
                assert not our.standing(where).available
                between.fault = lambda _: None
                time.ahead += 30
                assert await our.value(where) == value  # by OpenBao's clock it lives, and could be renewed
                assert our.standing(where).failing is None

    asyncio.run(main())


def test_an_engine_that_fails_is_told_and_not_asked_with_each_call(
    vault: openbao.Vault, tmp_path: pathlib.Path
) -> None:
    async def main() -> None:
        pod = vaultside.pod_token(tmp_path, vault.jwt())
        with relay.before(vault.address) as between:
            at = vaultside.site(vault, address=between.address)
            async with vaultside.proxy(at, pod) as our:
                why = {await our.why(lease("unknown", "username")) for _ in range(10)}
                assert len(why) == 1
                assert "unknown role: unknown" in why.pop()
                assert between.count("/creds/") == 1
                standing = our.standing(lease("unknown", "username"))
                assert (standing.available, standing.failed, standing.refreshed) == (False, 1, 0)

    asyncio.run(main())


def test_what_an_engine_gives_without_a_lease_is_looked_at_once_a_minute(
    vault: openbao.Vault, tmp_path: pathlib.Path
) -> None:
    """As the password of a static role: another one when the engine rotated it, else the same version."""

    async def main() -> None:
        pod, where = vaultside.pod_token(tmp_path, vault.jwt()), lease("static", "password")
        with relay.before(vault.address) as between:
            given = ["a"]

            def answer(asked: str) -> relay.Fault | None:
                body = {
                    "data": {"password": given[0]},
                    "lease_id": "",
                    "lease_duration": 0,
                    "renewable": False,
                }
                return relay.Fault(200, json.dumps(body).encode()) if "/creds/static" in asked else None

            between.fault = answer
            at = vaultside.site(vault, address=between.address)
            async with vaultside.proxy(at, pod) as our:
                loan = await our.fetch(where)
                engine = our.vaulted.sources[snapshot.VaultLease].now._engine
                held = our.vaulted.sources[snapshot.VaultLease].now._held[engine.key(where)].kept
                assert held.again_seconds == pytest.approx(60)
                same: keeping.Kept = await engine.fresh(engine.key(where), held, refused=False)
                assert same.version == loan.version
                given[0] = "b"
                other = await engine.fresh(engine.key(where), held, refused=False)
                assert other.version != loan.version
                assert other.again_seconds > pacing.FIRST_SECONDS

    asyncio.run(main())
