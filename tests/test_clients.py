# SPDX-License-Identifier: Apache-2.0
"""How the proxy proves which OAuth client it is: forms, encodings, keys, and secrets that are for another place."""

from __future__ import annotations

import asyncio
import base64
import math
import time
import urllib.parse

import pytest
from joserfc import jwk, jwt
from tests import test_assertions as keys

from outrider import decision, names, snapshot
from outrider_sidecar import clients, loans, secretfiles

R = decision.Reason
SERVER = names.ServerId("crm", "api")
URL = "https://as.example/token"


def asking(client, url=URL):
    return clients.Asking(client, url, SERVER, math.inf)


def in_files(tmp_path, **files):
    """Values in real files, and where they are."""
    for name, content in files.items():
        (tmp_path / name).write_bytes(content)
    where = {name: snapshot.FileSecret(path=str(tmp_path / name)) for name in files}
    return {snapshot.FileSecret: secretfiles.Files(time.monotonic)}, where


def proven(values, client, **more):
    return asyncio.run(clients.Clients(values, wall=time.time).proof(asking(client, **more)))


def refused(values, client, **more):
    with pytest.raises(loans.Unavailable) as failed:
        proven(values, client, **more)
    assert "canary" not in str(failed.value)
    assert failed.value.__cause__ is None
    return failed.value


def test_basic_says_id_and_secret_in_the_encoding_of_forms(tmp_path):
    values, where = in_files(tmp_path, secret="p%+:/ \u00e4".encode() + b"\n")
    proof = proven(values, snapshot.OAuthClient(id="out rider:1", secret=where["secret"]))
    ((name, value),) = proof.headers
    user, _, password = base64.b64decode(value.removeprefix("Basic ")).decode().partition(":")
    assert (name, user) == ("authorization", "out%20rider%3A1")
    assert urllib.parse.unquote_plus(password) == "p%+:/ \u00e4"
    assert proof.form == ()
    assert "p%" not in repr(proof)


def test_post_says_them_in_the_form_and_in_no_header(tmp_path):
    values, where = in_files(tmp_path, secret=b"canary-1")
    proof = proven(values, snapshot.OAuthClient(id="outrider", secret=where["secret"], post=True))
    assert proof.form == (("client_id", "outrider"), ("client_secret", "canary-1"))
    assert proof.headers == ()
    assert proof.secrets == ("canary-1",)


def test_a_key_signs_an_assertion_each_time_and_is_not_sent(tmp_path):
    values, where = in_files(tmp_path, key=keys.pem(keys.EC))
    client = snapshot.OAuthClient(id="outrider", key=where["key"], algorithm="ES256", key_id="k1")
    first, second = proven(values, client), proven(values, client)
    form = dict(first.form)
    assert form["client_assertion_type"] == "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"
    read = jwt.decode(form["client_assertion"], jwk.import_key(keys.public(keys.EC), "EC"))
    assert (read.header["kid"], read.claims["aud"], read.claims["sub"]) == ("k1", URL, "outrider")
    assert form["client_assertion"] != dict(second.form)["client_assertion"]
    assert "PRIVATE" not in str(first.form)
    assert first.headers == ()


@pytest.mark.parametrize("secret", [b"", b"\n", b"two\nlines", b"\xff\xfe", b"tab\there", b"a" * 5000])
def test_a_secret_that_is_no_line_of_text_is_malformed(tmp_path, secret):
    values, where = in_files(tmp_path, secret=secret)
    failure = refused(values, snapshot.OAuthClient(id="outrider", secret=where["secret"]))
    assert failure.reason is R.CREDENTIAL_MALFORMED
    assert "the secret of OAuth client 'outrider'" in str(failure)


def test_a_key_that_signs_nothing_is_malformed_and_named_by_its_client(tmp_path):
    values, where = in_files(tmp_path, key=b"canary-2")
    failure = refused(values, snapshot.OAuthClient(id="outrider", key=where["key"]))
    assert failure.reason is R.CREDENTIAL_MALFORMED
    assert str(failure) == (
        "the private key of OAuth client 'outrider' is no private key in PEM without a password"
    )


def test_a_secret_that_is_not_to_be_had_says_whose_it_is_and_why(tmp_path):
    values, _ = in_files(tmp_path)
    missing = snapshot.FileSecret(path=str(tmp_path / "missing"))
    failure = refused(values, snapshot.OAuthClient(id="outrider", secret=missing))
    assert failure.reason is R.CREDENTIAL_UNAVAILABLE
    assert str(failure).startswith("the secret of OAuth client 'outrider' is not to be had: ")
    assert str(tmp_path / "missing") in str(failure)


@pytest.mark.parametrize("client", [snapshot.OAuthClient(id="x"), snapshot.OAuthClient(
    id="x", secret=snapshot.VaultSecret(role="r", path="p", key="k"))])  # fmt: skip
def test_a_client_whose_secret_nobody_lends_is_refused(tmp_path, client):
    failure = refused({}, client)
    assert failure.reason is R.CREDENTIAL_UNAVAILABLE
    assert "this proxy cannot get" in str(failure)


ORIGINS = [
    ("https://as.example", True),
    ("https://as.example:443", True),
    ("https://AS.example:443/", True),
    ("http://as.example", False),
    ("https://as.example:8443", False),
    ("https://crm.example", False),
    ("nonsense", False),
]


@pytest.mark.parametrize(("origin", "fits"), ORIGINS)
def test_a_secret_that_is_for_another_place_is_not_shown_to_this_one(tmp_path, origin, fits):
    mount = tmp_path / "crm.api"
    mount.mkdir()
    (mount / "secret").write_text("canary-3")
    (mount / secretfiles.ORIGIN_KEY).write_text(origin)
    values = {snapshot.MountedSecret: secretfiles.Files(time.monotonic, tmp_path)}
    client = snapshot.OAuthClient(
        id="outrider", secret=snapshot.MountedSecret(path="crm.api/secret"), post=True
    )
    if fits:
        assert proven(values, client).secrets == ("canary-3",)
        return
    failure = refused(values, client)
    assert failure.reason is R.CREDENTIAL_MISPLACED
    assert "its token endpoint is at https://as.example:443" in str(failure)


def test_a_version_that_was_not_taken_is_got_anew_and_differs_only_if_there_is_another(tmp_path):
    values, where = in_files(tmp_path, secret=b"old")
    client = snapshot.OAuthClient(id="outrider", secret=where["secret"], post=True)

    async def main():
        by = clients.Clients(values, wall=time.time)
        first = await by.proof(asking(client))
        same = await by.proof(asking(client), refused=first.version)
        (tmp_path / "secret").write_bytes(b"new")
        other = await by.proof(asking(client), refused=first.version)
        return first, same, other, await by.version(asking(client))

    first, same, other, version = asyncio.run(main())
    assert same.version == first.version
    assert (other.secrets, other.version != first.version) == (("new",), True)
    assert version == other.version
