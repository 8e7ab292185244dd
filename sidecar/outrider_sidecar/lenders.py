# SPDX-License-Identifier: Apache-2.0
"""Every place that secrets come from, made when a configuration first needs it.

Made by main and by the prober. What speaks to Vault or to an authorization server is not even imported before a snapshot names
such a credential, and then in a thread and before that snapshot is in force: no call waits for an import.
"""

from __future__ import annotations

import pathlib
from collections.abc import Callable

from outrider import snapshot
from outrider_sidecar import loans, secretfiles


class Lenders:
    """`sources` is what `credentials.Credentials` takes; it grows. `clock` is loop time."""

    def __init__(self, *, clock: Callable[[], float], secrets_dir: pathlib.Path | None = None) -> None:
        files = secretfiles.Files(clock, secrets_dir)
        self.sources: dict[type, loans.Source] = {
            snapshot.FileSecret: files,
            snapshot.MountedSecret: files,
        }
