# SPDX-License-Identifier: Apache-2.0
"""A proxy before a server, with everything allowed that a platform can allow: what conformance and the matrix run through."""

from __future__ import annotations

import contextlib
import pathlib
from collections.abc import Iterator, Mapping

from tests import laptop

EVERY_FEATURE = {
    "elicitation": {"form": "Allow", "urlHosts": ["example.com"]},
    "sampling": "Allow",
    "roots": "Allow",
}
ALLOW_ALL = {
    "name": "everything", "effect": "Allow", "from": [{"anyone": True}], "tools": ["*"], "prompts": ["*"],
    "resources": ["*"],
}  # fmt: skip


@contextlib.contextmanager
def running(folder: pathlib.Path, urls: Mapping[str, str]) -> Iterator[laptop.Laptop]:
    """`urls` maps `namespace/name` to where that server is."""
    each = []
    for name, url in urls.items():
        each.append(laptop.server(name, url, clientFeatures=EVERY_FEATURE, instructions="Pass"))
        each.append(laptop.policy(f"outrider-system/{name.replace('/', '-')}", name, ALLOW_ALL))
    with laptop.running(folder, {"all.yaml": laptop.documents(*each)}) as made:
        yield made


def url(made: laptop.Laptop, name: str) -> str:
    """The endpoint of one server; by the name localhost, as the suite demands."""
    return f"http://localhost:{made.agent.port}{laptop.path(name)}"
