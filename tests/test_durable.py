# SPDX-License-Identifier: Apache-2.0
"""A file is replaced whole, for its owner alone."""

from __future__ import annotations

import pytest

from outrider_operator import durable


def test_a_file_is_replaced_for_its_owner_alone(tmp_path) -> None:
    file = tmp_path / "x"
    file.write_bytes(b"old")
    file.chmod(0o644)
    durable.write(file, b"new")
    assert (file.read_bytes(), file.stat().st_mode & 0o777) == (b"new", 0o600)
    assert [each.name for each in tmp_path.iterdir()] == ["x"]


def test_what_cannot_be_written_leaves_the_old(tmp_path) -> None:
    file = tmp_path / "x"
    file.mkdir()
    with pytest.raises(OSError, match="directory"):
        durable.write(file, b"new")
    with pytest.raises(FileNotFoundError):
        durable.write(tmp_path / "gone" / "x", b"new")
