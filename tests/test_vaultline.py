# SPDX-License-Identifier: Apache-2.0
"""The line to one Vault: off the loop, in two threads, and shut for a while when nobody is there."""

from __future__ import annotations

import asyncio
import pathlib
import subprocess
import sys

import pytest
from tests import openbao, relay, vaultside

from outrider import snapshot
from outrider_sidecar import vault, vaultline

T = vault.Trouble
ROLE = "outrider-vl"
PATH = "outrider/servers/vl/sf/api"


@pytest.fixture(scope="module", autouse=True)
def tenant(vault: openbao.Vault) -> None:
    vaultside.tenant(vault, "vl")
    vault.put(PATH, token="canary-1")


@pytest.fixture
def pod(vault: openbao.Vault, tmp_path: pathlib.Path) -> pathlib.Path:
    return vaultside.pod_token(tmp_path, vault.jwt())


def line(at: snapshot.Vault, pod: pathlib.Path, time: vaultside.Time) -> vaultline.VaultLine:
    return vaultline.VaultLine(at, pod, time.timing())


async def failed(work) -> vault.Failed:
    with pytest.raises(vault.Failed) as caught:
        await work
    return caught.value


def test_it_says_everything_that_an_engine_needs(vault: openbao.Vault, pod: pathlib.Path) -> None:
    async def main() -> None:
        to = line(vaultside.site(vault), pod, vaultside.Time())
        token = await to.login(ROLE)
        assert (await to.secret(token, ROLE, PATH)).values == {"token": "canary-1"}
        assert (await to.version(token, ROLE, PATH)).startswith("1/")
        assert (await to.renew(token, ROLE)).seconds == 600
        assert await to.alive(token)
        await to.revoke(token, ROLE)
        assert not await to.alive(token)
        to.close()

    asyncio.run(main())


@pytest.mark.parametrize("path", ["../x", "a/../../sys/seal", "a//b", "a%2e", ""])
def test_a_path_that_leads_elsewhere_is_never_asked_for(
    vault: openbao.Vault, pod: pathlib.Path, path: str
) -> None:
    async def main() -> None:
        with relay.before(vault.address) as between:
            to = line(vaultside.site(vault, address=between.address), pod, vaultside.Time())
            token = await to.login(ROLE)
            for work in (to.secret, to.version, to.make):
                assert (await failed(work(token, ROLE, path))).trouble is T.REFUSED
            assert len(between.asked) == 1
            to.close()

    asyncio.run(main())


def test_while_nobody_is_there_one_request_at_a_time_goes_and_tells(
    vault: openbao.Vault, pod: pathlib.Path
) -> None:
    async def main() -> None:
        time = vaultside.Time()
        with relay.before(vault.address) as between:
            to = line(vaultside.site(vault, address=between.address), pod, time)
            token = await to.login(ROLE)
            between.fault = lambda _: relay.Fault(503)
            assert (await failed(to.secret(token, ROLE, PATH))).retry_after_seconds is None
            asked = len(between.asked)
            for _ in range(50):
                error = await failed(to.secret(token, ROLE, PATH))
                assert (error.trouble, error.retry_after_seconds is not None) == (T.SEALED, True)
            assert len(between.asked) == asked
            time.ahead += 1.1
            errors = await asyncio.gather(*(failed(to.secret(token, ROLE, PATH)) for _ in range(50)))
            assert {each.trouble for each in errors} == {T.SEALED}
            assert len(between.asked) == asked + 1
            between.fault = lambda _: None
            time.ahead += 10
            assert (await to.secret(token, ROLE, PATH)).values == {"token": "canary-1"}
            assert len(await asyncio.gather(*(to.secret(token, ROLE, PATH) for _ in range(5)))) == 5
            to.close()

    asyncio.run(main())


def test_an_outage_is_told_once_and_so_is_its_end(
    vault: openbao.Vault, pod: pathlib.Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")

    async def main() -> None:
        time = vaultside.Time()
        with relay.before(vault.address) as between:
            to = line(vaultside.site(vault, address=between.address), pod, time)
            between.fault = lambda _: relay.Fault(0)
            for _ in range(10):
                await failed(to.login(ROLE))
                time.ahead += 15
            between.fault = lambda _: None
            await to.login(ROLE)
            to.close()

    asyncio.run(main())
    assert [each.getMessage().split(" at ")[0] for each in caplog.records] == [
        "what comes from Vault serves until it ends: Vault", "Vault",
    ]  # fmt: skip
    assert caplog.records[-1].getMessage().endswith("answers again")


def test_what_vault_refuses_shuts_no_line(vault: openbao.Vault, pod: pathlib.Path) -> None:
    async def main() -> None:
        to = line(vaultside.site(vault), pod, vaultside.Time())
        token = await to.login(ROLE)
        for _ in range(3):
            assert (await failed(to.secret(token, ROLE, "outrider/servers/other/x/y"))).trouble is T.DENIED
            assert (await failed(to.secret(token, ROLE, f"{PATH}-none"))).trouble is T.MISSING
        assert (await to.secret(token, ROLE, PATH)).values == {"token": "canary-1"}
        to.close()

    asyncio.run(main())


def test_an_engine_that_is_slow_keeps_no_secret_waiting(
    vault: openbao.Vault, pod: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from outrider_sidecar import hvacvault

    monkeypatch.setattr(hvacvault, "_SILENCE_SECONDS", 2.0)

    async def main() -> None:
        with relay.before(vault.address) as between:
            to = line(vaultside.site(vault, address=between.address), pod, vaultside.Time())
            token = await to.login(ROLE)
            between.fault = lambda asked: relay.Fault(200, b"{}", seconds=60) if "/creds/" in asked else None
            engine = "outrider/servers/vl/sf/db/creds/readonly"
            slow = [asyncio.create_task(failed(to.make(token, ROLE, engine))) for _ in range(4)]
            await vaultside.until(lambda: between.count("/creds/"), "an engine is asked")
            for _ in range(5):
                assert (await to.secret(token, ROLE, PATH)).values == {"token": "canary-1"}
            assert between.count("/creds/") == 1
            assert (await slow[0]).trouble is T.SLOW
            # It says nothing about Vault as a whole.
            assert (await to.secret(token, ROLE, PATH)).values == {"token": "canary-1"}
            for each in slow:
                each.cancel()
            to.close()

    asyncio.run(main())


def test_whoever_finds_no_turn_is_told_so(
    vault: openbao.Vault, pod: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(vaultline, "WAIT_SECONDS", 0.2)

    async def main() -> None:
        with relay.before(vault.address) as between:
            to = line(vaultside.site(vault, address=between.address), pod, vaultside.Time())
            between.fault = lambda _: relay.Fault(200, b"{}", seconds=60)
            error = await failed(to.login(ROLE))
            assert (error.trouble, "no turn" in str(error)) == (T.SLOW, True)
            to.close()

    asyncio.run(main())


def test_the_client_library_is_imported_with_the_first_request_and_not_before() -> None:
    program = """
import sys
from outrider_sidecar import vaulted
print(sorted(each for each in ("hvac", "requests", "urllib3") if each in sys.modules))
"""
    ran = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert ran.stdout == "[]\n"
