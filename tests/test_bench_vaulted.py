# SPDX-License-Identifier: Apache-2.0
"""The benchmark of rotating secrets: a real small run with Vault killed and sealed, and that it cannot be fooled."""

from __future__ import annotations

import asyncio
import pathlib
import time

import pytest
from bench import rotating
from bench import vaulted as command

PLAN = command.Plan(seconds=30.0)


def seen(*verdicts: tuple[str, str, bool], replaced: int = 0) -> command.Seen:
    made = command.Seen(secrets={"s0": rotating.Secret("s0", number=replaced + 1)})
    for each in verdicts:
        made.verdicts[each] += 1
    return made


@pytest.mark.parametrize(
    ("verdict", "complains"),
    [
        (("read", "allowed", False), False),
        (("read", "UpstreamUnauthorized", False), True),
        (("read", "UpstreamUnauthorized", True), False),
        (("read", "CredentialUnavailable", False), True),
        (("read", "CredentialUnavailable", True), False),
        (("read", "UpstreamUnreachable", True), True),
        (("read", "no answer (OSError)", True), True),
        (("write", "UpstreamUnauthorized", False), False),
        (("write", "CredentialUnavailable", False), True),
    ],
)
def test_a_failure_that_the_design_does_not_allow_voids_the_run(
    verdict: tuple[str, str, bool], complains: bool
) -> None:
    assert bool(command.judged(seen(verdict, replaced=1), {"s0": 0})) is complains


def test_more_failed_writes_than_replacements_void_the_run() -> None:
    refused = ("write", "UpstreamUnauthorized", False)
    found = seen(refused, replaced=1)
    found.verdicts[refused] = 2
    assert command.judged(found, {"s0": 0}) == ["2 writes failed for 1 replacements"]


def test_a_call_that_was_carried_out_without_an_accepted_secret_voids_the_run() -> None:
    assert "carried out more calls" in command.judged(seen(), {"s0": 1})[0]
    strange = seen()
    assert not strange.secrets["s0"].takes("nothing of ours")
    assert "values that it never had" in command.judged(strange, {"s0": 0})[0]


def test_a_secret_is_good_until_its_grace_is_over_and_not_longer() -> None:
    secret = rotating.Secret("s0")
    secret.replaced(60)
    assert secret.takes("secret-s0-1")
    secret.replaced(60)
    assert secret.takes("secret-s0-1")
    assert secret.takes("secret-s0-2")
    secret.ends["secret-s0-1"] = time.monotonic() - 1
    assert not secret.takes("secret-s0-1")
    assert (secret.accepted, secret.refused, len(secret.late)) == (3, 1, 1)


def test_memory_that_grows_voids_a_run_that_is_long_enough_to_tell() -> None:
    found = seen()
    found.resident = [50.0 + number / 10 for number in range(100)]
    assert command.grown(PLAN, found) == []
    assert "grew from 51.5 to 59.5 MiB" in command.grown(command.Plan(seconds=3_600), found)[0]
    found.resident = [50.0] * 100
    assert command.grown(command.Plan(seconds=3_600), found) == []


def test_memory_is_compared_with_what_it_was_when_everything_had_happened_once() -> None:
    found = seen()
    found.resident = [50.0] * 30 + [60.0] * 70
    assert command.memory(found) == (50.0, 60.0)
    found.round_ended = 30
    assert command.memory(found) == (60.0, 60.0)
    found.round_ended = 95  # too late in the run to leave anything to compare with
    assert command.memory(found) == (50.0, 60.0)


def test_around_an_outage_a_call_may_lack_a_new_secret() -> None:
    found = command.Seen(away=[("killed", 100.0, 110.0)])
    assert [found.was_away(at) for at in (98.0, 99.5, 105.0, 120.0, 130.0)] == [
        False, True, True, True, False,
    ]  # fmt: skip


def test_the_figures_say_when_there_are_none() -> None:
    assert "Vault away: never" in command.text(PLAN, command.Seen())


@pytest.mark.parametrize(
    "flags", [["--minutes", "0"], ["--rate", "0"], ["--every", "0.1"], ["--minutes", "601"], ["--unknown"]]
)
def test_flags_that_cannot_be_run_are_refused(flags: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as left:
        command.parse(flags)
    assert left.value.code == 2
    assert "error: " in capsys.readouterr().err


@pytest.mark.slow
@pytest.mark.timeout(240)
def test_a_small_run_with_a_real_vault_that_goes_and_comes_back(tmp_path: pathlib.Path) -> None:
    plan = command.Plan(seconds=40.0, rate=30.0, every=3.0, grace=4.0, away_every=13.0)
    found = asyncio.run(command.measured(plan, tmp_path))
    assert [name for name, _, _ in found.away][:2] == ["killed", "sealed"]
    assert found.verdicts["read", "allowed", False] > 100
    assert any(secret.refused for secret in found.secrets.values())
    assert "carried out with one: 0" in command.text(plan, found)
