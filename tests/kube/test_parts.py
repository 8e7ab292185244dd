# SPDX-License-Identifier: Apache-2.0
"""What stands in for a cluster's network in tests does what it stands for."""

from __future__ import annotations

import http.server
import pathlib
import subprocess
import sys
import threading
import urllib.request

import pytest
from tests import laptop
from tests.kube import address, balancer, lifeline, named


@pytest.fixture
def page():
    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("Content-Length", "5")
            self.end_headers()
            self.wfile.write(b"hello")

        def log_message(self, *_words) -> None:
            pass

    served = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=served.serve_forever, daemon=True).start()
    yield served.server_address[1]
    served.shutdown()
    served.server_close()


def test_a_connection_goes_to_a_target_that_listens(page) -> None:
    subject = balancer.Balancer().start()
    try:
        subject.targets([("127.0.0.1", 1), ("127.0.0.1", page)])
        for _ in range(4):
            with urllib.request.urlopen(f"http://127.0.0.1:{subject.port}/", timeout=5) as answer:
                assert answer.read() == b"hello"
        assert subject.connections == 4
        subject.targets([])
        with pytest.raises(OSError):
            urllib.request.urlopen(f"http://127.0.0.1:{subject.port}/", timeout=5)
    finally:
        subject.close()


def test_a_process_sees_names_that_others_do_not() -> None:
    line = [
        sys.executable,
        "-c",
        "import socket; print(socket.gethostbyname('outrider.outrider-system.svc'))",
    ]
    seen = named.with_hosts(line, {"outrider.outrider-system.svc": "127.0.0.7"})
    assert subprocess.run(seen, capture_output=True, text=True, check=True).stdout.strip() == "127.0.0.7"
    assert subprocess.run(line, capture_output=True, text=True, check=False).returncode != 0


def test_this_machine_has_a_private_address() -> None:
    assert address.private() in address._own()


def test_processes_end_with_whoever_started_them_even_by_kill_9() -> None:
    code = (
        "import subprocess, sys, time; from tests.kube import lifeline; subject = lifeline.Lifeline();"
        "held = subprocess.Popen(['sleep', '600'], start_new_session=True); subject.hold(held.pid);"
        "print(held.pid, flush=True); time.sleep(600)"
    )
    root = pathlib.Path(__file__).resolve().parents[2]
    starter = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True, cwd=root)
    held = int(starter.stdout.readline())
    assert pathlib.Path(f"/proc/{held}").exists()
    starter.kill()
    starter.wait()
    starter.stdout.close()
    laptop.until(lambda: ended(held), "what it held has ended")


def ended(pid: int) -> bool:
    """True for one that nobody has waited for yet, too."""
    try:
        return pathlib.Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except FileNotFoundError:
        return True


def test_what_was_dropped_is_left_alone() -> None:
    subject = lifeline.Lifeline()
    other = subprocess.Popen(["sleep", "600"], start_new_session=True)
    try:
        subject.hold(other.pid)
        subject.drop(other.pid)
        subject.close()
        assert other.poll() is None
    finally:
        other.kill()
        other.wait()
