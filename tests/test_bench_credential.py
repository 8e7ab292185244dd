# SPDX-License-Identifier: Apache-2.0
"""The bench of lending lends what it says, from real places, and notices when it does not."""

from __future__ import annotations

import asyncio
import pathlib

import pytest
from bench import credential
from tests import openbao
from tests.authserver import server

from outrider_sidecar import exchange


def test_every_kind_is_lent_from_its_own_place(
    vault: openbao.Vault, authserver: server.AuthServer, tmp_path: pathlib.Path
) -> None:
    world = credential.World(tmp_path, vault, authserver)
    warmed, firsts = asyncio.run(credential.warm(world, 1)), asyncio.run(credential.first(world, 1))
    assert warmed.keys() == firsts.keys() == world.kinds.keys()
    table = credential.shown(warmed, firsts)
    assert all(name in table for name in world.kinds)
    assert "goal: a warm loan at most 5 us" in table
    assert len(authserver.oauth.issued) >= 4  # a client's own and a user's, warm and for the first time


@pytest.mark.parametrize(
    ("name", "lent"),
    [
        ("vault", exchange.Lent(((b"authorization", b"Bearer other"),))), ("vault", None), ("tokenExchange", exchange.Lent()),
        ("none", exchange.Lent(((b"authorization", b"Bearer x"),))),
    ],
)  # fmt: skip
def test_a_loan_that_is_wrong_makes_a_run_void(name: str, lent: exchange.Lent | None) -> None:
    with pytest.raises(ValueError, match="what was lent is wrong"):
        credential._checked(name, lent)
