# SPDX-License-Identifier: Apache-2.0
"""The bench of one edit measures an edit: each makes new snapshots, among unrelated objects and without."""

from __future__ import annotations

from bench import change


def test_every_edit_makes_every_workload_another_snapshot() -> None:
    subject = change.Edited(unrelated=20)
    before = {subject._compiler.compiled(*each).version for each in subject.subjects}
    assert subject.edit() > 0
    after = {subject._compiler.compiled(*each).version for each in subject.subjects}
    assert len(before) == len(after) == change.SUBJECTS
    assert not before & after


def test_both_worlds_are_shown_with_their_ratio(capsys) -> None:
    assert change.main(["--unrelated", "10", "--rounds", "2"]) == 0
    out = capsys.readouterr().out
    assert "among 0 unrelated objects" in out
    assert "among 10 unrelated objects" in out
    assert "ratio of the medians" in out
