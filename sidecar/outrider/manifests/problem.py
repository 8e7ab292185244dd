# SPDX-License-Identifier: Apache-2.0
"""Problem: what is wrong in a file, where, and what would be right.

Made by manifests and by the operator's file source; printed as it is. Never holds a value from the file.
"""

from __future__ import annotations

import dataclasses


@dataclasses.dataclass(frozen=True, slots=True)
class Problem:
    """`line` counts from 1, 0 when it is about the whole file; `field` such as `spec.rules[0].from`, '' for all."""

    file: str
    line: int
    field: str
    message: str
    allowed: tuple[str, ...] = ()

    def __str__(self) -> str:
        place = f"{self.file}:{self.line}" if self.line else self.file
        text = ": ".join(part for part in (place, self.field, self.message) if part)
        if not self.allowed:
            return text
        return f"{text if text.endswith(('?', '.')) else text + '.'} Allowed: {', '.join(self.allowed)}"


class ManifestError(Exception):
    """Nothing of these files is used; `problems` is not empty and ordered by file and line."""

    def __init__(self, problems: tuple[Problem, ...]) -> None:
        super().__init__("\n".join(str(problem) for problem in problems))
        self.problems = problems
