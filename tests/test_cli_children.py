# SPDX-License-Identifier: Apache-2.0
"""The processes `outrider dev` owns."""

from __future__ import annotations

import pathlib
import stat
import sys

import pytest

from outrider_cli import children, output


def start(name: str, script: str, folder: pathlib.Path, **more: dict[str, str]) -> children.Child:
    return children.start(name, ["sh", "-c", script], logs=folder, cwd=folder, **more)  # type: ignore[arg-type]


def test_what_a_child_says_is_in_its_log_for_the_owner_alone(tmp_path: pathlib.Path) -> None:
    child = start(
        "a", 'echo out; echo err >&2; echo "$WORD"', tmp_path, env={"WORD": "given", "PATH": "/bin:/usr/bin"}
    )
    assert child.process.wait(15) == 0
    assert sorted(child.log.read_text().split()) == ["err", "given", "out"]
    assert stat.S_IMODE(child.log.stat().st_mode) == 0o600
    children.stop([child])


def test_a_log_begins_anew_with_each_start(tmp_path: pathlib.Path) -> None:
    for word in ("one", "two"):
        assert start("a", f"echo {word}", tmp_path).process.wait(15) == 0
    assert (tmp_path / "a.log").read_text() == "two\n"


def test_the_tail_of_a_log_cannot_steer_a_terminal(tmp_path: pathlib.Path) -> None:
    child = start("a", r"for i in 1 2 3 4 5 6 7 8 9; do printf '%s \033[31mred\n' $i; done; exit 3", tmp_path)
    assert child.process.wait(15) == 3
    assert child.ended() == 3
    tail = child.tail()
    assert len(tail.splitlines()) == 8
    assert tail.splitlines()[-1] == "  | 9 \\u001b[31mred"


def test_stopping_ends_all_and_waits(tmp_path: pathlib.Path) -> None:
    running = [start(name, "exec sleep 300", tmp_path) for name in ("a", "b")]
    assert [child.ended() for child in running] == [None, None]
    children.stop(running)
    assert all(child.ended() is not None for child in running)
    children.stop(running)


def test_our_own_programs_are_those_beside_this_interpreter() -> None:
    assert pathlib.Path(children.beside_us("outrider-operator")).parent == pathlib.Path(sys.executable).parent
    with pytest.raises(output.Stop) as stopped:
        children.beside_us("outrider-nothing")
    assert stopped.value.exit_code == output.UNREACHABLE
    assert "install" in stopped.value.then


def test_the_bridge_is_the_one_named_or_the_paths(
    monkeypatch: pytest.MonkeyPatch, tmp_path: pathlib.Path
) -> None:
    program = tmp_path / "mcp-proxy"
    program.write_text("#!/bin/sh\n")
    program.chmod(0o755)
    monkeypatch.setenv("OUTRIDER_BRIDGE", str(program))
    assert children.bridge() == str(program)
    assert str(tmp_path) in children.search_path().split(":")
    monkeypatch.delenv("OUTRIDER_BRIDGE")
    monkeypatch.setenv("PATH", str(tmp_path))
    assert children.bridge() == str(program)


def test_the_bridge_of_make_install_is_found_beside_our_environment(
    monkeypatch: pytest.MonkeyPatch, tmp_path: pathlib.Path
) -> None:
    program = tmp_path / ".venv-legacy" / "bin" / "mcp-proxy"
    program.parent.mkdir(parents=True)
    program.write_text("#!/bin/sh\n")
    program.chmod(0o755)
    monkeypatch.delenv("OUTRIDER_BRIDGE", raising=False)
    monkeypatch.setenv("PATH", "/nowhere")
    monkeypatch.setattr(sys, "prefix", str(tmp_path / ".venv"))
    monkeypatch.setattr(sys, "executable", "/nowhere/python")
    assert children.bridge() == str(program)


def test_a_log_goes_on_when_its_program_is_started_again(tmp_path: pathlib.Path) -> None:
    for again in (False, True):
        child = children.start("a", ["echo", "x"], logs=tmp_path, cwd=tmp_path, again=again)
        assert child.process.wait(15) == 0
    assert (tmp_path / "a.log").read_text() == "x\nx\n"


def test_a_bridge_that_is_missing_says_how_to_get_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OUTRIDER_BRIDGE", "/nowhere/mcp-proxy")
    with pytest.raises(output.Stop) as stopped:
        children.bridge()
    assert stopped.value.exit_code == output.UNREACHABLE
    assert "mcp-proxy" in stopped.value.then


def test_a_program_that_is_not_there_is_said_with_what_mends_it(
    monkeypatch: pytest.MonkeyPatch, tmp_path: pathlib.Path
) -> None:
    nodde, path = ["nodde", "x.js"], ["./nodde"]
    assert children.unstartable(["sh", "-c", "true"], tmp_path) == ""
    assert children.unstartable(nodde, tmp_path) == (
        "there is no program 'nodde' on the PATH; install it or correct the name"
    )
    assert children.unstartable(path, tmp_path) == (
        f"there is no program {tmp_path}/nodde; put it there or correct the path"
    )
    assert "\\u001b" in children.unstartable(["\x1b[31m"], tmp_path)
    monkeypatch.setenv("PATH", "bin")  # of the folder, where the server will run
    for place, command in (("bin", nodde), (".", path)):
        program = tmp_path / place / "nodde"
        program.parent.mkdir(exist_ok=True)
        program.write_text("#!/bin/sh\n")
        assert (
            children.unstartable(command, tmp_path)
            == f"{program} is not executable; run `chmod +x {program}`"
        )
        program.chmod(0o755)
        assert children.unstartable(command, tmp_path) == ""
