# SPDX-License-Identifier: Apache-2.0
"""One request of a journal, as one line of JSON: the program that `outrider explain` runs inside a sidecar's container.

Called by explain and, through `kubectl exec`, by inpod: so a journal never leaves its pod to be searched. Needs no more than the
sidecar's image has. Refuses to change anything.
"""

from __future__ import annotations

import pathlib
import sys
from typing import Any

import msgspec

from outrider_cli import attempts

UNREADABLE = 4


def found(journal: pathlib.Path, request: str) -> dict[str, Any] | None:
    """The newest attempt of this request id, None when there is none. Raises JournalUnreadable."""
    under_way: dict[str, dict[str, Any]] = {}
    ended = attempts.rows(attempts.Reader(journal).entries(), under_way)
    rows = [row for row in ended if row.get("requestId") == request]
    rows += [row for row in under_way.values() if row.get("requestId") == request]
    return rows[-1] if rows else None


def main(words: list[str]) -> int:
    """JOURNAL REQUEST-ID: prints the row, or null."""
    try:
        row = found(pathlib.Path(words[0]), words[1])
    except attempts.JournalUnreadable as error:
        print(error, file=sys.stderr)  # noqa: T201 - a program of its own
        return UNREADABLE
    sys.stdout.write(msgspec.json.encode(row).decode())
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
