# SPDX-License-Identifier: Apache-2.0
"""Reports on the wire: what goes through comes out, and what is out of bounds is refused with its path."""

from __future__ import annotations

import json
from typing import Any

import pytest

from outrider import catalog, reports, wire

MARK = "sha256:" + "a" * 64
SEEN: dict[str, Any] = {"server": "crm/salesforce", "digest": "b" * 64, "tools": [["query", MARK]]}


LENDING: dict[str, Any] = {"server": "crm/salesforce", "credential": "org-token", "state": "Failing"}


def lending(**members: Any) -> bytes:
    return json.dumps({"credentials": [{**LENDING, **members}]}).encode()


def body(**members: Any) -> bytes:
    return json.dumps({"servers": [{**SEEN, **members}]}).encode()


def test_a_report_comes_out_as_it_went_in() -> None:
    seen = reports.Seen(
        server="crm/salesforce",
        age_seconds=1.5,
        digest="b" * 64,
        tools=(("query", MARK),),
        unusable=2,
        server_name="sf-mcp",
        server_version="1.9",
        protocol_versions=("2025-11-25",),
        prompts=(("say hello", MARK),),
        prompt_count=700,
        instructions=MARK,
        resources=MARK,
        resource_count=3,
        template_count=1,
    )
    failed = reports.Seen(server="crm/other", error="the connection was refused")
    made = reports.Report(servers=(seen, failed))
    assert reports.decode(reports.encode(made)) == made


def test_how_credentials_and_keys_fare_comes_out_as_it_went_in() -> None:
    failing = reports.Lending(
        server="crm/salesforce", credential="org-token", state="Failing", reason="CredentialUnavailable", why="Vault is sealed"
    )  # fmt: skip
    expiring = reports.Lending(
        server="crm/salesforce", credential="cert", state="Expiring", age_seconds=3.0, expires_in_seconds=60.0
    )
    keys = reports.Keys(provider="okta", state="Failing", why="https://okta.example/keys answers 500")
    made = reports.Report(credentials=(failing, expiring), providers=(keys,))
    assert reports.decode(reports.encode(made)) == made


def test_a_report_that_says_nothing_of_credentials_differs_from_one_that_has_none() -> None:
    assert reports.decode(reports.encode(reports.Report())).credentials is None
    assert reports.decode(reports.encode(reports.Report(credentials=()))).credentials == ()


def test_an_answer_comes_out_as_it_went_in() -> None:
    made = reports.Wanted(servers=("crm/salesforce",))
    assert reports.decode_wanted(reports.encode(made)) == made
    with pytest.raises(wire.WireError, match="not JSON"):
        reports.decode_wanted(b"<html>")


@pytest.mark.parametrize(
    ("given", "path"),
    [
        (body(server="crm"), "$.servers[0].server"),
        (body(server="CRM/x"), "$.servers[0].server"),
        (body(digest="abc"), "$.servers[0].digest"),
        (body(tools=[["with space", MARK]]), "$.servers[0].tools[0][0]"),
        (body(tools=[["query", "md5:1"]]), "$.servers[0].tools[0][1]"),
        (body(error="x" * 1000), "$.servers[0].error"),
        (body(age_seconds=-1), "$.servers[0].age_seconds"),
        (body(protocol_versions=["1"] * 17), "$.servers[0].protocol_versions"),
        (body(secret="x"), "$.servers[0]"),
        (body(prompts=[["", MARK]]), "$.servers[0].prompts[0][0]"),
        (body(prompts=[["x" * 129, MARK]]), "$.servers[0].prompts[0][0]"),
        (body(prompts=[["x", MARK]] * 501), "$.servers[0].prompts"),
        (body(instructions="Use query first."), "$.servers[0].instructions"),
        (body(prompt_count=-1), "$.servers[0].prompt_count"),
        (body(resources="file:///a"), "$.servers[0].resources"),
        (body(template_count=-1), "$.servers[0].template_count"),
        (json.dumps({"servers": [SEEN] * 501}).encode(), "$.servers"),
        (lending(credential="Org Token"), "$.credentials[0].credential"),
        (lending(state="Well"), "$.credentials[0].state"),
        (lending(reason="no word"), "$.credentials[0].reason"),
        (lending(why="x" * 401), "$.credentials[0].why"),
        (lending(value="s3cret"), "$.credentials[0]"),
        (lending(expires_in_seconds=-1), "$.credentials[0].expires_in_seconds"),
        (json.dumps({"credentials": [LENDING] * 2001}).encode(), "$.credentials"),
        (json.dumps({"providers": [{"provider": "a b"}]}).encode(), "$.providers[0].provider"),
        (b"nonsense", ""),
    ],
)
def test_what_does_not_fit_is_refused_with_its_path(given: bytes, path: str) -> None:
    with pytest.raises(wire.WireError) as refused:
        reports.decode(given)
    assert refused.value.path == path


def test_the_most_that_one_server_can_offer_fits_one_report() -> None:
    tools = tuple((f"{number:0128}", MARK) for number in range(catalog.TOOLS_MAX))
    whole = reports.encode(reports.Report(servers=(reports.Seen(server="crm/x", tools=tools),)))
    assert len(whole) < reports.BYTES_MAX
    assert reports.decode(whole).servers[0].tools == tools


def test_a_body_beyond_the_limit_is_not_read() -> None:
    with pytest.raises(wire.WireError, match="split it"):
        reports.decode(b" " * (reports.BYTES_MAX + 1))
