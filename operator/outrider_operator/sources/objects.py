# SPDX-License-Identifier: Apache-2.0
"""One object of the API server at a time -> what of it is in force, and what its status has to say.

Called by `kubernetes`. An object that is not valid changes nothing: its last valid generation stays in force. When that is not known,
because the operator has restarted since, what could take rights away is taken to do so: a Deny that cannot be read denies its
targets, a budget that cannot be read allows nothing of them, and everything else of the object is left out, which allows nothing
either (docs/decisions/0009).
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Iterator, Mapping
from typing import Any

from outrider import compile as compiler
from outrider import manifests, names, resources
from outrider.resources import fields, policy

Made = resources.MCPServer | resources.MCPToolPolicy | resources.MCPBudget

PLURALS = {"MCPServer": "mcpservers", "MCPToolPolicy": "mcptoolpolicies", "MCPBudget": "mcpbudgets"}
"""The kinds that are watched, and how the API server calls them."""

UNREADABLE = "unreadable"
"""The name of what stands in for something that could not be read; it is seen in audit and in answers."""


@dataclasses.dataclass(frozen=True, slots=True)
class Watched:
    """One object. `placed` is in force, None when nothing of it is; `problems` are those of `generation`.

    `instead` says what is in force in its place when there are problems. `status` is what the API server has.
    """

    kind: str
    namespace: str
    name: str
    uid: str
    generation: int
    status: Mapping[str, Any]
    placed: resources.Placed[Any] | None
    problems: tuple[manifests.Problem, ...] = ()
    instead: str = ""

    @property
    def object(self) -> compiler.Object:
        return self.kind, self.namespace, self.name


def trim(raw: Mapping[str, Any]) -> dict[str, Any]:
    """One of our objects, less what nothing here reads."""
    metadata = raw.get("metadata") or {}
    kept = ("name", "namespace", "uid", "generation", "resourceVersion")
    found: dict[str, Any] = {"metadata": {name: metadata[name] for name in kept if name in metadata}}
    return found | {name: raw[name] for name in ("spec", "status") if name in raw}


def trim_namespace(raw: Mapping[str, Any]) -> dict[str, Any]:
    """A namespace, less everything but our labels."""
    metadata = raw.get("metadata") or {}
    labels = metadata.get("labels") or {}
    ours = {name: value for name, value in labels.items() if name.startswith(f"{names.GROUP}/")}
    kept = {"name": metadata.get("name", ""), "resourceVersion": metadata.get("resourceVersion")}
    return {"metadata": {**kept, "labels": ours}}


class Shelf:
    """Every object known, as it was read last."""

    def __init__(self) -> None:
        self._read: dict[str, dict[tuple[str, str], Watched]] = {kind: {} for kind in PLURALS}

    def of(self, kind: str) -> Mapping[tuple[str, str], Watched]:
        """Objects of one kind by (namespace, name)."""
        return self._read[kind]

    def put(self, kind: str, raw: Mapping[str, Any]) -> Watched:
        """Reads an object. One whose generation is known keeps what was made of it, the very same."""
        metadata = raw.get("metadata") or {}
        namespace, name = str(metadata.get("namespace", "")), str(metadata.get("name", ""))
        given = raw.get("status")
        status = given if isinstance(given, Mapping) else {}
        before = self._read[kind].get((namespace, name))
        uid, generation = str(metadata.get("uid", "")), metadata.get("generation", 1)
        if before is not None and before.uid != uid:
            before = None
        if before is not None and before.generation == generation:
            made = dataclasses.replace(before, status=status)
        else:
            whole = {**raw, "apiVersion": names.API_VERSION, "kind": kind}
            read = manifests.kubernetes_object(whole)
            plain = Watched(kind, namespace, name, uid, generation, status, None)
            made = _refused(plain, before, whole, read) if isinstance(read, tuple) else _valid(plain, read)
        self._read[kind][namespace, name] = made
        return made

    def drop(self, kind: str, namespace: str, name: str) -> None:
        self._read[kind].pop((namespace, name), None)

    def placed(self, kind: str) -> tuple[resources.Placed[Any], ...]:
        """What is in force of one kind, in the order of (namespace, name)."""
        found = self._read[kind]
        return tuple(each.placed for key in sorted(found) if (each := found[key]).placed is not None)


def _valid(plain: Watched, made: Made) -> Watched:
    return dataclasses.replace(plain, placed=resources.Placed(made))


def _refused(
    plain: Watched, before: Watched | None, raw: Mapping[str, Any], problems: tuple[manifests.Problem, ...]
) -> Watched:
    if before is not None and before.placed is not None:
        in_force = before.placed.resource.metadata.generation
        if before.problems and before.instead:
            instead = before.instead
        else:
            instead = f"Generation {in_force} stays in force."
        return dataclasses.replace(plain, placed=before.placed, problems=problems, instead=instead)
    guard = guarded(raw)
    instead = {
        "MCPServer": "Nothing of it is in force, so the server cannot be called.",
        "MCPToolPolicy": "None of its Allows is in force, and what it denies stays denied.",
        "MCPBudget": "How much it allows is not known, so the calls it would count are refused.",
    }[plain.kind]
    placed: resources.Placed[Any] | None = None if guard is None else resources.Placed(guard)
    if guard is None and plain.kind != "MCPServer":
        instead = "Nothing of it is in force; it would have allowed or recorded only."
    return dataclasses.replace(plain, placed=placed, problems=problems, instead=instead)


def guarded(raw: Mapping[str, Any]) -> resources.MCPToolPolicy | resources.MCPBudget | None:
    """What has to be in force of an object that could not be read as a whole, so that nothing is allowed by that; None: nothing."""
    spec = raw.get("spec")
    given: Mapping[str, Any] = spec if isinstance(spec, Mapping) else {}
    name = str(raw["metadata"]["name"])
    if not names.is_label(name):
        name = f"{UNREADABLE}-{hashlib.sha256(name.encode()).hexdigest()[:12]}"
    metadata = {**raw["metadata"], "name": name}
    whole = {"apiVersion": raw["apiVersion"], "kind": raw["kind"], "metadata": metadata}
    if raw["kind"] == "MCPToolPolicy" and given.get("mode") != policy.Mode.AUDIT.value:
        rules = list(_denies(given.get("rules")))
        if len(rules) > _RULES_MAX:
            rules = [{"name": UNREADABLE, "effect": "Deny"}]
        made = {**whole, "spec": {"targetRefs": _targets(given), "rules": rules}}
    elif raw["kind"] == "MCPBudget" and given.get("onExceeded") != "Warn":
        none = {"name": UNREADABLE, "unit": "Calls", "quota": {"amount": "0", "period": "Day"}}
        rules = [none]
        made = {**whole, "spec": {"targetRefs": _targets(given), "limits": rules}}
    else:
        return None
    read = manifests.kubernetes_object(made) if rules else None
    assert not isinstance(read, tuple | resources.MCPServer), "what stands in for an object is valid"
    return read


def _denies(rules: Any) -> Iterator[dict[str, Any]]:
    """The Denies that can be read, and one of everything for each rule that may have been a Deny and cannot."""
    if not isinstance(rules, list) or not rules:
        yield {"name": UNREADABLE, "effect": "Deny"}
        return
    seen = set()
    for index, rule in enumerate(rules):
        if isinstance(rule, Mapping) and rule.get("effect") == "Allow":
            continue
        name = rule.get("name") if isinstance(rule, Mapping) else None
        if _sound(policy.PolicyRule, rule) and name not in seen:
            yield dict(rule)
            seen.add(name)
        else:
            yield {"name": f"{UNREADABLE}-{index}", "effect": "Deny"}


def _targets(spec: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The targets that can be read; when one cannot, every server the object could have meant besides."""
    given = spec.get("targetRefs")
    listed = given if isinstance(given, list) else []
    found = [dict(target) for target in listed if _sound(fields.TargetRef, target)]
    if not listed or len(found) < len(listed):
        found = [*found[: _TARGETS_MAX - 2], {"name": "*"}, {"namespace": "*", "name": "*"}]
    return found[:_TARGETS_MAX]


_TARGETS_MAX = 32
_RULES_MAX = 64


def _sound(model: type[fields.Model], value: Any) -> bool:
    """True when this part alone could be read."""
    try:
        model.model_validate_json(json.dumps(value))
    except (ValueError, TypeError):
        return False
    return True
