# SPDX-License-Identifier: Apache-2.0
"""Labels and annotations of pods and namespaces: what their authors may choose, and what injection writes.

Called by injection and by whoever reads an injected pod; the reference page is generated from here. A value that is not one
of those described is refused with the remedy, never corrected: what a pod runs with must be what its author reads.
"""

from __future__ import annotations

import dataclasses
import enum
import re
from collections.abc import Mapping

from outrider import documented, names

PREFIX = f"{names.GROUP}/"


class Label(documented.Documented):
    """Labels, which selectors of the webhook can read."""

    INJECTION = (
        f"{PREFIX}injection",
        "On a namespace: `enabled` gives its new pods a sidecar; `disabled` keeps it from all of them, whatever they say.",
    )
    INJECT = (
        f"{PREFIX}inject",
        (
            "On a pod: `disabled` leaves it alone in an enabled namespace, `enabled` asks for a sidecar in a namespace that says "
            "nothing."
        ),
    )
    INJECTED = (
        f"{PREFIX}injected",
        'On a pod, written by injection: `"true"`. Nobody else may set or remove it.',
    )


class Annotation(documented.Documented):
    """Annotations of pods."""

    SIDECAR_IMAGE = (
        f"{PREFIX}sidecar-image",
        "Another image for the sidecar, one of those that the installation allows (`settings.injection.allowedImages`).",
    )
    LOG_LEVEL = f"{PREFIX}log-level", "What the sidecar logs: `debug`, `info`, `warning` or `error`."
    CPU_REQUEST = f"{PREFIX}sidecar-cpu-request", "CPU that the sidecar asks for, such as `25m`."
    CPU_LIMIT = f"{PREFIX}sidecar-cpu-limit", "CPU that the sidecar may use at most, such as `500m`."
    MEMORY_REQUEST = f"{PREFIX}sidecar-memory-request", "Memory that the sidecar asks for, such as `96Mi`."
    MEMORY_LIMIT = (
        f"{PREFIX}sidecar-memory-limit",
        "Memory that the sidecar may use at most, such as `256Mi`.",
    )
    LISTEN_PORT = (
        f"{PREFIX}listen-port",
        "Where the agent calls on 127.0.0.1: 1024 to 65535, not 15101; for pods whose own container needs 15100.",
    )
    LOCAL_AUTH = (
        f"{PREFIX}local-auth",
        (
            "How the sidecar knows its agent. `Auto`: nothing is asked in a pod of one container, else a token. `Token`: a token "
            "that only agent containers can read. `Socket`: a Unix socket in agent containers, for their uid alone."
        ),
    )
    AGENT_CONTAINERS = (
        f"{PREFIX}agent-containers",
        (
            "Names of the containers that are agents, with commas: they alone get the address and the token. Default: all that "
            "start after the sidecar."
        ),
    )
    SECRETS = (
        f"{PREFIX}secrets",
        (
            "Secrets of the pod's namespace from which the sidecar takes the credentials of servers (`secretRef`): "
            "`SERVER-NAMESPACE/SERVER=SECRET`, with commas, each server once, 16 at most. Only the sidecar has them mounted."
        ),
    )
    STATUS = (
        f"{PREFIX}status",
        "Written by injection, JSON: version, image, localAuth in force, agentContainers.",
    )
    CA = (
        f"{PREFIX}ca",
        "Written by injection: the certificates (PEM) by which the sidecar knows the control plane.",
    )


WRITTEN = (Annotation.STATUS, Annotation.CA)
"""By injection; what a pod's author puts there is overwritten."""
ADMIN_PORT = 15101
LOG_LEVELS = ("debug", "info", "warning", "error")
_QUANTITY = re.compile(r"[0-9]{1,12}(\.[0-9]{1,3})?(m|k|M|G|T|Ki|Mi|Gi|Ti)?")
_CONTAINERS_MAX = 64
SECRETS_MAX = 16
_SECRET = re.compile(r"[a-z0-9]([a-z0-9-]*[a-z0-9])?(\.[a-z0-9]([a-z0-9-]*[a-z0-9])?)*")
_SECRET_CHARACTERS_MAX = 253


class LocalAuth(enum.StrEnum):
    """How the sidecar knows its agent; see `Annotation.LOCAL_AUTH`."""

    AUTO = "Auto"
    TOKEN = "Token"  # noqa: S105 - a way, not a secret
    SOCKET = "Socket"


@dataclasses.dataclass(frozen=True, slots=True)
class Wishes:
    """What a pod's annotations say; None where they say nothing. `secrets`: for which server which Secret."""

    sidecar_image: str | None = None
    log_level: str | None = None
    cpu_request: str | None = None
    cpu_limit: str | None = None
    memory_request: str | None = None
    memory_limit: str | None = None
    listen_port: int | None = None
    local_auth: LocalAuth | None = None
    agent_containers: tuple[str, ...] | None = None
    secrets: tuple[tuple[names.ServerId, str], ...] = ()


def read(given: Mapping[str, object]) -> Wishes | str:
    """The wishes among a pod's annotations; a sentence when one of them cannot be understood."""
    known = {str(each) for each in Annotation}
    strange = sorted(key for key in given if key.startswith(PREFIX) and key not in known)
    if strange:
        chosen = ", ".join(sorted(known - set(WRITTEN)))
        return f"annotation {strange[0]} is not known; remove it or correct its name. Known are {chosen}"
    problem = next(filter(None, (_problem(each, given) for each in Annotation)), None)
    if problem is not None:
        return problem

    def text(which: Annotation) -> str | None:
        return str(given[which]) if which in given else None

    port, auth, agents = (
        text(Annotation.LISTEN_PORT),
        text(Annotation.LOCAL_AUTH),
        text(Annotation.AGENT_CONTAINERS),
    )
    return Wishes(
        sidecar_image=text(Annotation.SIDECAR_IMAGE),
        log_level=text(Annotation.LOG_LEVEL),
        cpu_request=text(Annotation.CPU_REQUEST),
        cpu_limit=text(Annotation.CPU_LIMIT),
        memory_request=text(Annotation.MEMORY_REQUEST),
        memory_limit=text(Annotation.MEMORY_LIMIT),
        listen_port=None if port is None else int(port),
        local_auth=None if auth is None else LocalAuth(auth),
        agent_containers=None if agents is None else tuple(name.strip() for name in agents.split(",")),
        secrets=_secrets(text(Annotation.SECRETS) or "") or (),
    )


def _secrets(value: str) -> tuple[tuple[names.ServerId, str], ...] | None:
    """The pairs of the annotation; None when it cannot be understood."""
    found: dict[names.ServerId, str] = {}
    for entry in value.split(","):
        place, sign, secret = entry.strip().partition("=")
        server = names.server_id(place)
        fits = len(secret) <= _SECRET_CHARACTERS_MAX and _SECRET.fullmatch(secret)
        if not sign or server is None or server in found or not fits:
            return None
        found[server] = secret
    return tuple(found.items()) if len(found) <= SECRETS_MAX else None


def _problem(which: Annotation, given: Mapping[str, object]) -> str | None:
    if which in WRITTEN or which not in given:
        return None
    value = given[which]
    if not isinstance(value, str):
        return f"annotation {which} is not a string; put it in quotes"
    wanted = _wanted(which, value)
    return None if wanted is None else f"annotation {which}: {value[:80]!r} cannot be used; write {wanted}"


def _wanted(which: Annotation, value: str) -> str | None:
    """What to write instead of `value`; None when it is in order."""
    if which is Annotation.LOG_LEVEL:
        return None if value in LOG_LEVELS else f"one of {', '.join(LOG_LEVELS)}"
    if which is Annotation.LOCAL_AUTH:
        ways = tuple(LocalAuth)
        return None if value in ways else f"one of {', '.join(ways)}"
    if which is Annotation.LISTEN_PORT:
        fits = (
            re.fullmatch(r"[1-9][0-9]{3,4}", value)
            and 1024 <= int(value) <= 65535
            and int(value) != ADMIN_PORT
        )
        return None if fits else f"a port from 1024 to 65535 that is not {ADMIN_PORT}"
    if which is Annotation.AGENT_CONTAINERS:
        listed = [name.strip() for name in value.split(",")]
        fits = (
            len(listed) <= _CONTAINERS_MAX
            and len(set(listed)) == len(listed)
            and all(names.is_label(name) for name in listed)
        )
        return None if fits else "names of containers with commas between them, each once, such as app,worker"
    if which is Annotation.SECRETS:
        form = "SERVER-NAMESPACE/SERVER=SECRET with commas between them, each server once, 16 at most"
        return None if _secrets(value) is not None else f"{form}, such as crm/salesforce=salesforce-token"
    if which is Annotation.SIDECAR_IMAGE:
        return None if value else "an image"
    return None if _QUANTITY.fullmatch(value) else "a quantity such as 100m or 128Mi"
