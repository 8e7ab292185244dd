# SPDX-License-Identifier: Apache-2.0
"""What is known of one object -> its status. Pure: time enters as text, and the same knowledge makes the same status.

Called by reporting. Names follow Gateway API policy attachment where one exists (resources.md). Refuses to call anything true that
is not known: what nobody has looked at is Unknown, and what could not be read stays as it was said to be.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from outrider import findings, manifests, resources
from outrider_operator import lendings, observations
from outrider_operator.reasons import Reason

MESSAGE_CHARACTERS_MAX = 1_024
NAMES_MAX = 5
"""Pods named in a message; the others are counted."""

TOOLS_MAX = PROMPTS_MAX = 500
STALE_SECONDS = 600.0
"""A server nobody has looked at for this long is no longer called reachable or unreachable."""

Status = dict[str, Any]
"""The status subresource of an object, as JSON."""


@dataclasses.dataclass(frozen=True, slots=True)
class Fleet:
    """The running pods that an object concerns, by name, sorted: how many hold it as it is, and why the others do not.

    `settling`: not every replica has reported yet, so that what is missing may only be unheard of.
    """

    pods: int = 0
    programmed: int = 0
    refusals: tuple[tuple[str, str], ...] = ()
    too_old: tuple[str, ...] = ()
    unreachable: tuple[str, ...] = ()
    lagging: tuple[str, ...] = ()
    settling: bool = False

    @property
    def fraction(self) -> str:
        return f"{self.programmed}/{self.pods}"


@dataclasses.dataclass(frozen=True, slots=True)
class Facts:
    """Everything a status is made of.

    `made`: the resource in force. `problems`: why this generation was not accepted; `instead` then says what is in force.
    `fleet` None: nothing has been counted yet. `lent`: how proxies say that its credentials fare. `frozen`: why this kind cannot be read now, '' when it can.
    """

    kind: str
    generation: int
    made: resources.MCPServer | resources.MCPToolPolicy | resources.MCPBudget | None = None
    problems: tuple[manifests.Problem, ...] = ()
    instead: str = ""
    found: tuple[findings.Finding, ...] = ()
    fleet: Fleet | None = None
    targets: int = 0
    observation: observations.Observation | None = None
    lent: tuple[lendings.Standing, ...] = ()
    frozen: str = ""


@dataclasses.dataclass(frozen=True, slots=True)
class _Answer:
    """One condition before its time is known."""

    status: str
    reason: str
    message: str


_REFERENCES = frozenset({findings.Reason.TARGET_NOT_FOUND, findings.Reason.PLATFORM_TARGET_NEEDS_NAMESPACE})
"""Findings that are about what an object refers to; all others say that something in it has no effect."""


def status(
    facts: Facts, previous: Mapping[str, Any], *, now: float, timestamp: Callable[[float], str]
) -> Status:
    """The status of one object after `previous`, its last one. `timestamp` writes `now` as Kubernetes does."""
    said = _said(previous)
    answers = {"Accepted": _accepted(facts), "ResolvedRefs": _resolved(facts)}
    answers["Enforceable"] = _enforceable(facts)
    if facts.kind == "MCPServer":
        answers["Reachable"] = _reachable(facts, said, now=now, timestamp=timestamp)
        answers["ToolsDiscovered"] = _discovered(facts, said, previous)
        answers["CredentialsReady"] = _credentials(facts, said, timestamp=timestamp)
    answers["Programmed"] = _programmed(facts, said)
    answers["Ready"] = _ready(answers)
    if facts.problems:
        answers["Stalled"] = _Answer("True", answers["Accepted"].reason, answers["Accepted"].message)
    stamp = timestamp(now)
    conditions = [
        _condition(kind, answer, said.get(kind, {}), generation=facts.generation, stamp=stamp)
        for kind, answer in sorted(answers.items())
    ]
    return {"observedGeneration": facts.generation, "conditions": conditions, **_figures(facts, previous)}


def _said(previous: Mapping[str, Any]) -> dict[str, Mapping[str, Any]]:
    """The conditions of an earlier status by type; what is not one is passed over."""
    given = previous.get("conditions")
    listed = given if isinstance(given, list) else []
    return {str(each["type"]): each for each in listed if isinstance(each, Mapping) and "type" in each}


def _condition(
    kind: str, answer: _Answer, before: Mapping[str, Any], *, generation: int, stamp: str
) -> dict[str, Any]:
    flipped = before.get("status") != answer.status
    return {
        "type": kind,
        "status": answer.status,
        "reason": answer.reason,
        "message": shortened(answer.message),
        "observedGeneration": generation,
        "lastTransitionTime": stamp if flipped else before.get("lastTransitionTime") or stamp,
    }


def _accepted(facts: Facts) -> _Answer:
    if not facts.problems:
        return _Answer("True", Reason.ACCEPTED, f"Generation {facts.generation} is valid.")
    unknown = all("unknown field" in problem.message for problem in facts.problems)
    reason = Reason.UNKNOWN_FIELD if unknown else Reason.INVALID
    # What is in force comes first: a long list of problems must not push it out of the message.
    return _Answer("False", reason, f"{facts.instead} {_several(map(_problem, facts.problems))}".strip())


def _problem(problem: manifests.Problem) -> str:
    return f"{str(dataclasses.replace(problem, file='', line=0)).removeprefix(': ').rstrip('.')}."


def _resolved(facts: Facts) -> _Answer:
    if facts.problems:
        return _Answer("Unknown", Reason.NOT_ACCEPTED, "Looked at once the object is accepted.")
    missing = [found for found in facts.found if found.reason in _REFERENCES]
    if missing:
        return _Answer("False", missing[0].reason, _several(map(_finding, missing)))
    return _Answer("True", Reason.RESOLVED_REFS, "Everything it refers to exists.")


def _enforceable(facts: Facts) -> _Answer:
    if facts.problems:
        return _Answer("Unknown", Reason.NOT_ACCEPTED, "Looked at once the object is accepted.")
    idle = [found for found in facts.found if found.reason not in _REFERENCES]
    if idle:
        return _Answer("False", idle[0].reason, _several(map(_finding, idle)))
    return _Answer("True", Reason.ENFORCEABLE, "Nothing in it is without effect.")


def _finding(found: findings.Finding) -> str:
    place = f"{found.path}: " if found.path else ""
    return f"{place}{found.message}. {found.remedy}"


def _programmed(facts: Facts, said: Mapping[str, Mapping[str, Any]]) -> _Answer:
    fleet = facts.fleet
    if facts.problems:
        return _Answer("False", Reason.NOT_ACCEPTED, facts.instead)
    if facts.frozen:
        count = f" {fleet.fraction} sidecars hold it as it was then." if fleet is not None else ""
        return _Answer("Unknown", Reason.FROZEN, f"{facts.frozen}{count}")
    if fleet is None:
        return _Answer("Unknown", Reason.PENDING, "Seen; no sidecar has been counted yet.")
    if not fleet.pods:
        return _Answer("True", Reason.NO_SIDECARS, "No running pod with a sidecar is concerned.")
    if fleet.programmed == fleet.pods:
        return _Answer(
            "True", Reason.PROGRAMMED, f"{fleet.fraction} sidecars enforce generation {facts.generation}."
        )
    if fleet.settling:
        return _settling(facts, said)
    parts = [f"{pod} rejected it: {words.rstrip('.')}" for pod, words in fleet.refusals[:NAMES_MAX]]
    if len(fleet.refusals) > NAMES_MAX:
        parts.append(f"{len(fleet.refusals) - NAMES_MAX} more rejected it")
    for pods, what in (
        (fleet.too_old, "too old to express it, denying instead"),
        (fleet.unreachable, "unreachable"),
        (fleet.lagging, "not yet acknowledged"),
    ):
        parts += [f"{len(pods)} {what} ({_named(pods)})"] if pods else []
    reasons = (
        (fleet.refusals, Reason.REJECTED),
        (fleet.too_old, Reason.SIDECAR_TOO_OLD),
        (fleet.unreachable, Reason.SIDECARS_UNREACHABLE),
    )
    reason = next((reason for pods, reason in reasons if pods), Reason.PENDING)
    return _Answer("False", reason, f"{fleet.fraction}: {'; '.join(parts)}.")


def _settling(facts: Facts, said: Mapping[str, Mapping[str, Any]]) -> _Answer:
    """A new leader has not heard of everybody: it repeats what was said of this generation, and makes nothing worse."""
    before = said.get("Programmed", {})
    if before.get("observedGeneration") == facts.generation and before.get("status") in ("True", "False"):
        return _Answer(before["status"], str(before.get("reason")), str(before.get("message")))
    return _Answer(
        "Unknown", Reason.PENDING, "Not every replica of the operator has reported its sidecars yet."
    )


def _ready(answers: Mapping[str, _Answer]) -> _Answer:
    for wanted in ("False", "Unknown"):
        for kind in ("Accepted", "ResolvedRefs", "Programmed"):
            if answers[kind].status == wanted:
                return _Answer(wanted, answers[kind].reason, answers[kind].message)
    return _Answer("True", Reason.READY, answers["Programmed"].message)


def _reachable(
    facts: Facts, said: Mapping[str, Mapping[str, Any]], *, now: float, timestamp: Callable[[float], str]
) -> _Answer:
    seen = facts.observation
    if seen is None:
        before = said.get("Reachable", {})
        if before.get("observedGeneration") == facts.generation and before.get("reason") != Reason.NOT_PROBED:
            return _Answer(str(before.get("status")), str(before.get("reason")), str(before.get("message")))
        return _Answer("Unknown", Reason.NOT_PROBED, "Nothing has tried to reach it yet.")
    if now - seen.seen_at > STALE_SECONDS:
        text = f"Nothing has tried to reach it since {timestamp(seen.seen_at)}; is the prober running?"
        return _Answer("Unknown", Reason.STALE, text)
    if seen.reachable is None:
        return _Answer("Unknown", Reason.NOT_PROBED, seen.message or "Nothing has tried to reach it yet.")
    if seen.reachable:
        return _Answer("True", Reason.REACHABLE, "It answered when its tools were listed.")
    return _Answer("False", Reason.UNREACHABLE, seen.message or "It did not answer.")


def _discovered(facts: Facts, said: Mapping[str, Mapping[str, Any]], previous: Mapping[str, Any]) -> _Answer:
    seen = facts.observation
    before = said.get("ToolsDiscovered", {})
    if seen is None or seen.reachable is None:
        if before.get("reason") in (None, Reason.NOT_PROBED):
            return _Answer("Unknown", Reason.NOT_PROBED, "Nothing has listed its tools yet.")
        return _Answer(str(before.get("status")), str(before.get("reason")), str(before.get("message")))
    count = _count(facts, previous)
    number = f"{count} tool{'' if count == 1 else 's'}"
    if seen.differing:
        others = _several(
            f"{pod} is shown other definitions: {text.rstrip('.')}." for pod, text in seen.differing
        )
        return _Answer("True", Reason.DIFFERING, f"{number}. {others}")
    if seen.reachable:
        return _Answer("True", Reason.DISCOVERED if count else Reason.NO_TOOLS, f"{number} listed.")
    if count:
        return _Answer("True", Reason.DISCOVERED, f"{number}, as listed before it became unreachable.")
    return _Answer("False", Reason.NOT_DISCOVERED, seen.message or "It could not be reached.")


def _credentials(
    facts: Facts, said: Mapping[str, Mapping[str, Any]], *, timestamp: Callable[[float], str]
) -> _Answer:
    """What proxies say of the credentials that it lists; what they say of others is of no concern any more."""
    if facts.made is None or not isinstance(facts.made, resources.MCPServer):
        return _Answer("Unknown", Reason.NOT_ACCEPTED, "Looked at once the object is accepted.")
    listed = frozenset(entry.name for entry in facts.made.spec.credentials or () if entry.none is None)
    if not listed:
        return _Answer("True", Reason.NO_CREDENTIALS, "It lends none.")
    heard = [each for each in facts.lent if each.name in listed]
    failing, expiring = [each for each in heard if each.failing], [each for each in heard if each.expiring]
    if failing:
        return _Answer("False", Reason.CREDENTIALS_FAILING, _several(map(lendings.failure, failing)))
    if expiring:
        words = (lendings.expiry(each, timestamp=timestamp) for each in expiring)
        return _Answer("True", Reason.CREDENTIALS_EXPIRING, _several(words))
    if any(each.ready for each in heard):
        return _Answer("True", Reason.CREDENTIALS_READY, "The proxies that need its credentials have them.")
    before = said.get("CredentialsReady", {})
    concerned = facts.fleet is None or facts.fleet.settling or facts.fleet.pods > 0
    if concerned and before.get("observedGeneration") == facts.generation and before.get("status"):
        return _Answer(str(before["status"]), str(before.get("reason")), str(before.get("message")))
    return _Answer("Unknown", Reason.NOT_LENT, "No proxy has needed its credentials yet.")


def _figures(facts: Facts, previous: Mapping[str, Any]) -> Status:
    """What is in a status besides conditions; what is not known now stays as it was said last."""
    found: Status = {}
    if facts.fleet is not None and not (facts.fleet.settling and "programmed" in previous):
        found["programmed"] = facts.fleet.fraction
    elif "programmed" in previous:
        found["programmed"] = previous["programmed"]
    if facts.kind == "MCPServer":
        return {**found, **_catalogue(facts, previous)}
    if isinstance(facts.made, resources.MCPToolPolicy):
        return {**found, "targets": facts.targets, "rules": len(facts.made.spec.rules)}
    if isinstance(facts.made, resources.MCPBudget):
        return {**found, "limits": len(facts.made.spec.limits)}
    return found


def _catalogue(facts: Facts, previous: Mapping[str, Any]) -> Status:
    """What the server says of itself. A server that is away keeps what it said when it was there."""
    names = ("serverInfo", "protocolVersions", "toolCount", "tools", *_BESIDES_TOOLS)
    kept = {name: previous[name] for name in names if name in previous}
    seen = facts.observation
    if seen is None or not (seen.reachable or seen.tools):
        return kept
    if seen.prompts is not None:
        kept = {name: value for name, value in kept.items() if name not in _BESIDES_TOOLS}
    tools = dict(sorted(seen.tools))
    listed = [{"name": name, "fingerprint": mark} for name, mark in tools.items()]
    found: Status = {"toolCount": max(seen.total, len(tools)), "tools": listed[:TOOLS_MAX]}
    found |= _besides_tools(seen)
    if seen.protocol_versions:
        found["protocolVersions"] = sorted(version[:32] for version in seen.protocol_versions)[:16]
    if seen.server_info:
        # A server says of itself what it likes; the kind's schema has bounds.
        found["serverInfo"] = {name: text[:256] for name, text in sorted(seen.server_info.items())}
    return {**kept, **found}


_BESIDES_TOOLS = (
    "promptCount", "prompts", "resourceCount", "resourceTemplateCount", "resourcesFingerprint", "instructionsFingerprint",
)  # fmt: skip


def _besides_tools(seen: observations.Observation) -> Status:
    """Prompts, resources and instructions change what a model does as tools do; absent of a server that has none."""
    found: Status = {}
    if seen.prompts:
        listed = [{"name": name, "fingerprint": mark} for name, mark in seen.prompts]
        found = {"promptCount": max(seen.prompt_count, len(listed)), "prompts": listed[:PROMPTS_MAX]}
    if seen.resources:
        found |= {"resourceCount": seen.resource_count, "resourceTemplateCount": seen.template_count}
        found["resourcesFingerprint"] = seen.resources
    if seen.instructions:
        found["instructionsFingerprint"] = seen.instructions
    return found


def _count(facts: Facts, previous: Mapping[str, Any]) -> int:
    counted = _catalogue(facts, previous).get("toolCount", 0)
    return counted if isinstance(counted, int) else 0


def _named(pods: tuple[str, ...]) -> str:
    more = len(pods) - NAMES_MAX
    return ", ".join(pods[:NAMES_MAX]) + (f" and {more} more" if more > 0 else "")


def _several(sentences: Iterable[str]) -> str:
    """Sentences in their order, as many as a message holds, and how many there are besides."""
    listed, text = list(sentences), ""
    for index, sentence in enumerate(listed):
        more = f"{text} {sentence}".strip()
        if len(more) > MESSAGE_CHARACTERS_MAX - 200 and text:
            return f"{text} And {len(listed) - index} more."
        text = more
    return text


def shortened(text: str) -> str:
    """The text, cut where a message ends."""
    if len(text) <= MESSAGE_CHARACTERS_MAX:
        return text
    return f"{text[: MESSAGE_CHARACTERS_MAX - 1]}…"
