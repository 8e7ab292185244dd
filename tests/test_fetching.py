# SPDX-License-Identifier: Apache-2.0
"""What is said of a request and of its answer, and what is in no repr."""

from __future__ import annotations

import pytest

from outrider_sidecar import fetching


def answer(*headers):
    return fetching.Answer(200, headers, b"canary")


def test_a_header_is_read_only_if_there_is_one_of_it():
    made = answer((b"x-one", b" a "), (b"x-two", b"a"), (b"x-two", b"b"))
    assert (made.header(b"x-one"), made.header(b"x-two"), made.header(b"x-none")) == ("a", "", "")
    assert answer((b"x-odd", b"\xff")).header(b"x-odd") == "\ufffd"


@pytest.mark.parametrize(("said", "media"), [
    (b"application/json", "application/json"), (b"Application/JSON; charset=utf-8", "application/json"), (b"", ""),
])  # fmt: skip
def test_a_media_type_is_without_parameters_and_in_lower_case(said, media):
    assert answer((b"content-type", said)).media_type() == media


SHOWN = [
    ("https://user:hunter2@as.example:8443/token?secret=hunter2#hunter2", "https://as.example:8443/token"),
    ("https://as.example/\x1b[31m\ntoken", "https://as.example/?[31mtoken"),
    ("https://as.example/t\u00f6ken", "https://as.example/t\\xf6ken"),
    ("https://as.example/" + "a" * 500, "https://as.example/" + "a" * 181),
]


@pytest.mark.parametrize(("url", "shown"), SHOWN)
def test_a_url_is_shown_without_what_may_be_secret_on_one_line(url, shown):
    assert fetching.shown(url) == shown


def test_neither_a_request_nor_an_answer_shows_what_is_in_it():
    ask = fetching.Ask("POST", "https://as.example/", 1.0, (("authorization", "canary"),), b"canary")
    assert "canary" not in repr(ask) + repr(answer((b"x", b"canary")))
