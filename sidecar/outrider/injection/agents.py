# SPDX-License-Identifier: Apache-2.0
"""Which containers are agents, how the proxy knows them, and what they are given to find it.

Called by pods. The agent needs no code of ours: two environment variables and a file. What its author set stays; only a
proxy variable without an exception for loopback gets one, since the call to 127.0.0.1 would leave the pod otherwise.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

from outrider import podnotes
from outrider.injection import given, shapes

_PROXY_NAMES = ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY")
_LOOPBACK = ("127.0.0.1", "localhost")


@dataclasses.dataclass(frozen=True, slots=True)
class Callers:
    """`auth` is what is in force, `flag` how the proxy is told; `why` a clause for people."""

    auth: str
    flag: str
    why: str
    containers: tuple[str, ...]


def callers(
    pod: Mapping[str, Any], after: Sequence[Mapping[str, Any]], wishes: podnotes.Wishes, default: podnotes.LocalAuth
) -> Callers | str:  # fmt: skip
    """Who may call the proxy of this pod; a sentence when that cannot be arranged. `after`: what starts after the proxy."""
    there = [shapes.name(each) for each in after if shapes.name(each) not in given.MESHES]
    chosen = wishes.agent_containers if wishes.agent_containers is not None else tuple(there)
    known = frozenset(there)  # nobody has counted the containers yet
    for name in chosen:
        if name not in known:
            return (
                f"annotation {podnotes.Annotation.AGENT_CONTAINERS} names {name}, but the containers that can call the "
                f"proxy are {', '.join(there) or 'none'}; correct it"
            )
    way = wishes.local_auth or default
    if way is podnotes.LocalAuth.SOCKET:
        picked = frozenset(chosen)
        return _socket(pod, [each for each in after if shapes.name(each) in picked], chosen)
    if way is podnotes.LocalAuth.TOKEN:
        return Callers("Token", "token", "as asked for", chosen)
    count = sum(1 for _ in shapes.others(pod))
    if count == 1:
        return Callers("Open", "open", "the pod has one container, so loopback is the agent's", chosen)
    return Callers(
        "Token", "token", f"the pod has {count} containers, and all of them reach loopback", chosen
    )


def _socket(
    pod: Mapping[str, Any], agents: Sequence[Mapping[str, Any]], chosen: tuple[str, ...]
) -> Callers | str:
    uids = {shapes.uid(pod, each) for each in agents}
    if len(uids) != 1 or None in uids:
        return (
            f"local-auth Socket needs one runAsUser that is written down for the agent containers ({', '.join(chosen)}); "
            "set securityContext.runAsUser, or use Token"
        )
    return Callers("Socket", f"socket:{uids.pop()}", "as asked for", chosen)


def equipped(container: Mapping[str, Any], *, port: int, socket: bool) -> dict[str, Any]:
    """An agent's container with what it needs to find the proxy."""
    mounts = [each for each in shapes.sequence(container, "volumeMounts") if not _is_agents(each)]
    mounts.append({"name": given.AGENT_VOLUME, "mountPath": given.AGENT_PATH, "readOnly": True})
    wanted = {"MCP_CONFIG": f"{given.AGENT_PATH}/mcp.json"}
    if not socket:  # there is no URL for a Unix socket; the file says its path
        wanted["MCP_GATEWAY_URL"] = f"http://127.0.0.1:{port}/mcp"
    environment = list(shapes.sequence(container, "env"))
    there = {shapes.name(each) for each in environment if isinstance(each, Mapping)}
    environment += [{"name": name, "value": value} for name, value in wanted.items() if name not in there]
    return {**container, "env": _past_proxies(environment), "volumeMounts": mounts}


def bare(container: Mapping[str, Any]) -> dict[str, Any]:
    """Another container: without the agent's volume, should an earlier run or an author have put it there."""
    if not any(_is_agents(each) for each in shapes.sequence(container, "volumeMounts")):
        return dict(container)
    kept = [each for each in shapes.sequence(container, "volumeMounts") if not _is_agents(each)]
    return {**container, "volumeMounts": kept}


def _is_agents(mount: object) -> bool:
    return isinstance(mount, Mapping) and mount.get("name") == given.AGENT_VOLUME


def _past_proxies(environment: list[Any]) -> list[Any]:
    """With loopback in NO_PROXY when a proxy is set. A value that comes from elsewhere (`valueFrom`) cannot be added to."""
    names = {shapes.name(each) for each in environment if isinstance(each, Mapping)}
    if not any(name.upper() in _PROXY_NAMES for name in names):
        return environment
    made = [_with_loopback(each) for each in environment]
    if not names & {"NO_PROXY", "no_proxy"}:
        made += [{"name": name, "value": ",".join(_LOOPBACK)} for name in ("NO_PROXY", "no_proxy")]
    return made


def _with_loopback(variable: Any) -> Any:
    if not isinstance(variable, Mapping) or shapes.name(variable).upper() != "NO_PROXY":
        return variable
    value = variable.get("value", "")
    if "valueFrom" in variable or not isinstance(value, str):
        return variable
    listed = [entry.strip() for entry in value.split(",") if entry.strip()]
    missing = [host for host in _LOOPBACK if host not in listed and "*" not in listed]
    return {**variable, "value": ",".join([*listed, *missing])} if missing else variable
