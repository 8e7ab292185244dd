# SPDX-License-Identifier: Apache-2.0
"""Objects with one thing changed by chance, to find what two readers of the kinds understand differently."""

from __future__ import annotations

import copy
import random
from collections.abc import Iterator
from typing import Any

from tests.corpus import objects

FIELDS = (
    "form", "nonsense", "file", "command", "service", "url", "tls", "quota", "rate", "message", "anyone", "none", "title", "vault", "secretRef",
    "clientSecret", "privateKey", "post", "algorithm", "inject", "users", "groups", "requireUser", "ttl",
)  # fmt: skip
TEXTS = (
    "", "a", "A", "a b", "x" * 64, "x" * 130, "*", "a*", "\u00e9", "a/b", "a/b/c", "-a", "sales", "a\tb", "\u0085", "\u2028",
    "1", "0", "00", "1.5", "1.000", "0.0000001", "1000000000000", "999999999999.999999",
    "10", "5s", "0s", "500ms", "60s", "61s", "61m", "999999m",
    "http://a", "https://a.b:1/x", "https://[::1]/", "https://[::1", "http://a:99999/", "http://-a/", "https://a.b/?q",
    "https://a.b/%41", "https://1.2.3.4:0010/", "http://a.:80/", "http://a..b/", "https://:443/",
    "UTC", "Europe/Berlin", "Local", "Etc/GMT+5", "Mars/Base", "Auto", "2025-11-25", "True", "Allow", "Deny", "Enforce",
    "okta:ada", "okta:", "okta: a", "okta:*", "Okta:a", "okta:a b", "../a", "a/..", "a/../b", "a/.b", "a//b", "a/", ".a", "a.b",
    "cookie", "Host", "x-key", "http://localhost/t", "http://127.0.0.1:80/t", "http://[::1]/t", "http://127.0.0.1.example/", "1m",
    "59s", "1440m", "1441m", "Server", "Workload", "Nobody", "KV", "RS256", "HS256", "urn:a", "a:", "urn:a#b",
    "/a", "/~2", "/a~1b", "-----BEGIN CERTIFICATE-----",
)  # fmt: skip
VALUES = (
    *TEXTS, 0, 1, -1, 5, 1024, 2**31, 2**53, 2**63 - 1, True, False, 1.5, [], {}, ["a"], ["a", "a"], [1], [100, 50], [50, 100],
    {"a": "b"}, {"x-y": "z"}, {"X": "y", "x": "y"}, {"x": " y"}, {"x": "y "}, {"content-x": "y"}, {"tokens": "x"},
    {"x": "A1b2C3d4E5f6G7h8I9j0K1l2"}, {"x": "0123456789abcdef0123456789abcdef"}, {"te": "x"}, {"tea": "x"},
    {"path": "a", "key": "b"}, {"key": "b"}, {"vault": {"path": "a", "key": "b"}}, ["okta:a"], [{"users": ["okta:a"]}],
    [{"anyone": True}], [{"anyone": True, "teams": ["a"]}], [{"namespaces": ["*"]}], [{}],
)  # fmt: skip


def changed(chance: random.Random, namespace: str, name: str) -> dict[str, Any]:
    """A right object with one field removed, doubled, added or given another value."""
    made = copy.deepcopy(chance.choice(objects.valid(namespace)))
    made["metadata"]["name"] = name
    *way, last = chance.choice(list(_paths(made["spec"])))
    at = made["spec"]
    for step in way:
        at = at[step]
    how = chance.random()
    if how < 0.15:
        del at[last]
    elif how < 0.25 and isinstance(at, list):
        at.append(copy.deepcopy(at[last]))
    elif how < 0.3 and isinstance(at, dict):
        at[chance.choice(FIELDS)] = copy.deepcopy(chance.choice(VALUES))
    else:
        at[last] = copy.deepcopy(chance.choice(VALUES))
    return made


def _paths(value: Any, at: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for step, each in inner:
        yield (*at, step)
        yield from _paths(each, (*at, step))
