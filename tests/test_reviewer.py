# SPDX-License-Identifier: Apache-2.0
"""The shared token: made once, private, and the only one that opens."""

from __future__ import annotations

import asyncio
import os

import pytest

from outrider_operator import reviewer


def test_an_absent_file_is_made_private_with_thirty_two_random_bytes(tmp_path) -> None:
    one, two = tmp_path / "deep" / "one", tmp_path / "two"
    reviewer.ensure(one)
    reviewer.ensure(two)
    assert one.stat().st_mode & 0o777 == 0o600
    assert len(bytes.fromhex(one.read_text().strip())) == 32
    assert one.read_text() != two.read_text()


def test_an_existing_token_is_kept(tmp_path) -> None:
    file = tmp_path / "token"
    reviewer.ensure(file)
    before = file.read_text()
    reviewer.ensure(file)
    assert file.read_text() == before


@pytest.mark.parametrize(("content", "mode", "words"), [
    ("x" * 40, 0o644, "chmod 600"), ("short", 0o600, "holds no token"), ("", 0o600, "holds no token"),
    ("a" * 20 + " " + "b" * 20, 0o600, "holds no token"),
])  # fmt: skip
def test_a_file_that_protects_nothing_is_refused_with_what_to_do(tmp_path, content, mode, words) -> None:
    file = tmp_path / "token"
    file.write_text(content)
    file.chmod(mode)
    with pytest.raises(reviewer.TokenFileError, match=words):
        reviewer.ensure(file)


def test_a_pipe_is_not_waited_for(tmp_path) -> None:
    os.mkfifo(tmp_path / "pipe", 0o600)
    with pytest.raises(reviewer.TokenFileError, match="not a regular file"):
        reviewer.read(tmp_path / "pipe")


def test_only_the_token_opens_and_a_replaced_one_counts_at_once(tmp_path) -> None:
    file = tmp_path / "token"
    reviewer.ensure(file)
    who = reviewer.FileReviewer(file)
    token = file.read_text().strip()

    def review(text):
        return asyncio.run(who.review(text))

    assert review(token) == reviewer.LAPTOP
    for other in ("", token[:-1], token + "0", token.upper() + "é", "\udcff" + token[1:]):
        assert isinstance(review(other), reviewer.Refused)
    file.write_text("n" * 64)
    assert isinstance(review(token), reviewer.Refused)
    assert review("n" * 64) == reviewer.LAPTOP
    file.unlink()
    assert isinstance(review("n" * 64), reviewer.Refused)
