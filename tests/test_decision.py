# SPDX-License-Identifier: Apache-2.0
"""Reasons are documented constants."""

from __future__ import annotations

import re

from outrider import call, decision, testing


def test_every_reason_is_camel_case_unique_and_explained_in_a_sentence() -> None:
    for reason in decision.Reason:
        assert re.fullmatch(r"[A-Z][A-Za-z]+", reason.value)
        assert reason.doc.endswith(".")
        assert len(reason.doc) > 20
    assert len({reason.doc for reason in decision.Reason}) == len(decision.Reason)


def test_a_refusal_carries_the_reason_of_its_objection() -> None:
    objection = decision.Objection(decision.Reason.DENIED, visible=True)
    assert decision.Refusal(call.Call(testing.CRM, "query"), objection).reason is decision.Reason.DENIED
