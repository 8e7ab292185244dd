# SPDX-License-Identifier: Apache-2.0
"""Bytes of YAML files to a World, or every problem in them with file, line and field.

Called by the operator's file source and by offline commands. Reads no file itself. Refuses what another reader could see
differently (duplicate keys, tags, coerced scalars), what is not ours, and unknown fields; a problem never repeats a value.
"""

from __future__ import annotations

import dataclasses
import json
import pathlib
from collections.abc import Mapping
from typing import Any

import pydantic

from outrider import names, resources
from outrider.manifests import phrases, tree
from outrider.manifests.kubernetes import endpoint_addresses as endpoint_addresses
from outrider.manifests.kubernetes import kubernetes_object as kubernetes_object
from outrider.manifests.kubernetes import settings as settings
from outrider.manifests.problem import ManifestError as ManifestError
from outrider.manifests.problem import Problem as Problem
from outrider.resources import oauth

FILE_BYTES_MAX = 1_048_576
OBJECTS_MAX = 5_000


def load(files: Mapping[str, bytes], *, folder: str = "") -> resources.World:
    """The World of `files` (name to content); relative paths of credentials are joined to the absolute `folder`.

    Raises ManifestError with every problem, ordered by file and line.
    """
    loading = _Loading(folder=folder)
    for file in sorted(files):
        loading.file(file, files[file])
    if loading.problems:
        # A flaw of the YAML and what the model says about its consequence are one problem: the first is the cause.
        once = {
            (problem.file, problem.line, problem.field): problem for problem in reversed(loading.problems)
        }
        raise ManifestError(tuple(once[place] for place in sorted(once)))
    return loading.world()


@dataclasses.dataclass(slots=True)
class _Loading:
    """What has been read so far; `seen` maps (kind, namespace, name) to `file:line`."""

    folder: str
    problems: list[Problem] = dataclasses.field(default_factory=list)
    objects: list[resources.Placed[Any]] = dataclasses.field(default_factory=list)
    settings: resources.Settings | None = None
    seen: dict[tuple[str, str, str], str] = dataclasses.field(default_factory=dict)
    count: int = 0

    def file(self, file: str, content: bytes) -> None:
        if len(content) > FILE_BYTES_MAX:
            self.problems.append(
                Problem(file, 0, "", f"is larger than the {FILE_BYTES_MAX} bytes allowed; split it")
            )
            return
        documents, flaws = tree.read(content)
        self.problems += [Problem(file, flaw.line, flaw.field, flaw.message) for flaw in flaws]
        for document in documents:
            self.count += 1
            if self.count == OBJECTS_MAX + 1:
                self.problems.append(
                    Problem(file, document.line, "", f"more than {OBJECTS_MAX} objects in all")
                )
            if self.count <= OBJECTS_MAX:
                self._document(file, document)

    def _document(self, file: str, document: tree.Node) -> None:
        value = document.plain()
        problem = _not_ours(file, document, value)
        if problem:
            self.problems.append(problem)
            return
        kind = value["kind"]
        try:
            made = resources.KINDS[kind].model_validate_json(json.dumps(value))
        except pydantic.ValidationError as error:
            self.problems += phrases.problems(file, document, kind, error)
            self._once(file, document, kind, value.get("metadata"))
            return
        self._once(file, document, kind, value.get("metadata"))
        if isinstance(made, resources.Settings):
            self.settings = made
            return
        if isinstance(made, resources.MCPServer):
            made = self._with_absolute_paths(file, document, made)
        self.objects.append(resources.Placed(made, file, document.line))

    def _once(self, file: str, document: tree.Node, kind: str, metadata: Any) -> None:
        """Reports the second of two objects with one name, wherever the first is and whether or not it is sound."""
        if kind == "Settings":
            identity = (kind, "", "")
        elif isinstance(metadata, dict) and metadata.get("name") and metadata.get("namespace"):
            identity = (kind, str(metadata["namespace"]), str(metadata["name"]))
        else:
            return
        first = self.seen.setdefault(identity, f"{file}:{document.line}")
        if first != f"{file}:{document.line}":
            what = "Settings" if kind == "Settings" else f"{kind} {identity[1]}/{identity[2]}"
            field = "kind" if kind == "Settings" else "metadata.name"
            text = f"{what} is already at {first}; remove one of them"
            self.problems.append(Problem(file, document.line, field, text))

    def _with_absolute_paths(
        self, file: str, document: tree.Node, made: resources.MCPServer
    ) -> resources.MCPServer:
        """Relative paths of files joined to the folder; without a folder, a problem each."""
        listed = made.spec.credentials
        if listed is None:
            return made

        def absolute(given: pydantic.BaseModel, path: tree.Path) -> dict[str, Any]:
            """What is different in the same object with absolute paths, its own and those below it."""
            update: dict[str, Any] = {}
            for name, field in type(given).model_fields.items():
                value, below = getattr(given, name), (*path, field.alias or name)
                if isinstance(value, oauth.FileSource):
                    update[name] = self._absolute(file, document, value, (*below, "path"))
                elif isinstance(value, oauth.Value | oauth.Grant):
                    update[name] = value.model_copy(update=absolute(value, below))
            return update

        entries = tuple(
            entry.model_copy(update=absolute(entry, ("spec", "credentials", index)))
            for index, entry in enumerate(listed)
        )
        return made.model_copy(update={"spec": made.spec.model_copy(update={"credentials": entries})})

    def _absolute(
        self, file: str, document: tree.Node, given: oauth.FileSource, path: tree.Path
    ) -> oauth.FileSource:
        if given.path.startswith("/"):
            return given
        if not self.folder.startswith("/"):
            text = "is relative, and there is no folder to join it to; make it absolute"
            self.problems.append(Problem(file, document.line_of(path), phrases.dotted(path), text))
        return oauth.FileSource(path=str(pathlib.PurePosixPath(self.folder) / given.path))

    def world(self) -> resources.World:
        def of(kind: type) -> tuple[Any, ...]:
            mine = [placed for placed in self.objects if isinstance(placed.resource, kind)]
            mine.sort(key=lambda placed: (placed.resource.metadata.namespace, placed.resource.metadata.name))
            return tuple(mine)

        return resources.World(
            servers=of(resources.MCPServer),
            policies=of(resources.MCPToolPolicy),
            budgets=of(resources.MCPBudget),
            settings=self.settings or resources.World().settings,
        )


def _not_ours(file: str, document: tree.Node, value: Any) -> Problem | None:
    """The problem of a document that is not one of our objects."""
    if not isinstance(value, dict):
        return Problem(
            file, document.line, "", "is not an object: a document begins with apiVersion, kind, metadata"
        )
    for field, allowed in (("apiVersion", (names.API_VERSION,)), ("kind", tuple(sorted(resources.KINDS)))):
        if field not in value:
            return Problem(file, document.line, field, "required field is missing.", allowed)
        if value[field] not in allowed:
            return Problem(file, document.line_of((field,)), field, "is none of ours.", allowed)
    return None
