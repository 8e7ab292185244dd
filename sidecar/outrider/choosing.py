# SPDX-License-Identifier: Apache-2.0
"""Which entry of a server's credentials goes with what: the first that is for whoever asks.

Called by targets for what agents call, and by decide for what the proxy asks on its own. Refuses to pass over an entry that hinges
on a user who is absent: what comes after it may be for somebody else (resources.md, "Unknown is never lenient").
"""

from __future__ import annotations

import dataclasses

from outrider import decision, identity, rules, snapshot


def lends(entry: snapshot.Credential, user: identity.User | None) -> bool | None:
    """Whether a credential is for this caller; None when that hinges on a user who is absent, as an exchange always does."""
    says = rules.admits(entry.callers, user)
    return None if says and user is None and isinstance(entry.source, snapshot.TokenExchange) else says


def conditional(entry: snapshot.Credential) -> bool:
    """Whether a user makes a difference to it."""
    return bool(entry.callers) or isinstance(entry.source, snapshot.TokenExchange)


@dataclasses.dataclass(frozen=True, slots=True)
class Choice:
    """`entry` None: there is none for this caller, or, when `doubtful`, which one it is depends on the user who is absent."""

    entry: snapshot.Credential | None
    doubtful: bool = False


def choice(entries: tuple[snapshot.Credential, ...], user: identity.User | None) -> Choice:
    """For a call: the first entry that is for this caller, unless one before it might be."""
    for entry in entries:
        says = lends(entry, user)
        if says is not False:
            return Choice(entry) if says else Choice(None, doubtful=True)
    return Choice(None)


@dataclasses.dataclass(frozen=True, slots=True)
class Leave:
    """With what the proxy asks on its own, and in whose name; `user` None: in nobody's."""

    entry: snapshot.Credential | None = None
    user: identity.User | None = None


def leave(
    view: snapshot.ServerView, user: identity.User | None, *, named: str | None = None
) -> Leave | decision.Reason:
    """For what the proxy asks on its own: the first entry that is for the workload whoever the user is, or why there is none.

    Entries that hinge on a user are passed over here, for the answer is shown to nobody as it is; only where there is no other
    it asks in the name of `user`. `named`: of the entry of this name alone.
    """
    entries = tuple(entry for entry in view.credentials if named in (None, entry.name))
    if not entries:
        return decision.Reason.NO_CREDENTIAL_FOR_CALLER if view.credential_required else Leave()
    for entry in entries:
        if lends(entry, None):
            return Leave(entry)
    if user is None:
        return decision.Reason.USER_REQUIRED
    found = choice(entries, user).entry
    return decision.Reason.NO_CREDENTIAL_FOR_CALLER if found is None else Leave(found, user)
