# SPDX-License-Identifier: Apache-2.0
"""What the proxy says to Vault and about it: paths that are never asked for, words that are cut short, nothing with a repr."""

from __future__ import annotations

import math

import pytest

from outrider_sidecar import vault


@pytest.mark.parametrize("path", ["a", "outrider/servers/crm/sf/api", "a-b/c_d/e.f", "_x/-y", "A/1"])
def test_plain_paths_may_be_asked_for(path: str) -> None:
    assert vault.acceptable(path)


@pytest.mark.parametrize(
    "path",
    ["", "/a", "a/", "a//b", "..", "a/../b", "a/..", ".a", "a/.b", "a b", "a?b", "a#b", "a%2e%2e", "a\\b", "a\nb", "a\n",
     "ä", "a/b;c", "a:b", "a" * 1_025],
)  # fmt: skip
def test_any_other_path_may_not(path: str) -> None:
    assert not vault.acceptable(path)


def test_durations_are_numbers_and_anything_else_has_no_end() -> None:
    assert vault.seconds(600) == 600
    assert [vault.seconds(each) for each in (0, -1, None, "600", True)] == [math.inf] * 5


def test_what_vault_said_is_one_line_of_printable_ascii_cut_short() -> None:
    assert vault.said(["1 error occurred:\n\t* permission denied\n\n"]) == "permission denied"
    assert vault.said(["a\x1b[31m\u202eb", "c", 3]) == "a?[31m?b c"
    assert len(vault.said(["x" * 10_000])) == 203
    assert vault.said(None) == vault.said({}) == vault.said([]) == ""


def test_what_repeats_the_token_is_not_said() -> None:
    assert vault.said(["x" * 300, "bad token hvs.secret"], but="hvs.secret") == ""
    assert vault.said(["bad token"], but="") == "bad token"


def test_what_holds_a_token_or_a_value_has_no_repr() -> None:
    held = [
        vault.Token("canary-1", 1.0, renewable=True),
        vault.Secret({"token": "canary-1"}, "1"),
        vault.Lease({"password": "canary-1"}, "canary-1", 1.0, renewable=True),
    ]
    assert "canary" not in repr(held)


def test_only_vaults_own_word_ends_what_is_held_and_only_an_outage_shuts_the_line() -> None:
    final = {each for each in vault.Trouble if vault.Failed(each, "").final}
    outage = {each for each in vault.Trouble if vault.Failed(each, "").outage}
    assert {each.value for each in final} == {"denied", "refused", "missing"}
    assert {each.value for each in outage} == {"sealed", "unreachable", "slow", "untrusted", "redirected"}
