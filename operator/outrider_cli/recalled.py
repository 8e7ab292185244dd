# SPDX-License-Identifier: Apache-2.0
"""One request of a pod's journal: asked for here, looked up there, by this very module inside the sidecar's container.

Called by explain, and run as a program through `kubectl exec`. So a journal never leaves its pod to be searched, and no port is
opened for it. Refuses to change anything.
"""

from __future__ import annotations

import json
import pathlib
import re
import sys
from typing import Any

import msgspec

from outrider.injection import given
from outrider_cli import attempts, kubectl, output

CONTAINER = "outrider"
PYTHON = "/opt/outrider/bin/python"
"""In our images."""

_POD = re.compile(r"([a-z0-9]([-a-z0-9]*[a-z0-9])?)/([a-z0-9]([-a-z0-9.]*[a-z0-9])?)")


def found(journal: pathlib.Path, request: str) -> dict[str, Any] | None:
    """The newest attempt of this request id, None when there is none. Raises JournalUnreadable."""
    under_way: dict[str, dict[str, Any]] = {}
    ended = attempts.rows(attempts.Reader(journal).entries(), under_way)
    rows = [row for row in ended if row.get("requestId") == request]
    rows += [row for row in under_way.values() if row.get("requestId") == request]
    return rows[-1] if rows else None


def in_pod(kube: kubectl.Kubectl, pod: str, request: str) -> dict[str, Any]:
    """The same in the journal of a pod, `namespace/name`. Raises Stop, also when there is none."""
    parts = _POD.fullmatch(pod)
    if parts is None:
        raise output.Stop(
            output.USAGE, f"{output.printable(pod)!r} is no pod", then="write it as NAMESPACE/NAME"
        )
    what = f"the journal of pod {pod} cannot be read"
    line = [PYTHON, "-m", "outrider_cli.recalled", f"{given.JOURNAL_PATH}/journal", request]
    try:
        said = kube.run("exec", "-n", parts[1], parts[3], "-c", CONTAINER, "--", *line, what=what)
    except kubectl.Failed as failed:
        if "container" in failed.why and "not" in failed.why:
            raise output.Stop(
                output.UNREACHABLE, what, why="it has no running container `outrider`",
                then="is it injected and running? `outrider proxy-status` lists those that are",
            ) from None  # fmt: skip
        raise
    try:
        row = json.loads(said)
    except ValueError:
        row = None
        why = "what its container answered is no record"
        raise output.Stop(output.UNREACHABLE, what, why=why, then="is its sidecar of this version?") from None
    if row is None:
        raise output.Stop(
            output.NO, f"no request {request} in the journal of pod {pod}",
            then="check which pod it was, and whether that pod is still the same one",
        )  # fmt: skip
    assert isinstance(row, dict)
    return row


def main(words: list[str]) -> int:
    """The program inside the container: JOURNAL REQUEST-ID. Prints the row, or null."""
    try:
        row = found(pathlib.Path(words[0]), words[1])
    except attempts.JournalUnreadable as error:
        print(error, file=sys.stderr)  # noqa: T201 - a program of its own
        return output.UNREACHABLE
    sys.stdout.write(msgspec.json.encode(row).decode())
    return output.OK


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
