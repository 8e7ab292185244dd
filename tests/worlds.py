# SPDX-License-Identifier: Apache-2.0
"""Builders for tests of compile: objects as a file would hold them, and the world they make."""

from __future__ import annotations

import json

from outrider import manifests, names

S = names.ServerId("crm", "s")
EVERYONE = [{"anyone": True}]
CALLS = {"name": "c", "unit": "Calls", "quota": {"amount": "5", "period": "Day"}}
OURS = [{"namespace": "crm", "name": "s"}]
ALL = [{"namespace": "*", "name": "*"}]


def obj(kind, name, spec, *, namespace="crm"):
    metadata = {"name": name, "namespace": namespace, "generation": 7}
    return {"apiVersion": names.API_VERSION, "kind": kind, "metadata": metadata, "spec": spec}


def server(name="s", *, namespace="crm", **spec):
    whole = {"description": "x", "endpoint": {"url": "https://x.example/mcp"}, **spec}
    return obj("MCPServer", name, whole, namespace=namespace)


def allow(tools=("query",), *, who=EVERYONE, name="a"):
    return {"name": name, "effect": "Allow", "from": who, "tools": list(tools)}


def deny(tools=None, *, who=None, name="d"):
    made = {"name": name, "effect": "Deny", "tools": tools, "from": who}
    return {key: value for key, value in made.items() if value is not None}


def policy(*given, namespace="crm", target=None, name="p", **spec):
    whole = {"targetRefs": target or [{"name": "s"}], "rules": list(given), **spec}
    return obj("MCPToolPolicy", name, whole, namespace=namespace)


def budget(*limits, namespace="crm", target=None, name="b", **spec):
    return obj(
        "MCPBudget",
        name,
        {"targetRefs": target or [{"name": "s"}], "limits": list(limits), **spec},
        namespace=namespace,
    )


def world(*objects, **settings):
    top = {"apiVersion": names.API_VERSION, "kind": "Settings", **settings}
    text = "\n---\n".join(json.dumps(one) for one in (*objects, top))
    return manifests.load({"w.yaml": text.encode()}, folder="/etc/o")
