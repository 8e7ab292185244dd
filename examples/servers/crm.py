# SPDX-License-Identifier: Apache-2.0
"""A small CRM as an MCP server, on the official SDK: what `examples/servers.yaml` calls crm/salesforce.

Started by examples/demo.py and by tests; run by hand with `python -m examples.servers.crm`, for `outrider dev -f examples`.
It refuses every request without `Authorization: Bearer TOKEN`, so that only whoever was lent the credential gets in. TOKEN is
$CRM_TOKEN, or what the file says that `examples/servers.yaml` lends from; made up when there is none yet.
All its data is made up and lives in memory.
"""

from __future__ import annotations

import argparse
import asyncio
import dataclasses
import hmac
import os
import pathlib
import re
import secrets
import socket
import sys
from typing import Any

import uvicorn
from mcp.server import mcpserver
from mcp.server.mcpserver import exceptions
from mcp.types import ToolAnnotations
from starlette.types import ASGIApp, Receive, Scope, Send

LENT = pathlib.Path(__file__).resolve().parent.parent / ".outrider" / "secrets" / "crm-token"
"""What `file: {path: .outrider/secrets/crm-token}` means in examples/servers.yaml."""
CONTACTS = 1_200
CLOSED_PERIODS = frozenset({"2026-01", "2026-02", "2026-03"})
_INDUSTRIES = ("Manufacturing", "Retail", "Energy", "Logistics", "Healthcare")
_FIRST = ("Ada", "Bruno", "Chiara", "Dmitri", "Esra", "Femi", "Greta", "Hiro", "Ines", "Jonas")
_LAST = ("Almeida", "Bauer", "Castillo", "Dubois", "Eriksen", "Fofana", "Gruber", "Haddad")
_COMPANIES = (
    "Aldgate",
    "Bergmann",
    "Corvus",
    "Dunmore",
    "Ekman",
    "Fairway",
    "Gantry",
    "Holm",
    "Isar",
    "Juno",
)

Row = dict[str, Any]
Tables = dict[str, list[Row]]

_QUERY = re.compile(
    r"\s*SELECT\s+(?P<fields>[\w\s,]+?)\s+FROM\s+(?P<table>\w+)"
    r"(?:\s+WHERE\s+(?P<where>.+?))?(?:\s+ORDER\s+BY\s+(?P<order>\w+)(?P<desc>\s+DESC)?)?(?:\s+LIMIT\s+(?P<limit>\d{1,4}))?\s*",
    re.IGNORECASE | re.DOTALL,
)
_CONDITION = re.compile(
    r"\s*(?P<field>\w+)\s*(?P<op>=|>|<)\s*(?:'(?P<text>[^']*)'|(?P<number>\d+(?:\.\d+)?))\s*"
)


def seed() -> Tables:
    """The same data at every start: 10 accounts, 20 opportunities, CONTACTS contacts."""
    accounts: list[Row] = [
        {
            "Id": f"001-{at:03}",
            "Name": f"{name} GmbH",
            "Industry": _INDUSTRIES[at % 5],
            "Employees": 40 + 173 * at,
        }
        for at, name in enumerate(_COMPANIES)
    ]
    opportunities: list[Row] = [
        {
            "Id": f"006-{at:03}",
            "AccountId": f"001-{at % 10:03}",
            "Name": f"Renewal {2024 + at % 3}",
            "Amount": 1500.0 * (at + 1),
        }
        for at in range(20)
    ]
    contacts: list[Row] = [
        {
            "Id": f"003-{at:04}",
            "AccountId": f"001-{at % 10:03}",
            "Name": f"{_FIRST[at % 10]} {_LAST[at // 10 % 8]}",
            "Email": f"{_FIRST[at % 10]}.{_LAST[at // 10 % 8]}.{at}@{_COMPANIES[at % 10]}.example".lower(),
            "Phone": f"+49 30 555 {at:04}",
        }
        for at in range(CONTACTS)
    ]
    return {"account": accounts, "opportunity": opportunities, "contact": contacts}


@dataclasses.dataclass(frozen=True, slots=True)
class Condition:
    """One comparison of a WHERE."""

    field: str
    op: str
    value: str | float

    def holds(self, row: Row) -> bool:
        found = row[self.field]
        if isinstance(found, str) is not isinstance(self.value, str):
            raise exceptions.ToolError(f"{self.field} and {self.value!r} cannot be compared")
        if self.op == "=":
            return bool(found == self.value)
        return bool(found > self.value) if self.op == ">" else bool(found < self.value)


def select(tables: Tables, text: str) -> list[Row]:
    """Runs one SELECT of a small read-only subset of SOQL. Raises ToolError with what is wrong."""
    parsed = _QUERY.fullmatch(text)
    if parsed is None:
        raise exceptions.ToolError(
            "write: SELECT fields FROM Account|Opportunity|Contact [WHERE a = 'b' AND ...] [ORDER BY f [DESC]] [LIMIT n]"
        )
    rows = tables.get(parsed["table"].lower())
    if rows is None:
        raise exceptions.ToolError(f"there is no {parsed['table']}; there are Account, Opportunity, Contact")
    if not rows:
        return []
    by_case = {name.lower(): name for name in rows[0]}

    def column(name: str) -> str:
        if name.lower() not in by_case:
            raise exceptions.ToolError(f"{parsed['table']} has no field {name}; it has {', '.join(rows[0])}")
        return by_case[name.lower()]

    conditions = []
    for part in re.split(r"\s+AND\s+", parsed["where"], flags=re.IGNORECASE) if parsed["where"] else ():
        found = _CONDITION.fullmatch(part)
        if found is None:
            raise exceptions.ToolError(
                f"cannot read the condition {part!r}; write field = 'text' or field > 10"
            )
        value = found["text"] if found["number"] is None else float(found["number"])
        conditions.append(Condition(column(found["field"]), found["op"], value))
    chosen = [row for row in rows if all(condition.holds(row) for condition in conditions)]
    if parsed["order"]:
        order = column(parsed["order"])
        chosen = sorted(chosen, key=lambda row: row[order], reverse=bool(parsed["desc"]))
    fields = [column(name.strip()) for name in parsed["fields"].split(",")]
    return [{name: row[name] for name in fields} for row in chosen[: int(parsed["limit"] or 200)]]


class Crm:
    """The tools, over one set of tables. Their docstrings are what agents read."""

    def __init__(self) -> None:
        self.tables = seed()

    def query(self, soql: str) -> list[dict[str, Any]]:
        """Read records with a SOQL SELECT over Account, Opportunity and Contact."""
        return select(self.tables, soql)

    def get_account(self, account_id: str) -> dict[str, Any]:
        """Read one account and its open opportunities."""
        account = self._account(account_id)
        mine = [row for row in self.tables["opportunity"] if row["AccountId"] == account_id]
        return {**account, "Opportunities": mine}

    def create_opportunity(self, account: str, amount: float, name: str = "New business") -> dict[str, Any]:
        """Create an opportunity of `amount` for an account id."""
        self._account(account)
        made = {
            "Id": f"006-{len(self.tables['opportunity']):03}",
            "AccountId": account,
            "Name": name,
            "Amount": amount,
        }
        self.tables["opportunity"].append(made)
        return made

    def export_all_contacts(self) -> list[dict[str, Any]]:
        """Every contact of every account, with e-mail addresses and phone numbers."""
        return list(self.tables["contact"])

    def delete_account(self, account_id: str) -> dict[str, Any]:
        """Delete an account with its opportunities. There is no way back."""
        account = self._account(account_id)
        self.tables["account"].remove(account)
        self.tables["opportunity"] = [
            row for row in self.tables["opportunity"] if row["AccountId"] != account_id
        ]
        return {"deleted": account_id}

    def debug_dump(self) -> dict[str, Any]:
        """Internal state of the server, for its developers."""
        return {"tables": {name: len(rows) for name, rows in self.tables.items()}, "pid": os.getpid()}

    async def sync_invoices(self, period: str, wait_seconds: float = 0.0) -> dict[str, Any]:
        """Copy a month's invoices from billing; closed months fail. `wait_seconds` (at most 120) makes it slow."""
        await asyncio.sleep(min(max(wait_seconds, 0.0), 120.0))
        if period in CLOSED_PERIODS:
            raise exceptions.ToolError(f"billing refused: the period {period} is closed")
        return {"period": period, "invoices": 37}

    def _account(self, account_id: str) -> Row:
        for row in self.tables["account"]:
            if row["Id"] == account_id:
                return row
        raise exceptions.ToolError(f"there is no account {account_id}")


def server() -> mcpserver.MCPServer:
    """The MCP server with its seven tools; it speaks whatever eras the SDK speaks."""
    made = mcpserver.MCPServer("example-crm", title="Example CRM", version="1.0.0", log_level="WARNING")
    crm = Crm()
    reads = ToolAnnotations(read_only_hint=True)
    writes = ToolAnnotations(destructive_hint=False)
    destroys = ToolAnnotations(destructive_hint=True)
    for tool, hints in (
        (crm.query, reads),
        (crm.get_account, reads),
        (crm.create_opportunity, writes),
        (crm.export_all_contacts, reads),
        (crm.delete_account, destroys),
        (crm.debug_dump, reads),
        (crm.sync_invoices, writes),
    ):
        made.tool(annotations=hints)(tool)
    return made


class BearerOnly:
    """ASGI middleware: 401 for whoever does not present the token."""

    def __init__(self, inner: ASGIApp, token: str) -> None:
        self._inner = inner
        self._wanted = f"Bearer {token}".encode()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._inner(scope, receive, send)
            return
        given = dict(scope["headers"]).get(b"authorization", b"")
        if hmac.compare_digest(given, self._wanted):
            await self._inner(scope, receive, send)
            return
        headers = [(b"content-type", b"text/plain"), (b"www-authenticate", b"Bearer")]
        await send({"type": "http.response.start", "status": 401, "headers": headers})
        await send({"type": "http.response.body", "body": b"a bearer token is needed\n"})


def token_of(file: pathlib.Path) -> str:
    """The token in `file`, which is written (mode 0600) when it is not there. Raises OSError."""
    try:
        return file.read_text().strip()
    except FileNotFoundError:
        made = secrets.token_hex(16)
        for folder in (file.parent.parent, file.parent):
            folder.mkdir(mode=0o700, exist_ok=True)
        with os.fdopen(os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as opened:
            opened.write(made)
        return made


def main() -> None:
    """Serves on loopback until it is told to stop."""
    parser = argparse.ArgumentParser(prog="crm", description="An example CRM as an MCP server.")
    parser.add_argument("--port", type=int, default=9101)
    parser.add_argument(
        "--token-file", type=pathlib.Path, default=LENT, help="holds the token; made if absent"
    )
    given = parser.parse_args()
    port: int = given.port
    try:
        token = os.environ.get("CRM_TOKEN") or token_of(given.token_file)
    except OSError as error:
        sys.exit(f"{given.token_file}: {error.strerror}; set CRM_TOKEN, or name another --token-file")
    if not token:
        sys.exit(f"{given.token_file} is empty; remove it, or write the token into it")
    try:
        socket.create_server(("127.0.0.1", port)).close()
    except OSError as error:
        sys.exit(f"port {port}: {error.strerror}; name another with --port, also in examples/servers.yaml")
    sys.stdout.write(f"CRM on http://127.0.0.1:{port}/mcp. Ctrl-C stops it.\n")
    sys.stdout.flush()
    app = BearerOnly(server().streamable_http_app(), token)
    uvicorn.run(app, host="127.0.0.1", port=port, log_level="warning", timeout_graceful_shutdown=2)


if __name__ == "__main__":
    main()
