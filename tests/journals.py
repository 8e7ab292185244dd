# SPDX-License-Identifier: Apache-2.0
"""Builders for journals on a real disk, and what a reader finds in them."""

from __future__ import annotations

import os

from outrider import audit, budgets, chain
from outrider_sidecar import journal

NOW = 1_750_000_000.0
DAY = 86_400
START = int(NOW) - int(NOW) % DAY


class Clock:
    def __init__(self):
        self.now = NOW

    def __call__(self):
        return self.now


def opened(folder, clock=None, **options):
    given = {
        "clock": clock or Clock(),
        "boot_id": "boot-1",
        "instance_random": os.urandom(8),
        "reserve_bytes": 65_536,
    }
    return journal.Journal.open(folder, **given | options)


def charge(amount=budgets.MICRO):
    return budgets.Charge("crm/b/calls", START, START + DAY, amount)


def intent(event="e1", amount=budgets.MICRO, **fields):
    given = {
        "principal": audit.Principal(workload="agents/bot"),
        "server": "crm/s",
        "tool": "query",
        "snapshot": "",
    }
    return audit.Intent(event=event, request_id=event, charges=(charge(amount),), **given | fields)


def outcome(event="e1", amount=budgets.MICRO, **fields):
    given = {"status": audit.Status.COMPLETED, "reason": "Allowed"}
    return audit.Outcome(event=event, request_id=event, charges=(charge(amount),), **given | fields)


def refusal(reason="NotAllowed", **fields):
    return audit.RefusalRecord(event="r", request_id="r", reason=reason, **fields)


def files(folder):
    return [(int(path.stem), path.read_bytes()) for path in sorted(folder.glob("*.seg"))]


def report(folder):
    return chain.verify(files(folder), chain.read_head((folder / "head.json").read_bytes()))


def records(folder):
    found = []
    previous = chain.GENESIS
    for _number, data in files(folder):
        for item in chain.scan(data, previous):
            if isinstance(item, chain.Frame):
                previous = item.digest
                found.append(audit.decode(item.body).record)
    return found


def frames(data):
    """The frames of one segment, whatever came before it."""
    previous = bytes.fromhex(chain.opening(data).previous)
    return [item for item in chain.scan(data, previous) if isinstance(item, chain.Frame)]
