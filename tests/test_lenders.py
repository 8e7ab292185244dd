# SPDX-License-Identifier: Apache-2.0
"""Where secrets come from, as a configuration needs it: nothing is loaded that it does not name, and all of it before it is in force."""

from __future__ import annotations

import asyncio
import pathlib
import random
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable

import msgspec
import pytest
from tests import lending

from outrider import names, snapshot, testing
from outrider_sidecar import credentials, fetcher, lenders, loans, pacing

CRM = names.ServerId("crm", "salesforce")
LEASE = snapshot.VaultLease(role="r", path="outrider/servers/crm/salesforce/db/creds/x", key="password")
ISSUED = snapshot.ClientCertificate(
    role="r", path="outrider/servers/crm/salesforce/pki/issue/x", common_name="x"
)
OWN = snapshot.ClientCredentials(
    token_url="https://as.example/token", client=snapshot.OAuthClient(id="crm", secret=lending.SECRET)
)  # fmt: skip
FILED = snapshot.ClientCredentials(
    token_url="https://as.example/token", client=snapshot.OAuthClient(id="crm", secret=snapshot.FileSecret(path="/x"))
)  # fmt: skip
EXCHANGED = snapshot.TokenExchange(token_url="https://as.example/token", client=FILED.client)


def run(act: Callable[[lenders.Lenders], Awaitable[None]], **files: pathlib.Path) -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        asks = fetcher.AiohttpFetcher(loop, network=snapshot.Network)
        times = pacing.Timing(loop.time, time.time, random.random)
        made = lenders.Lenders(times, asks, lenders.Files(**files))
        await act(made)
        await credentials.Credentials(made.sources, clock=loop.time).close()

    asyncio.run(main())


def a_snapshot(*sources: snapshot.Source, **more: object) -> snapshot.Snapshot:
    entries = [lending.entry(source, name=f"e{number}") for number, source in enumerate(sources)]
    return msgspec.structs.replace(lending.a_bound(*entries).snapshot, **more)


def test_files_and_mounted_secrets_are_lent_without_anything_else(tmp_path: pathlib.Path) -> None:
    (tmp_path / "crm.salesforce").mkdir()
    (tmp_path / "crm.salesforce" / "token").write_bytes(b"mounted")
    (tmp_path / "file").write_bytes(b"filed")

    async def act(made: lenders.Lenders) -> None:
        async def lent(where: snapshot.Source) -> bytes:
            return (await made.sources[type(where)].fetch(loans.Wanted(where, CRM))).value

        assert await lent(snapshot.FileSecret(path=str(tmp_path / "file"))) == b"filed"
        assert await lent(snapshot.MountedSecret(path="crm.salesforce/token")) == b"mounted"

    run(act, secrets=tmp_path)


@pytest.mark.parametrize(
    ("named", "kinds"),
    [
        ((), set()), ((snapshot.FileSecret(path="/x"),), set()), ((lending.SECRET,), {"vault"}), ((LEASE,), {"vault"}),
        ((ISSUED,), {"vault"}), ((FILED,), {"oauth"}), ((OWN,), {"oauth", "vault"}), ((EXCHANGED,), {"oauth"}),
    ],
)  # fmt: skip
def test_what_a_snapshot_names_can_be_lent_before_it_is_in_force(
    named: tuple[snapshot.Source, ...], kinds: set[str]
) -> None:
    async def act(made: lenders.Lenders) -> None:
        await made.prepare(a_snapshot(*named))
        added = {
            "vault": {snapshot.VaultSecret, snapshot.VaultLease, snapshot.ClientCertificate},
            "oauth": {snapshot.ClientCredentials, snapshot.TokenExchange},
        }
        files = {snapshot.FileSecret, snapshot.MountedSecret}
        assert made.sources.keys() == files.union(*(added[kind] for kind in kinds))

    run(act)


def test_a_source_stays_the_same_for_every_snapshot_to_come() -> None:
    async def act(made: lenders.Lenders) -> None:
        await made.prepare(a_snapshot(OWN))
        before = dict(made.sources)
        await made.prepare(a_snapshot())
        await made.prepare(a_snapshot(OWN, LEASE))
        assert made.sources == before

    run(act)


def test_a_vault_that_the_settings_do_not_name_is_a_sentence() -> None:
    async def act(made: lenders.Lenders) -> None:
        bound = lending.a_bound(lending.entry())
        await made.prepare(bound.snapshot)
        made.configure(bound)
        with pytest.raises(loans.Unavailable, match="no Vault is configured"):
            await made.sources[snapshot.VaultSecret].fetch(loans.Wanted(lending.SECRET, testing.CRM))

    run(act)


def test_a_proxy_whose_configuration_names_none_of_it_loads_none_of_it() -> None:
    heavy = ("hvac", "requests", "cryptography", "jwt", "outrider_sidecar.vaulted", "outrider_sidecar.oauth")
    loaded = subprocess.run(
        [sys.executable, "-c", "import sys, outrider_sidecar.main; print(*sys.modules)"],
        capture_output=True, text=True, check=True,
    ).stdout.split()  # fmt: skip
    assert [each for each in heavy if each in loaded] == []
