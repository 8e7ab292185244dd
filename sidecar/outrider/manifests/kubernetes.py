# SPDX-License-Identifier: Apache-2.0
"""One object as the API server returns it, or the settings of the ConfigMap, to the models a file is read with.

Called by the operator's source of a cluster, by its admission and by offline commands. Never raises: what is wrong is a value,
with a path and a remedy. Refuses what is only for a laptop (a command to run, a credential from a file), whoever let it in: the
API server's own checks may have been absent when the object was written.
"""

from __future__ import annotations

import contextlib
import ipaddress
import json
from collections.abc import Iterator, Mapping
from typing import Any

import pydantic

from outrider import names, resources
from outrider.manifests import phrases, tree
from outrider.manifests.problem import Problem
from outrider.resources import fields, schemas

Resource = resources.MCPServer | resources.MCPToolPolicy | resources.MCPBudget

_METADATA = ("name", "namespace", "generation", "uid")
"""What of an object's metadata means something here; the rest (labels, managedFields, resourceVersion) is not looked at."""

_ONLY_ON_A_LAPTOP = "exists only in files that `outrider dev` reads; remove it"


def endpoint_addresses(found: Mapping[str, Any]) -> tuple[str, ...]:
    """Of an EndpointSlice: where its endpoints are, ready or not, sorted, each once and in one spelling. Names are left out."""
    listed = [each for endpoint in found.get("endpoints") or () for each in endpoint.get("addresses") or ()]
    made: set[ipaddress.IPv4Address | ipaddress.IPv6Address] = set()
    for text in listed:
        with contextlib.suppress(ValueError):
            one = ipaddress.ip_address(text)
            mapped = one.ipv4_mapped if isinstance(one, ipaddress.IPv6Address) else None
            made.add(mapped or one)
    return tuple(map(str, sorted(made, key=lambda one: (one.version, int(one)))))


def kubernetes_object(raw: Any) -> Resource | tuple[Problem, ...]:
    """The resource that `raw`, decoded JSON, holds; or every problem, never none, each without file and line."""
    if not isinstance(raw, Mapping):
        return (Problem("", 0, "", "is not an object"),)
    allowed = tuple(sorted(resources.KINDS.keys() - {"Settings"}))
    kind = raw.get("kind")
    if raw.get("apiVersion") != names.API_VERSION:
        return (Problem("", 0, "apiVersion", "is none of ours.", (names.API_VERSION,)),)
    if kind not in allowed:
        return (Problem("", 0, "kind", "is none of ours.", allowed),)
    value = {str(field): raw[field] for field in raw if field not in ("metadata", "status")}
    if "metadata" in raw:
        value["metadata"] = _metadata(raw["metadata"])
    made = _made("", kind, value, None)
    assert isinstance(made, tuple | Resource), "the kind is not Settings"
    return made


def settings(text: str | bytes, *, file: str = "settings.yaml") -> resources.Settings | tuple[Problem, ...]:
    """The Settings of a YAML text that holds them alone; or every problem, never none, with its line in `file`."""
    documents, flaws = tree.read(text.encode("utf-8", "replace") if isinstance(text, str) else text)
    if flaws:
        return tuple(Problem(file, flaw.line, flaw.field, flaw.message) for flaw in flaws)
    if len(documents) != 1:
        text = f"must hold one document of kind Settings and holds {len(documents)}"
        return (Problem(file, 0, "", text),)
    [document] = documents
    value = document.plain()
    given = value if isinstance(value, dict) else {}
    for field, wanted in (("apiVersion", names.API_VERSION), ("kind", "Settings")):
        if given.get(field) != wanted:
            return (Problem(file, document.line_of((field,)), field, "must be said.", (wanted,)),)
    made = _made(file, "Settings", value, document)
    assert isinstance(made, tuple | resources.Settings), "the kind is Settings"
    return made


def _made(
    file: str, kind: str, value: dict[str, Any], document: tree.Node | None
) -> pydantic.BaseModel | tuple[Problem, ...]:
    """The model of `value`, or its problems."""
    found = [
        Problem(file, document.line_of(path) if document else 0, phrases.dotted(path), _ONLY_ON_A_LAPTOP)
        for path in _only_on_a_laptop(schemas.schema(kind), value, ())
    ]
    if found:
        return tuple(found)
    try:
        return resources.KINDS[kind].model_validate_json(json.dumps(value))
    except pydantic.ValidationError as error:
        return tuple(phrases.problems(file, document, kind, error, laptop=False))
    except (TypeError, ValueError, RecursionError) as error:
        return (Problem(file, 0, "", f"is not JSON that can be read: {type(error).__name__}"),)


def _metadata(given: Any) -> Any:
    if not isinstance(given, Mapping):
        return given
    return {field: given[field] for field in _METADATA if field in given}


def _only_on_a_laptop(schema: dict[str, Any], value: Any, path: tree.Path) -> Iterator[tree.Path]:
    """Where in `value` a field stands that no cluster has."""
    schema = schemas.plain(schema)
    if isinstance(value, Mapping):
        for name, child in schema.get("properties", {}).items():
            if name not in value:
                continue
            if child.get(fields.FILES_ONLY_MARK):
                yield (*path, name)
            else:
                yield from _only_on_a_laptop(child, value[name], (*path, name))
    elif isinstance(value, list) and "items" in schema:
        for index, item in enumerate(value):
            yield from _only_on_a_laptop(schema["items"], item, (*path, index))
