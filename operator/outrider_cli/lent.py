# SPDX-License-Identifier: Apache-2.0
"""`outrider doctor` and `proxy-status`: credentials that proxies cannot lend, keys that they cannot fetch, and settings about both.

Called by afterwards, beforehand and proxy_status, with rows that the operator has given and settings that were read. Why something
fails is said in the words of the proxy that met it, and as its words: a pod is its tenant's. What to do next is always ours, so that
no pod puts a command before whoever administers the cluster.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from outrider import names
from outrider import resources as models
from outrider_cli import diagnosis, output

_GROUPS_MAX = 5
"""Reasons told of one credential; pods may differ in why."""

_REMEDIES = {
    "CredentialMalformed": "store one line of printable ASCII there",
    "CredentialMisplaced": "correct outrider_origin beside the secret, or the server's endpoint: they must be the same",
}
_STORE = "store it there, or correct the entry: outrider vault-policy shows every path that is read"
_REACH = "see whether pods reach it: its address, DNS, network policies, and that it runs"
_NEXT = (
    ("the login of role", "apply what `outrider vault-policy` prints: the role, and the namespaces bound to it"),
    ("refuses role", "apply what `outrider vault-policy` prints: the policy of that role"),
    ("is sealed", "unseal Vault"),
    ("outrider.dev/secrets", "name the Secret in that annotation of the pod's template, and make it in the pod's namespace"),
    ("settings name no vault", "set settings.vault of the chart"),
    ("is not trusted", "set the caBundle of what shows that certificate (settings.vault, or tls of the entry)"),
    ("no secret at", _STORE), ("nothing at", _STORE), ("has no key", _STORE), ("is deleted", _STORE),
    ("cannot be reached", _REACH), ("takes no connections", _REACH), ("did not answer", _REACH), ("not resolve", _REACH),
    ("does not reach it", _REACH), ("cannot be resolved", _REACH),
)  # fmt: skip
"""What proxies say, and what to do about it; the first that fits."""

_Row = Mapping[str, Any]
_About = tuple[str, str, str, str]
"""Server ("" for an identity provider), name, state, why."""


def of_proxies(rows: Iterable[_Row]) -> Iterator[diagnosis.Finding]:
    """One line for each credential and each reason why it cannot be lent, and for each provider whose keys cannot be had."""
    pods: dict[_About, list[str]] = {}
    said: dict[_About, _Row] = {}
    for row in rows:
        for each in _troubles(row):
            about = (_text(each, "server"), _text(each, "credential") or _text(each, "provider"), _text(each, "state"), _text(each, "why"))  # fmt: skip
            pods.setdefault(about, []).append(f"{row.get('namespace')}/{row.get('pod')}")
            said.setdefault(about, each)
    told: dict[tuple[str, str], int] = {}
    for about in sorted(pods, key=lambda each: (each[:2], -len(pods[each]), each)):
        told[about[:2]] = told.get(about[:2], 0) + 1
        if told[about[:2]] <= _GROUPS_MAX:
            yield _finding(about, pods[about], said[about])


def _finding(about: _About, pods: list[str], said: _Row) -> diagnosis.Finding:
    server, name, state, why = about
    who = diagnosis.several(pods, 3)
    cause = f'{"it says" if len(pods) == 1 else "they say"} "{_quoted(why)}"' if why else "no reason is given"
    remedy = next((then for words, then in _NEXT if words in why.lower()), "")
    if not server:
        make = diagnosis.bad if state == "Failing" else diagnosis.note
        then = (
            remedy
            or "see settings.identityProviders: jwksUri, caBundle, network.allow, and what stands between"
        )
        return make(f"the keys of identity provider {name} cannot be had by {who}", cause, then=then)
    then = remedy or _REMEDIES.get(_text(said, "reason")) or _describe(server)
    if state == "Failing":
        return diagnosis.bad(f"credential {name} of {server} cannot be lent by {who}", cause, then=then)
    return diagnosis.note(
        f"credential {name} of {server} is lent still{_until(said)}, and could not be renewed by {who}", cause, then=then
    )  # fmt: skip


def in_short(row: _Row) -> list[str]:
    """What there is to say of one proxy, a clause each."""
    found = []
    for each in _troubles(row):
        server = _text(each, "server")
        what = (
            f"credential {_text(each, 'credential')} of {server}"
            if server
            else f"identity provider {_text(each, 'provider')}"
        )
        state = "fails" if each.get("state") == "Failing" else f"could not be renewed{_until(each)}"
        found.append(f"{what} {state}: {_text(each, 'why') or 'it does not say why'}")
    return found


def of_settings(settings: models.Settings) -> Iterator[diagnosis.Finding]:
    """What can be used as it is and may not be meant."""
    vault = settings.vault
    if vault is not None:
        if not vault.address.startswith("https:"):
            yield diagnosis.bad(
                f"the settings' Vault is at {vault.address}", "in a pod that is the pod itself, and nothing is encrypted",
                then="set vault.address to Vault's https address",
            )  # fmt: skip
        else:
            yield diagnosis.ok(f"credentials of Vault come from {vault.address}, method {vault.method}")
    for provider in settings.identity_providers:
        if not provider.clients:
            yield diagnosis.note(
                f"identity provider {provider.name} lists no clients",
                f"a token that any client got for {provider.audience} is a user's word",
                then="name the OAuth clients of your agents in identityProviders[].clients",
            )  # fmt: skip


def _troubles(row: _Row) -> list[_Row]:
    """An operator of the version before says nothing of them."""
    listed = row.get("troubles")
    return [each for each in listed if isinstance(each, Mapping)] if isinstance(listed, list) else []


def _text(holder: _Row, name: str) -> str:
    found = holder.get(name)
    return output.printable(found) if isinstance(found, str) else ""


def _quoted(why: str) -> str:
    return why.rstrip(".").replace('"', "'")


def _until(said: _Row) -> str:
    at = said.get("expiresAt")
    if not isinstance(at, int | float):
        return ""
    return (
        f" until {dt.datetime.fromtimestamp(at, dt.UTC).isoformat(timespec='seconds').replace('+00:00', 'Z')}"
    )


def _describe(server: str) -> str:
    namespace, _, name = server.partition("/")
    return f"kubectl describe mcpservers.{names.GROUP} -n {namespace} {name}"
