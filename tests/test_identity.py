# SPDX-License-Identifier: Apache-2.0
"""Identity holds only what was attested."""

from __future__ import annotations

import msgspec
import pytest

from outrider import identity, testing


def test_a_workload_is_written_as_namespace_and_service_account() -> None:
    assert str(identity.Workload(namespace="agents", service_account="bot", teams=("sales",))) == "agents/bot"


def test_there_is_no_place_for_labels_or_headers_in_an_identity() -> None:
    with pytest.raises(msgspec.ValidationError):
        msgspec.json.decode(
            b'{"namespace":"a","service_account":"b","labels":{"team":"sales"}}', type=identity.Workload
        )


@pytest.mark.parametrize(
    ("text", "parsed"),
    [
        ("okta:ada", ("okta", "ada")), ("okta:ada@corp.example", ("okta", "ada@corp.example")),
        ("azure-ad:CN=Deal Desk:eu", ("azure-ad", "CN=Deal Desk:eu")), ("okta:grüezi", ("okta", "grüezi")),
        ("okta:", None), (":ada", None), ("ada", None), ("", None), ("Okta:ada", None), ("ok_ta:ada", None), ("okta: ada", None),
        ("okta:ada ", None), ("okta:a\nb", None), ("okta:a\u200bb", None), ("okta:" + "x" * 315, ("okta", "x" * 315)),
        ("okta:" + "x" * 316, None),
    ],
)  # fmt: skip
def test_a_principal_is_of_a_provider_and_never_alone(text: str, parsed: tuple[str, str] | None) -> None:
    assert identity.principal_ref(text) == parsed


def test_a_users_token_is_in_no_repr_and_no_part_of_who_it_is() -> None:
    one, other = testing.a_user(token="CANARY"), testing.a_user(token="another")
    assert "CANARY" not in repr(one) + str(one)
    assert one == other
    assert hash(one) == hash(other)
    assert one != testing.a_user("sales", token="CANARY")
