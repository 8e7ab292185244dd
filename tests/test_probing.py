# SPDX-License-Identifier: Apache-2.0
"""What the prober is told: every server that may be listed, nothing else, and no right to call anything."""

from __future__ import annotations

import dataclasses

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


def test_the_api_servers_addresses_are_refused_to_the_prober_as_to_everybody() -> None:
    probe, made = compiler.Probing(*PROBER), world(server())
    assert probe(made).network.refused == ()
    assert probe(dataclasses.replace(made, api_servers=("10.0.0.7",))).network.refused == ("10.0.0.7",)


def test_a_disabled_server_is_left_alone() -> None:
    assert probing(world(server(lifecycle="Disabled"))).servers == ()


def entry(name="c", who=({"anyone": True},), **kind):
    return {"name": name, "from": list(who), **kind}


VAULT = {"address": "https://vault.example"}
TOKEN = {"path": "token", "key": "t"}
GRANT = {"tokenUrl": "https://as.example/t", "clientId": "c", "clientSecret": {"vault": TOKEN}}
USERS = [{"groups": ["okta:a"]}]


def lent(*entries, **settings):
    """What the prober lists crm/s with."""
    made = probing(world(server(credentials=list(entries)), vault=VAULT, **settings))
    return [(each.name, each.source) for each in made.servers[0].credentials]


def test_the_first_entry_that_needs_no_user_is_lent_whoever_it_is_meant_for() -> None:
    assert lent(entry(who=[{"teams": ["x"]}], none=True), entry("other", vault=TOKEN)) == [("c", None)]
    mine = snapshot.VaultSecret(role="outrider_prober", path="outrider/servers/crm/s/token", key="t")
    assert lent(entry(who=[{"namespaces": ["a"]}], vault=TOKEN)) == [("c", mine)]
    skipped = [entry("users", USERS, none=True), entry("exchange", tokenExchange=GRANT)]
    assert lent(*skipped, entry(vault=TOKEN)) == [("c", mine)]
    assert lent(entry(who=[*USERS, {"namespaces": ["a"]}], vault=TOKEN)) == [("c", mine)], (
        "one way needs none"
    )
    assert lent(*skipped) == []


def test_a_secret_of_the_probers_own_pod_an_access_token_and_a_certificate_are_lent() -> None:
    assert lent(entry(secretRef={"key": "t"})) == [("c", snapshot.MountedSecret(path="crm.s/t"))]
    [(_, source)] = lent(entry(oauthClientCredentials=GRANT))
    assert source.client.secret.role == "outrider_prober"
    pki = {"vault": {"path": "pki/issue/x"}, "commonName": "x"}
    [(_, source)] = lent(entry(clientCertificate=pki))
    assert (source.role, source.path) == ("outrider_prober", "outrider/servers/crm/s/pki/issue/x")


def test_what_is_a_workloads_or_in_a_laptops_file_is_not_lent_and_nothing_is_in_its_place() -> None:
    """Listing with another credential than agents call with would pin what nobody gets."""
    open_ = entry("open", none=True)
    assert lent(entry(vault={**TOKEN, "owner": "Workload"}), open_) == []
    assert lent(entry(file={"path": "token"}), open_) == []
    theirs = {**GRANT, "clientSecret": {"vault": {**TOKEN, "owner": "Workload"}}}
    assert lent(entry(oauthClientCredentials=theirs), open_) == []
    assert lent(entry(oauthClientCredentials={**GRANT, "clientSecret": {"file": {"path": "x"}}}), open_) == []
    assert (
        probing(world(server(credentials=[entry(file={"path": "x"})]))).servers[0].credential_required
        is False
    )


def test_the_probers_snapshot_knows_the_vault_and_follows_it() -> None:
    remembering = compiler.Probing(*PROBER)
    listed = server(credentials=[entry(vault=TOKEN)])
    before = world(listed, vault=VAULT)
    assert remembering(before).vault == snapshot.Vault(address="https://vault.example")
    after = type(before)(servers=before.servers, settings=world(vault={**VAULT, "prefix": "kv"}).settings)
    [view] = remembering(after).servers
    assert view.credentials[0].source.path == "kv/servers/crm/s/token"
    assert snapshot.canonical(remembering(after)) == snapshot.canonical(probing(after))


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
