# SPDX-License-Identifier: Apache-2.0
"""The proxy's process: how it starts, what it leaves on disk, how it ends."""

from __future__ import annotations

import json
import pathlib
import signal
import stat
import subprocess
import sys
import time
import urllib.error
import urllib.request
from typing import Self

PROXY = pathlib.Path(sys.executable).parent / "outrider-sidecar"


def command(folder: pathlib.Path) -> list[str]:
    token = folder / "token"
    token.write_text("bootstrap")
    return [
        str(PROXY), "--operator", "http://127.0.0.1:9", "--token-file", str(token), "--state", str(folder / "state"),
        "--port", "0", "--admin-port", "0", "--address-file", str(folder / "address"),
    ]  # fmt: skip


class Running:
    """A proxy without a control plane, listening; killed at the end whatever happened."""

    def __init__(self, folder: pathlib.Path) -> None:
        self.process = subprocess.Popen(command(folder), stderr=subprocess.PIPE, text=True)
        until = time.monotonic() + 30
        while not (folder / "address").exists():
            assert self.process.poll() is None, self.process.stderr.read() if self.process.stderr else ""
            assert time.monotonic() < until, "the proxy did not listen"
            time.sleep(0.02)
        self.ports = json.loads((folder / "address").read_text())

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.communicate()


def status(url: str) -> int:
    try:
        with urllib.request.urlopen(url, timeout=5) as answer:
            return answer.status
    except urllib.error.HTTPError as error:
        with error:
            return error.code


def test_it_is_healthy_at_once_and_ready_only_with_a_configuration(tmp_path: pathlib.Path) -> None:
    with Running(tmp_path) as proxy:
        admin = f"http://127.0.0.1:{proxy.ports['adminPort']}"
        assert [status(f"{admin}/{page}") for page in ("healthz", "readyz", "metrics", "other")] == [
            200,
            503,
            200,
            404,
        ]


def test_what_it_leaves_on_disk_is_its_owners_alone(tmp_path: pathlib.Path) -> None:
    with Running(tmp_path):
        kept = list((tmp_path / "state").rglob("*"))
        assert {path.name for path in kept} >= {"agent-token", "session-key", "journal"}
        assert [path.name for path in kept if stat.S_IMODE(path.stat().st_mode) & 0o077] == []


def test_a_term_signal_ends_it_in_peace(tmp_path: pathlib.Path) -> None:
    with Running(tmp_path) as proxy:
        proxy.process.send_signal(signal.SIGTERM)
        _, log = proxy.process.communicate(timeout=20)
        assert proxy.process.returncode == 0
        messages = [json.loads(line)["message"] for line in log.splitlines()]
        assert messages[0] == "listening"
        assert "draining" in messages


def test_a_second_proxy_on_the_same_state_says_why_it_cannot_start(tmp_path: pathlib.Path) -> None:
    with Running(tmp_path):
        second = subprocess.run(command(tmp_path), capture_output=True, text=True, timeout=30, check=False)
    assert second.returncode == 1
    assert "cannot start" in second.stderr
    assert "Traceback" not in second.stderr


def test_a_flag_that_cannot_be_used_is_refused_in_a_sentence(tmp_path: pathlib.Path) -> None:
    for flag in (
        ["--operator", "http://192.0.2.1"],
        ["--operator", "ftp://x"],
        ["--port", "70000"],
        ["--calls-max", "0"],
    ):
        refused = subprocess.run(
            [*command(tmp_path), *flag], capture_output=True, text=True, timeout=30, check=False
        )
        assert refused.returncode == 2
        assert "error:" in refused.stderr
        assert "Traceback" not in refused.stderr


def test_the_keys_and_the_token_outlive_a_restart(tmp_path: pathlib.Path) -> None:
    kept = []
    for _ in range(2):
        (tmp_path / "address").unlink(missing_ok=True)
        with Running(tmp_path) as proxy:
            kept.append([(tmp_path / "state" / name).read_bytes() for name in ("agent-token", "session-key")])
            proxy.process.terminate()
            proxy.process.communicate(timeout=20)
    assert kept[0] == kept[1]
