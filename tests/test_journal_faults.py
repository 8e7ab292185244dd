# SPDX-License-Identifier: Apache-2.0
"""What the journal survives: full and read-only disks, and being killed at any moment. Real disks, real kills."""

from __future__ import annotations

import itertools
import os
import pathlib
import random
import subprocess
import sys
import textwrap
import time

import pytest
from tests import journals

from outrider import audit

ROOT = pathlib.Path(__file__).resolve().parent.parent

IN_A_SMALL_DISK = """
    import asyncio, os, pathlib, subprocess, sys
    sys.path[:0] = [{sidecar!r}, {root!r}]
    from tests import journals as t
    from outrider_sidecar import journal
    disk = pathlib.Path(sys.argv[1])
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=512k,mode=0700", "none", str(disk)], check=True)
    {body}
"""

FULL = """
    book = t.opened(disk / "j", reserve_bytes=128 * 1024)
    big = t.audit.Body(bytes=5000, content="x" * 5000)
    open_calls = [f"e{number}" for number in range(20)]
    for event in open_calls:
        book.intent(t.intent(event, arguments=big))
    filler = disk / "filler"
    try:
        filler.write_bytes(bytes(512 * 1024))
    except OSError as error:
        print("disk:", error.strerror)
    try:
        while True:
            book.intent(t.intent(f"e{len(open_calls)}", arguments=big))
            open_calls.append(f"e{len(open_calls)}")
    except journal.JournalUnavailable as error:
        print("refused:", error)
    while open_calls:
        book.outcome(t.outcome(open_calls.pop(), result=big))
    print("kept in memory:", len(book._owed))
    try:
        book.intent(t.intent("while full"))
    except journal.JournalUnavailable as error:
        print("refused:", error)
    book.refusal(t.refusal())
    print("kept in memory:", len(book._owed))
    filler.unlink()
    book.intent(t.intent("after"))
    book.close()
    print("kept in memory:", len(book._owed))
    report = t.report(disk / "j")
    print("damage:", report.damage, "under way:", sorted(report.tally.open_calls))
    print("spent:", report.tally.spent()[0].amount // t.budgets.MICRO > 10)
"""

READ_ONLY = """
    def remount(how):
        subprocess.run(["mount", "-o", f"remount,{how}", str(disk)], check=True)

    def attempt():
        try:
            book = t.opened(disk / "j")
        except journal.JournalUnavailable as error:
            print("refused:", error)
        else:
            print("spent:", sum(each.amount for each in book.replay.spent))
            book.intent(t.intent("e1", amount=5))
            book.close()

    attempt()
    remount("ro")
    attempt()
    remount("rw")
    attempt()
    print("damage:", t.report(disk / "j").damage)
"""


def in_a_small_disk(tmp_path, body):
    """Runs `body` in a mount namespace of its own with a tmpfs of 512 KiB at the path it is given."""
    spaces = ["unshare", "--mount"] if os.geteuid() == 0 else ["unshare", "--mount", "--map-root-user"]
    probe = subprocess.run(
        [*spaces, "mount", "-t", "tmpfs", "none", str(tmp_path)], capture_output=True, text=True, check=False
    )
    if probe.returncode:
        pytest.skip(f"a small disk cannot be mounted here: {probe.stderr.strip()}")
    text = textwrap.dedent(IN_A_SMALL_DISK).format(
        sidecar=str(ROOT / "sidecar"), root=str(ROOT), body=textwrap.dedent(body)
    )
    ran = subprocess.run(
        [*spaces, sys.executable, "-c", text, str(tmp_path)], capture_output=True, text=True, check=False
    )
    assert ran.returncode == 0, ran.stderr
    return ran.stdout.splitlines()


def test_a_full_disk_refuses_intents_keeps_outcomes_and_goes_on_by_itself(tmp_path):
    disk, refused, kept, refused_again, kept_refusal, paid, state, spent = in_a_small_disk(tmp_path, FULL)
    assert "free space on its disk" in refused
    assert disk == "disk: No space left on device"
    assert kept == "kept in memory: 0"
    assert "No space left on device" in refused_again
    assert kept_refusal == "kept in memory: 1"
    assert paid == "kept in memory: 0"
    assert state == "damage: None under way: ['after']"
    assert spent == "spent: True"


def test_a_read_only_disk_is_refused_in_a_sentence_and_loses_nothing(tmp_path):
    fresh, refused, again, state = in_a_small_disk(tmp_path, READ_ONLY)
    assert fresh == "spent: 0"
    assert "Read-only file system; mount its folder writable" in refused
    assert again == "spent: 5"
    assert state == "damage: None"


# Killed at any moment

VICTIM = """
    import pathlib, sys, time
    sys.path.insert(0, {sidecar!r})
    from outrider import audit, budgets, names
    from outrider_sidecar import journal, ledger
    import os
    folder, acknowledged = pathlib.Path(sys.argv[1]), int(sys.argv[2])
    book = journal.Journal.open(
        folder, clock=time.time, boot_id="b", instance_random=os.urandom(8), segment_bytes_max=20_000,
        reserve_bytes=65_536,
    )
    units = ledger.Ledger()
    units.restore(book.replay.spent, latest=book.replay.latest)
    limit = budgets.Limit(
        namespace="crm", budget="b", name="calls", unit=budgets.Unit.COST,
        quota=budgets.Quota(amount={cap}, period=budgets.Period.MONTH),
    )
    pool = budgets.pool_of(limit, names.ServerId("crm", "s"), "t")
    who, number, open_calls = audit.Principal(workload="a/b"), 0, []
    os.write(acknowledged, b"ready\\n")
    while True:
        number += 1
        now = time.time()
        if units.available(pool, now) >= 1000:
            hold = units.reserve([budgets.Reservation(pool, 1000)], now)
            event = f"{{book.instance}}-{{number}}"
            book.intent(audit.Intent(
                event=event, request_id=event, principal=who, server="crm/s", tool="t", snapshot="",
                charges=hold.charges(),
            ))
            os.write(acknowledged, event.encode() + b"\\n")  # the call leaves here
            open_calls.append((event, hold))
        elif not open_calls:
            os.write(acknowledged, b"exhausted\\n")
            sys.stdin.read()
        if len(open_calls) > 5 or open_calls and units.available(pool, now) < 1000:
            event, hold = open_calls.pop(0)
            if number % 3:
                book.outcome(audit.Outcome(
                    event=event, request_id=event, status=audit.Status.COMPLETED, reason="Allowed",
                    charges=hold.charges(10),
                ))
                units.settle(hold, 10)
            else:
                book.outcome(audit.Outcome(
                    event=event, request_id=event, status=audit.Status.NOT_SENT, reason="Internal",
                ))
                units.release(hold)
"""


def killed_again_and_again(folder, times, cap, seed):
    """Runs and kills the victim; returns every event whose call left, in order."""
    chance, left = random.Random(seed), []
    text = textwrap.dedent(VICTIM).format(sidecar=str(ROOT / "sidecar"), cap=cap)
    for _ in range(times):
        reading, writing = os.pipe()
        victim = subprocess.Popen(
            [sys.executable, "-c", text, str(folder), str(writing)], stdin=subprocess.PIPE, pass_fds=[writing]
        )
        os.close(writing)
        with os.fdopen(reading, "rb") as pipe:
            assert pipe.readline() == b"ready\n"
            lines = list(itertools.islice(iter(pipe.readline, b"exhausted\n"), chance.randrange(1, 400)))
            victim.kill()
            lines += pipe.readlines()
        victim.stdin.close()
        assert victim.wait() == -9
        left += [line.decode().strip() for line in lines if line.endswith(b"\n") and line != b"exhausted\n"]
    return left


def assert_nothing_was_lost(folder, left, cap):
    book = journals.opened(folder, clock=time.time)
    spent = sum(each.amount for each in book.replay.spent)
    book.close()
    assert journals.report(folder).damage is None
    written = journals.records(folder)
    intents = [each.event for each in written if isinstance(each, audit.Intent)]
    outcomes = [each.event for each in written if isinstance(each, audit.Outcome)]
    assert set(left) <= set(intents), "a call left without an intent on disk"
    assert sorted(outcomes) == sorted(intents), "every intent has exactly one outcome"
    charged = sum(
        each.charges[0].amount for each in written if isinstance(each, audit.Outcome) and each.charges
    )
    assert charged == spent <= cap


def test_a_kill_loses_no_intent_and_no_charge(tmp_path):
    left = killed_again_and_again(tmp_path / "j", times=3, cap=500_000, seed=1)
    assert len(left) > 3
    assert_nothing_was_lost(tmp_path / "j", left, cap=500_000)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(4))
def test_twenty_kills_at_any_moment_lose_nothing_and_never_exceed_the_cap(tmp_path, seed):
    left = killed_again_and_again(tmp_path / "j", times=20, cap=2_000_000, seed=seed)
    assert_nothing_was_lost(tmp_path / "j", left, cap=2_000_000)
