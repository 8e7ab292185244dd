# SPDX-License-Identifier: Apache-2.0
"""What a reflector says of itself names the matter and the remedy."""

from __future__ import annotations

import pytest

from outrider_operator import apiobjects, listwatch, watchstate

POLICIES = listwatch.Watched("outrider.dev", "v1alpha1", "mcptoolpolicies")


@pytest.mark.parametrize(
    ("status", "reason", "words"),
    [
        (0, watchstate.Reason.UNREACHABLE, "no route"),
        (401, watchstate.Reason.FORBIDDEN, "the token or certificate has ended"),
        (
            403,
            watchstate.Reason.FORBIDDEN,
            "no route; give the operator's ServiceAccount get, list and watch",
        ),
        (404, watchstate.Reason.NOT_SERVED, "install the CRDs"),
        (503, watchstate.Reason.UNREACHABLE, "503 Broken: no route"),
    ],
)
def test_a_refusal_has_a_reason_and_a_remedy(status, reason, words):
    error = listwatch.Refused(status, "Broken", "no route")
    assert watchstate.reason(error) is reason
    assert words in watchstate.advice(error)


def test_a_crd_that_goes_or_is_gone_is_named():
    going = watchstate.crd_sentence(POLICIES, apiobjects.CrdState.TERMINATING, known=True)
    assert going == (
        "the CRD mcptoolpolicies.outrider.dev is being deleted; what was known stays in force until it is there again"
    )
    absent = watchstate.crd_sentence(POLICIES, apiobjects.CrdState.ABSENT, known=False)
    assert absent == "the CRD mcptoolpolicies.outrider.dev does not exist or is not served yet"
