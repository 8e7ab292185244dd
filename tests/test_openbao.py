# SPDX-License-Identifier: Apache-2.0
"""The OpenBao of the tests does what tests rely on."""

from __future__ import annotations

import pytest
from tests import openbao


def test_a_token_like_a_pods_logs_in_and_reads_what_its_role_may(vault: openbao.Vault) -> None:
    vault.put("here/a", token="t-1")
    vault.policy("here", {"secret/data/here/*": ["read"]})
    vault.role("here", ["here"], namespaces=["agents"])
    login = vault.call("POST", "auth/jwt/login", {"role": "here", "jwt": vault.jwt("agents")}, token="")
    mine = login["auth"]["client_token"]
    assert vault.call("GET", "secret/data/here/a", token=mine)["data"]["data"] == {"token": "t-1"}
    with pytest.raises(openbao.Refused, match="403"):
        vault.call("GET", "secret/data/ready", token=mine)
    with pytest.raises(openbao.Refused, match="400"):
        vault.call("POST", "auth/jwt/login", {"role": "here", "jwt": vault.jwt("other")}, token="")


def test_what_it_knew_it_knows_after_a_kill_and_a_seal(own_vault: openbao.Vault) -> None:
    assert own_vault.put("a", token="t-1") == 1
    own_vault.kill()
    own_vault.start()
    assert own_vault.put("a", token="t-2") == 2
    own_vault.seal()
    with pytest.raises(openbao.Refused, match="503"):
        own_vault.call("GET", "secret/data/a")
    own_vault.unseal()
    assert own_vault.call("GET", "secret/data/a")["data"]["data"] == {"token": "t-2"}


def test_over_tls_it_is_known_by_its_own_authority(tls_vault: openbao.Vault) -> None:
    assert tls_vault.address.startswith("https://")
    assert tls_vault.put("a", token="t-1") == 1
