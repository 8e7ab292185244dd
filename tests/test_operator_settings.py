# SPDX-License-Identifier: Apache-2.0
"""The operator's flags: parsed, or refused with a sentence and exit code 2."""

from __future__ import annotations

import pytest

from outrider import names
from outrider_operator import settings


def test_what_is_left_out_lies_beside_the_files(tmp_path) -> None:
    flags = settings.parse(["--files", str(tmp_path)])
    assert flags == settings.Flags(
        files=tmp_path, state=tmp_path / ".outrider", token_file=tmp_path / ".outrider" / "operator-token"
    )


def test_every_flag_is_taken(tmp_path) -> None:
    flags = settings.parse([
        "--files", str(tmp_path), "--port", "0", "--state", str(tmp_path / "s"), "--token-file", str(tmp_path / "t"),
        "--address-file", str(tmp_path / "a"), "--bridge", "tools/time=http://127.0.0.1:8/mcp",
        "--bridge", "tools/git=http://localhost:9/mcp",
    ])  # fmt: skip
    assert flags.state == tmp_path / "s"
    assert flags.token_file == tmp_path / "t"
    assert flags.address_file == tmp_path / "a"
    assert flags.bridges == {
        names.ServerId("tools", "time"): "http://127.0.0.1:8/mcp",
        names.ServerId("tools", "git"): "http://localhost:9/mcp",
    }


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ([], "--files"),
        (["--files", "/nonexistent/folder"], "there is no folder"),
        (["--files", ".", "--port", "65536"], "is not a port"),
        (["--files", ".", "--port", "x"], "is not a port"),
        (["--files", ".", "--bridge", "time=http://127.0.0.1:1/"], "namespace/name="),
        (["--files", ".", "--bridge", "a/b"], "namespace/name="),
        (["--files", ".", "--bridge", "a/b=ftp://127.0.0.1/"], "not an http URL"),
        (["--files", ".", "--bridge", "a/b=http://10.0.0.1:1/"], "must be on this machine"),
        (
            ["--files", ".", "--bridge", "a/b=http://[::1]:1/", "--bridge", "a/b=http://[::1]:2/"],
            "given twice",
        ),
        (["--files", ".", "--surprise"], "unrecognized"),
        (["--file", "."], "--files"),
    ],
)
def test_a_wrong_command_line_is_refused_with_a_sentence(arguments, words, capsys) -> None:
    with pytest.raises(SystemExit) as caught:
        settings.parse(arguments)
    assert caught.value.code == 2
    assert words in capsys.readouterr().err
