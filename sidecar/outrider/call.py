# SPDX-License-Identifier: Apache-2.0
"""A call: who asks which server for which tool, prompt or resource with what. What decide decides about.

Made by the pipeline from a parsed request, and by `can-i` and `explain` from the command line.
"""

from __future__ import annotations

import dataclasses
import enum
from typing import Any

from outrider import identity, names


class Kind(enum.Enum):
    """What a name names. That of a resource is its URI."""

    # Members are one each: by identity, for an Enum's own hash is a function of Python, once per call and more.
    __hash__ = object.__hash__

    TOOL = "Tool"
    PROMPT = "Prompt"
    RESOURCE = "Resource"


class Method(enum.Enum):
    """All are an agent's but LIST, which is what the proxy itself asks a server (initialize, lists).

    A COMPLETE is of the kind and name that its `ref` names: a prompt, or a resource by its URI or URI template.
    """

    __hash__ = object.__hash__

    CALL = "tools/call"
    GET = "prompts/get"
    READ = "resources/read"
    SUBSCRIBE = "resources/subscribe"
    COMPLETE = "completion/complete"
    LIST = "tools/list"


ASIDE = frozenset({Method.SUBSCRIBE, Method.COMPLETE})
"""Methods that fetch nothing of their own: they cost nothing, and count as a call where calls are counted."""


@dataclasses.dataclass(frozen=True, slots=True)
class Call:
    """`name` is the server's own name, or the URI of a resource; `arguments` the parsed object, None when absent.

    `user` is the verified person behind the agent; None when no token was presented.
    """

    server: names.ServerId
    name: str
    arguments: dict[str, Any] | None = None
    kind: Kind = Kind.TOOL
    method: Method = Method.CALL
    user: identity.User | None = None
