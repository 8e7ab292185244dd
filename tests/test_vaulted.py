# SPDX-License-Identifier: Apache-2.0
"""Everything of Vault in one proxy: no site, a site, another one, and the end."""

from __future__ import annotations

import asyncio
import json
import pathlib

import pytest
from tests import openbao, relay, vaultside
from tests.kube import apiserver

from outrider import decision, snapshot
from outrider_sidecar import loans


def tokens(bao: openbao.Vault) -> int:
    return len(bao.call("LIST", "auth/token/accessors")["data"]["keys"])


def test_without_a_site_the_remedy_is_told() -> None:
    async def main() -> None:
        async with vaultside.proxy(None, None) as our:
            for where in (
                vaultside.secret("vd"),
                snapshot.VaultLease(role="r", path="a/b", key="k"),
                snapshot.ClientCertificate(role="r", path="a/b", common_name="c"),
            ):
                assert our.at_hand(where) is None
                assert "set vault.address in the installation's settings" in await our.why(where)
            our.keep()
            assert standings(our) == []

    asyncio.run(main())


def standings(our) -> list[loans.Standing]:
    return [found for each in our.vaulted.sources.values() for found in each.standing()]


def test_without_a_site_nothing_can_be_had_and_that_is_told_until_there_is_one(vault: openbao.Vault) -> None:
    async def main() -> None:
        async with vaultside.proxy(None, None) as our:
            secret, lease = vaultside.secret("vd"), snapshot.VaultLease(role="r", path="a/b", key="k")
            our.keep(secret, lease)
            await our.why(secret)
            await our.why(secret)
            told = {each.where: each for each in standings(our)}
            assert told.keys() == {secret, lease}
            assert (told[secret].failed, told[lease].failed) == (2, 0)
            assert not told[secret].available
            assert told[secret].failing is decision.Reason.CREDENTIAL_UNAVAILABLE
            assert "set vault.address" in told[secret].why
            our.keep(secret)
            assert [(each.where, each.failed) for each in standings(our)] == [(secret, 2)]
            our.vaulted.configure(vaultside.site(vault))
            our.keep(secret)
            assert standings(our) == []

    asyncio.run(main())


def test_another_site_is_another_world(
    vault: openbao.Vault, own_vault: openbao.Vault, tmp_path: pathlib.Path
) -> None:
    for bao, value in ((vault, "canary-old"), (own_vault, "canary-new")):
        vaultside.tenant(bao, "vd")
        bao.put("outrider/servers/vd/sf/api", token=value)
    where = vaultside.secret("vd")

    async def main() -> None:
        with relay.before(vault.address) as between:
            first = vaultside.site(vault, address=between.address)
            async with vaultside.proxy(first, vaultside.pod_token(tmp_path, vault.jwt())) as our:
                assert await our.value(where) == b"canary-old"
                our.vaulted.configure(vaultside.site(vault, address=between.address))
                assert our.at_hand(where).value == b"canary-old"
                before = await vaultside.away(tokens, vault)
                vaultside.pod_token(tmp_path, own_vault.jwt())
                our.vaulted.configure(vaultside.site(own_vault))
                assert our.at_hand(where) is None
                our.keep(where)
                assert await our.value(where) == b"canary-new"
                await vaultside.until(lambda: between.count("revoke-self"), "the old token is given back")
                while await vaultside.away(tokens, vault) >= before:
                    await asyncio.sleep(0.05)
                our.vaulted.configure(None)
                assert "set vault.address" in await our.why(where)

    asyncio.run(main())


@pytest.mark.parametrize("changed", [{"auth_path": "nowhere"}, {"mount": "nowhere"}, {"ca_bundle": "none"}])
def test_every_part_of_a_site_makes_it_another_one(
    vault: openbao.Vault, tmp_path: pathlib.Path, changed
) -> None:
    vaultside.tenant(vault, "vd-part")
    vault.put("outrider/servers/vd-part/sf/api", token="canary-1")

    async def main() -> None:
        where = vaultside.secret("vd-part")
        async with vaultside.proxy(vaultside.site(vault), vaultside.pod_token(tmp_path, vault.jwt())) as our:
            await our.fetch(where)
            our.vaulted.configure(vaultside.site(vault, **changed))
            assert our.at_hand(where) is None
            with pytest.raises(loans.Unavailable):
                await our.fetch(where)

    asyncio.run(main())


def test_the_token_of_a_role_that_nothing_needs_is_given_back(
    own_vault: openbao.Vault, tmp_path: pathlib.Path
) -> None:
    for name in ("vd", "vd-two"):
        vaultside.tenant(own_vault, name)
        own_vault.put(f"outrider/servers/{name}/sf/api", token="canary-1")
    before = tokens(own_vault)

    async def main() -> None:
        kept, gone = vaultside.secret("vd"), vaultside.secret("vd-two")
        async with vaultside.proxy(
            vaultside.site(own_vault), vaultside.pod_token(tmp_path, own_vault.jwt())
        ) as our:
            await asyncio.gather(our.fetch(kept), our.fetch(gone))
            assert await vaultside.away(tokens, own_vault) == before + 2
            our.keep(kept)
            while await vaultside.away(tokens, own_vault) > before + 1:
                await asyncio.sleep(0.05)
            assert our.at_hand(kept) is not None
            await our.vaulted.close()
            await our.vaulted.close()
            assert our.at_hand(kept) is None
            while await vaultside.away(tokens, own_vault) > before:
                await asyncio.sleep(0.05)

    asyncio.run(main())


def test_when_an_outage_is_over_nobody_waits_for_what_was_put_off(
    vault: openbao.Vault, tmp_path: pathlib.Path
) -> None:
    vaultside.tenant(vault, "vd-back")
    for name in ("one", "two"):
        vault.put(f"outrider/servers/vd-back/{name}", token="canary-1")

    async def main() -> None:
        time = vaultside.Time()
        one, two = (vaultside.secret("vd-back", name) for name in ("one", "two"))
        with relay.before(vault.address) as between:
            site = vaultside.site(vault, address=between.address)
            async with vaultside.proxy(site, vaultside.pod_token(tmp_path, vault.jwt()), at_time=time) as our:
                between.fault = lambda _: relay.Fault(503)
                for _ in range(5):
                    assert "sealed" in await our.why(one)
                    time.ahead += 13
                assert "sealed" in await our.why(one)
                asked = len(between.asked)
                time.ahead += 9.5
                between.fault = lambda _: None
                assert "sealed" in await our.why(one)
                assert "sealed" in await our.why(two)  # the line is shut yet, and both are put off
                assert len(between.asked) == asked
                time.ahead += 1.5
                assert await our.value(two) == b"canary-1"
                assert await our.value(one) == b"canary-1"

    asyncio.run(main())


def test_over_tls_with_an_authority_of_its_own(tls_vault: openbao.Vault, tmp_path: pathlib.Path) -> None:
    vaultside.tenant(tls_vault, "vd")
    tls_vault.put("outrider/servers/vd/sf/api", token="canary-1")

    async def main() -> None:
        pod = vaultside.pod_token(tmp_path, tls_vault.jwt())
        async with vaultside.proxy(vaultside.site(tls_vault), pod) as our:
            assert await our.value(vaultside.secret("vd")) == b"canary-1"
            our.vaulted.configure(vaultside.site(tls_vault, ca_bundle=None))
            assert "set caBundle of the settings' vault" in await our.why(vaultside.secret("vd"))

    asyncio.run(main())


def test_the_kubernetes_method_lets_in_a_pod_of_the_real_api_server_and_nobody_else(
    vault: openbao.Vault, cluster: apiserver.Cluster, tmp_path: pathlib.Path
) -> None:
    name = "vault-kubernetes"
    vaultside.tenant(vault, name)
    vault.put(f"outrider/servers/{name}/sf/api", token="canary-1")
    reviewer = {
        "apiGroup": "rbac.authorization.k8s.io",
        "kind": "ClusterRole",
        "name": "system:auth-delegator",
    }
    for namespace in (name, f"{name}-other"):
        cluster.service_account(cluster.namespace(namespace), "bot")
    cluster.apply(
        {
            "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRoleBinding", "metadata": {"name": name},
            "roleRef": reviewer, "subjects": [{"kind": "ServiceAccount", "name": "bot", "namespace": name}],
        }
    )  # fmt: skip
    own = cluster.token(name, "bot", audience=cluster.audience)
    vault.call("POST", f"sys/auth/{name}", {"type": "kubernetes"})
    vault.call(
        "POST", f"auth/{name}/config",
        {"kubernetes_host": cluster.url, "kubernetes_ca_cert": cluster.ca_pem, "token_reviewer_jwt": own},
    )  # fmt: skip
    vault.call(
        "POST", f"auth/{name}/role/outrider-{name}",
        {
            "bound_service_account_names": ["*"], "bound_service_account_namespaces": [name],
            "audience": openbao.AUDIENCE, "token_policies": [f"outrider-{name}"], "token_ttl": "10m",
        },
    )  # fmt: skip
    site = vaultside.site(vault, method="Kubernetes", auth_path=name)

    async def main() -> None:
        time = vaultside.Time()
        pod = vaultside.pod_token(tmp_path, cluster.token(name, "bot", audience=openbao.AUDIENCE))
        async with vaultside.proxy(site, pod, at_time=time) as our:
            assert await our.value(vaultside.secret(name)) == b"canary-1"
        for token, words in (
            (cluster.token(f"{name}-other", "bot", audience=openbao.AUDIENCE), "namespace not authorized"),
            (cluster.token(name, "bot", audience="another.example"), "HTTP 403"),
            (vault.jwt(name), "HTTP 403"),
        ):
            vaultside.pod_token(tmp_path, token)
            async with vaultside.proxy(site, pod) as our:
                why = await our.why(vaultside.secret(name))
                assert f"Vault refused the login of role outrider-{name} at auth/{name}" in why
                assert words in why, json.dumps(why)

    asyncio.run(main())
