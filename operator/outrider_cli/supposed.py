# SPDX-License-Identifier: Apache-2.0
"""A user that a question supposes: who it would be if a token said so.

Called by can-i and explain. No token is asked for or looked at, so an answer about such a user says what it assumed. Refuses a
user of an identity provider that the settings do not have: nobody's token could say that. A pattern is nobody's name either: an
answer to it would look like one about everybody.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterable
from typing import Any, TypeVar

import click

from outrider import identity, snapshot
from outrider_cli import output

_Command = TypeVar("_Command", bound=Callable[..., Any])
FORM = "write it as PROVIDER:VALUE, with a provider of the settings, such as okta:sales"

FIELDS = frozenset({"user", "groups", "client"})
"""Of a line of a batch: a text or several, several, a text."""


def options(command: _Command) -> _Command:
    """The options that say who the user is."""
    user = click.option(
        "--user", "users", multiple=True, metavar="PROVIDER:ID",
        help="Suppose this user behind the agent; once more for an e-mail address that counts.",
    )  # fmt: skip
    group = click.option(
        "--group", "groups", multiple=True, metavar="PROVIDER:GROUP", help="A group of that user; as often as needed."
    )  # fmt: skip
    client = click.option(
        "--client", metavar="PROVIDER:ID", help="The OAuth client that the user's token was given to."
    )
    return user(group(client(command)))


def chosen(given: dict[str, Any]) -> identity.User | None:
    """The user of the options, which it takes out of `given`; None without one. Raises Stop."""
    users, groups, client = given.pop("users"), given.pop("groups"), given.pop("client")
    if not users and (groups or client is not None):
        raise output.Stop(
            output.USAGE, "a group or a client is somebody's, and there is no user", then="say whose with --user PROVIDER:ID"
        )  # fmt: skip
    try:
        return user(users, groups, client)
    except ValueError as error:
        raise output.Stop(output.USAGE, str(error), then=FORM) from None


def of_line(given: dict[str, Any]) -> identity.User | None:
    """The user of one line of a batch. Raises ValueError with what is wrong."""
    texts = {
        field: [given[field]] if isinstance(given.get(field), str) else given.get(field, [])
        for field in FIELDS
    }
    for field, found in texts.items():
        if not isinstance(found, list) or not all(isinstance(each, str) for each in found):
            raise ValueError(f"{field!r} is neither a text nor a list of texts")
    if len(texts["client"]) > 1:
        raise ValueError("'client' is one text")
    return user(texts["user"], texts["groups"], next(iter(texts["client"]), None))


def user(users: Iterable[str], groups: Iterable[str], client: str | None) -> identity.User | None:
    """The user that these make: the first name is the id. Raises ValueError with what is wrong."""
    named, members = tuple(users), tuple(groups)
    words = [("user", each) for each in named] + [("group", each) for each in members]
    if client is not None:
        words.append(("client", client))
    providers = set()
    for word, text in words:
        parsed = identity.principal_ref(text)
        if parsed is None:
            raise ValueError(f"{output.printable(text)!r} is no {word}")
        if "*" in parsed[1]:
            raise ValueError(
                f"{output.printable(text)!r} is no {word}: there are no patterns, and no selector names it"
            )
        providers.add(parsed[0])
    if words and not named:
        raise ValueError("a group or a client is somebody's: there is no user")
    if len(providers) > 1:
        raise ValueError(f"one token is of one provider, not of {' and '.join(sorted(providers))}")
    if not named:
        return None
    return identity.User(id=named[0], names=frozenset(named), groups=frozenset(members), client=client or "")


def check(supposed: identity.User | None, providers: Iterable[snapshot.IdentityProvider]) -> None:
    """Raises Stop for a user of a provider that is not configured."""
    if supposed is None:
        return
    known = [each.name for each in providers]
    wanted = supposed.id.partition(":")[0]
    if wanted in known:
        return
    near = difflib.get_close_matches(wanted, known, n=1)
    then = f"did you mean {near[0]}?" if near else f"name one of {', '.join(sorted(known))}"
    raise output.Stop(
        output.USAGE,
        f"no identity provider of the settings is called {output.printable(wanted)!r}",
        why="a token of a user of it is refused (UserTokenInvalid)",
        then=then if known else "add it to identityProviders in the settings",
    )


def assumed(supposed: identity.User) -> str:
    """What an answer takes for granted, for people."""
    groups = ", ".join(sorted(supposed.groups)) or "none"
    client = f", through client {supposed.client}" if supposed.client else ""
    return f"assumed: a user {supposed.id} with these groups: {groups}{client}"


def as_json(supposed: identity.User | None) -> dict[str, Any]:
    """The user as questions and answers hold it."""
    if supposed is None:
        return {"user": None}
    return {"user": supposed.id, "groups": sorted(supposed.groups), "client": supposed.client}
