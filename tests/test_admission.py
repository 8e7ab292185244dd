# SPDX-License-Identifier: Apache-2.0
"""What admission answers, and what it does when it cannot know. tests/test_handlers.py asks the same through a real API server."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from tests import pods

from outrider import injection
from outrider_operator import admission


class Around:
    """Everything that admission asks, answered as a test wants it."""

    def __init__(self, may: Any = False) -> None:
        self.options: injection.Options | None = pods.options()
        self.ca = pods.CA
        self.answer = may
        self.asked: list[tuple[Any, ...]] = []
        self.told: list[tuple[str, str]] = []

    async def may(self, username: str, groups: Any, **about: Any) -> bool:
        self.asked.append((username, tuple(groups), about))
        if isinstance(self.answer, BaseException):
            raise self.answer
        return self.answer(about) if callable(self.answer) else bool(self.answer)

    def ask(self, which: str, body: dict[str, Any]) -> admission.Answer:
        """One request, as kopf's loop would ask."""

        async def main() -> admission.Answer:
            parts = admission.Parts(
                options=lambda: self.options, ca=lambda: self.ca, may=self.may,
                told=lambda webhook, answer, seconds: self.told.append((webhook, answer)),
            )  # fmt: skip
            desk = admission.Desk(parts, asyncio.get_running_loop())
            answer = await getattr(desk, which)(admission.Review(body, "team"))
            await asyncio.sleep(0)
            return answer  # type: ignore[no-any-return]

        return asyncio.run(main())


def test_a_pod_is_injected_and_counted() -> None:
    around = Around()
    answer = around.ask("inject", pods.pod())
    assert answer.body == pods.injected(pods.pod())
    assert answer.refusal == ""
    assert around.told == [("inject", "injected")]


def test_rights_are_asked_for_any_account_of_the_namespace_and_for_the_pods_own() -> None:
    around = Around()
    around.ask("inject", pods.pod())
    who = "system:serviceaccount:team:agent"
    groups = ("system:serviceaccounts", "system:serviceaccounts:team", "system:authenticated")
    assert {each[:2] for each in around.asked} == {(who, groups)}
    assert sorted(each[2].get("name", "") for each in around.asked) == ["", "agent"]
    assert {each[2]["subresource"] for each in around.asked} == {"token"}


@pytest.mark.parametrize("named", [True, False])
def test_whoever_may_create_tokens_is_refused(named: bool) -> None:
    around = Around(may=lambda about: ("name" in about) is named)
    answer = around.ask("inject", pods.pod())
    assert "ServiceAccount agent may create tokens" in answer.refusal
    assert answer.body is None
    assert around.told == [("inject", "refused")]


@pytest.mark.parametrize("error", [OSError("connection refused"), ValueError(), RuntimeError("pool is full")])
def test_when_nobody_can_say_what_an_account_may_the_pod_does_not_come_in(error: Exception) -> None:
    around = Around(may=error)
    answer = around.ask("inject", pods.pod())
    assert "Outrider cannot find out what ServiceAccount agent may do" in answer.refusal
    assert "try again" in answer.refusal
    assert around.told == [("inject", "failed")]


def test_an_answer_that_does_not_come_is_not_waited_for_for_long(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(admission, "ASKING_SECONDS_MAX", 0.05)
    around = Around()

    async def never(*_: Any, **__: Any) -> bool:
        await asyncio.sleep(30)
        return False

    around.may = never  # type: ignore[method-assign]
    assert "did not answer in time" in around.ask("inject", pods.pod()).refusal


def test_before_settings_and_certificate_are_known_no_pod_comes_in() -> None:
    around = Around()
    around.options = None
    assert "settings have not been read" in around.ask("inject", pods.pod()).refusal
    around.options, around.ca = pods.options(), ""
    assert "has no certificate yet" in around.ask("inject", pods.pod()).refusal
    assert around.asked == []


def test_a_pod_that_is_left_alone_is_allowed_as_it_is() -> None:
    around = Around()
    answer = around.ask("inject", pods.pod(os={"name": "windows"}))
    assert (answer.refusal, answer.body) == ("", None)
    assert around.told == [("inject", "allowed")]


def server(**spec: Any) -> dict[str, Any]:
    metadata = {"name": "crm", "namespace": "team"}
    whole = {"description": "Records", "endpoint": {"url": "https://crm.example/mcp"}, **spec}
    return {"apiVersion": "outrider.dev/v1alpha1", "kind": "MCPServer", "metadata": metadata, "spec": whole}


def test_an_object_that_makes_sense_is_allowed_and_one_that_does_not_is_told_where() -> None:
    around = Around()
    assert around.ask("validate", server()).refusal == ""
    assert around.ask("validate", server(endpoint={"url": "ftp://x"})).refusal.startswith("spec.endpoint")
    assert around.told == [("validate", "allowed"), ("validate", "refused")]


def test_of_many_problems_the_first_are_told() -> None:
    said = Around().ask("validate", server(**{f"x{n}": 1 for n in range(15)})).refusal
    assert said.count("; ") == admission.PROBLEMS_TOLD_MAX
    assert said.endswith("and 5 more")


def test_who_takes_a_finalizer_off_a_broken_object_is_let() -> None:
    broken = server(endpoint={"url": "ftp://x"})
    broken["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:00Z"
    assert Around().ask("validate", broken).refusal == ""


@pytest.mark.parametrize("body", [{}, {"metadata": None}, {"kind": "MCPServer", "spec": []}])
def test_whatever_is_sent_has_an_answer(body: dict[str, Any]) -> None:
    assert Around().ask("validate", body).refusal
    assert Around().ask("inject", body) is not None
