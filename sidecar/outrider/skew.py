# SPDX-License-Identifier: Apache-2.0
"""A snapshot in the bytes of an older schema, for a sidecar that reads no newer one.

Called by the operator's end of the stream. Refuses to leave out what an older reader would then do without: a server that the
older schema cannot express is in it denied whole, and the caller is told which one, so that status can say so.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType

import msgspec

from outrider import names, rules, snapshot

_TOO_OLD = "this pod's sidecar is too old for this server; restart the pod to get a newer one"
_RULE = "sidecar-too-old"


def downgrade(made: snapshot.Snapshot, schema: int) -> tuple[bytes, tuple[str, ...]]:
    """(canonical bytes as a reader of `schema` knows them, what it cannot express as `MCPServer namespace/name`).

    Raises ValueError for a schema that is not among `snapshot.SCHEMAS`.
    """
    if schema not in snapshot.SCHEMAS:
        known = ", ".join(str(each) for each in snapshot.SCHEMAS)
        raise ValueError(f"schema {schema} cannot be written here; these can: {known}")
    unexpressed: list[str] = []
    for newer in range(made.schema, schema, -1):
        made, lost = _STEPS[newer](made)
        unexpressed += [f"MCPServer {server}" for server in lost]
    return snapshot.canonical(made), tuple(sorted(set(unexpressed)))


def _two_to_one(made: snapshot.Snapshot) -> tuple[snapshot.Snapshot, list[names.ServerId]]:
    """Schema 1 dials no private address for a service, and would let a prober's principal call what it may only list."""
    lost = [view.id for view in made.servers if view.endpoint.service or made.probing]
    servers = tuple(_denied(view) if view.id in lost else view for view in made.servers)
    return msgspec.structs.replace(made, servers=servers, probing=False, schema=1), lost


def _denied(view: snapshot.ServerView) -> snapshot.ServerView:
    """The server with a Deny of everything, which wins over every Allow; whoever could call it is told why."""
    ref = names.RuleRef(view.id.namespace, view.id.name, _RULE, view.generation)
    deny = rules.Rule(
        ref=ref, effect=rules.Effect.DENY, key=rules.Key.PROVIDER, tools=("*",), message=_TOO_OLD
    )
    endpoint = msgspec.structs.replace(view.endpoint, service=False)
    return msgspec.structs.replace(view, endpoint=endpoint, rules=(*view.rules, deny), credentials=())


_Step = Callable[[snapshot.Snapshot], tuple[snapshot.Snapshot, list[names.ServerId]]]
_STEPS: Mapping[int, _Step] = MappingProxyType({2: _two_to_one})
"""By the schema they come from: one step down, and the servers it could not carry."""
