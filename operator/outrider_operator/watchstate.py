# SPDX-License-Identifier: Apache-2.0
"""How far one kind can be believed, in words for people: what reflector says of itself.

Called by reflector; read by the source, readiness and status. Pure.
"""

from __future__ import annotations

import dataclasses
import enum

from outrider_operator import apiobjects, listwatch


class Phase(enum.StrEnum):
    """WAITING: nothing was ever read. FROZEN: the last good state stays."""

    WAITING = "waiting"
    SYNCED = "synced"
    FROZEN = "frozen"


class Reason(enum.StrEnum):
    """Why a reflector is not synced."""

    NONE = ""
    NOT_READ_YET = "NotReadYet"
    UNREACHABLE = "Unreachable"
    FORBIDDEN = "Forbidden"
    NOT_SERVED = "NotServed"
    POSITION_WENT_BACK = "PositionWentBack"
    CRD_GONE = "CrdGone"
    TOO_MANY_OBJECTS = "TooManyObjects"
    BUG = "Bug"


@dataclasses.dataclass(frozen=True, slots=True)
class State:
    """`why` is a sentence for people, "" when synced; `since` Unix time."""

    phase: Phase
    reason: Reason
    why: str
    since: float


def reason(error: listwatch.Refused) -> Reason:
    return {401: Reason.FORBIDDEN, 403: Reason.FORBIDDEN, 404: Reason.NOT_SERVED}.get(
        error.status, Reason.UNREACHABLE
    )


def advice(error: listwatch.Refused) -> str:
    """The API server's words, and what to do about them."""
    known = {
        401: "the API server does not know who asks; the token or certificate has ended or is of another cluster",
        403: f"{error.text}; give the operator's ServiceAccount get, list and watch (the Helm chart does)",
        404: "the API server does not serve this kind; install the CRDs (the Helm chart does, unless crds.enabled is false)",
    }
    return known.get(error.status, str(error))


def crd_sentence(watched: listwatch.Watched, state: apiobjects.CrdState, *, known: bool) -> str:
    how = (
        "is being deleted"
        if state == apiobjects.CrdState.TERMINATING
        else "does not exist or is not served yet"
    )
    so = "; what was known stays in force until it is there again" if known else ""
    return f"the CRD {watched} {how}{so}"
