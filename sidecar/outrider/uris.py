# SPDX-License-Identifier: Apache-2.0
"""URIs of resources as policies see them: which are refused before any matching, and in which guises a Deny looks for one.

Called by targets, per URI and not per rule, and by the catalogue for what servers list. Refuses what two readers may take for
two different things (resources.md): a policy must mean what the server will open. It rewrites nothing: what is sent upstream are
the bytes that the agent sent.
"""

from __future__ import annotations

import re
import urllib.parse

CHARACTERS_MAX = 4096
VARIABLE = "\ue000"
"""Stands for whatever a variable of a template may become: no URI that passes `flaw` holds it, so no glob means it."""

_DECODED_TIMES_MAX = 4
_HIDDEN = re.compile(r"%(?:2[ef]|5c)", re.IGNORECASE)
_DOTS = re.compile(r"(?:^|[/?#&;=:])\.{1,2}(?=[/?#&;]|$)")
_SLASHES = re.compile(r"/{2,}")
_EXPRESSION = re.compile(r"\{[^{}]*\}")


def flaw(uri: str) -> str | None:
    """Why this URI is refused whatever policies say; None when it is not."""
    if not 0 < len(uri) <= CHARACTERS_MAX:
        return f"a URI has 1 to {CHARACTERS_MAX} characters"
    if " " in uri or not uri.isprintable():
        return "it holds a space, a control or an invisible character"
    if "{" in uri or "}" in uri:
        return "it is a template, not a URI"
    text: str | None = uri
    for _ in range(_DECODED_TIMES_MAX):
        assert text is not None
        if (found := _misleading(text)) is not None:
            return found
        decoded = _decoded(text)
        if decoded == text:
            return None
        if decoded is None:
            return "its percent-encoded bytes are no UTF-8 text"
        text = decoded
    return f"it is percent-encoded more than {_DECODED_TIMES_MAX - 1} times over"


def forms(uri: str) -> tuple[str, ...]:
    """Every guise of a URI without a flaw, itself first: as it is, decoded, and with repeated slashes taken for one.

    A Deny matches when it matches any of them, so that no other spelling of a resource escapes it.
    """
    found = [uri]
    while (decoded := _decoded(found[-1])) not in (None, found[-1]):
        assert decoded is not None
        found.append(decoded)
    return tuple(dict.fromkeys([*found, *map(_plain, found)]))


def pattern(template: str) -> str:
    """A URI template as a glob: every expression may become anything."""
    return _EXPRESSION.sub("*", template)


def anything(template: str) -> str:
    """A URI template with every expression replaced by VARIABLE: a glob that matches it matches all that it can become."""
    return _EXPRESSION.sub(VARIABLE, template)


def template_flaw(template: str) -> str | None:
    """Why this URI template is refused; None when it is not. Its expressions are not looked into."""
    if "{" not in _EXPRESSION.sub("", template) and "}" not in _EXPRESSION.sub("", template):
        return flaw(_EXPRESSION.sub("x", template))
    return "its braces do not pair"


def _misleading(text: str) -> str | None:
    if "\\" in text or _HIDDEN.search(text):
        return "it holds a backslash, or an encoded dot, slash or backslash"
    if _DOTS.search(text):
        return "it holds a segment of dots"
    if not text.isprintable():
        return "it holds an encoded control or invisible character"
    return None


def _decoded(text: str) -> str | None:
    if "%" not in text:
        return text
    try:
        return urllib.parse.unquote(text, errors="strict")
    except UnicodeDecodeError:
        return None


def _plain(text: str) -> str:
    scheme, mark, rest = text.partition("://")
    return f"{scheme}{mark}{_SLASHES.sub('/', rest)}" if mark else _SLASHES.sub("/", text)
