# SPDX-License-Identifier: Apache-2.0
"""Kubernetes objects in files, and the pods that are in them.

Called by `outrider inject`. Every document comes out again, whatever it is; only comments are lost. Refuses YAML that another
reader could understand differently (a key twice), and files that would grow without measure.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import yaml

FILE_BYTES_MAX = 10_485_760
VALUES_MAX = 500_000
"""Of one file, with every alias written out: a few lines of YAML could hold billions."""

_TEMPLATE = ("spec", "template")
PODS: Mapping[str, tuple[str, ...]] = {
    "Pod": (),
    "Deployment": _TEMPLATE,
    "StatefulSet": _TEMPLATE,
    "DaemonSet": _TEMPLATE,
    "ReplicaSet": _TEMPLATE,
    "ReplicationController": _TEMPLATE,
    "Job": _TEMPLATE,
    "CronJob": ("spec", "jobTemplate", *_TEMPLATE),
    "PodTemplate": ("template",),
}
"""Where the pod is in an object of a kind."""

_GROUPS = {"v1", "apps/v1", "batch/v1"}


class Unreadable(Exception):
    """The text is not a list of objects that everybody reads alike; says why."""


@dataclasses.dataclass(frozen=True, slots=True)
class Found:
    """A pod in an object: `path` leads to it, `label` names the object for people."""

    label: str
    path: tuple[str, ...]
    pod: Mapping[str, Any]


class _Loader(yaml.SafeLoader):
    """As Kubernetes reads YAML: dates are text, and a key that is there twice is a mistake."""


_Loader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in resolvers if tag != "tag:yaml.org,2002:timestamp"]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}


def _mapping(loader: _Loader, node: yaml.MappingNode) -> dict[Any, Any]:
    loader.flatten_mapping(node)
    made: dict[Any, Any] = {}
    for key_node, value_node in node.value:
        key = loader.construct_object(key_node, deep=True)
        line = key_node.start_mark.line + 1
        if not isinstance(key, str):
            raise Unreadable(f"line {line}: a key that is not text")
        if key in made:
            raise Unreadable(f"line {line}: the key {key!r} is there twice; keep one")
        made[key] = loader.construct_object(value_node, deep=True)
    return made


_Loader.add_constructor("tag:yaml.org,2002:map", _mapping)


def read(text: str) -> list[Any]:
    """The documents; empty ones left out. Raises Unreadable."""
    if len(text.encode("utf-8", "replace")) > FILE_BYTES_MAX:
        raise Unreadable(f"it is larger than {FILE_BYTES_MAX} bytes; split it")
    try:
        documents = [each for each in yaml.load_all(text, _Loader) if each is not None]
    except yaml.YAMLError as error:
        raise Unreadable(" ".join(str(error).split())[:300]) from None
    except RecursionError:
        raise Unreadable("it is nested without end") from None
    _measure(documents)
    return documents


def _measure(documents: list[Any]) -> None:
    """Raises Unreadable for what is too much when aliases are written out, or holds itself."""
    left, waiting = VALUES_MAX, list(documents)
    while waiting:
        each = waiting.pop()
        left -= 1
        if left < 0:
            raise Unreadable(f"it holds more than {VALUES_MAX} values; split it")
        if isinstance(each, dict):
            waiting.extend(each.values())
        elif isinstance(each, list):
            waiting.extend(each)


def pods(document: Any) -> Iterator[Found]:
    """The pod of an object, or of each object of a List."""
    if not isinstance(document, Mapping):
        return
    kind = document.get("kind")
    if isinstance(kind, str) and kind.endswith("List") and isinstance(document.get("items"), list):
        for index, item in enumerate(document["items"]):
            for found in pods(item):
                yield dataclasses.replace(found, path=("items", str(index), *found.path))
        return
    if not isinstance(kind, str) or kind not in PODS or document.get("apiVersion") not in _GROUPS:
        return
    at: Any = document
    for step in PODS[kind]:
        at = at.get(step) if isinstance(at, Mapping) else None
    if isinstance(at, Mapping):
        yield Found(_label(document), PODS[kind], at)


def _label(document: Mapping[str, Any]) -> str:
    metadata = document.get("metadata")
    about = metadata if isinstance(metadata, Mapping) else {}
    name = about.get("name") or about.get("generateName") or "without a name"
    namespace = about.get("namespace")
    return f"{document['kind']} {namespace}/{name}" if namespace else f"{document['kind']} {name}"


def replaced(document: Any, path: tuple[str, ...], pod: Mapping[str, Any]) -> Any:
    """The document with another pod in that place; nothing of what was given is changed."""
    if not path:
        return pod
    if isinstance(document, list):
        index = int(path[0])
        return [*document[:index], replaced(document[index], path[1:], pod), *document[index + 1 :]]
    return {**document, path[0]: replaced(document[path[0]], path[1:], pod)}


class _Dumper(yaml.SafeDumper):
    """Written out: no anchors, lines of text as lines, lists within their key as kubectl writes them."""

    def ignore_aliases(self, _data: Any) -> bool:
        return True


def _text(dumper: yaml.SafeDumper, text: str) -> yaml.Node:
    style = "|" if "\n" in text else None
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style=style)


_Dumper.add_representer(str, _text)


def as_yaml(documents: list[Any]) -> str:
    return yaml.dump_all(
        documents, Dumper=_Dumper, sort_keys=False, allow_unicode=True, default_flow_style=False, width=10_000
    )


def as_json(documents: list[Any]) -> str:
    """One object as it is, several as a List, so that kubectl takes either."""
    whole = documents[0] if len(documents) == 1 else {"apiVersion": "v1", "kind": "List", "items": documents}
    return json.dumps(whole, indent=2, ensure_ascii=False) + "\n"


WRITTEN: Mapping[str, Callable[[list[Any]], str]] = {"yaml": as_yaml, "json": as_json}
