# SPDX-License-Identifier: Apache-2.0
"""A folder in which users matter: to rules, to an entry of credentials, and to a server that requires one."""

from __future__ import annotations

import json
import pathlib
from typing import Any

from tests import worlds

from outrider import names

ADA = ("--user", "okta:ada", "--group", "okta:sales")
BOB = ("--user", "okta:bob")
BOT = "sa:crm/bot"
SALES: list[dict[str, Any]] = [{"groups": ["okta:sales"]}]
SETTINGS: dict[str, Any] = {
    "apiVersion": names.API_VERSION, "kind": "Settings",
    "identityProviders": [
        {
            "name": "okta", "issuer": "https://okta.example", "audience": "outrider", "jwksUri": "https://okta.example/keys",
            "tokenEndpoints": ["https://okta.example/token"],
        }
    ],
}  # fmt: skip
EXCHANGE = {
    "tokenUrl": "https://okta.example/token", "clientId": "outrider", "clientSecret": {"file": {"path": "client-secret"}},
}  # fmt: skip


def objects() -> list[dict[str, Any]]:
    """`crm/s`: sales may query, anyone may read but Bob; sales' calls have the user's own token, others none."""
    lent = [
        {"name": "own", "from": SALES, "tokenExchange": EXCHANGE},
        {"name": "none", "from": worlds.EVERYONE, "none": True},
    ]
    return [
        SETTINGS,
        worlds.server(credentials=lent),
        worlds.server("strict", requireUser=True),
        worlds.policy(
            worlds.allow(["query"], who=SALES, name="sales"), worlds.allow(["read"], name="all"),
            worlds.deny(["read"], who=[{"users": ["okta:bob"]}], name="not-bob"),
        ),
        worlds.policy(worlds.allow(["*"]), name="strict", target=[{"name": "strict"}]),
    ]  # fmt: skip


def folder(place: pathlib.Path) -> str:
    """Writes the objects there, and what the servers list."""
    place.mkdir(exist_ok=True)
    for number, made in enumerate(objects()):
        (place / f"{number}.yaml").write_text(json.dumps(made))
    tools = [{"name": name, "inputSchema": {"type": "object"}} for name in ("query", "read")]
    (place / "definitions.json").write_text(json.dumps({"crm/s": tools, "crm/strict": tools}))
    return str(place)
