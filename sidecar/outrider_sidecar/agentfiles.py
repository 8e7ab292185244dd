# SPDX-License-Identifier: Apache-2.0
"""What an agent reads to find the proxy: `mcp.json`, and the token alone for clients that only take one.

Called by main once the door is open and before it says that it is ready, so that an agent which has started finds them. The
folder is mounted in agent containers only, which is what keeps the token among them; so the files are for every uid.
"""

from __future__ import annotations

import json
import os
import pathlib
from typing import Any

ENTRY = "outrider"
SOCKET = "mcp.sock"


def write(folder: pathlib.Path, *, port: int, token: bytes | None) -> None:
    """Whole files, `port` 0 for the socket of this folder. Raises OSError."""
    entry: dict[str, Any] = {"type": "http", "url": f"http://127.0.0.1:{port}/mcp", "headers": {}}
    if port == 0:
        entry |= {"url": "http://localhost/mcp", "socket": str(folder / SOCKET)}
    if token is not None:
        entry["headers"] = {"Authorization": f"Bearer {token.decode()}"}
        _write(folder / "token", token + b"\n")
    _write(folder / "mcp.json", json.dumps({"mcpServers": {ENTRY: entry}}, indent=2).encode() + b"\n")


def _write(path: pathlib.Path, content: bytes) -> None:
    scratch = path.with_name(f".{path.name}.{os.getpid()}")
    scratch.write_bytes(content)
    scratch.chmod(0o644)  # whatever our umask is
    scratch.replace(path)
