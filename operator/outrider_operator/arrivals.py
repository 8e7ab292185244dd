# SPDX-License-Identifier: Apache-2.0
"""What a new injected pod got, as an event: said of pods that exist, since whoever asks admission may have made the pod up.

Called by the source with what its watch of pods brings. Refuses to say anything of a pod that is not new, which a restart or a change
of leader would repeat, and of one whose annotation does not read as injection writes it.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from outrider import strictjson
from outrider.podnotes import Annotation
from outrider_operator import collection, events

NEW_SECONDS = 120.0
"""Since its creation, by a clock that may be another one's."""

_WAYS = frozenset({"Open", "Token", "Socket"})


def news(changes: Iterable[collection.Change], now: float) -> Iterator[events.Event]:
    """Of pods as `pods.trim` leaves them; `now` in seconds since 1970."""
    for change in changes:
        after = change.after
        if after is None or (change.before is not None and _uid(change.before) == _uid(after)):
            continue
        message = _message(after)
        if message and _new(after, now):
            yield events.Event(_about(after), "Normal", events.Reason.INJECTED, message)


def _uid(pod: Mapping[str, Any]) -> str:
    return str(pod["metadata"].get("uid", ""))


def _new(pod: Mapping[str, Any], now: float) -> bool:
    try:
        created = dt.datetime.fromisoformat(pod["metadata"].get("creationTimestamp") or "")
    except ValueError:
        return False
    return abs(now - created.timestamp()) <= NEW_SECONDS


def _message(pod: Mapping[str, Any]) -> str:
    """'' when the annotation says nothing."""
    text = pod["metadata"].get("annotations", {}).get(Annotation.STATUS.value, "")
    try:
        status = strictjson.parse(text.encode())
    except ValueError:
        return ""
    given = status if isinstance(status, dict) else {}
    image, auth, agents = (given.get(name) for name in ("image", "localAuth", "agentContainers"))
    if not isinstance(agents, list) or not all(isinstance(each, str) for each in agents):
        return ""
    if not isinstance(image, str) or not image or not isinstance(auth, str) or auth not in _WAYS:
        return ""
    return f"sidecar {image} beside {', '.join(agents)}; local-auth is {auth}"


def _about(pod: Mapping[str, Any]) -> events.Reference:
    """What makes the pod, which `kubectl describe` shows; the pod itself when nothing does."""
    metadata = pod["metadata"]
    for owner in metadata.get("ownerReferences", ()):
        return events.Reference(
            owner["apiVersion"], owner["kind"], metadata["namespace"], owner["name"], owner["uid"]
        )
    return events.Reference("v1", "Pod", metadata["namespace"], metadata["name"], _uid(pod))
