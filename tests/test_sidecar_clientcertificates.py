# SPDX-License-Identifier: Apache-2.0
"""Client certificates from the PKI engine of a real OpenBao, shown to a real TLS server that demands one."""

from __future__ import annotations

import asyncio
import json
import pathlib
import ssl
import time as times

import pytest
from cryptography import x509
from tests import openbao, relay, vaultside
from tests.kube import certs

from outrider import decision, snapshot

MOUNT = "outrider/servers/pk/sf/pki"


@pytest.fixture(scope="module")
def root(vault: openbao.Vault) -> str:
    """The authority's certificate (PEM)."""
    vaultside.tenant(vault, "pk")
    vault.call("POST", f"sys/mounts/{MOUNT}", {"type": "pki", "config": {"max_lease_ttl": "48h"}})
    made = vault.call("POST", f"{MOUNT}/root/generate/internal", {"common_name": "agents", "ttl": "40h"})
    role = {"allowed_domains": "agents.example", "allow_subdomains": True, "max_ttl": "24h"}
    vault.call("POST", f"{MOUNT}/roles/agent", role)
    vault.call("POST", f"{MOUNT}/roles/leased", {**role, "generate_lease": True})
    return made["data"]["certificate"]


@pytest.fixture
def pod(vault: openbao.Vault, tmp_path: pathlib.Path) -> pathlib.Path:
    return vaultside.pod_token(tmp_path, vault.jwt())


def certificate(
    role: str = "agent", name: str = "bot.agents.example", ttl: int = 3600
) -> snapshot.ClientCertificate:
    return snapshot.ClientCertificate(
        role="outrider-pk", path=f"{MOUNT}/issue/{role}", common_name=name, ttl_seconds=ttl
    )


def test_a_server_that_demands_a_certificate_takes_it(
    vault: openbao.Vault, root: str, pod: pathlib.Path, tmp_path: pathlib.Path
) -> None:
    keys = certs.Authority.make(tmp_path / "pki", ["127.0.0.1"])
    demanding = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cadata=root)
    demanding.load_cert_chain(keys.server_cert, keys.server_key)
    demanding.verify_mode = ssl.CERT_REQUIRED

    async def main() -> None:
        async with vaultside.proxy(vaultside.site(vault), pod) as our:
            loan = await our.fetch(certificate())
            made = loan.certificate
            leaf = x509.load_pem_x509_certificates(made.chain)[0]
            assert leaf.subject.rfc4514_string() == "CN=bot.agents.example"
            assert loan.value == b""
            assert loan.version == made.version
            assert loan.expires_at == leaf.not_valid_after_utc.timestamp()
            assert "canary" not in repr(loan)
            assert "BEGIN" not in repr(loan) + repr(made)
            chain, key = tmp_path / "chain", tmp_path / "key"
            chain.write_bytes(made.chain)
            key.write_bytes(made.key)
            seen: list[object] = []

            async def met(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
                seen.append(dict(part[0] for part in writer.get_extra_info("peercert")["subject"]))
                writer.write(b"welcome")
                writer.close()

            server = await asyncio.start_server(met, "127.0.0.1", 0, ssl=demanding)
            ours = ssl.create_default_context(cadata=keys.ca_file.read_text())
            ours.load_cert_chain(chain, key)
            host, port = server.sockets[0].getsockname()
            reader, writer = await asyncio.open_connection(host, port, ssl=ours)
            assert await reader.read() == b"welcome"
            assert seen == [{"commonName": "bot.agents.example"}]
            writer.close()
            server.close()

    asyncio.run(main())


def test_another_one_is_issued_in_time_and_the_old_one_serves_meanwhile(
    vault: openbao.Vault, root: str, pod: pathlib.Path
) -> None:
    async def main() -> None:
        where = certificate(ttl=6)
        async with vaultside.proxy(vaultside.site(vault), pod) as our:
            first = await our.fetch(where)

            def anew() -> bool:
                now = our.at_hand(where)
                return now is not None and now.version != first.version

            await vaultside.until(anew, "another one is issued")
            assert our.at_hand(where).expires_at > first.expires_at
            assert our.standing(where).failed == 0

    asyncio.run(main())


def test_while_vault_is_away_it_serves_until_its_end(
    vault: openbao.Vault, root: str, pod: pathlib.Path
) -> None:
    async def main() -> None:
        time = vaultside.Time()
        with relay.before(vault.address) as between:
            site = vaultside.site(vault, address=between.address)
            async with vaultside.proxy(site, pod, at_time=time) as our:
                await our.fetch(certificate())
                between.fault = lambda _: relay.Fault(0)
                time.ahead += 3_500
                assert our.at_hand(certificate()) is not None
                time.ahead += 200
                assert our.at_hand(certificate()) is None
                assert "cannot be reached" in await our.why(certificate())
                between.fault = lambda _: None
                time.ahead = 0
                time.ahead += 40  # whatever was backed off from
                assert (await our.fetch(certificate())).expires_at > times.time()

    asyncio.run(main())


def test_one_with_a_lease_is_revoked_when_nobody_wants_it(
    vault: openbao.Vault, root: str, pod: pathlib.Path
) -> None:
    async def main() -> None:
        kept, gone = certificate(), certificate("leased")
        async with vaultside.proxy(vaultside.site(vault), pod) as our:
            await our.fetch(kept)
            serial = (await our.fetch(gone)).version
            our.keep(kept)

            def revoked() -> int:
                return vault.call("GET", f"{MOUNT}/cert/{serial}")["data"]["revocation_time"]

            while not await vaultside.away(revoked):
                await asyncio.sleep(0.05)
            assert our.at_hand(kept) is not None

    asyncio.run(main())


def test_a_name_that_the_role_forbids_is_told(vault: openbao.Vault, root: str, pod: pathlib.Path) -> None:
    async def main() -> None:
        async with vaultside.proxy(vaultside.site(vault), pod) as our:
            why = await our.why(certificate(name="bot.elsewhere.example"))
            assert "not allowed by this role" in why
            assert f"{MOUNT}/issue/agent" in why

    asyncio.run(main())


@pytest.mark.parametrize(
    "data",
    [
        {}, {"certificate": "x", "private_key": "y", "serial_number": "1"},
        {"certificate": "-----BEGIN CERTIFICATE-----", "private_key": 3, "serial_number": "1"},
        {"certificate": "-----BEGIN CERTIFICATE-----", "private_key": "PRIVATE KEY-----", "serial_number": ""},
    ],
)  # fmt: skip
def test_what_is_no_certificate_with_its_key_is_malformed(vault, root, pod, data) -> None:
    async def main() -> None:
        with relay.before(vault.address) as between:
            body = json.dumps({"data": data}).encode()
            between.fault = lambda asked: relay.Fault(200, body) if "/issue/" in asked else None
            async with vaultside.proxy(vaultside.site(vault, address=between.address), pod) as our:
                assert "is no certificate with its key" in await our.why(certificate())
                assert our.standing(certificate()).failing is decision.Reason.CREDENTIAL_MALFORMED

    asyncio.run(main())
