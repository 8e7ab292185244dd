# SPDX-License-Identifier: Apache-2.0
"""Where secrets come from, as a configuration needs it."""

from __future__ import annotations

import asyncio
import pathlib

from outrider import names, snapshot
from outrider_sidecar import lenders, loans

CRM = names.ServerId("crm", "salesforce")


def test_files_and_mounted_secrets_are_lent_without_anything_else(tmp_path: pathlib.Path) -> None:
    (tmp_path / "crm.salesforce").mkdir()
    (tmp_path / "crm.salesforce" / "token").write_bytes(b"mounted")
    (tmp_path / "file").write_bytes(b"filed")

    async def lent(where: snapshot.Source) -> bytes:
        made = lenders.Lenders(clock=asyncio.get_running_loop().time, secrets_dir=tmp_path)
        return (await made.sources[type(where)].fetch(loans.Wanted(where, CRM))).value

    assert asyncio.run(lent(snapshot.FileSecret(path=str(tmp_path / "file")))) == b"filed"
    assert asyncio.run(lent(snapshot.MountedSecret(path="crm.salesforce/token"))) == b"mounted"
