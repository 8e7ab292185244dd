# SPDX-License-Identifier: Apache-2.0
"""A laptop whose credentials are in a real Vault: entries in the shortest form, and the proxy with a pod's tokens in files.

What `outrider vault-policy` prints of the very files is run at that Vault first. The workload is the laptop's, agents/bot.
"""

from __future__ import annotations

import contextlib
import json
import pathlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from tests import laptop, openbao
from tests.vault import tenants

WORKLOAD = "agents"
ANYONE = [{"anyone": True}]


def settings(vault: openbao.Vault | None, *, at: str = "", **more: Any) -> str:
    """The laptop's, with this Vault (by the method jwt, behind `at` if something is before it) and whatever else."""
    trusted: dict[str, Any] = {}
    if vault is not None:
        trusted = {"address": at or vault.address, "method": "JWT", "authPath": "jwt"}
        if vault.ca_pem is not None:
            trusted["caBundle"] = vault.ca_pem
    whole = {
        "apiVersion": "outrider.dev/v1alpha1", "kind": "Settings", "platformNamespace": "outrider-system",
        "workload": {"namespace": WORKLOAD, "serviceAccount": "bot"}, **({"vault": trusted} if trusted else {}), **more,
    }  # fmt: skip
    return json.dumps(whole)


def kv(path: str = "api", key: str = "token", owner: str = "Server", **more: Any) -> dict[str, Any]:
    return {"name": "token", "from": ANYONE, "vault": {"owner": owner, "path": path, "key": key}, **more}


def path(server: str, name: str = "api") -> str:
    """Where a KV secret of a server's is, below the mount."""
    return f"outrider/servers/{server}/{name}"


def entry(server: str, url: str, *credentials: dict[str, Any], **spec: Any) -> str:
    """An MCPServer, and what lets everybody call it."""
    short = server.replace("/", "-")
    return laptop.documents(
        laptop.server(server, url, credentials=list(credentials), **spec),
        laptop.policy(f"outrider-system/{short}", server, laptop.allow()),
    )


def admitted(files: pathlib.Path, vault: openbao.Vault) -> None:
    """Runs what `vault-policy` prints for these files."""
    ran = laptop.Laptop(files.parent).outrider("vault-policy", "-f", str(files), "-o", "sh")
    assert ran.returncode == 0, ran.stderr
    tenants.applied(vault, ran.stdout)


@contextlib.contextmanager
def running(
    folder: pathlib.Path,
    vault: openbao.Vault | None,
    entries: Sequence[str],
    *,
    flags: Sequence[str] = (),
    then: Callable[[], object] = lambda: None,
    tokens: Mapping[str, str] | None = None,
    **more: Any,
) -> Iterator[laptop.Laptop]:
    """Operator and proxy over these entries, started when Vault is set up and after `then`.

    `tokens` are files beside `vault` in the folder of tokens, `more` are settings.
    """
    made = laptop.Laptop(folder)
    pod = folder / "tokens"
    pod.mkdir()
    for name, text in {**(tokens or {}), **({"vault": vault.jwt()} if vault is not None else {})}.items():
        (pod / name).write_text(text)
    made.write("outrider.yaml", settings(vault, **more))
    made.write("all.yaml", laptop.documents(*entries))
    if vault is not None:
        admitted(made.files, vault)
        then()
        flags = ("--vault-token-file", str(pod / "vault"), *flags)
    if "exchange" in (tokens or {}):
        flags = ("--exchange-token-file", str(pod / "exchange"), *flags)
    try:
        made.start_operator()
        made.start_proxy(*flags)
        yield made
    finally:
        made.close()
        print(*{each.log: each.tail() for each in made.started}.values(), sep="\n")


def records(home: laptop.Laptop, server: str) -> list[dict[str, Any]]:
    """What the journal says about calls of a server, the newest last."""
    ran = home.outrider("audit", "search", "--journal", str(home.journal), "--server", server, "-o", "json")
    assert ran.returncode == 0, ran.stderr
    found: list[dict[str, Any]] = json.loads(ran.stdout)
    return sorted(found, key=lambda each: each["time"])
