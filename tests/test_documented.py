# SPDX-License-Identifier: Apache-2.0
"""Constants that users meet are strings with a sentence each."""

from __future__ import annotations

import json

import pytest

from outrider import decision, documented, podnotes
from outrider_operator import events, reasons


class Colour(documented.Documented):
    RED = "Red", "Stop."


def test_a_member_is_its_value_and_has_its_sentence() -> None:
    assert Colour("Red") is Colour.RED
    assert (json.dumps(Colour.RED), f"{Colour.RED}", Colour.RED.doc) == ('"Red"', "Red", "Stop.")


def test_a_member_without_a_sentence_cannot_be_made() -> None:
    with pytest.raises(TypeError, match="doc"):
        documented.Documented("Bare", {"GREEN": "Green"})


@pytest.mark.parametrize(
    "kind", [decision.Reason, reasons.Reason, events.Reason, podnotes.Label, podnotes.Annotation]
)
def test_every_one_of_ours_says_what_it_means(kind: type[documented.Documented]) -> None:
    assert [each for each in kind if not each.doc.strip(" ") or each.doc[0].islower()] == []
