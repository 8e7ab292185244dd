# SPDX-License-Identifier: Apache-2.0
"""What the operator's status says, in sentences: what is wrong in the files, what changed, what is in force.

Called by running, which asks for the status again and again. Pure; a status is JSON as `/v1/status` gives it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from outrider import findings, manifests, names
from outrider_cli import lent

Status = dict[str, Any]
Commands = Mapping[names.ServerId, Sequence[str]]
"""The `endpoint.command` of each server that has one."""

_STARTED_WITH = "commands are started with `outrider dev`; stop it and start it again to run this one"
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
    lines += [_said(each) for each in now["findings"] if each not in before["findings"]]
    lines += _troubles(before, now)
    return lines + [each["message"] for each in now["notices"] if each not in before["notices"]]


def _troubles(before: Status, now: Status) -> list[str]:
    """Credentials and keys that fail, and those that no longer do. An expiry alone is no news."""
    was, are = lent.in_short(before), lent.in_short(now)
    lines = [_sentence(each) for each in are if each not in was]
    return lines if are or not was else ["Every credential and key can be had again."]


def _sentence(text: str) -> str:
    """With the ends of one, where it has none yet."""
    return f"{text[:1].upper()}{text[1:]}" + ("" if text.endswith((".", "?", "!")) else ".")


def commands(before: Commands, now: Commands, started: Commands) -> list[str]:
    """What to say about two states of the files, one after the other, when `started` is what this run began with.

    No version tells of it: to the proxy a command is its bridge. One that was added is a finding of the operator's.
    """
    lines = []
    for server, began in started.items():
        command = now.get(server)
        if command is None or command == before.get(server, began):
            continue
        what = "is again what was started" if command == began else "has changed, and that has no effect yet"
        then = "" if command == began else f": {_STARTED_WITH}"
        lines.append(f"{server}: spec.endpoint.command {what}{then}.")
    return lines


def in_force(status: Status) -> str:
    """The version that is offered and that a proxy has accepted; "" while it has not."""
    version: str = status["version"] or ""
    return version if any(one["acked"] == version for one in status["sidecars"]) else ""


def notes(status: Status) -> list[str]:
    """The findings and notices, as sentences."""
    found = [str(_finding(each)) for each in status["findings"]]
    return found + [each["message"] for each in status["notices"]] + _troubles({}, status)


def _said(each: dict[str, Any]) -> str:
    """A finding that came up while `outrider dev` runs, where advice to use it would be odd."""
    found = _finding(each)
    if found.reason is not findings.Reason.COMMAND_WITHOUT_BRIDGE:
        return str(found)
    server = f"{found.kind} {found.namespace}/{found.name}"
    return f"{server} is left out: {_STARTED_WITH}."


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
