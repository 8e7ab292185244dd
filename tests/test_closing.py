# SPDX-License-Identifier: Apache-2.0
"""Books are closed before the agent hears: costs by what arrived, labels that stay few, and errors in the agent's era."""

from __future__ import annotations

import json
from typing import Any

import pytest
from tests import asking, proxies
from tests.servers import mcp

from outrider import audit, budgets, call, decision, testing
from outrider_sidecar import closing, endings, jsonrpc, orders, records


def order(method: str, params: dict[str, Any], *, modern: bool) -> orders.Order:
    subject = asking.subject(method, params, modern=modern)
    about = records.About("01J8", None, "", subject.version, method, "")
    return orders.Order(about, asking.permit(subject), subject, out=None, received=0.0)  # type: ignore[arg-type]


def told(method: str, params: dict[str, Any], answer: bytes, *, modern: bool) -> Any:
    end = endings.End(decision.Reason.ALLOWED, audit.Status.COMPLETED, answer=jsonrpc.answer(answer))
    return json.loads(closing.told(order(method, params, modern=modern), end))


@pytest.mark.parametrize(("modern", "code"), [(True, -32602), (False, -32002)])
def test_a_resource_that_a_server_has_not_is_told_in_the_code_of_the_agents_era(
    modern: bool, code: int
) -> None:
    error = b'{"jsonrpc":"2.0","id":1,"error":{"code":-32002,"message":"m","data":{"uri":"a://b"}}}'
    said = told("resources/read", {"uri": "a://b"}, error, modern=modern)
    assert said["error"] == {"code": code, "message": "m", "data": {"uri": "a://b"}}
    other = told("tools/call", {"name": "t"}, error, modern=modern)
    assert other["error"]["code"] == -32002


def test_a_refusal_after_the_decision_is_of_the_form_that_its_method_has() -> None:
    end = endings.End(decision.Reason.UPSTREAM_TIMEOUT, audit.Status.FAILED)
    called = json.loads(closing.told(order("tools/call", {"name": "t"}, modern=True), end))
    assert called["result"]["isError"] is True
    read = json.loads(closing.told(order("resources/read", {"uri": "a://b"}, modern=True), end))
    assert read["error"]["code"] == 403
    assert read["error"]["data"]["dev.outrider/refusal"]["reason"] == "UpstreamTimeout"


@pytest.mark.parametrize(
    ("kind", "label"), [(call.Kind.TOOL, "n"), (call.Kind.PROMPT, ""), (call.Kind.RESOURCE, "")]
)
def test_only_tools_are_labels(kind: call.Kind, label: str) -> None:
    assert closing.counted(call.Call(testing.CRM, "n", kind=kind)) == label


def test_what_the_server_never_saw_costs_nothing_and_what_it_saw_is_charged_before_the_answer() -> None:
    limit = testing.a_limit(calls=10)

    async def scenario(world: proxies.World, peer: mcp.Peer) -> None:
        await world.call("echo")
        assert [each.status for each in world.outcomes] == [audit.Status.COMPLETED]
        assert sum(charge.amount for charge in world.outcomes[0].charges) == budgets.MICRO
        peer.broken = 503
        await world.call("echo")
        assert world.parts.ledger.holds == 0

    proxies.run(scenario, limits=(limit,))
