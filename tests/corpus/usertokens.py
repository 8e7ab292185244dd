# SPDX-License-Identifier: Apache-2.0
"""The tokens of tokens.yaml, really signed: by whom, and what each row changes."""

from __future__ import annotations

import base64
import dataclasses
import hashlib
import hmac
import json
import pathlib
import re
from typing import Any

import yaml
from cryptography.hazmat.primitives import serialization
from tests.servers import idp

ROWS: list[dict[str, Any]] = yaml.safe_load((pathlib.Path(__file__).parent / "tokens.yaml").read_text())
PUBLISHED = ["es-1", "rs-1", "es384-1", "es512-1", "ed-1", idp.jwk("rs-enc", use="enc"), "weak-1"]
DOMAINS = ("example.com",)
CLIENTS = ("agent", "deputy")

_BIG = {
    "long": "x" * 300, "many": [f"g{number}" for number in range(600)], "huge": "x" * 20_000,
    "deep": json.loads("[" * 100 + "]" * 100), "own": idp.jwk("es-other"),
}  # fmt: skip


@dataclasses.dataclass(frozen=True)
class Row:
    """`headers` are the values of `Outrider-User`, one a header; `clients` whether the provider lists some."""

    what: str
    flaw: str | None
    clients: bool
    headers: tuple[str, ...]


def row(at: int, provider: idp.Provider, now: float) -> Row:
    """One of the table, signed now."""
    return _made(ROWS[at], provider, now)


def _made(row: dict[str, Any], provider: idp.Provider, now: float) -> Row:
    header = _merged({"alg": "ES256", "typ": "JWT", "kid": "es-1"}, row.get("header", {}), now)
    claims = _merged(provider.claims(now=now), row.get("claims", {}), now)
    key = row.get("key", "es-1")
    algorithm = row.get("algorithm", "PS256" if header.get("alg") == "PS256" else idp.default_algorithm(key))
    if key in ("public", "secret"):
        signer: Any = _pem("rs-1") if key == "public" else b"a shared secret of thirty-two bytes and more"
    else:
        signer = None if algorithm == "none" else idp.private(key)
    token = _signed(row.get("raw_header", header), row.get("raw_claims", claims), signer, algorithm)
    return Row(row["what"], row.get("flaw"), row.get("clients", False), _texts(row.get("text"), token))


def _signed(header: Any, claims: Any, signer: Any, algorithm: str) -> str:
    if isinstance(signer, bytes):  # the library refuses to sign with a public key: the attacker's does not
        text = f"{idp.encoded(header)}.{idp.encoded(claims)}"
        made = hmac.new(signer, text.encode(), hashlib.sha256).digest()
        return f"{text}.{base64.urlsafe_b64encode(made).rstrip(b'=').decode()}"
    return idp.signed(header, claims, key=signer, algorithm=algorithm)


def _texts(how: str | None, token: str) -> tuple[str, ...]:
    head, body, signature = (*token.split("."), "", "", "")[:3]
    changed = {
        None: (token,), "empty": ("",), "twice": (token, token), "bearer": (f"Bearer {token}",), "padded": (f"{token}==",),
        "spare": (token[:-1] + _neighbour(token[-1]),), "slashed": (f"{head}.{body}.{signature[:-1]}/",),
        "unsigned": (f"{head}.{body}",), "hollow": (f"{head}.{body}.",), "five": (f"{token}.x.y",),
    }  # fmt: skip
    return changed.get(how, (str(how),))


def _neighbour(character: str) -> str:
    """The next of the alphabet: 64 bytes of signature leave four spare bits in the last character."""
    alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
    return alphabet[alphabet.find(character) + 1]


def _pem(name: str) -> bytes:
    kinds = serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    return idp.private(name).public_key().public_bytes(*kinds)


def _merged(base: dict[str, Any], changes: dict[str, Any], now: float) -> dict[str, Any]:
    made = {**base, **{key: _value(value, now) for key, value in changes.items()}}
    return {key: value for key, value in made.items() if value is not None}


def _value(value: Any, now: float) -> Any:
    if isinstance(value, str) and value in _BIG:
        return _BIG[value]
    moved = re.fullmatch(r"now([+-][0-9.]+)", value) if isinstance(value, str) else None
    if moved is None:
        return value
    at = now + float(moved[1])
    return at if "." in moved[1] else int(at)
