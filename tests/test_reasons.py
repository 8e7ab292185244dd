# SPDX-License-Identifier: Apache-2.0
"""Reasons of conditions are words that Kubernetes takes, and each says what it means."""

from __future__ import annotations

import re

from outrider_operator import reasons


def test_every_reason_says_what_it_means() -> None:
    assert all(reason.doc.endswith((".", "?")) for reason in reasons.Reason)


def test_every_reason_is_one_word_as_the_api_server_wants_it() -> None:
    assert all(re.fullmatch(r"[A-Z][A-Za-z]{2,62}", reason.value) for reason in reasons.Reason)
    assert len({reason.value for reason in reasons.Reason}) == len(reasons.Reason)
