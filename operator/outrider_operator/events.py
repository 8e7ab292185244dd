# SPDX-License-Identifier: Apache-2.0
"""Events that a person can act on: something was refused, something stopped, something goes on again.

Called by reporting, on the replica that leads. At transitions only: what stays as it is, is in the status. Refuses to hold more than
a few events that could not be posted yet; they are news, not truth.
"""

from __future__ import annotations

import asyncio
import dataclasses
import logging
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from outrider import documented, names
from outrider_operator import cluster, reasons

log = logging.getLogger("outrider.operator.events")

WAITING_MAX = 256
"""Events that wait to be posted; what comes besides is left out, and said in the log."""

_NEWS = {
    "Accepted": True,
    "ResolvedRefs": False,
    "Enforceable": False,
    "Reachable": True,
    "CredentialsReady": True,
}
"""Conditions whose turn to False is news, once per generation; and whether that it is mended is news too."""

_WORTH_A_WARNING = {
    "Programmed": (reasons.Reason.REJECTED, reasons.Reason.SIDECAR_TOO_OLD),
    "CredentialsReady": (reasons.Reason.CREDENTIALS_EXPIRING,),
}
"""Reasons that are news whatever the condition's status is."""

_POST_SECONDS_MAX = 10.0
_REMEMBERED_MAX = 1_000
_ACTION = "Reconcile"
"""Kubernetes wants to know what was being done."""


class Reason(documented.Documented):
    """Reasons of events about the operator as a whole; those about an object are the reasons of its conditions."""

    FROZEN = "Frozen", "A kind cannot be read reliably; what was known of it last stays in force."
    THAWED = "Thawed", "The kind can be read again; changes take effect."
    MASS_DELETION = (
        "MassDeletion",
        "A large part of a kind's objects was deleted at once. It is in force; was it meant?",
    )
    INJECTED = (
        "Injected",
        "A new pod gets a sidecar; the message says how the sidecar will know its agent. About what makes the pod.",
    )
    SETTINGS_INVALID = (
        "SettingsInvalid",
        "The settings are absent or broken; the last valid ones stay in force, and without any nothing is served.",
    )


@dataclasses.dataclass(frozen=True, slots=True)
class Reference:
    """What an event is about."""

    api_version: str
    kind: str
    namespace: str
    name: str
    uid: str = ""


@dataclasses.dataclass(frozen=True, slots=True)
class Event:
    """`type` is Normal or Warning; `reason` one of reasons.Reason or of Reason."""

    regarding: Reference
    type: str
    reason: str
    message: str


class Sparing:
    """Lets through what is rare: `burst` at once for one object, and one more every `seconds`. What proxies report may flap."""

    def __init__(self, *, burst: int = 4, seconds: float = 150.0) -> None:
        self._burst = burst
        self._seconds = seconds
        self._spent: dict[object, float] = {}

    def may(self, what: object, now: float) -> bool:
        """Whether one more is let through at `now` (monotonic seconds)."""
        free_at = max(now, self._spent.get(what, 0.0))
        if free_at > now + (self._burst - 1) * self._seconds:
            return False
        self._spent[what] = free_at + self._seconds
        if len(self._spent) > _REMEMBERED_MAX:
            self._spent = {each: at for each, at in self._spent.items() if at > now}
        return True


def of_object(kind: str, namespace: str, name: str, uid: str) -> Reference:
    """One of our objects."""
    return Reference(names.API_VERSION, kind, namespace, name, uid)


def transitions(
    regarding: Reference, before: Mapping[str, Any], after: Mapping[str, Any]
) -> tuple[Event, ...]:
    """The events between two statuses of one object."""
    old, new = _conditions(before), _conditions(after)
    found = []
    for kind, mended in _NEWS.items():
        now, was = new.get(kind, {}), old.get(kind, {})
        again = was.get("status") == "False" and was.get("observedGeneration") == now.get(
            "observedGeneration"
        )
        if now.get("status") == "False" and not again:
            found.append(_event(regarding, "Warning", now))
        better = now.get("status") == "True" and now.get("reason") not in _WORTH_A_WARNING.get(kind, ())
        if mended and better and was.get("status") == "False":
            found.append(_event(regarding, "Normal", now))
    for kind, told in _WORTH_A_WARNING.items():
        now, was = new.get(kind, {}), old.get(kind, {})
        if now.get("reason") in told and now.get("reason") != was.get("reason"):
            found.append(_event(regarding, "Warning", now))
    return tuple(found)


def posting(at: cluster.Cluster) -> Callable[[Event], Awaitable[None]]:
    """Posts events to an API server."""

    async def post(event: Event) -> None:
        about = event.regarding
        regarding = cluster.Regarding(about.api_version, about.kind, about.namespace, about.name, about.uid)
        await at.post_event(
            regarding, type_=event.type, reason=event.reason, action=_ACTION, note=event.message
        )

    return post


class Poster:
    """Posts events one after another; a slow API server makes nobody wait."""

    def __init__(self, post: Callable[[Event], Awaitable[Any]]) -> None:
        self._post = post
        self._waiting: asyncio.Queue[Event] = asyncio.Queue(WAITING_MAX)

    def add(self, *given: Event) -> None:
        for event in given:
            try:
                self._waiting.put_nowait(event)
            except asyncio.QueueFull:
                fields = {
                    "reason": event.reason,
                    "about": f"{event.regarding.namespace}/{event.regarding.name}",
                }
                log.warning("an event is left out: too many wait", extra={"fields": fields})

    async def run(self) -> None:
        """Posts until cancelled. An event that cannot be posted is logged instead."""
        while True:
            event = await self._waiting.get()
            try:
                async with asyncio.timeout(_POST_SECONDS_MAX):
                    await self._post(event)
            except Exception as error:  # noqa: BLE001 - whatever keeps news from being posted must not end the posting
                fields = {"reason": event.reason, "text": event.message, "why": str(error) or repr(error)}
                log.warning("an event could not be posted", extra={"fields": fields})


def _event(regarding: Reference, type_: str, condition: Mapping[str, Any]) -> Event:
    return Event(regarding, type_, str(condition["reason"]), str(condition["message"]))


def _conditions(status: Mapping[str, Any]) -> dict[str, Mapping[str, Any]]:
    listed = status.get("conditions")
    given = listed if isinstance(listed, list) else []
    return {str(each.get("type")): each for each in given if isinstance(each, Mapping)}
