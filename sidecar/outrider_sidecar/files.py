# SPDX-License-Identifier: Apache-2.0
"""Files of ours that others rely on: whole or not at all, readable by us only.

Called by main and the prober. Refuses nothing; raises OSError as the system does.
"""

from __future__ import annotations

import os
import pathlib


def write(path: pathlib.Path, content: bytes) -> None:
    """Puts a whole file in the place of whatever was there."""
    scratch = path.with_name(f".{path.name}.{os.getpid()}")
    descriptor = os.open(scratch, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(content)
    scratch.replace(path)
