# SPDX-License-Identifier: Apache-2.0
"""Name resolution of the node: dnsmasq, told every Service's cluster address by a thread that watches Services.

It stands where CoreDNS stands in a cluster. Headless Services have no name here: nothing on this node needs one.
"""

from __future__ import annotations

import contextlib
import json
import os
import pathlib
import signal
import socket
import ssl
import threading
import urllib.parse
import urllib.request
from typing import Any

from tests import laptop
from tests.e2e import settings

_WATCH_SECONDS = 60


class Names:
    """`start` serves at address:53; `close` ends both."""

    def __init__(self, folder: pathlib.Path, address: str, server: str, trust: ssl.SSLContext) -> None:
        self._hosts = folder / "hosts"
        self._hosts.write_text("")
        self._server, self._trust = server, trust
        self._known: dict[tuple[str, str], str] = {}
        self._ended = threading.Event()
        self._answer: Any = None
        line = [
            "dnsmasq", "--keep-in-foreground", "--no-resolv", "--no-hosts", f"--addn-hosts={self._hosts}",
            f"--listen-address={address}", "--bind-interfaces", f"--local=/{settings.DOMAIN}/", "--user=root",
            "--cache-size=0", "--pid-file=", "--no-daemon", "--conf-file=/dev/null",
        ]  # fmt: skip
        self.process = laptop.Process("dnsmasq", line, logs=folder)
        self.process.until(lambda: _accepts(address), "dnsmasq listens")
        self._thread = threading.Thread(target=self._watch, name="services", daemon=True)
        self._thread.start()

    def known(self, namespace: str, name: str) -> bool:
        return (namespace, name) in self._known

    def close(self) -> None:
        self._ended.set()
        self.process.stop()

    def _watch(self) -> None:
        while not self._ended.is_set():
            with contextlib.suppress(OSError, ValueError):
                listed = json.load(self._open("/api/v1/services"))
                found = {}
                for each in listed["items"]:
                    found.update(_entry(each))
                self._tell(found)
                about = {
                    "watch": "true", "resourceVersion": listed["metadata"]["resourceVersion"],
                    "timeoutSeconds": str(_WATCH_SECONDS),
                }  # fmt: skip
                for line in self._open(f"/api/v1/services?{urllib.parse.urlencode(about)}"):
                    event = json.loads(line)
                    key = (
                        event["object"]["metadata"].get("namespace", ""),
                        event["object"]["metadata"].get("name", ""),
                    )
                    rest = {each: value for each, value in self._known.items() if each != key}
                    self._tell(rest if event["type"] == "DELETED" else {**rest, **_entry(event["object"])})
            self._ended.wait(0.5)

    def _open(self, path: str) -> Any:
        return urllib.request.urlopen(self._server + path, context=self._trust, timeout=_WATCH_SECONDS + 10)

    def _tell(self, found: dict[tuple[str, str], str]) -> None:
        if found == self._known and self._hosts.read_text():
            return
        lines = [
            f"{address} {name}.{namespace}.svc.{settings.DOMAIN} {name}.{namespace}.svc {name}.{namespace}"
            for (namespace, name), address in sorted(found.items())
        ]
        self._hosts.write_text("\n".join([*lines, ""]))
        if self.process.ended is None:
            os.kill(self.process.pid, signal.SIGHUP)
        self._known = found


def _accepts(address: str) -> bool:
    with contextlib.suppress(OSError), socket.create_connection((address, 53), 1):
        return True
    return False


def _entry(service: dict[str, Any]) -> dict[tuple[str, str], str]:
    address = service.get("spec", {}).get("clusterIP", "None")
    about = service["metadata"]
    return {} if address in ("None", "") else {(about["namespace"], about["name"]): address}
