# SPDX-License-Identifier: Apache-2.0
"""Secrets in files: read again when they are replaced, and never from outside of the folder of their server."""

from __future__ import annotations

import asyncio
import os
import pathlib

import pytest
from tests import lending

from outrider import decision, names, snapshot
from outrider_sidecar import loans, secretfiles

CRM = names.ServerId("crm", "salesforce")


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def wanted(where: snapshot.Source) -> loans.Wanted:
    return loans.Wanted(where, CRM)


def a_file(path: pathlib.Path) -> loans.Wanted:
    return wanted(snapshot.FileSecret(path=str(path)))


def a_key(key: str, server: str = "crm.salesforce") -> loans.Wanted:
    return wanted(snapshot.MountedSecret(path=f"{server}/{key}"))


def mounted(folder: pathlib.Path, generation: int, **keys: bytes) -> None:
    """As kubelet does it: a folder per generation, one link swapped, and a link per key."""
    server = folder / "crm.salesforce"
    fresh = server / f"..2026_{generation}"
    fresh.mkdir(parents=True)
    for key, value in keys.items():
        (fresh / key).write_bytes(value)
        if not (server / key).is_symlink():
            (server / key).symlink_to(f"..data/{key}")
    (server / "..tmp").symlink_to(fresh.name)
    os.replace(server / "..tmp", server / "..data")  # noqa: PTH105 -- the link itself, not what it leads to


def refusal(source: secretfiles.Files, what: loans.Wanted) -> loans.Unavailable:
    with pytest.raises(loans.Unavailable) as refused:
        asyncio.run(source.fetch(what))
    return refused.value


def test_a_file_is_at_hand_for_a_second_and_then_read_again(tmp_path: pathlib.Path) -> None:
    secret, clock = tmp_path / "token", Clock()
    secret.write_bytes(b"old")
    source = secretfiles.Files(clock)
    first = asyncio.run(source.fetch(a_file(secret)))
    assert source.at_hand(a_file(secret)) is first
    secret.write_bytes(b"new")
    clock.now = 1.1
    assert source.at_hand(a_file(secret)) is None
    second = asyncio.run(source.fetch(a_file(secret)))
    assert second.value == b"new"
    assert second.version != first.version
    assert {first.value, second.value}.isdisjoint({first.version.encode(), second.version.encode()})


def test_what_has_not_changed_keeps_its_version(tmp_path: pathlib.Path) -> None:
    secret = tmp_path / "token"
    secret.write_bytes(b"same")
    source = secretfiles.Files(Clock())
    first = asyncio.run(source.fetch(a_file(secret)))
    assert asyncio.run(source.fetch(a_file(secret), refused=first.version)) is first


def test_a_missing_file_says_which_and_what_to_do(tmp_path: pathlib.Path) -> None:
    failure = refusal(secretfiles.Files(Clock()), a_file(tmp_path / "token"))
    assert failure.reason is decision.Reason.CREDENTIAL_UNAVAILABLE
    assert str(failure) == (
        f"cannot read credential file {tmp_path}/token: No such file or directory; put the secret there with mode 0600"
    )


def test_a_pipe_in_place_of_a_file_holds_nobody_up(tmp_path: pathlib.Path) -> None:
    os.mkfifo(tmp_path / "token")
    assert asyncio.run(secretfiles.Files(Clock()).fetch(a_file(tmp_path / "token"))).value == b""


def test_a_mounted_secret_is_lent_and_a_swapped_one_a_second_later(tmp_path: pathlib.Path) -> None:
    clock = Clock()
    source = secretfiles.Files(clock, tmp_path)
    mounted(tmp_path, 1, token=b"one\n")
    assert asyncio.run(source.fetch(a_key("token"))).value == b"one\n"
    mounted(tmp_path, 2, token=b"two", outrider_origin=b"https://mcp.example\n")
    clock.now = 1.1
    assert source.at_hand(a_key("token")) is None
    loan = asyncio.run(source.fetch(a_key("token")))
    assert (loan.value, loan.origin) == (b"two", "https://mcp.example")


def test_a_mounted_secret_may_come_later_and_go_again(tmp_path: pathlib.Path) -> None:
    clock = Clock()
    source = secretfiles.Files(clock, tmp_path)
    absent = refusal(source, a_key("token"))
    assert absent.reason is decision.Reason.CREDENTIAL_UNAVAILABLE
    assert "no Secret of this pod for crm/salesforce has key token" in str(absent)
    assert "outrider.dev/secrets: crm/salesforce=SECRET" in str(absent)
    mounted(tmp_path, 1, token=b"one")
    assert asyncio.run(source.fetch(a_key("token"))).value == b"one"
    (tmp_path / "crm.salesforce" / "token").unlink()
    clock.now = 1.1
    assert "has key token" in str(refusal(source, a_key("token")))
    assert source.at_hand(a_key("token")) is None
    (row,) = source.standing()
    assert (row.available, row.failing, row.refreshed, row.failed) == (False, absent.reason, 1, 2)


@pytest.mark.parametrize(
    "path",
    [
        "crm.salesforce/../hr.payroll/token", "crm.salesforce/..", "../token", "/etc/passwd", "crm.salesforce//etc/passwd",
        "crm.salesforce/..data/token", "crm.salesforce/.hidden", "crm.salesforce/a/b", "crm.salesforce/", "crm.salesforce/a\nb",
        "crm/token", "",
    ],
)  # fmt: skip
def test_a_path_that_leads_elsewhere_is_refused_before_anything_is_opened(
    tmp_path: pathlib.Path, path: str
) -> None:
    mounted(tmp_path, 1, token=b"one")
    failure = refusal(secretfiles.Files(Clock(), tmp_path), wanted(snapshot.MountedSecret(path=path)))
    assert "is not NAMESPACE.SERVER/KEY" in str(failure)


def test_a_link_out_of_the_folder_is_not_followed(tmp_path: pathlib.Path) -> None:
    (tmp_path / "elsewhere").write_bytes(b"canary")
    (tmp_path / "crm.salesforce").mkdir()
    (tmp_path / "crm.salesforce" / "token").symlink_to(tmp_path / "elsewhere")
    failure = refusal(secretfiles.Files(Clock(), tmp_path), a_key("token"))
    assert "leads out of its folder" in str(failure)


def test_a_proxy_without_a_folder_of_secrets_says_so(tmp_path: pathlib.Path) -> None:
    assert "--secrets-dir" in str(refusal(secretfiles.Files(Clock()), a_key("token")))


def test_an_origin_that_is_no_text_is_no_permission(tmp_path: pathlib.Path) -> None:
    mounted(tmp_path, 1, token=b"one", outrider_origin=b"\xff\xfe")
    assert "cannot be read as text" in str(refusal(secretfiles.Files(Clock(), tmp_path), a_key("token")))


def test_many_who_want_one_file_read_it_once(tmp_path: pathlib.Path) -> None:
    (tmp_path / "token").write_bytes(b"one")
    source = secretfiles.Files(Clock())

    async def all_at_once() -> list[loans.Loan]:
        return await asyncio.gather(*(source.fetch(a_file(tmp_path / "token")) for _ in range(50)))

    assert len({id(loan) for loan in asyncio.run(all_at_once())}) == 1


def test_what_no_snapshot_names_is_forgotten(tmp_path: pathlib.Path) -> None:
    (tmp_path / "token").write_bytes(b"one")
    source = secretfiles.Files(Clock())
    asyncio.run(source.fetch(a_file(tmp_path / "token")))
    source.keep(frozenset({lending.SECRET}))
    assert source.at_hand(a_file(tmp_path / "token")) is None
    assert list(source.standing()) == []
