# SPDX-License-Identifier: Apache-2.0
"""Findings are lines with what, why and the next command; one check that cannot look does not end the others."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from outrider_cli import diagnosis, kubectl

KUBE = kubectl.Kubectl(kubectl.Site())


def failing(kind: kubectl.Kind) -> diagnosis.Check:
    def check(_kube: kubectl.Kubectl) -> Iterator[diagnosis.Finding]:
        yield diagnosis.ok("half of it")
        raise kubectl.Failed(kind, "the pods cannot be read", why="you may not", then="ask")

    return check


def fine(_kube: kubectl.Kubectl) -> Iterator[diagnosis.Finding]:
    yield diagnosis.bad("it is broken.", "because.", then="mend it")


def test_a_finding_is_one_line() -> None:
    assert (
        diagnosis.bad("it is broken", "because.", then="mend it").line()
        == "it is broken: because. Next: mend it"
    )
    assert diagnosis.note("so it is").line() == "so it is"
    assert diagnosis.ok("well").level is diagnosis.Level.OK


@pytest.mark.parametrize(
    "kind", [kubectl.Kind.FORBIDDEN, kubectl.Kind.NOT_FOUND, kubectl.Kind.OTHER, kubectl.Kind.NO_KIND]
)
def test_what_cannot_be_looked_at_is_unseen_and_the_others_go_on(kind: kubectl.Kind) -> None:
    found = list(diagnosis.gone_through(KUBE, [("first", failing(kind)), ("second", fine)]))
    assert [(each.check, each.level.value) for each in found] == [
        ("first", "ok"),
        ("first", "unseen"),
        ("second", "bad"),
    ]
    assert found[1].line() == "the pods cannot be read: you may not. Next: ask"


@pytest.mark.parametrize("kind", [kubectl.Kind.UNREACHABLE, kubectl.Kind.UNAUTHORIZED])
def test_an_api_server_that_does_not_answer_ends_it(kind: kubectl.Kind) -> None:
    with pytest.raises(kubectl.Failed):
        list(diagnosis.gone_through(KUBE, [("first", failing(kind)), ("second", fine)]))


def test_many_names_are_a_few_and_a_number() -> None:
    assert diagnosis.several(["b", "a"]) == "a, b"
    assert diagnosis.several("gfedcba") == "a, b, c, d, e and 2 more"


def test_one_is_and_several_are() -> None:
    assert diagnosis.counted(1, "proxy", "proxies") == "1 proxy is"
    assert diagnosis.counted(0, "proxy", "proxies") == "0 proxies are"
