# SPDX-License-Identifier: Apache-2.0
"""A folder of YAML files as offline commands see it: its objects, its state, and what its servers are known to list.

Called by dev, can-i and explain. Reads and never writes. Refuses what the control plane would refuse, with the same
sentences: every problem with file, line and field.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import pathlib
from collections.abc import Mapping
from typing import Any

import msgspec

from outrider import call, catalog, identity, manifests, names, resources, snapshot, wire
from outrider_cli import output

STATE = ".outrider"
"""The folder inside the folder where `outrider dev` keeps everything that is not configuration."""

FILES_MAX = 1_000
DEFINITIONS_BYTES_MAX = 67_108_864

UNUSED_BRIDGE = "http://127.0.0.1:1/mcp"
"""Stands for a bridge nobody runs: offline commands decide about a server and never call it; a call to it reaches nobody."""

Definitions = Mapping[names.ServerId, catalog.Definitions]


@dataclasses.dataclass(frozen=True, slots=True)
class Held:
    """The configuration the proxy last accepted, from its state folder."""

    version: str
    snapshot: snapshot.Snapshot


class _Kept(msgspec.Struct):
    version: str
    content: msgspec.Raw


@dataclasses.dataclass(frozen=True, slots=True)
class Folder:
    """An existing folder, by its absolute path."""

    path: pathlib.Path

    @property
    def state(self) -> pathlib.Path:
        return self.path / STATE

    def world(self) -> resources.World:
        """Every object of the folder. Raises Stop with all problems."""
        try:
            return manifests.load(self._files(), folder=str(self.path))
        except manifests.ManifestError as error:
            for problem in error.problems:
                output.progress(str(problem))
            count = len(error.problems)
            raise output.Stop(
                output.USAGE,  # Not NO: nobody was told that a call is refused.
                f"{count} problem{'' if count == 1 else 's'} in {self.path}",
                why="nothing of a folder with problems is used",
                then="mend what is named above and run this again",
            ) from None

    def sound(self) -> resources.World | None:
        """Every object as the files are now; None while they have problems, which somebody else names."""
        try:
            return manifests.load(self._files(), folder=str(self.path))
        except (manifests.ManifestError, output.Stop):
            return None

    def stamp(self) -> frozenset[tuple[str, int, int, int]]:
        """Something else whenever a file was written, added or taken away; without reading any."""
        found = []
        with contextlib.suppress(OSError), os.scandir(self.path) as entries:
            for entry in entries:
                if entry.name.endswith((".yaml", ".yml")):
                    with contextlib.suppress(OSError):
                        seen = entry.stat()
                        found.append((entry.name, seen.st_mtime_ns, seen.st_ino, seen.st_size))
        return frozenset(found)

    def held(self) -> Held | None:
        """What the proxy enforces, or last enforced; None when none ever ran here or it cannot be read."""
        try:
            kept = msgspec.json.decode((self.state / "last-good.json").read_bytes(), type=_Kept)
            return Held(kept.version, wire.decode_snapshot(bytes(kept.content)))
        except (OSError, msgspec.DecodeError, wire.WireError):
            return None

    def _files(self) -> dict[str, bytes]:
        found: dict[str, bytes] = {}
        try:
            for path in sorted(self.path.iterdir()):
                if path.suffix in (".yaml", ".yml") and not path.name.startswith(".") and path.is_file():
                    with path.open("rb") as file:
                        found[path.name] = file.read(manifests.FILE_BYTES_MAX + 1)
        except OSError as error:
            raise output.Stop(
                output.UNREACHABLE, f"{self.path} cannot be read", why=error.strerror or str(error)
            ) from None
        if not found or len(found) > FILES_MAX:
            why = "it holds no *.yaml file" if not found else f"it holds more than {FILES_MAX} *.yaml files"
            raise output.Stop(
                output.USAGE,
                f"{self.path} is not a folder of Outrider's",
                why=why,
                then="name another with -f DIR",
            )
        return found


def at(path: str) -> Folder:
    """The folder that `-f` names. Raises Stop when there is none."""
    chosen = pathlib.Path(path).resolve()
    if not chosen.is_dir():
        raise output.Stop(
            output.USAGE, f"there is no folder {chosen}", then="name the folder of your *.yaml files with -f"
        )
    return Folder(chosen)


def bridges(world: resources.World, held: Held | None) -> dict[names.ServerId, str]:
    """A URL for every server that is a command: that of its running bridge where one is known."""
    known = {view.id: view.endpoint.url for view in held.snapshot.servers} if held else {}
    commands = [placed.resource for placed in world.servers if placed.resource.spec.endpoint.command]
    return {made.id: known.get(made.id, UNUSED_BRIDGE) for made in commands}


def workload(world: resources.World, text: str | None) -> tuple[str, str]:
    """(namespace, service account) of `--as`, or of the settings when it is left out. Raises Stop."""
    if text is not None:
        found = identity.workload_ref(text)
        if found is None:
            raise output.Stop(
                output.USAGE,
                f"{output.printable(text)!r} is no workload",
                then="write it as sa:NAMESPACE/NAME",
            )
        return found
    settings = world.settings.workload
    if settings is None:
        raise output.Stop(
            output.USAGE,
            "nobody to ask for",
            why="the settings name no workload",
            then="add --as sa:NAMESPACE/NAME",
        )
    return settings.namespace, settings.service_account


def definitions(folder: Folder, file: str | None) -> Definitions:
    """What servers list: of `file`, or as the running proxy saw it; empty when there is neither. Raises Stop."""
    if file is not None:
        return definitions_of(file)
    path = folder.state / "definitions.json"
    try:
        with path.open("rb") as opened:
            return _read(path, opened.read(DEFINITIONS_BYTES_MAX + 1))
    except OSError:
        return {}


def definitions_of(file: str) -> Definitions:
    """What servers list, of the file of `--definitions`; says what of it is left out. Raises Stop."""
    path = pathlib.Path(file)
    try:
        with path.open("rb") as opened:
            content = opened.read(DEFINITIONS_BYTES_MAX + 1)
    except OSError as error:
        raise output.Stop(
            output.USAGE,
            f"--definitions {path} cannot be read",
            why=error.strerror or str(error),
            then="name a file that is there, or leave --definitions out to use what was seen last",
        ) from None
    found = _read(path, content)
    for server, listed in found.items():
        for one in listed.dropped:  # what a proxy saw, it has reported itself
            why = output.printable(one.detail) or one.reason.doc
            output.progress(f"Note: {path}: {server} {output.printable(one.name)} is left out: {why}")
    return found


def _read(path: pathlib.Path, content: bytes) -> Definitions:
    try:
        return _definitions(content)
    except (ValueError, RecursionError) as error:
        raise output.Stop(
            output.USAGE,
            f"{path} does not hold definitions",
            why=str(error),
            then='write {"namespace/server": [tool, ...]} with tools as tools/list gives them, or '
            '{"namespace/server": {"tools": [...], "prompts": [...], "resources": [...], "resourceTemplates": [...]}}',
        ) from None


def _definitions(content: bytes) -> dict[names.ServerId, catalog.Definitions]:
    """Raises ValueError or RecursionError."""
    if len(content) > DEFINITIONS_BYTES_MAX:
        raise ValueError(f"it is larger than {DEFINITIONS_BYTES_MAX} bytes")
    value: Any = json.loads(content)
    if not isinstance(value, dict):
        raise ValueError("it is not a JSON object")  # noqa: TRY004 - the caller answers for every flaw alike
    found = {}
    for key, lists in value.items():
        server = names.server_id(key)
        if server is None:
            raise ValueError(f"{output.printable(key)!r} is not namespace/name")
        found[server] = _listed(server, {"tools": lists} if isinstance(lists, list) else lists)
    return found


_FORMS = {form.value: form for form in catalog.Form}
_NAMED_BY = {catalog.Form.RESOURCES: "uri", catalog.Form.TEMPLATES: "uriTemplate"}


def _listed(server: names.ServerId, lists: Any) -> catalog.Definitions:
    """One server's lists; a kind of which there is none has not been observed. Raises ValueError."""
    if not isinstance(lists, dict) or not lists or lists.keys() - _FORMS.keys():
        raise ValueError(f"{server} is neither a list of tools nor an object of {', '.join(_FORMS)}")
    read = {}
    for name, entries in lists.items():
        form = _FORMS[name]
        member = _NAMED_BY.get(form, "name")
        if not isinstance(entries, list) or not all(
            isinstance(entry, dict) and member in entry for entry in entries
        ):
            raise ValueError(f"{name} of {server} is not a list of definitions with a {member}")
        read[form] = catalog.read(form, (msgspec.json.encode(entry) for entry in entries))
    nothing = catalog.Listed((), ())
    kept = [read.get(form, nothing).kept for form in catalog.Form]
    return catalog.Definitions(
        kept[0], kept[1], kept[2], kept[3],
        dropped=tuple(one for each in read.values() for one in each.dropped),
        unobserved=frozenset(call.Kind) - {form.kind for form in read},
    )  # fmt: skip
