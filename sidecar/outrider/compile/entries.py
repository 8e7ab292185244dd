# SPDX-License-Identifier: Apache-2.0
"""Credentials that cannot be lent as they are listed: without Vault or a provider, after an entry that takes all, out of bounds.

Called by checks. Like every finding it changes no decision: what cannot be lent is refused by whoever lends.
"""

from __future__ import annotations

from collections.abc import Iterator

from outrider import resources, rules, snapshot
from outrider.compile import lending, objects
from outrider.findings import Finding, Reason, Severity
from outrider.resources import credential, fields


def of(settings: resources.Settings, made: resources.MCPServer) -> Iterator[Finding]:
    """Every finding about the credentials of a server, and about its need for users."""
    listed = made.spec.credentials or ()
    if made.spec.require_user and not settings.identity_providers:
        yield Finding(
            Severity.ERROR, Reason.UNKNOWN_PROVIDER, *objects.about(made), "spec.requireUser",
            "the settings know no identity provider, so that no call can have a verified user: all are refused",
            "Add the provider to identityProviders of the settings, or remove requireUser.",
        )  # fmt: skip
    borrower = lending.Borrower(settings, made.id, made.metadata.namespace)
    for index, entry in enumerate(listed):
        path = f"spec.credentials[{index}]"
        yield from _lendable(settings, made, path, lending.lent(borrower, entry), entry)
        takes = next((each for each in listed[:index] if _takes_all(each, entry)), None)
        if takes is not None:
            yield Finding(
                Severity.WARNING, Reason.SHADOWED, *objects.about(made), path,
                f'every call that it is for is lent "{takes.name}" before it, for the first entry that matches is used',
                "Put it before that one, or remove it.",
            )  # fmt: skip


def _lendable(
    settings: resources.Settings,
    made: resources.MCPServer,
    path: str,
    lent: snapshot.Credential | None,
    entry: credential.Credential,
) -> Iterator[Finding]:
    about = objects.about(made)
    exchange = entry.token_exchange
    if exchange is not None and not lending.shown_to(settings, exchange.token_url):
        yield Finding(
            Severity.ERROR, Reason.UNTRUSTED_TOKEN_ENDPOINT, *about, f"{path}.tokenExchange.tokenUrl",
            "users' tokens would be sent there, and it is neither at the issuer of an identity provider nor listed in the settings; "
            "this entry and those after it are not lent",
            "Have whoever keeps the settings add it to identityProviders[].tokenEndpoints, or name the provider's own endpoint.",
        )  # fmt: skip
        return
    if lent is None:
        yield Finding(
            Severity.ERROR, Reason.UNUSABLE_CREDENTIAL, *about, f"{path}.{entry.kind}",
            "its path or key could mean something else than what is this party's; it and the entries after it are not lent",
            "Write a path of letters, digits, _ . - and /, of which no part begins with a point.",
        )  # fmt: skip
        return
    if settings.vault is None and lending.from_vault(lent.source):
        yield Finding(
            Severity.ERROR, Reason.NO_VAULT, *about, f"{path}.{entry.kind}",
            "it comes from Vault, and the settings name none: calls that it is for are refused",
            "Add `vault:` with its address to the settings.",
        )  # fmt: skip
    if entry.token_exchange is not None and not settings.identity_providers:
        yield Finding(
            Severity.ERROR, Reason.UNKNOWN_PROVIDER, *about, f"{path}.tokenExchange",
            "it exchanges the token of a user, and the settings know no identity provider: calls that it is for are refused",
            "Add the provider to identityProviders of the settings.",
        )  # fmt: skip


def _takes_all(first: credential.Credential, later: credential.Credential) -> bool:
    """True when whatever `later` is for is taken by `first`. Sound: no call is claimed that could reach `later`."""
    callers = all(any(_narrower(one, other) for other in first.from_) for one in later.from_)
    return callers and all(any(rules.matches(wide, glob) for wide in first.tools) for glob in later.tools)


def _narrower(one: fields.Selector, other: fields.Selector) -> bool:
    """True when whoever matches `one` matches `other`: it says all that the other says, about no more."""
    if other.anyone:
        return True
    for field in ("namespaces", "service_accounts", "teams", "users", "groups", "clients"):
        wanted: tuple[str, ...] | None = getattr(other, field)
        if wanted is not None and not set(getattr(one, field) or ("",)) <= set(wanted):
            return False
    return True
