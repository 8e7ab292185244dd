# SPDX-License-Identifier: Apache-2.0
"""The proxy's side of Vault, for tests: a site at a real OpenBao, a pod's token in a file, a clock that can be put forward."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import pathlib
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

from tests import openbao

from outrider import names, snapshot
from outrider_sidecar import loans, pacing, vaulted

PATIENCE_SECONDS = 30.0
SERVER = names.ServerId("crm", "sf")


class Time:
    """Loop time and wall time, `ahead` of the real ones; jitter is always the middle."""

    def __init__(self) -> None:
        self.ahead = 0.0

    def timing(self) -> pacing.Timing:
        loop = asyncio.get_running_loop()
        return pacing.Timing(lambda: loop.time() + self.ahead, lambda: time.time() + self.ahead, lambda: 0.5)


def site(bao: openbao.Vault, **changed: Any) -> snapshot.Vault:
    plain = {"address": bao.address, "method": "JWT", "auth_path": "jwt", "ca_bundle": bao.ca_pem}
    return snapshot.Vault(**plain | changed)


def pod_token(folder: pathlib.Path, token: str) -> pathlib.Path:
    """The projected token of a pod; written again, it has been rotated."""
    file = folder / "vault-token"
    file.write_text(f"{token}\n")
    return file


def tenant(bao: openbao.Vault, name: str, **role: Any) -> str:
    """A server namespace of its own with the policy of the docs; the role's name."""
    below = f"outrider/servers/{name}/*"
    bao.policy(
        f"outrider-{name}",
        {
            f"secret/data/{below}": ["read"], f"secret/metadata/{below}": ["read"], below: ["read", "update"],
            "sys/leases/renew": ["update"], "sys/leases/revoke": ["update"], "auth/token/lookup-self": ["read"],
            "auth/token/renew-self": ["update"], "auth/token/revoke-self": ["update"],
        },
    )  # fmt: skip
    bao.role(f"outrider-{name}", [f"outrider-{name}"], **{"token_no_default_policy": True} | role)
    return f"outrider-{name}"


def secret(name: str, path: str = "sf/api", key: str = "token") -> snapshot.VaultSecret:
    return snapshot.VaultSecret(role=f"outrider-{name}", path=f"outrider/servers/{name}/{path}", key=key)


async def until(condition: Callable[[], Any], what: str) -> Any:
    """The first true value of `condition`."""
    loop = asyncio.get_running_loop()
    deadline = loop.time() + PATIENCE_SECONDS
    while not (found := condition()):
        assert loop.time() < deadline, f"waited {PATIENCE_SECONDS:g} s until {what}"
        await asyncio.sleep(0.02)
    return found


async def away(work: Callable[..., Any], *args: Any, **more: Any) -> Any:
    """What blocks, as everything about the real OpenBao, off the loop."""
    return await asyncio.to_thread(work, *args, **more)


@dataclasses.dataclass(slots=True)
class Proxy:
    """Everything of Vault in one proxy."""

    vaulted: vaulted.Vaulted

    def wanted(self, where: snapshot.Source, deadline: float = float("inf")) -> loans.Wanted:
        return loans.Wanted(where, SERVER, deadline=deadline)

    def at_hand(self, where: snapshot.Source) -> loans.Loan | None:
        return self.vaulted.sources[type(where)].at_hand(self.wanted(where))

    def fetch(self, where: snapshot.Source, **more: Any) -> Awaitable[loans.Loan]:
        return self.vaulted.sources[type(where)].fetch(self.wanted(where), **more)

    def keep(self, *wheres: snapshot.Source) -> None:
        for each in self.vaulted.sources.values():
            each.keep(frozenset(wheres))

    def standing(self, where: snapshot.Source) -> loans.Standing:
        found = [each for each in self.vaulted.sources[type(where)].standing() if each.where == where]
        assert len(found) == 1, found
        return found[0]

    async def value(self, where: snapshot.Source) -> bytes:
        return (await self.fetch(where)).value

    async def until_value(self, where: snapshot.Source, value: bytes) -> None:
        def held() -> bool:
            loan = self.at_hand(where)
            return loan is not None and loan.value == value

        await until(held, f"{value!r} is lent")

    async def why(self, where: snapshot.Source, **more: Any) -> str:
        """The one line that says why it cannot be lent."""
        try:
            await self.fetch(where, **more)
        except loans.Unavailable as error:
            return str(error)
        raise AssertionError("it was lent")


@contextlib.asynccontextmanager
async def proxy(
    at: snapshot.Vault | None, token_file: pathlib.Path | None, *, poll_seconds: float = 60.0, at_time: Time | None = None
) -> AsyncIterator[Proxy]:  # fmt: skip
    made = vaulted.Vaulted((at_time or Time()).timing(), token_file, poll_seconds=poll_seconds)
    made.configure(at)
    try:
        yield Proxy(made)
    finally:
        await made.close()
