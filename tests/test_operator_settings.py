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
        (["--files", ".", "--role", "controller"], "not allowed with"),
        (["--files", ".", "--stream-port", "1"], "--stream-port: only goes with --role controller"),
        (["--role", "controller", "--state", "x"], "--state: only goes with --files"),
        (["--role", "ledger"], "controller"),
        (["--role", "controller", "--namespace", "Up"], "lower-case"),
        (["--role", "controller", "--advertise", "nowhere"], "is not HOST:PORT"),
        (["--role", "controller", "--identity", "a b"], "is not a name"),
        (["--role", "controller", "--certs", "self"], "--certs"),
        (["--role", "controller", "--metrics-port", "70000"], "is not a port"),
    ],
)
def test_a_wrong_command_line_is_refused_with_a_sentence(arguments, words, capsys) -> None:
    with pytest.raises(SystemExit) as caught:
        settings.parse(arguments)
    assert caught.value.code == 2
    assert words in capsys.readouterr().err


def test_a_replica_in_a_pod_takes_its_names_from_the_pod(monkeypatch) -> None:
    monkeypatch.setenv("POD_NAME", "outrider-7c-1")
    monkeypatch.setenv("POD_IP", "fd00::7")
    monkeypatch.setenv("POD_NAMESPACE", "platform")
    flags = settings.parse(["--role", "controller"])
    assert isinstance(flags, settings.Controller)
    assert (flags.namespace, flags.name, flags.identity) == ("platform", "outrider", "outrider-7c-1")
    assert flags.advertise == "[fd00::7]:8443"
    assert (flags.webhook_port, flags.stream_port, flags.metrics_port) == (9443, 8443, 8080)
    assert flags.kubeconfig is None
    assert flags.certs is settings.Certs.OPERATOR


def test_every_flag_of_a_replica_is_taken(tmp_path) -> None:
    flags = settings.parse([
        "--role", "controller", "--kubeconfig", str(tmp_path / "k"), "--namespace", "ns", "--name", "x",
        "--identity", "a", "--advertise", "127.0.0.1:1", "--listen", "127.0.0.1", "--webhook-port", "0",
        "--stream-port", "0", "--metrics-port", "0", "--certs", "provided", "--cert-dir", str(tmp_path),
        "--certificate-name", "localhost", "--certificate-name", "b", "--api-token-file", str(tmp_path / "t"),
        "--address-file", str(tmp_path / "f"), "--log-level", "debug",
    ])  # fmt: skip
    assert flags == settings.Controller(
        kubeconfig=tmp_path / "k", namespace="ns", name="x", identity="a", advertise="127.0.0.1:1",
        listen="127.0.0.1", webhook_port=0, stream_port=0, metrics_port=0, certs=settings.Certs.PROVIDED,
        cert_dir=tmp_path, certificate_names=("localhost", "b"), api_token_file=tmp_path / "t",
        address_file=tmp_path / "f", log_level="debug",
    )  # fmt: skip
