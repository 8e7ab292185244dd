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
_ABSOLUTE = re.compile(r"(?P<scheme>[A-Za-z][A-Za-z0-9+.-]*):(?P<rest>.*)")
_WITH_HOST = frozenset({"http", "https", "ws", "wss", "ftp"})
_PORT = r":[0-9]{1,4}|:[1-5][0-9]{4}"
_HOSTED = re.compile(rf"//(?P<host>[A-Za-z0-9][A-Za-z0-9._-]*)({_PORT})?([/?#].*)?")
_ADDRESS = re.compile(
    r"(25[0-5]|2[0-4][0-9]|1[0-9][0-9]|[1-9]?[0-9])(\.(25[0-5]|2[0-4][0-9]|1[0-9][0-9]|[1-9]?[0-9])){3}"
)
_AUTHORITY = re.compile(rf"//([A-Za-z0-9._~%@-]*({_PORT})?)?([/?#]|$)")
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


def listing_flaw(uri: str) -> str | None:
    """Why this URI is not listed: for `flaw`, or because clients that parse URIs would lose the whole list over it.

    It can be read all the same where policies say so: only lists are read by parsers.
    """
    if (found := flaw(uri)) is not None:
        return found
    absolute = _ABSOLUTE.fullmatch(uri)
    if absolute is None:
        return "it has no scheme, such as file: or crm:"
    if absolute["scheme"].lower() in _WITH_HOST and not _is_hosted(absolute["rest"]):
        return "its scheme needs a plain host, such as https://docs.example/a"
    if absolute["rest"].startswith("//") and _AUTHORITY.match(absolute["rest"]) is None:
        return "what follows its // is no plain host"
    return None


def _is_hosted(rest: str) -> bool:
    """A host name, or an address of four numbers: what ends in a number and is none, parsers refuse."""
    found = _HOSTED.fullmatch(rest)
    if found is None:
        return False
    host = found["host"].lower().rstrip(".")
    if "xn--" in host:
        return False
    return not host.rpartition(".")[2][:1].isdigit() or _ADDRESS.fullmatch(host) is not None


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
