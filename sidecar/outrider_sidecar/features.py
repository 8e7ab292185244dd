# SPDX-License-Identifier: Apache-2.0
"""May this server ask this client for that? Elicitation, sampling and roots, as the entry allows and the client offers (R22).

Called for what a server of the handshake era asks by a request and one of the stateless era by an entry of `inputRequests`
alike: both are a method and params. Pure: it says relay, answer in the client's place, or refuse, and does none of it.
What a server may ask is exactly what `narrowed` let it know that it may ask.
"""

from __future__ import annotations

import dataclasses
import enum
import functools
import itertools
import json
import re
import urllib.parse
from collections.abc import Mapping
from typing import Any

from outrider import rules, snapshot, strictjson
from outrider_sidecar import conventions

Capabilities = Mapping[str, Any]
"""What a client declared, as `agents.declared` reduced it to members that something can be asked by."""

FIELDS_MAX = 100
"""Fields of one form: more than people fill in, few enough to be looked through one by one."""

_RULED_BY = frozenset({"mode", "url", "requestedSchema", "tools", "toolChoice", "_meta"})
_FORM = frozenset({"properties"})
_NAMES = ("elicitation", "sampling", "roots")
_MEMBERS = {"listChanged": True}
_NO_ROOTS = b'{"roots":[]}'
_SECRET_WORDS = frozenset({
    "apikey", "credential", "credentials", "cvc", "cvv", "otp", "passcode", "passphrase", "passwd", "password", "passwords",
    "privatekey", "pwd", "secret", "secrets", "secretkey", "token",
})  # fmt: skip
_SECRET_PAIRS = frozenset({
    ("access", "key"), ("api", "key"), ("card", "number"), ("encryption", "key"), ("private", "key"), ("recovery", "code"),
    ("pass", "phrase"), ("pass", "word"), ("secret", "key"), ("security", "code"), ("seed", "phrase"), ("signing", "key"),
})  # fmt: skip
_WORD = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+|[^\W\d_A-Za-z]+")


class Feature(enum.Enum):
    """What a client can be asked for. The value is how the entry's `clientFeatures` calls it."""

    FORM = "elicitation.form"
    URL = "elicitation.urlHosts"
    SAMPLING = "sampling"
    ROOTS = "roots"


class Verdict(enum.Enum):
    """RELAY it; or answer `Ruling.answer` in the client's place; or REFUSE."""

    RELAY = "Relay"
    ANSWER = "Answer"
    REFUSE = "Refuse"


@dataclasses.dataclass(frozen=True, slots=True)
class Ruling:
    """`why` is one sentence for whoever asked and for the journal; it quotes nothing but names of fields and hosts.

    `undeclared`: the client does not offer it, whatever the entry says.
    """

    verdict: Verdict
    feature: Feature | None = None
    why: str = ""
    answer: bytes = b""
    undeclared: bool = False


# What a client offers and a server gets to know ---------------------------------------------------------------------


def narrowed(offered: Capabilities, allowed: snapshot.ClientFeatures) -> dict[str, Any]:
    """The capabilities that we declare to a server: what the client declared and the entry permits.

    An empty `elicitation` stands for forms, as it did before there was anything else.
    """
    found: dict[str, Any] = {}
    elicitation = offered.get("elicitation")
    if elicitation is not None:
        url = "url" in elicitation and bool(allowed.elicitation_url_hosts)
        form = allowed.elicitation_form and ("form" in elicitation or not elicitation)
        kept: dict[str, Any] = ({"form": {}} if form and (elicitation or url) else {}) | (
            {"url": {}} if url else {}
        )
        if form or url:
            found["elicitation"] = kept
    if allowed.sampling and "sampling" in offered:
        found["sampling"] = offered["sampling"]
    if allowed.roots and "roots" in offered:
        found["roots"] = offered["roots"]
    return found


def told(offered: Capabilities, allowed: snapshot.ClientFeatures) -> bytes:
    """`narrowed` as JSON: made once for each of the few things that clients declare, for it goes with every request."""
    if not offered:
        return b"{}"
    shape = tuple((name, tuple(offered[name])) for name in _NAMES if name in offered)
    return _told(shape, allowed)


@functools.lru_cache(maxsize=1024)
def _told(shape: tuple[tuple[str, tuple[str, ...]], ...], allowed: snapshot.ClientFeatures) -> bytes:
    offered: dict[str, Any] = {
        name: {member: _MEMBERS.get(member, {}) for member in members} for name, members in shape
    }
    return json.dumps(narrowed(offered, allowed)).encode()


# What a server asks -------------------------------------------------------------------------------------------------


def ruling(method: str, params: bytes, *, offered: Capabilities, allowed: snapshot.ClientFeatures) -> Ruling:
    """Whether a server may ask this. `params` raw, as it sent them; `offered` what the client declared."""
    if method == conventions.LIST_ROOTS and not allowed.roots:
        why = "the client's roots are not shown to this server"
        return Ruling(Verdict.ANSWER, Feature.ROOTS, why, answer=_NO_ROOTS)
    try:
        asked = strictjson.parse(params)  # a client might read another of two equal keys than we do
    except strictjson.StrictError:
        asked = None
    if not isinstance(asked, dict) or strictjson.disguised(asked, _RULED_BY):
        return Ruling(Verdict.REFUSE, None, "the params can be read in two ways, or are no JSON object")
    if method == conventions.LIST_ROOTS:
        return _either(Feature.ROOTS, offered="roots" in offered, allowed=True)
    if method == conventions.SAMPLE:
        return _sampling(asked, offered, allowed)
    if method == conventions.ELICIT:
        return _elicitation(asked, offered, allowed)
    return Ruling(Verdict.REFUSE, None, "servers may ask for elicitation, sampling and roots only")


def _either(feature: Feature, *, offered: bool, allowed: bool, what: str = "") -> Ruling:
    """The entry's word comes first: it holds whatever a client can do."""
    if not allowed:
        return Ruling(
            Verdict.REFUSE,
            feature,
            f"the server's entry does not allow {what or feature.value} (clientFeatures)",
        )
    if not offered:
        why = f"the client did not declare {what or feature.value}"
        return Ruling(Verdict.REFUSE, feature, why, undeclared=True)
    return Ruling(Verdict.RELAY, feature)


def _sampling(asked: Mapping[str, Any], offered: Capabilities, allowed: snapshot.ClientFeatures) -> Ruling:
    verdict = _either(Feature.SAMPLING, offered="sampling" in offered, allowed=allowed.sampling)
    if verdict.verdict is not Verdict.RELAY:
        return verdict
    with_tools = asked.get("tools") is not None or asked.get("toolChoice") is not None
    can = not with_tools or "tools" in offered["sampling"]
    return _either(Feature.SAMPLING, offered=can, allowed=True, what="sampling.tools")


def _elicitation(asked: Mapping[str, Any], offered: Capabilities, allowed: snapshot.ClientFeatures) -> Ruling:
    mode, elicitation = asked.get("mode", "form"), offered.get("elicitation")
    if mode == "url":
        can = elicitation is not None and "url" in elicitation
        verdict = _either(Feature.URL, offered=can, allowed=bool(allowed.elicitation_url_hosts))
        if verdict.verdict is not Verdict.RELAY:
            return verdict
        return _visit(asked.get("url"), allowed.elicitation_url_hosts)
    if mode != "form":
        return Ruling(Verdict.REFUSE, None, "an elicitation is of mode form or url")
    can = elicitation is not None and ("form" in elicitation or not elicitation)
    verdict = _either(Feature.FORM, offered=can, allowed=allowed.elicitation_form)
    return _form(asked.get("requestedSchema")) if verdict.verdict is Verdict.RELAY else verdict


def _visit(url: object, hosts: tuple[str, ...]) -> Ruling:
    """People are sent to listed hosts only, in words that every reader of URLs reads the same."""
    host = _host(url) if isinstance(url, str) else None
    if host is None:
        why = "the address is not a plain https URL: no user, no port, no backslash, only visible ASCII"
        return Ruling(Verdict.REFUSE, Feature.URL, why)
    if host not in {each.lower() for each in hosts}:
        return Ruling(
            Verdict.REFUSE, Feature.URL, f"{host[:253]} is not in clientFeatures.elicitation.urlHosts"
        )
    return Ruling(Verdict.RELAY, Feature.URL)


def _host(url: str) -> str | None:
    if "\\" in url or any(not "!" <= each <= "~" for each in url):
        return None
    try:
        parts = urllib.parse.urlsplit(url)
        plain = parts.scheme == "https" and parts.port in (None, 443) and "@" not in parts.netloc
        host = parts.hostname
    except ValueError:
        return None
    if not plain or host is None or "%" in host or host.endswith("."):
        return None
    return host


def _form(schema: object) -> Ruling:
    """Forms are for what may be said aloud (specification): a field that looks like a secret refuses the whole form."""
    plain = isinstance(schema, dict) and not strictjson.disguised(schema, _FORM)
    fields = schema.get("properties") if isinstance(schema, dict) and plain else None
    if not isinstance(fields, dict) or len(fields) > FIELDS_MAX:
        why = f"requestedSchema must be an object of at most {FIELDS_MAX} properties"
        return Ruling(Verdict.REFUSE, Feature.FORM, why)
    for name, field in fields.items():
        members = field.items() if isinstance(field, dict) else ()
        titles = [value for key, value in members if rules.fold(key) in ("title", "format")]
        if any(looks_secret(text) for text in (name, *titles) if isinstance(text, str)):
            why = f"the form asks for a secret ({name[:64]!r}), and forms are not for secrets"
            return Ruling(Verdict.REFUSE, Feature.FORM, why)
    return Ruling(Verdict.RELAY, Feature.FORM)


def looks_secret(text: str) -> bool:
    """A field's name or title that speaks of passwords, keys, tokens or cards, however its words are joined."""
    words = [each.lower() for each in _WORD.findall(text)]
    folded = [each.lower() for each in _WORD.findall(rules.fold(text))]
    return any(
        each in _SECRET_WORDS or (each, following) in _SECRET_PAIRS
        for found in (words, folded)
        for each, following in itertools.pairwise([*found, ""])
    )
