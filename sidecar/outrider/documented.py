# SPDX-License-Identifier: Apache-2.0
"""Constants that say what they mean: strings with their sentence, from which the reference pages are generated.

Subclassed by every enumeration that users meet. A member without a sentence cannot be made.
"""

from __future__ import annotations

import enum
from typing import Self


class Documented(enum.StrEnum):
    """Each member is (value, what it means and what to do about it)."""

    doc: str

    def __new__(cls, value: str, doc: str) -> Self:
        """Keeps the sentence beside the constant."""
        member = str.__new__(cls, value)
        member._value_ = value
        member.doc = doc
        return member
