# SPDX-License-Identifier: Apache-2.0
"""What the tests of access tokens share: sources over values in real files, wanted entries, and users."""

from __future__ import annotations

import asyncio
import contextlib
import math
import random
import time
from collections.abc import AsyncIterator

import pytest
from tests.servers import flights

from outrider import identity, names, snapshot
from outrider_sidecar import fetcher, loans, oauth, pacing, secretfiles

SERVER = names.ServerId("crm", "api")
RESOURCE = "https://crm.example/mcp"


class Sources:
    """Both sources of a proxy, with its values in files below `folder`."""

    def __init__(self, folder, *, network=flights.LAPTOP, actor_file=None):
        loop = asyncio.get_running_loop()
        self.folder = folder
        self.slept = 0.0
        self.times = pacing.Timing(loop.time, lambda: time.time() + self.slept, random.random)
        self.fetcher = fetcher.AiohttpFetcher(loop, network=lambda: network)
        values = {snapshot.FileSecret: secretfiles.Files(loop.time)}
        self.endpoint = oauth.Endpoint(values, self.fetcher, self.times)
        made = oauth.sources(self.endpoint, actor_file=actor_file)
        self.own, self.exchanged = made[snapshot.ClientCredentials], made[snapshot.TokenExchange]

    async def close(self):
        await self.own.close()
        await self.exchanged.close()


@contextlib.asynccontextmanager
async def sources(folder, **options) -> AsyncIterator[Sources]:
    """Closed at the end, and nothing of them goes on."""
    before = asyncio.all_tasks()
    made = Sources(folder, **options)
    try:
        yield made
    finally:
        await made.close()
        left = asyncio.all_tasks() - before
        await asyncio.gather(*left, return_exceptions=True)


def client(folder, secret="s3cret", name="secret", **options):
    """A client whose secret is in a file of that name."""
    (folder / name).write_text(secret)
    return snapshot.OAuthClient(id="outrider", secret=snapshot.FileSecret(path=str(folder / name)), **options)


def user(authserver, subject="alice", *, seconds=600.0, **claims):
    """A user as the verifier makes one of a token."""
    token = authserver.user_token(subject, seconds=seconds, **claims)
    user_id = f"idp:{subject}"
    return identity.User(user_id, frozenset({user_id}), expires_at=time.time() + seconds, token=token)


def wanted(where, user=None, deadline=math.inf):
    return loans.Wanted(where, SERVER, user, deadline)


async def unavailable(source, want, **options):
    """How it is refused; and nobody is told a secret by it."""
    with pytest.raises(loans.Unavailable) as failed:
        await source.fetch(want, **options)
    text = str(failed.value)
    assert "s3cret" not in text
    assert "eyJ" not in text
    assert text.isprintable()
    assert failed.value.__cause__ is None
    return failed.value


def own(url, client, **options):
    return snapshot.ClientCredentials(token_url=url, client=client, **options)


async def soon(true):
    """Waits for a condition."""
    async with asyncio.timeout(30):
        while not true():
            await asyncio.sleep(0.01)
