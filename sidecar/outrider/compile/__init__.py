# SPDX-License-Identifier: Apache-2.0
"""resources -> the snapshot of one workload, and the findings about them all. Pure and total.

Called by the operator (through `Compiler`, which remembers), by offline commands and by `can-i`: what they say is what is
enforced. Refuses to put into a snapshot what its workload could never use.
"""

from __future__ import annotations

from collections.abc import Mapping

from outrider import findings, identity, names, resources
from outrider import snapshot as snapshots
from outrider.compile import assembly, checks, scope, views
from outrider.compile.compiler import Changes as Changes
from outrider.compile.compiler import Compiled as Compiled
from outrider.compile.compiler import Compiler as Compiler
from outrider.compile.compiler import Subject as Subject
from outrider.compile.inspection import Inspection as Inspection
from outrider.compile.objects import Delta as Delta
from outrider.compile.objects import Object as Object
from outrider.compile.probing import Probing as Probing


def workload(world: resources.World, namespace: str, service_account: str) -> identity.Workload:
    """A ServiceAccount with the teams that the settings give it."""
    return scope.case(world, namespace, service_account).workload


def snapshot(  # noqa: PLR0913 - three facts of the installation, each with its one place and default
    world: resources.World,
    workload_namespace: str,
    service_account: str,
    *,
    epoch: int = 1,
    loopback: bool = False,
    bridges: Mapping[names.ServerId, str] | None = None,
) -> snapshots.Snapshot:
    """What the proxy of one ServiceAccount enforces.

    `loopback`: servers of this machine may be dialled (a laptop). `bridges`: the URL of the bridge of each server that is a
    command; a command without one is left out. A server is in it only if an Allow rule of its own namespace or of the
    platform applies to the workload, in whichever mode.
    """
    site = assembly.Site(epoch, loopback, bridges or {}, world.api_servers)
    case = scope.case(world, workload_namespace, service_account)
    found = []
    for placed in world.servers:
        url = assembly.address(placed.resource, site)
        view = views.view(case, placed.resource, url=url) if url is not None else None
        if view is not None:
            found.append(view)
    return assembly.assembled(case, found, site)


def check(
    world: resources.World,
    definitions: checks.Definitions | None = None,
    *,
    prompts: checks.Definitions | None = None,
    bridges: Mapping[names.ServerId, str] | None = None,
) -> tuple[findings.Finding, ...]:
    """Everything across objects that is not as it seems, in a fixed order.

    `definitions` are the names of the tools that each server lists, `prompts` those of its prompts; of servers that are not in
    it no tool or prompt is unknown.
    """
    return checks.findings_of(world, definitions or {}, bridges or {}, prompts)
