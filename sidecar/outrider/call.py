# SPDX-License-Identifier: Apache-2.0
"""A call: who asks which server for which tool with what. What decide decides about.

Made by the pipeline from a parsed request, and by `can-i` and `explain` from the command line.
"""

from __future__ import annotations

import dataclasses
import enum
from typing import Any

from outrider import names


class Kind(enum.Enum):
    """What a name names. Prompts and resources join when they are relayed."""

    TOOL = "Tool"


class Method(enum.Enum):
    """CALL is an agent's; LIST is what the proxy itself asks a server (initialize, lists)."""

    CALL = "tools/call"
    LIST = "tools/list"


@dataclasses.dataclass(frozen=True, slots=True)
class Call:
    """`name` is the server's own name of the tool; `arguments` the parsed object, None when absent."""

    server: names.ServerId
    name: str
    arguments: dict[str, Any] | None = None
    kind: Kind = Kind.TOOL
    method: Method = Method.CALL
