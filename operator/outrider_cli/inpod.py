# SPDX-License-Identifier: Apache-2.0
"""What is looked up inside a pod, by the sidecar's own programs: no port is opened for it, and no file leaves the pod.

Called by explain and doctor. Needs the user's right to `exec` (or to read logs) there, and nothing else.
"""

from __future__ import annotations

import json
import re
from typing import Any

from outrider.injection import given
from outrider_cli import kubectl, output

CONTAINER = "outrider"
PYTHON = "/opt/outrider/bin/python"
"""In our images."""

_POD = re.compile(r"([a-z0-9](?:[-a-z0-9]*[a-z0-9])?)/([a-z0-9](?:[-a-z0-9.]*[a-z0-9])?)")


def place(pod: str) -> tuple[str, str]:
    """(namespace, name) of `namespace/name`. Raises Stop for anything else."""
    parts = _POD.fullmatch(pod)
    if parts is None:
        raise output.Stop(
            output.USAGE, f"{output.printable(pod)!r} is no pod", then="write it as NAMESPACE/NAME"
        )
    return parts[1], parts[2]


def request(kube: kubectl.Kubectl, pod: str, wanted: str) -> dict[str, Any]:
    """The newest attempt of a request id in the journal of `pod`, as `recalled` prints it. Raises Stop, also when there is none."""
    namespace, name = place(pod)
    what = f"the journal of pod {pod} cannot be read"
    line = [PYTHON, "-m", "outrider_cli.recalled", f"{given.JOURNAL_PATH}/journal", wanted]
    try:
        said = kube.run("exec", "-n", namespace, name, "-c", CONTAINER, "--", *line, what=what)
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
        why = "what its container answered is no record"
        raise output.Stop(output.UNREACHABLE, what, why=why, then="is its sidecar of this version?") from None
    if row is None:
        raise output.Stop(
            output.NO, f"no request {wanted} in the journal of pod {pod}",
            then="check which pod it was, and whether that pod is still the same one",
        )  # fmt: skip
    assert isinstance(row, dict)
    return row
