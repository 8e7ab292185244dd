# SPDX-License-Identifier: Apache-2.0
"""The first entry that is for the caller, and none in doubt."""

from __future__ import annotations

import pytest

from outrider import choosing, decision, identity, rules, snapshot, testing

R = decision.Reason
ADA = testing.a_user("sales", client="okta:desk")
SALES = testing.callers(groups=["okta:sales"])
HR = testing.callers(groups=["okta:hr"])
EXCHANGE = snapshot.TokenExchange(
    token_url="https://as.example/token",
    client=snapshot.OAuthClient(id="outrider", secret=snapshot.FileSecret(path="/s")),
)


def entry(name: str, callers: rules.Callers = (), *, exchange: bool = False) -> snapshot.Credential:
    source = EXCHANGE if exchange else snapshot.FileSecret(path="/x")
    return snapshot.Credential(name=name, source=source, callers=callers)


ANY, OURS, THEIRS = entry("any"), entry("ours", SALES), entry("theirs", HR)
THE_USERS, OUR_USERS = entry("exchanged", exchange=True), entry("exchanged", SALES, exchange=True)


@pytest.mark.parametrize(
    ("given", "user", "lent"),
    [
        (ANY, None, True), (ANY, ADA, True), (OURS, None, None), (OURS, ADA, True), (THEIRS, None, None), (THEIRS, ADA, False),
        (THE_USERS, None, None), (THE_USERS, ADA, True), (OUR_USERS, None, None), (OUR_USERS, ADA, True),
        (entry("x", HR, exchange=True), ADA, False),
        (entry("x", testing.callers(teams=["okta:sales"], teams_alone=False), exchange=True), None, False),
    ],
)  # fmt: skip
def test_an_entry_about_users_and_an_exchange_hinge_on_a_user_and_no_other_does(
    given: snapshot.Credential, user: identity.User | None, lent: bool | None
) -> None:
    assert choosing.lends(given, user) is lent
    assert choosing.conditional(given) is (given is not ANY)


@pytest.mark.parametrize(
    ("entries", "user", "chosen", "doubtful"),
    [
        ((), None, None, False), ((ANY, OURS), None, ANY, False), ((OURS, ANY), None, None, True),
        ((THE_USERS, ANY), None, None, True), ((THEIRS, ANY), ADA, ANY, False), ((THEIRS, OURS, ANY), ADA, OURS, False),
        ((THEIRS,), ADA, None, False), ((THEIRS, THE_USERS), ADA, THE_USERS, False),
    ],
)  # fmt: skip
def test_the_first_entry_for_the_caller_is_chosen_and_none_is_passed_over_in_doubt(
    entries: tuple[snapshot.Credential, ...],
    user: identity.User | None,
    chosen: snapshot.Credential | None,
    doubtful: bool,
) -> None:
    assert choosing.choice(entries, user) == choosing.Choice(chosen, doubtful=doubtful)


@pytest.mark.parametrize(
    ("entries", "user", "named", "found"),
    [
        ((OURS, ANY), None, None, choosing.Leave(ANY)),
        ((OURS, ANY), ADA, None, choosing.Leave(ANY)),
        ((THE_USERS,), None, None, R.USER_REQUIRED),
        ((THE_USERS,), ADA, None, choosing.Leave(THE_USERS, ADA)),
        ((THEIRS, OURS), ADA, None, choosing.Leave(OURS, ADA)),
        ((THEIRS,), ADA, None, R.NO_CREDENTIAL_FOR_CALLER),
        ((OURS, ANY), None, "ours", R.USER_REQUIRED),
        ((ANY, OURS), ADA, "ours", choosing.Leave(OURS, ADA)),
        ((ANY, THEIRS), ADA, "theirs", R.NO_CREDENTIAL_FOR_CALLER),
        ((ANY,), ADA, "gone", R.NO_CREDENTIAL_FOR_CALLER),
        ((), ADA, None, R.NO_CREDENTIAL_FOR_CALLER),
    ],
)  # fmt: skip
def test_what_the_proxy_asks_on_its_own_is_in_nobodys_name_unless_only_users_have_credentials(
    entries: tuple[snapshot.Credential, ...],
    user: identity.User | None,
    named: str | None,
    found: choosing.Leave | decision.Reason,
) -> None:
    view = testing.a_server(testing.allow(), credentials=entries, credential_required=True)
    assert choosing.leave(view, user, named=named) == found


def test_a_server_that_lists_no_credentials_is_asked_without_one() -> None:
    for user in (None, ADA):
        assert choosing.leave(testing.a_server(testing.allow()), user) == choosing.Leave()
        assert choosing.leave(testing.a_server(testing.allow()), user, named="gone") == choosing.Leave()
