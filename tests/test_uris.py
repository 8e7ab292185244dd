# SPDX-License-Identifier: Apache-2.0
"""URIs that two readers may read differently are refused, and no spelling of one escapes a Deny."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from outrider import uris


@pytest.mark.parametrize(
    "uri",
    [
        "file:///docs/readme.md", "memo://notes/7", "https://example.com/a?b=c&d=e#f", "test://static-text", "urn:isbn:978", "a",
        "file:///d%C3%A9j%C3%A0", "file:///a%20b", "file:///a..b/.hidden/c.", "db://t/%7Buser%7D", "file:///日本",
        "file:///100%25", "file:///...", "x" * uris.CHARACTERS_MAX,
    ],
)  # fmt: skip
def test_a_uri_that_means_one_thing_has_no_flaw(uri: str) -> None:
    assert uris.flaw(uri) is None


@pytest.mark.parametrize(
    ("uri", "why"),
    [
        ("", "characters"), ("x" * (uris.CHARACTERS_MAX + 1), "characters"),
        ("file:///docs/../secret", "segment of dots"), ("file:///docs/./secret", "segment of dots"), ("..", "segment of dots"),
        ("file:///docs/..", "segment of dots"), ("file:///a?path=../b", "segment of dots"), ("file:///a/..;x/b", "segment of dots"),
        ("file:///a/%2e%2e/b", "encoded dot"), ("file:///a%2Fb", "slash"), ("file:///a%5Cb", "backslash"), ("file:///a\\b", "backslash"),
        ("file:///a%252e%252e/b", "encoded dot"), ("file:///a%25252fb", "slash"), ("a%2525252541", "times over"),
        ("file:///a b", "space"), ("file:///a\tb", "control"), ("file:///a\x00", "control"), ("file:///a%00b", "control"),
        ("file:///a%0d%0ab", "control"), ("file:///a\u200bb", "invisible"), ("file:///a%E2%80%8Bb", "invisible"), ("a\ud800", "invisible"),
        ("file:///%c0%ae%c0%ae/x", "UTF-8"), ("file:///%ff", "UTF-8"), ("file:///{path}", "template"), ("file:///}", "template"),
        (f"file:///{uris.VARIABLE}", "invisible"),
    ],
)  # fmt: skip
def test_a_uri_that_could_mean_two_things_is_refused_with_the_reason(uri: str, why: str) -> None:
    assert why in (uris.flaw(uri) or "")


def test_every_guise_of_a_uri_is_looked_at() -> None:
    assert uris.forms("file:///docs/secret") == ("file:///docs/secret",)
    assert "file:///docs/secret" in uris.forms("file:///docs/%73ecret")
    assert "file:///docs/secret" in uris.forms("file:///docs/%2573ecret")
    assert "file:///docs/secret" in uris.forms("file:////docs//secret")
    assert "file:///docs/secret" in uris.forms("file:///docs//%73ecret")
    assert "a/b" in uris.forms("a//b")


@given(st.text(max_size=40) | st.text(alphabet="%2eEfF5cC/.41\\?", max_size=24))
def test_whatever_has_no_flaw_is_one_of_its_own_guises_and_none_of_them_climbs(uri: str) -> None:
    if uris.flaw(uri) is not None:
        return
    found = uris.forms(uri)
    assert found[0] == uri
    assert not any(part in (".", "..") for form in found for part in form.split("/"))
    assert not any("\\" in form for form in found)


def test_a_template_is_a_glob_for_what_it_can_become() -> None:
    assert uris.pattern("db://{table}/rows/{id}") == "db://*/rows/*"
    assert uris.anything("db://{table}/rows") == f"db://{uris.VARIABLE}/rows"
    assert uris.pattern("plain://x") == "plain://x"


@pytest.mark.parametrize("template", ["db://{table}/{id}", "file://{/path*}", "x://a{?q,lang}", "plain://x"])
def test_a_template_whose_literals_mean_one_thing_has_no_flaw(template: str) -> None:
    assert uris.template_flaw(template) is None


@pytest.mark.parametrize(
    "template", ["", "db://{table", "db://table}", "db://{{a}}", "file:///../{a}", "db://a b/{c}"]
)
def test_a_template_that_no_uri_could_come_of_is_refused(template: str) -> None:
    assert uris.template_flaw(template) is not None


@pytest.mark.parametrize(
    "uri",
    [
        "crm://accounts/7", "file:///a", "urn:isbn:978", "https://docs.example:8443/a?b#c", "http://10.0.0.1/a", "test://static-text",
        "http://localhost:54321/a", "memo:note",
    ],
)  # fmt: skip
def test_what_clients_can_parse_is_listed(uri: str) -> None:
    assert uris.listing_flaw(uri) is None


@pytest.mark.parametrize(
    "uri",
    ["plain", "docs/a", "http:a", "https://", "http://1.2.3.999/", "http://1/", "http://xn--a/", "http://[::1]/", "crm://[x", "http://a:99999/"],
)  # fmt: skip
def test_what_a_client_would_lose_its_list_over_is_not_listed_but_could_be_read(uri: str) -> None:
    assert uris.listing_flaw(uri) is not None
    assert uris.flaw(uri) is None
