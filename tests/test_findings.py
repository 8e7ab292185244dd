# SPDX-License-Identifier: Apache-2.0
"""Findings read well and every reason is documented."""

from __future__ import annotations

import re

from outrider import findings


def test_every_reason_has_a_sentence_and_a_name_in_camel_case() -> None:
    for reason in findings.Reason:
        assert re.fullmatch(r"([A-Z][a-z]+)+", reason.value)
        assert reason.doc.endswith(".")
        assert reason == reason.value


def test_a_finding_says_how_bad_where_what_and_what_to_do() -> None:
    made = findings.Finding(
        findings.Severity.ERROR, findings.Reason.TARGET_NOT_FOUND, "MCPToolPolicy", "crm", "p", "spec.targetRefs[0]",
        "there is no MCPServer crm/x", "Create it.",
    )  # fmt: skip
    assert str(made) == (
        "Error: TargetNotFound: MCPToolPolicy crm/p spec.targetRefs[0]: there is no MCPServer crm/x. Create it."
    )


def test_errors_sort_before_warnings() -> None:
    def one(severity):
        return findings.Finding(severity, findings.Reason.SHADOWED, "K", "n", "a", "", "m", "r")

    both = [one(findings.Severity.WARNING), one(findings.Severity.ERROR)]
    assert min(both).severity is findings.Severity.ERROR


def test_what_a_server_lists_wrongly_has_a_remedy_of_its_own() -> None:
    for reason in ("UnknownTool", "DuplicateName", "UnusableToolName", "TooManyTools", "DefinitionsRefused"):
        remedy = findings.Reason(reason).remedy
        assert remedy.endswith(".")
        assert "left out" not in remedy
