# SPDX-License-Identifier: Apache-2.0
"""What is lent shows in no repr, and why it is not lent is told with a reason."""

from __future__ import annotations

from outrider import decision, identity, names, snapshot
from outrider_sidecar import loans

_SECRET = b"hunter2-the-canary"


def test_nothing_that_holds_a_secret_shows_it() -> None:
    certificate = loans.Certificate(_SECRET, _SECRET, "1")
    loan = loans.Loan(_SECRET, certificate=certificate)
    user = identity.User("okta:ann", frozenset({"okta:ann"}), token=_SECRET.decode())
    wanted = loans.Wanted(snapshot.FileSecret(path="/x"), names.ServerId("crm", "salesforce"), user)
    for each in (certificate, loan, wanted, (loan, certificate, wanted)):
        assert _SECRET.decode() not in f"{each!r} {each}"


def test_what_cannot_be_lent_says_why_and_when_to_ask_again() -> None:
    failure = loans.Unavailable(
        decision.Reason.CREDENTIAL_UNAVAILABLE, "Vault is sealed", retry_after_seconds=2
    )
    assert str(failure) == "Vault is sealed"
    assert failure.reason is decision.Reason.CREDENTIAL_UNAVAILABLE
    assert failure.retry_after_seconds == 2
