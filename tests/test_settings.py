# SPDX-License-Identifier: Apache-2.0
"""The proxy's flags: every one is used, and a value that cannot be used is one sentence and exit code 2."""

from __future__ import annotations

import pathlib

import pytest

from outrider_sidecar import settings

NEEDED = ["--operator", "https://operator.example", "--token-file", "/t", "--state", "/s"]


def test_what_is_not_said_has_a_default_that_is_documented() -> None:
    chosen = settings.parse(NEEDED)
    assert (chosen.port, chosen.admin_port, chosen.calls_max) == (15100, 15101, 2048)
    assert (chosen.body_bytes_max, chosen.journal_bytes_max) == (4 * 2**20, 2**30)
    assert chosen.agent_token_file == pathlib.Path("/s/agent-token")
    assert (chosen.role, chosen.admin_host) == ("sidecar", "127.0.0.1")
    assert (chosen.ca_file, chosen.memory) == (None, pathlib.Path("/s"))
    assert (chosen.vault_token_file, chosen.exchange_token_file, chosen.secrets_dir) == (None, None, None)
    assert (chosen.address_file, chosen.allowed_hosts, chosen.log_level) == (None, frozenset(), "info")


def test_what_is_said_is_what_is_used() -> None:
    more = [
        "--ca-file", "/ca", "--memory", "/m", "--port", "0", "--admin-port", "9", "--role", "prober",
        "--admin-host", "10.0.0.7", "--address-file", "/a", "--agent-token-file", "/x", "--allowed-host", "Proxy.Example",
        "--allowed-host", "b:80", "--calls-max", "5", "--body-bytes-max", "6", "--journal-bytes-max", "7", "--log-level", "debug",
        "--local-auth", "socket:1000", "--agent-dir", "/etc/outrider", "--vault-token-file", "/v", "--exchange-token-file", "/e",
        "--secrets-dir", "/secrets",
    ]  # fmt: skip
    chosen = settings.parse([*NEEDED, *more])
    assert chosen == settings.Settings(
        operator="https://operator.example", token_file=pathlib.Path("/t"), state=pathlib.Path("/s"),
        ca_file=pathlib.Path("/ca"), memory=pathlib.Path("/m"), role="prober", port=0, admin_host="10.0.0.7", admin_port=9,
        address_file=pathlib.Path("/a"), agent_token_file=pathlib.Path("/x"), allowed_hosts=frozenset({b"proxy.example", b"b:80"}),
        calls_max=5, body_bytes_max=6, journal_bytes_max=7, log_level="debug",
        local_auth=settings.LocalAuth(settings.Way.SOCKET, 1000), agent_dir=pathlib.Path("/etc/outrider"),
        vault_token_file=pathlib.Path("/v"), exchange_token_file=pathlib.Path("/e"), secrets_dir=pathlib.Path("/secrets"),
    )  # fmt: skip


def test_an_agent_is_known_by_a_token_unless_something_else_is_said() -> None:
    assert settings.parse(NEEDED).local_auth == settings.LocalAuth(settings.Way.TOKEN)
    assert settings.parse(NEEDED).agent_dir is None
    assert settings.parse([*NEEDED, "--local-auth=open"]).local_auth == settings.LocalAuth(settings.Way.OPEN)


@pytest.mark.parametrize(
    "way", ["", "Open", "socket", "socket:", "socket:root", "socket:-1", "token:5", "socket:12345678901"]
)
def test_a_way_to_know_an_agent_that_does_not_exist_is_refused_with_those_that_do(
    way: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        settings.parse([*NEEDED, "--agent-dir", "/a", f"--local-auth={way}"])
    assert "open, token, or socket: with the agent's uid" in capsys.readouterr().err


def test_a_socket_needs_a_folder_to_be_made_in(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        settings.parse([*NEEDED, "--local-auth=socket:1000"])
    assert "a socket needs --agent-dir" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("operator", "used"),
    [
        ("http://127.0.0.1:8080/", "http://127.0.0.1:8080"), ("http://localhost", "http://localhost"),
        ("http://[::1]:80", "http://[::1]:80"), ("https://op.svc:443/base/", "https://op.svc:443/base"),
    ],
)  # fmt: skip
def test_an_operator_is_a_url_and_plain_http_stays_on_this_machine(operator: str, used: str) -> None:
    assert settings.parse([*NEEDED, "--operator", operator]).operator == used


@pytest.mark.parametrize(
    "operator",
    [
        "", "operator.example", "ftp://x", "http://operator.example", "http://127.0.0.1.evil.example", "https://",
        "https://[::1", "https://x:99999", "https://x:0", "https://x:port", "https://user:hunter2@x", "https://x?a=1", "https://x#a",
        "http://localhost@evil.example",
    ],
)  # fmt: skip
def test_an_operator_that_cannot_be_used_is_one_sentence(
    operator: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as caught:
        settings.parse([*NEEDED, "--operator", operator])
    told = capsys.readouterr().err
    assert caught.value.code == 2
    assert "--operator" in told
    assert "Traceback" not in told
    assert "hunter2" not in told


@pytest.mark.parametrize(
    ("flag", "value"),
    [
        ("--port", "-1"), ("--port", "65536"), ("--port", "x"), ("--admin-port", "1.5"), ("--calls-max", "0"),
        ("--body-bytes-max", "-5"), ("--journal-bytes-max", "1G"), ("--log-level", "loud"), ("--surprise", "1"),
    ],
)  # fmt: skip
def test_another_value_that_cannot_be_used_names_its_flag(
    flag: str, value: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as caught:
        settings.parse([*NEEDED, f"{flag}={value}"])
    assert caught.value.code == 2
    assert flag in capsys.readouterr().err


def test_authorities_of_a_connection_without_tls_are_a_mistake(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        settings.parse([*NEEDED, "--operator", "http://127.0.0.1:1", "--ca-file", "/ca"])
    assert "--ca-file" in capsys.readouterr().err


@pytest.mark.parametrize("missing", ["--operator", "--token-file", "--state"])
def test_what_is_needed_is_asked_for(missing: str, capsys: pytest.CaptureFixture[str]) -> None:
    at = NEEDED.index(missing)
    with pytest.raises(SystemExit) as caught:
        settings.parse(NEEDED[:at] + NEEDED[at + 2 :])
    assert caught.value.code == 2
    assert missing in capsys.readouterr().err


def test_where_secrets_come_from_is_nowhere_unless_it_is_said() -> None:
    chosen = settings.parse(NEEDED)
    assert (chosen.vault_token_file, chosen.exchange_token_file, chosen.secrets_dir) == (None, None, None)
    said = ["--vault-token-file", "/v", "--exchange-token-file", "/e", "--secrets-dir", "/d"]
    chosen = settings.parse([*NEEDED, *said])
    assert chosen.vault_token_file == pathlib.Path("/v")
    assert chosen.exchange_token_file == pathlib.Path("/e")
    assert chosen.secrets_dir == pathlib.Path("/d")
