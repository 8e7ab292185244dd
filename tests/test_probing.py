# SPDX-License-Identifier: Apache-2.0
"""What the prober is told: every server that may be listed, nothing else, and no right to call anything."""

from __future__ import annotations

import msgspec
from tests.worlds import CALLS, S, allow, budget, policy, server, world

from outrider import bind, call, decide, decision, names, snapshot, testing, wire
from outrider import compile as compiler

PROBER = ("outrider-system", "outrider-prober")


class Purse:
    def available(self, pool, now):
        return 0


def probing(made, epoch=1):
    return compiler.Probing(*PROBER)(made, epoch)


def test_every_server_is_in_it_without_anybodys_rules_and_budgets() -> None:
    made = probing(world(server(), server("b", namespace="hr"), policy(allow()), budget(CALLS)), 7)
    assert made.probing
    assert (made.epoch, str(made.workload)) == (7, "outrider-system/outrider-prober")
    assert [view.id for view in made.servers] == [S, names.ServerId("hr", "b")]
    assert all(view.rules == () and view.limits == () for view in made.servers)


def test_where_it_is_and_what_is_sent_is_as_for_everybody() -> None:
    whole = {
        "endpoint": {"url": "https://x.example/mcp", "headers": {"X-Region": "eu"}, "protocol": "2025-11-25"}
    }
    subject = world(
        server(**whole), policy(allow()), network={"allow": [{"suffix": ".x", "cidr": "10.0.0.0/8"}]}
    )
    probed = probing(subject)
    enforced = compiler.snapshot(subject, "crm", "bot")
    assert probed.servers[0].endpoint == enforced.servers[0].endpoint
    assert probed.network == enforced.network


def test_a_disabled_server_is_left_alone() -> None:
    assert probing(world(server(lifecycle="Disabled"))).servers == ()


def test_of_credentials_only_the_first_counts_and_only_one_that_is_none_can_be_lent() -> None:
    none = {"name": "open", "from": [{"teams": ["x"]}], "none": True}
    file = {"name": "token", "from": [{"anyone": True}], "file": {"path": "token"}}
    open_first = probing(world(server(credentials=[none, file]))).servers[0]
    assert [entry.name for entry in open_first.credentials] == ["open"]
    file_first = probing(world(server(credentials=[file, none]))).servers[0]
    assert (file_first.credentials, file_first.credential_required) == ((), False)


def test_the_same_world_is_the_same_bytes_and_what_did_not_change_is_not_viewed_anew() -> None:
    before = world(server(), server("b"), policy(allow()))
    remembering = compiler.Probing(*PROBER)
    first = remembering(before, 1)
    assert snapshot.canonical(first) == snapshot.canonical(probing(before))
    after = type(before)(servers=before.servers[:1], settings=before.settings)
    second = remembering(after, 1)
    assert second.servers[0] is first.servers[0]
    assert snapshot.canonical(second) == snapshot.canonical(probing(after))
    assert wire.decode_snapshot(snapshot.canonical(second)) == second


def test_the_prober_may_list_every_server_and_call_nothing() -> None:
    bound = bind.bound(probing(world(server(), policy(allow()))), {S: testing.tools("query")})
    assert isinstance(decide.permit_listing(bound, S), decision.Permit)
    verdict = decide.decide(bound, call.Call(S, "query"), Purse(), now=0)
    assert isinstance(verdict, decision.Refusal)
    assert verdict.reason is decision.Reason.NOT_ALLOWED


def test_without_being_the_prober_a_server_of_which_nothing_may_be_called_is_not_listed() -> None:
    plain = testing.a_snapshot(testing.a_server())
    refused = decide.permit_listing(bind.bound(plain, {}), testing.CRM)
    assert isinstance(refused, decision.Refusal)
    probing_too = msgspec.structs.replace(plain, probing=True)
    assert isinstance(decide.permit_listing(bind.bound(probing_too, {}), testing.CRM), decision.Permit)
