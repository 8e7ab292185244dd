# SPDX-License-Identifier: Apache-2.0
"""What `outrider dev` says about two states of the operator.."""

from __future__ import annotations

import dataclasses
from typing import Any

from outrider import findings, manifests, names
from outrider_cli import news

QUIET: dict[str, Any] = {"version": "a" * 64, "problems": [], "findings": [], "notices": [], "sidecars": []}


def a_status(**more: Any) -> dict[str, Any]:
    return {**QUIET, **more}


def a_sidecar(acked: str | None, refusal: Any = None) -> dict[str, Any]:
    return {"acked": acked, "refusal": refusal}


PROBLEM = manifests.Problem("policies.yaml", 14, "spec.rules[0].form", "unknown field.", ("effect", "from"))
FINDING = findings.Finding(
    findings.Severity.ERROR,
    findings.Reason.TARGET_NOT_FOUND,
    "MCPToolPolicy",
    "a",
    "b",
    "spec",
    "no c",
    "Make c.",
)


def test_nothing_new_is_nothing_said() -> None:
    assert news.changes(QUIET, a_status()) == []


def test_problems_are_shown_as_the_files_loader_words_them() -> None:
    broken = a_status(problems=[{**dataclasses.asdict(PROBLEM), "allowed": list(PROBLEM.allowed)}])
    assert news.changes(QUIET, broken) == [str(PROBLEM), "The last good configuration stays in force."]
    assert news.changes(broken, broken) == []
    assert news.changes(broken, QUIET) == ["The files are sound again."]


def test_a_version_is_in_force_once_a_proxy_accepted_it_and_is_said_once() -> None:
    offered = a_status(version="b" * 64, sidecars=[a_sidecar("a" * 64)])
    accepted = a_status(version="b" * 64, sidecars=[a_sidecar("b" * 64)])
    assert news.changes(QUIET, offered) == []
    assert news.changes(offered, accepted) == ["Configuration bbbbbbbbbbbb is in force."]
    assert news.changes(accepted, accepted) == []
    assert news.in_force(a_status(version=None, sidecars=[a_sidecar(None)])) == ""


def test_a_refusal_of_the_proxy_is_said_once() -> None:
    refused = a_status(sidecars=[a_sidecar(None, {"error": "odd", "path": "$.x"})])
    said = news.changes(QUIET, refused)
    assert len(said) == 1
    assert "odd" in said[0]
    assert news.changes(refused, refused) == []


def test_a_new_finding_is_said_with_its_remedy() -> None:
    found = a_status(findings=[dataclasses.asdict(FINDING)])
    assert news.changes(QUIET, found) == [str(FINDING)]
    assert news.notes(found) == [str(FINDING)]
    assert news.changes(found, found) == []


def test_a_command_added_while_running_is_told_what_starts_it() -> None:
    added = dataclasses.replace(FINDING, reason=findings.Reason.COMMAND_WITHOUT_BRIDGE)
    said = news.changes(QUIET, a_status(findings=[dataclasses.asdict(added)]))
    assert said == [
        "MCPToolPolicy a/b is left out: commands are started with `outrider dev`; stop it and start it again to run this one."
    ]


def test_a_notice_is_said_once_and_again_when_the_same_is_done_again() -> None:
    one = {"budget": "a/b", "limit": "c", "field": "per", "message": "Warning: fresh.", "files": 3}
    noticed = a_status(notices=[one])
    assert news.changes(QUIET, noticed) == ["Warning: fresh."]
    assert news.notes(noticed) == ["Warning: fresh."]
    assert news.changes(noticed, a_status(notices=[one, {**one, "files": 5}])) == ["Warning: fresh."]
    assert news.changes(noticed, noticed) == []


def test_a_command_edited_while_running_is_told_that_it_waits_for_the_next_start() -> None:
    server, added = names.ServerId("a", "b"), names.ServerId("a", "new")
    began, other = {server: ["x", "1"]}, {server: ["x", "2"], added: ["y"]}
    assert news.commands(began, began, began) == []
    (said,) = news.commands(began, other, began)
    assert said.startswith(
        "a/b: spec.endpoint.command has changed, and that has no effect yet: commands are "
    )
    assert said.endswith("started with `outrider dev`; stop it and start it again to run this one.")
    assert news.commands(other, other, began) == []
    assert news.commands(other, began, began) == ["a/b: spec.endpoint.command is again what was started."]
    assert news.commands(began, {}, began) == []
    assert len(news.commands({}, other, began)) == 1


def test_a_credential_that_fails_is_said_once_and_that_it_no_longer_does() -> None:
    amiss = {
        "server": "crm/s",
        "credential": "org",
        "state": "Failing",
        "reason": "CredentialUnavailable",
        "why": "Vault is sealed.",
    }
    failing = a_status(troubles=[amiss])
    assert news.changes(QUIET, failing) == ["Credential org of crm/s fails: Vault is sealed."]
    assert news.notes(failing) == ["Credential org of crm/s fails: Vault is sealed."]
    asking = a_status(troubles=[{**amiss, "why": "refused; does the role exist?"}])
    assert news.notes(asking) == ["Credential org of crm/s fails: refused; does the role exist?"]
    assert news.changes(failing, failing) == []
    assert news.changes(failing, a_status(troubles=[])) == ["Every credential and key can be had again."]
