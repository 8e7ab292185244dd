# SPDX-License-Identifier: Apache-2.0
"""Writes what the charts hold of the code: `python -m charts.generate` (part of `make generate`).

The kinds and their field policies are copies of crds/, and the `settings` of values.schema.json are the model's own schema. The rest
of values.schema.json is written by hand and kept. tests/test_charts.py fails when this was forgotten.
"""

from __future__ import annotations

import json
import pathlib
from typing import Any

from outrider.resources import fields, schemas

ROOT = pathlib.Path(__file__).resolve().parents[1]
CHART = pathlib.Path("charts/outrider")
WRITTEN_BY_THE_CHART = {"apiVersion", "kind", "injection.image", "injection.imagePullPolicy"}
"""Fields of the settings that the template fills: a value for them would be a second place to say the same."""
_NOT_FOR_HELM = ("title", "default")


def files() -> dict[pathlib.Path, str]:
    """Path from the repository's root -> text."""
    made = {CHART / "files" / "crds" / path.name: path.read_text() for path in (ROOT / "crds").glob("*.yaml")}
    schema = json.loads((ROOT / CHART / "values.schema.json").read_text())
    schema["properties"]["settings"] = settings()
    made[CHART / "values.schema.json"] = json.dumps(schema, indent=2, ensure_ascii=False) + "\n"
    return made


def settings() -> dict[str, Any]:
    """JSON schema of what a person may set of the Settings."""
    return {**_allowed(schemas.schema("Settings"), ""), "examples": [{"currency": "EUR"}]}


def _allowed(node: Any, path: str) -> Any:
    if isinstance(node, list):
        return [_allowed(item, path) for item in node]
    if not isinstance(node, dict):
        return node
    node = {key: value for key, value in schemas.plain(node).items() if key not in _NOT_FOR_HELM}
    made = {key: _allowed(value, path) for key, value in node.items() if key != "properties"}
    if "properties" in node:
        kept = {
            name: _allowed(child, f"{path}{name}.")
            for name, child in node["properties"].items()
            if path + name not in WRITTEN_BY_THE_CHART and not child.get(fields.FILES_ONLY_MARK)
        }
        made["properties"] = kept
        made["required"] = [name for name in node.get("required", ()) if name in kept]
    return {key: value for key, value in made.items() if not key.startswith("x-") and value != []}


def main() -> None:
    """Writes what differs, and removes copies of files that are no longer there."""
    made = files()
    for stale in set((ROOT / CHART / "files" / "crds").glob("*")) - {ROOT / path for path in made}:
        stale.unlink()
    for path, text in made.items():
        (ROOT / path).write_text(text)


if __name__ == "__main__":
    main()
