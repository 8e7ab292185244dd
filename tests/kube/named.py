# SPDX-License-Identifier: Apache-2.0
"""Names for one process: a command that sees a hosts file of its own, so that `NAME.NS.svc` resolves without a cluster's DNS."""

from __future__ import annotations

import os
import pathlib
import shlex
import tempfile
from collections.abc import Mapping, Sequence


def with_hosts(line: Sequence[str], names: Mapping[str, str]) -> list[str]:
    """`line` in a mount namespace of its own in which each of `names` has its address. Needs util-linux's `unshare`."""
    descriptor, path = tempfile.mkstemp(prefix="hosts-")
    rows = ["127.0.0.1 localhost", "::1 localhost", *(f"{address} {name}" for name, address in names.items())]
    with os.fdopen(descriptor, "w") as opened:
        opened.write("\n".join(rows) + "\n")
    pathlib.Path(path).chmod(0o644)
    mapped = [] if os.geteuid() == 0 else ["--map-root-user"]
    script = (
        f"mount --bind {shlex.quote(path)} /etc/hosts && rm -f {shlex.quote(path)} && exec {shlex.join(line)}"
    )
    return ["unshare", "--mount", *mapped, "sh", "-c", script]
