# SPDX-License-Identifier: Apache-2.0
"""What the operator's status says, in sentences: what is wrong in the files, what changed, what is in force.

Called by dev, which asks for the status again and again. Pure; a status is JSON as `/v1/status` gives it.
"""

from __future__ import annotations

from typing import Any

from outrider import findings, manifests

Status = dict[str, Any]

_REASONS = {str(reason): reason for reason in findings.Reason}


def changes(before: Status, now: Status) -> list[str]:
    """What to say about two states of the operator, one after the other."""
    lines = []
    if now["problems"] != before["problems"]:
        lines += [str(_problem(each)) for each in now["problems"]]
        lines.append(
            "The last good configuration stays in force." if now["problems"] else "The files are sound again."
        )
    if (accepted := in_force(now)) and accepted != in_force(before):
        lines.append(f"Configuration {accepted[:12]} is in force.")
    refusals = [one["refusal"] for one in before["sidecars"]]
    lines += [
        f"The proxy refuses the configuration: {one['refusal']}"
        for one in now["sidecars"]
        if one["refusal"] and one["refusal"] not in refusals
    ]
    fresh = [each for each in now["findings"] if each not in before["findings"]]
    lines += [str(_finding(each)) for each in fresh]
    if any(each["reason"] == findings.Reason.COMMAND_WITHOUT_BRIDGE for each in fresh):
        lines.append("Bridges are started once: stop `outrider dev` and start it again to run a new command.")
    return lines


def in_force(status: Status) -> str:
    """The version that is offered and that a proxy has accepted; "" while it has not."""
    version: str = status["version"] or ""
    return version if any(one["acked"] == version for one in status["sidecars"]) else ""


def notes(status: Status) -> list[str]:
    """The findings, as sentences."""
    return [str(_finding(each)) for each in status["findings"]]


def _problem(each: dict[str, Any]) -> manifests.Problem:
    return manifests.Problem(
        each["file"], each["line"], each["field"], each["message"], tuple(each["allowed"])
    )


def _finding(each: dict[str, Any]) -> findings.Finding:
    return findings.Finding(
        severity=findings.Severity(each["severity"]),
        reason=_REASONS[each["reason"]],
        kind=each["kind"],
        namespace=each["namespace"],
        name=each["name"],
        path=each["path"],
        message=each["message"],
        remedy=each["remedy"],
    )
