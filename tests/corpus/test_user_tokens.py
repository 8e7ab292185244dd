# SPDX-License-Identifier: Apache-2.0
"""R17 and N6 through a whole proxy: every token of tokens.yaml, on a call and on a list, in both eras; a bad one is never nobody."""

from __future__ import annotations

import logging
import time

import pytest
from tests import proxies
from tests.corpus import usertokens
from tests.servers import idp, mcp

from outrider_sidecar import tokens

FIELD_BYTES_MAX = 16_000
"""What is longer never gets past the door."""


def headers(row: usertokens.Row) -> dict[str, str]:
    """Names of headers differ in case where there are two: a dict holds each once, and a proxy must not."""
    return dict(zip(("outrider-user", "Outrider-User"), row.headers, strict=False))


async def both(
    world: proxies.World, row: usertokens.Row, era: str, session: str | None
) -> list[proxies.Told]:
    told = []
    for method, params in (("tools/call", {"name": "echo", "arguments": {}}), ("tools/list", {})):
        asking = await world.start(
            proxies.request(method, params), modern=era == "modern", session=session, **headers(row)
        )
        told.append(await asking.answer())
    return told


def check(row: usertokens.Row, called: proxies.Told, listed: proxies.Told) -> None:
    if max(map(len, row.headers)) > FIELD_BYTES_MAX:
        assert (called.status, listed.status) == (400, 400), row.what
    elif row.flaw is None:
        assert called.reason is None, row.what
        assert called.text == "{}", row.what
        assert "echo" in [tool["name"] for tool in listed.result["tools"]], row.what
    else:
        said = tokens.Flaw[row.flaw].value
        assert (called.status, called.reason) == (200, "UserTokenInvalid"), row.what
        assert called.result["isError"] is True
        assert said in called.text
        assert (listed.status, listed.reason) == (200, "UserTokenInvalid"), row.what
        assert said in listed.last["error"]["message"]
        for text in row.headers:
            assert not text or text == "alice" or text not in called.body.decode() + listed.body.decode()


@pytest.mark.parametrize("era", ["modern", "legacy"])
def test_every_token_of_the_corpus_is_what_the_table_says_and_a_bad_one_reaches_nobody(
    era: str, caplog
) -> None:
    caplog.set_level(logging.DEBUG)

    async def scenario(world: proxies.World, peer: mcp.Peer) -> None:
        async with idp.running(published=usertokens.PUBLISHED) as provider:
            session = None if era == "modern" else await world.open_session()
            planted: set[str] = set()
            good = 0
            for clients in ((), usertokens.CLIENTS):
                settings = provider.settings(clients=clients, email_domains=usertokens.DOMAINS)
                world.providers = (settings,)
                world.apply(proxies.a_view(peer))
                for at, chosen in enumerate(usertokens.ROWS):
                    if chosen.get("clients", False) == bool(clients):
                        row = usertokens.row(at, provider, time.time())
                        check(row, *await both(world, row, era, session))
                        good += row.flaw is None
                        planted |= {text for text in row.headers if len(text) > 20}
            assert good == len(peer.calls) > 10
            assert provider.fetches == 2  # one for each configuration
            for seen in peer.seen:
                assert "outrider-user" not in seen.headers
                assert not any(text in str(seen.headers) or text.encode() in seen.raw for text in planted)
            bad = [each for each in world.refusals if each.reason == "UserTokenInvalid"]
            wrong = [
                row for row in usertokens.ROWS if "flaw" in row and row["what"] != "longer than any token"
            ]
            assert len(bad) == 2 * len(wrong)
            assert {each.method for each in bad} == {"tools/call", "tools/list"}
            assert {each.principal.workload for each in bad} == {"crm/bot"}
            assert {each.principal.user for each in bad} == {""}
            assert {each.principal.user for each in world.intents} == {"okta:alice"}
            files = [path.read_bytes() for path in world.folder.rglob("*") if path.is_file()]
            kept = b"".join([*files, caplog.text.encode(), world.parts.telemetry.render()]).decode("latin-1")
            secrets = {text.rpartition(".")[2] for text in planted}
            assert [text for text in planted | secrets if len(text) > 40 and text in kept] == []

    proxies.run(scenario, era=era)
