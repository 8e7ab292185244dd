# SPDX-License-Identifier: Apache-2.0
"""One replica as an operator of it sees it: its exit code, its log, readiness and liveness, whatever is missing or goes away."""

from __future__ import annotations

import asyncio
import base64
import json
import pathlib
import socket
import subprocess
import time
from collections.abc import Iterator
from typing import Any

import pytest
from tests import laptop
from tests.kube import apiserver, certs, installation

from outrider_operator import access, controller, settings

pytestmark = pytest.mark.slow
START_SECONDS = 60.0


@pytest.fixture
def kubeconfig(tmp_path: pathlib.Path) -> pathlib.Path:
    """Of an API server that is not there: nobody listens at its port."""
    keys = certs.Authority.make(tmp_path / "keys", ["127.0.0.1"])
    authority = base64.b64encode(keys.ca_file.read_bytes()).decode()
    cluster = {
        "server": f"https://127.0.0.1:{apiserver.free_port()}",
        "certificate-authority-data": authority,
    }
    whole = {
        "apiVersion": "v1", "kind": "Config", "current-context": "test",
        "clusters": [{"name": "test", "cluster": cluster}], "users": [{"name": "test", "user": {"token": "t"}}],
        "contexts": [{"name": "test", "context": {"cluster": "test", "user": "test"}}],
    }  # fmt: skip
    made = tmp_path / "kubeconfig.json"
    made.write_text(json.dumps(whole))
    return made


def line(kubeconfig: pathlib.Path, folder: pathlib.Path, **more: Any) -> list[str]:
    flags = {
        "role": "controller", "kubeconfig": kubeconfig, "identity": "alone", "listen": "127.0.0.1",
        "advertise": "127.0.0.1:0", "webhook_port": 0, "stream_port": 0, "metrics_port": 0, "cert_dir": folder / "certs",
        "api_token_file": folder / "token", "address_file": folder / "address.json", **more,
    }  # fmt: skip
    given = [f"--{name.replace('_', '-')}={value}" for name, value in flags.items()]
    return [str(installation.PROGRAM[0]), *given]


def refused(words: list[str]) -> dict[str, Any]:
    """The one line that a process says which does not start."""
    ran = subprocess.run(words, capture_output=True, text=True, timeout=START_SECONDS, check=False)
    assert ran.returncode == 1, ran.stderr
    [said] = ran.stderr.splitlines()
    found: dict[str, Any] = json.loads(said)
    assert found["message"] == "cannot go on"
    return found


def said(process: laptop.Process) -> list[dict[str, Any]]:
    """Its log; every line of it is JSON, so no traceback is outside of one."""
    return [json.loads(each) for each in process.text().splitlines()]


class Alone(installation.Operator):
    """A replica of which no installation knows."""

    def __init__(self, folder: pathlib.Path) -> None:
        self.folder, self.address = folder, folder / "address.json"

    def run(self, words: list[str]) -> Alone:
        self.process = laptop.Process("alone", words, logs=self.folder / "logs")
        self.process.until(self.address.exists, "it listens", START_SECONDS)
        self.ports = json.loads(self.address.read_bytes())
        return self


@pytest.fixture
def alone(tmp_path: pathlib.Path) -> Iterator[Alone]:
    made = Alone(tmp_path)
    try:
        yield made
    finally:
        if made.process is not None:
            made.process.stop()
            print(made.process.tail())


def test_a_kubeconfig_that_cannot_be_used_ends_it_with_the_reason(tmp_path: pathlib.Path) -> None:
    absent = refused(line(tmp_path / "none.yaml", tmp_path))
    assert absent["why"] == f"{tmp_path}/none.yaml cannot be read: No such file or directory"
    empty = tmp_path / "empty.yaml"
    empty.write_text("")
    assert refused(line(empty, tmp_path))["why"] == f"{empty} is not a kubeconfig (kind: Config)"


def test_a_port_that_somebody_has_ends_it_with_what_to_do(kubeconfig, tmp_path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        for name in ("webhook", "stream", "metrics"):
            why = refused(line(kubeconfig, tmp_path, **{f"{name}_port": port}))["why"]
            assert why.startswith(
                f"{name}: 127.0.0.1 port {port} cannot be listened on (Address already in use)"
            )
            assert f"--{name}-port" in why


def test_an_address_file_that_cannot_be_written_ends_it(kubeconfig, tmp_path) -> None:
    why = refused(line(kubeconfig, tmp_path, address_file=tmp_path / "none" / "address.json"))["why"]
    assert why == f"--address-file {tmp_path}/none/address.json cannot be written: No such file or directory"


def test_without_an_api_server_it_lives_and_says_what_it_waits_for(kubeconfig, tmp_path, alone) -> None:
    replica = alone.run(line(kubeconfig, tmp_path))
    laptop.until(
        lambda: "does not answer" in replica.ready()[1].splitlines()[-2], "certificates were asked for"
    )
    status, text = replica.ready()
    assert status == 503
    waiting = text.splitlines()
    server = json.loads(kubeconfig.read_bytes())["clusters"][0]["cluster"]["server"]
    for name in ("servers", "policies", "budgets", "namespaces", "settings", "pods"):
        [one] = [each for each in waiting if each.startswith(f"{name}: ")]
        assert one.endswith(f"cannot be read: the API server {server} does not answer: connection refused")
    assert waiting[6].startswith("which cluster this is (the uid of kube-system) is not known: ")
    assert waiting[7] == f"certificates: the API server {server} does not answer: connection refused"
    assert waiting[8] == "admission: admission is not served yet"
    assert replica.desk("/healthz") == (200, "ok\n")
    assert "outrider_leader 0.0" in replica.desk("/metrics")[1]
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", replica.ports["stream"]))
    time.sleep(5)
    lines = [each["message"] for each in said(replica.process)]
    assert lines.count("the cluster's identity is not known") == 1, "what stays as it is, is said once"
    assert lines.count("certificates could not be seen to") == 1


def test_told_to_stop_before_there_is_a_certificate_it_stops_at_once(kubeconfig, tmp_path, alone) -> None:
    replica = alone.run(line(kubeconfig, tmp_path))
    began = time.monotonic()
    assert replica.process.stop() == 0
    assert time.monotonic() - began < 5
    assert not [each for each in said(replica.process) if each["level"] in ("error", "critical")]


def test_a_second_one_at_the_same_ports_does_not_disturb_the_first(kubeconfig, tmp_path, alone) -> None:
    replica = alone.run(line(kubeconfig, tmp_path))
    ports = {f"{name}_port": port for name, port in replica.ports.items()}
    assert "cannot be listened on" in refused(line(kubeconfig, tmp_path / "second", **ports))["why"]
    assert replica.desk("/healthz")[0] == 200


def test_a_part_that_ends_by_a_bug_takes_the_replica_with_it(kubeconfig, tmp_path) -> None:
    flags = settings.parse(line(kubeconfig, tmp_path)[1:])
    assert isinstance(flags, settings.Controller)

    async def run() -> None:
        reached = access.load(flags.kubeconfig)
        async with reached.session() as session:
            running = asyncio.create_task(controller.Controller(flags, reached, session).run())
            await asyncio.sleep(0.5)
            [part] = [task for task in asyncio.all_tasks() if task.get_name() == "hearing"]
            # As if its own code had raised where it waits; the task finds out when it is woken.
            coroutine = part.get_coro()
            assert coroutine is not None
            with pytest.raises(ZeroDivisionError):
                coroutine.throw(ZeroDivisionError())
            part.cancel()
            async with asyncio.timeout(20):
                await running

    with pytest.raises(controller.PartError, match="the part hearing has ended by a bug"):
        asyncio.run(run())
