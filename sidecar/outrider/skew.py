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


def _three_to_two(made: snapshot.Snapshot) -> tuple[snapshot.Snapshot, list[names.ServerId]]:
    """Schema 2 knows of tools alone and asks nothing of agents: the rest is not relayed there, and tools go on as they are.

    A server over SSE cannot be spoken to at all. What Allows say about prompts and resources is lost, and so is what an entry
    lets its server ask; what Denies say about them is kept by there being none.
    """
    sse = [view.id for view in made.servers if view.endpoint.transport == "SSE"]
    lost = [*sse, *(view.id for view in made.servers if view.id not in sse and _offers_more(view))]
    servers = tuple(_tools_only(_denied(view) if view.id in sse else view) for view in made.servers)
    return msgspec.structs.replace(made, servers=servers, schema=2), lost


def _four_to_three(made: snapshot.Snapshot) -> tuple[snapshot.Snapshot, list[names.ServerId]]:
    """Schema 3 knows no users and no credential that is no file: a server about which either says anything is closed.

    What else must not be dialled is lost: such a proxy refuses the API server's Service alone, as it always did.
    """
    lost = [view.id for view in made.servers if _needs_four(view)]
    servers = tuple(_without_users(_denied(view) if view.id in lost else view) for view in made.servers)
    network = msgspec.structs.replace(made.network, refused=())
    return msgspec.structs.replace(
        made, servers=servers, network=network, vault=None, providers=(), schema=3
    ), lost


def _needs_four(view: snapshot.ServerView) -> bool:
    """Whether leaving out what schema 3 has no field for would let more through, or lend something else."""
    personal = [
        *(rule.callers for rule in view.rules),
        *(limit.callers for limit in view.limits),
        *(entry.callers for entry in view.credentials),
    ]
    sources = [each.source for each in view.credentials if each.source is not None]
    return (
        view.require_user
        or any(personal)
        or any(not isinstance(each, snapshot.FileSecret) for each in sources)
    )


def _without_users(view: snapshot.ServerView) -> snapshot.ServerView:
    return msgspec.structs.replace(
        view,
        rules=tuple(msgspec.structs.replace(rule, callers=()) for rule in view.rules),
        limits=tuple(msgspec.structs.replace(limit, callers=()) for limit in view.limits),
        require_user=False,
        idempotent=(),
    )


def _offers_more(view: snapshot.ServerView) -> bool:
    """Whether an agent is entitled to something of this server that schema 2 cannot give."""
    allows = [rule for rule in view.rules if rule.enforced and rule.effect is rules.Effect.ALLOW]
    more = any(rule.prompts or rule.resources for rule in allows)
    features = view.features
    asks = features.sampling or features.roots or bool(features.elicitation_url_hosts)
    return more or view.instructions or asks


def _tools_only(view: snapshot.ServerView) -> snapshot.ServerView:
    """The same server without what schema 2 has no field for: defaults are left out of the bytes."""
    plain = snapshot.Endpoint(url=view.endpoint.url)
    kept = [msgspec.structs.replace(rule, prompts=(), resources=()) for rule in view.rules if rule.tools]
    return msgspec.structs.replace(
        view,
        endpoint=msgspec.structs.replace(
            view.endpoint, transport=plain.transport, stream_seconds=plain.stream_seconds
        ),
        rules=tuple(kept),
        features=_NOTHING_SAID.features,
        instructions=False,
    )


def _denied(view: snapshot.ServerView) -> snapshot.ServerView:
    """The server with a Deny of everything, which wins over every Allow; whoever could call it is told why."""
    ref = names.RuleRef(view.id.namespace, view.id.name, _RULE, view.generation)
    deny = rules.Rule(
        ref=ref, effect=rules.Effect.DENY, key=rules.Key.PROVIDER, tools=("*",), message=_TOO_OLD
    )
    endpoint = msgspec.structs.replace(view.endpoint, service=False)
    return msgspec.structs.replace(view, endpoint=endpoint, rules=(*view.rules, deny), credentials=())


_NOTHING_SAID = snapshot.ServerView(
    id=names.ServerId("", ""), generation=0, endpoint=snapshot.Endpoint(url="")
)

_Step = Callable[[snapshot.Snapshot], tuple[snapshot.Snapshot, list[names.ServerId]]]
_STEPS: Mapping[int, _Step] = MappingProxyType({2: _two_to_one, 3: _three_to_two, 4: _four_to_three})
"""By the schema they come from: one step down, and the servers it could not carry."""
