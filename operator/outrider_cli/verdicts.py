# SPDX-License-Identifier: Apache-2.0
"""Whether a journal is what the proxy wrote: its chain, the seal of its head, and digests noted before.

Used by `outrider audit verify`. Reads beside a running proxy. Refuses to call a journal whole when nobody vouches for where
it ends, unless that is what it was asked for.
"""

from __future__ import annotations

import dataclasses
import pathlib
from typing import Any

from outrider import chain
from outrider_cli import attempts

_READINGS_MAX = 3
KEY = "journal-key"
"""Beside the journal's folder, made by the proxy: what the head is sealed with."""


def key(journal: pathlib.Path, file: pathlib.Path | None) -> bytes | None:
    """The key of the journal's head: from `file`, or from beside the folder; None when there is none there.

    Raises JournalUnreadable for a file that cannot hold one, OSError for one that cannot be read.
    """
    path = file or _beside(journal)
    try:
        held = path.read_bytes()
    except FileNotFoundError:
        if file is not None:
            raise
        return None
    if len(held) != chain.KEY_BYTES:
        raise attempts.JournalUnreadable(
            f"{path} is no key of a journal: it has {len(held)} bytes, not {chain.KEY_BYTES}"
        )
    return held


def of(
    journal: pathlib.Path, with_key: bytes | None, *, first: int, expect: bytes | None, content: bool
) -> dict[str, Any]:
    """What `verify` found, as `-o json` prints it: `ok`, what was counted, and `why` (with `segment`, `offset`) when not.

    `content` says that a head nobody vouches for is enough. A journal that is being written is read again when its head
    moved meanwhile. Raises OSError.
    """
    for _ in range(_READINGS_MAX):
        head = _head(journal)
        found = _held_against(journal, head, with_key, first=first, expect=expect)
        if found["ok"] or head == _head(journal):
            break
    if found["ok"] and with_key is None and not content:
        why = f"the head could not be authenticated: there is no key {_beside(journal)}"
        found |= {"ok": False, "why": why}
    return found


def in_words(found: dict[str, Any]) -> tuple[str, str]:
    """The verdict for people, and what to do ("" when nothing is)."""
    if found["ok"]:
        torn = (
            f"; {found['tornBytes']} torn bytes at the end, never acknowledged" if found["tornBytes"] else ""
        )
        counts = (
            f"{found['records']} records in {found['segments']} segments, {found['underWay']} calls under way"
        )
        doubt = "" if found["authenticated"] else " (the head was not authenticated)"
        return f"ok: {counts}{torn}\ndigest: {found['digest']}{doubt}", ""
    if "segment" not in found:
        return f"not certain: {found['why']}", (
            f"its {found['records']} records fit together up to digest {found['digest']}, but whoever can write the folder"
            " could have cut off what followed; give --key FILE, or --no-key to be content with this"
        )
    after = "" if found.get("sequence") is None else f", after record {found['sequence']}"
    return f"damaged: segment {found['segment']} offset {found['offset']}{after}: {found['why']}", (
        "keep the journal as it is, and compare it with its exports; what precedes this place fits together"
    )


def _beside(journal: pathlib.Path) -> pathlib.Path:
    return journal.absolute().parent / KEY


def _head(journal: pathlib.Path) -> bytes | None:
    try:
        return (journal / attempts.HEAD).read_bytes()
    except FileNotFoundError:
        return None


def _held_against(
    journal: pathlib.Path, head: bytes | None, with_key: bytes | None, *, first: int, expect: bytes | None
) -> dict[str, Any]:
    forged = ""
    try:
        read = None if head is None else chain.read_head(head)
        if head is not None:
            chain.read_head(head, with_key)
    except chain.Forged as error:
        forged = f"the head file was changed: {error}"
    except ValueError as error:
        return {"ok": False, "segment": 0, "offset": 0, "why": f"the head file cannot be read: {error}"}
    files = ((number, path.read_bytes()) for number, path in attempts.segments(journal) if number >= first)
    report = chain.verify(files, read, first=first, expect=expect)
    found: dict[str, Any] = {
        "ok": report.damage is None and not forged,
        "journal": str(journal),
        "segments": report.segments,
        "records": report.records,
        "digest": report.digest.hex(),
        "authenticated": with_key is not None and not forged,
        "underWay": len(report.tally.open_calls),
        "tornBytes": report.torn_bytes,
    }
    if report.damage is not None:
        found |= dataclasses.asdict(report.damage)
    elif forged:
        found |= {"segment": report.last, "offset": report.end, "why": forged}
    return found
