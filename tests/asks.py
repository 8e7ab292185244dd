# SPDX-License-Identifier: Apache-2.0
"""What judges asks, with a real journal behind it, and results that ask; for the tests of `asking` and `interviews`."""

from __future__ import annotations

import dataclasses
import json
import os
import pathlib
import time
from collections.abc import Iterator
from typing import Any

import msgspec
import pytest
from tests import asking as requests
from tests import journals

from outrider import audit, snapshot, testing
from outrider_sidecar import asking, features, ids, journal, orders, records, states, telemetry

FORM = {"message": "Who?", "requestedSchema": {"type": "object", "properties": {"name": {"type": "string"}}}}
SECRET = {"message": "In?", "requestedSchema": {"type": "object", "properties": {"password": {}}}}
OFFERED = {"elicitation": {"form": {}}, "roots": {}}
BY_DEFAULT = snapshot.ClientFeatures()
ABOUT = records.About("01CALL", testing.AGENT, "digest", "2026-07-28", "tools/call", "")


@dataclasses.dataclass
class Bench:
    folder: pathlib.Path
    journal: journal.Journal
    telemetry: telemetry.Telemetry
    judge: asking.Asking
    clock: journals.Clock

    @property
    def records(self) -> list[audit.Record]:
        return [each for each in journals.records(self.folder) if not isinstance(each, audit.Opening)]

    def counted(self, decided: str) -> float:
        text = self.telemetry.render().decode()
        lines = [
            each for each in text.splitlines() if each.startswith("outrider_asks_total") and decided in each
        ]
        return sum(float(each.rpartition(" ")[2]) for each in lines)


@pytest.fixture
def bench(tmp_path: pathlib.Path) -> Iterator[Bench]:
    kept = journals.opened(tmp_path)
    tele = telemetry.Telemetry()
    clock = journals.Clock()
    judge = asking.Asking(
        journal=kept,
        writer=records.Writer(kept.key),
        telemetry=tele,
        identifiers=ids.Ids(wall=time.time, entropy=os.urandom),
        seals=states.States(bytes(32), entropy=os.urandom, wall=time.time),
        wall=clock,
    )
    yield Bench(tmp_path, kept, tele, judge, clock)
    kept.close()


def an_order(
    *, level: snapshot.AuditLevel = snapshot.AuditLevel.METADATA, deny: bool = True,
    redact: tuple[snapshot.Redaction, ...] = (), offered: dict[str, Any] = OFFERED,
    allowed: snapshot.ClientFeatures = BY_DEFAULT,
) -> orders.Order:  # fmt: skip
    """A stateless call of `t` whose agent offers `offered` and whose server's entry allows `allowed`."""
    meta = {"io.modelcontextprotocol/clientCapabilities": offered}
    subject = requests.subject(params={"name": "t", "arguments": {"a": 1}, "_meta": meta})
    permit = requests.permit(subject)
    rules = snapshot.AuditRules(level=level, on_unavailable_deny=deny, redact=redact)
    server = msgspec.structs.replace(permit.server, audit=rules, features=allowed)
    permit = dataclasses.replace(permit, server=server)
    return orders.Order(ABOUT, permit, subject, out=None, received=0.0)  # type: ignore[arg-type]


def ruled(bench: Bench, method: str, params: object, **options: Any) -> features.Ruling:
    order = an_order(**options)
    raw = json.dumps(params).encode()
    return bench.judge.ruling(ABOUT, order.permit, method, raw, offered=order.subject.declared)


def a_result(state: str | None = "theirs", **asks: Any) -> bytes:
    given = {} if state is None else {"requestState": state}
    return json.dumps({"resultType": "input_required", "inputRequests": asks, **given}).encode()
