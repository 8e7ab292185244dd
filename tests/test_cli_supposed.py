# SPDX-License-Identifier: Apache-2.0
"""Users that a question supposes."""

from __future__ import annotations

from typing import Any

import pytest

from outrider import identity, snapshot
from outrider_cli import output, supposed

OKTA = snapshot.IdentityProvider(name="okta", issuer="https://o", audience="a", jwks_uri="https://o/k")
ADA = identity.User(id="okta:ada", names=frozenset({"okta:ada"}))


def of(*users: str, groups: tuple[str, ...] = (), client: str | None = None) -> identity.User | None:
    return supposed.chosen({"users": users, "groups": groups, "client": client})


def test_the_first_name_is_the_id_and_all_are_names() -> None:
    found = of("okta:ada", "okta:ada@corp.example", groups=("okta:sales", "okta:eu"), client="okta:desk")
    assert found is not None
    assert (found.id, found.client) == ("okta:ada", "okta:desk")
    assert found.names == {"okta:ada", "okta:ada@corp.example"}
    assert found.groups == {"okta:sales", "okta:eu"}
    assert of() is None


@pytest.mark.parametrize(
    ("given", "why"),
    [
        ({"users": ("ada",)}, "'ada' is no user"),
        ({"users": ("okta:ada",), "groups": ("sales",)}, "'sales' is no group"),
        ({"users": ("okta:ada",), "client": "desk"}, "'desk' is no client"),
        ({"users": ("okta:\x1b[2J",)}, "is no user"),
        ({"users": ("okta:*",)}, "'okta:*' is no user: there are no patterns, and no selector names it"),
        ({"users": ("okta:ada", "okta:*@corp.example")}, "'okta:*@corp.example' is no user"),
        (
            {"users": ("okta:ada",), "groups": ("okta:sales-*",)},
            "'okta:sales-*' is no group: there are no patterns",
        ),
        ({"users": ("okta:ada",), "client": "okta:*"}, "'okta:*' is no client: there are no patterns"),
        ({"groups": ("okta:sales",)}, "there is no user"),
        ({"client": "okta:desk"}, "there is no user"),
        ({"users": ("okta:ada",), "groups": ("other:sales",)}, "of one provider, not of okta and other"),
    ],
)
def test_what_is_no_user_is_refused_with_the_form_to_write(given: dict[str, Any], why: str) -> None:
    with pytest.raises(output.Stop) as stopped:
        supposed.chosen({"users": (), "groups": (), "client": None, **given})
    assert why in str(stopped.value)
    assert stopped.value.exit_code == output.USAGE
    assert "PROVIDER:" in stopped.value.then
    assert "\x1b" not in str(stopped.value)


def test_a_line_of_a_batch_says_the_same_in_json() -> None:
    line: dict[str, Any] = {"user": "okta:ada", "groups": ["okta:sales"], "client": "okta:desk"}
    assert supposed.of_line(line) == of("okta:ada", groups=("okta:sales",), client="okta:desk")
    assert supposed.of_line({"user": ["okta:ada", "okta:a@x"]}) == of("okta:ada", "okta:a@x")
    assert supposed.of_line({}) is None


@pytest.mark.parametrize(
    "line", [{"user": "okta:*"}, {"user": 7}, {"user": None}, {"user": "okta:a", "groups": [7]}, {"user": "okta:a", "client": ["a", "b"]}]
)  # fmt: skip
def test_a_line_that_says_something_else_is_wrong(line: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="is"):
        supposed.of_line(line)


@pytest.mark.parametrize(
    ("user", "providers", "then"),
    [
        (identity.User(id="otka:ada", names=frozenset()), [OKTA], "did you mean okta?"),
        (identity.User(id="zz:ada", names=frozenset()), [OKTA], "name one of okta"),
        (ADA, [], "add it to identityProviders"),
    ],
)
def test_a_user_of_a_provider_that_nobody_configured_is_nobodys_token(
    user: identity.User, providers: list[snapshot.IdentityProvider], then: str
) -> None:
    with pytest.raises(output.Stop) as stopped:
        supposed.check(user, providers)
    assert "UserTokenInvalid" in str(stopped.value)
    assert then in stopped.value.then


def test_a_known_provider_and_nobody_at_all_are_fine() -> None:
    supposed.check(ADA, [OKTA])
    supposed.check(None, [])


def test_what_is_assumed_is_said() -> None:
    assert supposed.assumed(ADA) == "assumed: a user okta:ada with these groups: none"
    whole = of("okta:ada", groups=("okta:b", "okta:a"), client="okta:c")
    assert whole is not None
    assert supposed.assumed(whole) == (
        "assumed: a user okta:ada with these groups: okta:a, okta:b, through client okta:c"
    )
    assert supposed.as_json(whole) == {
        "user": "okta:ada", "groups": ["okta:a", "okta:b"], "client": "okta:c",
    }  # fmt: skip
    assert supposed.as_json(None) == {"user": None}
