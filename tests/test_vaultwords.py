# SPDX-License-Identifier: Apache-2.0
"""One line for everything that can go wrong with Vault: what was asked, what came, what to do."""

from __future__ import annotations

import socket
import ssl

import pytest

from outrider import snapshot
from outrider_sidecar import vault, vaultwords

WORDS = vaultwords.Words(snapshot.Vault(address="https://vault.example:8200"))
D, T = vaultwords.Deed, vault.Trouble
LOGIN = vaultwords.Asked(D.LOGIN, "outrider-crm", "auth/kubernetes")
READ = vaultwords.Asked(D.READ, "outrider-crm", "secret/outrider/servers/crm/sf/api")
MAKE = vaultwords.Asked(D.MAKE, "outrider-crm", "outrider/servers/crm/sf/db/creds/readonly")


@pytest.mark.parametrize(
    ("status", "said", "remedy"),
    [
        (403, "namespace not authorized", "bind this pod's namespace to that role"),
        (403, "service account name not authorized", "bind this pod's namespace to that role"),
        (400, 'role "outrider-crm" could not be found', "make that role"),
        (
            400,
            "error validating token: invalid audience (aud) claim",
            "audience has to be vault.outrider.dev",
        ),
        (
            400,
            "error validating claims: claim does not match any associated bound claim values",
            "bind this pod's",
        ),
        (400, "error validating token: token is expired", "too old"),
        (
            400,
            "error validating token: error verifying token signature: no known key",
            "keys at that auth method",
        ),
        (
            400,
            "error validating token: go-jose: compact JWS format must have three parts",
            "no token of Vault's",
        ),
        (403, "permission denied", "does the role exist"),
    ],
)
def test_a_login_that_is_refused_says_what_to_do(status: int, said: str, remedy: str) -> None:
    failed = WORDS.refused(LOGIN, status, said)
    assert str(failed).startswith(
        f"Vault refused the login of role outrider-crm at auth/kubernetes (HTTP {status}): {said}; "
    )
    assert remedy in str(failed)
    assert failed.final


@pytest.mark.parametrize(
    ("asked", "status", "said", "trouble", "text"),
    [
        (READ, 403, "permission denied", T.DENIED,
         "Vault refuses role outrider-crm to read secret/outrider/servers/crm/sf/api (HTTP 403): permission denied; give that role the policy which `outrider vault-policy` prints"),
        (READ, 404, "", T.MISSING,
         "there is no secret at secret/outrider/servers/crm/sf/api (HTTP 404); write it there, in a KV engine of version 2"),
        (READ, 404, "no handler for route", T.MISSING,
         "there is nothing at secret/outrider/servers/crm/sf/api (HTTP 404): no handler for route; is the engine mounted there?"),
        (MAKE, 400, "unknown role: readonly", T.REFUSED,
         "Vault refused to make outrider/servers/crm/sf/db/creds/readonly with role outrider-crm (HTTP 400): unknown role: readonly"),
        (MAKE, 500, "no database", T.BROKEN,
         "Vault at https://vault.example:8200 failed to make outrider/servers/crm/sf/db/creds/readonly (HTTP 500): no database"),
        (READ, 503, "Vault is sealed", T.SEALED,
         "Vault at https://vault.example:8200 is sealed, or in maintenance (HTTP 503); unseal it"),
        (READ, 501, "", T.SEALED, "Vault at https://vault.example:8200 is not initialized (HTTP 501); unseal it"),
        (READ, 429, "", T.BUSY,
         "Vault at https://vault.example:8200 takes no more requests now, or this node serves none (HTTP 429)"),
        (READ, 473, "", T.BUSY,
         "Vault at https://vault.example:8200 takes no more requests now, or this node serves none (HTTP 473)"),
        (LOGIN, 502, "", T.UNREACHABLE, "what stands before Vault at https://vault.example:8200 does not reach it (HTTP 502)"),
        (READ, 405, "unsupported", T.REFUSED,
         "Vault refused to read secret/outrider/servers/crm/sf/api with role outrider-crm (HTTP 405): unsupported"),
    ],
)  # fmt: skip
def test_every_answer_has_its_words(asked, status, said, trouble, text) -> None:
    failed = WORDS.refused(asked, status, said)
    assert (failed.trouble, str(failed), failed.status) == (trouble, text, status)


def test_a_deleted_version_is_told_from_a_secret_that_never_was() -> None:
    assert "the latest version of the secret" in str(WORDS.refused(READ, 404, deleted=True))


def nested(error: BaseException) -> BaseException:
    """As libraries do: an exception of theirs with the cause in its arguments."""
    return ValueError("outer with canary-1", RuntimeError(error))


@pytest.mark.parametrize(
    ("error", "trouble", "text"),
    [
        (
            ConnectionRefusedError(111, "Connection refused"),
            T.UNREACHABLE,
            "cannot be reached: Connection refused",
        ),
        (socket.gaierror(-2, "Name or service not known"), T.UNREACHABLE, "has a name that does not resolve"),
        (TimeoutError("timed out"), T.SLOW, "did not answer in time"),
        (ssl.SSLError(1, "[SSL: WRONG_VERSION_NUMBER] wrong"), T.UNTRUSTED, "cannot be spoken to over TLS"),
        (ssl.SSLCertVerificationError("bad"), T.UNTRUSTED, "set caBundle of the settings' vault"),
        (RuntimeError("canary-1"), T.UNREACHABLE, "the connection broke off"),
    ],
)
def test_whatever_keeps_an_answer_from_coming_is_told_in_words_of_ours(error, trouble, text) -> None:
    for each in (error, nested(error)):
        failed = WORDS.unreached(each)
        assert failed.trouble is trouble
        assert text in str(failed)
        assert "canary" not in str(failed)
        assert failed.outage


def test_a_connection_that_the_other_side_closed_is_told_from_one_that_never_was() -> None:
    assert vaultwords.cut_off(nested(ConnectionResetError()))
    assert not vaultwords.cut_off(nested(ConnectionRefusedError()))
