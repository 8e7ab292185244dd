# SPDX-License-Identifier: Apache-2.0
"""Files of ours are whole and only ours."""

from __future__ import annotations

import pathlib

import pytest

from outrider_sidecar import files


def test_a_file_is_replaced_whole_and_readable_by_us_only(tmp_path: pathlib.Path) -> None:
    place = tmp_path / "kept"
    place.write_text("old and much longer")
    place.chmod(0o644)
    files.write(place, b"new")
    assert place.read_bytes() == b"new"
    assert place.stat().st_mode & 0o777 == 0o600
    assert [each.name for each in tmp_path.iterdir()] == ["kept"]


def test_what_cannot_be_written_leaves_what_was_there(tmp_path: pathlib.Path) -> None:
    with pytest.raises(OSError, match="no-such"):
        files.write(tmp_path / "no-such" / "kept", b"new")
